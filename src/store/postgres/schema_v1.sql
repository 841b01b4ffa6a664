-- Version 1.
--
-- Keys are what they stand for: ids the server makes (uuid) and names others give (text). Nothing
-- here counts by itself. Statuses: 0 active, 1 suspended. Times: seconds since
-- 1970-01-01T00:00:00Z. Bodies are CBOR, under the number of their format.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE fleets (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    tag BIGINT NOT NULL UNIQUE,
    status BIGINT NOT NULL,
    status_key BYTEA NOT NULL,
    open_redemption BOOLEAN NOT NULL,
    signing BIGINT,
    -- Counts changes of how what belongs to it stands. Who relies on that holds this row shared,
    -- who changes it holds it alone.
    standing BIGINT NOT NULL
);

-- Fleets' counters of status indexes. Apart from the fleets, whose rows are held shared.
CREATE TABLE status_counters (
    fleet UUID PRIMARY KEY,
    next BIGINT NOT NULL
);

CREATE TABLE functions (
    fleet UUID NOT NULL,
    code BIGINT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (fleet, code),
    UNIQUE (fleet, name)
);

-- `functions`: CBOR array of codes. `key`: SEC 1 point (65 bytes) or Ed25519 (32).
CREATE TABLE vehicles (
    fleet UUID NOT NULL,
    id TEXT NOT NULL,
    status BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    model TEXT NOT NULL,
    functions BYTEA NOT NULL,
    owner TEXT,
    key BYTEA,
    PRIMARY KEY (fleet, id)
);

-- `licences`: CBOR array of [class, expiry]. `hold`: why it gets no keys for now, 1 payment,
-- 2 insurance; null where it does.
CREATE TABLE identities (
    fleet UUID NOT NULL,
    id TEXT NOT NULL,
    status BIGINT NOT NULL,
    licences BYTEA NOT NULL,
    hold BIGINT,
    PRIMARY KEY (fleet, id)
);

CREATE TABLE terminals (
    fleet UUID NOT NULL,
    id TEXT NOT NULL,
    status BIGINT NOT NULL,
    identity TEXT NOT NULL,
    key BYTEA NOT NULL,
    PRIMARY KEY (fleet, id)
);

