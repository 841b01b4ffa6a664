//! From `CKA_EC_POINT` to a public key, floor 2.
//!
//! Since version 2.40 the attribute holds a DER OCTET STRING around the point;
//! some modules give the bare point. What their profile says is read, nothing else.

use fob_verify::{Algorithm, IssuerKey};

use super::profile::PointForm;

const DER_OCTET_STRING: u8 = 0x04;
const UNCOMPRESSED: u8 = 0x04;

/// The public key in `ec_point`, or `None` if it is in no form we know.
///
/// A point that does not lie on its curve is in no form we know either.
pub(super) fn public_key(
    algorithm: Algorithm,
    form: PointForm,
    ec_point: &[u8],
) -> Option<IssuerKey> {
    match algorithm {
        Algorithm::Es256 | Algorithm::Esp256 => {
            let (x, y) = p256_coordinates(form, ec_point)?;
            IssuerKey::new_p256(algorithm, x, y).ok()
        }
        Algorithm::Ed25519 => {
            let octets = unwrap_octets(form, ec_point, 32)?.try_into().ok()?;
            IssuerKey::new_ed25519(octets).ok()
        }
    }
}

fn p256_coordinates(form: PointForm, ec_point: &[u8]) -> Option<(&[u8; 32], &[u8; 32])> {
    let (&first, coordinates) = unwrap_octets(form, ec_point, 65)?.split_first()?;
    let (x, y) = coordinates.split_at_checked(32)?;
    (first == UNCOMPRESSED).then_some(())?;
    Some((x.try_into().ok()?, y.try_into().ok()?))
}

/// The `len` bytes inside a DER OCTET STRING, or, where that may be, the `len` bytes
/// as they are. The lengths tell the two apart.
fn unwrap_octets(form: PointForm, bytes: &[u8], len: u8) -> Option<&[u8]> {
    match bytes {
        [DER_OCTET_STRING, found, inner @ ..]
            if *found == len && inner.len() == usize::from(len) =>
        {
            Some(inner)
        }
        bare if form == PointForm::WrappedOrBare && bare.len() == usize::from(len) => Some(bare),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    };

    use super::*;

    fn p256_point() -> Vec<u8> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        pair.public_key().as_ref().to_vec()
    }

    fn ed25519_point() -> Vec<u8> {
        Ed25519KeyPair::generate()
            .unwrap()
            .public_key()
            .as_ref()
            .to_vec()
    }

    #[test]
    fn wrapped_and_bare_points_are_the_same_key() {
        for (algorithm, bare) in [
            (Algorithm::Esp256, p256_point()),
            (Algorithm::Ed25519, ed25519_point()),
        ] {
            let wrapped = [&[DER_OCTET_STRING, bare.len() as u8][..], &bare].concat();
            let either = PointForm::WrappedOrBare;
            let key = public_key(algorithm, either, &bare).unwrap();
            assert_eq!(key.public().as_bytes(), bare);
            for form in [either, PointForm::Wrapped] {
                assert_eq!(public_key(algorithm, form, &wrapped), Some(key));
            }
            assert_eq!(public_key(algorithm, PointForm::Wrapped, &bare), None);
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let good = p256_point();
        let mut compressed = good.clone();
        compressed[0] = 0x02;
        for wrong in [
            &compressed[..],
            &good[..64],
            &[],
            &[0x04],
            &[0x04, 65],
            &[9; 67],
        ] {
            assert_eq!(
                public_key(Algorithm::Esp256, PointForm::WrappedOrBare, wrong),
                None,
                "{wrong:?}"
            );
        }
        for wrong in [&[0x04, 31][..], &[7; 31], &[7; 33], &[7; 34]] {
            assert_eq!(
                public_key(Algorithm::Ed25519, PointForm::WrappedOrBare, wrong),
                None,
                "{wrong:?}"
            );
        }
    }
}
