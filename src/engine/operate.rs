//! What operators do: fleets and tokens. Each function decides and says what to write; whoever
//! calls it commits, through a running engine or straight into the store.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::authenticate::{TOKEN_PREFIX, certificate_hash, token_hash};
use super::book::{Book, FleetBook};
use super::ids::Ids;
use super::ruling::check_why;
use crate::domain::operator::check_name;
use crate::domain::{
    Fleet, FleetId, FleetName, FleetSettings, Refusal, RefusalCode, Scopes, Status, Token, TokenId,
    UnixTime,
};
use crate::store::{Act, Rotation, Write};

/// Who gives a command, and why: kept with what it does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// The operator's name.
    pub operator: String,
    /// Why, as they put it.
    #[serde(default)]
    pub why: Option<String>,
}

impl By {
    /// Refuses a name that is none, and a reason that is too long.
    ///
    /// # Errors
    /// `malformed`.
    pub fn check(&self) -> Result<(), Refusal> {
        check_name(&self.operator)?;
        check_why(self.why.as_deref())
    }

    /// What they do to a fleet, as it is kept: `act` in a stable word, and of what.
    ///
    /// # Errors
    /// As [`By::check`].
    pub fn does(
        &self,
        (fleet, at): (FleetId, UnixTime),
        act: &str,
        object: String,
    ) -> Result<Act, Refusal> {
        self.check()?;
        Ok(Act {
            fleet,
            at,
            by: self.operator.clone(),
            act: act.into(),
            object,
            why: self.why.clone(),
        })
    }

    /// A write, with the act it is kept as: `act` in a stable word, and of what.
    ///
    /// # Errors
    /// As [`By::check`].
    pub fn act(
        self,
        write: Write,
        of: (FleetId, UnixTime),
        act: &str,
        object: String,
    ) -> Result<Write, Refusal> {
        Ok(write.as_act(self.does(of, act, object)?))
    }
}

/// The act that makes a fleet.
pub const FLEET_CREATE: &str = "fleet.create";

/// The act that makes a token.
pub const TOKEN_CREATE: &str = "token.create";

/// The act that makes a token in the place of another. Its object begins with the new one's id.
pub const TOKEN_ROTATE: &str = "token.rotate";

/// The act that ends a token.
pub const TOKEN_REVOKE: &str = "token.revoke";

/// A new fleet.
///
/// # Errors
/// `malformed` for a name that is taken or is none.
pub fn new_fleet(
    book: &Book,
    ids: &Ids,
    unix_ms: u64,
    name: &str,
    settings: FleetSettings,
) -> Result<Fleet, Refusal> {
    let name = FleetName::parse(name)?;
    if book.fleet_named(name.as_str()).is_some() {
        return Err(Refusal::malformed("name", "there is a fleet of this name"));
    }
    Ok(Fleet {
        id: ids.fleet(unix_ms),
        name,
        status: Status::Active,
        tag: u32::from_be_bytes(ids.random()),
        status_key: ids.random(),
        status_next: book.restore().status_next(),
        settings,
    })
}

/// The fleet of that name or id.
///
/// # Errors
/// `not_found`.
pub fn fleet(book: &Book, name: &str) -> Result<Arc<FleetBook>, Refusal> {
    book.fleet_named(name).ok_or_else(|| {
        Refusal::new(RefusalCode::NotFound).detail("there is no such fleet; see `fob fleet list`")
    })
}

/// A new token for a fleet: what is stored, and its text, which is not.
///
/// # Errors
/// `malformed` for no scopes at all, or for `approve` beside `authorize` or `issue`.
pub fn new_token(
    ids: &Ids,
    unix_ms: u64,
    fleet: &FleetBook,
    scopes: Scopes,
    expires_at: Option<UnixTime>,
) -> Result<(Token, String), Refusal> {
    let text = format!(
        "{TOKEN_PREFIX}{}",
        BASE64_URL_SAFE_NO_PAD.encode(ids.random::<32>())
    );
    let hash = token_hash(&text);
    let token = token_of(ids, unix_ms, fleet, scopes, (expires_at, hash))?;
    Ok((token, text))
}

