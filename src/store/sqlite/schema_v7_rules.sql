-- What each fleet rules, every version of it, as JSON. The newest holds.
CREATE TABLE rules (
    fleet INTEGER NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (fleet, version)
) STRICT, WITHOUT ROWID;

-- What those who administer a fleet have decided: who, when and why. Rows are added and never
-- changed. `act`: what it was, in a word; `object`: of what.
CREATE TABLE acts (
    number INTEGER PRIMARY KEY,
    fleet INTEGER NOT NULL,
    at INTEGER NOT NULL,
    by TEXT NOT NULL,
    act TEXT NOT NULL,
    object TEXT NOT NULL,
    why TEXT
) STRICT;

-- Why an identity gets no keys for now: 1 payment, 2 insurance; null where it does.
ALTER TABLE identities ADD COLUMN hold INTEGER;

-- What is frozen: a vehicle, or the whole fleet where it is empty.
CREATE TABLE brakes (
    fleet INTEGER NOT NULL,
    vehicle TEXT NOT NULL,
    since INTEGER NOT NULL,
    by TEXT NOT NULL,
    why TEXT,
    PRIMARY KEY (fleet, vehicle)
) STRICT, WITHOUT ROWID;

-- The day of each fleet's quota: days since 1970, the fleet's counter of keys when it began, and
-- what was approved beyond the quota.
CREATE TABLE quotas (
    fleet INTEGER PRIMARY KEY,
    day INTEGER NOT NULL,
    base INTEGER NOT NULL,
    approved INTEGER NOT NULL
) STRICT;
