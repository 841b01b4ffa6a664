//! An issuer for each run: the engine under the checker, a database copied from one that was
//! founded once, a token of SoftHSM, a clock that stands still.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use fob::clock::{Clock, SystemClock};
use fob::domain::change::grants;
use fob::domain::code_set::CodeSetKey;
use fob::domain::function::FunctionRef;
use fob::domain::{
    Authorization, AuthorizationId, AuthorizationState, BundleId, Epoch, EpochId, EpochState,
    FleetId, IdentityId, KeyStatus, Recipient, RefusalCode, ShardId, Status, Token as Bearer,
    TokenId, UnixTime, VehicleId,
};
use fob::hsm::{GeneratedKey, SoftHsm, Token, TokenConfig, init_token, softhsm_module};
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{
    ActFilter, Acts, AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Cursor, Redemption,
    Row, SignedBundle, SignedBy, Store, StoreError, Write,
};
use fob_model::engine::amend::{Caller, Done};
use fob_model::engine::authenticate::BackEnd;
use fob_model::engine::authorize::AuthorizationSpec;
use fob_model::engine::found::{self, Founding};
use fob_model::engine::ids::Ids;
use fob_model::engine::operate::By;
use fob_model::engine::reset::{Ends, ResetDone};
use fob_model::engine::revoke::Target;
use fob_model::engine::{Book, Engine, EngineSettings, Failure, Issuing, Parts};
use fob_verify::status::Room;
use fob_verify::{Algorithm, HolderKey, IssuerKey, RustCrypto, status, trust};
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use tempfile::TempDir;

/// How many threads are switched against their will where few are: most races need one or two.
const SWITCHES: usize = 3;

/// Stack of one of the checker's threads: SQLite and the cryptography need more than its default.
const STACK: usize = 1 << 20;

/// Runs a scenario under `FOB_SCHEDULES` schedules, half of them at random and half with few
/// switches.
pub fn explore(scenario: impl Fn(&Arc<World>) + Send + Sync + Clone + 'static) {
    let asked = std::env::var("FOB_SCHEDULES").ok();
    let schedules: usize = asked.map_or(1_000, |text| text.parse().expect("a number"));
    let folder = Arc::new(folder());
    let run = move || {
        let world = Arc::new(World::new(folder.path()));
        scenario(&world);
        world.check();
        world.engine.shutdown();
    };
    let mut config = Config::new();
    config.stack_size = STACK;
    let random = RandomScheduler::new(schedules.div_ceil(2));
    Runner::new(random, config.clone()).run(run.clone());
    let few = PctScheduler::new(SWITCHES, schedules / 2);
    Runner::new(few, config).run(run);
}

/// In memory where there is such a place: a database is made for every run.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

struct Founded {
    folder: TempDir,
    token: Arc<Token>,
    root: IssuerKey,
    fleet: FleetId,
    unix_ms: u64,
    /// What follows the first epoch, should that be revoked.
    next: GeneratedKey,
}

static FOUNDED: LazyLock<Founded> = LazyLock::new(|| {
    // It stays until the machine is cleaned up, so not in memory.
    let folder = tempfile::tempdir().unwrap();
    let softhsm = SoftHsm::under(folder.path());
    softhsm.create().unwrap();
    softhsm.activate().unwrap();
    let module = softhsm_module().expect("SoftHSM is not installed");
    let pin = secrecy::SecretString::from("user pin 1");
    let config = TokenConfig::new(&module, "model");
    init_token(&config, &"security officer".into(), &pin).unwrap();
    let token = Token::open(config, pin).unwrap();
    let next = token.generate_key_pair(Algorithm::Esp256, "next").unwrap();
    let unix_ms = SystemClock.unix_ms();
    let founding = Founding {
        root: &token,
        issuing: &token,
        issuer: "fob.test",
        algorithm: Algorithm::Esp256,
        epoch_lifetime_s: 86_400,
        key_lifetime_max_s: 86_400,
        operator: "test",
        now: unix_ms / 1000,
    };
    let founded = founding.found().unwrap();
    let fleet = found::demo_fleet(&Book::default(), &Ids::new(), unix_ms).unwrap();
    let id = fleet.id;
    let by = By {
        operator: "test".into(),
        why: None,
    };
    let demo = found::demo(fleet, phone(9), (by, unix_ms / 1000)).unwrap();
    let store = Sqlite::create(&folder.path().join("fob.db"), SqliteConfig::default()).unwrap();
    let applied = store.commit(&[founded.writes, demo].concat()).unwrap();
    assert!(applied.iter().all(|one| *one == Applied::Done));
    Founded {
        folder,
        token: Arc::new(token),
        root: founded.root,
        fleet: id,
        unix_ms,
        next,
    }
});

