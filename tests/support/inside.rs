//! An engine and its HTTP surface within this process, with a signer and a store that fail when
//! told to: for faults that cannot be had from outside. Beneath them are a real token and a real
//! database.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fob::clock::{Clock, SystemClock};
use fob::domain::code_set::CodeSetKey;
use fob::domain::{
    Authorization, AuthorizationId, BundleId, Epoch, EpochId, EpochState, FleetId, IdentityId,
    Token as Bearer, TokenId, UnixTime, Window,
};
use fob::engine::audit::{Finding, Flaw, Known, audit};
use fob::engine::authenticate::BackEnd;
use fob::engine::found::{self, Founding};
use fob::engine::ids::Ids;
use fob::engine::operate::By;
use fob::engine::{Book, Engine, EngineSettings, Issuing, Parts, jws};
use fob::hsm::{HsmError, KeyRef, Signature, Signer, Token, TokenConfig, TokenStatus};
use fob::http::{Limits, Server as Http, ServerConfig};
use fob::metrics::Exporter;
use fob::store::sqlite::{Sqlite, SqliteConfig};
use fob::store::{
    ActFilter, Acts, AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Cursor, Row,
    SignedBundle, SignedBy, Store, StoreError, Write,
};
use fob_verify::Algorithm;
use tempfile::TempDir;

use super::{Phone, Server};
use crate::hsm;

/// A signer that fails, lies or waits when told to.
pub struct FaultySigner {
    token: Token,
    fails: AtomicU64,
    lies: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
    waiting: AtomicU64,
}

impl FaultySigner {
    /// The token beneath, which works.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// How many batches wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The next so many batches are not signed.
    pub fn fail(&self, batches: u64) {
        self.fails.store(batches, Ordering::SeqCst);
    }

    /// From now on signatures are of something else.
    pub fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::SeqCst);
    }

    /// Batches wait from now on.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    /// Batches go on.
    pub fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }
}

impl Signer for FaultySigner {
    fn sign_all(&self, key: &KeyRef, messages: &[&[u8]]) -> Result<Vec<Signature>, HsmError> {
        let held = self.held.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.released.wait_while(held, |held| *held).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        let fail = |left: u64| left.checked_sub(1);
        if self
            .fails
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail)
            .is_ok()
        {
            return Err(HsmError::System {
                what: "a fault made by a test",
            });
        }
        if self.lies.load(Ordering::SeqCst) {
            return self
                .token
                .sign_all(key, &vec![b"something else".as_slice(); messages.len()]);
        }
        self.token.sign_all(key, messages)
    }

    fn close(&self) {
        Signer::close(&self.token);
    }

    fn status(&self) -> TokenStatus {
        self.token.status()
    }
}

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and is known not to have happened.
    Failed,
    /// Nobody knows, and it has not happened.
    UnknownNotApplied,
    /// Nobody knows, and it has happened.
    UnknownApplied,
}

/// A store whose commits fail as told, one fault for each.
pub struct FaultyStore {
    store: Sqlite,
    faults: Mutex<VecDeque<Fault>>,
    reopen_fails: AtomicU64,
    poisoned: AtomicBool,
}

impl FaultyStore {
    /// The next commits fail so.
    pub fn fail(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// The next so many attempts to reopen it fail.
    pub fn fail_to_reopen(&self, times: u64) {
        self.reopen_fails.store(times, Ordering::SeqCst);
    }

    /// Whether every fault has happened.
    pub fn faults_are_over(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }
}

impl Store for FaultyStore {
    fn commit_beside(
        &self,
        writes: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        assert!(
            !self.poisoned.load(Ordering::SeqCst),
            "a failed store is used before it is reopened"
        );
        let Some(fault) = self.faults.lock().unwrap().pop_front() else {
            return self.store.commit_beside(writes, beside);
        };
        self.poisoned.store(true, Ordering::SeqCst);
        match fault {
            Fault::Failed => Err(StoreError::Failed("a fault made by a test".into())),
            Fault::UnknownNotApplied => Err(StoreError::Unknown("a fault made by a test".into())),
            Fault::UnknownApplied => {
                self.store.commit(writes)?;
                Err(StoreError::Unknown("a fault made by a test".into()))
            }
        }
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.store.load(each)
    }

