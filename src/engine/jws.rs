//! The two compact JWS (RFC 7515) that come in: an owner terminal's command and a borrower
//! terminal's proof. Signature, form and time are checked here; what they are for is not.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::HolderKey;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::domain::json::{Object, strict};
use crate::domain::{Refusal, RefusalCode, UnixTime};

/// The `typ` of a signed command.
pub const COMMAND_TYP: &str = "fob-command+jwt";

/// The `typ` of a proof of possession (OpenID4VCI).
pub const PROOF_TYP: &str = "openid4vci-proof+jwt";

/// The longest a command may hold, in seconds from `iat` to `exp`.
pub const COMMAND_LIFETIME_MAX_S: u64 = 300;

/// How far `iat` may lie in the past, in seconds, in a proof.
pub const PROOF_AGE_MAX_S: u64 = 300;

/// How far `iat` may lie in the future, in seconds: clocks differ.
pub const CLOCK_SKEW_MAX_S: u64 = 60;

/// The most bytes a compact JWS may have.
pub const JWS_LEN_MAX: usize = 16 * 1024;

/// A compact JWS whose header was read and whose signature was not yet checked.
pub struct Unverified<'a> {
    text: &'a str,
    header: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    /// Reads the protected header.
    pub fn parse(text: &'a str, typ: &str) -> Result<Self, &'static str> {
        if text.len() > JWS_LEN_MAX {
            return Err("it is longer than 16 KiB");
        }
        let first = text.split('.').next().unwrap_or_default();
        let header = BASE64_URL_SAFE_NO_PAD
            .decode(first)
            .map_err(|_| "it is not a compact JWS")?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|_| "its header is not a JSON object")?;
        // RFC 7515 §4.1.11: what a header calls critical must be understood, and we know nothing.
        if header.contains_key("crit") {
            return Err("its header has crit");
        }
        match header.get("typ").and_then(Value::as_str) {
            Some(found) if found == typ => Ok(Self { text, header }),
            _ => Err("its header has another typ"),
        }
    }

    /// The header's `kid`.
    pub fn kid(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// The public key in the header's `jwk`.
    pub fn jwk(&self) -> Result<HolderKey, &'static str> {
        holder_key(self.header.get("jwk").ok_or("its header has no jwk")?)
    }

    /// Checks the signature with `key` and returns the claims.
    pub fn verify<T: DeserializeOwned>(&self, key: &HolderKey) -> Result<T, &'static str> {
        match self.header.get("alg").and_then(Value::as_str) {
            Some("ES256" | "EdDSA") => {}
            _ => return Err("its alg is neither ES256 nor EdDSA"),
        }
        let public = key.public();
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let (algorithm, key) = match public.y() {
            Some(y) => (
                Algorithm::ES256,
                DecodingKey::from_ec_components(&encode(public.x()), &encode(y)),
            ),
            None => (
                Algorithm::EdDSA,
                DecodingKey::from_ed_components(&encode(public.x())),
            ),
        };
        let key = key.map_err(|_| "its key cannot be used")?;
        // Times and audience are compared by the callers, with the engine's clock.
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Object<T>>(self.text, &key, &validation)
            .map(|token| token.claims.0)
            .map_err(|why| match why.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => "its signature does not hold",
                jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => {
                    "its alg is not that of its key"
                }
                _ => "its claims are not of the form asked for",
            })
    }
}

/// Reads a public JWK (RFC 7517): P-256 or Ed25519, and nothing private in it.
pub fn holder_key(jwk: &Value) -> Result<HolderKey, &'static str> {
    if jwk.get("d").is_some() {
        return Err("its jwk holds a private key: whoever sent it must make a new one");
    }
    let text = |name| jwk.get(name).and_then(Value::as_str);
    // RFC 7517 §4.4: a key that names an algorithm is for that one.
    if text("alg").is_some_and(|alg| !["ES256", "EdDSA", "Ed25519"].contains(&alg)) {
        return Err("its jwk is for another algorithm");
    }
    let coordinate = |name| -> Result<[u8; 32], &'static str> {
        text(name)
            .and_then(|value| BASE64_URL_SAFE_NO_PAD.decode(value).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or("a coordinate of its jwk is not 32 bytes in base64url")
    };
    match (text("kty"), text("crv")) {
        (Some("EC"), Some("P-256")) => HolderKey::new_p256(&coordinate("x")?, &coordinate("y")?),
        (Some("OKP"), Some("Ed25519")) => HolderKey::new_ed25519(&coordinate("x")?),
        _ => return Err("its jwk is neither EC P-256 nor OKP Ed25519"),
    }
    .map_err(|_| "its jwk is not a point of its curve")
}

/// It as a public JWK (RFC 7517, RFC 8037).
pub fn public_jwk(key: &HolderKey) -> Value {
    let public = key.public();
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    match public.y() {
        Some(y) => {
            json!({ "kty": "EC", "crv": "P-256", "x": encode(public.x()), "y": encode(y) })
        }
        None => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(public.x()) }),
    }
}

#[derive(Deserialize)]
struct ProofClaims {
    aud: String,
    iat: UnixTime,
    nonce: String,
    /// A proof needs none; one that has it means it.
    exp: Option<UnixTime>,
}

