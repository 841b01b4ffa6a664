//! Bundles as packs keep them, format 2: floor 2, `store/sqlite`.
//!
//! A deterministic CBOR array:
//!
//! `[id, basis, identity, version, vehicle epoch, alg, issuer, subjects, holder, issued at, not
//! before, not after, region, recurring, [status index | [status index, max uses], …], proof]`
//!
//! `basis` is the id of the authorization that was redeemed, or `[vehicle, terminal, author]` of an
//! order. `identity`, `vehicle`, `issuer` and `subjects` are numbers of other rows; `holder` is a
//! short public key; `region` and `recurring` are null where there is none. `proof` is one string
//! of 64 bytes for each key, or `[signature, size, first, outside]` of a tree, `outside` being one
//! string of 32 bytes for each hash. What the pack's columns and the authorization say is not
//! repeated, and neither is what can be computed.
//!
//! A body is believed only if writing it again gives the same bytes.

use fob_verify::region::Region;
use fob_verify::window::Recurring;
use fob_verify::{Algorithm, HolderKey};
use minicbor::data::Type;
use minicbor::{Decoder, decode};

use super::bundle_parts;
use super::cbor::{self, Into, Read, Written};
use super::error::corrupt;
use crate::domain::{AuthorizationId, BundleId, KeyRecord, TerminalId, TokenId, UnixTime, Window};
use crate::store::{Proof, StoreError};

/// The number of this format, which stands beside each pack.
pub(super) const FORMAT: i64 = 2;

/// A body, with other rows by number.
#[derive(Debug, PartialEq)]
pub(super) struct Body {
    pub(super) id: BundleId,
    pub(super) basis: Basis,
    pub(super) identity: i64,
    pub(super) version: u32,
    pub(super) vehicle_epoch: u32,
    pub(super) algorithm: Algorithm,
    pub(super) issuer: u64,
    pub(super) subjects: u64,
    pub(super) holder: HolderKey,
    pub(super) issued_at: UnixTime,
    pub(super) window: Window,
    pub(super) region: Option<Box<Region>>,
    pub(super) recurring: Option<Box<Recurring>>,
    pub(super) keys: Vec<KeyRecord>,
    pub(super) proof: Proof,
}

/// What a bundle rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// An authorization that was redeemed.
    Authorization(AuthorizationId),
    /// An order.
    Order {
        /// The vehicle's number.
        vehicle: i64,
        /// The terminal it was ordered for.
        terminal: Option<TerminalId>,
        /// The token it was ordered with.
        author: TokenId,
    },
}

/// The same by reference: what is written, so that writing copies nothing.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) id: &'a BundleId,
    pub(super) basis: &'a Basis,
    pub(super) identity: i64,
    pub(super) version: u32,
    pub(super) vehicle_epoch: u32,
    pub(super) algorithm: Algorithm,
    pub(super) issuer: u64,
    pub(super) subjects: u64,
    pub(super) holder: &'a HolderKey,
    pub(super) issued_at: UnixTime,
    pub(super) window: Window,
    pub(super) region: Option<&'a Region>,
    pub(super) recurring: Option<&'a Recurring>,
    pub(super) keys: &'a [KeyRecord],
    pub(super) proof: &'a Proof,
}

impl Fields<'_> {
    /// Appends the body.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        cbor::write(bytes, |e| self.encode(e))
    }

    fn encode(&self, e: &mut Into<'_>) -> Written {
        let (holder, holder_len) = cbor::short_key(self.holder);
        e.array(16)?.bytes(self.id.bytes())?;
        match self.basis {
            Basis::Authorization(id) => e.bytes(id.bytes())?.ok()?,
            Basis::Order {
                vehicle,
                terminal,
                author,
            } => {
                e.array(3)?.i64(*vehicle)?;
                cbor::write_text(e, terminal.as_ref().map(TerminalId::as_str))?;
                e.bytes(author.bytes())?.ok()?;
            }
        }
        e.i64(self.identity)?
            .u32(self.version)?
            .u32(self.vehicle_epoch)?
            .i64(self.algorithm.cose())?
            .u64(self.issuer)?
            .u64(self.subjects)?
            .bytes(&holder[..holder_len])?
            .u64(self.issued_at)?
            .u64(self.window.not_before)?
            .u64(self.window.not_after)?;
        cbor::write_region(e, self.region)?;
        cbor::write_recurring(e, self.recurring)?;
        bundle_parts::write_keys(e, self.keys)?;
        bundle_parts::write_proof(e, self.proof)
    }
}

