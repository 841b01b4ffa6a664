//! `fob sign`: what a phone does, for trying the API with curl.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use aws_lc_rs::signature::EcdsaKeyPair;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use fob_verify::code_set::text_nonce;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

use super::{Common, jwk, place, print, sign_request, sign_use};
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Time;
pub(super) use crate::domain::time::seconds;
use crate::engine::ids::Ids;
use crate::engine::jws::{COMMAND_TYP, PROOF_TYP};

#[derive(Subcommand)]
pub(super) enum SignCommand {
    /// An owner terminal's authorization command, to be sent as application/jose
    Command(CommandArgs),
    /// A borrower terminal's request, to be handed to the owner by any messenger
    Request(sign_request::RequestArgs),
    /// An owner terminal's answer to such a request: an authorization command
    Approval(sign_request::ApprovalArgs),
    /// A borrower terminal's proof, or the whole body of a redemption
    Proof(ProofArgs),
    /// A borrower phone's answer to a car's challenge
    Use(sign_use::UseArgs),
}

/// Whose phone signs, and for which server.
#[derive(Args)]
pub(super) struct OwnerArgs {
    /// The owner phone's private JWK [default: D/demo-owner.jwk]
    #[arg(long, value_name = "FILE")]
    jwk: Option<PathBuf>,
    /// `<fleet>/<terminal>`; the JWK's own kid where absent
    #[arg(long)]
    kid: Option<String>,
    /// The owner's identity
    #[arg(long, value_name = "ID", default_value = "owner-1")]
    identity: String,
    /// The server's public_url
    #[arg(long, default_value = "http://127.0.0.1:8650")]
    pub(super) url: String,
}

impl OwnerArgs {
    /// The phone.
    pub(super) fn owner(&self, common: &Common) -> anyhow::Result<Owner> {
        let default = || common.dir.join("demo-owner.jwk");
        let (pair, own_kid) = jwk::read(&self.jwk.clone().unwrap_or_else(default))?;
        let kid = self.kid.clone().or(own_kid);
        Ok(Owner {
            pair,
            kid: kid.context("name the terminal with --kid <fleet>/<terminal>")?,
            identity: self.identity.clone(),
        })
    }
}

#[derive(Args)]
pub(super) struct CommandArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// Method of the request that will carry it
    #[arg(long, default_value = "POST")]
    method: String,
    /// Path of the request that will carry it
    #[arg(long, default_value = "/v1/authorizations")]
    path: String,
    /// The JSON of the command (- is standard input), instead of the options below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vehicle", "functions"])]
    body: Option<PathBuf>,
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
}

#[derive(Args)]
pub(super) struct ProofArgs {
    /// The borrower phone's private JWK; made where there is none
    #[arg(long, value_name = "FILE")]
    jwk: PathBuf,
    /// The answer to an authorization (- is standard input): takes code set and address from it
    #[arg(long, value_name = "FILE", required_unless_present = "bundle")]
    authorization: Option<PathBuf>,
    /// A bundle's id, to read the bundle with: the proof goes into the header Fob-Proof
    #[arg(long, value_name = "ID", conflicts_with = "authorization")]
    bundle: Option<String>,
    /// The server's public_url; for an authorization that of its link
    #[arg(long)]
    url: Option<String>,
    /// Print the body of a redemption as this identity, not the proof alone
    #[arg(long, value_name = "ID", conflicts_with = "bundle")]
    identity: Option<String>,
}

pub(super) fn run(common: &Common, command: SignCommand) -> anyhow::Result<()> {
    match command {
        SignCommand::Command(args) => sign_command(common, &args),
        SignCommand::Request(args) => sign_request::request(common, &args),
        SignCommand::Approval(args) => sign_request::approval(common, &args),
        SignCommand::Proof(args) => sign_proof(common, args),
        SignCommand::Use(args) => sign_use::run(common, &args),
    }
}

