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
