//! `fob sign request` and `fob sign approval`: a borrower's phone asks, and the owner's phone
//! answers with one command.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

use super::sign::{OwnerArgs, seconds};
use super::{Common, jwk, place, print};
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Time;
use crate::engine::ids::Ids;
use crate::engine::requests::{BorrowRequest, REQUEST_TYP};

#[derive(Args)]
#[command(after_help = "\
Prints one text. Any messenger carries it to the owner, who answers with `fob sign approval`. The \
server checks it at POST /v1/requests, and keeps nothing of it before it is answered.

  fob sign request --jwk anna.jwk --identity renter-1 --vehicle DEMO-0001 --for 2h > ask.jws
  fob sign approval --request ask.jws --preview
  fob sign approval --request ask.jws | curl -sS http://127.0.0.1:8650/v1/authorizations \
    -H 'Content-Type: application/jose' --data-binary @-")]
pub(super) struct RequestArgs {
    /// The borrower phone's private JWK; made where there is none
    #[arg(long, value_name = "FILE")]
    jwk: PathBuf,
    /// Who asks
    #[arg(long, value_name = "ID")]
    identity: String,
    /// The fleet, by name
    #[arg(long, value_name = "NAME", default_value = "demo")]
    fleet: String,
    /// The vehicle
    #[arg(long, value_name = "ID", default_value = "DEMO-0001")]
    vehicle: String,
    /// Its functions, by name or code
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "doors.unlock,engine.start"
    )]
    functions: Vec<String>,
    /// For how long, from now: 2h, 3d
    #[arg(long = "for", value_name = "TIME", default_value = "2h", value_parser = seconds)]
    window: u64,
    /// How long the request may be answered, 7d at most
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = seconds)]
    expires: u64,
    /// The server's public_url
    #[arg(long, default_value = "http://127.0.0.1:8650")]
    url: String,
}

#[derive(Args)]
#[command(after_help = "\
What is not said here is as the request asks. Nothing may be given that it does not ask for.")]
pub(super) struct ApprovalArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// The request as it was handed on (- is standard input)
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Only these of its functions
    #[arg(long, value_delimiter = ',')]
    functions: Vec<String>,
    /// Only for so long from its beginning: 2h, 3d
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    window: Option<u64>,
    /// Ask for a PIN beside the phone
    #[arg(long)]
    pin: bool,
    /// Show what the request asks and what would be signed; sign nothing
    #[arg(long)]
    preview: bool,
}

pub(super) fn request(common: &Common, args: &RequestArgs) -> anyhow::Result<()> {
    let pair = jwk::read_or_make(&args.jwk)?;
    let now = SystemClock.unix();
    let claims = json!({
        "iss": args.identity,
        "aud": args.url,
        "iat": now,
        "exp": now + args.expires,
        "jti": BASE64_URL_SAFE_NO_PAD.encode(Ids::new().random::<16>()),
        "request": {
            "fleet": args.fleet,
            "vehicle": args.vehicle,
            "functions": args.functions,
            "not_before": Time(now),
            "not_after": Time(now + args.window),
        },
    });
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(REQUEST_TYP.into());
    header.jwk = Some(serde_json::from_value(jwk::public_json(&pair))?);
    let jws = jsonwebtoken::encode(&header, &claims, &jwk::signing_key(&pair)?)?;
    print(common, &json!({ "request": jws }), |_| jws.clone())
}

pub(super) fn approval(common: &Common, args: &ApprovalArgs) -> anyhow::Result<()> {
    let owner = args.owner.owner(common)?;
    let file = place::read(&args.request)?;
    let text = std::str::from_utf8(&file).context("a request is ASCII")?;
    // A link is a request too.
    let text = text.trim().rsplit('#').next().unwrap_or_default();
    let asked = BorrowRequest::read(text, &args.owner.url).map_err(|why| anyhow!("{why}"))?;
    let now = SystemClock.unix();
    asked.check_time(now).map_err(|why| anyhow!("{why}"))?;
    let not_after = match args.window {
        None => asked.not_after,
        Some(window) => asked.not_before.saturating_add(window),
    };
    // Spelled out, so that what is signed can be read without the request.
    let mut command = json!({
        "vehicle": asked.vehicle.as_str(),
        "functions": asked.functions,
        "not_before": Time(asked.not_before),
        "not_after": Time(not_after),
        "request": text,
    });
    if !args.functions.is_empty() {
        command["functions"] = json!(args.functions);
    }
    if args.pin {
        command["pin"] = json!(true);
    }
    let claims = owner.claims(&args.owner.url, ("POST", "/v1/authorizations"), &command);
    if args.preview {
        let shown = json!({ "asked": shown(&asked), "signs": claims });
        return print(common, &shown, preview);
    }
    let jws = owner.sign(&claims)?;
    print(common, &json!({ "jws": jws }), |_| jws.clone())
}

/// What a request asks for.
fn shown(asked: &BorrowRequest) -> Value {
    json!({
        "identity": asked.identity.as_str(),
        "fleet": asked.fleet.as_str(),
        "vehicle": asked.vehicle.as_str(),
        "functions": asked.functions,
        "not_before": Time(asked.not_before),
        "not_after": Time(asked.not_after),
        "key": BASE64_URL_SAFE_NO_PAD.encode(asked.key.thumbprint()),
        "expires": Time(asked.expires),
    })
}

/// What is asked, line by line, and every claim that is signed.
fn preview(shown: &Value) -> String {
    let asked = &shown["asked"];
    let word = |name: &str| match &asked[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let signs = serde_json::to_string_pretty(&shown["signs"]).unwrap_or_default();
    format!(
        "{} of fleet {} asks for {} of {}\nfrom {} until {}, on the phone with the key {}; \
         to be answered until {}\n\nyour phone would sign\n{signs}",
        word("identity"),
        word("fleet"),
        word("functions"),
        word("vehicle"),
        word("not_before"),
        word("not_after"),
        word("key"),
        word("expires"),
    )
}