/// A new token for a fleet, for whom a certificate (DER) stands: whoever shows that is its back end.
///
/// # Errors
/// As [`new_token`].
pub fn certificate_token(
    ids: &Ids,
    unix_ms: u64,
    fleet: &FleetBook,
    scopes: Scopes,
    (expires_at, certificate): (Option<UnixTime>, &[u8]),
) -> Result<Token, Refusal> {
    let hash = certificate_hash(certificate);
    token_of(ids, unix_ms, fleet, scopes, (expires_at, hash))
}

fn token_of(
    ids: &Ids,
    unix_ms: u64,
    fleet: &FleetBook,
    scopes: Scopes,
    (expires_at, hash): (Option<UnixTime>, [u8; 32]),
) -> Result<Token, Refusal> {
    if scopes == Scopes::default() {
        return Err(Refusal::malformed("scopes", "name at least one scope"));
    }
    if scopes.contradict() {
        return Err(Refusal::malformed(
            "scopes",
            "who approves is a second person: approve goes with neither authorize nor issue",
        ));
    }
    Ok(Token {
        id: ids.token(unix_ms),
        fleet: fleet.fleet.id,
        hash,
        scopes,
        created_at: unix_ms / 1000,
        expires_at,
        revoked_at: None,
        used_at: None,
    })
}

/// How a token is rotated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotate<'a> {
    /// For how long both hold, in seconds.
    pub overlap_s: u64,
    /// When the new one ends; it lasts as long as the one before was meant to where absent.
    pub expires_at: Option<UnixTime>,
    /// The certificate (DER) the new one is for, where it is for one.
    pub certificate: Option<&'a [u8]>,
}

/// A new token with the scopes of one that holds, which ends after an overlap; and its text, where it
/// has one.
///
/// # Errors
/// `not_found` where no fleet has that token; `malformed` where it has ended.
pub fn rotate_token(
    book: &Book,
    ids: &Ids,
    unix_ms: u64,
    id: TokenId,
    how: Rotate<'_>,
) -> Result<(Write, Token, Option<String>), Refusal> {
    let Rotate {
        overlap_s,
        expires_at,
        certificate,
    } = how;
    let (fleet, before) = token(book, id)?;
    let now = unix_ms / 1000;
    if !before.holds(now) {
        return Err(Refusal::malformed(
            "id",
            "this token has ended: `fob token create` makes another",
        ));
    }
    let as_before = || {
        let lasts = before.expires_at?.saturating_sub(before.created_at);
        Some(now.saturating_add(lasts))
    };
    let expires_at = expires_at.or_else(as_before);
    let scopes = before.scopes;
    let (token, text) = match certificate {
        Some(der) => {
            let token = certificate_token(ids, unix_ms, &fleet, scopes, (expires_at, der))?;
            (token, None)
        }
        None => {
            let (token, text) = new_token(ids, unix_ms, &fleet, scopes, expires_at)?;
            (token, Some(text))
        }
    };
    let write = Write::RotateToken(Box::new(Rotation {
        before: id,
        ends: now.saturating_add(overlap_s),
        token: token.clone(),
    }));
    Ok((write, token, text))
}

/// A token, and its fleet.
fn token(book: &Book, id: TokenId) -> Result<(Arc<FleetBook>, Arc<Token>), Refusal> {
    let found = book.fleets().into_iter().find_map(|fleet| {
        let tokens = book.tokens(fleet.fleet.id);
        let token = tokens.into_iter().find(|token| token.id == id)?;
        Some((fleet, token))
    });
    found.ok_or_else(|| {
        Refusal::new(RefusalCode::NotFound).detail("there is no such token; see `fob token list`")
    })
}

/// The end of a token.
///
/// # Errors
/// `not_found` where no fleet has it; as [`By::act`].
pub fn end_token(book: &Book, id: TokenId, now: UnixTime, by: By) -> Result<Write, Refusal> {
    let (fleet, _) = token(book, id)?;
    let fleet = fleet.fleet.id;
    let write = Write::RevokeToken(fleet, id, now);
    by.act(write, (fleet, now), TOKEN_REVOKE, id.to_string())
}
