//! Authorizations as rows keep them, format 1: floor 2, `store/encoding`.
//!
//! A deterministic CBOR array of what no column holds:
//!
//! `[functions, not before, region, recurring, [[function, max uses], …], recipient identity,
//! recipient terminal, pin, signing, created at, author]`
//!
//! and at its end, where it has been approved of, until when.
//!
//! Absent things are null; the recipient's terminal is its id (text) or its key (bytes, SEC 1 whole or
//! Ed25519); `signing` is a word of `words`; `author` is a token's id (bytes)
//! or a terminal's (text). A body is believed only if writing it again gives the same bytes.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::cbor::{self, Into, Read, Written};
use super::corrupt;
use super::words;
use crate::domain::{
    Author, Authorization, FunctionCode, FunctionSet, IdentityId, Recipient, Restrictions, Signing,
    TerminalId, TokenId, UnixTime,
};
use crate::store::StoreError;

/// The number of this format, which stands beside each body.
pub(in crate::store) const FORMAT: i64 = 1;

/// Room for the body of a usual authorization.
const BODY_LEN: usize = 64;

/// What a body says.
pub(in crate::store) struct Body {
    pub(in crate::store) functions: FunctionSet,
    pub(in crate::store) not_before: UnixTime,
    pub(in crate::store) restrictions: Option<Box<Restrictions>>,
    pub(in crate::store) pin: bool,
    pub(in crate::store) signing: Option<Signing>,
    pub(in crate::store) created_at: UnixTime,
    pub(in crate::store) author: Author,
}

/// Writes what of `authorization` no column holds.
pub(in crate::store) fn encode(authorization: &Authorization) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(BODY_LEN);
    write(&mut bytes, authorization)?;
    Ok(bytes)
}

fn write(bytes: &mut Vec<u8>, a: &Authorization) -> Result<(), StoreError> {
    cbor::write(bytes, |e| {
        e.array(if a.approved_until().is_some() { 12 } else { 11 })?;
        write_functions(e, &a.functions)?;
        e.u64(a.window.not_before)?;
        cbor::write_region(e, a.region())?;
        cbor::write_recurring(e, a.recurring())?;
        e.array(a.use_limits().len() as u64)?;
        for (function, uses) in a.use_limits() {
            e.array(2)?.u16(*function)?.u32(*uses)?;
        }
        cbor::write_text(e, a.recipient().identity.as_ref().map(IdentityId::as_str))?;
        match (&a.recipient().terminal, &a.recipient().key) {
            (Some(id), _) => e.str(id.as_str())?,
            (None, Some(key)) => e.bytes(key.public().as_bytes())?,
            (None, None) => e.null()?,
        };
        e.bool(a.pin)?;
        match a.signing {
            None => e.null()?,
            Some(signing) => e.u8(words::signing(signing))?,
        };
        e.u64(a.created_at)?;
        match &a.author {
            Author::Token(id) => e.bytes(id.bytes())?,
            Author::Terminal(id) => e.str(id.as_str())?,
        };
        if let Some(until) = a.approved_until() {
            e.u64(until)?;
        }
        Ok(())
    })
}

/// Reads a body.
///
/// # Errors
/// [`StoreError::Corrupt`] for what is not one. Whoever has the whole authorization compares it
/// with [`encode`].
pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Body, StoreError> {
    cbor::read("an authorization", bytes, |d| {
        let approved = match d.array()? {
            Some(11) => false,
            Some(12) => true,
            _ => return Err(Error::message("an array of another length")),
        };
        let functions = read_functions(d)?;
        let not_before = d.u64()?;
        let mut restrictions = read_restrictions(d)?;
        let pin = d.bool()?;
        let signing = cbor::optional(d, read_signing)?;
        let created_at = d.u64()?;
        let author = read_author(d)?;
        if approved {
            restrictions.approved_until = Some(d.u64()?);
        }
        Ok(Body {
            functions,
            not_before,
            restrictions: restrictions.boxed(),
            pin,
            signing,
            created_at,
            author,
        })
    })
}

/// The functions of a vehicle, alone: an array of codes.
pub(in crate::store) fn write_functions(e: &mut Into<'_>, functions: &[FunctionCode]) -> Written {
    e.array(functions.len() as u64)?;
    for function in functions {
        e.u16(*function)?;
    }
    Ok(())
}

/// See [`write_functions`].
pub(in crate::store) fn read_functions<C: FromIterator<FunctionCode>>(
    d: &mut Decoder<'_>,
) -> Read<C> {
    cbor::list(d, Decoder::u16)
}

