//! Who may have keys at all: status, holds and driving licences.

use serde::{Deserialize, Serialize};

use super::Rules;
use crate::domain::function::{Catalogue, FunctionCode, FunctionRef};
use crate::domain::identity::{Identity, LICENCES_MAX, Status, is_licence_class};
use crate::domain::refusal::{Refusal, RefusalCode};
use crate::domain::time::{Time, UnixTime, Window};
use crate::domain::vehicle::Vehicle;

/// The most models one rule may name.
const MODELS_MAX: usize = 256;

/// Which functions need which licences, as written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceText {
    /// The functions, by name or code.
    pub functions: Vec<FunctionRef>,
    /// On vehicles of these models; of every model where empty or absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Licence classes, one of which is enough.
    pub classes: Vec<String>,
}

/// Which functions need which licences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenceRule {
    functions: Box<[FunctionCode]>,
    models: Box<[String]>,
    classes: Box<[String]>,
}

impl LicenceText {
    pub(super) fn check(&self, catalogue: &Catalogue) -> Result<LicenceRule, Refusal> {
        if self.models.len() > MODELS_MAX {
            return Err(Refusal::malformed("models", "at most 256 models"));
        }
        let classes = &self.classes;
        if !(1..=LICENCES_MAX).contains(&classes.len())
            || !classes.iter().all(|class| is_licence_class(class))
        {
            return Err(Refusal::malformed(
                "classes",
                "name 1 to 32 licence classes, each 1 to 8 letters and digits",
            ));
        }
        Ok(LicenceRule {
            functions: catalogue.resolve(&self.functions)?.into(),
            models: self.models.clone().into(),
            classes: classes.clone().into(),
        })
    }
}

impl LicenceRule {
    pub(super) fn asks_by_model(&self) -> bool {
        !self.models.is_empty()
    }

    /// Whether somebody who gets keys of `functions` on this model has to meet it.
    fn concerns(&self, model: &str, functions: &[FunctionCode]) -> bool {
        (self.models.is_empty() || self.models.iter().any(|one| one == model))
            && self
                .functions
                .iter()
                .any(|one| functions.binary_search(one).is_ok())
    }

    /// Until when `identity` meets it, as far as it does after `from`.
    fn met_until(&self, identity: &Identity, from: UnixTime) -> Result<UnixTime, Refusal> {
        let fit = identity
            .licences
            .iter()
            .filter(|one| self.classes.contains(&one.class));
        match fit.map(|one| one.expires).max() {
            Some(until) if until > from => Ok(until),
            Some(until) => Err(Refusal::new(RefusalCode::LicenceExpired)
                .field("identity")
                .detail(format!(
                    "the licence of class {} ends at {}, before the keys begin: have the fleet \
                     enter the renewed one",
                    self.classes.join(" or "),
                    Time(until)
                ))),
            None => Err(Refusal::new(RefusalCode::LicenceMissing)
                .field("identity")
                .detail(format!(
                    "this vehicle's functions need a licence of class {}: have the fleet enter it",
                    self.classes.join(" or ")
                ))),
        }
    }
}

/// Whether `identity` is suspended.
///
/// # Errors
/// `identity_suspended`.
pub fn check_status(identity: &Identity) -> Result<(), Refusal> {
    match identity.status {
        Status::Active => Ok(()),
        Status::Suspended => Err(RefusalCode::IdentitySuspended.into()),
    }
}

/// Whether the fleet holds keys back from `identity`.
///
/// # Errors
/// `identity_held`, saying because of what.
pub fn check_hold(identity: &Identity) -> Result<(), Refusal> {
    let Some(hold) = identity.hold else {
        return Ok(());
    };
    Err(Refusal::new(RefusalCode::IdentityHeld)
        .field("identity")
        .detail(format!(
            "held because of its {}: settle that with the fleet",
            hold.name()
        )))
}