impl Body {
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields {
            id: &self.id,
            basis: &self.basis,
            identity: self.identity,
            version: self.version,
            vehicle_epoch: self.vehicle_epoch,
            algorithm: self.algorithm,
            issuer: self.issuer,
            subjects: self.subjects,
            holder: &self.holder,
            issued_at: self.issued_at,
            window: self.window,
            region: self.region.as_deref(),
            recurring: self.recurring.as_deref(),
            keys: &self.keys,
            proof: &self.proof,
        }
    }

    /// The authorization it was issued on; an order's has its bundle's id.
    pub(super) fn authorization(&self) -> AuthorizationId {
        match self.basis {
            Basis::Authorization(id) => id,
            Basis::Order { .. } => AuthorizationId(self.id.0),
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for anything that [`Fields::write`] does not write.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let body = cbor::read("a bundle", bytes, Self::read)?;
        let signed = match &body.proof {
            Proof::Each(signatures) => signatures.len() == body.keys.len(),
            Proof::Tree(_) => true,
        };
        let mut again = Vec::with_capacity(bytes.len());
        body.fields().write(&mut again)?;
        (signed && again == bytes)
            .then_some(body)
            .ok_or_else(|| corrupt("a bundle: not as it was written"))
    }

    fn read(d: &mut Decoder<'_>) -> Read<Self> {
        cbor::array(d, 16)?;
        Ok(Self {
            id: BundleId(read_id(d)?),
            basis: read_basis(d)?,
            identity: d.i64()?,
            version: d.u32()?,
            vehicle_epoch: d.u32()?,
            algorithm: Algorithm::from_cose(d.i64()?)
                .ok_or_else(|| decode::Error::message("an unknown algorithm"))?,
            issuer: d.u64()?,
            subjects: d.u64()?,
            holder: cbor::read_key(d.bytes()?)?,
            issued_at: d.u64()?,
            window: Window {
                not_before: d.u64()?,
                not_after: d.u64()?,
            },
            region: cbor::read_region(d)?.map(Box::new),
            recurring: cbor::read_recurring(d)?.map(Box::new),
            keys: bundle_parts::read_keys(d)?,
            proof: bundle_parts::read_proof(d)?,
        })
    }
}

/// The id at the beginning of a body, without the rest.
pub(super) fn id_of(bytes: &[u8]) -> Result<BundleId, StoreError> {
    let mut d = Decoder::new(bytes);
    let id = cbor::array(&mut d, 16).and_then(|()| read_id(&mut d));
    id.map(BundleId)
        .map_err(|_| corrupt("a bundle without an id"))
}

fn read_id(d: &mut Decoder<'_>) -> Read<[u8; 16]> {
    d.bytes()?
        .try_into()
        .map_err(|_| decode::Error::message("an id of another length"))
}

fn read_basis(d: &mut Decoder<'_>) -> Read<Basis> {
    if d.datatype()? == Type::Bytes {
        return Ok(Basis::Authorization(AuthorizationId(read_id(d)?)));
    }
    cbor::array(d, 3)?;
    Ok(Basis::Order {
        vehicle: d.i64()?,
        terminal: cbor::optional(d, |d| {
            TerminalId::parse(d.str()?)
                .map_err(|_| decode::Error::message("a name outside its alphabet"))
        })?,
        author: TokenId(read_id(d)?),
    })
}

#[cfg(test)]
mod tests {
    use fob_verify::region::{Circle, Position};
    use fob_verify::window::Window as Weekly;

    use super::*;
    use crate::store::TreeProof;

