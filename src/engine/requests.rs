//! A borrower's request: what a terminal asks for, signed with its own key, as one text that any
//! messenger carries. Floor 3.
//!
//! The server keeps none of it until somebody with the right to do so authorizes what is asked for.
//! Whoever holds the text learns nothing from it but what the terminal has written: no vehicle, no
//! fleet and no function is looked up before the one who answers is known. Answered, it is kept
//! beside the authorization, and never answers again.

use std::sync::Arc;

use fob_verify::HolderKey;
use serde::Deserialize;

use super::authenticate::borrowers_scope;
use super::book::FleetBook;
use super::jws::{CLOCK_SKEW_MAX_S, Unverified};
use super::outcome::Outcome;
use crate::domain::function::{FUNCTIONS_MAX, FunctionRef};
use crate::domain::json::object;
use crate::domain::time::Time;
use crate::domain::{
    Authorization, FleetName, FunctionCode, IdentityId, Refusal, RefusalCode, Status, Terminal,
    UnixTime, VehicleId,
};
use crate::store::AmendRequest;

/// The `typ` of a borrower's request.
pub const REQUEST_TYP: &str = "fob-request+jwt";

/// The longest a request may hold, in seconds from `iat` to `exp`. What was answered is kept longer
/// than that.
pub const REQUEST_LIFETIME_MAX_S: u64 = 7 * 86_400;

/// What a terminal asks for: signed, in time, and compared with nothing yet.
#[derive(Clone, Debug)]
pub struct BorrowRequest {
    /// The name of the fleet it asks.
    pub fleet: FleetName,
    /// Who asks.
    pub identity: IdentityId,
    /// The key of the terminal that asks, which the keys are to be bound to.
    pub key: HolderKey,
    /// The vehicle.
    pub vehicle: VehicleId,
    /// Its functions.
    pub functions: Vec<FunctionRef>,
    /// From when.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
    /// Until when it may be answered.
    pub expires: UnixTime,
    made_at: UnixTime,
    jti: String,
    text: String,
}

#[derive(Deserialize)]
struct RequestClaims {
    /// Who asks.
    iss: String,
    /// The server's `public_url`.
    aud: String,
    iat: UnixTime,
    exp: UnixTime,
    jti: String,
    #[serde(deserialize_with = "object")]
    request: RequestBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestBody {
    fleet: String,
    vehicle: String,
    functions: Vec<FunctionRef>,
    not_before: Time,
    not_after: Time,
}

impl BorrowRequest {
    /// Reads a request as it was handed on, for the server whose `public_url` is `audience`.
    ///
    /// # Errors
    /// `request_invalid`, saying what does not hold.
    pub fn read(text: &str, audience: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let unverified = Unverified::parse(text, REQUEST_TYP).map_err(invalid)?;
        let key = unverified.jwk().map_err(invalid)?;
        let claims: RequestClaims = unverified.verify(&key).map_err(invalid)?;
        let RequestClaims {
            iss,
            aud,
            iat,
            exp,
            jti,
            request,
        } = claims;
        if aud != audience {
            return Err(invalid("its aud is not this server's public_url"));
        }
        if exp <= iat || exp - iat > REQUEST_LIFETIME_MAX_S {
            return Err(invalid("its exp is not 1 to 604800 seconds after its iat"));
        }
        if !(1..=128).contains(&jti.len()) {
            return Err(invalid("its jti is not 1 to 128 characters"));
        }
        if !(1..=FUNCTIONS_MAX).contains(&request.functions.len()) {
            return Err(invalid("it names no functions, or more than 64"));
        }
        let (not_before, not_after) = (request.not_before.0, request.not_after.0);
        if not_after <= not_before {
            return Err(invalid("its not_after is not later than its not_before"));
        }
        Ok(Self {
            fleet: FleetName::parse(&request.fleet).map_err(|_| invalid("its fleet is no name"))?,
            identity: IdentityId::parse(&iss).map_err(|_| invalid("its iss is no identity"))?,
            vehicle: VehicleId::parse(&request.vehicle)
                .map_err(|_| invalid("its vehicle is no id"))?,
            functions: request.functions,
            key,
            not_before,
            not_after,
            expires: exp.min(not_after),
            made_at: iat,
            jti,
            text: text.into(),
        })
    }

    /// Whether it may be answered at `now`.
    ///
    /// # Errors
    /// `request_expired`; `request_invalid` for one from the future.
    pub fn check_time(&self, now: UnixTime) -> Result<(), Refusal> {
        if self.made_at > now.saturating_add(CLOCK_SKEW_MAX_S) {
            return Err(invalid("its iat lies in the future"));
        }
        if self.expires <= now {
            return Err(Refusal::new(RefusalCode::RequestExpired)
                .field("request")
                .detail("have the terminal sign a new one"));
        }
        Ok(())
    }

