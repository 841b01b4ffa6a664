-- What is said of this store as a whole: `unfinished` while it is copied into, `moved` once another
-- has taken its place, `witnessed` since a file outside of it says how far it has come.
CREATE TABLE fences (
    name TEXT PRIMARY KEY,
    says TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Who has written into this store, and how many transactions each has made. A file outside of it
-- has the last one: a store in which it is missing was put back from a backup.
CREATE TABLE processes (
    id BLOB PRIMARY KEY,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Backups that were put back: when, and the lowest version of the trust lists since.
CREATE TABLE restores (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    trust_next INTEGER NOT NULL
) STRICT;
