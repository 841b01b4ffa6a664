//! Bundles as rows keep them, format 1: floor 2, `store/sqlite`.
//!
//! A deterministic CBOR array:
//!
//! `[version, vehicle epoch, alg, issuer, holder, issued at, not before, not after, region,
//! recurring, [[subject, status index, max uses?], …], signatures]`
//!
//! `issuer` and `subject` are numbers of contexts; `holder` is a short public key; `region` and
//! `recurring` are null where there is none; `signatures` is one string of 64 bytes for each key. What the row's
//! columns and the authorization say is not repeated, and neither is what can be computed: the
//! holder's thumbprint.
//!
//! A body is believed only if writing it again gives the same bytes.

use fob_verify::region::Region;
use fob_verify::window::Recurring;
use fob_verify::{Algorithm, HolderKey};
use minicbor::{Decoder, decode};

use super::cbor::{self, Into, Read, Written};
use super::error::corrupt;
use crate::domain::{UnixTime, Window};
use crate::hsm::Signature;
use crate::store::StoreError;

/// The number of this format, which stands beside each body.
pub(super) const FORMAT: i64 = 1;

const SIGNATURE_LEN: usize = size_of::<Signature>();

/// A body, with contexts by number.
#[derive(Debug, PartialEq)]
pub(super) struct Body {
    pub(super) version: u32,
    pub(super) vehicle_epoch: u32,
    pub(super) algorithm: Algorithm,
    pub(super) issuer: u64,
    pub(super) holder: HolderKey,
    pub(super) issued_at: UnixTime,
    pub(super) window: Window,
    pub(super) region: Option<Box<Region>>,
    pub(super) recurring: Option<Box<Recurring>>,
    pub(super) keys: Vec<Key>,
    pub(super) signatures: Vec<Signature>,
}

/// One key of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) subject: u64,
    pub(super) status_index: u32,
    pub(super) max_uses: Option<u32>,
}

impl Body {
    /// Writes the body.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        cbor::written(|e| self.write(e))
    }

    fn write(&self, e: &mut Into<'_>) -> Written {
        let (holder, holder_len) = cbor::short_key(&self.holder);
        e.array(12)?
            .u32(self.version)?
            .u32(self.vehicle_epoch)?
            .i64(self.algorithm.cose())?;
        e.u64(self.issuer)?
            .bytes(&holder[..holder_len])?
            .u64(self.issued_at)?;
        e.u64(self.window.not_before)?.u64(self.window.not_after)?;
        cbor::write_region(e, self.region.as_deref())?;
        cbor::write_recurring(e, self.recurring.as_deref())?;
        e.array(self.keys.len() as u64)?;
        for key in &self.keys {
            e.array(if key.max_uses.is_some() { 3 } else { 2 })?;
            e.u64(key.subject)?.u32(key.status_index)?;
            if let Some(max_uses) = key.max_uses {
                e.u32(max_uses)?;
            }
        }
        e.bytes(self.signatures.as_flattened())?.ok()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for anything that [`Body::encode`] does not write.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let body = cbor::read("a bundle", bytes, Self::read)?;
        let sound = body.keys.len() == body.signatures.len() && body.encode()? == bytes;
        sound
            .then_some(body)
            .ok_or_else(|| corrupt("a bundle: not as it was written"))
    }

    fn read(d: &mut Decoder<'_>) -> Read<Self> {
        cbor::array(d, 12)?;
        Ok(Self {
            version: d.u32()?,
            vehicle_epoch: d.u32()?,
            algorithm: Algorithm::from_cose(d.i64()?)
                .ok_or_else(|| decode::Error::message("an unknown algorithm"))?,
            issuer: d.u64()?,
            holder: cbor::read_key(d.bytes()?)?,
            issued_at: d.u64()?,
            window: Window {
                not_before: d.u64()?,
                not_after: d.u64()?,
            },
            region: cbor::read_region(d)?.map(Box::new),
            recurring: cbor::read_recurring(d)?.map(Box::new),
            keys: cbor::list(d, read_key_record)?,
            signatures: read_signatures(d.bytes()?)?,
        })
    }
}

fn read_key_record(d: &mut Decoder<'_>) -> Read<Key> {
    let limited = match d.array()? {
        Some(2) => false,
        Some(3) => true,
        _ => return Err(decode::Error::message("a key of another length")),
    };
    Ok(Key {
        subject: d.u64()?,
        status_index: d.u32()?,
        max_uses: if limited { Some(d.u32()?) } else { None },
    })
}

fn read_signatures(bytes: &[u8]) -> Read<Vec<Signature>> {
    let (signatures, rest) = bytes.as_chunks::<SIGNATURE_LEN>();
    if !rest.is_empty() {
        return Err(decode::Error::message("part of a signature"));
    }
    Ok(signatures.to_vec())
}

#[cfg(test)]
mod tests {
    use fob_verify::region::{Circle, Position};
    use fob_verify::window::Window as Weekly;

    use super::*;

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

    fn body() -> Body {
        let centre = Position::new(525_162_720, -133_777_220).unwrap();
        let weekly = Weekly::new(0b001_1111, 480, 1080, -60).unwrap();
        Body {
            version: 2,
            vehicle_epoch: 4,
            algorithm: Algorithm::Esp256,
            issuer: 1,
            holder: HolderKey::from_sec1(&hex(HOLDER)).unwrap(),
            issued_at: 1_790_000_000,
            window: Window {
                not_before: 1_790_000_000,
                not_after: 1_790_003_600,
            },
            region: Some(Box::new(Region::Circle(Circle::new(centre, 1000).unwrap()))),
            recurring: Some(Box::new(Recurring::new(&[weekly]).unwrap())),
            keys: vec![
                Key {
                    subject: 2,
                    status_index: 131_071,
                    max_uses: None,
                },
                Key {
                    subject: 300,
                    status_index: 0,
                    max_uses: Some(25),
                },
            ],
            signatures: vec![[0x11; 64], [0x22; 64]],
        }
    }

    fn golden() -> Vec<u8> {
        let parts = [
            "8c",                                 // array of 12
            "02 04 28 01",                        // version 2, vehicle epoch 4, alg -9, context 1
            "5821",                               // holder, 33 bytes
            HOLDER,                               //
            "1a6ab13b80",                         // issued at
            "1a6ab13b80 1a6ab14990",              // not before, not after
            "84 00 1a1f4d58e0 3a07f94743 1903e8", // circle: latitude, longitude, 1000 m
            "81 84 181f 1901e0 190438 383b",      // recurring: Mon-Fri, 480 to 1080, UTC-60 min
            "82",                                 // two keys
            "82 02 1a0001ffff",                   // context 2, index 131071
            "83 19012c 00 1819",                  // context 300, index 0, 25 uses
            "5880",                               // signatures, 128 bytes
        ];
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| hex(part)).collect();
        bytes.extend([[0x11; 64], [0x22; 64]].as_flattened());
        bytes
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(body().encode().unwrap(), golden());
        assert_eq!(Body::decode(&golden()), Ok(body()));
    }

    #[test]
    fn only_what_was_written_is_read() {
        let golden = golden();
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
                    assert_ne!(other, body(), "byte {at}, bit {bit}");
                }
            }
        }
        // The version as two bytes, the keys as an array without a length.
        let long_form = [&[0x8c, 0x18, 0x02], &golden[2..]].concat();
        assert!(matches!(
            Body::decode(&long_form),
            Err(StoreError::Corrupt(_))
        ));
    }
}
