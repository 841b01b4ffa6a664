//! The HSM, floor 2: the one place that speaks PKCS#11.
//!
//! Issuing keys and root keys are generated inside a token and never leave it.
//! This floor opens tokens, generates and checks keys, and signs batches of
//! messages over several sessions at once. Everything above sees the [`Signer`]
//! trait, [`KeyRef`]s and public keys; tokens are set up through [`Token`] and
//! [`init_token`].
//!
//! Deliberately not here: what is signed and when (`engine/`), which epoch a
//! key belongs to (`store/`), COSE (`fob-verify`), the clock (callers pass it
//! in), and software keys of any kind. There is no way to import a private key
//! and none to read one.
//!
//! How the files hang together: `module` loads a PKCS#11 library once per
//! process and `initialize`s it, `profile` says what is particular about it,
//! `token` finds or initialises a token in it, `keys` and `attributes` deal with
//! key objects, `template` with what new ones are asked to be. `pkcs11` is
//! [`Token`] itself; a `crew` of threads signs a `batch` in the sessions of
//! `session`, which `login` opens, and `recover` is what happens when the
//! sessions are lost, by the table of `codes`. `park` is about calls that do not
//! return, `refused` about PINs that were wrong. `fast` holds the bare calls, and
//! `bench` measures with them.

mod attributes;
mod batch;
mod bench;
mod check;
mod codes;
mod config;
mod crew;
mod custody;
mod error;
mod fast;
mod initialize;
mod keys;
mod leave;
mod login;
mod module;
mod park;
mod pin;
mod pkcs11;
mod point;
mod profile;
mod recover;
mod refused;
mod session;
mod softhsm;
mod status;
mod template;
mod token;

use std::fmt;

use fob_verify::Algorithm;

pub use attributes::KeyAttributes;
pub use bench::{Ceiling, CeilingRun, bench_ceiling};
pub use check::verify_signature;
pub use codes::Remedy;
pub use config::{CALL_TIMEOUT, SESSIONS_MAX, SessionCount, SessionKeyCopy, TokenConfig};
pub use custody::{Custody, TokenIdentity, Tokens};
pub use error::HsmError;
pub use keys::{GeneratedKey, KeyKind, TokenKey};
pub use leave::leave;
pub use park::parked_threads;
pub use pin::{random_pin, read_pin_file, write_pin_file};
pub use pkcs11::Token;
pub use profile::Profile;
pub use softhsm::{SoftHsm, softhsm_module};
pub use status::TokenStatus;
pub use token::init_token;

/// One issuing or root key in a token: its `CKA_ID` and how it signs.
///
/// A name, not a handle: it stays good over reconnects and restarts, and it is
/// what the store keeps for an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef {
    /// `CKA_ID`, 16 random bytes, the same on the private and the public half.
    pub id: [u8; 16],
    /// The algorithm the key is used with; a P-256 key may serve ES256 or ESP256.
    pub algorithm: Algorithm,
}

impl KeyRef {
    /// The `CKA_ID` as 32 lower-case hex digits, as other PKCS#11 tools print it.
    pub fn id_hex(&self) -> String {
        hex(&self.id)
    }
}

impl fmt::Debug for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRef({} {:?})", self.id_hex(), self.algorithm)
    }
}

/// A raw signature: r‖s for P-256, R‖S for Ed25519.
pub type Signature = [u8; 64];

/// Threads inside calls that are overdue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// How many.
    pub threads: usize,
    /// Whether none is left that could sign, nor one that could open new sessions.
    pub all: bool,
}

/// Who signs for the engine.
pub trait Signer: Send + Sync + 'static {
    /// Signs every message with `key`: one signature per message, in order, all
    /// or nothing.
    ///
    /// Hashing belongs to the algorithm: P-256 signs the SHA-256 of the message
    /// with raw `CKM_ECDSA`, Ed25519 gets the whole message with `CKM_EDDSA`.
    /// Blocks for as long as the HSM takes; call it from a thread that may wait.
    /// An empty batch is an empty answer. Signatures are not verified here.
    ///
    /// # Errors
    ///
    /// On any error no signature of the batch is given out, and the token's
    /// contents are as they were: the same call may be made again whenever
    /// [`HsmError::retryable`] says so.
    fn sign_all(&self, key: &KeyRef, messages: &[&[u8]]) -> Result<Vec<Signature>, HsmError>;

    /// Gets ready to sign with `key`, so that the first batch does not have to.
    ///
    /// # Errors
    ///
    /// Why the key cannot be used.
    fn prepare_key(&self, key: &KeyRef) -> Result<(), HsmError> {
        let _ = key;
        Ok(())
    }

    /// Threads inside a call that is overdue. Answers at once.
    fn parked(&self) -> Parked {
        Parked::default()
    }

    /// Lets go of the token, because nobody asks it for anything any more. Not left to whoever
    /// drops this last: that may be while the process ends, and a module that is being unloaded
    /// is not to be called.
    fn close(&self) {}

    /// How the token is, asked now: for `fob hsm status`.
    ///
    /// Never fails: a token that cannot be reached is a status with `up` false.
    fn status(&self) -> TokenStatus;
}

/// Lower-case hex, for ids in messages and logs.
fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
