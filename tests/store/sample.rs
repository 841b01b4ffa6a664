//! A small world for stores: one fleet with what a redemption rests on, and makers of the rest.

use std::sync::Arc;

use fob::domain::change::Followed;
use fob::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, Bundle, BundleId, Epoch, EpochId,
    EpochState, Fleet, FleetId, FleetName, FleetSettings, Identity, IdentityId, KeyRecord, Licence,
    Recipient, Restrictions, Scope, ShardId, Status, Subject, Terminal, TerminalId, Token, TokenId,
    Vehicle, VehicleId, Window,
};
use fob::store::{
    Applied, AuthorizationFilter, Listed, Made, NewAuthorization, Order, OrderRequest, Proof,
    Redemption, ReliedOn, Request, Row, SignedBundle, SignedList, SignedSoFar, Store, Suspension,
    TreeProof, Write,
};
use fob_verify::{Algorithm, HolderKey, IssuerKey, PublicKey};

pub(super) const FLEET: FleetId = FleetId([0xf1; 16]);
pub(super) const OTHER_FLEET: FleetId = FleetId([0xf2; 16]);

pub(super) fn vehicle_id(name: &str) -> VehicleId {
    VehicleId::parse(name).unwrap()
}

pub(super) fn identity_id(name: &str) -> IdentityId {
    IdentityId::parse(name).unwrap()
}

pub(super) fn terminal_id(name: &str) -> TerminalId {
    TerminalId::parse(name).unwrap()
}

/// A P-256 key of that scalar.
pub(super) fn holder(scalar: u8) -> HolderKey {
    HolderKey::new(p256(scalar))
}

fn p256(scalar: u8) -> PublicKey {
    let secret = p256::ecdsa::SigningKey::from_slice(&[scalar; 32]).unwrap();
    PublicKey::from_sec1(secret.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
}

/// The Ed25519 key of RFC 8032 §7.1, test 1.
pub(super) fn ed25519() -> PublicKey {
    let x = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07,
        0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07,
        0x51, 0x1a,
    ];
    PublicKey::ed25519(&x).unwrap()
}

pub(super) fn fleet(id: FleetId, name: &str, tag: u32) -> Fleet {
    Fleet {
        id,
        name: FleetName::parse(name).unwrap(),
        status: Status::Active,
        tag,
        status_key: [0x5a; 32],
        status_next: 0,
        settings: FleetSettings::default(),
    }
}

pub(super) fn vehicle(id: &str) -> Vehicle {
    Vehicle {
        fleet: FLEET,
        id: vehicle_id(id),
        model: "Model Ä".into(),
        functions: vec![1, 3, 300],
        owner: Some(identity_id("ben")),
        key: Some(holder(3)),
        epoch: 4,
        status: Status::Active,
    }
}

pub(super) fn identity(id: &str) -> Identity {
    Identity {
        fleet: FLEET,
        id: identity_id(id),
        status: Status::Active,
        hold: None,
        proved: Some(1_700_000_000),
        licences: vec![Licence {
            class: "C1E".into(),
            expires: 4_070_908_800,
        }],
    }
}

pub(super) fn terminal(id: &str, of: &str) -> Terminal {
    Terminal {
        fleet: FLEET,
        id: terminal_id(id),
        identity: identity_id(of),
        key: holder(4),
        status: Status::Active,
        since: 1_700_000_001,
        attested: None,
    }
}

pub(super) fn token(id: u8) -> Token {
    Token {
        id: TokenId([id; 16]),
        fleet: FLEET,
        hash: [id; 32],
        scopes: [Scope::Issue, Scope::Read].into_iter().collect(),
        created_at: 40,
        expires_at: None,
        revoked_at: None,
        used_at: None,
    }
}

