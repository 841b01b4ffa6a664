//! What is particular about a module, floor 2: a table, so that there is one path through the code.
//!
//! A [`Profile`] says what differs between modules that all follow PKCS#11. It is chosen by what
//! library and token call themselves, or named in the configuration. Whatever is in none of them
//! gets [`Profile::unknown`], which supposes nothing and tries.
//!
//! Deliberately not here: what a token is asked anyway (mechanisms, attributes, limits of
//! sessions), and what is demanded of every key whoever made it (`attributes`).

use cryptoki::context::Info;
use cryptoki::slot::TokenInfo;
use secrecy::{ExposeSecret, SecretString};

/// Ed25519, OID 1.3.101.112 (RFC 8410), in DER.
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// Ed25519 by the curve name PKCS#11 3.0 also allows: the PrintableString `edwards25519`.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// One kind of module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Words by which library or token say what they are.
    calls_itself: &'static [&'static str],
    /// It hands calls on to a module whose tokens say themselves what they are.
    forwards: bool,
    /// Every `C_GetFunctionList` gives the functions of the one instance, so the bare calls can
    /// be had.
    pub(super) one_instance: bool,
    /// Who makes a token where `C_InitToken` does not.
    pub(super) tokens_made_by: Option<&'static str>,
    /// A signature with a session's own copy of a key costs less than with the key in the token.
    pub(super) copies_pay: bool,
    /// More sessions than this gain nothing; `sessions = "auto"` opens no more.
    pub(super) sessions_of_use: usize,
    /// `CKA_LOCAL` is true of the keys that the token has generated, and of no others.
    pub(super) tells_local: bool,
    /// There are sessions that only read.
    pub(super) read_only_sessions: bool,
    /// Public keys can be seen without a login, as their maker wishes.
    pub(super) public_objects: bool,
    /// The form of `CKA_EC_POINT`.
    pub(super) points: PointForm,
    /// How it is told that a key is to be on Ed25519: the first form it takes.
    pub(super) ed25519_params: &'static [&'static [u8]],
    /// What a user PIN has to look like.
    pub(super) pins: PinForm,
}

/// How a point stands in `CKA_EC_POINT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PointForm {
    /// In a DER OCTET STRING, as PKCS#11 has it since version 2.40.
    Wrapped,
    /// One or the other, by version or settings of the module. Their lengths differ.
    WrappedOrBare,
}

/// What a user PIN has to look like, where a module has its own ideas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PinForm {
    /// Like anything.
    Any,
    /// `user:password`.
    UserAndPassword,
    /// The number of an authentication key in four hex digits, then its password.
    KeyAndPassword,
}

const UNKNOWN: Profile = Profile {
    name: "unknown",
    calls_itself: &[],
    forwards: true,
    one_instance: true,
    tokens_made_by: None,
    copies_pay: false,
    sessions_of_use: usize::MAX,
    tells_local: true,
    read_only_sessions: true,
    public_objects: true,
    points: PointForm::WrappedOrBare,
    ed25519_params: &[ED25519_OID, ED25519_NAME],
    pins: PinForm::Any,
};

/// Those that are known. The last four are from what their makers publish, and never were tried.
const KNOWN: [Profile; 9] = [
    Profile {
        name: "softhsm",
        calls_itself: &["SoftHSM"],
        forwards: false,
        // It opens and locks two files for every signature with a key in the token.
        copies_pay: true,
        points: PointForm::Wrapped,
        ed25519_params: &[ED25519_OID],
        ..UNKNOWN
    },
    Profile {
        name: "kryoptic",
        calls_itself: &["Kryoptic"],
        forwards: false,
        // It reads and decrypts a key in the token anew for every signature.
        copies_pay: true,
        ..UNKNOWN
    },
    Profile {
        name: "nss",
        calls_itself: &["Mozilla Foundation"],
        forwards: false,
        tokens_made_by: Some("`certutil -N` makes a database, and `init_args` names it as a token"),
        // It reads and decrypts a key in the token anew for every signature.
        copies_pay: true,
        // It is false of what was generated, and true of a key whose importer says so.
        tells_local: false,
        ..UNKNOWN
    },
    Profile {
        name: "tpm2-pkcs11",
        calls_itself: &["tpm2-software.github.io", "TPM2.0 Cryptoki"],
        forwards: false,
        // All sessions of a token share a lock and a connection.
        sessions_of_use: 2,
        points: PointForm::Wrapped,
        ..UNKNOWN
    },
    Profile {
        name: "p11-kit",
        calls_itself: &["PKCS#11 Kit"],
        // Each list is of an instance of its own, which nobody has initialised.
        one_instance: false,
        ..UNKNOWN
    },
    Profile {
        name: "luna",
        calls_itself: &["SafeNet", "Safenet", "Chrystoki"],
        forwards: false,
        tokens_made_by: Some("`lunacm` makes a partition and its roles"),
        ..UNKNOWN
    },
    Profile {
        name: "nshield",
        calls_itself: &["nCipher"],
        forwards: false,
        tokens_made_by: Some("`ppmk` and `createocs` make softcards and card sets"),
        ..UNKNOWN
    },
    Profile {
        name: "cloudhsm",
        calls_itself: &["CloudHSM", "Cavium", "Marvell"],
        forwards: false,
        tokens_made_by: Some("the cluster is the token, and `cloudhsm-cli` makes its users"),
        read_only_sessions: false,
        // It takes CKA_PRIVATE with its default value only, which is true.
        public_objects: false,
        pins: PinForm::UserAndPassword,
        ..UNKNOWN
    },
    Profile {
        name: "yubihsm2",
        calls_itself: &["Yubico"],
        forwards: false,
        tokens_made_by: Some("the device is the token, and `yubihsm-shell` makes its keys"),
        // It does one thing at a time.
        sessions_of_use: 2,
        pins: PinForm::KeyAndPassword,
        ..UNKNOWN
    },
];