    /// The generator of P-256, compressed.
    const HOLDER: &str = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .collect();
        digits
            .chunks(2)
            .map(|pair| (pair[0] << 4 | pair[1]) as u8)
            .collect()
    }

    fn redeemed() -> Body {
        let centre = Position::new(525_162_720, -133_777_220).unwrap();
        let weekly = Weekly::new(0b001_1111, 480, 1080, -60).unwrap();
        Body {
            id: BundleId([0xb1; 16]),
            basis: Basis::Authorization(AuthorizationId([0xa1; 16])),
            identity: 7,
            version: 2,
            vehicle_epoch: 4,
            algorithm: Algorithm::Esp256,
            issuer: 1,
            subjects: 300,
            holder: HolderKey::from_sec1(&hex(HOLDER)).unwrap(),
            issued_at: 1_790_000_000,
            window: Window {
                not_before: 1_790_000_000,
                not_after: 1_790_003_600,
            },
            region: Some(Box::new(Region::Circle(Circle::new(centre, 1000).unwrap()))),
            recurring: Some(Box::new(Recurring::new(&[weekly]).unwrap())),
            keys: vec![
                KeyRecord {
                    status_index: 131_071,
                    max_uses: None,
                },
                KeyRecord {
                    status_index: 0,
                    max_uses: Some(25),
                },
            ],
            proof: Proof::Each(vec![[0x11; 64], [0x22; 64]]),
        }
    }

    fn ordered() -> Body {
        Body {
            basis: Basis::Order {
                vehicle: 9,
                terminal: Some(TerminalId::parse("phone").unwrap()),
                author: TokenId([0xc1; 16]),
            },
            region: None,
            recurring: None,
            proof: Proof::Tree(TreeProof {
                signature: [0x33; 64],
                size: 300,
                first: 2,
                outside: [[0x44; 32]; 2].into(),
            }),
            ..redeemed()
        }
    }

    fn golden(parts: &[&str], tail: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| hex(part)).collect();
        bytes.extend(tail);
        bytes
    }

    fn golden_redeemed() -> Vec<u8> {
        let parts = [
            "90",                                  // array of 16
            "50 b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1", // id
            "50 a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1", // authorization
            "07 02 04 28 01 19012c", // identity 7, version 2, vehicle epoch 4, alg -9, contexts 1, 300
            "5821",                  // holder, 33 bytes
            HOLDER,                  //
            "1a6ab13b80",            // issued at
            "1a6ab13b80 1a6ab14990", // not before, not after
            "84 00 1a1f4d58e0 3a07f94743 1903e8", // circle: latitude, longitude, 1000 m
            "81 84 181f 1901e0 190438 383b", // recurring: Mon-Fri, 480 to 1080, UTC-60 min
            "82",                    // two keys
            "1a0001ffff",            // index 131071
            "82 00 1819",            // index 0, 25 uses
            "5880",                  // signatures, 128 bytes
        ];
        golden(&parts, [[0x11; 64], [0x22; 64]].as_flattened())
    }

    fn golden_ordered() -> Vec<u8> {
        let signature = "33".repeat(64);
        let parts = [
            "90",                                  // array of 16
            "50 b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1", // id
            "83 09 65 70686f6e65",                 // vehicle 9, "phone"
            "50 c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1", // author
            "07 02 04 28 01 19012c",               //
            "5821",                                //
            HOLDER,                                //
            "1a6ab13b80 1a6ab13b80 1a6ab14990",    //
            "f6 f6",                               // no region, no recurring windows
            "82 1a0001ffff 82 00 1819",            // keys
            "84 5840",                             // tree: signature
            &signature,                            //
            "19012c 02 5840",                      // 300 leaves, the first is 2, two hashes
        ];
        golden(&parts, [[0x44; 32]; 2].as_flattened())
    }

    fn encoded(body: &Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        body.fields().write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn golden_bytes() {
        for (body, golden) in [
            (redeemed(), golden_redeemed()),
            (ordered(), golden_ordered()),
        ] {
            assert_eq!(encoded(&body), golden);
            assert_eq!(id_of(&golden), Ok(body.id));
            assert_eq!(Body::decode(&golden), Ok(body));
        }
    }

    #[test]
    fn only_what_was_written_is_read() {
        for (body, golden) in [
            (redeemed(), golden_redeemed()),
            (ordered(), golden_ordered()),
        ] {
            for len in 0..golden.len() {
                assert!(
                    matches!(Body::decode(&golden[..len]), Err(StoreError::Corrupt(_))),
                    "{len}"
                );
            }
            let longer = [&golden[..], &[0]].concat();
            assert!(matches!(Body::decode(&longer), Err(StoreError::Corrupt(_))));
            for at in 0..golden.len() {
                for bit in 0..8 {
                    let mut damaged = golden.clone();
                    damaged[at] ^= 1 << bit;
                    if let Ok(other) = Body::decode(&damaged) {
                        assert_ne!(other, body, "byte {at}, bit {bit}");
                    }
                }
            }
        }
    }
}