pub(super) fn epoch(scalar: u8, state: EpochState) -> Epoch {
    let key = IssuerKey::new(Algorithm::Esp256, p256(scalar)).unwrap();
    Epoch {
        id: EpochId(key.kid()),
        key,
        cka_id: [scalar; 16],
        token_serial: "0123456789abcdef".into(),
        window: Window {
            not_before: 10,
            not_after: 4_000_000_000,
        },
        state,
        created_at: 9,
        activated_at: (state != EpochState::Prepared).then_some(10),
    }
}

/// Fleet `FLEET`, vehicles `V-1` and `V-2` at epoch 4, identities `anna` and `ben`, Ben's terminal
/// `phone`, the active epoch of scalar 9.
pub(super) fn world() -> Vec<Write> {
    vec![
        Write::NewFleet(fleet(FLEET, "first", 1)),
        Write::Vehicle(vehicle("V-1")),
        Write::Vehicle(vehicle("V-2")),
        Write::Identity(identity("anna")),
        Write::Identity(identity("ben")),
        Write::Terminal(terminal("phone", "ben")),
        Write::Epoch(epoch(9, EpochState::Active)),
    ]
}

pub(super) fn authorization_id(number: u8) -> AuthorizationId {
    let mut id = [0; 16];
    id[0] = 1;
    id[15] = number;
    AuthorizationId(id)
}

/// An open authorization of `V-1`, functions 1 and 3, from 100 to 200, to be redeemed by 150.
pub(super) fn authorization(number: u8) -> Authorization {
    Authorization {
        id: authorization_id(number),
        fleet: FLEET,
        version: 1,
        vehicle: vehicle_id("V-1"),
        functions: [1, 3].into(),
        window: Window {
            not_before: 100,
            not_after: 200,
        },
        redeem_by: 150,
        restrictions: None,
        pin: false,
        signing: None,
        state: AuthorizationState::Open,
        redeemed: false,
        created_at: 50,
        author: Author::Token(TokenId([9; 16])),
    }
}

pub(super) fn authorize(authorization: Authorization) -> Write {
    authorize_as(authorization, None)
}

pub(super) fn authorize_as(authorization: Authorization, request: Option<Request>) -> Write {
    Write::Authorize(Box::new(NewAuthorization {
        authorization: Arc::new(authorization),
        request,
        command: request.map(|_| "header.command.signature".into()),
        answers: None,
    }))
}

/// What Ben gets for `authorization`.
pub(super) fn signed_bundle(authorization: &Authorization) -> SignedBundle {
    let holder = holder(7);
    let mut id = authorization.id.0;
    id[1] = 0xbb;
    let subject = |function: &u16| Subject {
        function: *function,
        name: format!("function.{function}").into(),
        status_uri: "https://keys.example.org/v1/status/00000001-0".into(),
    };
    let key = |(index, function): (usize, &u16)| KeyRecord {
        max_uses: authorization.max_uses(*function),
        status_index: 131_071 - index as u32,
    };
    let functions = &authorization.functions;
    SignedBundle {
        proof: Proof::Each(functions.iter().map(|one| [*one as u8; 64]).collect()),
        bundle: Bundle {
            id: BundleId(id),
            authorization: authorization.id,
            version: authorization.version,
            fleet: authorization.fleet,
            vehicle: authorization.vehicle.clone(),
            vehicle_epoch: 4,
            identity: identity_id("ben"),
            holder,
            epoch: epoch(9, EpochState::Active).id,
            algorithm: Algorithm::Esp256,
            issuer: "https://keys.example.org".into(),
            issued_at: 60,
            window: authorization.window,
            region: authorization.region().copied().map(Box::new),
            recurring: authorization.recurring().copied().map(Box::new),
            subjects: functions.iter().map(subject).collect(),
            keys: functions.iter().enumerate().map(key).collect(),
        },
    }
}

/// Ben's redemption of `authorization` with his registered terminal.
pub(super) fn redemption(authorization: &Authorization) -> Redemption {
    Redemption {
        signed: signed_bundle(authorization),
        terminal: Some(terminal_id("phone")),
        status_next: 2,
        order: None,
        relies_on: ReliedOn::default(),
    }
}

