//! What `fob bench issue` issues in: a scratch fleet in a scratch store, and the orders for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use fob_verify::HolderKey;

use super::IssueArgs;
use crate::clock::{Clock, SystemClock};
use crate::domain::function::{BUILT_IN, FunctionRef, OWN_FUNCTION_MIN};
use crate::domain::rules::RulesText;
use crate::domain::{
    Authorization, AuthorizationId, BundleId, Epoch, EpochId, Fleet, FleetId, FleetSettings,
    FunctionCode, Identity, IdentityId, Licence, Refusal, Scope, Status, Terminal, TerminalId,
    UnixTime, Vehicle, VehicleId,
};
use crate::engine::book::FleetBook;
use crate::engine::ids::Ids;
use crate::engine::orders::{Order, OrderSpec};
use crate::engine::{Book, operate};
use crate::store::{
    ActFilter, Acts, AnsweredOrder, Applied, AuthorizationFilter, BundleKey, Cursor, Nodes, Row,
    Ruling, Rulings, SignedBundle, SignedBy, Store, StoreError, Write,
};

/// Vehicles, identities and terminals of the scratch fleet, so many of each.
const REGISTERED: usize = 10_000;

/// Rows written in one transaction while the scratch store is filled.
const SEED_CHUNK: usize = 5_000;

/// Orders that come together.
pub(super) const CHUNK_LEN: usize = 256;

/// Orders as a batch call has them once its lines are decoded.
pub(super) fn orders(
    args: &IssueArgs,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<Vec<Vec<Order>>> {
    let now = SystemClock.unix();
    let functions: Vec<_> = functions(args.functions)
        .into_iter()
        .map(FunctionRef::Code)
        .collect();
    let order = |n: usize| {
        let registered = n % REGISTERED;
        Ok(Order {
            reference: format!("order-{n:09}"),
            digest: [0; 32],
            spec: OrderSpec {
                vehicle: VehicleId::parse(&format!("BENCH-{registered:08}"))?,
                functions: functions.clone(),
                not_before: now,
                not_after: now + 86_400,
                region: None,
                recurring: None,
                max_uses: Vec::new(),
                identity: IdentityId::parse(&format!("renter-{registered}"))?,
                terminal: TerminalId::parse(&format!("phone-{registered}"))?,
                signing: Some(args.signing.signing()),
            },
        })
    };
    let all = numbers
        .map(order)
        .collect::<Result<Vec<_>, Refusal>>()
        .map_err(|refusal| anyhow!("{refusal}"))?;
    let mut all = all.into_iter().peekable();
    let mut chunks = Vec::new();
    while all.peek().is_some() {
        chunks.push(all.by_ref().take(CHUNK_LEN).collect());
    }
    Ok(chunks)
}

/// Fills the scratch store: epoch, fleet, registry. Returns a token for it.
pub(super) fn seed(
    store: &dyn Store,
    issuer: &str,
    epoch: &Epoch,
    phone: HolderKey,
    args: &IssueArgs,
) -> anyhow::Result<String> {
    let refused = |refusal: Refusal| anyhow!("{refusal}");
    let (ids, unix_ms) = (Ids::new(), SystemClock.unix_ms());
    let settings = FleetSettings::default();
    let book = Book::default();
    let fleet = operate::new_fleet(&book, &ids, unix_ms, "bench", settings).map_err(refused)?;
    book.take(Row::Fleet(fleet.clone()));
    let in_book = operate::fleet(&book, "bench").map_err(refused)?;
    let scopes = [Scope::Issue].into_iter().collect();
    let (token, bearer) =
        operate::new_token(&ids, unix_ms, &in_book, scopes, None).map_err(refused)?;
    let functions = functions(args.functions);
    let mut writes = vec![
        Write::Setting("issuer".into(), issuer.into()),
        Write::Epoch(epoch.clone()),
        Write::NewFleet(fleet.clone()),
        Write::NewToken(token),
    ];
    for &code in functions.iter().filter(|code| **code >= OWN_FUNCTION_MIN) {
        writes.push(Write::Function(
            fleet.id,
            code,
            format!("bench.f{code}").into(),
        ));
    }
    if let Some(file) = &args.rules {
        writes.push(ruled(&in_book, file, unix_ms / 1000)?);
    }
    for n in 0..REGISTERED {
        writes.extend(registered(&fleet, n, &functions, phone).map_err(refused)?);
    }
    for chunk in writes.chunks(SEED_CHUNK) {
        store.commit(chunk)?;
    }
    Ok(bearer)
}

/// What a file says that the fleet rules.
fn ruled(fleet: &FleetBook, file: &Path, now: UnixTime) -> anyhow::Result<Write> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let rules: RulesText =
        serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    rules
        .check(&fleet.catalogue(), 1)
        .map_err(|refusal| anyhow!("{}: {refusal}", file.display()))?;
    Ok(Write::Rule(Box::new(Rulings {
        fleet: fleet.fleet.id,
        at: now,
        by: "bench".into(),
        why: None,
        what: Ruling::Rules(1, text.into()),
    })))
}

/// The built-in functions first, then as many of the fleet's own as are asked for.
fn functions(count: u16) -> Vec<FunctionCode> {
    let built_in = BUILT_IN.iter().map(|(code, _)| *code);
    built_in
        .chain(OWN_FUNCTION_MIN..)
        .take(count.into())
        .collect()
}

fn registered(
    fleet: &Fleet,
    n: usize,
    functions: &[FunctionCode],
    phone: HolderKey,
) -> Result<[Write; 3], Refusal> {
    let vehicle = Vehicle {
        fleet: fleet.id,
        id: VehicleId::parse(&format!("BENCH-{n:08}"))?,
        model: "Bench".into(),
        functions: functions.into(),
        owner: None,
        key: None,
        epoch: 0,
        status: Status::Active,
    };
    let identity = Identity {
        fleet: fleet.id,
        id: IdentityId::parse(&format!("renter-{n}"))?,
        status: Status::Active,
        hold: None,
        proved: None,
        licences: vec![Licence {
            class: "B".into(),
            expires: SystemClock.unix() + 31_536_000,
        }],
    };
    let terminal = Terminal {
        fleet: fleet.id,
        id: TerminalId::parse(&format!("phone-{n}"))?,
        identity: identity.id.clone(),
        key: phone,
        status: Status::Active,
        since: 0,
        attested: None,
    };
    Ok([
        Write::Vehicle(vehicle),
        Write::Identity(identity),
        Write::Terminal(terminal),
    ])
}

/// A folder under D, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!("bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("fob: {} is left behind: {error}", self.0.display());
        }
    }
}

/// A store that counts its transactions.
pub(super) struct Counted {
    pub(super) store: Arc<dyn Store>,
    commits: AtomicU64,
}

impl Counted {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            commits: AtomicU64::new(0),
        }
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Store for Counted {
    fn commit_beside(
        &self,
        writes: &[Write],
        beside: &mut dyn FnMut(),
    ) -> Result<Vec<Applied>, StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.store.commit_beside(writes, beside)
    }

    fn load(&self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.store.load(each)
    }

    fn bundle(&self, by: BundleKey) -> Result<Option<SignedBundle>, StoreError> {
        self.store.bundle(by)
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

    fn nodes(&self) -> Option<&dyn Nodes> {
        self.store.nodes()
    }
}
