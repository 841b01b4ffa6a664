//! The shape of an order in JSON: one line of a batch.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::decode;
use super::lines::Line;
use super::region::RegionArg;
use super::shapes::{FunctionArg, WeeklyShape, max_uses, signing};
use crate::domain::function::FunctionRef;
use crate::domain::json::{entries, object, objects, optional_object};
use crate::domain::rules::{WeeklyText, recurring};
use crate::domain::time::Time;
use crate::domain::{IdentityId, Refusal, TerminalId, VehicleId};
use crate::engine::orders::{Order, OrderSpec};

/// The most bytes of an order's name.
const REFERENCE_LEN_MAX: usize = 128;

/// An order: authorization and redemption in one, for a registered terminal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderLine<'a> {
    /// The caller's name for it, 1 to 128 bytes; unique under one `Idempotency-Key`.
    #[serde(borrow, rename = "ref")]
    reference: Cow<'a, str>,
    /// The vehicle.
    #[serde(borrow)]
    vehicle: Cow<'a, str>,
    /// Its functions, by name or code, or `preset:NAME`.
    functions: Vec<FunctionArg>,
    /// From when the keys may be used.
    #[schema(value_type = String, format = DateTime)]
    not_before: Time,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    not_after: Time,
    /// Who gets the keys.
    #[serde(borrow, deserialize_with = "object")]
    recipient: HolderArg<'a>,
    /// Where they may be used.
    #[serde(default, deserialize_with = "optional_object")]
    region: Option<RegionArg>,
    /// At which hours of the week; at all of them where absent.
    #[serde(default, deserialize_with = "objects")]
    #[schema(value_type = Vec<WeeklyShape>)]
    recurring: Vec<WeeklyText>,
    /// How often each function may be used, by its name or code.
    #[serde(default, deserialize_with = "entries")]
    #[schema(value_type = BTreeMap<String, u32>)]
    max_uses: Vec<(String, u32)>,
    /// How the keys are signed: `each` or `auto`.
    signing: Option<String>,
}

/// Who gets the keys of an order; both are named.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HolderArg<'a> {
    /// The identity.
    #[serde(borrow)]
    identity: Cow<'a, str>,
    /// Its registered terminal, to which the keys are bound.
    #[serde(borrow)]
    terminal: Cow<'a, str>,
}

/// A line as read: an order, or why it is none.
#[derive(Debug)]
pub(super) struct Read {
    /// Its number in the body, from 1.
    pub(super) line: u64,
    /// The caller's name for it, where it could be read.
    pub(super) reference: Option<String>,
    /// What was asked for.
    pub(super) order: Result<Order, Refusal>,
}

/// Reads a line.
pub(super) fn read(Line { number, text }: Line) -> Read {
    let Some(text) = text else {
        return Read {
            line: number,
            reference: None,
            order: Err(Refusal::malformed("line", "a line has 64 KiB at most")),
        };
    };
    let order = decode::<OrderLine<'_>>(&text).and_then(|line| line.check(&text));
    Read {
        line: number,
        reference: match &order {
            Ok(order) => Some(order.reference.clone()),
            Err(_) => reference(&text),
        },
        order,
    }
}

impl OrderLine<'_> {
    fn check(self, text: &[u8]) -> Result<Order, Refusal> {
        if !(1..=REFERENCE_LEN_MAX).contains(&self.reference.len()) {
            return Err(Refusal::malformed("ref", "a ref has 1 to 128 bytes"));
        }
        let identity = IdentityId::parse(&self.recipient.identity);
        let terminal = TerminalId::parse(&self.recipient.terminal);
        let spec = OrderSpec {
            vehicle: VehicleId::parse(&self.vehicle)?,
            functions: self.functions.into_iter().map(FunctionRef::from).collect(),
            not_before: self.not_before.0,
            not_after: self.not_after.0,
            region: self.region.as_ref().map(RegionArg::check).transpose()?,
            recurring: recurring(&self.recurring)?,
            max_uses: max_uses(self.max_uses),
            identity: identity.map_err(|refusal| refusal.field("recipient.identity"))?,
            terminal: terminal.map_err(|refusal| refusal.field("recipient.terminal"))?,
            signing: self.signing.as_deref().map(signing).transpose()?,
        };
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, text).as_ref());
        Ok(Order {
            reference: self.reference.into_owned(),
            digest: sha256,
            spec,
        })
    }
}

