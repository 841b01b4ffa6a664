//! What operators do: fleets and tokens. Each function decides and says what to write; whoever
//! calls it commits, through a running engine or straight into the store.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::authenticate::{TOKEN_PREFIX, token_hash};
use super::book::{Book, FleetBook};
use super::ids::Ids;
use crate::domain::{
    Fleet, FleetName, FleetSettings, Refusal, RefusalCode, Scopes, Status, Token, TokenId, UnixTime,
};
use crate::store::Write;

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
pub fn fleet(book: &Book, name: &str) -> Result<std::sync::Arc<FleetBook>, Refusal> {
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
    };
    Ok((token, text))
}

/// The end of a token.
///
/// # Errors
/// `not_found` where no fleet has it.
pub fn end_token(book: &Book, id: TokenId, now: UnixTime) -> Result<Write, Refusal> {
    book.fleets()
        .iter()
        .find(|fleet| {
            book.tokens(fleet.fleet.id)
                .iter()
                .any(|token| token.id == id)
        })
        .map(|fleet| Write::RevokeToken(fleet.fleet.id, id, now))
        .ok_or_else(|| {
            Refusal::new(RefusalCode::NotFound)
                .detail("there is no such token; see `fob token list`")
        })
}
