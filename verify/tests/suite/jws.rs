//! The two JSON Web Signatures of the HTTP interface, built by hand.

use crate::annotate::hex;
use crate::fixture::{EXPIRES, ISSUED, OWNER, PHONE, Secret, VEHICLE, code_set};
use fob_verify::code_set::text_nonce;

const AUDIENCE: &str = "https://fob.example";

/// A compact JWS (RFC 7515 §7.1) with everything that leads to it.
pub(crate) struct Jws {
    pub(crate) header: String,
    pub(crate) payload: String,
    pub(crate) signing_input: String,
    pub(crate) signature: String,
    pub(crate) compact: String,
}

/// An owner terminal's command: ES256.
pub(crate) fn command() -> Jws {
    assert_eq!(EXPIRES - ISSUED, 633_600);
    let header = r#"{"alg":"ES256","typ":"fob-command+jwt","kid":"demo/owner-1-phone"}"#;
    let command = format!(
        r#"{{"vehicle":"{VEHICLE}","functions":["doors.unlock","doors.lock","engine.start"],"not_before":"2026-01-05T08:00:00Z","not_after":"2026-01-12T08:00:00Z","recipient":{{"identity":"renter-1"}}}}"#
    );
    let payload = format!(
        r#"{{"iss":"owner-1","aud":"{AUDIENCE}","iat":{ISSUED},"exp":{},"jti":"019b8b74-1800-7000-8000-0000000000a1","htm":"POST","htu":"{AUDIENCE}/v1/authorizations","command":{command}}}"#,
        ISSUED + 300
    );
    sign(&OWNER, header.to_owned(), payload)
}

/// A borrower terminal's proof of possession for the code set: ES256.
pub(crate) fn proof() -> Jws {
    let public = PHONE.public();
    let (x, y) = (base64url(public.x()), base64url(public.y().unwrap()));
    let header = format!(
        r#"{{"alg":"ES256","typ":"openid4vci-proof+jwt","jwk":{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}}}"#
    );
    let nonce = base64url(&text_nonce(&code_set().encode()));
    let payload = format!(r#"{{"aud":"{AUDIENCE}","iat":{ISSUED},"nonce":"{nonce}"}}"#);
    sign(&PHONE, header, payload)
}

/// Base64url without padding (RFC 7515 §2).
pub(crate) fn base64url(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in octets.chunks(3) {
        let word = (0..3).fold(0, |w, i| w << 8 | usize::from(*chunk.get(i).unwrap_or(&0)));
        for digit in 0..=chunk.len() {
            out.push(char::from(ALPHABET[word >> (18 - 6 * digit) & 63]));
        }
    }
    out
}

fn sign(key: &Secret, header: String, payload: String) -> Jws {
    let signing_input = [&header, &payload]
        .map(|part| base64url(part.as_bytes()))
        .join(".");
    let signature = key.sign(signing_input.as_bytes());
    let compact = format!("{signing_input}.{}", base64url(&signature));
    Jws {
        header,
        payload,
        signing_input,
        signature: hex(&signature),
        compact,
    }
}

#[test]
fn base64url_is_the_one_of_rfc_7515() {
    // RFC 7515, appendix C.
    assert_eq!(base64url(&[3, 236, 255, 224, 193]), "A-z_4ME");
}

#[test]
fn the_ids_in_the_text_are_those_of_the_fixture() {
    assert!(hex(&crate::fixture::id(0xa1)).starts_with("019b8b7418007000"));
}
