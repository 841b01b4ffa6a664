-- Signatures counted, by epoch and by the process that had them made. The process says `signed` to
-- `in_flight_max`, and whether it has ended; `keys` to `gone` are counted with what is committed.
CREATE TABLE signatures (
    epoch BLOB NOT NULL,
    process BLOB NOT NULL,
    signed INTEGER NOT NULL,
    synced INTEGER NOT NULL,
    tried INTEGER NOT NULL,
    given_up INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    in_flight_max INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    trees INTEGER NOT NULL,
    lists INTEGER NOT NULL,
    versions INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    PRIMARY KEY (epoch, process)
) STRICT, WITHOUT ROWID;

-- What was signed so far was not counted.
INSERT INTO signatures SELECT id, zeroblob(16), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1
FROM epochs WHERE activated_at IS NOT NULL;

-- Status lists as they were given out last: up to which amendment they say everything, who signed
-- them, the token. Null where that is not known.
ALTER TABLE status_lists ADD COLUMN revision INTEGER;
ALTER TABLE status_lists ADD COLUMN epoch BLOB;
ALTER TABLE status_lists ADD COLUMN body BLOB;