CREATE TABLE tokens (
    id UUID PRIMARY KEY,
    fleet UUID NOT NULL,
    hash BYTEA NOT NULL,
    scopes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

-- `state`: 0 prepared, 1 active, 2 retired, 3 revoked. `key`: COSE_Key. `place`: in which order
-- they came.
CREATE TABLE epochs (
    id BYTEA PRIMARY KEY,
    place BIGINT NOT NULL UNIQUE,
    state BIGINT NOT NULL,
    key BYTEA NOT NULL,
    cka_id BYTEA NOT NULL,
    token_serial TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    activated_at BIGINT
);

CREATE TABLE trust_lists (
    version BIGINT PRIMARY KEY,
    body BYTEA NOT NULL
);

-- What was done to epochs, roots and operators: a compact JWS each, with the digest of the one
-- before it. Rows are added and never changed.
CREATE TABLE records (
    number BIGINT PRIMARY KEY,
    jws TEXT NOT NULL
);

-- `amendments` counts amendments; `epochs` is held by whoever changes epochs or trust lists.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

INSERT INTO counters VALUES ('amendments', 0), ('epochs', 0);

-- `state`: 0 open, 1 redeemed, 2 suspended, 3 cancelled. `bundle`: issued on it. `ends`: when
-- everything about it is over. `revision`: which amendment of all was its last. `code_set`: CBOR
-- [version, functions] of the code set it was redeemed with, where a change has come since.
CREATE TABLE authorizations (
    id UUID PRIMARY KEY,
    fleet UUID NOT NULL,
    vehicle TEXT NOT NULL,
    version BIGINT NOT NULL,
    state BIGINT NOT NULL,
    pin_attempts BIGINT NOT NULL,
    bundle UUID,
    not_after BIGINT NOT NULL,
    redeem_by BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    revision BIGINT,
    code_set BYTEA,
    format BIGINT NOT NULL,
    body BYTEA NOT NULL
);

CREATE INDEX authorizations_by_fleet ON authorizations (fleet, id);

CREATE INDEX authorizations_by_vehicle ON authorizations (fleet, vehicle, id);

CREATE INDEX authorizations_by_end ON authorizations (ends);

-- The signed commands of new authorizations, as evidence.
CREATE TABLE commands (
    authorization_id UUID NOT NULL,
    version BIGINT NOT NULL,
    command TEXT NOT NULL,
    PRIMARY KEY (authorization_id, version)
);

-- Requests that were answered: SHA-256 over who asked, and of what was asked. Those that amended
-- also say when, with the signed command as evidence, and what was answered; `authorization_id` is
-- null for the reset of a vehicle.
CREATE TABLE requests (
    scope BYTEA PRIMARY KEY,
    digest BYTEA NOT NULL,
    authorization_id UUID,
    made_at BIGINT NOT NULL,
    command TEXT,
    outcome BYTEA
);

CREATE INDEX requests_by_authorization ON requests (authorization_id);

-- What many bundles have in common, each thing once: the first half of the SHA-256 of its bytes.
CREATE TABLE contexts (
    id UUID PRIMARY KEY,
    body BYTEA NOT NULL
);

-- Every version of every bundle. `author`: the token of an order. `issuer` and `subjects`: contexts.
CREATE TABLE bundles (
    id UUID NOT NULL,
    version BIGINT NOT NULL,
    fleet UUID NOT NULL,
    authorization_id UUID NOT NULL,
    vehicle TEXT NOT NULL,
    identity TEXT NOT NULL,
    epoch BYTEA NOT NULL,
    author UUID,
    terminal TEXT,
    issuer UUID NOT NULL,
    subjects UUID NOT NULL,
    ends BIGINT NOT NULL,
    format BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (id, version)
);

CREATE INDEX bundles_by_identity ON bundles (fleet, identity);

CREATE INDEX bundles_by_epoch ON bundles (epoch, id);

CREATE INDEX orders_by_fleet ON bundles (fleet, id) WHERE author IS NOT NULL;

CREATE INDEX orders_by_vehicle ON bundles (fleet, vehicle, id) WHERE author IS NOT NULL;

CREATE INDEX orders_by_end ON bundles (ends) WHERE author IS NOT NULL;

-- Orders that were answered, those of a transaction together for each `call`: SHA-256 over the fleet
-- and the `Idempotency-Key`. `orders`: reference (16 bytes), digest (16) and bundle (16) of
-- each. `number` counts the rows of a call: whoever writes one has read all before it. `ends`: when
-- all of them are over.
CREATE TABLE answered (
    call BYTEA NOT NULL,
    number BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    orders BYTEA NOT NULL,
    PRIMARY KEY (call, number)
);

CREATE INDEX answered_by_end ON answered (ends);

-- Keys that are not valid, by fleet tag, list and index. `status`: 1 revoked, 2 suspended.
-- `reasons`: why it is suspended, 1 its function, 2 its authorization, 4 its identity, 8 its vehicle,
-- added up.
CREATE TABLE statuses (
    tag BIGINT NOT NULL,
    shard BIGINT NOT NULL,
    place BIGINT NOT NULL,
    status BIGINT NOT NULL,
    reasons BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    PRIMARY KEY (tag, shard, place)
);

CREATE INDEX statuses_by_end ON statuses (ends);

-- When each status list was last signed, and when the last of those that were given out ends; what
-- was given out last, by which epoch, up to which amendment it says everything, and SHA-256 of what
-- it says.
CREATE TABLE status_lists (
    tag BIGINT NOT NULL,
    shard BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revision BIGINT,
    epoch BYTEA,
    content BYTEA,
    body BYTEA,
    PRIMARY KEY (tag, shard)
);

-- When cars were heard last, by their clocks; what they were sent last, and what they have
-- acknowledged: SHA-256 of the sync, the count of amendments and the time it was made at.
CREATE TABLE contacts (
    fleet UUID NOT NULL,
    vehicle TEXT NOT NULL,
    heard_at BIGINT NOT NULL,
    sent BYTEA NOT NULL,
    sent_revision BIGINT NOT NULL,
    sent_at BIGINT NOT NULL,
    acked BYTEA,
    acked_revision BIGINT,
    acked_at BIGINT,
    PRIMARY KEY (fleet, vehicle)
);

-- What each fleet rules, every version of it, as JSON. The newest holds.
CREATE TABLE rules (
    fleet UUID NOT NULL,
    version BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (fleet, version)
);

-- What those who administer a fleet have decided: who, when and why. Rows are added and never
-- changed. `act`: what it was, in a word; `object`: of what.
CREATE TABLE acts (
    fleet UUID NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    by TEXT NOT NULL,
    act TEXT NOT NULL,
    object TEXT NOT NULL,
    why TEXT,
    PRIMARY KEY (fleet, number)
);

-- What is frozen: a vehicle, or the whole fleet where it is empty.
CREATE TABLE brakes (
    fleet UUID NOT NULL,
    vehicle TEXT NOT NULL,
    since BIGINT NOT NULL,
    by TEXT NOT NULL,
    why TEXT,
    PRIMARY KEY (fleet, vehicle)
);

-- The day of each fleet's quota: days since 1970, the fleet's counter of keys when it began, and
-- what was approved beyond the quota.
CREATE TABLE quotas (
    fleet UUID PRIMARY KEY,
    day BIGINT NOT NULL,
    base BIGINT NOT NULL,
    approved BIGINT NOT NULL
);

-- What only one node does at a time, who does it, and until when by this database's clock. `number`
-- grows with each taking: what is done under a lease is committed under its number and no other.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    holder UUID,
    ends TIMESTAMPTZ NOT NULL
);

INSERT INTO leases (name, number, ends) VALUES ('keeping', 0, now()), ('lists', 0, now());

-- Fleets that somebody waits to hold alone, and until when others step back.
CREATE TABLE turns (
    fleet UUID PRIMARY KEY,
    ends TIMESTAMPTZ NOT NULL
);

-- Nodes that serve, and when each was there last.
CREATE TABLE nodes (
    id UUID PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    began TIMESTAMPTZ NOT NULL,
    seen TIMESTAMPTZ NOT NULL
);

-- What transactions have changed that books hold: names of rows, as CBOR. `writers` has the number
-- of the last one of each process. A process commits one transaction after the other, so whoever
-- sees one of its numbers sees all below it.
CREATE TABLE writers (
    process UUID PRIMARY KEY,
    number BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);

CREATE TABLE changes (
    process UUID NOT NULL,
    number BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    body BYTEA NOT NULL,
    PRIMARY KEY (process, number)
);

CREATE INDEX changes_by_time ON changes (at);

-- One row for each transaction: which of which process. It tells a process that lost its connection
-- whether its last one took place.
CREATE TABLE transactions (
    process UUID NOT NULL,
    number BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (process, number)
);

CREATE INDEX transactions_by_time ON transactions (at);