fn sign_command(common: &Common, args: &CommandArgs) -> anyhow::Result<()> {
    let owner = args.owner.owner(common)?;
    let command = match &args.body {
        Some(file) => serde_json::from_slice(&place::read(file)?).context("the command's JSON")?,
        None => lending(&args.vehicle, &args.functions, args.window),
    };
    let call = (args.method.as_str(), args.path.as_str());
    let jws = owner.command(&args.owner.url, call, &command)?;
    print(common, &json!({ "jws": jws }), |_| jws.clone())
}

/// What an owner says to lend functions of a vehicle, from now on for `window` seconds.
pub(super) fn lending(vehicle: &str, functions: &[impl AsRef<str>], window: u64) -> Value {
    let now = SystemClock.unix();
    let functions: Vec<&str> = functions.iter().map(AsRef::as_ref).collect();
    json!({
        "vehicle": vehicle,
        "functions": functions,
        "not_before": Time(now),
        "not_after": Time(now + window),
    })
}

/// An owner's phone.
pub(super) struct Owner {
    pub(super) pair: EcdsaKeyPair,
    /// `<fleet>/<terminal>`.
    pub(super) kid: String,
    pub(super) identity: String,
}

impl Owner {
    /// A signed command, a compact JWS, for the call of this method and path to the server at `url`.
    pub(super) fn command(
        &self,
        url: &str,
        call: (&str, &str),
        command: &Value,
    ) -> anyhow::Result<String> {
        self.sign(&self.claims(url, call, command))
    }

    /// All that such a command says.
    pub(super) fn claims(&self, url: &str, (method, path): (&str, &str), command: &Value) -> Value {
        let now = SystemClock.unix();
        json!({
            "iss": self.identity,
            "aud": url,
            "iat": now,
            "exp": now + 300,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(Ids::new().random::<16>()),
            "htm": method,
            "htu": format!("{url}{path}"),
            "command": command,
        })
    }

    /// It, signed.
    pub(super) fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(COMMAND_TYP.into());
        header.kid = Some(self.kid.clone());
        let key = jwk::signing_key(&self.pair)?;
        Ok(jsonwebtoken::encode(&header, claims, &key)?)
    }
}

fn sign_proof(common: &Common, args: ProofArgs) -> anyhow::Result<()> {
    let pair = jwk::read_or_make(&args.jwk)?;
    if let Some(bundle) = &args.bundle {
        let url = args
            .url
            .clone()
            .unwrap_or_else(|| "http://127.0.0.1:8650".into());
        let proof = proof(&pair, &url, bundle)?;
        return print(common, &json!({ "proof": proof }), |_| proof.clone());
    }
    let file = args
        .authorization
        .as_deref()
        .context("name the authorization's answer")?;
    let answer: Value =
        serde_json::from_slice(&place::read(file)?).context("the authorization's JSON")?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let code_set = text("code_set").ok_or_else(|| match text("title") {
        Some(title) => anyhow!(
            "{}: no authorization, but a refusal: {title}",
            file.display()
        ),
        None => anyhow!("{}: it has no code_set", file.display()),
    })?;
    let own_url = text("link")
        .and_then(|link| link.split("/k#").next())
        .map(ToOwned::to_owned);
    let url = args
        .url
        .clone()
        .or(own_url)
        .context("name the server with --url")?;
    let proof = proof(&pair, &url, code_set)?;
    let Some(identity) = &args.identity else {
        return print(common, &json!({ "proof": proof }), |_| proof.clone());
    };
    let mut body = json!({ "code_set": code_set, "identity": { "id": identity }, "proof": proof });
    if let Some(pin) = text("pin") {
        body["pin"] = json!(pin);
    }
    print(common, &body, Value::to_string)
}

/// A phone's proof over a code set or a bundle's id, for the server at `url`: a compact JWS.
pub(super) fn proof(pair: &EcdsaKeyPair, url: &str, over: &str) -> anyhow::Result<String> {
    let claims = json!({
        "aud": url,
        "iat": SystemClock.unix(),
        "nonce": BASE64_URL_SAFE_NO_PAD.encode(text_nonce(over)),
    });
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(PROOF_TYP.into());
    header.jwk = Some(serde_json::from_value(jwk::public_json(pair))?);
    Ok(jsonwebtoken::encode(
        &header,
        &claims,
        &jwk::signing_key(pair)?,
    )?)
}
