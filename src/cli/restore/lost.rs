//! What was revoked after a backup was made, as the operator remembers it, done again.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};

use crate::cli::lines::Lines;
use crate::domain::change::{Followed, Registered};
use crate::domain::{
    Authorization, AuthorizationId, AuthorizationState, BundleId, FleetId, IdentityId, KeyId,
    Status, Token, TokenId, UnixTime, VehicleId,
};
use crate::engine::Book;
use crate::engine::book::FleetBook;
use crate::engine::operate::{By, TOKEN_REVOKE};
use crate::store::{Amendment, Applied, AuthorizationFilter, BundleKey, Store, Suspension, Write};

/// How a list begins.
const HEADER: &str = "kind,id,fleet";

/// What was revoked, by the lines of a file.
pub(super) struct Lost(Vec<(u64, Target)>);

enum Target {
    Token(TokenId),
    Authorization(AuthorizationId),
    Bundle(BundleId),
    Identity(IdentityId, String),
    Vehicle(VehicleId, String),
}

impl Lost {
    /// Reads a list.
    ///
    /// # Errors
    /// It cannot be read, or a line of it is no target: with file and line.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        if path == Path::new("-") {
            return Self::parse(std::io::stdin().lock(), "standard input");
        }
        Self::parse(File::open(path).with_context(|| shown.clone())?, &shown)
    }

    fn parse(file: impl Read, shown: &str) -> anyhow::Result<Self> {
        let mut lines = Lines::new(file);
        let mut targets = Vec::new();
        let mut begun = false;
        while let Some(number) = lines.next().context(shown.to_owned())? {
            let at = || format!("{shown}, line {number}");
            ensure!(!lines.too_long, "{}: it is too long", at());
            let line = std::str::from_utf8(&lines.text).with_context(at)?.trim();
            if line.is_empty() {
                continue;
            }
            if !begun {
                ensure!(line == HEADER, "{}: it begins with {HEADER}", at());
                begun = true;
                continue;
            }
            targets.push((number, Target::parse(line).with_context(at)?));
        }
        Ok(Self(targets))
    }

    /// Revokes all of it; returns the lines of what the store does not know.
    ///
    /// # Errors
    /// The store fails, or a line needs a fleet.
    pub(super) fn revoke(
        &self,
        store: &dyn Store,
        book: &Book,
        by: (&By, UnixTime),
    ) -> anyhow::Result<Vec<u64>> {
        let mut unknown = Vec::new();
        for (line, target) in &self.0 {
            let write = target.write(store, book, by);
            let Some(write) = write.with_context(|| format!("line {line}"))? else {
                unknown.push(*line);
                continue;
            };
            // What has ended already is ended once more, which is no act.
            if store.commit(&[write])?.first() == Some(&Applied::Stale) {
                unknown.push(*line);
            }
        }
        Ok(unknown)
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Ends every token.
pub(super) fn end_tokens(
    store: &dyn Store,
    book: &Book,
    by: (&By, UnixTime),
) -> anyhow::Result<u64> {
    let fleets = book.fleets();
    let tokens = fleets.iter().flat_map(|fleet| book.tokens(fleet.fleet.id));
    let holding = tokens.filter(|token| token.holds(by.1));
    let writes: Vec<Write> = holding
        .map(|token| revoked(&token, by))
        .collect::<anyhow::Result<_>>()?;
    store.commit(&writes)?;
    Ok(writes.len() as u64)
}

impl Target {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let mut fields = line.split(',').map(str::trim);
        let mut field = || fields.next().unwrap_or_default();
        let (kind, id, fleet) = (field(), field(), field());
        ensure!(fields.next().is_none(), "it has more than three fields");
        let no_id = || anyhow!("{id:?} is no id of that kind");
        Ok(match kind {
            "token" => Self::Token(TokenId::parse(id).ok_or_else(no_id)?),
            "authorization" => Self::Authorization(AuthorizationId::parse(id).ok_or_else(no_id)?),
            "bundle" => Self::Bundle(BundleId::parse(id).ok_or_else(no_id)?),
            "key" => Self::Bundle(KeyId::parse(id).ok_or_else(no_id)?.bundle()),
            "identity" => Self::Identity(IdentityId::parse(id).map_err(|_| no_id())?, fleet.into()),
            "vehicle" => Self::Vehicle(VehicleId::parse(id).map_err(|_| no_id())?, fleet.into()),
            _ => bail!(
                "kinds are token, key, bundle, authorization, identity and vehicle, not {kind:?}"
            ),
        })
    }

    /// What revokes it; nothing where the store does not know it.
    fn write(
        &self,
        store: &dyn Store,
        book: &Book,
        by: (&By, UnixTime),
    ) -> anyhow::Result<Option<Write>> {
        match self {
            Self::Token(id) => {
                let fleets = book.fleets();
                let mut tokens = fleets.iter().flat_map(|it| book.tokens(it.fleet.id));
                let token = tokens.find(|token| token.id == *id);
                token.map(|token| revoked(&token, by)).transpose()
            }
            Self::Identity(id, fleet) => {
                let fleet = fleet_named(book, fleet)?;
                let stands = fleet.identity(id.as_str()).map(|it| it.status);
                let object = format!("identity {}", id.as_str());
                let of = Followed::Identity(id.clone()).into();
                suspended(&fleet, (of, stands), object, by).map(Some)
            }
            Self::Vehicle(id, fleet) => {
                let fleet = fleet_named(book, fleet)?;
                let stands = fleet.vehicle(id.as_str()).map(|it| it.status);
                let object = format!("vehicle {}", id.as_str());
                let of = Followed::Vehicle(id.clone()).into();
                suspended(&fleet, (of, stands), object, by).map(Some)
            }
            Self::Authorization(id) => cancelled(store, book, *id, by),
            Self::Bundle(id) => {
                let signed = store.bundle(BundleKey::Id(*id))?;
                match signed {
                    Some(signed) => cancelled(store, book, signed.bundle.authorization, by),
                    None => Ok(None),
                }
            }
        }
    }
}

