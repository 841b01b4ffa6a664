//! `/v1/rules`: what a fleet rules. One document, versioned: read, tried, set.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, IF_MATCH};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::State;
use super::body::{Body, json as decode_json};
use super::caller;
use super::problem::Problem;
use super::shapes::{FunctionArg, WeeklyShape};
use crate::domain::json::object;
use crate::domain::{Refusal, RefusalCode, RulesText, Scope};
use crate::engine::follow::Swept;
use crate::engine::recent::Replay;

/// What a fleet rules; what is left out refuses nothing.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the shape, for the document; domain/rules reads it"
)]
pub(super) struct RulesShape {
    /// Which functions need which licences. Keys end with the licence they need.
    licences: Vec<LicenceShape>,
    /// Named sets of functions and limits: `preset:NAME` stands for one wherever functions are.
    presets: BTreeMap<String, PresetShape>,
    /// How fast each caller, borrower, device and vehicle may ask; beyond it, `rate_limited`.
    limits: RatesShape,
    /// The most keys in a day (UTC); beyond it, `quota_exceeded` until more are approved.
    keys_per_day: Option<u64>,
    /// By how many seconds keys of redemptions work before their window begins; 0 to 86400.
    early_grace_s: Option<u32>,
    /// The normal band of issuing; beyond it issuing freezes until somebody else releases it.
    brake: BandsShape,
    /// What the surroundings of a redemption are worth, and what their sum decides.
    context: Option<ContextShape>,
}

/// What the surroundings of a redemption are worth.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct ContextShape {
    /// What gives points; at most 32.
    rules: Vec<ContextRuleShape>,
    /// From how many points on the PIN or the owner's approval is asked for; 1 to 1000000.
    step_up_from: u32,
    /// From how many points on it is refused; never, where absent.
    refuse_from: Option<u32>,
    /// How long an owner's approval holds, in seconds: 1 to 86400, or 900.
    approval_s: Option<u32>,
    /// A registered terminal is asked for a PIN from `step_up_from` on only.
    pin_on_step_up: Option<bool>,
}

/// A rule: its points, and one of the others.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct ContextRuleShape {
    /// 1 to 1000000.
    points: u32,
    /// The terminal was first seen less than so many days ago, or is not registered.
    terminal_newer_than_days: Option<u32>,
    /// The identity was proved more than so many days ago, or never.
    proved_longer_ago_than_days: Option<u32>,
    /// It lies within these hours of the week.
    hours: Option<Vec<WeeklyShape>>,
    /// The identity has redeemed so many times (1 to 100) or more in so many seconds.
    redemptions: Option<RateShape>,
    /// It comes from one of these ranges of addresses, as in `10.0.0.0/8`.
    inside: Option<Vec<String>>,
    /// It comes from none of these, or nobody knows from where.
    outside: Option<Vec<String>>,
}

/// Which functions need which licences.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct LicenceShape {
    /// The functions, by name or code.
    functions: Vec<FunctionArg>,
    /// On vehicles of these models; of every model where absent.
    models: Option<Vec<String>>,
    /// Licence classes, one of which is enough.
    classes: Vec<String>,
}

/// A named set of functions and limits.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct PresetShape {
    /// The functions, by name or code.
    functions: Vec<FunctionArg>,
    /// How often each may be used, by its name or code.
    max_uses: Option<BTreeMap<String, u32>>,
    /// The longest its keys may work, in seconds.
    lasts_s: Option<u64>,
    /// At which hours of the week they work.
    recurring: Option<Vec<WeeklyShape>>,
}

/// So many in so many seconds.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct RateShape {
    /// 1 to 1000000.
    count: u32,
    /// 1 to 86400.
    seconds: u32,
}

/// Rates of each.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct RatesShape {
    /// Calls and orders of one token.
    token: Option<RateShape>,
    /// Redemptions, orders and commands of one identity.
    identity: Option<RateShape>,
    /// Redemptions, orders and commands of one registered terminal.
    terminal: Option<RateShape>,
    /// Authorizations, redemptions and orders for one vehicle.
    vehicle: Option<RateShape>,
}

/// The normal band of issuing, in bundles.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document")]
pub(super) struct BandsShape {
    /// Of the whole fleet.
    fleet: Option<RateShape>,
    /// Of each vehicle.
    vehicle: Option<RateShape>,
}

/// Rules to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RulesCommand {
    /// All of them: what is left out is ruled no more.
    #[serde(deserialize_with = "object")]
    #[schema(value_type = RulesShape)]
    rules: RulesText,
    /// Why, kept beside who and when; 1 to 200 characters.
    why: Option<String>,
}

