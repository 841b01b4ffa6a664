//! `POST /v1/explain`: whether something would pass, rule by rule, without doing it.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::State;
use super::body::{Body, json as decode_json};
use super::caller;
use super::problem::Problem;
use super::shapes::{AuthorizationCommand, not_found};
use crate::domain::json::optional_object;
use crate::domain::time::Time;
use crate::domain::{AuthorizationId, IdentityId, Refusal, Scope};
use crate::engine::explain::{Explanation, InContext};

/// What is to be explained: one of these.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainCommand {
    /// What one would authorize.
    #[serde(default, deserialize_with = "optional_object")]
    authorization: Option<AuthorizationCommand>,
    /// What somebody would redeem.
    #[serde(default, deserialize_with = "optional_object")]
    redemption: Option<RedemptionToExplain>,
}

/// Who would redeem what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedemptionToExplain {
    /// The authorization, by its id.
    authorization: String,
    /// The identity.
    identity: String,
    /// Its registered terminal; any active one of its own where absent.
    terminal: Option<String>,
    /// The address it comes from; where absent, nobody knows from where.
    address: Option<String>,
}

/// A rule, and what it says.
#[derive(Serialize, ToSchema)]
struct FindingView {
    rule: &'static str,
    passes: bool,
    /// The code of the refusal, where it does not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// When keys could be used.
#[derive(Serialize, ToSchema)]
struct UsableView {
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    /// The same in words, as of now.
    words: String,
}

/// Whether it would pass.
#[derive(Serialize, ToSchema)]
pub(super) struct ExplanationView {
    passes: bool,
    /// Every rule, in the order in which they are asked: the first that does not pass is what a
    /// redemption would be refused with. Of an authorization `authorization` and `vehicle_status`
    /// are asked when it is made, all others when it is redeemed.
    rules: Vec<FindingView>,
    /// When its keys could be used; absent where the authorization itself does not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<UsableView>,
    pin_required: bool,
    /// What the fleet's rules about context make of a redemption, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextView>,
}

/// What rules about context make of a redemption.
#[derive(Serialize, ToSchema)]
struct ContextView {
    score: u32,
    /// `issue`, `step_up` or `refuse`.
    decision: &'static str,
    points: Vec<PointsView>,
}

/// A rule that gives points.
#[derive(Serialize, ToSchema)]
struct PointsView {
    /// Its number among the rules, from 0.
    rule: usize,
    /// The member it is written as.
    because: &'static str,
    points: u32,
}

impl From<InContext> for ContextView {
    fn from(it: InContext) -> Self {
        let points = |(rule, because, points)| PointsView {
            rule,
            because,
            points,
        };
        Self {
            score: it.score,
            decision: it.decision.name(),
            points: it.points.into_iter().map(points).collect(),
        }
    }
}

/// Whether an authorization or a redemption would pass, rule by rule, and why not. Nothing is done
/// and nothing is counted. Rates are not looked at.
#[utoipa::path(post, path = "/v1/explain", tag = "rules", request_body = ExplainCommand,
    security(("bearer" = ["read"])),
    responses((status = 200, body = ExplanationView), (status = "4XX", description = "problem+json")))]
pub(super) async fn explain(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    let command: ExplainCommand = decode_json(&request, &Body::read(&request, payload).await?)?;
    let (engine, fleet) = (&state.engine, &caller.fleet);
    let explanation = match (command.authorization, command.redemption) {
        (Some(command), None) => engine.explain_authorization(fleet, command.check(engine)?),
        (None, Some(asked)) => {
            let id = AuthorizationId::parse(&asked.authorization).ok_or_else(not_found)?;
            let identity = IdentityId::parse(&asked.identity)?;
            let found = engine.authorization(fleet.fleet.id, id).await?;
            let found = found.ok_or_else(not_found)?;
            let address = asked.address.as_deref().map(str::parse).transpose();
            let address = address.map_err(|_| {
                Refusal::malformed("redemption.address", "it is an address of IPv4 or IPv6")
            })?;
            let terminal = asked.terminal.as_deref();
            engine.explain_redemption(fleet, &found, &identity, terminal, address)?
        }
        _ => {
            let why = "give an authorization or a redemption";
            return Err(Refusal::malformed("body", why).into());
        }
    };
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(view(explanation)))
}

fn view(explained: Explanation) -> ExplanationView {
    let passes = explained.passes();
    let findings = explained.findings.into_iter().map(|one| FindingView {
        rule: one.rule,
        passes: one.refusal.is_none(),
        code: one.refusal.as_ref().map(|it| it.code.code()),
        why: one.refusal.map(|it| {
            let title = it.code.title();
            it.detail
                .map_or_else(|| title.into(), |detail| format!("{title}: {detail}"))
        }),
    });
    let words = explained.words.unwrap_or_default();
    ExplanationView {
        passes,
        rules: findings.collect(),
        keys: explained.keys.map(|keys| UsableView {
            not_before: Time(keys.not_before),
            not_after: Time(keys.not_after),
            words,
        }),
        pin_required: explained.pin_required,
        context: explained.context.map(Into::into),
    }
}
