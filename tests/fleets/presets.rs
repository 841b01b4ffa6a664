//! Presets, and hours of the week: accepted wherever functions are.

use serde_json::{Value, json};

use super::rental::{Rental, text};
use crate::support::{now, time};

/// Two functions, two starts, an hour, on weekdays.
fn valet() -> Value {
    json!({ "presets": { "valet": {
        "functions": ["doors.unlock", "engine.start"],
        "max_uses": { "engine.start": 2 },
        "lasts_s": 3600,
        "recurring": [{ "days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00",
            "until": "18:00", "utc_offset_min": 60 }],
    }}})
}

fn ask(functions: &Value, lasts_s: u64) -> Value {
    let from = now();
    json!({ "vehicle": "CAR", "functions": functions,
        "not_before": time(from), "not_after": time(from + lasts_s) })
}

fn names(view: &Value) -> Vec<&str> {
    let functions = view["functions"].as_array().unwrap().iter();
    functions.map(|one| text(&one["name"])).collect()
}

#[test]
fn a_preset_stands_for_its_functions_and_limits() {
    let rental = Rental::new();
    let make = |asked: &Value| rental.send("POST", "/v1/authorizations", asked);
    let preset = json!(["preset:valet"]);
    make(&ask(&preset, 3600)).refused(404, "unknown_function");
    rental.rule(&valet());
    let made = make(&ask(&preset, 3600));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.value();
    assert_eq!(names(&made), ["doors.unlock", "engine.start"]);
    assert_eq!(made["max_uses"], json!({ "engine.start": 2 }));
    assert_eq!(made["recurring"], valet()["presets"]["valet"]["recurring"]);
    let code_set = json!({ "code_set": made["code_set"] });
    let preview = rental
        .server
        .json("POST", "/v1/code-sets/preview", &code_set);
    assert_eq!(preview.value()["recurring"], made["recurring"]);
    let redeemed = rental
        .server
        .redeem(text(&made["code_set"]), "anna", &rental.phone);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text());
    // One second more than it lasts.
    let long = make(&ask(&preset, 3601));
    long.refused(400, "malformed");
    assert_eq!(long.value()["field"], "not_after");
    assert!(text(&long.value()["detail"]).contains("3600 s at most"));
    // With others beside it, and limits that are lower or higher.
    for (asked, left) in [(1, 1), (2, 2), (3, 2)] {
        let mut more = ask(&json!(["trunk.open", "preset:valet", 1]), 60);
        more["max_uses"] = json!({ "engine.start": asked, "trunk.open": 9 });
        let made = make(&more).value();
        assert_eq!(names(&made), ["doors.unlock", "engine.start", "trunk.open"]);
        let limits = json!({ "engine.start": left, "trunk.open": 9 });
        assert_eq!(made["max_uses"], limits);
    }
    let mut hours = ask(&preset, 60);
    hours["recurring"] = json!([{ "days": ["sun"], "from": "00:00", "until": "00:00" }]);
    let refused = make(&hours);
    refused.refused(400, "malformed");
    assert_eq!(refused.value()["field"], "recurring");
    assert_eq!(
        rental.order("a", "CAR", &["preset:valet"])["status"],
        "issued"
    );
    assert_eq!(
        rental.order("b", "CAR", &["preset:butler"])["status"],
        "unknown_function"
    );
}

#[test]
fn hours_of_the_week_are_kept_and_changed() {
    let rental = Rental::new();
    let weekdays = json!([{ "days": ["mon", "fri"], "from": "22:00", "until": "06:00",
        "utc_offset_min": 0 }]);
    let mut asked = ask(&json!(["doors.unlock"]), 60);
    asked["recurring"] = weekdays.clone();
    let made = rental.send("POST", "/v1/authorizations", &asked).value();
    assert_eq!(made["recurring"], weekdays);
    let path = format!("/v1/authorizations/{}", text(&made["authorization"]));
    let change = |version: u32, body: Value| {
        let (bearer, tag) = (format!("Bearer {}", rental.token), format!("\"{version}\""));
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("if-match", tag.as_str()),
        ];
        let body = body.to_string();
        let changed = rental
            .server
            .send("PATCH", &path, &headers, body.as_bytes());
        assert_eq!(changed.status, 200, "{}", changed.text());
        changed.value()["recurring"].clone()
    };
    let other = json!([{ "days": ["sun"], "from": "00:00", "until": "12:30",
        "utc_offset_min": -90 }]);
    assert_eq!(change(1, json!({ "functions": ["doors.lock"] })), weekdays);
    assert_eq!(change(2, json!({ "recurring": other })), other);
    assert_eq!(change(3, json!({ "recurring": null })), Value::Null);
    asked["recurring"] = json!([{ "days": ["mon"], "from": "24:00", "until": "06:00" }]);
    let refused = rental.send("POST", "/v1/authorizations", &asked);
    refused.refused(400, "malformed");
    assert_eq!(refused.value()["field"], "recurring");
}
