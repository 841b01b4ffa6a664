//! What the benchmarks share: an issuer on a real token with a real store, in a scratch directory.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob::clock::{Clock, SystemClock};
use fob::domain::ShardId;
use fob::domain::code_set::CodeSetKey;
use fob::domain::function::BUILT_IN;
use fob::domain::{
    Author, Authorization, AuthorizationId, AuthorizationState, Bundle, BundleId, Epoch, Fleet,
    FleetId, FleetName, FleetSettings, Identity, IdentityId, KeyRecord, Status, Subject, TokenId,
    Vehicle, VehicleId, Window,
};
use fob::engine::found::Founding;
use fob::engine::{Book, Engine, EngineSettings, Issuing, Parts};
use fob::hsm::{
    KeyRef, Signature, Signer, SoftHsm, Token, TokenConfig, init_token, random_pin, softhsm_module,
};
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{NewAuthorization, Proof, Row, SignedBundle, Store, Write};
use fob_verify::code_set::text_nonce;
use fob_verify::{Algorithm, HolderKey, IssuerKey};
use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

/// What code sets are derived from.
pub const CODE_SET_KEY: [u8; 32] = [7; 32];

pub const FLEET: FleetId = FleetId([1; 16]);
const VEHICLES: u64 = 100;

/// An issuer on a real token.
pub struct Issuer {
    pub token: Arc<Token>,
    pub key: KeyRef,
    pub epoch: Epoch,
    pub root: IssuerKey,
    pub trust: Arc<[u8]>,
    writes: Vec<Write>,
    dir: TempDir,
}

/// A phone that signs proofs.
pub struct Phone(EcdsaKeyPair);

impl Phone {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn key(&self) -> HolderKey {
        HolderKey::from_sec1(self.0.public_key().as_ref()).unwrap()
    }

    pub fn proof(&self, url: &str, over: &str, now: u64) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let point = self.0.public_key().as_ref();
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]),
        });
        let header = json!({ "alg": "ES256", "typ": "openid4vci-proof+jwt", "jwk": jwk });
        let claims = json!({ "aud": url, "iat": now, "nonce": encode(&text_nonce(over)) });
        let text = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self.0.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", encode(signature.as_ref()))
    }
}

/// SoftHSM, with its tokens in a scratch directory of this process.
fn module() -> PathBuf {
    static PLACE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, module) = PLACE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let softhsm = SoftHsm::under(dir.path());
        softhsm.create().unwrap();
        softhsm.activate().unwrap();
        (dir, softhsm_module().expect("SoftHSM is installed"))
    });
    module.clone()
}

pub fn now() -> u64 {
    SystemClock.unix()
}

/// The id of the bench fleet's authorization number `n`.
pub fn authorization_id(n: u64) -> AuthorizationId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    AuthorizationId(fob::domain::id::uuid_v7(1_790_000_000_000 + n / 64, random))
}

/// Authorization number `n`, of the first `functions` functions.
pub fn authorization(n: u64, functions: usize) -> Authorization {
    let window = Window {
        not_before: now(),
        not_after: now() + 86_400,
    };
    Authorization {
        id: authorization_id(n),
        fleet: FLEET,
        version: 1,
        vehicle: VehicleId::parse(&format!("V-{}", n % VEHICLES)).unwrap(),
        functions: BUILT_IN
            .iter()
            .take(functions)
            .map(|(code, _)| *code)
            .collect(),
        window,
        redeem_by: window.not_after,
        restrictions: None,
        pin: false,
        signing: None,
        state: AuthorizationState::Open,
        redeemed: false,
        created_at: window.not_before,
        author: Author::Token(TokenId([0; 16])),
    }
}

