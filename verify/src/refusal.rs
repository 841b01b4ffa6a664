//! Why a verifier says no.
//!
//! One flat enum for the whole crate: comparable in tests, one octet in
//! memory, and with a stable code for logs and interfaces. A refusal never
//! carries bytes of the object it refuses.

use core::fmt;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)+) => {
        /// A precise reason for refusing an object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* $variant,)+
        }

        impl Refusal {
            /// Every refusal, in the order of its check.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable name of this refusal: lower case and underscores.
            /// It does not change between versions.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// One sentence for a human reader.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

refusals! {
    /// The object is larger than the format allows.
    TooLong = "too_long", "the object is larger than the format allows";
    /// The bytes end inside an item.
    Truncated = "truncated", "the bytes end inside an item";
    /// Bytes follow the object.
    TrailingBytes = "trailing_bytes", "bytes follow the object";
    /// An integer or length not in its shortest form, an indefinite length or
    /// a reserved head (RFC 8949 §4.2.1).
    NotDeterministic = "not_deterministic", "the encoding is not deterministic CBOR";
    /// An item of another CBOR type, tag or constant than the format has here.
    WrongType = "wrong_type", "an item is not of the type the format has here";
    /// A map label that is unknown, repeated, missing or out of order.
    UnexpectedLabel = "unexpected_label", "a map label is unknown, repeated, missing or out of order";
    /// An array of another length than the format has here.
    WrongCount = "wrong_count", "an array has a length the format does not allow";
    /// A text string that is not UTF-8.
    InvalidText = "invalid_text", "a text string is not UTF-8";
    /// A value outside the limits of the format.
    OutOfBounds = "out_of_bounds", "a value is outside the limits of the format";
    /// The `typ` header names another kind of object.
    WrongObject = "wrong_object", "the object is of another kind";
    /// An algorithm that is not on the allow list.
    UnknownAlgorithm = "unknown_algorithm", "the algorithm is not on the allow list";
    /// The receipt's `alg` or `kid` is not the key's own.
    ReceiptMismatch = "receipt_mismatch", "the receipt is not of the key's algorithm and issuer";
    /// A receipt of another kind of tree than RFC 9162's with SHA-256.
    UnknownTree = "unknown_tree", "the receipt is of another kind of tree";
    /// A tree of fewer than two leaves or of more than the format allows.
    TreeSize = "tree_size", "the tree has fewer than two leaves or too many";
    /// A leaf, or a run of leaves, that is not inside its tree.
    LeafIndex = "leaf_index", "the leaf is not in the tree";
    /// A path of another length than size and index of its leaf demand.
    PathLength = "path_length", "the path is not of the length that size and index demand";
    /// Coordinates that are no usable point of their curve.
    InvalidPoint = "invalid_point", "a public key is not a usable point of its curve";
    /// A code set without the prefix `FOB1`.
    WrongPrefix = "wrong_prefix", "the text does not start with FOB1";
    /// A character outside the alphabet of code sets.
    WrongCharacter = "wrong_character", "a character is outside the alphabet";
    /// Base32 text of an impossible length or with left-over bits that are
    /// not zero.
    TrailingBits = "trailing_bits", "the base32 text has left-over bits";
    /// The `kid` is not on the trust list.
    UnknownIssuer = "unknown_issuer", "the issuer key is not on the trust list";
    /// The trust list is not signed by a root this car knows.
    UnknownRoot = "unknown_root", "the trust list is signed by an unknown root";
    /// The header's `alg` is not the algorithm of the key that must have
    /// signed.
    AlgorithmMismatch = "algorithm_mismatch", "the algorithm is not the key's own";
    /// The issuer's name is not the one on the trust list.
    WrongIssuer = "wrong_issuer", "the issuer's name is not the trust list's";
    /// The key was issued outside the window of its issuer key.
    OutsideIssuerWindow = "outside_issuer_window", "the key was issued outside its issuer's window";
    /// Two entries of a trust list have the same `kid`.
    DuplicateIssuer = "duplicate_issuer", "the trust list names an issuer key twice";
    /// The trust list is past its end.
    TrustListExpired = "trust_list_expired", "the trust list has expired";
    /// The car holds this trust list or a newer one.
    TrustListNotNewer = "trust_list_not_newer", "the trust list is not newer than the one held";
    /// The stream in a status list does not inflate, or to more than a list
    /// may hold.
    BadCompression = "bad_compression", "the status list does not inflate within its limit";
    /// The status list is of another address than the one asked for.
    WrongStatusList = "wrong_status_list", "the status list is of another address";
    /// The car holds this status list or a newer one.
    StatusListNotNewer = "status_list_not_newer", "the status list is not newer than the one held";
    /// The car has taken this sync or a newer one.
    SyncNotNewer = "sync_not_newer", "the sync is not newer than the one taken last";
    /// The sync is past its end.
    SyncExpired = "sync_expired", "the sync has expired";
    /// The sync names a newer trust list than the car holds.
    TrustListBehind = "trust_list_behind", "the trust list is older than the sync says";
    /// The signature does not hold.
    BadSignature = "bad_signature", "the signature does not hold";
    /// The key's window has not begun.
    NotYetValid = "not_yet_valid", "the key is not valid yet";
    /// The key's window has ended.
    Expired = "expired", "the key has expired";
    /// The key is for another vehicle.
    WrongVehicle = "wrong_vehicle", "the key is for another vehicle";
    /// The key is of another fleet.
    WrongFleet = "wrong_fleet", "the key is of another fleet";
    /// The vehicle was reset after this key was issued.
    VehicleEpochSuperseded = "vehicle_epoch_superseded", "the vehicle was reset after this key was issued";
    /// A newer version of this bundle was seen.
    VersionSuperseded = "version_superseded", "a newer version of this bundle was seen";
    /// The car holds no status list of the key's address.
    StatusMissing = "status_missing", "the car has no status list for this key";
    /// The status list is no longer fresh, and has to be here.
    StatusListStale = "status_list_stale", "the status list is no longer fresh";
    /// The status list is past its end.
    StatusListExpired = "status_list_expired", "the status list has expired";
    /// The status list ends before the key's entry.
    StatusIndex = "status_index", "the key's entry is not on its status list";
    /// The key's entry has a value that nobody defined.
    UnknownStatus = "unknown_status", "the key's status is not one of those defined";
    /// The key was revoked.
    Revoked = "revoked", "the key was revoked";
    /// The key is suspended.
    Suspended = "suspended", "the key is suspended";
    /// The key has a region and the car does not know where it is.
    PositionUnknown = "position_unknown", "the key has a region and the position is unknown";
    /// The car is outside the key's region.
    OutsideRegion = "outside_region", "the car is outside the key's region";
    /// None of the key's recurring windows is open.
    OutsideWindow = "outside_window", "none of the key's recurring windows is open";
    /// Every use this key grants was used.
    UsesExhausted = "uses_exhausted", "every use of this key was used";
    /// The proof is for another key, function or challenge.
    ProofMismatch = "proof_mismatch", "the proof is for another key, function or challenge";
    /// The holder's signature does not hold.
    BadProof = "bad_proof", "the holder's signature does not hold";
    /// The car could not store what it must remember.
    MemoryFailed = "memory_failed", "the car could not store what it must remember";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::Refusal;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_plain() {
        let codes: HashSet<&str> = Refusal::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        for code in codes {
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