/// Until when `identity` has the licences that keys of `functions` (ascending) on `vehicle` need:
/// keys end with them. `from` is when they begin, or now where that is later.
///
/// # Errors
/// `licence_missing`, `licence_expired`.
pub fn licensed_until(
    rules: &Rules,
    identity: &Identity,
    vehicle: &Vehicle,
    functions: &[FunctionCode],
    from: UnixTime,
) -> Result<UnixTime, Refusal> {
    rules
        .licences
        .iter()
        .filter(|rule| rule.concerns(&vehicle.model, functions))
        .try_fold(UnixTime::MAX, |until, rule| {
            Ok(until.min(rule.met_until(identity, from)?))
        })
}

/// Whether `identity` may get keys of `functions` (ascending) on `vehicle`, and until when.
///
/// # Errors
/// Those of [`check_status`], [`check_hold`] and [`licensed_until`], in this order.
pub fn eligible(
    rules: &Rules,
    identity: &Identity,
    vehicle: &Vehicle,
    functions: &[FunctionCode],
    from: UnixTime,
) -> Result<UnixTime, Refusal> {
    check_status(identity)?;
    check_hold(identity)?;
    licensed_until(rules, identity, vehicle, functions, from)
}

/// Whether `identity` would still get a key of `function` on `vehicle` that is good for `window`. A
/// key that would outlast a licence is not: what is signed cannot be shortened.
pub fn keeps(
    rules: &Rules,
    identity: &Identity,
    vehicle: &Vehicle,
    function: FunctionCode,
    window: Window,
    now: UnixTime,
) -> bool {
    let from = window.not_before.max(now);
    let licensed = licensed_until(rules, identity, vehicle, &[function], from);
    identity.hold.is_none() && licensed.is_ok_and(|until| until >= window.not_after)
}

#[cfg(test)]
mod tests {
    use super::super::RulesText;
    use super::*;
    use crate::domain::id::{FleetId, IdentityId, VehicleId};
    use crate::domain::identity::{Hold, Licence};

    const BEGINS: UnixTime = 1_000;

    fn rules(text: &str) -> Rules {
        let text = RulesText::read(text).expect("well-formed");
        text.check(&Catalogue::default(), 1).expect("rules")
    }

    fn identity(licences: &[(&str, UnixTime)]) -> Identity {
        let licence = |(class, expires): &(&str, UnixTime)| Licence {
            class: (*class).into(),
            expires: *expires,
        };
        Identity {
            fleet: FleetId([1; 16]),
            id: IdentityId::parse("anna").expect("an id"),
            status: Status::Active,
            hold: None,
            proved: None,
            licences: licences.iter().map(licence).collect(),
        }
    }

    fn vehicle(model: &str) -> Vehicle {
        Vehicle {
            fleet: FleetId([1; 16]),
            id: VehicleId::parse("V-1").expect("an id"),
            model: model.into(),
            functions: vec![1, 3],
            owner: None,
            key: None,
            epoch: 0,
            status: Status::Active,
        }
    }

