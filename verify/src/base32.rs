//! Base32 in Crockford's alphabet with the bit order of RFC 4648 §6: no
//! padding, no hyphens, no check symbol, no lower case, no look-alikes.

use crate::Refusal;

/// The digits and capital letters without I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters for this many octets.
pub(crate) const fn len_of(octets: usize) -> usize {
    (octets * 8).div_ceil(5)
}

/// The character at this place of the text of these octets; `None` past its
/// end.
pub(crate) fn digit(octets: &[u8], at: usize) -> Option<u8> {
    let first_bit = at.checked_mul(5)?;
    octets.get(first_bit / 8)?;
    let pair = [0, 1].map(|next| octets.get(first_bit / 8 + next).copied().unwrap_or(0));
    let window = u16::from_be_bytes(pair) >> (11 - first_bit % 8);
    ALPHABET.get(usize::from(window & 31)).copied()
}

/// The octets of this text, written to the start of `out`.
pub(crate) fn decode<'o>(text: &[u8], out: &'o mut [u8]) -> Result<&'o [u8], Refusal> {
    if text.len() > len_of(out.len()) {
        return Err(Refusal::TooLong);
    }
    let (mut bits, mut held, mut len) = (0u32, 0u32, 0usize);
    for character in text {
        let digit = ALPHABET.iter().position(|c| c == character);
        let digit = digit.ok_or(Refusal::WrongCharacter)?;
        bits = bits << 5 | u32::try_from(digit).map_err(|_| Refusal::WrongCharacter)?;
        held += 5;
        if held >= 8 {
            held -= 8;
            let octet = u8::try_from(bits >> held).map_err(|_| Refusal::TrailingBits)?;
            *out.get_mut(len).ok_or(Refusal::TooLong)? = octet;
            len += 1;
            bits &= (1 << held) - 1;
        }
    }
    if held >= 5 || bits != 0 {
        return Err(Refusal::TrailingBits);
    }
    Ok(out.get(..len).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    use super::{decode, digit, len_of};
    use crate::Refusal;
    use std::string::String;
    use std::vec::Vec;

    fn text(octets: &[u8]) -> String {
        (0..len_of(octets.len()))
            .map(|at| char::from(digit(octets, at).unwrap()))
            .collect()
    }

    fn refusal(text: &str) -> Option<Refusal> {
        decode(text.as_bytes(), &mut [0; 40]).err()
    }

    #[test]
    fn the_vectors_of_rfc_4648_in_crockfords_letters() {
        for (octets, expected) in [
            ("", ""),
            ("f", "CR"),
            ("fo", "CSQG"),
            ("foo", "CSQPY"),
            ("foob", "CSQPYRG"),
            ("fooba", "CSQPYRK1"),
            ("foobar", "CSQPYRK1E8"),
        ] {
            assert_eq!(text(octets.as_bytes()), expected);
            assert_eq!(
                decode(expected.as_bytes(), &mut [0; 6]),
                Ok(octets.as_bytes())
            );
        }
    }

    #[test]
    fn every_length_survives_and_no_text_has_two_readings() {
        for len in 0..40 {
            let octets: Vec<u8> = (0..len).map(|i| i as u8 ^ 0xa5).collect();
            assert_eq!(text(&octets).len(), len_of(len));
            assert_eq!(decode(text(&octets).as_bytes(), &mut [0; 40]), Ok(&*octets));
        }
        for refused in ["C", "CT", "CSQ", "CSQPYR", "00000000C"] {
            assert_eq!(refusal(refused), Some(Refusal::TrailingBits), "{refused}");
        }
        for refused in ["cr", "C-R", "CR======", "IL", "OU", "Ä"] {
            assert_eq!(refusal(refused), Some(Refusal::WrongCharacter), "{refused}");
        }
        assert_eq!(decode(b"CSQPY", &mut [0; 2]), Err(Refusal::TooLong));
    }
}
