-- When an epoch became active.
ALTER TABLE epochs ADD COLUMN activated_at INTEGER;

-- What was done to epochs, roots and operators: a compact JWS each, with the digest of the one
-- before it. Rows are added and never changed.
CREATE TABLE records (
    number INTEGER PRIMARY KEY,
    jws TEXT NOT NULL
) STRICT;