    /// Starting needs a B, and on a lorry a C or a C1E beside it.
    const LORRIES: &str = r#"{"licences": [
        {"functions": ["engine.start"], "classes": ["B"]},
        {"functions": ["engine.start"], "models": ["Lorry"], "classes": ["C", "C1E"]}]}"#;

    #[test]
    fn licences_are_asked_by_function_and_model() {
        use RefusalCode::{LicenceExpired, LicenceMissing};
        let far = 9_000;
        for (model, functions, licences, expected) in [
            ("Car", &[1_u16][..], &[][..], Ok(UnixTime::MAX)),
            ("Car", &[1, 3], &[("B", far)], Ok(far)),
            ("Car", &[3], &[], Err(LicenceMissing)),
            ("Car", &[3], &[("C", far)], Err(LicenceMissing)),
            // At the edge, one second less, one second more.
            ("Car", &[3], &[("B", BEGINS)], Err(LicenceExpired)),
            ("Car", &[3], &[("B", BEGINS - 1)], Err(LicenceExpired)),
            ("Car", &[3], &[("B", BEGINS + 1)], Ok(BEGINS + 1)),
            // The longest of several that fit; the shortest of several that are needed.
            ("Car", &[3], &[("B", 2_000), ("B", 3_000)], Ok(3_000)),
            ("Lorry", &[3], &[("B", far)], Err(LicenceMissing)),
            ("Lorry", &[3], &[("B", far), ("C1E", 5_000)], Ok(5_000)),
            ("Lorry", &[3], &[("B", 4_000), ("C", 5_000)], Ok(4_000)),
            ("lorry", &[3], &[("B", far)], Ok(far)),
            (
                "Lorry",
                &[3],
                &[("B", far), ("C", BEGINS)],
                Err(LicenceExpired),
            ),
        ] {
            let found = eligible(
                &rules(LORRIES),
                &identity(licences),
                &vehicle(model),
                functions,
                BEGINS,
            );
            let code = found.map_err(|refusal| refusal.code);
            assert_eq!(code, expected, "{model} {functions:?} {licences:?}");
        }
    }

    #[test]
    fn a_key_is_kept_while_it_would_be_issued_as_it_is() {
        let (begins, ends) = (BEGINS, 5_000);
        let window = Window {
            not_before: begins,
            not_after: ends,
        };
        let keeps = |identity: &Identity, function, now| {
            let (rules, vehicle) = (rules(LORRIES), vehicle("Lorry"));
            keeps(&rules, identity, &vehicle, function, window, now)
        };
        for (b, c, kept) in [
            (ends, ends, true),
            (ends - 1, ends, false),
            (ends, ends - 1, false),
            (ends + 1, ends + 1, true),
        ] {
            let identity = identity(&[("B", b), ("C", c)]);
            assert_eq!(keeps(&identity, 3, begins), kept, "{b} {c}");
            assert_eq!(keeps(&identity, 3, begins + 100), kept, "later: {b} {c}");
            assert!(keeps(&identity, 1, begins), "nobody asks for it");
        }
        assert!(!keeps(&identity(&[("B", ends)]), 3, begins));
        let held = Identity {
            hold: Some(Hold::Payment),
            ..identity(&[("B", ends), ("C", ends)])
        };
        assert!(!keeps(&held, 3, begins) && !keeps(&held, 1, begins));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let ask = |licences: &[(&str, UnixTime)]| {
            let (rules, identity) = (rules(LORRIES), identity(licences));
            let refusal = eligible(&rules, &identity, &vehicle("Lorry"), &[3], BEGINS);
            refusal.expect_err("a refusal").to_string()
        };
        let missing = ask(&[("B", 9_000)]);
        assert!(missing.contains("class C or C1E: have the fleet enter it"));
        let expired = ask(&[("B", 999)]);
        assert!(
            expired.contains("ends at 1970-01-01T00:16:39Z"),
            "{expired}"
        );
        assert!(expired.contains("enter the renewed one"), "{expired}");
    }

    #[test]
    fn holds_and_suspensions_come_before_licences() {
        let ask = |identity: &Identity| {
            eligible(&Rules::default(), identity, &vehicle("Car"), &[3], BEGINS)
        };
        let free = identity(&[]);
        assert_eq!(ask(&free), Ok(UnixTime::MAX));
        for hold in Hold::ALL {
            let held = Identity {
                hold: Some(hold),
                ..free.clone()
            };
            let refusal = ask(&held).expect_err("a refusal");
            assert_eq!(refusal.code, RefusalCode::IdentityHeld);
            assert!(refusal.to_string().contains(hold.name()), "{refusal}");
        }
        let suspended = Identity {
            status: Status::Suspended,
            ..free
        };
        let refusal = ask(&suspended).expect_err("a refusal");
        assert_eq!(refusal.code, RefusalCode::IdentitySuspended);
    }
}
