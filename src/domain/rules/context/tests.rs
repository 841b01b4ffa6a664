use super::super::RulesText;
use super::*;
use crate::domain::Refusal;
use crate::domain::function::Catalogue;

const DAY_S: u64 = 86_400;

/// A Monday, at noon UTC.
const NOON: UnixTime = 4 * 86_400 + 43_200;

fn check(context: &str) -> Result<Context, Refusal> {
    let text = RulesText::read(&format!(r#"{{"context":{context}}}"#)).expect("well-formed");
    let rules = text.check(&Catalogue::default(), 1)?;
    Ok(rules.context.expect("a context"))
}

fn one(condition: &str) -> Context {
    let rule = format!(r#"{{"points":5,{condition}}}"#);
    check(&format!(r#"{{"rules":[{rule}],"step_up_from":5}}"#)).expect("rules")
}

fn decision(context: &Context, change: impl FnOnce(&mut Facts<'_>)) -> Decision {
    let none = |_| 0;
    let mut facts = Facts {
        now: NOON,
        terminal_since: Some(0),
        proved: Some(NOON),
        address: None,
        redemptions: &none,
    };
    change(&mut facts);
    context.decide(context.score(&facts))
}

#[test]
fn a_terminal_is_new_for_as_many_days() {
    let context = one(r#""terminal_newer_than_days":2"#);
    let seen = |since| decision(&context, |facts| facts.terminal_since = since);
    for (since, expected) in [
        (Some(NOON - 3 * DAY_S), Decision::Issue),
        (Some(NOON - 2 * DAY_S), Decision::Issue),
        (Some(NOON - 2 * DAY_S + 1), Decision::StepUp),
        (Some(NOON), Decision::StepUp),
        // A clock that was set back, and one nobody registered.
        (Some(NOON + 9), Decision::StepUp),
        (None, Decision::StepUp),
    ] {
        assert_eq!(seen(since), expected, "{since:?}");
    }
}

#[test]
fn a_proof_of_identity_grows_old() {
    let context = one(r#""proved_longer_ago_than_days":3"#);
    let proved = |at| decision(&context, |facts| facts.proved = at);
    for (at, expected) in [
        (Some(NOON), Decision::Issue),
        (Some(NOON - 3 * DAY_S), Decision::Issue),
        (Some(NOON - 3 * DAY_S - 1), Decision::StepUp),
        (Some(0), Decision::StepUp),
        (None, Decision::StepUp),
    ] {
        assert_eq!(proved(at), expected, "{at:?}");
    }
}

#[test]
fn hours_begin_and_end_to_the_second() {
    let context = one(r#""hours":[{"days":["mon"],"from":"12:00","until":"13:00"}]"#);
    let at = |now| decision(&context, |facts| facts.now = now);
    for (now, expected) in [
        (NOON - 1, Decision::Issue),
        (NOON, Decision::StepUp),
        (NOON + 3_599, Decision::StepUp),
        (NOON + 3_600, Decision::Issue),
        (NOON + DAY_S, Decision::Issue),
        (NOON + 7 * DAY_S, Decision::StepUp),
    ] {
        assert_eq!(at(now), expected, "{now}");
    }
}

#[test]
fn redemptions_are_counted_in_their_time() {
    let context = one(r#""redemptions":{"count":3,"seconds":60}"#);
    for (so_far, expected) in [
        (0, Decision::Issue),
        (2, Decision::Issue),
        (3, Decision::StepUp),
        (4, Decision::StepUp),
    ] {
        let asked = core::cell::Cell::new(0);
        let count = |seconds| {
            asked.set(seconds);
            so_far
        };
        let none = |_| 0;
        let mut facts = Facts {
            now: NOON,
            terminal_since: None,
            proved: None,
            address: None,
            redemptions: &none,
        };
        facts.redemptions = &count;
        assert_eq!(context.decide(context.score(&facts)), expected, "{so_far}");
        assert_eq!(asked.get(), 60);
    }
}

#[test]
fn addresses_lie_inside_or_outside() {
    let ranges = r#"["10.1.0.0/16","2001:db8::/32"]"#;
    for (condition, of_the_ranges, of_others) in [
        ("inside", Decision::StepUp, Decision::Issue),
        ("outside", Decision::Issue, Decision::StepUp),
    ] {
        let context = one(&format!(r#""{condition}":{ranges}"#));
        let from = |text: Option<&str>| {
            let address = text.map(|it| it.parse().expect("an address"));
            decision(&context, |facts| facts.address = address)
        };
        for edge in [
            "10.1.0.0",
            "10.1.255.255",
            "2001:db8:ffff::",
            "::ffff:10.1.2.3",
        ] {
            assert_eq!(from(Some(edge)), of_the_ranges, "{edge} {condition}");
        }
        for beyond in ["10.0.255.255", "10.2.0.0", "2001:db7:ffff::", "2001:db9::"] {
            assert_eq!(from(Some(beyond)), of_others, "{beyond} {condition}");
        }
        assert_eq!(from(None), of_others, "from nobody knows where");
    }
}

#[test]
fn points_add_up_and_limits_are_met_to_the_point() {
    let rule = |points: u32| format!(r#"{{"points":{points},"terminal_newer_than_days":1}}"#);
    let with = |points: &[u32]| {
        let rules: Vec<_> = points.iter().copied().map(rule).collect();
        let rules = rules.join(",");
        let text = format!(r#"{{"rules":[{rules}],"step_up_from":50,"refuse_from":100}}"#);
        decision(&check(&text).expect("rules"), |facts| {
            facts.terminal_since = None
        })
    };
    for (points, expected) in [
        (&[][..], Decision::Issue),
        (&[20, 29], Decision::Issue),
        (&[20, 30], Decision::StepUp),
        (&[50], Decision::StepUp),
        (&[50, 49], Decision::StepUp),
        (&[50, 50], Decision::Refuse),
        (&[101], Decision::Refuse),
        (&[1_000_000; 32], Decision::Refuse),
    ] {
        assert_eq!(with(points), expected, "{points:?}");
    }
    // Where the limits are one there is nothing in between, and without the second no end.
    let text = |limits: &str| format!(r#"{{"rules":[{}],{limits}}}"#, rule(1_000_000));
    let new = |facts: &mut Facts<'_>| facts.terminal_since = None;
    let both = check(&text(r#""step_up_from":1000000,"refuse_from":1000000"#));
    assert_eq!(decision(&both.expect("rules"), new), Decision::Refuse);
    let open = check(&text(r#""step_up_from":1000000"#));
    assert_eq!(decision(&open.expect("rules"), new), Decision::StepUp);
}

#[test]
fn what_cannot_be_a_context_is_named() {
    let whole = |rule: &str| format!(r#"{{"rules":[{rule}],"step_up_from":1}}"#);
    let good = r#"{"points":1,"terminal_newer_than_days":1}"#;
    assert!(check(&whole(&vec![good; 32].join(","))).is_ok());
    assert!(check(r#"{"rules":[],"step_up_from":1,"approval_s":86400}"#).is_ok());
    for (text, field) in [
        (whole(&vec![good; 33].join(",")), "context.rules"),
        (whole(r#"{"points":1}"#), "context.rules[0]"),
        (
            whole(&format!(
                r#"{good},{{"points":1,"terminal_newer_than_days":1,"inside":["::/0"]}}"#
            )),
            "context.rules[1]",
        ),
        (
            whole(r#"{"points":0,"terminal_newer_than_days":1}"#),
            "context.rules[0].points",
        ),
        (
            whole(r#"{"points":1000001,"terminal_newer_than_days":1}"#),
            "context.rules[0].points",
        ),
        (
            whole(r#"{"points":1,"terminal_newer_than_days":0}"#),
            "context.rules[0].terminal_newer_than_days",
        ),
        (
            whole(r#"{"points":1,"proved_longer_ago_than_days":36501}"#),
            "context.rules[0].proved_longer_ago_than_days",
        ),
        (
            whole(r#"{"points":1,"hours":[{"days":["may"],"from":"08:00","until":"09:00"}]}"#),
            "context.rules[0].hours",
        ),
        (
            whole(r#"{"points":1,"redemptions":{"count":101,"seconds":1}}"#),
            "context.rules[0].redemptions",
        ),
        (
            whole(r#"{"points":1,"redemptions":{"count":1,"seconds":86401}}"#),
            "context.rules[0].redemptions",
        ),
        (
            whole(r#"{"points":1,"inside":["10.0.0.0/8","10.0.0.1/8"]}"#),
            "context.rules[0].inside[1]",
        ),
        (
            whole(r#"{"points":1,"outside":["everywhere"]}"#),
            "context.rules[0].outside[0]",
        ),
        (
            r#"{"rules":[],"step_up_from":0}"#.into(),
            "context.step_up_from",
        ),
        (
            r#"{"rules":[],"step_up_from":5,"refuse_from":4}"#.into(),
            "context.refuse_from",
        ),
        (
            r#"{"rules":[],"step_up_from":5,"approval_s":86401}"#.into(),
            "context.approval_s",
        ),
    ] {
        let refusal = check(&text).expect_err(&text);
        assert_eq!(refusal.field.as_deref(), Some(field), "{text}: {refusal}");
    }
}

#[test]
fn what_is_not_of_the_form_is_no_context() {
    for bad in [
        r#"{"context":[]}"#,
        r#"{"context":{"rules":[]}}"#,
        r#"{"context":{"rules":[{"points":1.5,"terminal_newer_than_days":1}],"step_up_from":1}}"#,
        r#"{"context":{"rules":[{"points":1,"moon":1}],"step_up_from":1}}"#,
    ] {
        assert!(RulesText::read(bad).is_err(), "{bad}");
    }
}

#[test]
fn it_is_kept_as_it_was_written() {
    let written = r#"{"context":{"rules":[{"points":1,"hours":[{"days":["mon"],"from":"22:00","until":"06:00"}]}],"step_up_from":1,"pin_on_step_up":true}}"#;
    let text = RulesText::read(written).expect("rules");
    let kept = serde_json::to_string(&text).expect("text");
    assert_eq!(RulesText::read(&kept), Ok(text));
    assert!(kept.contains(r#""approval_s":900"#), "{kept}");
}
