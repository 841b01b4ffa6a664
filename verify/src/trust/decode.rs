//! Reading trust lists.

use super::{ENTRIES_MAX, Entry, TRUST_LEN_MAX, TYP, label};
use crate::cbor::Reader;
use crate::key::ISSUER_LEN_MAX;
use crate::sign1::Sign1;
use crate::{Algorithm, IssuerKey, KID_LEN, Refusal, Verified, Verifier};

/// A trust list, over the bytes it was read from.
///
/// It keeps an index of `kid` and place for each entry and reads an entry
/// again when asked for it, so it takes less than 2 KiB whatever the number
/// of entries.
#[derive(Clone, Copy, Debug)]
pub struct TrustList<'a> {
    issuer: &'a str,
    expires: u64,
    issued_at: u64,
    version: u32,
    root: IssuerKey,
    next_root: Option<IssuerKey>,
    index: [Slot<'a>; ENTRIES_MAX],
    count: usize,
}

/// Where an entry stands: `entry` starts at it and runs on to the end of the
/// claims.
#[derive(Clone, Copy, Debug)]
struct Slot<'a> {
    kid: [u8; KID_LEN],
    entry: &'a [u8],
}

/// Reads a trust list and checks that one of these roots signed it and that
/// it has not expired at `now`.
///
/// `roots` are the keys a car accepts lists from: the root it holds and, while
/// the list it holds names one, the next root. Once a list signed by the next
/// root has been taken, that root is the one the car holds
/// ([`TrustList::root`]).
///
/// The signature is checked before the claims are read, so of a list that no
/// root signed only the header costs anything.
///
/// # Errors
/// What of the form or the limits refuses it; [`Refusal::UnknownRoot`],
/// [`Refusal::AlgorithmMismatch`], [`Refusal::BadSignature`],
/// [`Refusal::DuplicateIssuer`], [`Refusal::TrustListExpired`].
pub fn verify<'a>(
    bytes: &'a [u8],
    roots: &[IssuerKey],
    now: u64,
    verifier: &impl Verifier,
) -> Result<Verified<TrustList<'a>>, Refusal> {
    let envelope = Sign1::decode(bytes, TRUST_LEN_MAX, TYP, true)?;
    let root = *roots
        .iter()
        .find(|root| envelope.kid == Some(root.kid()))
        .ok_or(Refusal::UnknownRoot)?;
    if root.algorithm() != envelope.algorithm {
        return Err(Refusal::AlgorithmMismatch);
    }
    if !envelope.holds(root.public(), verifier) {
        return Err(Refusal::BadSignature);
    }
    let list = TrustList::read(envelope.claims, root)?;
    list.check_time(now)?;
    Ok(Verified::mark(list))
}

