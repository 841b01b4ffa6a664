//! Who asks: a compact JWS (RFC 7515) over each question, ES256.

use aws_lc_rs::digest::{SHA256, digest as hash};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::HookError;

/// A key pair that signs questions and nothing else.
pub(super) struct Signer {
    pair: EcdsaKeyPair,
    /// The thumbprint of its public key (RFC 7638).
    kid: String,
}

impl Signer {
    pub(super) fn new(pair: EcdsaKeyPair) -> Self {
        Self {
            kid: thumbprint(&pair),
            pair,
        }
    }

    pub(super) fn sign(&self, typ: &str, claims: &Value) -> Result<String, HookError> {
        let header = json!({ "alg": "ES256", "typ": typ, "kid": self.kid }).to_string();
        let text = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text.as_bytes())
            .map_err(|_| HookError::Config("the question was not signed".into()))?;
        Ok(format!("{text}.{}", encode(signature.as_ref())))
    }
}

/// The thumbprint of a key pair's public half (RFC 7638): the `kid` of what it signs.
pub fn thumbprint(pair: &EcdsaKeyPair) -> String {
    let point = pair.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    // §3.2: the required members, in this order, without spaces.
    digest(&format!(
        r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#
    ))
}

/// What makes each question another one.
pub(super) fn nonce() -> Result<String, HookError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| HookError::Config("there is no randomness".into()))?;
    Ok(encode(&bytes))
}

/// SHA-256 of a text, as answers name it.
pub(super) fn digest(text: &str) -> String {
    encode(hash(&SHA256, text.as_bytes()).as_ref())
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
