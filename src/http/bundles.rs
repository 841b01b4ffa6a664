//! `/v1/bundles`, and the one way a bundle is shown.

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use minicbor::Encoder;
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use super::caller;
use super::problem::Problem;
use super::shapes::not_found;
use crate::domain::time::Time;
use crate::domain::{BundleId, Scope};
use crate::engine::{Failure, rebuild};
use crate::store::SignedBundle;

/// All keys of one redemption.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BundleView {
    bundle: String,
    authorization: String,
    version: u32,
    vehicle: String,
    keys: Vec<KeyView>,
}

/// One virtual key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyView {
    id: String,
    /// The function's name.
    function: String,
    /// The signed key: COSE_Sign1, base64url without padding.
    #[serde(serialize_with = "base64url")]
    #[schema(value_type = String)]
    key: Vec<u8>,
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    /// `valid`, `suspended` or `revoked`.
    status: &'static str,
}

impl BundleView {
    fn new(signed: &SignedBundle) -> Result<Self, Failure> {
        let bundle = &signed.bundle;
        let (not_before, not_after) = (
            Time(bundle.window.not_before),
            Time(bundle.window.not_after),
        );
        let keys = bundle
            .subjects
            .iter()
            .zip(rebuild::keys(signed)?)
            .map(|(subject, key)| KeyView {
                id: bundle.key_id(subject).to_string(),
                function: subject.name.to_string(),
                key,
                not_before,
                not_after,
                status: "valid",
            });
        Ok(Self {
            bundle: bundle.id.to_string(),
            authorization: bundle.authorization.to_string(),
            version: bundle.version,
            vehicle: bundle.vehicle.to_string(),
            keys: keys.collect(),
        })
    }

    /// The same map in deterministic CBOR (RFC 8949 §4.2.1), keys as bytes.
    fn cbor(&self) -> Result<Vec<u8>, minicbor::encode::Error<std::convert::Infallible>> {
        let mut out = Encoder::new(Vec::with_capacity(640 * self.keys.len()));
        out.map(5)?.str("keys")?.array(self.keys.len() as u64)?;
        for key in &self.keys {
            out.map(6)?
                .str("id")?
                .str(&key.id)?
                .str("key")?
                .bytes(&key.key)?;
            out.str("status")?
                .str(key.status)?
                .str("function")?
                .str(&key.function)?;
            out.str("not_after")?.str(&key.not_after.to_string())?;
            out.str("not_before")?.str(&key.not_before.to_string())?;
        }
        out.str("bundle")?
            .str(&self.bundle)?
            .str("vehicle")?
            .str(&self.vehicle)?;
        out.str("version")?
            .u32(self.version)?
            .str("authorization")?
            .str(&self.authorization)?;
        Ok(out.into_writer())
    }
}

fn base64url<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// A bundle as JSON, or as CBOR to whoever accepts that.
pub(super) fn answer(
    request: &HttpRequest,
    mut response: HttpResponseBuilder,
    signed: &SignedBundle,
) -> Result<HttpResponse, Problem> {
    let view = BundleView::new(signed)?;
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let wants_cbor = accept.is_some_and(|accept| {
        accept
            .split(',')
            .any(|one| one.split(';').next().unwrap_or_default().trim() == "application/cbor")
    });
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("Location", format!("/v1/bundles/{}", signed.bundle.id)));
    if !wants_cbor {
        return Ok(response.json(view));
    }
    let bytes = view
        .cbor()
        .map_err(|error| Failure::Fault(error.to_string()))?;
    Ok(response.content_type("application/cbor").body(bytes))
}

/// Read a bundle: with the fleet's token, or with a fresh proof of the terminal's key in
/// `Fob-Proof`, its nonce over the bundle's id.
#[utoipa::path(get, path = "/v1/bundles/{id}", tag = "borrower",
    params(("id" = String, Path, description = "UUID"),
        ("Fob-Proof" = Option<String>, Header, description = "compact JWS, as in a redemption")),
    security(("bearer" = ["read"]), ()),
    responses((status = 200, body = BundleView), (status = "4XX", description = "problem+json")))]
pub(super) async fn read(
    state: Data<State>,
    request: HttpRequest,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let engine = &state.engine;
    let id = BundleId::parse(&id);
    let found = match caller::header(&request, "Fob-Proof")? {
        Some(proof) => {
            let id = id.ok_or_else(not_found)?;
            let thumbprint = engine.bundle_reader(&id, proof)?;
            engine
                .bundle(id)
                .await?
                .filter(|found| found.bundle.holder.thumbprint() == thumbprint)
        }
        None => {
            let caller = caller::back_end(&state, &request, Scope::Read)?;
            let found = engine.bundle(id.ok_or_else(not_found)?).await?;
            found.filter(|found| found.bundle.fleet == caller.fleet.fleet.id)
        }
    };
    answer(&request, HttpResponse::Ok(), &found.ok_or_else(not_found)?)
}