/// Ben's order of functions 1 and 3 of `V-1`, signed in a tree, over at 200.
pub(super) fn order(number: u8, request: Option<OrderRequest>) -> Redemption {
    let mut authorization = authorization(number);
    authorization.id.0[0] = 2;
    let mut order = redemption(&authorization);
    let bundle = &mut order.signed.bundle;
    bundle.authorization = AuthorizationId(bundle.id.0);
    order.signed.proof = Proof::Tree(TreeProof {
        signature: [number; 64],
        size: 7,
        first: 2,
        outside: [[1; 32], [2; 32]].into(),
    });
    order.order = Some(Order {
        author: TokenId([9; 16]),
        request,
    });
    order
}

/// What makes an order one that may be sent again.
pub(super) fn order_request(call: u8, reference: u8, digest: u8) -> Option<OrderRequest> {
    Some(OrderRequest {
        call: Arc::new([call; 32]),
        reference: [reference; 16],
        digest: [digest; 16],
    })
}

/// The authorization that comes with an order.
pub(super) fn ordered(order: &Redemption) -> Authorization {
    let bundle = &order.signed.bundle;
    Authorization {
        id: bundle.authorization,
        redeem_by: bundle.window.not_after,
        restrictions: Restrictions {
            recipient: Recipient {
                identity: Some(bundle.identity.clone()),
                terminal: order.terminal.clone(),
                key: None,
            },
            ..Restrictions::default()
        }
        .boxed(),
        state: AuthorizationState::Redeemed,
        redeemed: true,
        created_at: bundle.issued_at,
        ..authorization(0)
    }
}

pub(super) fn redeem(authorization: &Authorization) -> Write {
    Write::Redeem(Arc::new(redemption(authorization)))
}

/// The suspension of a vehicle.
pub(super) fn suspend_vehicle(id: &str) -> Write {
    Write::Suspend(Arc::new(Suspension {
        fleet: FLEET,
        of: Followed::Vehicle(vehicle_id(id)).into(),
        status: Status::Suspended,
        by: None,
        request: None,
    }))
}

/// A status list as it was given out, signed by the epoch of scalar 9.
pub(super) fn given_out(shard: ShardId, issued_at: u64, expires: u64) -> SignedList {
    SignedList {
        listed: Listed {
            shard,
            issued_at,
            expires,
        },
        epoch: epoch(9, EpochState::Active).id,
        revision: 3,
        content: [0; 32],
        bytes: [1, 2, 3].into(),
    }
}

/// What a process says of what it has had signed under the epoch of scalar 9.
pub(super) fn so_far(process: u8, signed: u64) -> Write {
    let made = Made {
        signed,
        synced: 1,
        tried: 2,
        given_up: 3,
        failed: 4,
        in_flight_max: 5,
    };
    Write::Signed(Arc::new(SignedSoFar {
        process: [process; 16],
        made: vec![(epoch(9, EpochState::Active).id, made)],
        ended: false,
    }))
}

/// Commits and gives the answers.
pub(super) fn commit(store: &impl Store, writes: &[Write]) -> Vec<Applied> {
    store.commit(writes).unwrap()
}

/// Commits writes that all have to be done.
pub(super) fn done(store: &impl Store, writes: &[Write]) {
    assert_eq!(commit(store, writes), vec![Applied::Done; writes.len()]);
}

/// Everything the book would be told, as text: rows have no equality of their own.
pub(super) fn rows(store: &impl Store) -> Vec<String> {
    loaded(store).iter().map(|row| format!("{row:?}")).collect()
}

pub(super) fn loaded(store: &impl Store) -> Vec<Row> {
    let mut rows = Vec::new();
    store.load(&mut |row| rows.push(row)).unwrap();
    rows
}

/// Everything of `FLEET`.
pub(super) fn everything() -> AuthorizationFilter {
    AuthorizationFilter {
        fleet: FLEET,
        id: None,
        vehicle: None,
        state: None,
        expired: None,
        now: 0,
        after: None,
        limit: 1000,
    }
}
