-- By which version of its rules every key of a fleet stands; no row is 0.
CREATE TABLE followed (
    fleet UUID PRIMARY KEY,
    version BIGINT NOT NULL
);
