//! The shapes of the registry's entries in JSON.

use fob_verify::HolderKey;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::shapes::FunctionArg;
use crate::domain::json::{object, objects, optional_strict, strict};
use crate::domain::time::Time;
use crate::domain::{Hold, IdentityId, Licence, Refusal, Status, TerminalId, VehicleId};
use crate::engine::jws;
use crate::engine::registry::{Entry, FunctionSpec};

/// A function of a vehicle: one the fleet knows, or one it introduces (codes from 256).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "a function's code or name, or {code, name} of the fleet's own"
)]
pub(super) enum VehicleFunctionArg {
    /// One the fleet knows.
    Known(FunctionArg),
    /// One of its own.
    Own(#[serde(deserialize_with = "object")] OwnFunction),
}

/// A function of the fleet's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnFunction {
    /// Its code, from 256.
    code: u16,
    /// Its name.
    name: String,
}

/// A vehicle of the registry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VehicleBody {
    /// Its model.
    model: String,
    /// Its functions; all built-in ones where absent.
    functions: Option<Vec<VehicleFunctionArg>>,
    /// The identity that owns it; the fleet where absent.
    owner: Option<String>,
    /// Its own public key (RFC 7517).
    #[serde(default, deserialize_with = "optional_strict")]
    #[schema(value_type = Option<Object>)]
    jwk: Option<Value>,
}

/// A licence class.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LicenceArg {
    class: String,
    #[schema(value_type = String, format = DateTime)]
    expires: Time,
}

/// An identity of the registry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityBody {
    /// `active` or `suspended`; where absent it stays as it is, and a new one is active.
    status: Option<String>,
    /// Why it gets no keys for now: `payment` or `insurance`; `none` lifts it, and where absent it
    /// stays as it is.
    hold: Option<String>,
    /// When the fleet last proved who it is; where absent it stays as it is.
    #[schema(value_type = Option<String>, format = DateTime)]
    proved: Option<Time>,
    #[serde(default, deserialize_with = "objects")]
    licences: Vec<LicenceArg>,
}

/// A terminal of the registry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TerminalBody {
    /// Whose it is; in a signed command it may be absent, and is the signer's.
    identity: Option<String>,
    /// Its public key (RFC 7517).
    #[serde(deserialize_with = "strict")]
    #[schema(value_type = Object)]
    jwk: Value,
}

impl VehicleBody {
    pub(super) fn check(self, id: &str) -> Result<Entry, Refusal> {
        let function = |arg| match arg {
            VehicleFunctionArg::Known(one) => FunctionSpec::Known(one.into()),
            VehicleFunctionArg::Own(OwnFunction { code, name }) => FunctionSpec::Own(code, name),
        };
        let owner = self.owner.as_deref().map(IdentityId::parse).transpose();
        Ok(Entry::Vehicle {
            id: VehicleId::parse(id)?,
            model: self.model,
            functions: self
                .functions
                .map(|all| all.into_iter().map(function).collect()),
            owner: owner.map_err(|refusal| refusal.field("owner"))?,
            key: self.jwk.as_ref().map(jwk).transpose()?,
        })
    }
}

impl IdentityBody {
    pub(super) fn check(self, id: &str) -> Result<Entry, Refusal> {
        let status = |name: &str| {
            Status::parse(name)
                .ok_or_else(|| Refusal::malformed("status", "a status is active or suspended"))
        };
        let hold = |name: &str| match (name, Hold::parse(name)) {
            ("none", _) => Ok(None),
            (_, Some(hold)) => Ok(Some(hold)),
            _ => Err(Refusal::malformed(
                "hold",
                "a hold is payment, insurance or none",
            )),
        };
        let licence = |arg: LicenceArg| Licence {
            class: arg.class,
            expires: arg.expires.0,
        };
        Ok(Entry::Identity {
            id: IdentityId::parse(id)?,
            status: self.status.as_deref().map(status).transpose()?,
            hold: self.hold.as_deref().map(hold).transpose()?,
            proved: self.proved.map(|at| at.0),
            licences: self.licences.into_iter().map(licence).collect(),
        })
    }
}

impl TerminalBody {
    pub(super) fn check(self, id: &str) -> Result<Entry, Refusal> {
        let (id, identity, key) = self.parts(id)?;
        let missing = || Refusal::malformed("identity", "missing field `identity`");
        Ok(Entry::Terminal {
            id,
            identity: identity.ok_or_else(missing)?,
            key,
        })
    }

    /// The same, where the identity may be absent.
    pub(super) fn parts(
        self,
        id: &str,
    ) -> Result<(TerminalId, Option<IdentityId>, HolderKey), Refusal> {
        let identity = self.identity.as_deref().map(IdentityId::parse);
        Ok((
            TerminalId::parse(id)?,
            identity.transpose()?,
            jwk(&self.jwk)?,
        ))
    }
}

fn jwk(value: &Value) -> Result<HolderKey, Refusal> {
    jws::holder_key(value).map_err(|why| Refusal::malformed("jwk", why))
}

/// A line of an import: the call's body, with `kind` and `id` beside its members.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct ImportLine(#[serde(deserialize_with = "strict")] Value);

impl ImportLine {
    pub(super) fn check(self) -> Result<Entry, Refusal> {
        let Value::Object(mut members) = self.0 else {
            return Err(Refusal::malformed("line", "a line is an object"));
        };
        let mut text = |name: &'static str, why: &'static str| match members.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Refusal::malformed(name, why)),
        };
        let kind = text("kind", "a kind is vehicle, identity or terminal")?;
        let id = text("id", "an id is a text")?;
        match kind.as_str() {
            "vehicle" => fields::<VehicleBody>(members)?.check(&id),
            "identity" => fields::<IdentityBody>(members)?.check(&id),
            "terminal" => fields::<TerminalBody>(members)?.check(&id),
            _ => Err(Refusal::malformed(
                "kind",
                "a kind is vehicle, identity or terminal",
            )),
        }
    }
}

fn fields<T: serde::de::DeserializeOwned>(members: Map<String, Value>) -> Result<T, Refusal> {
    super::body::decode(Value::Object(members).to_string().as_bytes())
}