    /// Whether it is still known to be answered for as long as it may be: what is over is kept for
    /// `retain_for_s`.
    ///
    /// # Errors
    /// `request_invalid`.
    pub(super) fn check_remembered(&self, now: UnixTime, retain_for_s: u64) -> Result<(), Refusal> {
        if self.expires > now.saturating_add(retain_for_s) {
            return Err(invalid(
                "it may be answered for longer than this server remembers: have the terminal sign \
                 one that expires sooner",
            ));
        }
        Ok(())
    }

    /// Whether `drafted` answers it: for this fleet's vehicle, and with nothing that was not asked.
    ///
    /// # Errors
    /// `request_invalid`, naming what is other than asked.
    pub(super) fn check_answered_by(
        &self,
        fleet: &FleetBook,
        drafted: &Authorization,
    ) -> Result<(), Refusal> {
        if self.fleet != fleet.fleet.name {
            return Err(invalid("it asks another fleet"));
        }
        if self.vehicle != drafted.vehicle {
            return Err(invalid("it asks for another vehicle").field("vehicle"));
        }
        let rules = fleet.ruled.rules();
        let (preset, others) = rules.preset_of(&self.functions)?;
        let preset = preset.map_or(&[][..], |preset| &preset.functions);
        let others = match others.is_empty() {
            true => Vec::new(),
            false => fleet.catalogue().resolve(&others)?,
        };
        let asked = |code: &FunctionCode| others.contains(code) || preset.contains(code);
        if !drafted.functions.iter().all(asked) {
            return Err(invalid("it does not ask for all of these functions").field("functions"));
        }
        if drafted.window.not_before < self.not_before {
            return Err(invalid("it does not ask for keys so early").field("not_before"));
        }
        if drafted.window.not_after > self.not_after {
            return Err(invalid("it does not ask for keys so long").field("not_after"));
        }
        self.check_terminal(fleet)
    }

    /// An identity that has terminals asks with one of those, as it redeems.
    fn check_terminal(&self, fleet: &FleetBook) -> Result<(), Refusal> {
        let known = fleet.terminals_of(self.identity.as_str());
        let own = |one: &Arc<Terminal>| one.key == self.key && one.status == Status::Active;
        if known.is_empty() || known.iter().any(own) {
            return Ok(());
        }
        Err(Refusal::new(RefusalCode::TerminalMismatch)
            .field("request")
            .detail("it is signed by none of the terminals this identity redeems with"))
    }

    /// What is kept of it beside the authorization that answers it: no other may.
    pub(super) fn keep(&self, fleet: &FleetBook, now: UnixTime) -> AmendRequest {
        let (key, jti) = (self.key.thumbprint(), self.jti.as_bytes());
        AmendRequest {
            request: borrowers_scope(fleet.fleet.id, &key, jti, self.text.as_bytes()),
            command: Some(self.text.clone()),
            made_at: now,
            outcome: Outcome::nothing().encode(),
        }
    }
}

fn invalid(why: &'static str) -> Refusal {
    Refusal::new(RefusalCode::RequestInvalid)
        .field("request")
        .detail(format!("the request: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::authorization::tests::sample;

    /// Made at 1000, to be answered before 2000.
    fn asked() -> BorrowRequest {
        let authorization = sample();
        BorrowRequest {
            fleet: FleetName::parse("first").expect("a name"),
            identity: IdentityId::parse("anna").expect("an id"),
            key: crate::domain::bundle::tests::issued(&authorization).holder,
            vehicle: authorization.vehicle,
            functions: vec![FunctionRef::Code(1)],
            not_before: 1_500,
            not_after: 2_500,
            expires: 2_000,
            made_at: 1_000,
            jti: "one".into(),
            text: String::new(),
        }
    }

    #[test]
    fn a_request_is_answered_in_its_time_to_the_second() {
        use RefusalCode::{RequestExpired, RequestInvalid};
        for (now, expected) in [
            (1_000 - CLOCK_SKEW_MAX_S - 1, Err(RequestInvalid)),
            (1_000 - CLOCK_SKEW_MAX_S, Ok(())),
            (1_999, Ok(())),
            (2_000, Err(RequestExpired)),
        ] {
            let checked = asked().check_time(now).map_err(|it| it.code);
            assert_eq!(checked, expected, "{now}");
        }
    }

    #[test]
    fn a_request_is_remembered_for_as_long_as_it_may_be_answered() {
        for (retain_for_s, fits) in [(1_000, true), (999, false)] {
            let checked = asked().check_remembered(1_000, retain_for_s);
            assert_eq!(checked.is_ok(), fits, "{retain_for_s}");
        }
    }
}
