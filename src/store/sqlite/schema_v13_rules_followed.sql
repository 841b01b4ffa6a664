-- By which version of its rules every key of a fleet stands; no row is 0.
CREATE TABLE followed (
    fleet INTEGER PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;
