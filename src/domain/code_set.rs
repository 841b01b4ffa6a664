//! Code sets: the integrated function codes and a one-time secret, and how the secret and the
//! PIN are derived. Nothing redeemable is ever stored.

use aws_lc_rs::constant_time;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use fob_verify::code_set::{CODES_MAX, CodeSet as Parts, text_nonce};

use super::function::FunctionCode;
use super::id::{AuthorizationId, FleetId};
use super::refusal::{Refusal, RefusalCode};

/// Bytes of the key that secrets and PINs are derived from.
pub const CODE_SET_KEY_LEN: usize = 32;

/// A code set as a caller presents it: parsed, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSet {
    /// The authorization it stands for.
    pub id: AuthorizationId,
    parts: Parts,
    nonce: [u8; 32],
}

impl CodeSet {
    /// Reads the canonical text.
    ///
    /// # Errors
    /// `code_set_malformed` for anything but the canonical form.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let parts = Parts::decode(text).map_err(|why| {
            Refusal::new(RefusalCode::CodeSetMalformed)
                .field("code_set")
                .detail(why.to_string())
        })?;
        let nonce = text_nonce(text);
        Ok(Self {
            id: AuthorizationId(*parts.id()),
            parts,
            nonce,
        })
    }

    /// SHA-256 of the canonical text, which a proof carries as its nonce.
    pub fn nonce(&self) -> &[u8; 32] {
        &self.nonce
    }
}

/// The key that secrets and PINs are derived from: `D/code-set.key`.
pub struct CodeSetKey(hmac::Key);

impl CodeSetKey {
    /// Takes the key's bytes.
    pub fn new(key: &[u8; CODE_SET_KEY_LEN]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, key))
    }

    /// The canonical text of a code set.
    ///
    /// # Errors
    /// `malformed` where the functions are not 1 to 64, ascending and above zero.
    pub fn text(
        &self,
        fleet: FleetId,
        id: AuthorizationId,
        version: u32,
        functions: &[FunctionCode],
    ) -> Result<String, Refusal> {
        Parts::new(id.0, self.secret(fleet, id, version), functions)
            .map(|parts| parts.encode())
            .map_err(|why| Refusal::malformed("functions", why.to_string()))
    }

    /// Whether `claimed` is the code set of this authorization version, in constant time.
    pub fn matches(
        &self,
        claimed: &CodeSet,
        fleet: FleetId,
        version: u32,
        functions: &[FunctionCode],
    ) -> bool {
        let secret = self.secret(fleet, claimed.id, version);
        let same_secret =
            constant_time::verify_slices_are_equal(&secret, claimed.parts.secret()).is_ok();
        same_secret & same_codes(claimed.parts.codes(), functions)
    }

    /// The PIN of this authorization version: six digits.
    pub fn pin(&self, fleet: FleetId, id: AuthorizationId, version: u32) -> String {
        let tag = self.tag(b"pin", fleet, id, version);
        let mut first = [0; 8];
        first.copy_from_slice(&tag.as_ref()[..8]);
        format!("{:06}", u64::from_be_bytes(first) % 1_000_000)
    }

    /// Whether `claimed` is that PIN, in constant time.
    pub fn pin_matches(
        &self,
        claimed: &str,
        fleet: FleetId,
        id: AuthorizationId,
        version: u32,
    ) -> bool {
        let pin = self.pin(fleet, id, version);
        constant_time::verify_slices_are_equal(pin.as_bytes(), claimed.as_bytes()).is_ok()
    }

    fn secret(&self, fleet: FleetId, id: AuthorizationId, version: u32) -> [u8; 16] {
        let mut secret = [0; 16];
        secret.copy_from_slice(&self.tag(b"", fleet, id, version).as_ref()[..16]);
        secret
    }

    fn tag(&self, label: &[u8], fleet: FleetId, id: AuthorizationId, version: u32) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [label, fleet.bytes(), id.bytes(), &version.to_be_bytes()] {
            context.update(part);
        }
        context.sign()
    }
}

/// Looks at as many places whatever there are and wherever they differ.
fn same_codes(claimed: &[FunctionCode], functions: &[FunctionCode]) -> bool {
    // No function has the code 0, so what is shorter differs.
    let mut differ = [0; CODES_MAX];
    differ
        .iter_mut()
        .zip(claimed)
        .for_each(|(at, code)| *at = *code);
    differ
        .iter_mut()
        .zip(functions)
        .for_each(|(at, code)| *at ^= code);
    let bits = differ.iter().fold(0, |bits, at| bits | at);
    (bits == 0) & (functions.len() <= CODES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: FleetId = FleetId([1; 16]);
    const ID: AuthorizationId = AuthorizationId([2; 16]);

    #[test]
    fn what_was_handed_out_matches_and_nothing_else_does() {
        let key = CodeSetKey::new(&[3; 32]);
        let claimed =
            CodeSet::parse(&key.text(FLEET, ID, 1, &[1, 3]).expect("a text")).expect("canonical");
        assert!(key.matches(&claimed, FLEET, 1, &[1, 3]));
        assert!(!format!("{claimed:?}").contains("secret"));
        assert!(!key.matches(&claimed, FLEET, 2, &[1, 3]), "another version");
        assert!(
            !key.matches(&claimed, FleetId([9; 16]), 1, &[1, 3]),
            "another fleet"
        );
        for others in [&[1][..], &[1, 4], &[1, 3, 4], &[3, 1], &[]] {
            assert!(!key.matches(&claimed, FLEET, 1, others), "{others:?}");
        }
        assert!(
            !CodeSetKey::new(&[4; 32]).matches(&claimed, FLEET, 1, &[1, 3]),
            "another key"
        );
    }

    #[test]
    fn pins_have_six_digits_and_depend_on_the_version() {
        let key = CodeSetKey::new(&[3; 32]);
        let pin = key.pin(FLEET, ID, 1);
        assert!(pin.len() == 6 && pin.bytes().all(|b| b.is_ascii_digit()));
        assert!(key.pin_matches(&pin, FLEET, ID, 1));
        assert!(!key.pin_matches("", FLEET, ID, 1));
        assert_ne!(pin, key.pin(FLEET, ID, 2));
    }
}
