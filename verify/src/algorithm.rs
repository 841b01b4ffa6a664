//! The three signature algorithms a verifier of Fob allows.

use core::fmt;

/// A signature algorithm of the allow list (RFC 9053, RFC 9864).
///
/// Nothing else verifies, whatever a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum Algorithm {
    /// ECDSA with SHA-256 over P-256 under its polymorphic name, COSE −7
    /// (RFC 9053 §2.1). In Fob the curve is always P-256.
    Es256 = -7,
    /// ECDSA with SHA-256 over P-256, fully specified, COSE −9 (RFC 9864
    /// §2.1). The default.
    Esp256 = -9,
    /// Ed25519, COSE −19 (RFC 9864 §2.2): the message itself is signed, not a
    /// digest of it.
    Ed25519 = -19,
}

impl Algorithm {
    /// The algorithm of a COSE `alg` value; `None` for every value not on the
    /// allow list.
    #[must_use]
    pub const fn from_cose(value: i64) -> Option<Self> {
        match value {
            -7 => Some(Self::Es256),
            -9 => Some(Self::Esp256),
            -19 => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// The value of this algorithm in a COSE `alg` header or key parameter.
    #[must_use]
    pub const fn cose(self) -> i64 {
        self as i64
    }

    /// The name in the IANA registry of COSE algorithms.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Esp256 => "ESP256",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// Whether the signature is ECDSA over P-256 (otherwise it is Ed25519).
    #[must_use]
    pub const fn is_p256(self) -> bool {
        !matches!(self, Self::Ed25519)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Algorithm;

    #[test]
    fn only_the_three_listed_values_are_known() {
        let known: std::vec::Vec<i64> = (-70_000..70_000)
            .filter(|v| Algorithm::from_cose(*v).is_some())
            .collect();
        assert_eq!(known, [-19, -9, -7]);
        for value in known {
            assert_eq!(Algorithm::from_cose(value).unwrap().cose(), value);
        }
    }
}
