//! Private JWKs of phones, for trying things out: `fob sign` and the demo owner. A real phone's
//! key never leaves its keystore.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::HolderKey;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::place;

/// A new P-256 key pair.
pub(super) fn generate() -> anyhow::Result<EcdsaKeyPair> {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
        .map_err(|_| anyhow!("no key pair was made"))
}

/// Its public half.
pub(super) fn public(pair: &EcdsaKeyPair) -> anyhow::Result<HolderKey> {
    HolderKey::from_sec1(pair.public_key().as_ref()).map_err(|why| anyhow!("{why}"))
}

/// It as a private JWK.
pub(super) fn private_json(pair: &EcdsaKeyPair, kid: Option<&str>) -> Value {
    let private: Option<EcPrivateKeyBin<'_>> = pair.private_key().as_be_bytes().ok();
    let mut jwk = public_json(pair);
    if let Some(private) = private {
        jwk["d"] = json!(BASE64_URL_SAFE_NO_PAD.encode(private.as_ref()));
    }
    if let Some(kid) = kid {
        jwk["kid"] = json!(kid);
    }
    jwk
}

/// Its public half as a JWK.
pub(super) fn public_json(pair: &EcdsaKeyPair) -> Value {
    let point = pair.public_key().as_ref();
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..65]) })
}

/// Reads a private JWK: the key pair, and its `kid`.
pub(super) fn read(path: &Path) -> anyhow::Result<(EcdsaKeyPair, Option<String>)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let jwk: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let pair = from_json(&jwk).with_context(|| path.display().to_string())?;
    Ok((pair, jwk.get("kid").and_then(Value::as_str).map(Into::into)))
}

/// The key pair of a private JWK.
pub(super) fn from_json(jwk: &Value) -> anyhow::Result<EcdsaKeyPair> {
    let part = |name: &str| -> anyhow::Result<Vec<u8>> {
        jwk.get(name)
            .and_then(Value::as_str)
            .and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok())
            .ok_or_else(|| anyhow!("{name} is not there in base64url"))
    };
    if jwk.get("crv").and_then(Value::as_str) != Some("P-256") {
        bail!("fob signs with P-256 keys");
    }
    let point = [vec![4], part("x")?, part("y")?].concat();
    EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &part("d")?,
        &point,
    )
    .map_err(|_| anyhow!("it is not a P-256 key pair"))
}

/// Reads a private JWK, or makes one where there is none.
pub(super) fn read_or_make(path: &Path) -> anyhow::Result<EcdsaKeyPair> {
    if path.exists() {
        return Ok(read(path)?.0);
    }
    let pair = generate()?;
    place::write_private(path, format!("{}\n", private_json(&pair, None)).as_bytes())?;
    eprintln!("fob: made {}, this phone's key", path.display());
    Ok(pair)
}

/// It as a key to sign JWS with.
pub(super) fn signing_key(pair: &EcdsaKeyPair) -> anyhow::Result<EncodingKey> {
    let document = pair
        .to_pkcs8v1()
        .map_err(|_| anyhow!("the key pair has no PKCS#8 form"))?;
    Ok(EncodingKey::from_ec_der(document.as_ref()))
}