/// The rules in force.
#[derive(Serialize, ToSchema)]
pub(super) struct RulesView {
    /// How often they were set.
    version: u32,
    /// By which version keys that are out stand. While it is a lower one they are looked at: those
    /// whose holder does not meet the conditions of the rules any more are suspended, and those
    /// whose holder does are valid again.
    followed: u32,
    #[schema(value_type = RulesShape)]
    rules: RulesText,
    /// Of a dry run: what they would come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<TrialView>,
}

/// What rules would come to.
#[derive(Serialize, ToSchema)]
pub(super) struct TrialView {
    /// Open authorizations that say who they are for.
    looked_at: usize,
    /// How many of them nobody could redeem, by the code of the refusal.
    refused: BTreeMap<&'static str, usize>,
    /// What `context` would have decided about what was redeemed lately, while the fleet had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ReplayView>,
    /// What would become of keys that are out, where `licences` differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<SweptView>,
}

/// What would become of keys that are out.
#[derive(Serialize, ToSchema)]
pub(super) struct SweptView {
    /// Live bundles that were looked at.
    bundles: u64,
    /// Keys in them that would be suspended.
    suspended: u64,
    /// Keys in them that would be valid again.
    resumed: u64,
    /// Whether these are all; a look ends after a second.
    all: bool,
}

impl From<Swept> for SweptView {
    fn from(it: Swept) -> Self {
        Self {
            bundles: it.bundles,
            suspended: it.suspended,
            resumed: it.resumed,
            all: it.all,
        }
    }
}

/// What rules about context would have decided.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayView {
    looked_at: usize,
    issue: usize,
    step_up: usize,
    refuse: usize,
}

impl From<Replay> for ReplayView {
    fn from(it: Replay) -> Self {
        Self {
            looked_at: it.looked_at,
            issue: it.issue,
            step_up: it.step_up,
            refuse: it.refuse,
        }
    }
}

/// Read the fleet's rules.
#[utoipa::path(get, path = "/v1/rules", tag = "rules", security(("bearer" = ["read"])),
    responses((status = 200, body = RulesView), (status = "4XX", description = "problem+json")))]
pub(super) async fn read(
    state: Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Read).await?;
    let ruled = &caller.fleet.ruled;
    let (version, rules) = (ruled.rules().version, ruled.text());
    Ok(answer(RulesView {
        version,
        followed: ruled.followed(),
        rules: RulesText::clone(&rules),
        trial: None,
    }))
}

/// Set the fleet's rules, in place of those at the version in `If-Match`. With `dry_run=true`
/// nothing is set, and the answer says what they would come to.
#[utoipa::path(put, path = "/v1/rules", tag = "rules",
    params(("If-Match" = String, Header, description = "the version they are at, in quotes"),
        ("dry_run" = Option<bool>, Query, description = "check and try only")),
    request_body = RulesCommand, security(("bearer" = ["admin"])),
    responses((status = 200, body = RulesView), (status = 412, description = "version_conflict"),
        (status = 428, description = "no If-Match"), (status = "4XX", description = "problem+json")))]
pub(super) async fn set(
    state: Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let caller = caller::back_end(&state, &request, Scope::Admin).await?;
    let body = Body::read(&request, payload).await?;
    let RulesCommand { rules, why } = decode_json(&request, &body)?;
    let dry_run = match request.query_string() {
        "" | "dry_run=false" => false,
        "dry_run=true" => true,
        _ => return Err(Refusal::malformed("query", "it takes dry_run=true").into()),
    };
    let at = at(&request)?;
    let engine = &state.engine;
    if dry_run {
        let trial = engine.try_rules(&caller.fleet, at, &rules).await?;
        let trial = TrialView {
            looked_at: trial.looked_at,
            refused: trial.refused,
            context: trial.context.map(Into::into),
            keys: trial.keys.map(Into::into),
        };
        return Ok(answer(RulesView {
            version: at,
            followed: caller.fleet.ruled.followed(),
            rules,
            trial: Some(trial),
        }));
    }
    let version = engine.set_rules(&caller, at, &rules, why).await?;
    Ok(answer(RulesView {
        version,
        followed: caller.fleet.ruled.followed(),
        rules,
        trial: None,
    }))
}

/// The version a request names.
fn at(request: &HttpRequest) -> Result<u32, Problem> {
    let Some(value) = request.headers().get(IF_MATCH) else {
        let refusal = Refusal::malformed("If-Match", "say at which version they are to be set");
        return Err(Problem::with_status(
            StatusCode::PRECONDITION_REQUIRED,
            refusal,
        ));
    };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let version = text.and_then(|text| text.parse().ok());
    Ok(version.ok_or(RefusalCode::VersionConflict)?)
}

fn answer(view: RulesView) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("ETag", format!("\"{}\"", view.version)))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(view)
}