/// The name of an order that is not as it should be: whoever sent it wants to know which it was.
fn reference(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "ref")]
        reference: String,
    }
    let Named { reference } = decode(text).ok()?;
    (1..=REFERENCE_LEN_MAX)
        .contains(&reference.len())
        .then_some(reference)
}

#[cfg(test)]
mod tests {
    use actix_web::web::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        json!({
            "ref": "a-1", "vehicle": "V-1", "functions": ["doors.unlock", 3],
            "not_before": "2026-11-22T20:00:00Z", "not_after": "2026-11-22T22:00:00Z",
            "recipient": { "identity": "anna", "terminal": "anna-phone" },
        })
    }

    fn read_text(text: &str) -> Read {
        let text = Some(Bytes::copy_from_slice(text.as_bytes()));
        read(Line { number: 7, text })
    }

    #[test]
    fn an_order_is_read_with_and_without_what_it_may_leave_out() {
        let least = read_text(&sample().to_string()).order.expect("an order");
        assert_eq!(least.reference, "a-1");
        assert_eq!(least.spec.functions.len(), 2);
        assert!(least.spec.region.is_none() && least.spec.max_uses.is_empty());
        let mut most = sample();
        most["region"] = json!({ "circle": { "lat": 1.5, "lon": 2.0, "radius_m": 500 } });
        most["max_uses"] = json!({ "3": 10 });
        most["signing"] = json!("each");
        most["ref"] = json!("\u{e4} \"quoted\"");
        let most = read_text(&most.to_string()).order.expect("an order");
        assert_eq!(most.spec.max_uses, [(FunctionRef::Code(3), 10)]);
        assert_eq!(most.reference, "\u{e4} \"quoted\"");
        assert!(most.spec.region.is_some() && most.digest != least.digest);
    }

    #[test]
    fn what_is_wrong_is_named_and_so_is_the_order() {
        let change = |name: &str, value: Value| {
            let mut changed = sample();
            changed[name] = value;
            changed.to_string()
        };
        for (text, field) in [
            (change("vehicle", json!("a b")), "vehicle"),
            (change("functions", json!([true])), "functions[0]"),
            (change("functions", json!([70_000])), "functions[0]"),
            (change("not_after", json!(5)), "not_after"),
            (change("recipient", json!(["anna", "p"])), "recipient"),
            (
                change("recipient", json!({ "identity": "anna" })),
                "recipient",
            ),
            (
                change("recipient", json!({ "identity": "", "terminal": "p" })),
                "recipient.identity",
            ),
            (change("signing", json!("twice")), "signing"),
            (change("pin", json!(true)), "pin"),
            (change("region", json!({})), "region"),
        ] {
            let read = read_text(&text);
            assert_eq!(
                (read.line, read.reference.as_deref()),
                (7, Some("a-1")),
                "{text}"
            );
            let refusal = read.order.expect_err("a refusal");
            assert_eq!(refusal.field.as_deref(), Some(field), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_read_is_not_shown() {
        let twice = r#"{"ref":"a","ref":"b"}"#;
        let long = json!({ "ref": "r".repeat(129) }).to_string();
        for text in [
            "",
            "{",
            "[]",
            "\"ref\"",
            r#"{"ref":5}"#,
            twice,
            &long,
            r#"{"ref":""}"#,
        ] {
            let read = read_text(text);
            assert!(read.order.is_err() && read.reference.is_none(), "{text}");
        }
        let read = read(Line {
            number: 1,
            text: None,
        });
        assert!(read.order.is_err() && read.reference.is_none());
    }
}
