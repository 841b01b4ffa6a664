//! Fixed keys and one of every object. The private keys are printed in the
//! vectors: they are for tests alone.

use fob_verify::ack::{self, Ack};
use fob_verify::code_set::CodeSet;
use fob_verify::key::{self, Claims, StatusRef};
use fob_verify::receipt;
use fob_verify::region::{Circle, Polygon, Position, Region};
use fob_verify::sign1::ToBeSigned;
use fob_verify::status;
use fob_verify::sync;
use fob_verify::tree::{Hash, Section, Tree};
use fob_verify::trust::{self, Draft, Entry};
use fob_verify::use_proof::{self, Use};
use fob_verify::window::{Recurring, Window};
use fob_verify::{Algorithm, HolderKey, IssuerKey, PublicKey};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use sha2::{Digest, Sha256};

/// 2026-01-05T00:00:00Z, a Monday.
pub(crate) const ISSUED: u64 = 1_767_571_200;
/// 2026-01-05T08:00:00Z
pub(crate) const NOT_BEFORE: u64 = ISSUED + 8 * 3600;
/// 2026-01-12T08:00:00Z
pub(crate) const EXPIRES: u64 = NOT_BEFORE + 7 * 86_400;
/// 2026-01-05T09:30:00Z: in every window of every key here.
pub(crate) const NOW: u64 = ISSUED + 9 * 3600 + 1800;

pub(crate) const ISSUER: &str = "fob.example";
pub(crate) const VEHICLE: &str = "DEMO-0001";
pub(crate) const STATUS_URI: &str = "https://fob.example/v1/status/7";
pub(crate) const FLEET: [u8; 16] = id(0xf1);
pub(crate) const BUNDLE: [u8; 16] = id(0xb1);
pub(crate) const KEY_ID: [u8; 16] = id(0xc1);
pub(crate) const CODE_SET: [u8; 16] = id(0xc5);
pub(crate) const CHALLENGE: [u8; 16] = *b"challenge-000001";
/// The server's key for code set secrets.
pub(crate) const CODE_SET_KEY: [u8; 32] = [0xcd; 32];

/// A UUIDv7 of 2026-01-05T00:00:00Z with a telling last octet.
pub(crate) const fn id(last: u8) -> [u8; 16] {
    let [_, _, a, b, c, d, e, f] = (ISSUED * 1000).to_be_bytes();
    [a, b, c, d, e, f, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, last]
}

/// A key pair of the tests.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    pub(crate) name: &'static str,
    pub(crate) algorithm: Algorithm,
    /// The scalar of P-256, big-endian, or the seed of Ed25519.
    pub(crate) octets: [u8; 32],
}

const fn secret(name: &'static str, algorithm: Algorithm, octet: u8) -> Secret {
    Secret {
        name,
        algorithm,
        octets: [octet; 32],
    }
}

pub(crate) const ROOT: Secret = secret("root", Algorithm::Esp256, 0x11);
pub(crate) const NEXT_ROOT: Secret = secret("next root", Algorithm::Ed25519, 0x88);
pub(crate) const ESP256: Secret = secret("issuer ESP256", Algorithm::Esp256, 0x22);
pub(crate) const ES256: Secret = secret("issuer ES256", Algorithm::Es256, 0x44);
pub(crate) const ED25519: Secret = secret("issuer Ed25519", Algorithm::Ed25519, 0x33);
pub(crate) const PHONE: Secret = secret("holder P-256", Algorithm::Esp256, 0x55);
pub(crate) const ED_PHONE: Secret = secret("holder Ed25519", Algorithm::Ed25519, 0x66);
pub(crate) const OWNER: Secret = secret("owner terminal P-256", Algorithm::Es256, 0x77);

pub(crate) const CAR: Secret = secret("vehicle P-256", Algorithm::Esp256, 0x99);

pub(crate) const SECRETS: [Secret; 9] = [
    ROOT, NEXT_ROOT, ESP256, ES256, ED25519, PHONE, ED_PHONE, OWNER, CAR,
];

impl Secret {
    pub(crate) fn public(&self) -> PublicKey {
        if self.algorithm == Algorithm::Ed25519 {
            let key = ed25519_dalek::SigningKey::from_bytes(&self.octets);
            PublicKey::ed25519(key.verifying_key().as_bytes()).unwrap()
        } else {
            let point = self.p256().verifying_key().to_sec1_point(false);
            PublicKey::from_sec1(point.as_bytes()).unwrap()
        }
    }

    pub(crate) fn issuer(&self) -> IssuerKey {
        IssuerKey::new(self.algorithm, self.public()).unwrap()
    }

    pub(crate) fn holder(&self) -> HolderKey {
        HolderKey::new(self.public())
    }

    /// Deterministic: RFC 6979 for ECDSA, RFC 8032 for Ed25519.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        if self.algorithm == Algorithm::Ed25519 {
            use ed25519_dalek::Signer;
            let key = ed25519_dalek::SigningKey::from_bytes(&self.octets);
            key.sign(message).to_bytes()
        } else {
            let digest = Sha256::digest(message);
            let signature: p256::ecdsa::Signature = self.p256().sign_prehash(&digest).unwrap();
            signature.to_bytes().into()
        }
    }

    pub(crate) fn finish(&self, message: &ToBeSigned) -> Vec<u8> {
        message.assemble(&self.sign(message.message()))
    }

    fn p256(&self) -> p256::ecdsa::SigningKey {
        p256::ecdsa::SigningKey::from_slice(&self.octets).unwrap()
    }
}

