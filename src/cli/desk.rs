//! What operators ask for, decided in one place for both ways in: the socket of a running server,
//! and the directory itself when no server holds it.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::acts::{ActsAsk, ActsTold};
use super::hsm::Report;
use super::reissue::{RenewAsk, RenewTold};
use super::steps::{self, Ask, Told};
use crate::domain::time::Time;
use crate::domain::{FleetSettings, Refusal, Scope, Signing, TokenId, UnixTime};
use crate::engine::authenticate::certificate_hash;
use crate::engine::book::FleetBook;
use crate::engine::ids::Ids;
use crate::engine::operate::{By, FLEET_CREATE, Rotate, TOKEN_CREATE, TOKEN_ROTATE};
use crate::engine::{Book, EngineSettings, Failure, operate};
use crate::hsm::Custody;
use crate::store::{Applied, Write};

/// A command of an operator, as it crosses the socket.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Command {
    FleetCreate {
        name: String,
        open_redemption: bool,
        #[serde(default)]
        signing: Option<String>,
        by: By,
    },
    FleetList,
    TokenCreate {
        fleet: String,
        scopes: Vec<String>,
        expires_in_s: Option<u64>,
        /// DER, base64url.
        #[serde(default)]
        certificate: Option<String>,
        by: By,
    },
    TokenList {
        fleet: Option<String>,
    },
    TokenRotate {
        id: String,
        overlap_s: u64,
        #[serde(default)]
        expires_in_s: Option<u64>,
        #[serde(default)]
        certificate: Option<String>,
        by: By,
    },
    TokenRevoke {
        id: String,
        by: By,
    },
    /// A page of what was done, which takes a store.
    Acts {
        ask: ActsAsk,
    },
    Epoch {
        ask: Ask,
    },
    /// A slice of signing bundles again, which takes an engine.
    Renew {
        ask: RenewAsk,
    },
    HsmStatus,
}

/// An answer, as it crosses the socket and as `--json` prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Fleet(FleetRow),
    Fleets(Vec<FleetRow>),
    Token(NewToken),
    Tokens(Vec<TokenRow>),
    Revoked(String),
    Acts(ActsTold),
    Epoch(Told),
    Renewed(RenewTold),
    Hsm(serde_json::Value),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct FleetRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) status: String,
    pub(super) open_redemption: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signing: Option<String>,
    pub(super) vehicles: usize,
    pub(super) identities: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NewToken {
    pub(super) id: String,
    /// Its text; one for a certificate has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    pub(super) expires: Option<Time>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct TokenRow {
    pub(super) id: String,
    pub(super) fleet: String,
    pub(super) scopes: Vec<String>,
    pub(super) created: Time,
    pub(super) expires: Option<Time>,
    /// When it was used last; after a restart as far as that was written down.
    #[serde(default)]
    pub(super) last_used: Option<Time>,
    /// `valid`, `expired` or `revoked`.
    pub(super) state: String,
}

/// What a command is decided from.
pub(super) struct Context<'a> {
    /// How things stand.
    pub(super) book: &'a Book,
    /// The rules.
    pub(super) settings: &'a EngineSettings,
    /// The time, in milliseconds.
    pub(super) unix_ms: u64,
    /// The issuing tokens, opened where a command needs them.
    pub(super) custody: &'a dyn Fn() -> Result<Arc<dyn Custody>, String>,
    /// How every issuing token is, asked where a command wants to know.
    pub(super) hsm: &'a dyn Fn() -> Result<Report, String>,
}

/// What was decided: what to write, and what to say once it is written.
pub(super) struct Decision {
    pub(super) writes: Vec<Write>,
    pub(super) answer: Answer,
}

