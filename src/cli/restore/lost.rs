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
    Status, TokenId, UnixTime, VehicleId,
};
use crate::engine::Book;
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
        now: UnixTime,
    ) -> anyhow::Result<Vec<u64>> {
        let mut unknown = Vec::new();
        for (line, target) in &self.0 {
            let write = target.write(store, book, now);
            let Some(write) = write.with_context(|| format!("line {line}"))? else {
                unknown.push(*line);
                continue;
            };
            // What has ended already is ended once more.
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
pub(super) fn end_tokens(store: &dyn Store, book: &Book, now: UnixTime) -> anyhow::Result<u64> {
    let fleets = book.fleets();
    let tokens = fleets.iter().flat_map(|fleet| book.tokens(fleet.fleet.id));
    let writes: Vec<Write> = tokens
        .filter(|token| token.holds(now))
        .map(|token| Write::RevokeToken(token.fleet, token.id, now))
        .collect();
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
        now: UnixTime,
    ) -> anyhow::Result<Option<Write>> {
        let suspended = |fleet: &str, of: Registered| -> anyhow::Result<_> {
            Ok(Some(Write::Suspend(Arc::new(Suspension {
                fleet: fleet_named(book, fleet)?,
                of,
                status: Status::Suspended,
                by: None,
                request: None,
            }))))
        };
        match self {
            Self::Token(id) => {
                let fleets = book.fleets();
                let mut tokens = fleets.iter().flat_map(|it| book.tokens(it.fleet.id));
                let token = tokens.find(|token| token.id == *id);
                Ok(token.map(|token| Write::RevokeToken(token.fleet, token.id, now)))
            }
            Self::Identity(id, fleet) => suspended(fleet, Followed::Identity(id.clone()).into()),
            Self::Vehicle(id, fleet) => suspended(fleet, Followed::Vehicle(id.clone()).into()),
            Self::Authorization(id) => cancelled(store, book, *id),
            Self::Bundle(id) => {
                let signed = store.bundle(BundleKey::Id(*id))?;
                match signed {
                    Some(signed) => cancelled(store, book, signed.bundle.authorization),
                    None => Ok(None),
                }
            }
        }
    }
}

/// The fleet of that name; the only one where none is given.
fn fleet_named(book: &Book, name: &str) -> anyhow::Result<FleetId> {
    let fleets = book.fleets();
    let fleet = match (name, &fleets[..]) {
        ("", [only]) => Some(Arc::clone(only)),
        ("", _) => bail!("name its fleet: there are several"),
        _ => book.fleet_named(name),
    };
    let fleet = fleet.with_context(|| format!("there is no fleet {name:?}"))?;
    Ok(fleet.fleet.id)
}

/// What cancels an authorization; nothing where the store does not know it.
fn cancelled(store: &dyn Store, book: &Book, id: AuthorizationId) -> anyhow::Result<Option<Write>> {
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
        let authorization = Authorization {
            state: AuthorizationState::Cancelled,
            ..now
        };
        return Ok(Some(Write::Amend(Arc::new(Amendment {
            authorization: Arc::new(authorization),
            from,
            reissue: None,
            marks: Vec::new(),
            by: None,
            request: None,
        }))));
    }
    Ok(None)
}
