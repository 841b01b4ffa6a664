//! The check of a sample: does a 201 hold a bundle of the right shape? Signatures are not
//! verified: `tests/client` does that, and it would cost the machine more than signing does.

use std::collections::HashSet;

use serde::Deserialize;

/// The shortest key there can be, in base64url characters.
const KEY_LEN_MIN: usize = 200;

#[derive(Deserialize)]
struct Bundle<'a> {
    bundle: &'a str,
    authorization: &'a str,
    version: u32,
    vehicle: &'a str,
    #[serde(borrow)]
    keys: Vec<Key<'a>>,
}

#[derive(Deserialize)]
struct Key<'a> {
    id: &'a str,
    function: &'a str,
    key: &'a str,
    status: &'a str,
}

/// Checks a bundle for `vehicle` with `functions` keys.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(body: &[u8], vehicle: &str, functions: usize) -> Result<(), String> {
    let bundle: Bundle<'_> =
        serde_json::from_slice(body).map_err(|error| format!("no bundle: {error}"))?;
    let uuid = |text: &str| text.len() == 36 && text.as_bytes()[14] == b'7';
    let distinct = |of: for<'a> fn(&'a Key<'_>) -> &'a str| {
        let all: HashSet<_> = bundle.keys.iter().map(of).map(str::to_owned).collect();
        all.len() == functions
    };
    let rules = [
        (uuid(bundle.bundle), "the bundle's id is no UUIDv7"),
        (uuid(bundle.authorization), "the authorization is no UUIDv7"),
        (bundle.version == 1, "the version is not 1"),
        (bundle.vehicle == vehicle, "it is for another vehicle"),
        (
            bundle.keys.len() == functions,
            "not one key for each function",
        ),
        (distinct(|key| key.id), "two keys with one id"),
        (distinct(|key| key.function), "two keys for one function"),
        (distinct(|key| key.key), "two keys alike"),
        (
            bundle.keys.iter().all(|key| key.key.len() >= KEY_LEN_MIN),
            "a key is too short",
        ),
        (
            bundle.keys.iter().all(|key| key.status == "valid"),
            "a key is not valid",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, why)) => Err((*why).into()),
    }
}

/// The code of a refusal.
pub(crate) fn refusal_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    serde_json::from_slice::<Problem>(body)
        .ok()
        .map(|problem| problem.code)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bundle() -> Value {
        let key = |nth: usize| {
            json!({
                "id": format!("01a20539-0043-7001-996d-6d71e426000{nth}"),
                "function": format!("f{nth}"), "key": format!("{nth}").repeat(200), "status": "valid",
                "not_before": "2026-01-01T00:00:00Z",
            })
        };
        json!({
            "bundle": "01a20539-0043-7000-996d-6d71e4260000",
            "authorization": "01a20538-ffa1-7dce-b6a4-143e3e77a7ec",
            "version": 1, "vehicle": "VAN-7", "keys": [key(1), key(2)],
        })
    }

    #[test]
    fn a_bundle_passes_and_each_defect_is_seen() {
        let check = |body: &Value| check(body.to_string().as_bytes(), "VAN-7", 2);
        assert_eq!(check(&bundle()), Ok(()));
        let defects: [(&str, Value); 7] = [
            ("/bundle", json!("x")),
            ("/version", json!(2)),
            ("/vehicle", json!("VAN-8")),
            ("/keys/1/id", json!("01a20539-0043-7001-996d-6d71e4260001")),
            ("/keys/1/key", json!("1".repeat(200))),
            ("/keys/0/status", json!("revoked")),
            ("/keys", json!([])),
        ];
        for (at, value) in defects {
            let mut body = bundle();
            *body.pointer_mut(at).unwrap() = value;
            assert!(check(&body).is_err(), "{at}");
        }
    }

    #[test]
    fn the_code_of_a_refusal_is_read() {
        assert_eq!(refusal_code(br#"{"code":"busy"}"#).as_deref(), Some("busy"));
        assert_eq!(refusal_code(b"<html>"), None);
    }
}