/// Decides a command.
pub(super) fn decide(context: &Context<'_>, command: Command) -> Result<Decision, Failure> {
    let Context { book, unix_ms, .. } = *context;
    let now = unix_ms / 1000;
    let only = |answer| {
        Ok(Decision {
            writes: Vec::new(),
            answer,
        })
    };
    match command {
        Command::FleetCreate {
            name,
            open_redemption,
            signing,
            by,
        } => {
            let signing = signing.as_deref().map(signing_named).transpose()?;
            let settings = FleetSettings {
                open_redemption,
                signing,
            };
            Ok(fleet_create(book, unix_ms, (&name, settings), by)?)
        }
        Command::FleetList => only(Answer::Fleets(
            book.fleets().iter().map(|fleet| fleet_row(fleet)).collect(),
        )),
        Command::TokenCreate {
            fleet,
            scopes,
            expires_in_s,
            certificate,
            by,
        } => {
            let certificate = certificate.as_deref();
            let lasting = (expires_in_s, certificate);
            Ok(token_create(book, unix_ms, (&fleet, &scopes), lasting, by)?)
        }
        Command::TokenList { fleet } => only(token_list(book, fleet.as_deref(), now)?),
        Command::TokenRotate {
            id,
            overlap_s,
            expires_in_s,
            certificate,
            by,
        } => {
            let certificate = free_certificate(book, certificate.as_deref(), now)?;
            let how = Rotate {
                overlap_s,
                expires_at: expires_in_s.map(|seconds| now.saturating_add(seconds)),
                certificate: certificate.as_deref(),
            };
            Ok(token_rotate(book, unix_ms, token_id(&id)?, how, by)?)
        }
        Command::TokenRevoke { id, by } => {
            let writes = vec![operate::end_token(book, token_id(&id)?, now, by)?];
            Ok(Decision {
                writes,
                answer: Answer::Revoked(id),
            })
        }
        Command::Epoch { ask } => steps::decide(context, ask),
        Command::Acts { .. } => Err(Failure::Fault("there is no store to read".into())),
        Command::Renew { .. } => Err(Failure::Fault("there is no engine to sign with".into())),
        Command::HsmStatus => {
            let report = (context.hsm)().map_err(Failure::Fault)?;
            only(Answer::Hsm(
                serde_json::to_value(report).unwrap_or_default(),
            ))
        }
    }
}

fn token_list(book: &Book, fleet: Option<&str>, now: UnixTime) -> Result<Answer, Refusal> {
    let fleets = match fleet {
        Some(name) => vec![operate::fleet(book, name)?],
        None => book.fleets(),
    };
    let rows = fleets.iter().flat_map(|fleet| token_rows(book, fleet, now));
    Ok(Answer::Tokens(rows.collect()))
}

fn token_rotate(
    book: &Book,
    unix_ms: u64,
    id: TokenId,
    how: Rotate<'_>,
    by: By,
) -> Result<Decision, Refusal> {
    let (write, token, text) = operate::rotate_token(book, &Ids::new(), unix_ms, id, how)?;
    let object = format!("{} in place of {id}", token.id);
    let at = (token.fleet, unix_ms / 1000);
    Ok(Decision {
        writes: vec![by.act(write, at, TOKEN_ROTATE, object)?],
        answer: Answer::Token(NewToken {
            id: token.id.to_string(),
            token: text,
            expires: token.expires_at.map(Time),
        }),
    })
}

/// A certificate that no token holds for.
fn free_certificate(
    book: &Book,
    certificate: Option<&str>,
    now: UnixTime,
) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(text) = certificate else {
        return Ok(None);
    };
    let der = BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refusal::malformed("certificate", "it is not in base64url"))?;
    let taken = book.token(&certificate_hash(&der));
    if taken.is_some_and(|token| token.holds(now)) {
        return Err(Refusal::malformed(
            "certificate",
            "another token is for this certificate: revoke that first",
        ));
    }
    Ok(Some(der))
}

fn token_id(id: &str) -> Result<TokenId, Refusal> {
    TokenId::parse(id)
        .ok_or_else(|| Refusal::malformed("id", "a token's id is a UUID; see `fob token list`"))
}

