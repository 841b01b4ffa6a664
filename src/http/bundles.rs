//! `/v1/bundles`, and the one way a bundle is answered.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use utoipa::ToSchema;

use super::State;
use super::problem::Problem;
use super::shapes::not_found;
use super::{caller, encode};
use crate::domain::time::Time;
use crate::domain::{BundleId, Refusal, Scope};
use crate::store::SignedBundle;

/// All keys of one redemption.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document; encode.rs writes it")]
pub(super) struct BundleView {
    bundle: String,
    authorization: String,
    version: u32,
    vehicle: String,
    keys: Vec<KeyView>,
    /// With `staple=true`: the trust list, base64url.
    trust: Option<String>,
    /// With `staple=true`: fresh status lists of the keys, base64url.
    status_lists: Option<Vec<String>>,
}

/// One virtual key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape, for the document; encode.rs writes it")]
pub(super) struct KeyView {
    id: String,
    /// The function's name.
    function: String,
    /// The signed key, base64url without padding: a COSE_Sign1, or protected header, claims and
    /// COSE Receipt where it shares its signature with others.
    key: String,
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    /// `valid`, `suspended` or `revoked`.
    status: &'static str,
}

/// A bundle as JSON, or as CBOR to whoever accepts that.
pub(super) async fn answer(
    state: &State,
    request: &HttpRequest,
    mut response: HttpResponseBuilder,
    signed: &SignedBundle,
) -> Result<HttpResponse, Problem> {
    let statuses = &state.engine.book().statuses;
    let staple = if asks_for_staple(request)? {
        state.engine.staple(&signed.bundle).await
    } else {
        None
    };
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("Location", format!("/v1/bundles/{}", signed.bundle.id)));
    let mut bytes = Vec::new();
    let media_type = if caller::accepts(request, "application/cbor") {
        encode::cbor(&mut bytes, signed, statuses, staple.as_ref())?;
        "application/cbor"
    } else {
        encode::json(&mut bytes, signed, statuses)?;
        if let Some(staple) = &staple {
            encode::staple_json(&mut bytes, staple);
        }
        "application/json"
    };
    Ok(response.content_type(media_type).body(bytes))
}

/// Whether the caller wants the trust list and the status lists with the bundle.
fn asks_for_staple(request: &HttpRequest) -> Result<bool, Refusal> {
    match request.query_string() {
        "" | "staple=false" => Ok(false),
        "staple=true" => Ok(true),
        _ => Err(Refusal::malformed("query", "it takes staple=true")),
    }
}

/// Read a bundle: with the fleet's token, or with a fresh proof of the terminal's key in
/// `Fob-Proof`, its nonce over the bundle's id.
#[utoipa::path(get, path = "/v1/bundles/{id}", tag = "borrower",
    params(("id" = String, Path, description = "UUID"),
        ("staple" = Option<bool>, Query, description = "with trust list and status lists"),
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
            let caller = caller::back_end(&state, &request, Scope::Read).await?;
            let found = engine.bundle(id.ok_or_else(not_found)?).await?;
            found.filter(|found| found.bundle.fleet == caller.fleet.fleet.id)
        }
    };
    let found = found.ok_or_else(not_found)?;
    answer(&state, &request, HttpResponse::Ok(), &found).await
}
