//! What an authorization is to say after a change: its own words with a merge patch (RFC 7396) laid
//! over them. Floor 4.

use serde_json::{Map, Value, json};

use super::region::RegionArg;
use super::shapes::{AuthorizationCommand, weekly};
use crate::domain::function::FunctionRef;
use crate::domain::time::Time;
use crate::domain::{Authorization, Catalogue, Refusal, Signing};
use crate::engine::authorize::AuthorizationSpec;

/// What a change may change.
pub(super) const MEMBERS: [&str; 7] = [
    "functions",
    "not_before",
    "not_after",
    "region",
    "recurring",
    "max_uses",
    "redeem_by",
];

/// What `authorization` is to say with `patch` laid over it.
///
/// # Errors
/// `malformed` for what an authorization cannot say.
pub(super) fn changed(
    authorization: &Authorization,
    catalogue: &Catalogue,
    patch: &Map<String, Value>,
) -> Result<AuthorizationSpec, Refusal> {
    if let Some(other) = patch.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        // The name is the caller's; only ours are shown.
        let ours = ["vehicle", "recipient", "pin", "signing"];
        let field = ours
            .into_iter()
            .find(|name| name == other)
            .unwrap_or("body");
        return Err(Refusal::malformed(
            field,
            "a change takes functions, not_before, not_after, region, recurring, max_uses and \
             redeem_by",
        ));
    }
    let mut patch = patch.clone();
    if let Some(Value::Object(limits)) = patch.get_mut("max_uses") {
        *limits = by_code(limits, catalogue);
    }
    let mut whole = said(authorization);
    // A place of another kind takes the place of the one before.
    if let (Some(Value::Object(new)), Some(Value::Object(old))) =
        (patch.get("region"), whole.get("region"))
        && !new.keys().any(|kind| old.contains_key(kind))
    {
        whole.remove("region");
    }
    merge(&mut whole, &patch);
    settle_limits(&mut whole, &patch, catalogue);
    settle_redeem_by(&mut whole, &patch, authorization);
    whole.insert("vehicle".into(), json!(authorization.vehicle.as_str()));
    let recipient = authorization.recipient();
    whole.insert(
        "recipient".into(),
        json!({
            "identity": recipient.identity.as_ref().map(|id| id.as_str()),
            "terminal": recipient.terminal.as_ref().map(|id| id.as_str()),
        }),
    );
    whole.insert("pin".into(), json!(authorization.pin));
    whole.insert(
        "signing".into(),
        json!(authorization.signing.map(Signing::name)),
    );
    let command: AuthorizationCommand =
        super::body::decode(Value::Object(whole).to_string().as_bytes())?;
    command.check_as(None)
}

/// What of it may be changed, as it stands.
fn said(authorization: &Authorization) -> Map<String, Value> {
    let limits = authorization.use_limits().iter();
    let limits: Map<_, _> = limits
        .map(|(code, uses)| (code.to_string(), json!(uses)))
        .collect();
    let mut said = Map::new();
    let mut put = |name: &str, value: Value| drop(said.insert(name.into(), value));
    put("functions", json!(&authorization.functions[..]));
    put("not_before", json!(Time(authorization.window.not_before)));
    put("not_after", json!(Time(authorization.window.not_after)));
    if let Some(region) = authorization.region() {
        put("region", json!(RegionArg::from(region)));
    }
    put("recurring", json!(weekly(authorization)));
    put("max_uses", limits.into());
    put("redeem_by", json!(Time(authorization.redeem_by)));
    said
}

/// RFC 7396 §2.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(name)),
            Value::Object(inner) => {
                let place = target.entry(name).or_insert_with(|| json!({}));
                if !place.is_object() {
                    *place = json!({});
                }
                if let Value::Object(place) = place {
                    merge(place, inner);
                }
            }
            value => drop(target.insert(name.clone(), value.clone())),
        }
    }
}

fn code_of(name: &str, catalogue: &Catalogue) -> Option<u16> {
    let function = match name.parse() {
        Ok(code) => FunctionRef::Code(code),
        Err(_) => FunctionRef::Name(name.into()),
    };
    catalogue.resolve(&[function]).ok()?.first().copied()
}

/// Limits by their functions' codes, as an authorization has them. What is unknown stays, to be
/// refused as that.
fn by_code(limits: &Map<String, Value>, catalogue: &Catalogue) -> Map<String, Value> {
    let known = |(name, uses): (&String, &Value)| {
        let code = code_of(name, catalogue).map_or_else(|| name.clone(), |code| code.to_string());
        (code, uses.clone())
    };
    limits.iter().map(known).collect()
}

