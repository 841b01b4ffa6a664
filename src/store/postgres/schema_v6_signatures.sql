-- Signatures counted, by epoch and by the process that had them made: no two processes write the
-- same row. The process says `signed` to `in_flight_max`, and whether it has ended; `keys` to `gone`
-- are counted with what is committed.
CREATE TABLE signatures (
    epoch BYTEA NOT NULL,
    process UUID NOT NULL,
    signed BIGINT NOT NULL,
    synced BIGINT NOT NULL,
    tried BIGINT NOT NULL,
    given_up BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    in_flight_max BIGINT NOT NULL,
    keys BIGINT NOT NULL,
    trees BIGINT NOT NULL,
    lists BIGINT NOT NULL,
    versions BIGINT NOT NULL,
    gone BIGINT NOT NULL,
    ended BOOLEAN NOT NULL,
    PRIMARY KEY (epoch, process)
);

-- What was signed so far was not counted.
INSERT INTO signatures SELECT id, '00000000-0000-0000-0000-000000000000'::uuid,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, true FROM epochs WHERE activated_at IS NOT NULL;
