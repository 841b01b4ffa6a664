//! The server against the golden vectors in `verify/vectors`, which `docs/protocol.md` prints: what
//! it derives and what it accepts is what the page says.

use fob::domain::code_set::{CODE_SET_KEY_LEN, CodeSetKey};
use fob::domain::{AuthorizationId, CodeSet, FleetId};
use fob::engine::jws::{COMMAND_TYP, CommandClaims, Unverified, check_proof};
use fob::hsm::verify_signature;
use fob_verify::{Algorithm, HolderKey, IssuerKey};
use serde_json::Value;

fn vector(name: &str) -> Value {
    let file = format!("{}/verify/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    let text = value.as_str().unwrap();
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

/// The octets of a value in hex.
pub(crate) fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// A key of `keys.json`: its coordinates.
fn key(name: &str) -> ([u8; 32], [u8; 32]) {
    let keys = vector("keys");
    let all = keys.as_array().or_else(|| keys["keys"].as_array()).unwrap();
    let key = all.iter().find(|key| key["name"] == name).unwrap();
    (bytes(&key["x"]), bytes(&key["y"]))
}

#[test]
fn secret_pin_and_text_of_a_code_set() {
    let vector = vector("code-set");
    let key = CodeSetKey::new(&bytes::<CODE_SET_KEY_LEN>(&vector["code_set_key"]));
    let fleet = FleetId(bytes(&vector["fleet_id"]));
    let id = AuthorizationId(bytes(&vector["code_set_id"]));
    let text = key.text(fleet, id, 1, &[1, 2, 3]).unwrap();
    assert_eq!(vector["text"], text);
    assert_eq!(vector["pin"], key.pin(fleet, id, 1));
    let parsed = CodeSet::parse(&text).unwrap();
    assert_eq!(*parsed.nonce(), bytes(&vector["text_sha256"]));
    assert!(key.matches(&parsed, fleet, 1, &[1, 2, 3]));
}

#[test]
fn a_borrower_terminals_proof() {
    let proof = vector("proof-jws");
    let proof = proof["compact"].as_str().unwrap();
    let nonce = bytes(&vector("code-set")["text_sha256"]);
    let check = |audience, now| check_proof(proof, audience, &nonce, now);
    let iat = 1_767_571_200;
    let (x, y) = key("holder P-256");
    assert_eq!(
        check("https://fob.example", iat),
        Ok(HolderKey::new_p256(&x, &y).unwrap())
    );
    assert!(check("https://fob.example", iat + 300).is_ok());
    assert!(check("https://fob.example", iat + 301).is_err());
    assert!(check("https://fob.example", iat - 60).is_ok());
    assert!(check("https://fob.example", iat - 61).is_err());
    assert!(check("https://other.example", iat).is_err());
}

#[test]
fn an_owner_terminals_command() {
    let command = vector("command-jws");
    let unverified = Unverified::parse(command["compact"].as_str().unwrap(), COMMAND_TYP).unwrap();
    assert_eq!(unverified.kid(), Some("demo/owner-1-phone"));
    let (x, y) = key(command["signed_by"].as_str().unwrap());
    let claims: CommandClaims = unverified
        .verify(&HolderKey::new_p256(&x, &y).unwrap())
        .unwrap();
    let check = |now| claims.check("https://fob.example", "POST", "/v1/authorizations", now);
    assert_eq!(check(claims.iat), Ok(()));
    assert!(check(claims.exp).is_err());
    let (x, y) = key("holder P-256");
    let stranger = HolderKey::new_p256(&x, &y).unwrap();
    assert!(unverified.verify::<CommandClaims>(&stranger).is_err());
}

#[test]
fn keys_of_every_algorithm_by_the_servers_own_verifier() {
    for (name, algorithm) in [
        ("key-es256", Algorithm::Es256),
        ("key-esp256", Algorithm::Esp256),
        ("key-ed25519", Algorithm::Ed25519),
    ] {
        let vector = vector(name);
        let (keys, signer) = (self::vector("keys"), vector["signed_by"].clone());
        let all = keys.as_array().or_else(|| keys["keys"].as_array()).unwrap();
        let found = all.iter().find(|key| key["name"] == signer).unwrap();
        let x = bytes(&found["x"]);
        let issuer = match algorithm {
            Algorithm::Ed25519 => IssuerKey::new_ed25519(&x).unwrap(),
            _ => IssuerKey::new_p256(algorithm, &x, &bytes(&found["y"])).unwrap(),
        };
        let message = unhex(&vector["to_be_signed"]);
        let mut signature = bytes::<64>(&vector["signature"]);
        assert!(verify_signature(&issuer, &message, &signature), "{name}");
        signature[63] ^= 1;
        assert!(!verify_signature(&issuer, &message, &signature), "{name}");
    }
}
