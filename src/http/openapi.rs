//! `/openapi.json` and its page at `/docs/`.

use actix_web::HttpResponse;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::{
    amendments, authorizations, batches, brake, bundles, cars, code_sets, erase, explain, import,
    keys, operations, registry, requests, revocations, rules, terminals,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Fob", description = "Issues virtual car keys, signed in an HSM."),
    modifiers(&Bearer),
    paths(
        registry::put_vehicle,
        registry::put_identity,
        terminals::put,
        terminals::list,
        erase::erase,
        import::import,
        requests::check,
        authorizations::create,
        authorizations::list,
        authorizations::read,
        amendments::change,
        amendments::suspend,
        amendments::resume,
        amendments::approve,
        amendments::cancel,
        amendments::rebind,
        revocations::revoke,
        revocations::suspend,
        revocations::resume,
        rules::read,
        rules::set,
        explain::explain,
        brake::read,
        brake::freeze,
        brake::release,
        brake::approve,
        cars::reset,
        cars::sync,
        cars::sync_shown,
        cars::status_list,
        code_sets::preview,
        code_sets::redeem,
        batches::issue,
        bundles::read,
        keys::trust,
        keys::jwks,
        operations::healthz,
        operations::readyz,
        operations::metrics,
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", scheme);
    }
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

pub(super) async fn json() -> HttpResponse {
    HttpResponse::Ok().json(document())
}

pub(super) async fn to_page() -> HttpResponse {
    HttpResponse::Found()
        .insert_header(("Location", "/docs/"))
        .finish()
}

/// The page, served from within the binary.
pub(super) fn page() -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").config(utoipa_swagger_ui::Config::from("/openapi.json"))
}