/// Checks a proof of possession: the terminal signed `nonce` for `audience` just now.
///
/// # Errors
/// `proof_invalid`, saying what does not hold.
pub fn check_proof(
    proof: &str,
    audience: &str,
    nonce: &[u8; 32],
    now: UnixTime,
) -> Result<HolderKey, Refusal> {
    let refuse = |why: &'static str| {
        Refusal::new(RefusalCode::ProofInvalid)
            .field("proof")
            .detail(format!("the proof: {why}"))
    };
    let unverified = Unverified::parse(proof, PROOF_TYP).map_err(refuse)?;
    let key = unverified.jwk().map_err(refuse)?;
    let claims: ProofClaims = unverified.verify(&key).map_err(refuse)?;
    if claims.aud != audience {
        return Err(refuse("its aud is not this server's public_url"));
    }
    if claims.iat > now.saturating_add(CLOCK_SKEW_MAX_S) {
        return Err(refuse("its iat lies in the future"));
    }
    if claims.iat.saturating_add(PROOF_AGE_MAX_S) < now {
        return Err(refuse(
            "its iat is more than 300 seconds ago: sign a new one",
        ));
    }
    if claims.exp.is_some_and(|exp| exp <= now) {
        return Err(refuse("it has expired: sign a new one"));
    }
    if claims.nonce != BASE64_URL_SAFE_NO_PAD.encode(nonce) {
        return Err(refuse("its nonce is not the SHA-256 of what it is for"));
    }
    Ok(key)
}

/// The claims of a signed command, apart from the command itself.
#[derive(Clone, Debug, Deserialize)]
pub struct CommandClaims {
    /// The owner's identity.
    pub iss: String,
    /// The server's `public_url`.
    pub aud: String,
    /// When it was signed.
    pub iat: UnixTime,
    /// When it ends.
    pub exp: UnixTime,
    /// Its own identifier, 1 to 128 characters.
    pub jti: String,
    /// The method of the request that carries it.
    pub htm: String,
    /// The address of the request that carries it, without query.
    pub htu: String,
    /// What the JSON body would have been.
    #[serde(deserialize_with = "strict")]
    pub command: Value,
}

impl CommandClaims {
    /// Checks that the command was made for this request and holds now.
    pub fn check(
        &self,
        audience: &str,
        method: &str,
        path: &str,
        now: UnixTime,
    ) -> Result<(), &'static str> {
        if self.aud != audience {
            return Err("its aud is not this server's public_url");
        }
        if self.htm != method || self.htu.strip_prefix(audience) != Some(path) {
            return Err("its htm and htu are not those of this request");
        }
        if self.exp <= self.iat || self.exp - self.iat > COMMAND_LIFETIME_MAX_S {
            return Err("its exp is not 1 to 300 seconds after its iat");
        }
        if self.iat > now.saturating_add(CLOCK_SKEW_MAX_S) {
            return Err("its iat lies in the future");
        }
        if self.exp <= now {
            return Err("it has expired: sign a new one");
        }
        if !(1..=128).contains(&self.jti.len()) {
            return Err("its jti is not 1 to 128 characters");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> CommandClaims {
        CommandClaims {
            iss: "owner-1".into(),
            aud: "http://h".into(),
            iat: 1000,
            exp: 1300,
            jti: "1".into(),
            htm: "POST".into(),
            htu: "http://h/v1/authorizations".into(),
            command: Value::Null,
        }
    }

    #[test]
    fn a_command_holds_for_its_request_and_its_time_only() {
        let check = |claims: CommandClaims, now| {
            claims.check("http://h", "POST", "/v1/authorizations", now)
        };
        assert_eq!(check(claims(), 1000), Ok(()));
        assert_eq!(check(claims(), 1299), Ok(()));
        assert!(check(claims(), 1300).is_err(), "expired");
        assert_eq!(check(claims(), 940), Ok(()), "sixty seconds early");
        assert!(check(claims(), 939).is_err(), "too early");
        assert!(
            check(
                CommandClaims {
                    exp: 1301,
                    ..claims()
                },
                1000
            )
            .is_err(),
            "too long"
        );
        assert!(
            check(
                CommandClaims {
                    exp: 1000,
                    ..claims()
                },
                999
            )
            .is_err(),
            "no time at all"
        );
        assert!(
            check(
                CommandClaims {
                    aud: "http://g".into(),
                    ..claims()
                },
                1000
            )
            .is_err()
        );
        assert!(
            check(
                CommandClaims {
                    htm: "PATCH".into(),
                    ..claims()
                },
                1000
            )
            .is_err()
        );
        assert!(
            check(
                CommandClaims {
                    htu: "http://h/v1".into(),
                    ..claims()
                },
                1000
            )
            .is_err()
        );
        assert!(
            check(
                CommandClaims {
                    jti: String::new(),
                    ..claims()
                },
                1000
            )
            .is_err()
        );
    }

    #[test]
    fn private_and_foreign_keys_are_refused() {
        for jwk in [
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"AA"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#,
            r#"{"kty":"oct","k":"AA"}"#,
            r#"[]"#,
        ] {
            assert!(
                holder_key(&serde_json::from_str(jwk).expect("JSON")).is_err(),
                "{jwk}"
            );
        }
    }
}
