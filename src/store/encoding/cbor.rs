//! The pieces of CBOR that rows share: floor 2, `store/encoding`. Written deterministically
//! (RFC 8949 §4.2.1); whoever reads a whole body proves that by writing it again.
//!
//! Deliberately not here: what a body consists of (`bundle_body`, `authorization_body`).

use std::convert::Infallible;

use fob_verify::HolderKey;
use fob_verify::region::{Circle, Polygon, Position, Region};
use fob_verify::window::{Recurring, Window};
use minicbor::{Decoder, Encoder, decode, encode};

use super::corrupt;
use crate::store::StoreError;

/// An encoder into memory, which cannot fail.
pub(in crate::store) type Into<'a> = Encoder<&'a mut Vec<u8>>;
/// What writing into memory answers.
pub(in crate::store) type Written = Result<(), encode::Error<Infallible>>;
/// What reading answers.
pub(in crate::store) type Read<T> = Result<T, decode::Error>;

/// The most items of any list in a body.
const ITEMS_MAX: u64 = 4096;

/// Room for the body of a usual bundle.
const BODY_LEN: usize = 768;

/// What `with` writes.
pub(in crate::store) fn written(
    with: impl FnOnce(&mut Into<'_>) -> Written,
) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(BODY_LEN);
    write(&mut bytes, with)?;
    Ok(bytes)
}

/// Appends what `with` writes.
pub(in crate::store) fn write(
    bytes: &mut Vec<u8>,
    with: impl FnOnce(&mut Into<'_>) -> Written,
) -> Result<(), StoreError> {
    with(&mut Encoder::new(bytes)).map_err(|_| StoreError::Failed("not representable".into()))
}

/// What `read` reads; `what` names it where it cannot be read.
pub(in crate::store) fn read<'a, T>(
    what: &str,
    bytes: &'a [u8],
    read: impl FnOnce(&mut Decoder<'a>) -> Read<T>,
) -> Result<T, StoreError> {
    let mut decoder = Decoder::new(bytes);
    let value = read(&mut decoder).map_err(|why| corrupt(format!("{what}: {why}")))?;
    if decoder.position() != bytes.len() {
        return Err(corrupt(format!("{what}: more than its end")));
    }
    Ok(value)
}

/// The head of an array of exactly `items`.
pub(in crate::store) fn array(d: &mut Decoder<'_>, items: u64) -> Read<()> {
    match d.array()? {
        Some(n) if n == items => Ok(()),
        _ => Err(decode::Error::message("an array of another length")),
    }
}

/// A list, item by item.
pub(in crate::store) fn list<'a, T, C: FromIterator<T>>(
    d: &mut Decoder<'a>,
    mut item: impl FnMut(&mut Decoder<'a>) -> Read<T>,
) -> Read<C> {
    let items = d.array()?.filter(|n| *n <= ITEMS_MAX);
    let items = items.ok_or_else(|| decode::Error::message("a list without an end"))?;
    (0..items).map(|_| item(d)).collect()
}

/// Something or null.
pub(in crate::store) fn optional<'a, T>(
    d: &mut Decoder<'a>,
    item: impl FnOnce(&mut Decoder<'a>) -> Read<T>,
) -> Read<Option<T>> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    item(d).map(Some)
}

/// A text or null.
pub(in crate::store) fn write_text(e: &mut Into<'_>, text: Option<&str>) -> Written {
    match text {
        None => e.null()?.ok(),
        Some(text) => e.str(text)?.ok(),
    }
}

/// A region, as in a key: `[0, lat, lon, radius]` or `[1, [[lat, lon], …]]`, or null.
pub(in crate::store) fn write_region(e: &mut Into<'_>, region: Option<&Region>) -> Written {
    match region {
        None => e.null()?.ok(),
        Some(Region::Circle(circle)) => {
            let centre = circle.centre();
            e.array(4)?
                .u8(0)?
                .i32(centre.lat_e7())?
                .i32(centre.lon_e7())?;
            e.u32(circle.radius_m())?.ok()
        }
        Some(Region::Polygon(polygon)) => {
            e.array(2)?.u8(1)?.array(polygon.corners().len() as u64)?;
            for corner in polygon.corners() {
                e.array(2)?.i32(corner.lat_e7())?.i32(corner.lon_e7())?;
            }
            Ok(())
        }
    }
}

/// See [`write_region`].
pub(in crate::store) fn read_region(d: &mut Decoder<'_>) -> Read<Option<Region>> {
    optional(d, |d| {
        let items = d.array()?;
        match (items, d.u8()?) {
            (Some(4), 0) => {
                let centre = read_position(d)?;
                Circle::new(centre, d.u32()?)
                    .map(Region::Circle)
                    .map_err(out_of_bounds)
            }
            (Some(2), 1) => {
                let corners: Vec<_> = list(d, |d| {
                    array(d, 2)?;
                    read_position(d)
                })?;
                Polygon::new(&corners)
                    .map(Region::Polygon)
                    .map_err(out_of_bounds)
            }
            _ => Err(decode::Error::message("an unknown kind of region")),
        }
    })
}

/// Recurring windows, as in a key: `[[weekdays, start, end, offset], …]`, or null.
pub(in crate::store) fn write_recurring(
    e: &mut Into<'_>,
    recurring: Option<&Recurring>,
) -> Written {
    let Some(recurring) = recurring else {
        return e.null()?.ok();
    };
    e.array(recurring.windows().len() as u64)?;
    for window in recurring.windows() {
        e.array(4)?.u8(window.weekdays())?.u16(window.start_min())?;
        e.u16(window.end_min())?.i16(window.utc_offset_min())?;
    }
    Ok(())
}

/// See [`write_recurring`].
pub(in crate::store) fn read_recurring(d: &mut Decoder<'_>) -> Read<Option<Recurring>> {
    optional(d, |d| {
        let windows: Vec<_> = list(d, |d| {
            array(d, 4)?;
            Window::new(d.u8()?, d.u16()?, d.u16()?, d.i16()?).map_err(out_of_bounds)
        })?;
        Recurring::new(&windows).map_err(out_of_bounds)
    })
}

/// A holder's key as short as it gets: SEC 1 compressed (33 bytes) or Ed25519 (32). Reading a
/// compressed point costs a square root.
pub(in crate::store) fn short_key(key: &HolderKey) -> ([u8; 33], usize) {
    let public = key.public();
    let mut bytes = [0; 33];
    match public.y_is_odd() {
        Some(odd) => {
            bytes[0] = 2 | u8::from(odd);
            bytes[1..].copy_from_slice(public.x());
            (bytes, 33)
        }
        None => {
            bytes[..32].copy_from_slice(public.x());
            (bytes, 32)
        }
    }
}

/// A holder's key from SEC 1 (33 or 65 bytes) or Ed25519 (32).
pub(in crate::store) fn read_key(bytes: &[u8]) -> Read<HolderKey> {
    let key = match <&[u8; 32]>::try_from(bytes) {
        Ok(x) => HolderKey::new_ed25519(x),
        Err(_) => HolderKey::from_sec1(bytes),
    };
    key.map_err(out_of_bounds)
}

fn read_position(d: &mut Decoder<'_>) -> Read<Position> {
    Position::new(d.i32()?, d.i32()?).map_err(out_of_bounds)
}

fn out_of_bounds(why: fob_verify::Refusal) -> decode::Error {
    decode::Error::message(why)
}
