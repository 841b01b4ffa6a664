//! `fob sign use`: the phone's answer to a car's challenge.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use fob_verify::Algorithm;
use fob_verify::key::SignedKey;
use fob_verify::use_proof::{Use, to_be_signed};
use serde_json::json;

use super::{Common, jwk, place, print, verify};

#[derive(Args)]
pub(super) struct UseArgs {
    /// The borrower phone's private JWK
    #[arg(long, value_name = "FILE")]
    jwk: PathBuf,
    /// A key (CBOR or base64url) or a bundle (JSON)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The function, by name
    #[arg(long, value_name = "NAME")]
    function: String,
    /// The car's challenge, base64url; one in 64 begins with a hyphen
    #[arg(long, allow_hyphen_values = true)]
    challenge: String,
}

pub(super) fn run(common: &Common, args: &UseArgs) -> anyhow::Result<()> {
    let (pair, _) = jwk::read(&args.jwk)?;
    let challenge = BASE64_URL_SAFE_NO_PAD
        .decode(args.challenge.trim())
        .context("--challenge is not base64url")?;
    let keys =
        verify::keys(&place::read(&args.key)?).with_context(|| args.key.display().to_string())?;
    let is_of = |key: &SignedKey<'_>| key.unverified().function_name == args.function;
    let of_function = keys
        .iter()
        .filter_map(|key| SignedKey::decode(key).ok())
        .find(is_of)
        .with_context(|| format!("there is no key for {}", args.function))?;
    let proof = BASE64_URL_SAFE_NO_PAD.encode(answer(&pair, &of_function, &challenge)?);
    print(common, &json!({ "proof": proof }), |_| proof.clone())
}

/// The use proof by which a phone answers a car's challenge for a key.
pub(super) fn answer(
    pair: &EcdsaKeyPair,
    key: &SignedKey<'_>,
    challenge: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let claims = Use {
        key_id: key.unverified().key_id,
        function_name: key.unverified().function_name,
        nonce: challenge,
    };
    let message = to_be_signed(Algorithm::Es256, &claims).map_err(|why| anyhow!("{why}"))?;
    let signature = pair
        .sign(&SystemRandom::new(), message.message())
        .map_err(|_| anyhow!("the proof was not signed"))?;
    Ok(message.assemble(signature.as_ref().try_into()?))
}
