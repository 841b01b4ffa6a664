//! Identifiers: 16-byte ids the server makes (UUIDv7, RFC 9562) and names others give.
//!
//! An id of a virtual key is a pure function of its bundle's id, so a key leads back to its
//! bundle without an index: see [`BundleId::key`].

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::refusal::{Refusal, RefusalCode};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The 16 bytes, in network order.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads the hyphenated or plain hexadecimal form.
            pub fn parse(text: &str) -> Option<Self> {
                Uuid::try_parse(text).ok().map(|uuid| Self(uuid.into_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid_id!(
    /// A fleet, the tenant.
    FleetId
);
uuid_id!(
    /// An authorization, and the code set that stands for it while it is open.
    AuthorizationId
);
uuid_id!(
    /// A bundle; outlives changes.
    BundleId
);
uuid_id!(
    /// One virtual key (claim 7, `cti`).
    KeyId
);
uuid_id!(
    /// A bearer token's public handle, for listing and revoking it.
    TokenId
);

/// Issues of one bundle that can be told apart: versions run from 1 to this.
pub const VERSION_MAX: u32 = 0x0fff;

/// Makes a UUIDv7 from a Unix time in milliseconds and ten random bytes (RFC 9562 §5.7).
pub fn uuid_v7(unix_ms: u64, random: [u8; 10]) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&random);
    id[6] = 0x70 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    id
}

impl BundleId {
    /// Makes a bundle's id from a Unix time in milliseconds and the 46 low bits of `unique`.
    ///
    /// `rand_a` (12 bits) and the last 16 bits of `rand_b` are left zero: [`BundleId::key`] fills
    /// them. The caller sees to it that `unique` is not repeated within a millisecond.
    pub fn new(unix_ms: u64, unique: u64) -> Self {
        let mut random = [0; 10];
        random[2..8].copy_from_slice(&(unique & ((1 << 46) - 1)).to_be_bytes()[2..]);
        Self(uuid_v7(unix_ms, random))
    }

    /// The id of the key for `function`, as issued at `version` (1 to [`VERSION_MAX`]).
    pub fn key(&self, version: u32, function: u16) -> KeyId {
        let mut id = self.0;
        id[6] = 0x70 | (version >> 8) as u8 & 0x0f;
        id[7] = version as u8;
        id[14..].copy_from_slice(&function.to_be_bytes());
        KeyId(id)
    }
}

impl KeyId {
    /// The function this key is for.
    pub const fn function(&self) -> u16 {
        u16::from_be_bytes([self.0[14], self.0[15]])
    }

    /// The bundle this key belongs to.
    pub fn bundle(&self) -> BundleId {
        let mut id = self.0;
        id[6] = 0x70;
        id[7] = 0;
        id[14..].fill(0);
        BundleId(id)
    }
}

/// An epoch, named by its issuing key's `kid`: the first 8 bytes of the SHA-256 COSE Key
/// Thumbprint (RFC 9679).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochId(pub [u8; 8]);

impl EpochId {
    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most characters such a name may have.
            pub const LEN_MAX: usize = $max;

            /// Checks length and alphabet.
            ///
            /// # Errors
            /// `malformed`, naming the field.
            pub fn parse(text: &str) -> Result<Self, Refusal> {
                let fits = (1..=Self::LEN_MAX).contains(&text.len());
                let clean = text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || concat!("-_.", $extra).as_bytes().contains(&b));
                if fits && clean {
                    return Ok(Self(text.into()));
                }
                Err(Refusal::new(RefusalCode::Malformed)
                    .field($field)
                    .detail(concat!(
                        "the ", $field, " is 1 to ", stringify!($max),
                        " characters of A-Z a-z 0-9 - _ . ", $extra
                    )))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// A fleet's name, unique on the server.
    FleetName, "fleet", 32, ""
);
name!(
    /// A vehicle within its fleet: VIN or an opaque id.
    VehicleId, "vehicle", 32, ""
);
name!(
    /// A person or back end within its fleet.
    IdentityId, "identity", 64, "@+:~"
);
name!(
    /// A device within its fleet.
    TerminalId, "terminal", 64, "@+:~"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_back_to_its_bundle() {
        let bundle = BundleId::new(1_790_000_000_123, 0x2abc_dead_beef);
        for (version, function) in [(1, 1), (VERSION_MAX, u16::MAX), (256, 300)] {
            let key = bundle.key(version, function);
            assert_eq!(key.bundle(), bundle);
            let uuid = Uuid::from_bytes(key.0);
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        }
        assert_ne!(bundle.key(1, 2), bundle.key(2, 2));
        assert_ne!(bundle.key(1, 2), bundle.key(1, 3));
    }

    #[test]
    fn names_refuse_what_is_outside_their_alphabet() {
        assert!(VehicleId::parse("WVWZZZ1JZXW000001").is_ok());
        for bad in ["", "a b", "ä", "x/y", &"x".repeat(33)] {
            assert!(VehicleId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(IdentityId::parse("anna@example.org").is_ok());
    }

    #[test]
    fn epoch_ids_are_sixteen_hex_digits() {
        let id = EpochId([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!(EpochId::parse(&id.to_string()), Some(id));
        assert_eq!(EpochId::parse("+123456789abcdef"), None);
    }
}
