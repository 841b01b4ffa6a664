//! Who calls: a fleet's back end by bearer token, an owner terminal by signed command.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde_json::Value;

use super::Engine;
use super::book::FleetBook;
use super::jws::{COMMAND_TYP, CommandClaims, Unverified};
use super::limits::Asks;
use crate::domain::{FleetId, Refusal, RefusalCode, Scope, Status, Terminal, Token, UnixTime};
use crate::store::{Act, Request};

/// Every bearer token begins so.
pub const TOKEN_PREFIX: &str = "fob_";

/// A fleet's back end, its token checked.
pub struct BackEnd {
    /// Its fleet.
    pub fleet: Arc<FleetBook>,
    /// Its token.
    pub token: Arc<Token>,
    /// Why it asks, as it puts it.
    pub why: Option<String>,
}

impl BackEnd {
    /// What it does now, as it is kept: `act` in a stable word, and of what.
    pub(super) fn act(&self, at: UnixTime, act: &str, object: String) -> Act {
        Act {
            fleet: self.fleet.fleet.id,
            at,
            by: self.token.id.to_string(),
            act: act.into(),
            object,
            why: self.why.clone(),
        }
    }
}

/// An owner terminal's command, owner and terminal checked.
pub struct OwnerCommand {
    /// Its fleet.
    pub fleet: Arc<FleetBook>,
    /// The terminal that signed.
    pub terminal: Arc<Terminal>,
    /// The command itself.
    pub command: Value,
    /// What makes it one that may be sent again.
    pub request: Request,
    /// The JWS as it came, to be kept as evidence.
    pub evidence: String,
}

impl Engine {
    /// Knows a back end by its bearer token, and checks that the token has `scope`.
    ///
    /// # Errors
    /// `unauthenticated` for a token that is unknown or has ended; `forbidden` for one without the
    /// scope, or of a fleet that is suspended; `rate_limited`.
    pub fn back_end(&self, bearer: &str, scope: Scope) -> Result<BackEnd, Refusal> {
        let unknown = "the bearer token is unknown or has ended";
        self.back_end_of(&token_hash(bearer), unknown, scope)
    }

    /// Knows a back end by the certificate it has shown ([`certificate_hash`]).
    ///
    /// # Errors
    /// As [`Engine::back_end`].
    pub fn back_end_shown(&self, hash: &[u8; 32], scope: Scope) -> Result<BackEnd, Refusal> {
        let unknown = "no fleet has this certificate, or its token has ended";
        self.back_end_of(hash, unknown, scope)
    }

    fn back_end_of(
        &self,
        hash: &[u8; 32],
        unknown: &'static str,
        scope: Scope,
    ) -> Result<BackEnd, Refusal> {
        let unauthenticated = |why| Refusal::new(RefusalCode::Unauthenticated).detail(why);
        let token = self
            .book()
            .token(hash)
            .filter(|token| token.holds(self.clock().unix()))
            .ok_or_else(|| unauthenticated(unknown))?;
        let fleet = self
            .book()
            .fleet(token.fleet)
            .ok_or_else(|| unauthenticated("the token's fleet is gone"))?;
        check_fleet(&fleet)?;
        if !token.scopes.has(scope) {
            return Err(Refusal::new(RefusalCode::Forbidden)
                .detail(format!("the token lacks the scope {}", scope.name())));
        }
        let asks = Asks {
            token: Some(&token.id),
            ..Asks::default()
        };
        self.shared.limits.ask(&fleet, asks)?;
        self.book().uses.note(token.id, self.clock().unix());
        Ok(BackEnd {
            fleet,
            token,
            why: None,
        })
    }

