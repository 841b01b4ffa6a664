//! A phone: a P-256 key and what it signs.

use std::path::Path;

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::code_set::text_nonce;
use serde_json::{Value, json};

use super::now;

pub struct Phone {
    pair: EcdsaKeyPair,
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Phone {
    pub fn new() -> Self {
        Self {
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    /// From a private JWK.
    pub fn read(path: &Path) -> Self {
        let jwk: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let part = |name: &str| {
            BASE64_URL_SAFE_NO_PAD
                .decode(jwk[name].as_str().unwrap())
                .unwrap()
        };
        let point = [vec![4], part("x"), part("y")].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &part("d"),
            &point,
        );
        Self {
            pair: pair.unwrap(),
        }
    }

    /// Its public JWK.
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    /// Its private scalar, for tests that put it where it must not be.
    pub fn private(&self) -> String {
        let private: aws_lc_rs::encoding::EcPrivateKeyBin<'_> =
            self.pair.private_key().as_be_bytes().unwrap();
        encode(private.as_ref())
    }

    /// Its public key.
    pub fn key(&self) -> fob_verify::HolderKey {
        fob_verify::HolderKey::from_sec1(self.pair.public_key().as_ref()).unwrap()
    }

    /// Its signature of these bytes, `r || s`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let random = rand::SystemRandom::new();
        let signature = self.pair.sign(&random, message).unwrap();
        signature.as_ref().try_into().unwrap()
    }

    /// A command of the demo owner for another call.
    pub fn command_to(&self, url: &str, method: &str, path: &str, command: &Value) -> String {
        self.command_with(url, command, |_, claims| {
            claims["htm"] = json!(method);
            claims["htu"] = json!(format!("{url}{path}"));
        })
    }

    /// A compact JWS of anything.
    pub fn jws(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let random = rand::SystemRandom::new();
        let signature = self.pair.sign(&random, text.as_bytes()).unwrap();
        format!("{text}.{}", encode(signature.as_ref()))
    }

    /// A proof of possession for `url` over a code set's text or a bundle's id.
    pub fn proof(&self, url: &str, over: &str) -> String {
        self.proof_with(url, over, |_, _| {})
    }

    /// The same with header and claims changed before it is signed.
    pub fn proof_with(
        &self,
        url: &str,
        over: &str,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        let mut header =
            json!({ "alg": "ES256", "typ": "openid4vci-proof+jwt", "jwk": self.jwk() });
        let mut claims = json!({ "aud": url, "iat": now(), "nonce": encode(&text_nonce(over)) });
        change(&mut header, &mut claims);
        self.jws(&header, &claims)
    }

    /// A borrower's request to a fleet.
    pub fn request(&self, url: &str, identity: &str, request: &Value) -> String {
        self.request_with(url, identity, request, |_, _| {})
    }

    /// The same with header and claims changed before it is signed.
    pub fn request_with(
        &self,
        url: &str,
        identity: &str,
        request: &Value,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        let mut jti = [0; 16];
        rand::fill(&mut jti).unwrap();
        let mut header = json!({ "alg": "ES256", "typ": "fob-request+jwt", "jwk": self.jwk() });
        let mut claims = json!({
            "iss": identity,
            "aud": url,
            "iat": now(),
            "exp": now() + 3600,
            "jti": encode(&jti),
            "request": request,
        });
        change(&mut header, &mut claims);
        self.jws(&header, &claims)
    }

    /// The demo owner's authorization command.
    pub fn command(&self, url: &str, command: &Value) -> String {
        self.command_with(url, command, |_, _| {})
    }

    /// The same with header and claims changed before it is signed.
    pub fn command_with(
        &self,
        url: &str,
        command: &Value,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        let mut jti = [0; 16];
        rand::fill(&mut jti).unwrap();
        let mut header =
            json!({ "alg": "ES256", "typ": "fob-command+jwt", "kid": "demo/owner-1-phone" });
        let mut claims = json!({
            "iss": "owner-1",
            "aud": url,
            "iat": now(),
            "exp": now() + 300,
            "jti": encode(&jti),
            "htm": "POST",
            "htu": format!("{url}/v1/authorizations"),
            "command": command,
        });
        change(&mut header, &mut claims);
        self.jws(&header, &claims)
    }
}