impl Profile {
    /// What is supposed of a module that nothing is known of.
    pub(super) const fn unknown() -> &'static Self {
        &UNKNOWN
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|profile| profile.name == name)
    }

    /// The names there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|profile| profile.name)
    }

    /// That of a library, by what it says of itself.
    pub(super) fn of_library(info: Option<&Info>) -> &'static Self {
        info.map_or(Self::unknown(), |info| {
            Self::calling_itself(&[info.manufacturer_id(), info.library_description()])
        })
    }

    /// That of a token in a library of this profile: another's, where its calls are handed on.
    pub(super) fn of_token(&'static self, info: &TokenInfo) -> &'static Self {
        if !self.forwards {
            return self;
        }
        match Self::calling_itself(&[info.manufacturer_id(), info.model()]) {
            found if found.name == UNKNOWN.name => self,
            found => found,
        }
    }

    fn calling_itself(texts: &[&str]) -> &'static Self {
        let said = |word: &&str| texts.iter().any(|text| text.contains(*word));
        let mut known = KNOWN.iter();
        known
            .find(|profile| profile.calls_itself.iter().any(said))
            .unwrap_or(&UNKNOWN)
    }
}

impl PinForm {
    /// What is wrong with this PIN, so that a token need not be asked: each wrong one it is asked
    /// about brings it nearer to being locked.
    pub(super) fn offence(self, pin: &SecretString) -> Option<&'static str> {
        let pin = pin.expose_secret().as_bytes();
        match self {
            Self::Any => None,
            Self::UserAndPassword => match pin.iter().position(|byte| *byte == b':') {
                Some(at) if at > 0 && at + 1 < pin.len() => None,
                _ => Some("this HSM's PIN is `user:password`"),
            },
            Self::KeyAndPassword => match pin.split_at_checked(4) {
                Some((key, password))
                    if key.iter().all(u8::is_ascii_hexdigit) && password.len() >= 8 =>
                {
                    None
                }
                _ => Some("this HSM's PIN is four hex digits and a password of at least 8"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_profiles_and_no_others() {
        let names: Vec<_> = Profile::names().collect();
        for (at, name) in names.iter().enumerate() {
            assert_eq!(Profile::named(name).unwrap().name, *name);
            assert!(!names[..at].contains(name), "{name} is there twice");
        }
        assert_eq!(Profile::named("auto"), None);
        assert_eq!(Profile::named(Profile::unknown().name), None);
    }

    #[test]
    fn words_of_one_profile_are_not_those_of_another() {
        for profile in &KNOWN {
            for word in profile.calls_itself {
                let text = format!("the {word} of these days");
                assert_eq!(Profile::calling_itself(&["", &text]).name, profile.name);
            }
        }
        assert_eq!(Profile::calling_itself(&["", "Acme"]), Profile::unknown());
    }

    #[test]
    fn a_pin_that_cannot_be_one_is_seen_without_asking() {
        let offence = |form: PinForm, pin: &str| form.offence(&pin.into()).is_some();
        assert!(!offence(PinForm::Any, ":"));
        assert!(!offence(PinForm::UserAndPassword, "fob:a:b"));
        for wrong in ["fob", ":word", "fob:"] {
            assert!(offence(PinForm::UserAndPassword, wrong), "{wrong}");
        }
        assert!(!offence(PinForm::KeyAndPassword, "00aFpassword"));
        for wrong in ["password", "000gpassword", "0001passwor", "1"] {
            assert!(offence(PinForm::KeyAndPassword, wrong), "{wrong}");
        }
    }
}