/// A function that is dropped takes its limit with it, unless the change itself speaks of it.
fn settle_limits(
    whole: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    catalogue: &Catalogue,
) {
    let code = |function: &Value| match function {
        Value::String(name) => code_of(name, catalogue),
        other => other.as_u64().and_then(|code| u16::try_from(code).ok()),
    };
    let functions = whole.get("functions").and_then(Value::as_array);
    let codes: Vec<_> = functions.into_iter().flatten().filter_map(code).collect();
    let spoken = patch.get("max_uses").and_then(Value::as_object).cloned();
    if let Some(Value::Object(limits)) = whole.get_mut("max_uses") {
        limits.retain(|name, _| {
            let asked = spoken.as_ref().is_some_and(|it| it.contains_key(name));
            asked || name.parse().is_ok_and(|code| codes.contains(&code))
        });
    }
}

/// Unless the change speaks of it, the time to redeem follows the end of the window where it was
/// that, or would lie beyond it; and where nothing is left to redeem.
fn settle_redeem_by(
    whole: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    authorization: &Authorization,
) {
    if patch.contains_key("redeem_by") && !authorization.redeemed {
        return;
    }
    let followed = authorization.redeem_by == authorization.window.not_after;
    let end = whole.get("not_after").cloned().map(serde_json::from_value);
    let beyond = matches!(end, Some(Ok(Time(end))) if end < authorization.redeem_by);
    if followed || beyond || authorization.redeemed {
        whole.remove("redeem_by");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::authorization::tests::sample;

    /// RFC 7396, appendix A, as far as both sides are objects.
    #[test]
    fn the_standards_own_examples() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
                panic!("objects");
            };
            merge(&mut target, &patch);
            assert_eq!(Value::Object(target), result);
        }
    }

    fn change(patch: Value) -> Result<AuthorizationSpec, Refusal> {
        let Value::Object(patch) = patch else {
            panic!("an object");
        };
        changed(&sample(), &Catalogue::default(), &patch)
    }

    #[test]
    fn what_is_not_given_stays() {
        let spec = change(json!({})).expect("a change");
        assert_eq!(spec.functions, [FunctionRef::Code(1), FunctionRef::Code(3)]);
        assert_eq!((spec.not_before, spec.not_after), (100, 200));
        assert_eq!(spec.max_uses, [(FunctionRef::Code(3), 2)]);
        assert_eq!(spec.redeem_by, Some(150));
        let spec = change(json!({"not_after": Time(120)})).expect("a change");
        assert_eq!((spec.not_after, spec.redeem_by), (120, None));
    }

    #[test]
    fn limits_are_merged_by_function_and_go_with_theirs() {
        let limits = |patch| change(patch).map(|spec| spec.max_uses).expect("a change");
        let code = FunctionRef::Code;
        assert_eq!(limits(json!({"functions": ["doors.unlock"]})), []);
        assert_eq!(
            limits(json!({"max_uses": {"engine.start": 9}})),
            [(code(3), 9)]
        );
        assert_eq!(limits(json!({"max_uses": {"engine.start": null}})), []);
        assert_eq!(
            limits(json!({"max_uses": {"doors.unlock": 5}})),
            [(code(1), 5), (code(3), 2)]
        );
    }

    #[test]
    fn regions_change_their_kind() {
        let corners = json!([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        let circle = json!({"circle": {"lat": 1.0, "lon": 2.0, "radius_m": 3}});
        let mut within = sample();
        let Value::Object(patch) = json!({"region": circle}) else {
            panic!("an object");
        };
        let spec = changed(&within, &Catalogue::default(), &patch).expect("a change");
        within.restrictions = crate::domain::Restrictions {
            region: spec.region.map(Box::new),
            ..crate::domain::Restrictions::default()
        }
        .boxed();
        for (patch, kept) in [
            (json!({"region": {"polygon": corners}}), true),
            (json!({"region": {"circle": {"radius_m": 9}}}), true),
            (json!({"region": null}), false),
        ] {
            let Value::Object(patch) = patch else {
                panic!("an object");
            };
            let spec = changed(&within, &Catalogue::default(), &patch).expect("a change");
            assert_eq!(spec.region.is_some(), kept);
        }
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        for (patch, field) in [
            (json!({"vehicle": "V-2"}), "vehicle"),
            (json!({"secret-name": 1}), "body"),
            (json!({"functions": null}), "functions"),
        ] {
            let refusal = change(patch).expect_err("a refusal");
            assert_eq!(refusal.code, crate::domain::RefusalCode::Malformed);
            let named = refusal.field.as_deref();
            assert!(named == Some(field) || named.is_none(), "{refusal}");
        }
    }
}
