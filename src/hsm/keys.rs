//! Key objects in a token, floor 2: generate, find, describe, destroy.
//!
//! Every function here works in one session and expects the module's object
//! lock to be held. Deliberately absent: importing, wrapping and reading keys.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use cryptoki::error::RvError;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState};
use fob_verify::{Algorithm, IssuerKey};
use serde::{Deserialize, Serialize};

use super::attributes::{KeyAttributes, refuse};
use super::check::verify_signature;
use super::template::{P256_PARAMS, generate_pair};
use super::{HsmError, KeyRef, Profile, Signature, hex, point};

/// A key pair just generated in a token, read back and tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratedKey {
    /// Its name in the token.
    pub key: KeyRef,
    /// Its public half.
    pub public: IssuerKey,
    /// What the token says of the private half.
    pub attributes: KeyAttributes,
}

/// What kind of key a private key object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `CKK_EC` on P-256.
    P256,
    /// `CKK_EC_EDWARDS`.
    Ed25519,
    /// Anything else; never of use here.
    Other,
}

/// A private key object found in a token, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenKey {
    /// `CKA_ID` in hex; 32 digits for keys of ours.
    pub id: String,
    /// `CKA_LABEL`.
    pub label: String,
    /// Its kind.
    pub kind: KeyKind,
    /// What the token says of it.
    pub attributes: KeyAttributes,
}