/// A write with the act it is kept as, unless all stands so already.
fn kept(
    write: Write,
    stands: bool,
    (fleet, (by, now)): (FleetId, (&By, UnixTime)),
    act: &str,
    object: String,
) -> anyhow::Result<Write> {
    if stands {
        return Ok(write);
    }
    let act = by.does((fleet, now), act, object);
    Ok(write.as_act(act.map_err(|why| anyhow!("{why}"))?))
}

/// What ends a token.
fn revoked(token: &Token, by: (&By, UnixTime)) -> anyhow::Result<Write> {
    let write = Write::RevokeToken(token.fleet, token.id, by.1);
    let (stands, id) = (!token.holds(by.1), token.id.to_string());
    kept(write, stands, (token.fleet, by), TOKEN_REVOKE, id)
}

/// What suspends an identity or a vehicle that stands so now.
fn suspended(
    fleet: &FleetBook,
    (of, stands): (Registered, Option<Status>),
    object: String,
    by: (&By, UnixTime),
) -> anyhow::Result<Write> {
    let write = Write::Suspend(Arc::new(Suspension {
        fleet: fleet.fleet.id,
        of,
        status: Status::Suspended,
        by: None,
        request: None,
    }));
    let stands = stands == Some(Status::Suspended);
    kept(write, stands, (fleet.fleet.id, by), "suspend", object)
}

/// The fleet of that name; the only one where none is given.
fn fleet_named(book: &Book, name: &str) -> anyhow::Result<Arc<FleetBook>> {
    let fleets = book.fleets();
    let fleet = match (name, &fleets[..]) {
        ("", [only]) => Some(Arc::clone(only)),
        ("", _) => bail!("name its fleet: there are several"),
        _ => book.fleet_named(name),
    };
    fleet.with_context(|| format!("there is no fleet {name:?}"))
}

/// What cancels an authorization; nothing where the store does not know it.
fn cancelled(
    store: &dyn Store,
    book: &Book,
    id: AuthorizationId,
    by: (&By, UnixTime),
) -> anyhow::Result<Option<Write>> {
    for fleet in book.fleets() {
        let filter = AuthorizationFilter {
            fleet: fleet.fleet.id,
            id: Some(id),
            vehicle: None,
            state: None,
            expired: None,
            now: 0,
            after: None,
            limit: 1,
        };
        let Some(now) = store.authorizations(&filter)?.into_iter().next() else {
            continue;
        };
        let from = (now.version, now.state, now.revision());
        let stands = now.state == AuthorizationState::Cancelled;
        let authorization = Authorization {
            state: AuthorizationState::Cancelled,
            ..now
        };
        let write = Write::Amend(Arc::new(Amendment {
            authorization: Arc::new(authorization),
            from,
            reissue: None,
            marks: Vec::new(),
            by: None,
            request: None,
        }));
        let object = format!("authorization {id}");
        return kept(write, stands, (fleet.fleet.id, by), "revoke", object).map(Some);
    }
    Ok(None)
}
