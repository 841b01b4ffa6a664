//! The refusal table: every way Fob says no, with its stable code.
//!
//! A refusal is a decision, not a fault. One table gives code, title, metric label and log field;
//! HTTP status codes are `http/problem.rs`'s alone.

use std::borrow::Cow;
use std::fmt;

macro_rules! refusals {
    ($($variant:ident $code:literal $title:literal)*) => {
        /// The stable code of a refusal, part of the public contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalCode {
            $(#[doc = concat!("`", $code, "`: ", $title)] $variant,)*
        }

        impl RefusalCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as clients, metrics and logs see it.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One short sentence for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

refusals! {
    Malformed "malformed" "The request is not of the form this call takes"
    CodeSetMalformed "code_set_malformed" "This is not a code set in its canonical form"
    Unauthenticated "unauthenticated" "The caller did not prove who it is"
    Forbidden "forbidden" "The caller may not do this"
    TerminalMismatch "terminal_mismatch" "This terminal may not redeem this code set"
    RecipientMismatch "recipient_mismatch" "This code set is meant for somebody else"
    IdentitySuspended "identity_suspended" "This identity is suspended"
    IdentityHeld "identity_held" "This identity gets no keys for now"
    LicenceMissing "licence_missing" "A driving licence is missing"
    LicenceExpired "licence_expired" "A driving licence has expired"
    AuthorizationSuspended "authorization_suspended" "This authorization is suspended"
    StepUpRequired "step_up_required" "This redemption is asked for more than the code set"
    ContextRefused "context_refused" "The fleet's rules refuse a redemption like this one"
    HookRefused "hook_refused" "Whom the fleet has asked refuses"
    HookUnavailable "hook_unavailable" "Whom the fleet has asked does not answer"
    PinRequired "pin_required" "This code set asks for its PIN"
    PinWrong "pin_wrong" "The PIN is wrong"
    PinLocked "pin_locked" "Too many wrong PINs: this code set is locked"
    NotFound "not_found" "There is no such object"
    UnknownVehicle "unknown_vehicle" "The fleet has no such vehicle"
    UnknownFunction "unknown_function" "The fleet has no such function"
    UnknownIdentity "unknown_identity" "The fleet has no such identity"
    CodeSetUnknown "code_set_unknown" "There is no such code set"
    CodeSetRedeemed "code_set_redeemed" "This code set has been redeemed"
    CommandReplayed "command_replayed" "Another request has used this identifier"
    CodeSetExpired "code_set_expired" "This code set has expired"
    CodeSetCancelled "code_set_cancelled" "This code set has been cancelled"
    IdentityOwnsVehicles "identity_owns_vehicles" "This identity owns vehicles"
    RegisteredOtherwise "registered_otherwise" "The fleet has one of this id, and not as described"
    RequestInvalid "request_invalid" "This request of a borrower does not hold"
    RequestExpired "request_expired" "This request of a borrower has expired"
    RequestAnswered "request_answered" "This request of a borrower has been answered"
    VersionConflict "version_conflict" "The object has changed meanwhile"
    FunctionNotOnVehicle "function_not_on_vehicle" "This vehicle does not have that function"
    ProofInvalid "proof_invalid" "The proof of the terminal's key does not hold"
    RateLimited "rate_limited" "Too many requests in too short a time"
    QuotaExceeded "quota_exceeded" "The fleet has had its keys for today"
    IssuingFrozen "issuing_frozen" "Issuing is frozen"
    Busy "busy" "The server is at its limit"
    HsmUnavailable "hsm_unavailable" "The HSM cannot sign at the moment"
    StoreUnavailable "store_unavailable" "The store cannot commit at the moment"
    ShuttingDown "shutting_down" "The server is shutting down"
}

/// A decision to say no: the code, and what helps the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which refusal.
    pub code: RefusalCode,
    /// What exactly, and what to do next; never a secret.
    pub detail: Option<Cow<'static, str>>,
    /// The request's field at fault, as a JSON name or path.
    pub field: Option<Cow<'static, str>>,
    /// Seconds after which the same request may succeed.
    pub retry_after_s: Option<u32>,
    /// What is asked for beyond what was given: any of these is enough.
    pub ways: &'static [&'static str],
}

impl Refusal {
    /// A refusal with nothing but its code.
    pub const fn new(code: RefusalCode) -> Self {
        Self {
            code,
            detail: None,
            field: None,
            retry_after_s: None,
            ways: &[],
        }
    }

    /// A `malformed` that names the field and says what is wrong with it.
    pub fn malformed(
        field: impl Into<Cow<'static, str>>,
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(RefusalCode::Malformed).field(field).detail(why)
    }

    /// Says what exactly is wrong.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says what would be enough.
    #[must_use]
    pub const fn ways(mut self, ways: &'static [&'static str]) -> Self {
        self.ways = ways;
        self
    }

    /// Says when to try again, in seconds.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl From<RefusalCode> for Refusal {
    fn from(code: RefusalCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.code(), self.code.title())?;
        if let Some(field) = &self.field {
            write!(f, " ({field})")?;
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_spelled_alike() {
        let mut codes: Vec<_> = RefusalCode::ALL.iter().map(|code| code.code()).collect();
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), RefusalCode::ALL.len());
    }
}