/// With which code set it was redeemed, where a change has come since: `[version, functions]`.
pub(in crate::store) fn code_set(
    authorization: &Authorization,
) -> Result<Option<Vec<u8>>, StoreError> {
    let code_set = authorization
        .amended()
        .and_then(|amended| amended.code_set.as_ref());
    let Some((version, functions)) = code_set else {
        return Ok(None);
    };
    cbor::written(|e| {
        e.array(2)?.u32(*version)?;
        write_functions(e, functions)
    })
    .map(Some)
}

/// See [`code_set`].
pub(in crate::store) fn read_code_set(bytes: &[u8]) -> Result<(u32, FunctionSet), StoreError> {
    cbor::read("a code set", bytes, |d| {
        cbor::array(d, 2)?;
        Ok((d.u32()?, read_functions(d)?))
    })
}

fn read_restrictions(d: &mut Decoder<'_>) -> Read<Restrictions> {
    Ok(Restrictions {
        region: cbor::read_region(d)?.map(Box::new),
        recurring: cbor::read_recurring(d)?.map(Box::new),
        max_uses: cbor::list(d, |d| {
            cbor::array(d, 2)?;
            Ok((d.u16()?, d.u32()?))
        })?,
        recipient: read_recipient(d)?,
        amended: None,
        approved_until: None,
    })
}

fn read_recipient(d: &mut Decoder<'_>) -> Read<Recipient> {
    let mut recipient = Recipient {
        identity: cbor::optional(d, |d| IdentityId::parse(d.str()?).map_err(unnamed))?,
        ..Recipient::default()
    };
    match d.datatype()? {
        Type::Null => d.null()?,
        Type::Bytes => recipient.key = Some(cbor::read_key(d.bytes()?)?),
        _ => recipient.terminal = Some(TerminalId::parse(d.str()?).map_err(unnamed)?),
    }
    Ok(recipient)
}

fn read_signing(d: &mut Decoder<'_>) -> Read<Signing> {
    words::read_signing(d.u8()?).map_err(|_| Error::message("an unknown way of signing"))
}

fn read_author(d: &mut Decoder<'_>) -> Read<Author> {
    match d.datatype()? {
        Type::Bytes => {
            let id = d
                .bytes()?
                .try_into()
                .map_err(|_| Error::message("a token's id"))?;
            Ok(Author::Token(TokenId(id)))
        }
        _ => TerminalId::parse(d.str()?)
            .map(Author::Terminal)
            .map_err(unnamed),
    }
}

fn unnamed(_: crate::domain::Refusal) -> Error {
    Error::message("a name outside its alphabet")
}

/// Whether `bytes` are what [`encode`] makes of `authorization`.
pub(in crate::store) fn check(
    authorization: &Authorization,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut again = Vec::with_capacity(bytes.len());
    write(&mut again, authorization)?;
    if again == bytes {
        return Ok(());
    }
    Err(corrupt("an authorization: not as it was written"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::authorization::tests::sample;

    #[test]
    fn golden_bytes() {
        let mut expected = vec![
            0x8b, // array of 11
            0x82, 0x01, 0x03, // functions 1 and 3
            0x18, 0x64, // not before 100
            0xf6, // no region
            0xf6, // no recurring windows
            0x81, 0x82, 0x03, 0x02, // function 3, twice
            0xf6, // any identity
            0xf6, // any terminal
            0xf4, // no PIN
            0xf6, // signing as configured
            0x18, 0x32, // created at 50
            0x50, // author: a token
        ];
        expected.extend([9; 16]);
        assert_eq!(encode(&sample()), Ok(expected.clone()));
        assert!(decode(&expected).is_ok());
        assert_eq!(check(&sample(), &expected), Ok(()));
        for len in 0..expected.len() {
            assert!(
                matches!(decode(&expected[..len]), Err(StoreError::Corrupt(_))),
                "{len}"
            );
        }
        let mut approved = sample();
        approved.approve(1_000);
        expected[0] = 0x8c; // array of 12
        expected.extend([0x19, 0x03, 0xe8]); // approved of until 1000
        assert_eq!(encode(&approved), Ok(expected.clone()));
        let read = decode(&expected).expect("a body");
        let until = read.restrictions.and_then(|it| it.approved_until);
        assert_eq!(until, Some(1_000));
        assert!(decode(&expected[..expected.len() - 3]).is_err());
        expected[0] = 0x8b;
        expected.truncate(expected.len() - 3);
        let long_form = [&[0x8b, 0x82, 0x18, 0x01], &expected[3..]].concat();
        assert!(
            check(&sample(), &long_form).is_err(),
            "readable, but not as written"
        );
    }
}
