-- What is said of this store as a whole: `unfinished` while it is copied into, `moved` once another
-- has taken its place, `witnessed` since a file outside of it says how far it has come.
CREATE TABLE fences (
    name TEXT PRIMARY KEY,
    says TEXT NOT NULL
);

-- Backups that were put back: when, and the lowest version of the trust lists since.
CREATE TABLE restores (
    number BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    trust_next BIGINT NOT NULL
);