    fn answered(&self, call: &[u8; 32]) -> Result<Vec<AnsweredOrder>, StoreError> {
        self.store.answered(call)
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

    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError> {
        self.store.bundle(by)
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
        let fail = |left: u64| left.checked_sub(1);
        if self
            .reopen_fails
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail)
            .is_ok()
        {
            return Err(StoreError::Failed("a fault made by a test".into()));
        }
        self.store.reopen()?;
        self.poisoned.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// A server within this process.
pub struct Inside {
    pub server: Server,
    pub engine: Arc<Engine>,
    pub signer: Arc<FaultySigner>,
    pub store: Arc<FaultyStore>,
    pub owner: Phone,
    handle: actix_web::dev::ServerHandle,
    thread: Option<JoinHandle<()>>,
    label: String,
    _dir: TempDir,
}

impl Inside {
    /// With a token of this label, and settings changed by `change`.
    pub fn start(label: &str, change: impl FnOnce(&mut EngineSettings)) -> Self {
        Self::with_siblings(label, Vec::new(), change)
    }

    /// Beside its own token, which comes first, with others and an epoch in each.
    pub fn with_siblings(
        label: &str,
        siblings: Vec<(Token, Epoch)>,
        change: impl FnOnce(&mut EngineSettings),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (token, owner) = (token(label), Phone::new());
        let store = Sqlite::create(&dir.path().join("fob.db"), SqliteConfig::default()).unwrap();
        found(&token, &store, &owner);
        let mut tokens = Vec::new();
        for (sibling, epoch) in siblings {
            tokens.push(Issuing {
                name: sibling.label().to_owned(),
                serial: Some(epoch.token_serial.clone()),
                alone: false,
                signer: Arc::new(sibling),
            });
            let applied = store.commit(&[Write::Epoch(epoch)]).unwrap();
            assert_eq!(applied, [Applied::Done]);
        }
        let serial = token.identity().unwrap().serial;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut settings = EngineSettings::new(&url);
        change(&mut settings);
        let signer = Arc::new(FaultySigner {
            token,
            fails: AtomicU64::new(0),
            lies: AtomicBool::new(false),
            held: Mutex::new(false),
            released: Condvar::new(),
            waiting: AtomicU64::new(0),
        });
        let store = Arc::new(FaultyStore {
            store,
            faults: Mutex::default(),
            reopen_fails: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
        });
        let own = Issuing {
            name: label.to_owned(),
            serial: Some(serial),
            alone: tokens.is_empty(),
            signer: Arc::clone(&signer) as Arc<dyn Signer>,
        };
        tokens.insert(0, own);
        let engine = engine(tokens, &store, settings);
        let (handle, thread) = listen(listener, &engine);
        let server = Server::at(url);
        Self {
            server,
            engine,
            signer,
            store,
            owner,
            handle,
            thread: Some(thread),
            label: label.to_owned(),
            _dir: dir,
        }
    }

    /// The demo fleet's back end, which may do everything.
    pub fn back_end(&self) -> BackEnd {
        let fleet = self.engine.book().fleet_named("demo").unwrap();
        let token = Arc::new(Bearer {
            id: TokenId([1; 16]),
            fleet: fleet.fleet.id,
            hash: [0; 32],
            scopes: std::iter::empty().collect(),
            created_at: 0,
            expires_at: None,
            revoked_at: None,
            used_at: None,
        });
        BackEnd {
            fleet,
            token,
            why: None,
        }
    }

    /// What does not fit together of what is stored, apart from that it has neither root nor
    /// records. Nothing may be under way.
    pub fn flaws(&self) -> Vec<Finding> {
        let known = Known {
            root: self.engine.book().active_epoch().unwrap().key,
            now: SystemClock.unix(),
            hsm_signed: BTreeMap::new(),
        };
        let report = audit(&self.store.store, &known, &mut |_| {}).unwrap();
        let missing = [Flaw::TrustListVoid, Flaw::RecordWrong];
        let all = report.findings.into_iter();
        all.filter(|one| !missing.contains(&one.flaw)).collect()
    }

    /// Ends it, and starts it anew on what is stored, with its own token alone, at another address and with settings changed
    /// by `change`. Status lists stay where they are.
    pub fn restart(&mut self, change: impl FnOnce(&mut EngineSettings)) {
        self.stop();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut settings = EngineSettings::new(&url);
        settings.status_url = self.engine.settings().status_url.clone();
        change(&mut settings);
        let signer = Arc::clone(&self.signer) as Arc<dyn Signer>;
        self.engine = engine(
            vec![Issuing::alone(&self.label, signer)],
            &self.store,
            settings,
        );
        let (handle, thread) = listen(listener, &self.engine);
        (self.handle, self.thread) = (handle, Some(thread));
        self.server = Server::at(url);
    }

    fn stop(&mut self) {
        self.signer.release();
        self.engine.shutdown();
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop();
    }
}

fn engine(tokens: Vec<Issuing>, store: &Arc<FaultyStore>, settings: EngineSettings) -> Arc<Engine> {
    let parts = Parts {
        tokens,
        store: Arc::clone(store) as Arc<dyn Store>,
        clock: Arc::new(SystemClock),
        code_set_key: CodeSetKey::new(&[7; 32]),
        settings,
    };
    Arc::new(Engine::start(parts).unwrap())
}

/// Another token, and an epoch of its own that is active.
pub fn sibling(label: &str) -> (Token, Epoch) {
    let token = token(label);
    let made = token.generate_key_pair(Algorithm::Esp256, "sibling");
    let made = made.unwrap();
    let now = SystemClock.unix();
    let epoch = Epoch {
        id: EpochId(made.public.kid()),
        key: made.public,
        cka_id: made.key.id,
        token_serial: token.identity().unwrap().serial,
        window: Window {
            not_before: now,
            not_after: now + 86_400,
        },
        state: EpochState::Active,
        created_at: now,
        activated_at: Some(now),
    };
    (token, epoch)
}

fn token(label: &str) -> Token {
    let module = hsm::module();
    let pin = secrecy::SecretString::from("user pin 1");
    let so_pin = secrecy::SecretString::from("security officer");
    let config = TokenConfig::new(module, label);
    fob::hsm::init_token(&config, &so_pin, &pin).unwrap();
    Token::open(config, pin).unwrap()
}

fn found(token: &Token, store: &Sqlite, owner: &Phone) {
    let clock = SystemClock;
    let founding = Founding {
        root: token,
        issuing: token,
        issuer: "fob.test",
        algorithm: Algorithm::Esp256,
        epoch_lifetime_s: 86_400,
        key_lifetime_max_s: 86_400,
        operator: "test",
        now: clock.unix(),
    };
    let mut writes = founding.found().unwrap().writes;
    let fleet = found::demo_fleet(&Book::default(), &Ids::new(), clock.unix_ms()).unwrap();
    let by = By {
        operator: "test".into(),
        why: None,
    };
    let phone = jws::holder_key(&owner.jwk()).unwrap();
    writes.extend(found::demo(fleet, phone, (by, clock.unix())).unwrap());
    assert!(
        store
            .commit(&writes)
            .unwrap()
            .iter()
            .all(|one| *one == Applied::Done)
    );
}

/// Metrics have one recorder in a process.
fn exporter() -> Exporter {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    EXPORTER
        .get_or_init(|| Exporter::install().unwrap())
        .clone()
}

fn listen(
    listener: TcpListener,
    engine: &Arc<Engine>,
) -> (actix_web::dev::ServerHandle, JoinHandle<()>) {
    let config = ServerConfig {
        metrics_listen: None,
        tls: None,
        workers: 2,
        limits: Limits {
            body_bytes_max: 65_536,
            request_timeout: Duration::from_secs(5),
            batches_max: 8,
            batch_idle: Duration::from_secs(30),
            address_requests_per_s_max: 100_000,
            forwarded: false,
        },
        connections_max: 1_000,
        round_max: Duration::from_millis(25),
    };
    let (engine, exporter) = (Arc::clone(engine), exporter());
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let server = Http::start(listener, engine, exporter, &config).unwrap();
        send.send(server.handle()).unwrap();
        actix_web::rt::System::new().block_on(server.run()).unwrap();
    });
    (receive.recv().unwrap(), thread)
}
