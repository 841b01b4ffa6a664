//! The shapes of requests and answers in JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fob_verify::window::Recurring;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::recipient::RecipientArg;
use super::region::RegionArg;
use crate::domain::function::FunctionRef;
use crate::domain::json::{entries, object, objects, optional_object};
use crate::domain::rules::{WeeklyText, recurring};
use crate::domain::time::Time;
use crate::domain::{
    Authorization, Catalogue, IdentityId, KeyId, Recipient, Refusal, RefusalCode, Signing,
    VehicleId,
};
use crate::engine::admit::RedemptionRequest;
use crate::engine::authorize::AuthorizationSpec;
use crate::engine::requests::BorrowRequest;
use crate::engine::sync::Ended;
use crate::engine::{Engine, Failure};

/// A function, by code or by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum FunctionArg {
    /// Its code.
    Code(u16),
    /// Its name.
    Name(String),
}

impl<'de> Deserialize<'de> for FunctionArg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FunctionRef::deserialize(deserializer).map(Self::from)
    }
}

impl From<FunctionRef> for FunctionArg {
    fn from(function: FunctionRef) -> Self {
        match function {
            FunctionRef::Code(code) => Self::Code(code),
            FunctionRef::Name(name) => Self::Name(name),
        }
    }
}

impl From<FunctionArg> for FunctionRef {
    fn from(arg: FunctionArg) -> Self {
        match arg {
            FunctionArg::Code(code) => Self::Code(code),
            FunctionArg::Name(name) => Self::Name(name),
        }
    }
}

/// On these days, from this hour to that.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the shape, for the document; domain/rules reads it"
)]
pub(super) struct WeeklyShape {
    /// `mon` to `sun`: the days on which it begins.
    days: Vec<String>,
    /// From when, `HH:MM`.
    from: String,
    /// Until when, `HH:MM`; not after `from`, on the day after.
    until: String,
    /// Minutes by which these hours are ahead of UTC, -720 to 840; 0 where absent.
    utc_offset_min: Option<i16>,
}

/// Hours of the week as they are shown.
pub(super) fn weekly(authorization: &Authorization) -> Vec<WeeklyText> {
    let windows = authorization.recurring().map(Recurring::windows);
    windows
        .unwrap_or_default()
        .iter()
        .map(WeeklyText::from)
        .collect()
}

/// An authorization command. With `request`, what is not said is as asked for there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthorizationCommand {
    /// The borrower's request that it answers, a compact JWS: the keys are for whoever asks, bound
    /// to the terminal that signed it. Nothing may be given that is not asked for.
    request: Option<String>,
    /// The vehicle.
    vehicle: Option<String>,
    /// Its functions, by name or code; `preset:NAME` stands for those of one of the fleet's
    /// presets, with its limits.
    functions: Option<Vec<FunctionArg>>,
    /// From when the keys may be used.
    #[schema(value_type = Option<String>, format = DateTime)]
    not_before: Option<Time>,
    /// Until when.
    #[schema(value_type = Option<String>, format = DateTime)]
    not_after: Option<Time>,
    /// Where they may be used.
    #[serde(default, deserialize_with = "optional_object")]
    region: Option<RegionArg>,
    /// At which hours of the week; at all of them where absent.
    #[serde(default, deserialize_with = "objects")]
    #[schema(value_type = Vec<WeeklyShape>)]
    recurring: Vec<WeeklyText>,
    /// How often each function may be used, by its name or code.
    #[serde(default, deserialize_with = "entries")]
    #[schema(value_type = BTreeMap<String, u32>)]
    max_uses: Vec<(String, u32)>,
    /// Whom it is for.
    #[serde(default, deserialize_with = "object")]
    recipient: RecipientArg,
    /// Whether redemption asks for a PIN.
    #[serde(default)]
    pin: bool,
    /// Until when the code set may be redeemed; as long as the window where absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    redeem_by: Option<Time>,
    /// How the keys are signed: `each`, `tree` or `auto`; as the fleet has it where absent.
    signing: Option<String>,
}

impl AuthorizationCommand {
    /// The command with its names and places checked; and with it the request that it answers.
    pub(super) fn check(self, engine: &Engine) -> Result<AuthorizationSpec, Refusal> {
        let audience = &engine.settings().public_url;
        let read = |text: &str| BorrowRequest::read(text, audience).map(Arc::new);
        let asked = self.request.as_deref().map(read).transpose()?;
        self.check_as(asked)
    }

