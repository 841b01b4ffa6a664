//! Who asks for an amendment, and what: a back end with a token and JSON, or an owner terminal with
//! a signed command. Floor 4.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, web};
use serde_json::{Map, Value};

use super::State;
use super::body::{Body, Kind, decode, kind, unsupported};
use super::caller;
use super::problem::Problem;
use crate::domain::{Refusal, Scope};
use crate::engine::amend::Caller;
use crate::engine::authenticate::{BackEnd, OwnerCommand, idempotency};
use crate::engine::ruling::check_why;
use crate::store::Request;

/// A request to amend, its sender known.
pub(super) struct Asked {
    who: Who,
    /// The JSON body, or the signed command's; an object, empty where there is none.
    pub(super) body: Map<String, Value>,
}

enum Who {
    BackEnd(BackEnd, Option<Request>),
    Owner(OwnerCommand),
}

impl Asked {
    /// Reads it. A back end's token needs `scope`.
    pub(super) async fn read(
        state: &State,
        request: &HttpRequest,
        payload: web::Payload,
        scope: Scope,
    ) -> Result<Self, Problem> {
        match kind(request)? {
            Kind::Jose => Self::by_owner(state, request, payload).await,
            Kind::Json => Self::by_back_end(state, request, payload, scope).await,
            Kind::NdJson => Err(unsupported(
                "this call takes application/json or application/jose",
            )),
        }
    }

    async fn by_owner(
        state: &State,
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<Self, Problem> {
        let body = Body::read(request, payload).await?;
        let jws = std::str::from_utf8(&body.0)
            .map_err(|_| Refusal::malformed("body", "a compact JWS is ASCII"))?;
        let (method, path) = (request.method().as_str(), request.path());
        let engine = &state.engine;
        let known = engine.look(|| engine.owner(jws.trim(), method, path));
        let owner = known.await?;
        let body = match &owner.command {
            Value::Null => Map::new(),
            Value::Object(command) => command.clone(),
            _ => return Err(Refusal::malformed("command", "it is an object").into()),
        };
        Ok(Self {
            who: Who::Owner(owner),
            body,
        })
    }

    async fn by_back_end(
        state: &State,
        request: &HttpRequest,
        payload: web::Payload,
        scope: Scope,
    ) -> Result<Self, Problem> {
        let caller = caller::back_end(state, request, scope).await?;
        let body = Body::read(request, payload).await?;
        let whole = format!("{} {}", request.method(), request.path());
        let repeatable = caller::header(request, "Idempotency-Key")?
            .map(|key| idempotency(caller.fleet.fleet.id, &whole, key, &body.0))
            .transpose()?;
        let nothing = body.0.is_empty() && !request.headers().contains_key(CONTENT_TYPE);
        Ok(Self {
            who: Who::BackEnd(caller, repeatable),
            body: if nothing || body.0.is_empty() {
                Map::new()
            } else {
                decode(&body.0)?
            },
        })
    }

    /// Who asks.
    pub(super) fn caller(&self) -> Caller<'_> {
        match &self.who {
            Who::BackEnd(caller, request) => Caller::BackEnd(caller, *request),
            Who::Owner(owner) => Caller::Owner(owner),
        }
    }

    /// Whether it is a signed command.
    pub(super) fn is_signed(&self) -> bool {
        matches!(self.who, Who::Owner(_))
    }

    /// Takes out of the body why this is asked. Of an owner's command it is kept with the command.
    pub(super) fn take_why(&mut self) -> Result<(), Refusal> {
        let why = match self.body.remove("why") {
            None | Some(Value::Null) => None,
            Some(Value::String(why)) => Some(why),
            Some(_) => return Err(Refusal::malformed("why", "a reason is a text")),
        };
        self.because(why)
    }

    /// Takes why this is asked.
    pub(super) fn because(&mut self, why: Option<String>) -> Result<(), Refusal> {
        check_why(why.as_deref())?;
        if let Who::BackEnd(caller, _) = &mut self.who {
            caller.why = why;
        }
        Ok(())
    }

    /// Refuses members other than these.
    pub(super) fn only(&self, members: &[&str]) -> Result<(), Refusal> {
        if self
            .body
            .keys()
            .all(|name| members.contains(&name.as_str()))
        {
            return Ok(());
        }
        let known = match members {
            [] => "none".into(),
            members => members.join(", "),
        };
        Err(Refusal::malformed(
            "body",
            format!("its members are {known}"),
        ))
    }
}
