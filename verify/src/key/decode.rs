//! Reading keys, and believing them.

use super::label::{self, fob};
use super::{
    Claims, FUNCTION_NAME_LEN_MAX, ISSUER_LEN_MAX, KEY_LEN_MAX, STATUS_URI_LEN_MAX, StatusRef, TYP,
    VEHICLE_LEN_MAX, leaf,
};
use crate::cbor::Reader;
use crate::receipt::Receipt;
use crate::region::Region;
use crate::sign1::{self, Sign1};
use crate::tree::Hash;
use crate::trust::TrustList;
use crate::window::Recurring;
use crate::{Algorithm, HolderKey, KID_LEN, PublicKey, Refusal, Verified, Verifier};

/// The first octet of a key signed in a tree: an array of three. One signed
/// alone begins with its tag.
const IN_TREE: u8 = 0x83;

/// A well-formed key whose signature nobody has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedKey<'a> {
    algorithm: Algorithm,
    kid: [u8; KID_LEN],
    claims: Claims<'a>,
    proof: Proof<'a>,
}

/// What a signature says about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof<'a> {
    /// One over the key itself.
    Each(Sign1<'a>),
    /// One over the root of a tree, and this leaf's way to it.
    Tree(Hash, Receipt<'a>),
}

impl Proof<'_> {
    fn holds(&self, key: &PublicKey, verifier: &impl Verifier) -> bool {
        match self {
            Self::Each(envelope) => envelope.holds(key, verifier),
            Self::Tree(leaf, receipt) => receipt.holds(*leaf, key, verifier),
        }
    }
}

impl<'a> SignedKey<'a> {
    /// Reads a key of at most [`KEY_LEN_MAX`] octets, of either form: its
    /// form, its header, its receipt if it has one, and every limit, but not
    /// its signature.
    ///
    /// # Errors
    /// What of the form or the limits refuses it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Refusal> {
        match bytes.first() {
            Some(&IN_TREE) => Self::decode_in_tree(bytes),
            _ => Self::decode_alone(bytes),
        }
    }

    /// `18([protected, {}, claims, signature])`.
    fn decode_alone(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let envelope = Sign1::decode(bytes, KEY_LEN_MAX, TYP, true)?;
        Ok(Self {
            algorithm: envelope.algorithm,
            kid: envelope.kid.ok_or(Refusal::UnexpectedLabel)?,
            claims: decode_claims(envelope.claims)?,
            proof: Proof::Each(envelope),
        })
    }

    /// `[protected, claims, receipt]`.
    fn decode_in_tree(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, KEY_LEN_MAX)?;
        reader.array(3, 3)?;
        let protected = reader.bytes(0, sign1::PROTECTED_LEN_MAX)?;
        let claims = reader.bytes(0, KEY_LEN_MAX)?;
        let receipt = Receipt::read(&mut reader)?;
        reader.end()?;
        let (algorithm, kid) = sign1::read_header(protected, TYP, true)?;
        let kid = kid.ok_or(Refusal::UnexpectedLabel)?;
        if (receipt.algorithm, receipt.kid) != (algorithm, kid) {
            return Err(Refusal::ReceiptMismatch);
        }
        let protected = protected.try_into().map_err(|_| Refusal::OutOfBounds)?;
        Ok(Self {
            algorithm,
            kid,
            claims: decode_claims(claims)?,
            proof: Proof::Tree(leaf(protected, claims), receipt),
        })
    }

    /// The algorithm its header names.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The issuer key its header names.
    #[must_use]
    pub const fn kid(&self) -> &[u8; KID_LEN] {
        &self.kid
    }

    /// The receipt of a key signed in a tree; `None` for one signed by itself.
    #[must_use]
    pub const fn receipt(&self) -> Option<&Receipt<'a>> {
        match &self.proof {
            Proof::Each(_) => None,
            Proof::Tree(_, receipt) => Some(receipt),
        }
    }

    /// What it claims, unverified.
    #[must_use]
    pub const fn unverified(&self) -> &Claims<'a> {
        &self.claims
    }

    /// Whether a trusted issuer signed this key while it was trusted: the key
    /// itself, or the root that its leaf and its path lead to.
    ///
    /// # Errors
    /// In this order: [`Refusal::UnknownIssuer`],
    /// [`Refusal::AlgorithmMismatch`], [`Refusal::WrongIssuer`],
    /// [`Refusal::OutsideIssuerWindow`], [`Refusal::BadSignature`].
    pub fn verify(
        &self,
        trust: &Verified<TrustList<'_>>,
        verifier: &impl Verifier,
    ) -> Result<Verified<Claims<'a>>, Refusal> {
        let entry = trust.issuer_for(&self.kid).ok_or(Refusal::UnknownIssuer)?;
        if entry.key.algorithm() != self.algorithm() {
            return Err(Refusal::AlgorithmMismatch);
        }
        if self.claims.issuer != trust.issuer() {
            return Err(Refusal::WrongIssuer);
        }
        if !entry.covers(self.claims.issued_at) {
            return Err(Refusal::OutsideIssuerWindow);
        }
        if !self.proof.holds(entry.key.public(), verifier) {
            return Err(Refusal::BadSignature);
        }
        Ok(Verified::mark(self.claims))
    }
}