    /// Knows an owner by identity *and* terminal: checks a signed command made for this request.
    ///
    /// # Errors
    /// `unauthenticated` where anything about the command does not hold; `identity_suspended`;
    /// `forbidden` where terminal or fleet is suspended.
    pub fn owner(&self, jws: &str, method: &str, path: &str) -> Result<OwnerCommand, Refusal> {
        let refuse = |why: &str| {
            Refusal::new(RefusalCode::Unauthenticated).detail(format!("the signed command: {why}"))
        };
        let unverified = Unverified::parse(jws, COMMAND_TYP).map_err(refuse)?;
        let kid = unverified
            .kid()
            .ok_or_else(|| refuse("its header has no kid"))?;
        let (fleet, terminal) = kid
            .split_once('/')
            .ok_or_else(|| refuse("its kid is not <fleet>/<terminal>"))?;
        let unknown = || refuse("its kid names no registered terminal");
        let fleet = self.book().fleet_named(fleet).ok_or_else(unknown)?;
        let terminal = fleet.terminal(terminal).ok_or_else(unknown)?;
        let claims: CommandClaims = unverified.verify(&terminal.key).map_err(refuse)?;
        let audience = &self.settings().public_url;
        claims
            .check(audience, method, path, self.clock().unix())
            .map_err(refuse)?;
        if claims.iss != terminal.identity.as_str() {
            return Err(refuse(
                "its iss is not the identity the terminal is registered for",
            ));
        }
        let identity = fleet
            .identity(&claims.iss)
            .ok_or_else(|| refuse("its iss is unknown"))?;
        check_fleet(&fleet)?;
        if identity.status != Status::Active {
            return Err(RefusalCode::IdentitySuspended.into());
        }
        if terminal.status != Status::Active {
            return Err(Refusal::new(RefusalCode::Forbidden).detail(
                "the terminal is suspended: use another terminal of its identity, or have the fleet resume it",
            ));
        }
        let asks = Asks {
            identity: Some(&identity.id),
            terminal: Some(&terminal.id),
            ..Asks::default()
        };
        self.shared.limits.ask(&fleet, asks)?;
        let scope = [
            b"jti",
            terminal.id.as_str().as_bytes(),
            claims.jti.as_bytes(),
        ];
        let request = Request {
            scope: request_scope(fleet.fleet.id, scope),
            digest: sha256(jws.as_bytes()),
        };
        Ok(OwnerCommand {
            fleet,
            terminal,
            command: claims.command,
            request,
            evidence: jws.into(),
        })
    }
}

/// What a back end's `Idempotency-Key` stands for: the same key with the same body is the same
/// request.
///
/// # Errors
/// `malformed` where the key is not 1 to 128 visible ASCII characters.
pub fn idempotency(fleet: FleetId, path: &str, key: &str, body: &[u8]) -> Result<Request, Refusal> {
    check_key(key)?;
    let scope = request_scope(fleet, [b"key", path.as_bytes(), key.as_bytes()]);
    Ok(Request {
        scope,
        digest: sha256(body),
    })
}

/// What an `Idempotency-Key` stands for under which orders come.
///
/// # Errors
/// As [`idempotency`].
pub fn orders_scope(fleet: FleetId, key: &str) -> Result<[u8; 32], Refusal> {
    check_key(key)?;
    Ok(request_scope(fleet, [b"orders", b"", key.as_bytes()]))
}

/// What a borrower's request is known by once it was answered: whoever signs it names it by its
/// `jti`, whatever else it says.
pub(super) fn borrowers_scope(fleet: FleetId, key: &[u8; 32], jti: &[u8], text: &[u8]) -> Request {
    Request {
        scope: request_scope(fleet, [b"borrower", key, jti]),
        digest: sha256(text),
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if !(1..=128).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err(Refusal::malformed(
            "Idempotency-Key",
            "it is 1 to 128 visible ASCII characters",
        ));
    }
    Ok(())
}

/// SHA-256 of a token's text, as stored.
pub fn token_hash(token: &str) -> [u8; 32] {
    sha256(token.as_bytes())
}

/// What stands for a certificate (DER) in a token's place: no bearer token has a zero in it.
pub fn certificate_hash(certificate: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"\0fob certificate\0");
    context.update(certificate);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn check_fleet(fleet: &FleetBook) -> Result<(), Refusal> {
    match fleet.fleet.status {
        Status::Active => Ok(()),
        Status::Suspended => {
            Err(Refusal::new(RefusalCode::Forbidden).detail("the fleet is suspended"))
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// What stands for a part of a request: for itself, when the request comes again.
pub(super) fn part_of(request: Request, part: &[u8]) -> Request {
    let mut context = Context::new(&SHA256);
    context.update(&request.scope);
    context.update(part);
    let mut scope = [0; 32];
    scope.copy_from_slice(context.finish().as_ref());
    Request { scope, ..request }
}

/// Hashes the parts with their lengths, so that no two lists of parts read alike.
fn request_scope(fleet: FleetId, parts: [&[u8]; 3]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(fleet.bytes());
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_do_not_run_together() {
        let fleet = FleetId([1; 16]);
        assert_ne!(
            request_scope(fleet, [b"a", b"bc", b"d"]),
            request_scope(fleet, [b"a", b"b", b"cd"])
        );
        assert_ne!(
            request_scope(fleet, [b"a", b"b", b"c"]),
            request_scope(FleetId([2; 16]), [b"a", b"b", b"c"])
        );
        assert!(idempotency(fleet, "/", "", b"").is_err());
        assert!(idempotency(fleet, "/", "a\u{7f}", b"").is_err());
    }
}