/// The mechanisms `algorithm` needs: to generate, to sign.
pub(super) fn mechanisms(algorithm: Algorithm) -> [(MechanismType, &'static str); 2] {
    if algorithm.is_p256() {
        [
            (MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"),
            (MechanismType::ECDSA, "CKM_ECDSA"),
        ]
    } else {
        [
            (
                MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
                "CKM_EC_EDWARDS_KEY_PAIR_GEN",
            ),
            (MechanismType::EDDSA, "CKM_EDDSA"),
        ]
    }
}

/// Signs bytes as they are by the binding's own calls. Returns the length of
/// what the token made, of which 64 bytes are kept.
pub(super) fn sign_guarded(
    session: &Session,
    algorithm: Algorithm,
    key: ObjectHandle,
    data: &[u8],
    signature: &mut Signature,
) -> Result<usize, HsmError> {
    let made = if algorithm.is_p256() {
        session.sign(&Mechanism::Ecdsa, key, data)?
    } else {
        session.sign(
            &Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
            key,
            data,
        )?
    };
    for (place, byte) in signature.iter_mut().zip(&made) {
        *place = *byte;
    }
    Ok(made.len())
}

/// Generates a key pair, reads it back and tries it. A key that is not as it
/// must be is destroyed at once.
pub(super) fn generate(
    session: &Session,
    profile: &Profile,
    algorithm: Algorithm,
    label: &str,
) -> Result<GeneratedKey, HsmError> {
    let mut id = [0_u8; 16];
    rand::fill(&mut id).map_err(|_| HsmError::System {
        what: "random numbers",
    })?;
    let key = KeyRef { id, algorithm };
    let (public, private) = generate_pair(session, profile, &key, label)
        .map_err(|error| HsmError::from(error).after_change())?;
    describe(session, profile, &key, public, private).map_err(|error| {
        destroy_objects(session, &[private, public], &key);
        error.after_change()
    })
}

/// Reads a fresh pair back and tries it on a message nobody could foresee.
fn describe(
    session: &Session,
    profile: &Profile,
    key: &KeyRef,
    public: ObjectHandle,
    private: ObjectHandle,
) -> Result<GeneratedKey, HsmError> {
    let attributes = KeyAttributes::read(session, profile, private)?;
    refuse(&key.id, attributes.offence())?;
    let public = read_point(session, profile, key, public)?;
    let mut message = [0_u8; 32];
    rand::fill(&mut message).map_err(|_| HsmError::System {
        what: "random numbers",
    })?;
    let mut signature: Signature = [0; 64];
    let hash = digest(&SHA256, &message);
    let data = if key.algorithm.is_p256() {
        hash.as_ref()
    } else {
        &message
    };
    let filled = sign_guarded(session, key.algorithm, private, data, &mut signature)?;
    if filled != signature.len() {
        return Err(HsmError::SignatureInvalid {
            reason: "it is not 64 bytes long",
        });
    }
    if !verify_signature(&public, &message, &signature) {
        return Err(HsmError::SignatureInvalid {
            reason: "it does not verify against the public key",
        });
    }
    Ok(GeneratedKey {
        key: *key,
        public,
        attributes,
    })
}

/// The private key object of `key` in the token, checked to be one that may sign.
pub(super) fn open_private(
    session: &Session,
    profile: &Profile,
    key: &KeyRef,
) -> Result<ObjectHandle, HsmError> {
    let private = find_private(session, key)?;
    refuse(
        &key.id,
        KeyAttributes::read(session, profile, private)?.offence(),
    )?;
    let wanted = if key.algorithm.is_p256() {
        KeyKind::P256
    } else {
        KeyKind::Ed25519
    };
    if kind(&session.get_attributes(private, &[AttributeType::KeyType, AttributeType::EcParams])?)
        != wanted
    {
        return Err(HsmError::KeyKind { id: key.id_hex() });
    }
    Ok(private)
}

/// The private key object of `key`, not checked.
pub(super) fn find_private(session: &Session, key: &KeyRef) -> Result<ObjectHandle, HsmError> {
    let found = find(session, ObjectClass::PRIVATE_KEY, key)?;
    match found.as_slice() {
        [] => {
            // A session that lost its login sees no private objects, and says so no other way.
            require_login(session)?;
            Err(HsmError::KeyNotFound { id: key.id_hex() })
        }
        [one] => Ok(*one),
        _ => Err(HsmError::KeyAmbiguous { id: key.id_hex() }),
    }
}

/// Is the user logged in, as this session sees it?
pub(super) fn require_login(session: &Session) -> Result<(), HsmError> {
    match session.get_session_info()?.session_state() {
        SessionState::RoUser | SessionState::RwUser => Ok(()),
        _ => Err(super::error::failed(
            "C_GetSessionInfo".to_owned(),
            RvError::UserNotLoggedIn,
        )),
    }
}

/// The public half of `key`.
pub(super) fn public_key(
    session: &Session,
    profile: &Profile,
    key: &KeyRef,
) -> Result<IssuerKey, HsmError> {
    let found = find(session, ObjectClass::PUBLIC_KEY, key)?;
    match found.as_slice() {
        [one] => read_point(session, profile, key, *one),
        [] => Err(HsmError::PublicKeyUnreadable {
            id: key.id_hex(),
            reason: "there is no public key object",
        }),
        _ => Err(HsmError::KeyAmbiguous { id: key.id_hex() }),
    }
}

fn read_point(
    session: &Session,
    profile: &Profile,
    key: &KeyRef,
    public: ObjectHandle,
) -> Result<IssuerKey, HsmError> {
    let unreadable = |reason| HsmError::PublicKeyUnreadable {
        id: key.id_hex(),
        reason,
    };
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let Some(Attribute::EcPoint(ec_point)) = attributes.first() else {
        return Err(unreadable("it has no CKA_EC_POINT"));
    };
    point::public_key(key.algorithm, profile.points, ec_point)
        .ok_or_else(|| unreadable("its CKA_EC_POINT is no point of the curve"))
}

/// Destroys both halves of `key`.
pub(super) fn destroy(session: &Session, key: &KeyRef) -> Result<(), HsmError> {
    // The private half may be one that is refused: that is no reason to keep it.
    let private = find_private(session, key)?;
    session
        .destroy_object(private)
        .map_err(|error| HsmError::from(error).after_change())?;
    for public in find(session, ObjectClass::PUBLIC_KEY, key)? {
        session
            .destroy_object(public)
            .map_err(|error| HsmError::from(error).after_change())?;
    }
    Ok(())
}

/// Every private key in the token.
pub(super) fn list(session: &Session, profile: &Profile) -> Result<Vec<TokenKey>, HsmError> {
    let objects = session.find_objects(&[
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
    ])?;
    objects
        .into_iter()
        .map(|object| describe_found(session, profile, object))
        .collect()
}

fn describe_found(
    session: &Session,
    profile: &Profile,
    object: ObjectHandle,
) -> Result<TokenKey, HsmError> {
    let wanted = [
        AttributeType::Id,
        AttributeType::Label,
        AttributeType::KeyType,
        AttributeType::EcParams,
    ];
    let found = session.get_attributes(object, &wanted)?;
    let mut key = TokenKey {
        id: String::new(),
        label: String::new(),
        kind: kind(&found),
        attributes: KeyAttributes::read(session, profile, object)?,
    };
    for attribute in found {
        match attribute {
            Attribute::Id(id) => key.id = hex(&id),
            Attribute::Label(label) => key.label = String::from_utf8_lossy(&label).into_owned(),
            _ => {}
        }
    }
    Ok(key)
}

/// A token that leaves out the parameters of an Edwards key is believed: there
/// is a trial signature, and Ed448 makes longer ones.
fn kind(attributes: &[Attribute]) -> KeyKind {
    let mut kind = KeyKind::Other;
    let mut p256 = false;
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(KeyType::EC) => kind = KeyKind::P256,
            Attribute::KeyType(KeyType::EC_EDWARDS) => kind = KeyKind::Ed25519,
            Attribute::EcParams(params) => p256 = params == P256_PARAMS,
            _ => {}
        }
    }
    if kind == KeyKind::P256 && !p256 {
        KeyKind::Other
    } else {
        kind
    }
}

/// Objects of `key` in the token. Session copies have the same `CKA_ID` and are left out.
fn find(
    session: &Session,
    class: ObjectClass,
    key: &KeyRef,
) -> Result<Vec<ObjectHandle>, HsmError> {
    let template = [
        Attribute::Class(class),
        Attribute::Token(true),
        Attribute::Id(key.id.to_vec()),
    ];
    Ok(session.find_objects(&template)?)
}

/// Destroys what a failed generation left; what cannot be destroyed is told to the log.
fn destroy_objects(session: &Session, objects: &[ObjectHandle], key: &KeyRef) {
    for object in objects {
        if let Err(error) = session.destroy_object(*object) {
            tracing::error!(key = key.id_hex(), %error, "a refused key could not be destroyed; remove it with the HSM's own tools");
        }
    }
}
