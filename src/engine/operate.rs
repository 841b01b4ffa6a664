//! What operators do: fleets and tokens. Each function decides and says what to write; whoever
//! calls it commits, through a running engine or straight into the store.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::authenticate::{TOKEN_PREFIX, token_hash};
use super::book::{Book, FleetBook};
use super::ids::Ids;
use crate::domain::{
    Fleet, FleetName, FleetSettings, Refusal, RefusalCode, Scopes, Status, Token, TokenId, UnixTime,
};
use crate::store::{Rotation, Write};

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
    if scopes == Scopes::default() {
        return Err(Refusal::malformed("scopes", "name at least one scope"));
    }
    if scopes.contradict() {
        return Err(Refusal::malformed(
            "scopes",
            "who approves is a second person: approve goes with neither authorize nor issue",
        ));
    }
    let text = format!(
        "{TOKEN_PREFIX}{}",
        BASE64_URL_SAFE_NO_PAD.encode(ids.random::<32>())
    );
    let token = Token {
        id: ids.token(unix_ms),
        fleet: fleet.fleet.id,
        hash: token_hash(&text),
        scopes,
        created_at: unix_ms / 1000,
        expires_at,
        revoked_at: None,
        used_at: None,
    };
    Ok((token, text))
}

/// A new token with the scopes of one that holds, which ends after `overlap_s`; and its text. It
/// lasts as long as the one before was meant to, where `expires_at` does not say.
///
/// # Errors
/// `not_found` where no fleet has that token; `malformed` where it has ended.
pub fn rotate_token(
    book: &Book,
    ids: &Ids,
    unix_ms: u64,
    id: TokenId,
    (overlap_s, expires_at): (u64, Option<UnixTime>),
) -> Result<(Write, Token, String), Refusal> {
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
    let (token, text) = new_token(ids, unix_ms, &fleet, before.scopes, expires_at)?;
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
/// `not_found` where no fleet has it.
pub fn end_token(book: &Book, id: TokenId, now: UnixTime) -> Result<Write, Refusal> {
    let (fleet, _) = token(book, id)?;
    Ok(Write::RevokeToken(fleet.fleet.id, id, now))
}
