//! What operators do: fleets and tokens. Each function decides and says what to write; whoever
//! calls it commits, through a running engine or straight into the store.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::authenticate::{ClientCertificate, TOKEN_PREFIX, token_hash};
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

/// A new bearer token for a fleet: what is stored, and its text, which is not.
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
    let secret = BASE64_URL_SAFE_NO_PAD.encode(ids.random::<32>());
    let text = format!("{TOKEN_PREFIX}{secret}");
    let hash = token_hash(&text);
    Ok((
        token(ids, unix_ms, fleet, (scopes, expires_at), hash)?,
        text,
    ))
}

/// A token for a fleet that is a client's certificate.
///
/// # Errors
/// As [`new_token`], and `malformed` for a certificate that is a token already.
pub fn new_certificate(
    book: &Book,
    unix_ms: u64,
    fleet: &FleetBook,
    wanted: (Scopes, Option<UnixTime>),
    certificate: ClientCertificate,
) -> Result<Token, Refusal> {
    let ClientCertificate(hash) = certificate;
    if book.token(&hash).is_some() {
        return Err(Refusal::malformed(
            "certificate",
            "it is a token already, or was one: use a new certificate",
        ));
    }
    token(&Ids::new(), unix_ms, fleet, wanted, hash)
}

fn token(
    ids: &Ids,
    unix_ms: u64,
    fleet: &FleetBook,
    (scopes, expires_at): (Scopes, Option<UnixTime>),
    hash: [u8; 32],
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
    })
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