    /// The same, for whoever has read the request that it answers.
    pub(super) fn check_as(
        self,
        asked: Option<Arc<BorrowRequest>>,
    ) -> Result<AuthorizationSpec, Refusal> {
        let asks = asked.as_deref();
        let vehicle = self.vehicle.as_deref().map(VehicleId::parse).transpose()?;
        let functions = self.functions.map(|all| {
            let all = all.into_iter().map(FunctionRef::from);
            all.collect()
        });
        let [not_before, not_after] = [self.not_before, self.not_after].map(|it| it.map(|it| it.0));
        let recipient = match asks {
            None => self.recipient.check()?,
            Some(_) if !self.recipient.is_anybody() => {
                return Err(Refusal::malformed(
                    "recipient",
                    "whom it is for is said in the request",
                ));
            }
            Some(asks) => Recipient {
                identity: Some(asks.identity.clone()),
                terminal: None,
                key: Some(asks.key),
            },
        };
        Ok(AuthorizationSpec {
            vehicle: vehicle
                .or_else(|| asks.map(|it| it.vehicle.clone()))
                .ok_or_else(|| missing("vehicle"))?,
            functions: functions
                .or_else(|| asks.map(|it| it.functions.clone()))
                .ok_or_else(|| missing("functions"))?,
            not_before: not_before
                .or_else(|| asks.map(|it| it.not_before))
                .ok_or_else(|| missing("not_before"))?,
            not_after: not_after
                .or_else(|| asks.map(|it| it.not_after))
                .ok_or_else(|| missing("not_after"))?,
            region: self.region.as_ref().map(RegionArg::check).transpose()?,
            recurring: recurring(&self.recurring)?,
            max_uses: max_uses(self.max_uses),
            recipient,
            pin: self.pin,
            redeem_by: self.redeem_by.map(|time| time.0),
            signing: self.signing.as_deref().map(signing).transpose()?,
            answers: asked,
        })
    }
}

fn missing(field: &'static str) -> Refusal {
    Refusal::malformed(field, format!("missing field `{field}`"))
}

/// A change: each member given is merged over what the authorization says (RFC 7396).
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document; merge.rs reads it")]
pub(super) struct ChangeCommand {
    /// Its functions, by name or code: all of them.
    functions: Option<Vec<FunctionArg>>,
    /// From when the keys may be used.
    #[schema(value_type = Option<String>, format = DateTime)]
    not_before: Option<Time>,
    /// Until when.
    #[schema(value_type = Option<String>, format = DateTime)]
    not_after: Option<Time>,
    /// Where they may be used; null is everywhere.
    region: Option<RegionArg>,
    /// At which hours of the week: all of them; null is always.
    recurring: Option<Vec<WeeklyShape>>,
    /// How often each function may be used, by its name or code; null is without limit.
    max_uses: Option<BTreeMap<String, Option<u32>>>,
    /// Until when the code set may be redeemed.
    #[schema(value_type = Option<String>, format = DateTime)]
    redeem_by: Option<Time>,
    /// The version it is at: in a signed command, and there alone.
    version: Option<u32>,
    /// Why, kept beside who and when; 1 to 200 characters.
    why: Option<String>,
}

/// Another terminal for a bundle: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RebindCommand {
    /// A registered terminal of the bundle's identity.
    pub(super) terminal: Option<String>,
    /// A proof of the new terminal's key, its nonce over the bundle's id: a compact JWS.
    pub(super) proof: Option<String>,
    /// Why, kept beside who and when; 1 to 200 characters.
    pub(super) why: Option<String>,
}

/// How keys are to be signed.
pub(super) fn signing(name: &str) -> Result<Signing, Refusal> {
    Signing::parse(name)
        .ok_or_else(|| Refusal::malformed("signing", "keys are signed each, tree or auto"))
}

/// Limits by code or name: what reads as a number is a code.
pub(super) fn max_uses(limits: Vec<(String, u32)>) -> Vec<(FunctionRef, u32)> {
    let limit = |(function, uses): (String, u32)| match function.parse() {
        Ok(code) => (FunctionRef::Code(code), uses),
        Err(_) => (FunctionRef::Name(function), uses),
    };
    limits.into_iter().map(limit).collect()
}

/// A function, as answers show it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FunctionView {
    code: u16,
    name: String,
}

/// The functions of an authorization.
pub(super) fn functions(authorization: &Authorization, catalogue: &Catalogue) -> Vec<FunctionView> {
    let view = |code: &u16| {
        let name = catalogue
            .name(*code)
            .map(ToString::to_string)
            .unwrap_or_default();
        FunctionView { code: *code, name }
    };
    authorization.functions.iter().map(view).collect()
}

/// An authorization, as its owner sees it. The code set and the PIN are shown to whoever created
/// it, and again to the same request sent again; to nobody else.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuthorizationView {
    authorization: String,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code_set: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pin: Option<String>,
    vehicle: String,
    functions: Vec<FunctionView>,
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<RegionArg>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<WeeklyShape>)]
    recurring: Vec<WeeklyText>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    max_uses: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "RecipientArg::is_anybody")]
    recipient: RecipientArg,
    #[schema(value_type = String, format = DateTime)]
    redeem_by: Time,
    /// `open`, `redeemed`, `suspended`, `cancelled` or `expired`; once keys were issued, instead of
    /// `cancelled` it is `terminating` until the car has acknowledged, then `terminated`.
    state: &'static str,
    /// Until when its owner has approved of a redemption that is asked for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    approved_until: Option<Time>,
    /// The bundle it was redeemed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<String>,
    /// Keys that were revoked, have not expired, and whose authorization goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) revoked_keys: Vec<EndedKeyView>,
}