/// The borrower's phones. Nobody asks them for a proof here, so their public keys are enough.
pub fn phone(number: u8) -> HolderKey {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    static PHONES: LazyLock<Vec<HolderKey>> = LazyLock::new(|| {
        let pair = |_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pairs = (0..10).map(pair);
        pairs
            .map(|pair| HolderKey::from_sec1(pair.public_key().as_ref()).unwrap())
            .collect()
    });
    PHONES[usize::from(number)]
}

struct Still;

impl Clock for Still {
    fn unix_ms(&self) -> u64 {
        FOUNDED.unix_ms
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The store, and how many redemptions it was asked to commit.
pub struct Counted {
    store: Sqlite,
    redemptions: AtomicU64,
}

impl Store for Counted {
    fn commit_beside(
        &self,
        writes: &[Write],
        _beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        let redemptions = writes.iter().filter(|it| matches!(it, Write::Redeem(_)));
        let count = redemptions.count() as u64;
        self.redemptions.fetch_add(count, Ordering::Relaxed);
        self.store.commit(writes)
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.store.load(each)
    }

    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError> {
        self.store.bundle(by)
    }

    fn versions(&self, bundle: BundleId) -> Result<Vec<SignedBundle>, StoreError> {
        self.store.versions(bundle)
    }

    fn signed_by(
        &self,
        epoch: EpochId,
        now: UnixTime,
        after: Option<&Cursor>,
        at_most: u32,
    ) -> Result<SignedBy, StoreError> {
        self.store.signed_by(epoch, now, after, at_most)
    }

    fn held_by(
        &self,
        fleet: FleetId,
        identity: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, StoreError> {
        self.store.held_by(fleet, identity)
    }

    fn outcome(&self, scope: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.outcome(scope)
    }

    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, StoreError> {
        self.store.answered(call)
    }

    fn authorizations(
        &self,
        filter: &AuthorizationFilter,
    ) -> Result<Vec<Authorization>, StoreError> {
        self.store.authorizations(filter)
    }

    fn acts(&self, filter: &ActFilter) -> Result<Acts, StoreError> {
        self.store.acts(filter)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen()
    }
}

/// One run's issuer, with what has been authorized in it.
pub struct World {
    pub engine: Engine,
    store: Arc<Counted>,
    back_end: BackEnd,
    vehicle: VehicleId,
    made: Mutex<Vec<AuthorizationId>>,
}

impl World {
    fn new(folder: &Path) -> Self {
        let founded = &*FOUNDED;
        let file = folder.join("fob.db");
        // What belongs to the run before, and to no other.
        drop(std::fs::remove_file(folder.join("fob.db-shm")));
        for name in ["fob.db", "fob.db-wal"] {
            std::fs::copy(founded.folder.path().join(name), folder.join(name)).unwrap();
        }
        let store = Arc::new(Counted {
            store: Sqlite::open(&file, SqliteConfig::default()).unwrap(),
            redemptions: AtomicU64::new(0),
        });
        let mut settings = EngineSettings::new("http://127.0.0.1:1");
        settings.prepare_threads = 1;
        // No time passes, so no list could wait for it.
        settings.list_ahead_max_s = 1_000_000;
        let engine = Engine::start(Parts {
            tokens: vec![Issuing::alone("model", Arc::clone(&founded.token) as _)],
            store: Arc::clone(&store) as _,
            clock: Arc::new(Still),
            code_set_key: CodeSetKey::new(&[7; 32]),
            settings,
        });
        let engine = engine.unwrap_or_else(|why| panic!("{why}"));
        let back_end = BackEnd {
            fleet: engine.book().fleet(founded.fleet).unwrap(),
            token: Arc::new(Bearer {
                id: TokenId([1; 16]),
                fleet: founded.fleet,
                hash: [0; 32],
                scopes: std::iter::empty().collect(),
                created_at: 0,
                expires_at: None,
                revoked_at: None,
                used_at: None,
            }),
            why: None,
        };
        Self {
            engine,
            store,
            back_end,
            vehicle: VehicleId::parse("DEMO-0001").unwrap(),
            made: Mutex::default(),
        }
    }

    pub fn caller(&self) -> Caller<'_> {
        Caller::BackEnd(&self.back_end, None)
    }

    /// How many redemptions the store was asked to commit.
    pub fn redemptions(&self) -> u64 {
        self.store.redemptions.load(Ordering::Relaxed)
    }

    fn spec(&self, functions: &[u16]) -> AuthorizationSpec {
        let now = FOUNDED.unix_ms / 1000;
        AuthorizationSpec {
            vehicle: self.vehicle.clone(),
            functions: functions.iter().map(|it| FunctionRef::Code(*it)).collect(),
            not_before: now - 60,
            not_after: now + 3600,
            region: None,
            recurring: None,
            max_uses: Vec::new(),
            recipient: Recipient::default(),
            pin: false,
            redeem_by: None,
            signing: None,
            answers: None,
        }
    }

    /// An open authorization of these functions, and its code set.
    pub fn authorize(&self, functions: &[u16]) -> (AuthorizationId, String) {
        let spec = self.spec(functions);
        let made = block_on(self.engine.authorize_for_fleet(&self.back_end, spec, None));
        let made = made.unwrap_or_else(|why| panic!("{why}"));
        self.made.lock().unwrap().push(made.id);
        (made.id, self.engine.code_set(&made).unwrap())
    }

    /// One that was redeemed.
    pub fn issue(&self, functions: &[u16]) -> AuthorizationId {
        let (id, code_set) = self.authorize(functions);
        self.redeem(&code_set, 0).unwrap();
        id
    }

    pub fn redeem(&self, code_set: &str, by: u8) -> Result<Arc<Redemption>, RefusalCode> {
        let renter = borrower();
        refused(block_on(self.engine.redeem_for(
            code_set,
            renter,
            phone(by),
        )))
    }

    pub fn change(&self, id: AuthorizationId, to: &[u16]) -> Result<Done, RefusalCode> {
        let spec = |_: &Authorization| Ok(self.spec(to));
        refused(block_on(self.engine.change(self.caller(), id, 1, spec)))
    }

    pub fn act(
        &self,
        id: AuthorizationId,
        action: fob::domain::change::Action,
    ) -> Result<Done, RefusalCode> {
        refused(block_on(self.engine.act(self.caller(), id, action)))
    }

    /// Suspends, resumes or ends all there is on the vehicle or of the borrower.
    pub fn act_on(
        &self,
        target: &Target,
        action: fob::domain::change::Action,
    ) -> Result<(), RefusalCode> {
        let caller = self.caller();
        let parts = refused(block_on(self.engine.parts_of(caller, action, target)))?;
        let done = refused(block_on(self.engine.carry_out(caller, action, &parts)))?;
        done.into_iter().try_for_each(|one| refused(one).map(drop))
    }

    /// The vehicle everything is for.
    pub fn vehicle(&self) -> Target {
        Target::Vehicle(self.vehicle.clone())
    }

    pub fn reset(&self) -> ResetDone {
        let ends = Ends::These(Vec::new());
        let done = self.engine.reset(self.caller(), &self.vehicle, &ends);
        refused(block_on(done)).expect("a reset")
    }

    /// Has the epoch revoked that has signed everything, and another take its place: the id of the
    /// one, and of the other.
    pub fn revoke(&self) -> (EpochId, EpochId) {
        let first = Epoch::clone(&self.engine.book().epochs()[0]);
        let next = Epoch {
            id: EpochId(FOUNDED.next.public.kid()),
            key: FOUNDED.next.public,
            cka_id: FOUNDED.next.key.id,
            ..first.clone()
        };
        let ids = (first.id, next.id);
        let state = EpochState::Revoked;
        let writes = vec![Write::Epoch(Epoch { state, ..first }), Write::Epoch(next)];
        let applied = block_on(self.engine.write(writes)).unwrap();
        assert_eq!(applied, [Applied::Done; 2]);
        ids
    }

    /// Looks through what an epoch has signed, once, and has it signed again: how many bundles
    /// were.
    pub fn renew(&self, epoch: EpochId) -> u64 {
        let (mut bundles, mut after) = (0, None);
        loop {
            let slice = block_on(self.engine.renew(epoch, after)).unwrap();
            assert_eq!(slice.problem, None);
            bundles += slice.bundles;
            after = slice.next;
            if after.is_none() {
                return bundles;
            }
        }
    }

    /// How many live bundles stand as an epoch signed them.
    pub fn live(&self, epoch: EpochId) -> u64 {
        block_on(self.engine.count_live(epoch, None))
            .unwrap()
            .bundles
    }

    pub fn stands(&self, id: AuthorizationId) -> Arc<Authorization> {
        self.engine.book().authorization(id).unwrap()
    }

    /// Every version of what was issued on it, oldest first.
    pub fn versions(&self, id: AuthorizationId) -> Vec<SignedBundle> {
        let newest = self.store.bundle(BundleKey::Authorization(id)).unwrap();
        newest.map_or(Vec::new(), |it| self.store.versions(it.bundle.id).unwrap())
    }

    /// How the keys of every version stand on the list that would be given out now.
    pub fn listed(&self, id: AuthorizationId) -> Vec<status::Status> {
        let held = self.engine.book().trust().unwrap();
        let now = FOUNDED.unix_ms / 1000;
        let trust = trust::verify(&held.bytes, &[FOUNDED.root], now, &RustCrypto).unwrap();
        let mut room = Box::new(Room::new());
        let mut standing = Vec::new();
        for SignedBundle { bundle, .. } in self.versions(id) {
            for (subject, key) in bundle.each_key() {
                let shard = ShardId::at(&subject.status_uri).unwrap();
                let list = block_on(self.engine.status_list(shard)).unwrap().unwrap();
                let list = status::verify(&list.bytes, &trust, &RustCrypto).unwrap();
                standing.push(list.status(key.status_index, &mut room).unwrap());
            }
        }
        standing
    }

    /// No key is left that is not granted, and none is valid while vehicle or borrower are
    /// suspended; whoever may use a function has a key for it; the book says what the store says.
    pub fn check(&self) {
        let book = self.engine.book();
        let vehicle = self.back_end.fleet.vehicle(self.vehicle.as_str()).unwrap();
        let borrower = self.back_end.fleet.identity(borrower().as_str()).unwrap();
        let awake = [vehicle.status, borrower.status] == [Status::Active; 2];
        let loaded = Book::default();
        loaded.load(&*self.store).unwrap();
        assert_eq!(loaded.statuses.revision(), book.statuses.revision());
        for id in &*self.made.lock().unwrap() {
            let stands = self.stands(*id);
            assert_eq!(loaded.authorization(*id), Some(Arc::clone(&stands)));
            let versions = self.versions(*id);
            assert_eq!(stands.redeemed, !versions.is_empty(), "{stands:?}");
            let Some(SignedBundle { bundle: newest, .. }) = versions.last() else {
                continue;
            };
            for SignedBundle { bundle, .. } in &versions {
                let standing = book.statuses.of_bundle(bundle);
                assert_eq!(loaded.statuses.of_bundle(bundle), standing);
                for ((subject, key), status) in bundle.each_key().zip(standing) {
                    let live = status == KeyStatus::Valid && bundle.vehicle_epoch == vehicle.epoch;
                    let holder = bundle.holder == newest.holder;
                    let granted = awake
                        && stands.state == AuthorizationState::Redeemed
                        && grants(&stands, bundle, subject, key, holder);
                    assert!(!live || granted, "{subject:?} of {bundle:?}: {stands:?}");
                }
            }
            if stands.state == AuthorizationState::Redeemed {
                assert_eq!(newest.vehicle_epoch, vehicle.epoch, "{newest:?}");
                let standing = book.statuses.of_bundle(newest);
                let expected = match awake {
                    true => KeyStatus::Valid,
                    false => KeyStatus::Suspended,
                };
                assert!(standing.iter().all(|it| *it == expected), "{standing:?}");
                assert_eq!(newest.subjects.len(), stands.functions.iter().count());
            }
        }
    }
}

/// Whoever redeems.
pub fn borrower() -> IdentityId {
    IdentityId::parse("renter-1").unwrap()
}

/// A refusal's code; a fault ends the run.
fn refused<T>(answer: Result<T, Failure>) -> Result<T, RefusalCode> {
    answer.map_err(|why| match why {
        Failure::Refused(refusal) => refusal.code,
        Failure::Fault(fault) => panic!("{fault}"),
    })
}