fn decode_claims(octets: &[u8]) -> Result<Claims<'_>, Refusal> {
    let mut reader = Reader::new(octets, KEY_LEN_MAX)?;
    let claims = read_claims(&mut reader)?;
    reader.end()?;
    claims.check_limits()?;
    Ok(claims)
}

fn read_claims<'a>(reader: &mut Reader<'a>) -> Result<Claims<'a>, Refusal> {
    reader.map_of(10)?;
    reader.label(label::ISS)?;
    let issuer = reader.text(1, ISSUER_LEN_MAX)?;
    reader.label(label::AUD)?;
    let vehicle = reader.text(1, VEHICLE_LEN_MAX)?;
    reader.label(label::EXP)?;
    let expires = reader.time()?;
    reader.label(label::NBF)?;
    let not_before = reader.time()?;
    reader.label(label::IAT)?;
    let issued_at = reader.time()?;
    reader.label(label::CTI)?;
    let key_id = *reader.array_of()?;
    reader.label(label::CNF)?;
    reader.map_of(1)?;
    reader.label(label::CNF_COSE_KEY)?;
    let holder = HolderKey::read(reader)?;
    reader.label(label::SCOPE)?;
    let function_name = reader.text(1, FUNCTION_NAME_LEN_MAX)?;
    reader.label(label::STATUS)?;
    let status = read_status(reader)?;
    reader.label(label::FOB)?;
    let fob = read_fob(reader)?;
    Ok(Claims {
        issuer,
        vehicle,
        expires,
        not_before,
        issued_at,
        key_id,
        holder,
        function_name,
        status,
        function: fob.function,
        bundle: fob.bundle,
        version: fob.version,
        vehicle_epoch: fob.vehicle_epoch,
        region: fob.region,
        max_uses: fob.max_uses,
        fleet: fob.fleet,
        recurring: fob.recurring,
    })
}

fn read_status<'a>(reader: &mut Reader<'a>) -> Result<StatusRef<'a>, Refusal> {
    reader.map_of(1)?;
    reader.text_label(label::STATUS_LIST)?;
    reader.map_of(2)?;
    reader.text_label(label::STATUS_IDX)?;
    let index = reader.uint32()?;
    reader.text_label(label::STATUS_URI)?;
    let uri = reader.text(1, STATUS_URI_LEN_MAX)?;
    Ok(StatusRef { index, uri })
}

/// The private part of the claims.
struct Fob {
    function: u16,
    bundle: [u8; 16],
    version: u32,
    vehicle_epoch: u32,
    region: Option<Region>,
    max_uses: Option<u32>,
    fleet: [u8; 16],
    recurring: Option<Recurring>,
}

fn read_fob(reader: &mut Reader<'_>) -> Result<Fob, Refusal> {
    let pairs = reader.map()?;
    let mut optional = 0;
    reader.label(fob::FUNCTION)?;
    let function = u16::try_from(reader.uint()?).map_err(|_| Refusal::OutOfBounds)?;
    reader.label(fob::BUNDLE)?;
    let bundle = *reader.array_of()?;
    reader.label(fob::VERSION)?;
    let version = reader.uint32()?;
    reader.label(fob::VEHICLE_EPOCH)?;
    let vehicle_epoch = reader.uint32()?;
    let mut region = None;
    if reader.label_if(fob::REGION) {
        region = Some(Region::read(reader)?);
        optional += 1;
    }
    let mut max_uses = None;
    if reader.label_if(fob::MAX_USES) {
        max_uses = Some(reader.uint32()?);
        optional += 1;
    }
    reader.label(fob::FLEET)?;
    let fleet = *reader.array_of()?;
    let mut recurring = None;
    if pairs > 5 + optional {
        reader.label(fob::RECURRING)?;
        recurring = Some(Recurring::read(reader)?);
        optional += 1;
    }
    if pairs != 5 + optional {
        return Err(Refusal::UnexpectedLabel);
    }
    Ok(Fob {
        function,
        bundle,
        version,
        vehicle_epoch,
        region,
        max_uses,
        fleet,
        recurring,
    })
}