/// A key that was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndedKeyView {
    id: String,
    /// Its function's name.
    function: String,
    /// `terminating` until the car has acknowledged the last amendment of the authorization, then
    /// `terminated`.
    state: &'static str,
}

impl From<(KeyId, Arc<str>, Ended)> for EndedKeyView {
    fn from((id, function, ended): (KeyId, Arc<str>, Ended)) -> Self {
        Self {
            id: id.to_string(),
            function: function.to_string(),
            state: ended.name(),
        }
    }
}

impl AuthorizationView {
    pub(super) fn new(authorization: &Authorization, catalogue: &Catalogue, now: u64) -> Self {
        let name = |code: u16| {
            catalogue
                .name(code)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        let open = authorization.state == crate::domain::AuthorizationState::Open;
        Self {
            authorization: authorization.id.to_string(),
            version: authorization.version,
            code_set: None,
            link: None,
            pin: None,
            vehicle: authorization.vehicle.to_string(),
            functions: functions(authorization, catalogue),
            not_before: Time(authorization.window.not_before),
            not_after: Time(authorization.window.not_after),
            region: authorization.region().map(RegionArg::from),
            recurring: weekly(authorization),
            max_uses: authorization
                .use_limits()
                .iter()
                .map(|(code, uses)| (name(*code), *uses))
                .collect(),
            recipient: RecipientArg::of(authorization.recipient()),
            redeem_by: Time(authorization.redeem_by),
            state: if open && authorization.expired(now) {
                "expired"
            } else {
                authorization.state.name()
            },
            approved_until: authorization.approved_until().map(Time),
            bundle: None,
            revoked_keys: Vec::new(),
        }
    }

    /// The same, with how far its end has come.
    pub(super) fn ended(mut self, ended: Option<Ended>) -> Self {
        if let Some(ended) = ended {
            self.state = ended.name();
        }
        self
    }

    /// Shows code set, link and PIN.
    pub(super) fn show_code_set(
        &mut self,
        engine: &Engine,
        authorization: &Authorization,
    ) -> Result<(), Failure> {
        let code_set = engine.code_set(authorization)?;
        self.link = Some(format!("{}/k#{code_set}", engine.settings().public_url));
        self.code_set = Some(code_set);
        self.pin = engine.pin(authorization);
        Ok(())
    }
}

/// A page of authorizations.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuthorizationPage {
    pub(super) items: Vec<AuthorizationView>,
    /// Give it as `after` for the next page; absent on the last.
    pub(super) next: Option<String>,
}

/// A code set somebody holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewRequest {
    pub(super) code_set: String,
}

/// What a borrower is about to accept.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Preview {
    vehicle: String,
    functions: Vec<FunctionView>,
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    region: Option<RegionArg>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<WeeklyShape>)]
    recurring: Vec<WeeklyText>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    max_uses: BTreeMap<String, u32>,
    pin_required: bool,
    #[schema(value_type = String, format = DateTime)]
    redeem_by: Time,
}

impl Preview {
    pub(super) fn new(authorization: &Authorization, catalogue: &Catalogue) -> Self {
        let view = AuthorizationView::new(authorization, catalogue, 0);
        Self {
            vehicle: view.vehicle,
            functions: view.functions,
            not_before: view.not_before,
            not_after: view.not_after,
            region: view.region,
            recurring: view.recurring,
            max_uses: view.max_uses,
            pin_required: authorization.pin,
            redeem_by: view.redeem_by,
        }
    }
}

/// Who redeems.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityArg {
    id: String,
}

/// A redemption.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedemptionBody {
    /// The code set, as handed on.
    code_set: String,
    /// Who redeems.
    #[serde(deserialize_with = "object")]
    identity: IdentityArg,
    /// Six digits, where asked for.
    pin: Option<String>,
    /// The proof of the terminal's key: a compact JWS.
    proof: String,
}

impl RedemptionBody {
    pub(super) fn check(self, address: Option<IpAddr>) -> Result<RedemptionRequest, Refusal> {
        let six_digits = |pin: &String| pin.len() == 6 && pin.bytes().all(|b| b.is_ascii_digit());
        if self.pin.as_ref().is_some_and(|pin| !six_digits(pin)) {
            return Err(Refusal::malformed("pin", "a PIN has six digits"));
        }
        let identity =
            IdentityId::parse(&self.identity.id).map_err(|refusal| refusal.field("identity.id"))?;
        Ok(RedemptionRequest {
            code_set: self.code_set,
            identity,
            pin: self.pin,
            proof: self.proof,
            address,
        })
    }
}

/// `not_found`, for an id that cannot be one as for one that is not there.
pub(super) fn not_found() -> Refusal {
    Refusal::new(RefusalCode::NotFound)
}