fn fleet_create(
    book: &Book,
    unix_ms: u64,
    (name, settings): (&str, FleetSettings),
    by: By,
) -> Result<Decision, Refusal> {
    let fleet = operate::new_fleet(book, &Ids::new(), unix_ms, name, settings)?;
    let row = FleetRow {
        id: fleet.id.to_string(),
        name: fleet.name.to_string(),
        status: fleet.status.name().into(),
        open_redemption: settings.open_redemption,
        signing: settings.signing.map(|signing| signing.name().into()),
        vehicles: 0,
        identities: 0,
    };
    let of = (fleet.id, unix_ms / 1000);
    let write = by.act(Write::NewFleet(fleet), of, FLEET_CREATE, name.into())?;
    Ok(Decision {
        writes: vec![write],
        answer: Answer::Fleet(row),
    })
}

fn signing_named(name: &str) -> Result<Signing, Refusal> {
    Signing::parse(name)
        .ok_or_else(|| Refusal::malformed("signing", "keys are signed each, tree or auto"))
}

fn token_create(
    book: &Book,
    unix_ms: u64,
    (fleet, scopes): (&str, &[String]),
    (expires_in_s, certificate): (Option<u64>, Option<&str>),
    by: By,
) -> Result<Decision, Refusal> {
    let fleet = operate::fleet(book, fleet)?;
    let scopes = scopes
        .iter()
        .map(|name| scope(name))
        .collect::<Result<_, _>>()?;
    let expires_at = expires_in_s.map(|seconds| (unix_ms / 1000).saturating_add(seconds));
    let certificate = free_certificate(book, certificate, unix_ms / 1000)?;
    let ids = Ids::new();
    let (token, text) = match certificate.as_deref() {
        Some(der) => {
            let lasting = (expires_at, der);
            let token = operate::certificate_token(&ids, unix_ms, &fleet, scopes, lasting)?;
            (token, None)
        }
        None => {
            let (token, text) = operate::new_token(&ids, unix_ms, &fleet, scopes, expires_at)?;
            (token, Some(text))
        }
    };
    let (id, expires) = (token.id.to_string(), expires_at.map(Time));
    let of = (token.fleet, token.created_at);
    let write = by.act(Write::NewToken(token), of, TOKEN_CREATE, id.clone())?;
    let answer = Answer::Token(NewToken {
        id,
        token: text,
        expires,
    });
    Ok(Decision {
        writes: vec![write],
        answer,
    })
}

/// Whether everything decided was written.
pub(super) fn check(applied: &[Applied]) -> Result<(), Refusal> {
    crate::engine::registry::outcome(applied)
}

fn fleet_row(fleet: &FleetBook) -> FleetRow {
    FleetRow {
        id: fleet.fleet.id.to_string(),
        name: fleet.fleet.name.to_string(),
        status: fleet.fleet.status.name().into(),
        open_redemption: fleet.fleet.settings.open_redemption,
        signing: fleet
            .fleet
            .settings
            .signing
            .map(|signing| signing.name().into()),
        vehicles: fleet.vehicles_len(),
        identities: fleet.identities_len(),
    }
}

fn token_rows(book: &Book, fleet: &FleetBook, now: UnixTime) -> Vec<TokenRow> {
    let state = |token: &crate::domain::Token| match token.revoked_at {
        Some(_) => "revoked",
        None if token.holds(now) => "valid",
        None => "expired",
    };
    let tokens = book.tokens(fleet.fleet.id);
    let row = |token: &Arc<crate::domain::Token>| TokenRow {
        id: token.id.to_string(),
        fleet: fleet.fleet.name.to_string(),
        scopes: token.scopes.names().map(Into::into).collect(),
        created: Time(token.created_at),
        expires: token.expires_at.map(Time),
        last_used: book.uses.last(token.id).map(Time),
        state: state(token).into(),
    };
    tokens.iter().map(row).collect()
}

fn scope(name: &str) -> Result<Scope, Refusal> {
    Scope::parse(name).ok_or_else(|| {
        Refusal::malformed(
            "scopes",
            "scopes are authorize, issue, revoke, read, admin, approve",
        )
    })
}