/// A key with a circle, a limit of uses and a recurring window.
pub(crate) fn full_claims() -> Claims<'static> {
    let gate = Position::new(525_162_720, 133_777_220).unwrap();
    Claims {
        issuer: ISSUER,
        vehicle: VEHICLE,
        expires: EXPIRES,
        not_before: NOT_BEFORE,
        issued_at: ISSUED,
        key_id: KEY_ID,
        holder: PHONE.holder(),
        function_name: "doors.unlock",
        status: StatusRef {
            index: 4711,
            uri: STATUS_URI,
        },
        function: 1,
        bundle: BUNDLE,
        version: 1,
        vehicle_epoch: 3,
        region: Some(Region::Circle(Circle::new(gate, 5000).unwrap())),
        max_uses: Some(100),
        fleet: FLEET,
        recurring: Some(Recurring::new(&[working_week()]).unwrap()),
    }
}

/// A key without any limit that may be left out, for an Ed25519 holder.
pub(crate) fn plain_claims() -> Claims<'static> {
    Claims {
        key_id: id(0xc2),
        holder: ED_PHONE.holder(),
        function_name: "engine.start",
        function: 3,
        region: None,
        max_uses: None,
        recurring: None,
        ..full_claims()
    }
}

/// A key for a polygon across the antimeridian, and for nights.
pub(crate) fn fiji_claims() -> Claims<'static> {
    let corners = [(-21, 176), (-21, -178), (-15, -178), (-15, 176)]
        .map(|(lat, lon)| Position::new(lat * 10_000_000, lon * 10_000_000).unwrap());
    let friday_night = Window::new(0b001_0000, 1320, 360, -600).unwrap();
    let windows = [working_week(), friday_night];
    Claims {
        key_id: id(0xc3),
        function_name: "fleet.custom",
        function: 256,
        version: 2,
        region: Some(Region::Polygon(Polygon::new(&corners).unwrap())),
        max_uses: None,
        recurring: Some(Recurring::new(&windows).unwrap()),
        ..full_claims()
    }
}

fn working_week() -> Window {
    Window::new(0b001_1111, 480, 1080, 60).unwrap()
}

pub(crate) fn key_message(issuer: &Secret, claims: &Claims<'_>) -> ToBeSigned {
    let header = key::protected_header(issuer.algorithm, &issuer.issuer().kid());
    key::encode(&header, claims).unwrap()
}

pub(crate) fn key(issuer: &Secret, claims: &Claims<'_>) -> Vec<u8> {
    issuer.finish(&key_message(issuer, claims))
}

/// The sizes of the trees in the vectors.
pub(crate) const TREE_SIZES: [u64; 5] = [2, 3, 7, 8, 13];

/// What stands at a place of every tree here: second the key of all the other
/// examples, and keys without optional claims around it.
pub(crate) fn tree_claims(at: u64) -> Claims<'static> {
    if at == 1 {
        return full_claims();
    }
    let number = u8::try_from(at).unwrap();
    Claims {
        key_id: id(0xd0 + number),
        function: u16::from(number) + 1,
        function_name: "of.a.tree",
        ..plain_claims()
    }
}

/// The parts of a key in a tree, each step of the way to it.
pub(crate) struct InTree {
    pub(crate) size: u64,
    pub(crate) index: u64,
    pub(crate) protected: [u8; key::PROTECTED_LEN],
    pub(crate) claims: Vec<u8>,
    pub(crate) leaf: Hash,
    pub(crate) path: Vec<Hash>,
    pub(crate) root: Hash,
    pub(crate) receipt_protected: [u8; receipt::PROTECTED_LEN],
    pub(crate) to_be_signed: Vec<u8>,
    pub(crate) signature: [u8; 64],
}

impl InTree {
    /// The finished key.
    pub(crate) fn assemble(&self) -> Vec<u8> {
        self.assemble_at(self.size, self.index)
    }

    /// The same key, said to stand elsewhere.
    pub(crate) fn assemble_at(&self, size: u64, index: u64) -> Vec<u8> {
        let mut out = vec![];
        receipt::assemble(
            &mut out,
            &self.protected,
            &self.claims,
            &self.receipt_protected,
            size,
            index,
            self.path.iter(),
            &self.signature,
        );
        out
    }
}

