//! What a new key pair is asked to be, floor 2. Only a wish: what counts is read back.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::Session;

use super::{KeyRef, Profile};

/// `secp256r1`, OID 1.2.840.10045.3.1.7, in DER.
pub(super) const P256_PARAMS: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Generates a pair: its public and its private half.
pub(super) fn generate_pair(
    session: &Session,
    profile: &Profile,
    key: &KeyRef,
    label: &str,
) -> Result<(ObjectHandle, ObjectHandle), Error> {
    let private = private_template(key, label);
    if key.algorithm.is_p256() {
        return session.generate_key_pair(
            &Mechanism::EccKeyPairGen,
            &public_template(profile, key, label, P256_PARAMS),
            &private,
        );
    }
    let on_ed25519 = |params: &&[u8]| {
        session.generate_key_pair(
            &Mechanism::EccEdwardsKeyPairGen,
            &public_template(profile, key, label, params),
            &private,
        )
    };
    let mut made = Err(Error::NotSupported);
    for params in profile.ed25519_params {
        made = on_ed25519(params);
        if !made.as_ref().is_err_and(is_about_the_curve) {
            break;
        }
    }
    made
}

/// Does a module say that it knows no curve by that name?
fn is_about_the_curve(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::CurveNotSupported
                | RvError::DomainParamsInvalid
                | RvError::AttributeValueInvalid
                | RvError::TemplateInconsistent,
            _,
        )
    )
}

/// Says nothing of `CKA_VERIFY`: nothing is verified in the token, and a TPM has one bit for
/// verifying and decrypting, so tpm2-pkcs11 makes no key that may do the first and not the second.
fn public_template(profile: &Profile, key: &KeyRef, label: &str, params: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(!profile.public_objects),
        Attribute::EcParams(params.to_vec()),
        Attribute::Id(key.id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}

fn private_template(key: &KeyRef, label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Id(key.id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}