impl<'a> TrustList<'a> {
    /// The issuer's name.
    #[must_use]
    pub const fn issuer(&self) -> &'a str {
        self.issuer
    }

    /// The version; a car takes only higher ones.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// When the list was made, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// The first second at which the list is void.
    #[must_use]
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// The root that signed this list.
    #[must_use]
    pub const fn root(&self) -> &IssuerKey {
        &self.root
    }

    /// The root that may sign lists after this one.
    #[must_use]
    pub const fn next_root(&self) -> Option<&IssuerKey> {
        self.next_root.as_ref()
    }

    /// The entry of this issuer key.
    #[must_use]
    pub fn issuer_for(&self, kid: &[u8; KID_LEN]) -> Option<Entry> {
        let slot = self.slots().iter().find(|slot| slot.kid == *kid)?;
        slot.read()
    }

    /// The entry of an issuer key of this algorithm, if it is believed for
    /// what was issued at `issued_at`.
    pub(crate) fn entry_for(
        &self,
        kid: &[u8; KID_LEN],
        algorithm: Algorithm,
        issued_at: u64,
    ) -> Result<Entry, Refusal> {
        let entry = self.issuer_for(kid).ok_or(Refusal::UnknownIssuer)?;
        if entry.key.algorithm() != algorithm {
            return Err(Refusal::AlgorithmMismatch);
        }
        if !entry.covers(issued_at) {
            return Err(Refusal::OutsideIssuerWindow);
        }
        Ok(entry)
    }

    /// Whether an issuer key on this list signed the envelope, whose claims
    /// say `issued_at`, while it was believed.
    pub(crate) fn check_signed(
        &self,
        envelope: &Sign1<'_>,
        issued_at: u64,
        verifier: &impl Verifier,
    ) -> Result<(), Refusal> {
        let kid = envelope.kid.ok_or(Refusal::UnexpectedLabel)?;
        let entry = self.entry_for(&kid, envelope.algorithm, issued_at)?;
        if envelope.holds(entry.key.public(), verifier) {
            Ok(())
        } else {
            Err(Refusal::BadSignature)
        }
    }

    /// Every entry, in the order of the list.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.slots().iter().filter_map(Slot::read)
    }

    /// Whether the list may still be used at `now`.
    ///
    /// # Errors
    /// [`Refusal::TrustListExpired`].
    pub const fn check_time(&self, now: u64) -> Result<(), Refusal> {
        if now < self.expires {
            Ok(())
        } else {
            Err(Refusal::TrustListExpired)
        }
    }

    /// Whether a car that holds a list of version `held` takes this one.
    ///
    /// # Errors
    /// [`Refusal::TrustListNotNewer`].
    pub const fn check_newer_than(&self, held: u32) -> Result<(), Refusal> {
        if self.version > held {
            Ok(())
        } else {
            Err(Refusal::TrustListNotNewer)
        }
    }

    fn slots(&self) -> &[Slot<'a>] {
        self.index.get(..self.count).unwrap_or(&[])
    }

    fn read(claims: &'a [u8], root: IssuerKey) -> Result<Self, Refusal> {
        let mut reader = Reader::new(claims, TRUST_LEN_MAX)?;
        reader.map_of(4)?;
        reader.label(label::ISS)?;
        let issuer = reader.text(1, ISSUER_LEN_MAX)?;
        reader.label(label::EXP)?;
        let expires = reader.time()?;
        reader.label(label::IAT)?;
        let issued_at = reader.time()?;
        reader.label(label::TRUST)?;
        let pairs = reader.map()?;
        reader.label(label::VERSION)?;
        let version = reader.uint32()?;
        reader.label(label::ENTRIES)?;
        let (index, count) = read_entries(&mut reader)?;
        let next_root = match pairs {
            2 => None,
            3 => {
                reader.label(label::NEXT_ROOT)?;
                Some(IssuerKey::read(&mut reader)?)
            }
            _ => return Err(Refusal::UnexpectedLabel),
        };
        reader.end()?;
        if issued_at >= expires {
            return Err(Refusal::OutOfBounds);
        }
        Ok(Self {
            issuer,
            expires,
            issued_at,
            version,
            root,
            next_root,
            index,
            count,
        })
    }
}

fn read_entries<'a>(reader: &mut Reader<'a>) -> Result<([Slot<'a>; ENTRIES_MAX], usize), Refusal> {
    let count = reader.array(0, ENTRIES_MAX)?;
    let empty = Slot {
        kid: [0; KID_LEN],
        entry: &[],
    };
    let mut index = [empty; ENTRIES_MAX];
    for at in 0..count {
        let entry = reader.rest();
        let kid = read_entry(reader)?.key.kid();
        let (before, here) = index.split_at_mut(at);
        if before.iter().any(|slot| slot.kid == kid) {
            return Err(Refusal::DuplicateIssuer);
        }
        if let Some(slot) = here.first_mut() {
            *slot = Slot { kid, entry };
        }
    }
    Ok((index, count))
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Refusal> {
    reader.map_of(3)?;
    reader.label(label::ENTRY_KEY)?;
    let key = IssuerKey::read(reader)?;
    reader.label(label::ENTRY_NOT_BEFORE)?;
    let not_before = reader.time()?;
    reader.label(label::ENTRY_NOT_AFTER)?;
    let not_after = reader.time()?;
    if not_before >= not_after {
        return Err(Refusal::OutOfBounds);
    }
    Ok(Entry {
        key,
        not_before,
        not_after,
    })
}

impl Slot<'_> {
    fn read(&self) -> Option<Entry> {
        let mut reader = Reader::new(self.entry, TRUST_LEN_MAX).ok()?;
        read_entry(&mut reader).ok()
    }
}
