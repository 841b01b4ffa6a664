-- Version 2.
--
-- `number` stands for a long name wherever rows refer to each other: it is short, and meaningless
-- outside this file. Statuses: 0 active, 1 suspended. Times: seconds since 1970-01-01T00:00:00Z.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE fleets (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    tag INTEGER NOT NULL UNIQUE,
    status INTEGER NOT NULL,
    status_key BLOB NOT NULL,
    status_next INTEGER NOT NULL,
    open_redemption INTEGER NOT NULL,
    signing INTEGER
) STRICT;

CREATE TABLE functions (
    fleet INTEGER NOT NULL,
    code INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (fleet, code),
    UNIQUE (fleet, name)
) STRICT, WITHOUT ROWID;

-- `functions`: CBOR array of codes. `key`: SEC 1 point (65 bytes) or Ed25519 (32).
CREATE TABLE vehicles (
    number INTEGER PRIMARY KEY,
    fleet INTEGER NOT NULL,
    id TEXT NOT NULL,
    status INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    model TEXT NOT NULL,
    functions BLOB NOT NULL,
    owner TEXT,
    key BLOB,
    UNIQUE (fleet, id)
) STRICT;

-- `licences`: CBOR array of [class, expiry].
CREATE TABLE identities (
    number INTEGER PRIMARY KEY,
    fleet INTEGER NOT NULL,
    id TEXT NOT NULL,
    status INTEGER NOT NULL,
    licences BLOB NOT NULL,
    UNIQUE (fleet, id)
) STRICT;

CREATE TABLE terminals (
    fleet INTEGER NOT NULL,
    id TEXT NOT NULL,
    status INTEGER NOT NULL,
    identity TEXT NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (fleet, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id BLOB PRIMARY KEY,
    fleet INTEGER NOT NULL,
    hash BLOB NOT NULL,
    scopes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- `state`: 0 prepared, 1 active, 2 retired, 3 revoked. `key`: COSE_Key.
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    key BLOB NOT NULL,
    cka_id BLOB NOT NULL,
    token_serial TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE trust_lists (
    version INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- `state`: 0 open, 1 redeemed, 2 suspended, 3 cancelled. `bundle`: place of the bundle issued on
-- it, see `packs`. `request`: scope and digest of what may be sent again, 64 bytes. `segment`: see below.
CREATE TABLE authorizations (
    id BLOB PRIMARY KEY,
    fleet INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    vehicle INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    pin_attempts INTEGER NOT NULL,
    bundle INTEGER,
    not_after INTEGER NOT NULL,
    redeem_by INTEGER NOT NULL,
    request BLOB,
    format INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX authorizations_by_fleet ON authorizations (fleet, id);

-- An index over vehicles alone would be written to in as many places as a transaction has
-- vehicles, a page each. Authorizations are therefore counted into segments of neighbouring ids,
-- and within one the places are few. Whoever looks up a vehicle looks into each segment.
CREATE TABLE segments (
    number INTEGER PRIMARY KEY,
    first BLOB NOT NULL
) STRICT;

CREATE INDEX authorizations_by_vehicle ON authorizations (segment, vehicle, id);

-- By the span of 2^16 seconds (18 hours) in which everything about it is over: times as they
-- come would be as many places to write to.
CREATE INDEX authorizations_by_end ON authorizations (max(not_after, redeem_by) >> 16, id);

-- The signed commands, as evidence.
CREATE TABLE commands (
    authorization BLOB NOT NULL,
    version INTEGER NOT NULL,
    command TEXT NOT NULL,
    PRIMARY KEY (authorization, version)
) STRICT, WITHOUT ROWID;

-- Finds the authorization whose `request` begins with these 8 bytes (big-endian, signed).
CREATE TABLE requests (
    scope INTEGER NOT NULL,
    authorization BLOB NOT NULL,
    PRIMARY KEY (scope, authorization)
) STRICT, WITHOUT ROWID;

-- What many bundles have in common, each thing once: CBOR, by its bytes.
CREATE TABLE contexts (
    number INTEGER PRIMARY KEY,
    body BLOB NOT NULL UNIQUE
) STRICT;

-- Up to 64 bundles of one fleet and epoch whose ids were made in the same millisecond, in one
-- piece: a row for each would cost more than all the rest. `first`: the lowest of their ids. The
-- place of a bundle is `number << 6 | its position`. `segment`: where the index tables below have
-- them. `ends`: the span of 2^16 seconds in which the first of the orders among them is over.
CREATE TABLE packs (
    number INTEGER PRIMARY KEY,
    fleet INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    first BLOB NOT NULL,
    ends INTEGER,
    format INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX packs_by_fleet ON packs (fleet, first);

CREATE INDEX packs_by_first ON packs (first);

CREATE INDEX packs_by_epoch ON packs (epoch);

CREATE INDEX packs_by_end ON packs (ends) WHERE ends IS NOT NULL;

-- Segments again, of about 2^14 bundles as they come, for the same reason as above.
CREATE TABLE bundles_by_identity (
    segment INTEGER NOT NULL,
    identity INTEGER NOT NULL,
    bundle INTEGER NOT NULL,
    PRIMARY KEY (segment, identity, bundle)
) STRICT, WITHOUT ROWID;

-- Orders alone: the others are found by their authorization.
CREATE TABLE orders_by_vehicle (
    segment INTEGER NOT NULL,
    vehicle INTEGER NOT NULL,
    bundle INTEGER NOT NULL,
    PRIMARY KEY (segment, vehicle, bundle)
) STRICT, WITHOUT ROWID;

-- An `Idempotency-Key` under which orders came.
CREATE TABLE calls (
    number INTEGER PRIMARY KEY,
    scope BLOB NOT NULL UNIQUE
) STRICT;

-- The orders of a call that were answered in one transaction: reference (16 bytes), digest (16)
-- and bundle (16) of each. `transaction_number` is any that ascends; `ends`: the span of 2^16
-- seconds in which all of them are over.
CREATE TABLE answered (
    call INTEGER NOT NULL,
    transaction_number INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    orders BLOB NOT NULL,
    PRIMARY KEY (call, transaction_number)
) STRICT, WITHOUT ROWID;

CREATE INDEX answered_by_end ON answered (ends);
