-- What becomes of keys after they were issued.

-- `revision`: which amendment of all was its last; null where there was none. `code_set`: CBOR
-- [version, functions] of the code set it was redeemed with, where a change has come since.
ALTER TABLE authorizations ADD COLUMN revision INTEGER;
ALTER TABLE authorizations ADD COLUMN code_set BLOB;

-- The one row counts amendments.
CREATE TABLE revisions (
    number INTEGER PRIMARY KEY CHECK (number = 0),
    value INTEGER NOT NULL
) STRICT;

INSERT INTO revisions VALUES (0, 0);

-- Bundles issued again at a later version; the first issue stays in its pack. `body` as there.
CREATE TABLE reissues (
    authorization BLOB NOT NULL,
    version INTEGER NOT NULL,
    fleet INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    format INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (authorization, version)
) STRICT, WITHOUT ROWID;

-- Requests that amended: the whole scope (32 bytes), digest (32), the signed command as evidence,
-- and what was answered. `authorization` is null for the reset of a vehicle.
CREATE TABLE amendments (
    scope BLOB PRIMARY KEY,
    digest BLOB NOT NULL,
    authorization BLOB,
    made_at INTEGER NOT NULL,
    command TEXT,
    outcome BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX amendments_by_authorization ON amendments (authorization);

-- Keys that are not valid, by fleet tag, list and index. `status`: 1 revoked, 2 suspended.
-- `ends`: the span of 2^16 seconds in which the key expires.
CREATE TABLE statuses (
    tag INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    status INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    PRIMARY KEY (tag, shard, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX statuses_by_end ON statuses (ends);

-- When each status list was last signed.
CREATE TABLE status_lists (
    tag INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    PRIMARY KEY (tag, shard)
) STRICT, WITHOUT ROWID;

-- When cars were heard last, by their clocks; what they were sent last, and what they have
-- acknowledged: SHA-256 of the sync, the count of
-- amendments and the time it was made at.
CREATE TABLE contacts (
    vehicle INTEGER PRIMARY KEY,
    heard_at INTEGER NOT NULL,
    sent BLOB NOT NULL,
    sent_revision INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    acked BLOB,
    acked_revision INTEGER,
    acked_at INTEGER
) STRICT;
