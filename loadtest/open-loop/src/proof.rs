//! Proofs of possession (`openid4vci-proof+jwt`, docs/protocol.md section 10), signed before the
//! clock starts.

use anyhow::anyhow;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;

use crate::clock;
use crate::prepare::{CodeSet, Request};
use crate::target::Target;

/// A terminal: its key pair, and the header of all its proofs.
struct Holder {
    pair: EcdsaKeyPair,
    header: String,
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Holder {
    fn new() -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| anyhow!("no key pair was made"))?;
        // 04 ‖ x ‖ y.
        let point = pair.public_key().as_ref();
        let header = json!({
            "alg": "ES256", "typ": "openid4vci-proof+jwt",
            "jwk": { "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) },
        });
        let header = encode(header.to_string().as_bytes());
        Ok(Self { pair, header })
    }

    fn proof(&self, audience: &str, iat: u64, code_set: &str) -> anyhow::Result<String> {
        let nonce = encode(digest(&SHA256, code_set.as_bytes()).as_ref());
        let claims = json!({ "aud": audience, "iat": iat, "nonce": nonce }).to_string();
        let signed = format!("{}.{}", self.header, encode(claims.as_bytes()));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| anyhow!("a proof was not signed"))?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }
}

/// A finished request for each code set, `holders` key pairs signing in turn, on all processors.
///
/// # Errors
/// Where no key is made or nothing signed.
pub(crate) fn requests(
    target: &Target,
    code_sets: Vec<CodeSet>,
    holders: usize,
) -> anyhow::Result<Vec<Request>> {
    let holders = (0..holders.clamp(1, code_sets.len().max(1)))
        .map(|_| Holder::new())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = code_sets.len().div_ceil(threads).max(1);
    let iat = clock::unix();
    // What the threads need of the target: connections stay where they are.
    let audience = &target.audience;
    let spell = |code_set: &CodeSet, holder: &Holder| -> anyhow::Result<String> {
        let body = json!({
            "code_set": code_set.text,
            "identity": { "id": code_set.identity },
            "proof": holder.proof(audience, iat, &code_set.text)?,
        });
        Ok(body.to_string())
    };
    let bodies = std::thread::scope(|scope| {
        let crew: Vec<_> = code_sets
            .chunks(share)
            .map(|mine| {
                let (spell, holders) = (&spell, &holders);
                scope.spawn(move || {
                    let all = mine.iter().zip(holders.iter().cycle());
                    all.map(|(code_set, holder)| spell(code_set, holder))
                        .collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        let done = crew.into_iter().map(|thread| thread.join());
        let done = done.map(|one| one.map_err(|_| anyhow!("a signing thread ended"))?);
        done.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let bodies = bodies.into_iter().flatten();
    Ok(code_sets
        .into_iter()
        .zip(bodies)
        .map(|(code_set, body)| Request {
            bytes: target.post("/v1/redemptions", "", &body),
            vehicle: code_set.vehicle,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_proof_verifies_with_the_key_in_its_header_and_binds_the_code_set() {
        let holder = Holder::new().unwrap();
        let proof = holder.proof("http://127.0.0.1:1", 17, "FOB1X").unwrap();
        let (signed, signature) = proof.rsplit_once('.').unwrap();
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let header: serde_json::Value = serde_json::from_slice(&decode(header)).unwrap();
        let part = |name: &str| decode(header["jwk"][name].as_str().unwrap());
        let point = [vec![4], part("x"), part("y")].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decode(signature))
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&decode(claims)).unwrap();
        assert_eq!(claims["aud"], "http://127.0.0.1:1");
        assert_eq!(claims["iat"], 17);
        let nonce = decode(claims["nonce"].as_str().unwrap());
        assert_eq!(nonce, digest(&SHA256, b"FOB1X").as_ref());
    }
}
