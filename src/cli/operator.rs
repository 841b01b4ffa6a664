//! `fob operator`: who may propose and approve, and what they sign.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Subcommand;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use serde_json::Value;

use super::ceremony::told;
use super::epoch::{ConsentArgs, ask_for};
use super::steps::{Ask, ProposalRow, Told};
use super::{Common, jwk, place, print, table};
use crate::domain::operator::Operator;
use crate::domain::{Step, UnixTime};
use crate::engine::consent::{
    APPROVAL_TYP, ApprovalClaims, PROPOSAL_LIFETIME_MAX_S, PROPOSAL_TYP, ProposalClaims,
};
use crate::engine::records::digest;

/// How long an approval may take to arrive, in seconds.
const APPROVAL_LIFETIME_S: u64 = 600;

#[derive(Subcommand)]
pub(super) enum OperatorCommand {
    /// Make an operator's key: the private JWK in a file, the public one printed
    Key {
        /// Where the private JWK goes; it must not be there yet
        file: PathBuf,
    },
    /// Register an operator; beyond two, under dual control, by proposal and approval
    Add {
        /// The name
        name: String,
        /// The operator's public JWK
        #[arg(long, value_name = "FILE")]
        jwk: PathBuf,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// Let an operator be one no more
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// List operators
    List,
}

pub(super) fn run(common: &Common, command: OperatorCommand) -> anyhow::Result<()> {
    if let OperatorCommand::Key { file } = &command {
        return new_key(common, file);
    }
    let config = place::configuration(common)?;
    match command {
        OperatorCommand::Add { name, jwk, consent } => {
            let jwk = public_members(&serde_json::from_slice(&place::read(&jwk)?)?)?;
            let step = Step::AddOperator(Operator { name, jwk });
            ask_for(common, &config, step, consent)
        }
        OperatorCommand::Remove { name, consent } => {
            let step = Step::RemoveOperator { operator: name };
            ask_for(common, &config, step, consent)
        }
        OperatorCommand::Key { .. } | OperatorCommand::List => {
            let Told::Operators(all) = told(&config, Ask::Operators)? else {
                bail!("the server answers another question");
            };
            print(common, &all, |all| operators(all))
        }
    }
}

fn new_key(common: &Common, file: &Path) -> anyhow::Result<()> {
    ensure!(!file.exists(), "{} is there already", file.display());
    let pair = jwk::generate()?;
    let private = jwk::private_json(&pair, None);
    place::write_private(file, format!("{private}\n").as_bytes())?;
    let public = jwk::public_json(&pair);
    print(common, &public, Value::to_string)
}

/// What is registered of a JWK: the members that make the key (RFC 7638), and no private one.
fn public_members(jwk: &Value) -> anyhow::Result<Value> {
    ensure!(
        jwk.get("d").is_none(),
        "this is a private key: give its public half, as `fob operator key` prints it"
    );
    let members = ["kty", "crv", "x", "y"].into_iter().filter_map(|name| {
        let value = jwk.get(name)?;
        Some((name.to_owned(), value.clone()))
    });
    Ok(Value::Object(members.collect()))
}

fn operators(all: &[Operator]) -> String {
    let text = |operator: &Operator, name: &str| {
        let value = operator.jwk.get(name).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let cells = all
        .iter()
        .map(|one| vec![one.name.clone(), text(one, "crv"), text(one, "x")]);
    table(&["NAME", "CURVE", "X"], &cells.collect::<Vec<_>>())
}

/// Signs a proposal.
pub(super) fn sign_proposal(
    key: &Path,
    operator: &str,
    step: Step,
    now: UnixTime,
    open_for_s: u64,
) -> anyhow::Result<String> {
    ensure!(
        open_for_s <= PROPOSAL_LIFETIME_MAX_S,
        "a proposal stays open for {} days at most",
        PROPOSAL_LIFETIME_MAX_S / 86_400
    );
    let claims = ProposalClaims {
        iss: operator.into(),
        iat: now,
        exp: now + open_for_s,
        step,
    };
    sign(key, operator, PROPOSAL_TYP, &claims)
}

/// Signs an approval of a proposal, if it is what it is shown to be.
pub(super) fn sign_approval(
    key: &Path,
    operator: &str,
    proposal: &ProposalRow,
    now: UnixTime,
) -> anyhow::Result<String> {
    let signed = proposal.jws.split('.').nth(1).unwrap_or_default();
    let signed = BASE64_URL_SAFE_NO_PAD
        .decode(signed)
        .context("the proposal")?;
    let signed: ProposalClaims = serde_json::from_slice(&signed).context("the proposal")?;
    ensure!(
        signed.step == proposal.step && signed.iss == proposal.operator,
        "the proposal is not what it is shown to be"
    );
    let claims = ApprovalClaims {
        iss: operator.into(),
        iat: now,
        exp: now + APPROVAL_LIFETIME_S,
        proposal: proposal.proposal,
        digest: digest(&proposal.jws),
    };
    sign(key, operator, APPROVAL_TYP, &claims)
}

fn sign(key: &Path, operator: &str, typ: &str, claims: &impl Serialize) -> anyhow::Result<String> {
    let (pair, _) = jwk::read(key)?;
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(typ.into());
    header.kid = Some(operator.into());
    Ok(jsonwebtoken::encode(
        &header,
        claims,
        &jwk::signing_key(&pair)?,
    )?)
}