/// A key of the tree of this size.
pub(crate) fn in_tree(issuer: &Secret, size: u64, index: u64) -> InTree {
    let kid = issuer.issuer().kid();
    let protected = key::protected_header(issuer.algorithm, &kid);
    let encoded: Vec<Vec<u8>> = (0..size)
        .map(|at| {
            let mut claims = vec![];
            key::encode_claims(&mut claims, &tree_claims(at)).unwrap();
            claims
        })
        .collect();
    let leaves = encoded.iter().map(|claims| key::leaf(&protected, claims));
    let tree = Tree::new(leaves.collect());
    let at = usize::try_from(index).unwrap();
    let leaf = key::leaf(&protected, &encoded[at]);
    let outside = tree.outside(index, 1);
    let section = Section::new(size, index, vec![leaf], &outside).unwrap();
    let receipt_protected = receipt::protected_header(issuer.algorithm, &kid);
    let to_be_signed = receipt::to_be_signed(&receipt_protected, tree.root());
    InTree {
        size,
        index,
        protected,
        claims: encoded[at].clone(),
        leaf,
        path: section.path(0).copied().collect(),
        root: *tree.root(),
        receipt_protected,
        signature: issuer.sign(&to_be_signed),
        to_be_signed,
    }
}

pub(crate) fn entries() -> [Entry; 3] {
    [ESP256, ES256, ED25519].map(|issuer| Entry {
        key: issuer.issuer(),
        not_before: ISSUED - 86_400,
        not_after: ISSUED + 89 * 86_400,
    })
}

pub(crate) fn draft(entries: &[Entry]) -> Draft<'_> {
    Draft {
        issuer: ISSUER,
        expires: ISSUED + 365 * 86_400,
        issued_at: ISSUED - 86_400,
        version: 7,
        entries,
        next_root: Some(NEXT_ROOT.issuer()),
    }
}

pub(crate) fn trust_message() -> ToBeSigned {
    trust::to_be_signed(&draft(&entries()), &ROOT.issuer()).unwrap()
}

pub(crate) fn trust_list() -> Vec<u8> {
    ROOT.finish(&trust_message())
}

/// A list of 131072 entries as zlib makes it at level 9: 100 and 131071 are
/// revoked, 4712 is suspended, all others are valid.
pub(crate) const COMPRESSED: &str = "78daedd0310100300803b03265f8578502def12412922c2a00479e\
     020000000000000000000000000000000000000000000000000000000000007eeb01f7020044";

/// When the list and the sync of the examples are made: 2026-01-05T09:00:00Z.
pub(crate) const LISTED: u64 = ISSUED + 9 * 3600;

pub(crate) fn status_draft(compressed: &[u8]) -> status::Draft<'_> {
    status::Draft {
        uri: STATUS_URI,
        expires: LISTED + 7 * 86_400,
        issued_at: LISTED,
        ttl_s: 3600,
        compressed,
    }
}

pub(crate) fn status_message() -> ToBeSigned {
    let compressed = crate::annotate::unhex(COMPRESSED);
    status::to_be_signed(
        &status_draft(&compressed),
        ESP256.algorithm,
        &ESP256.issuer().kid(),
    )
    .unwrap()
}

pub(crate) fn status_list() -> Vec<u8> {
    ESP256.finish(&status_message())
}

pub(crate) fn sync_draft() -> sync::Draft<'static> {
    sync::Draft {
        vehicle: VEHICLE,
        expires: LISTED + 86_400,
        issued_at: LISTED,
        fleet: FLEET,
        vehicle_epoch: 3,
        trust_version: 7,
        status_uris: &["https://fob.example/v1/status/12", STATUS_URI],
    }
}

pub(crate) fn sync_message() -> ToBeSigned {
    sync::to_be_signed(&sync_draft(), ESP256.algorithm, &ESP256.issuer().kid()).unwrap()
}

pub(crate) fn sync() -> Vec<u8> {
    ESP256.finish(&sync_message())
}

pub(crate) fn the_ack() -> Ack<'static> {
    Ack {
        vehicle: VEHICLE,
        issued_at: LISTED + 60,
        applied: Some(sync::digest(&sync())),
    }
}

pub(crate) fn ack_message() -> ToBeSigned {
    ack::to_be_signed(&the_ack(), CAR.algorithm, &CAR.public()).unwrap()
}

pub(crate) fn ack() -> Vec<u8> {
    CAR.finish(&ack_message())
}

pub(crate) fn the_use() -> Use<'static> {
    Use {
        key_id: KEY_ID,
        function_name: "doors.unlock",
        nonce: &CHALLENGE,
    }
}

pub(crate) fn proof_message() -> ToBeSigned {
    use_proof::to_be_signed(PHONE.algorithm, &the_use()).unwrap()
}

pub(crate) fn proof() -> Vec<u8> {
    PHONE.finish(&proof_message())
}

/// HMAC-SHA-256 (RFC 2104) for keys up to a block.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |octet: u8| -> [u8; 64] {
        std::array::from_fn(|i| key.get(i).copied().unwrap_or(0) ^ octet)
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

/// `fleet id ‖ code set id ‖ version`, what secret and PIN are derived from.
pub(crate) fn secret_input() -> Vec<u8> {
    [&FLEET[..], &CODE_SET, &1u32.to_be_bytes()].concat()
}

pub(crate) fn code_set() -> CodeSet {
    let mac = hmac(&CODE_SET_KEY, &secret_input());
    let secret = *mac.first_chunk().unwrap();
    CodeSet::new(CODE_SET, secret, &[1, 2, 3]).unwrap()
}
