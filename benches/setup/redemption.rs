//! A redemption as the book is told of it: of its bundle only the authorization matters there.

use std::sync::{Arc, OnceLock};

use fob::domain::{
    AuthorizationId, Bundle, BundleId, EpochId, FleetId, IdentityId, VehicleId, Window,
};
use fob::store::{Proof, Redemption, SignedBundle, Write};
use fob_verify::{Algorithm, HolderKey};

/// The redemption of `authorization`.
pub fn redeem(authorization: AuthorizationId) -> Write {
    static EMPTY: OnceLock<Bundle> = OnceLock::new();
    let bundle = Bundle {
        authorization,
        ..EMPTY.get_or_init(empty).clone()
    };
    Write::Redeem(Arc::new(Redemption {
        signed: SignedBundle {
            bundle,
            proof: Proof::Each(Vec::new()),
        },
        terminal: None,
        status_next: 0,
        order: None,
        relies_on: fob::store::ReliedOn::default(),
    }))
}

fn empty() -> Bundle {
    // RFC 8032 §7.1, test 1.
    let x = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\
               \x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";
    Bundle {
        id: BundleId([0; 16]),
        authorization: AuthorizationId([0; 16]),
        version: 1,
        fleet: FleetId([1; 16]),
        vehicle: VehicleId::parse("V").unwrap(),
        vehicle_epoch: 0,
        identity: IdentityId::parse("renter").unwrap(),
        holder: HolderKey::new_ed25519(&x).unwrap(),
        epoch: EpochId([0; 8]),
        algorithm: Algorithm::Esp256,
        issuer: "fob.bench".into(),
        issued_at: 0,
        window: Window {
            not_before: 0,
            not_after: 1,
        },
        region: None,
        recurring: None,
        subjects: [].into(),
        keys: Vec::new(),
    }
}