impl Issuer {
    pub fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (module, label) = (module(), format!("bench-{count}"));
        let (so_pin, pin) = (random_pin().unwrap(), random_pin().unwrap());
        let config = TokenConfig::new(module, label);
        init_token(&config, &so_pin, &pin).unwrap();
        let token = Arc::new(Token::open(config, pin).unwrap());
        let founded = Founding {
            root: &token,
            issuing: &token,
            issuer: "fob.bench",
            algorithm: Algorithm::Esp256,
            epoch_lifetime_s: 86_400,
            key_lifetime_max_s: 86_400,
            operator: "bench",
            now: now(),
        }
        .found()
        .unwrap();
        let step = |write: &Write| match write {
            Write::Step(step) => Some(step.clone()),
            _ => None,
        };
        let step = founded.writes.iter().find_map(step).unwrap();
        let epoch = step.epochs[0].clone();
        let trust = step.trust.unwrap().1;
        let key = KeyRef {
            id: epoch.cka_id,
            algorithm: Algorithm::Esp256,
        };
        let dir = tempfile::tempdir().unwrap();
        Self {
            token,
            key,
            epoch,
            root: founded.root,
            trust,
            writes: founded.writes,
            dir,
        }
    }

    /// A book with so many authorizations.
    pub fn book_of(&self, authorizations: u64) -> Book {
        let book = Book::default();
        let first = authorization(0, 8);
        book.take(Row::Fleet(fleet()));
        for n in 0..VEHICLES {
            book.take(Row::Vehicle(vehicle(n)));
        }
        for n in 0..authorizations {
            book.take(Row::Authorization(Authorization {
                id: authorization_id(n),
                ..first.clone()
            }));
        }
        book
    }

    /// A bundle of so many keys, as prepared.
    pub fn bundle(&self, keys: usize) -> Bundle {
        let held = authorization(0, keys);
        let holder = Phone::new().key();
        let shard = ShardId {
            tag: 0x926a_ece8,
            number: 0,
        };
        let uri: Arc<str> = shard.uri("http://fob.bench/v1/status").into();
        let subject = |(code, name): &(u16, &str)| Subject {
            function: *code,
            name: (*name).into(),
            status_uri: Arc::clone(&uri),
        };
        let record = |_: &(u16, &str)| KeyRecord {
            max_uses: None,
            status_index: 77_777,
        };
        Bundle {
            id: BundleId::new(1_790_000_000_000, 1),
            authorization: held.id,
            version: 1,
            fleet: FLEET,
            vehicle: held.vehicle,
            vehicle_epoch: 0,
            identity: IdentityId::parse("renter").unwrap(),
            holder,
            epoch: self.epoch.id,
            algorithm: self.epoch.key.algorithm(),
            issuer: "fob.bench".into(),
            issued_at: now(),
            window: held.window,
            region: None,
            recurring: None,
            subjects: BUILT_IN.iter().take(keys).map(subject).collect(),
            keys: BUILT_IN.iter().take(keys).map(record).collect(),
        }
    }

    /// The message of a bundle's first key.
    pub fn message(&self, bundle: &Bundle) -> Vec<u8> {
        messages(bundle).remove(0)
    }

    /// The signatures of a bundle's keys, by the token.
    pub fn signatures(&self, bundle: &Bundle) -> Vec<Signature> {
        let messages = messages(bundle);
        let slices: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        self.token.sign_all(&self.key, &slices).unwrap()
    }

    /// A bundle, signed by the token.
    pub fn signed(&self, bundle: Bundle) -> SignedBundle {
        let signatures = self.signatures(&bundle);
        SignedBundle {
            bundle,
            proof: Proof::Each(signatures),
        }
    }

    /// An engine over the token and a new store.
    pub fn engine(&self) -> Engine {
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        let path = file.path().with_extension("db");
        let store = Sqlite::create(&path, SqliteConfig::default()).unwrap();
        let mut writes = self.writes.clone();
        writes.push(Write::NewFleet(fleet()));
        writes.extend((0..VEHICLES).map(|n| Write::Vehicle(vehicle(n))));
        writes.push(Write::Identity(Identity {
            fleet: FLEET,
            id: IdentityId::parse("renter").unwrap(),
            status: Status::Active,
            hold: None,
            proved: None,
            licences: Vec::new(),
        }));
        store.commit(&writes).unwrap();
        Engine::start(Parts {
            tokens: vec![Issuing::alone(
                self.token.label(),
                Arc::clone(&self.token) as Arc<dyn Signer>,
            )],
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            code_set_key: CodeSetKey::new(&CODE_SET_KEY),
            settings: EngineSettings::new("http://fob.bench"),
        })
        .unwrap()
    }

    /// Makes these authorizations and returns their code sets.
    pub fn authorize(&self, engine: &Engine, numbers: Range<u64>) -> Vec<String> {
        let made: Vec<_> = numbers.map(|n| Arc::new(authorization(n, 8))).collect();
        let write = |authorization: &Arc<Authorization>| {
            let authorization = Arc::clone(authorization);
            Write::Authorize(Box::new(NewAuthorization {
                authorization,
                request: None,
                command: None,
                answers: None,
            }))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(engine.write(made.iter().map(write).collect()))
            .unwrap();
        made.iter()
            .map(|one| engine.code_set(one).unwrap())
            .collect()
    }

    /// Redeems all of them at once.
    pub async fn redeem(&self, engine: &Engine, code_sets: &[String]) {
        static PHONE: OnceLock<HolderKey> = OnceLock::new();
        let phone = *PHONE.get_or_init(|| Phone::new().key());
        let renter = IdentityId::parse("renter").unwrap();
        let one = |code_set| engine.redeem_for(code_set, renter.clone(), phone);
        for answer in join_all(code_sets.iter().map(|text| one(text.as_str()))).await {
            answer.unwrap();
        }
    }
}

fn messages(bundle: &Bundle) -> Vec<Vec<u8>> {
    let protected = fob_verify::key::protected_header(bundle.algorithm, &bundle.epoch.0);
    let message = |(subject, key)| {
        let claims = bundle.claims(subject, key);
        let tbs = fob_verify::key::encode(&protected, &claims).unwrap();
        tbs.message().to_vec()
    };
    bundle.each_key().map(message).collect()
}

fn fleet() -> Fleet {
    Fleet {
        id: FLEET,
        name: FleetName::parse("bench").unwrap(),
        status: Status::Active,
        tag: 1,
        status_key: [9; 32],
        status_next: 0,
        settings: FleetSettings {
            open_redemption: true,
            signing: None,
        },
    }
}

fn vehicle(n: u64) -> Vehicle {
    Vehicle {
        fleet: FLEET,
        id: VehicleId::parse(&format!("V-{n}")).unwrap(),
        model: "Bench".into(),
        functions: BUILT_IN.iter().map(|(code, _)| *code).collect(),
        owner: None,
        key: None,
        epoch: 0,
        status: Status::Active,
    }
}
