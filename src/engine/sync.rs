//! What cars are told: floor 3. A car sends what it has applied, and is sent what it needs to know:
//! its epoch, the trust list and the status lists of its keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use fob_verify::ack::{ACK_LEN_MAX, Ack, SignedAck};
use fob_verify::sync::{Draft, STATUS_URIS_MAX, digest, to_be_signed};
use fob_verify::{RustCrypto, Verified};

use super::book::FleetBook;
use super::{Engine, Failure, hsm_unavailable, sign};
use crate::concurrent;
use crate::domain::{
    Authorization, AuthorizationState, Bundle, Epoch, KeyId, KeyStatus, Refusal, RefusalCode,
    ShardId, UnixTime, Vehicle, VehicleId,
};
use crate::store::{Applied, Contact, Sent, SignedBundle, Write};

/// Seconds by which a car's clock may be ahead.
const AHEAD_MAX_S: u64 = 300;

/// For how long a sync may be applied, in seconds.
const LIFETIME_S: u64 = 7 * 86_400;

/// What a car is sent.
pub struct Synced {
    /// The sync, the trust list and the status lists it names, in this order.
    pub parts: Vec<Arc<[u8]>>,
}

/// What a phone carries to a car that has no network, beside a bundle.
pub struct Staple {
    /// The trust list.
    pub trust: Arc<[u8]>,
    /// The status lists of the bundle's keys.
    pub lists: Vec<Arc<[u8]>>,
}

/// An authorization's end, as far as the car knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The car may still take its keys.
    Terminating,
    /// The car has acknowledged, or every key has expired.
    Terminated,
}

impl Ended {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminating => "terminating",
            Self::Terminated => "terminated",
        }
    }
}

/// Whether the car has acknowledged a sync that includes the last amendment of an authorization.
fn knows(fleet: &FleetBook, authorization: &Authorization) -> bool {
    let contact = fleet.contact(authorization.vehicle.as_str());
    let acked = contact.and_then(|contact| contact.acked);
    acked.is_some_and(|acked| acked.revision >= authorization.revision())
}

impl Engine {
    /// Takes a car's acknowledgement, and sends it what it needs to know.
    ///
    /// # Errors
    /// `malformed` for what is no acknowledgement, `unauthenticated` for one that is not of a
    /// vehicle of that id with a registered key.
    pub async fn sync(&self, vehicle: &str, ack: &[u8]) -> Result<Synced, Failure> {
        let (fleet, known, ack) = self.believe_ack(vehicle, ack)?;
        let before = fleet.contact(known.id.as_str());
        // Or whoever has kept an old one could make the server forget what it sent last.
        if before.is_some_and(|before| ack.issued_at <= before.heard_at) {
            return Err(Refusal::new(RefusalCode::CommandReplayed)
                .detail("an ack must be later than the one before")
                .into());
        }
        let acked = before.and_then(|before| {
            let sent = Some(before.sent).filter(|sent| ack.applied == Some(sent.digest));
            sent.or(before.acked)
        });
        let (synced, sent) = self.tell(&fleet, &known).await?;
        let contact = Contact {
            heard_at: ack.issued_at,
            sent,
            acked,
        };
        let write = Write::Contact(fleet.fleet.id, known.id.clone(), contact);
        match self.write(vec![write]).await?.first() {
            Some(Applied::Done) => Ok(synced),
            _ => Err(RefusalCode::NotFound.into()),
        }
    }

    /// What a car would be sent now; nothing is noted of it.
    ///
    /// # Errors
    /// `not_found`, `hsm_unavailable`.
    pub async fn sync_shown(
        &self,
        fleet: &Arc<FleetBook>,
        vehicle: &str,
    ) -> Result<Synced, Failure> {
        let known = fleet.vehicle(vehicle);
        let known = known.ok_or_else(|| Refusal::new(RefusalCode::NotFound))?;
        let (synced, _) = self.tell(fleet, &known).await?;
        Ok(synced)
    }

    /// The trust list, and fresh status lists of a bundle's keys; those that cannot be had now are
    /// left out. `None` where there is no trust list.
    pub async fn staple(&self, bundle: &Bundle) -> Option<Staple> {
        let trust = Arc::clone(&self.book().trust()?.bytes);
        let shards = bundle.subjects.iter();
        let shards: BTreeSet<_> = shards
            .filter_map(|subject| ShardId::at(&subject.status_uri))
            .collect();
        let mut lists = Vec::with_capacity(shards.len());
        for id in shards {
            if let Ok(Some(list)) = self.status_list(id).await {
                lists.push(Arc::clone(&list.bytes));
            }
        }
        Some(Staple { trust, lists })
    }

    /// How far the end of an authorization has come; `None` where it has not ended, or nothing was
    /// issued on it.
    pub fn ended(&self, fleet: &FleetBook, authorization: &Authorization) -> Option<Ended> {
        let over = authorization.state == AuthorizationState::Cancelled && authorization.redeemed;
        over.then(|| {
            // Keys of a version before may last longer than the authorization does now.
            let changed = authorization
                .amended()
                .is_some_and(|it| it.code_set.is_some());
            let expired = !changed && authorization.window.not_after <= self.clock().unix();
            if expired || knows(fleet, authorization) {
                Ended::Terminated
            } else {
                Ended::Terminating
            }
        })
    }

    /// Keys that were revoked while their authorization goes on, and have not expired: how far the
    /// end of each has come. An authorization that has ended speaks for all of its own.
    ///
    /// # Errors
    /// As [`Engine::bundle`].
    pub async fn ended_keys(
        &self,
        fleet: &FleetBook,
        authorization: &Authorization,
    ) -> Result<Vec<(KeyId, Arc<str>, Ended)>, Failure> {
        let amended = authorization.revision() > 0;
        if !amended || authorization.state == AuthorizationState::Cancelled {
            return Ok(Vec::new());
        }
        let ended = if knows(fleet, authorization) {
            Ended::Terminated
        } else {
            Ended::Terminating
        };
        let now = self.clock().unix();
        let mut keys = Vec::new();
        for SignedBundle { bundle, .. } in self.versions_of(authorization).await? {
            if bundle.window.not_after <= now {
                continue;
            }
            let standing = self.book().statuses.of_bundle(&bundle);
            for (subject, status) in bundle.subjects.iter().zip(standing) {
                if status == KeyStatus::Revoked {
                    keys.push((bundle.key_id(subject), Arc::clone(&subject.name), ended));
                }
            }
        }
        Ok(keys)
    }

    /// Vehicle ids are unique within a fleet, and an acknowledgement does not say which: the key
    /// tells.
    fn believe_ack<'a>(
        &self,
        vehicle: &str,
        ack: &'a [u8],
    ) -> Result<(Arc<FleetBook>, Arc<Vehicle>, Ack<'a>), Refusal> {
        if ack.len() > ACK_LEN_MAX {
            return Err(Refusal::malformed("body", "an ack is not as long as that"));
        }
        let signed = SignedAck::decode(ack)
            .map_err(|why| Refusal::malformed("body", format!("this is no ack: {why}")))?;
        let now = self.clock().unix();
        let mut refusal = Refusal::new(RefusalCode::Unauthenticated)
            .detail("no vehicle of this id with a registered key has signed this");
        for fleet in self.book().fleets() {
            let Some(known) = fleet.vehicle(vehicle) else {
                continue;
            };
            let Some(key) = &known.key else { continue };
            let verified = signed.verify(vehicle, key.public(), &RustCrypto);
            let Ok(ack) = verified.map(Verified::into_inner) else {
                continue;
            };
            if ack.issued_at <= now + AHEAD_MAX_S {
                return Ok((fleet, known, ack));
            }
            refusal = refusal.detail("it is from the future");
        }
        Err(refusal)
    }

    /// Signs a sync for a vehicle, the lists beside it fresh.
    async fn tell(
        &self,
        fleet: &Arc<FleetBook>,
        vehicle: &Vehicle,
    ) -> Result<(Synced, Sent), Failure> {
        // Before anything else is read: all of it is at least as new.
        let mut revision = self.book().statuses.revision();
        let trust = self.book().trust();
        let trust = trust.ok_or_else(|| hsm_unavailable().detail("there is no trust list"))?;
        let mut lists = self.lists_of_vehicle(fleet, &vehicle.id).await?;
        let over = lists.len().saturating_sub(STATUS_URIS_MAX);
        if over > 0 {
            // What it is not told of it cannot acknowledge.
            lists.drain(..over);
            revision = 0;
        }
        let mut parts = Vec::with_capacity(lists.len() + 2);
        let mut uris = Vec::with_capacity(lists.len());
        self.lists_fresh(lists.clone()).await?;
        for id in lists {
            if let Some(list) = self.status_list(id).await? {
                parts.push(Arc::clone(&list.bytes));
                uris.push(id.uri(&self.settings().status_url));
            }
        }
        let last = fleet
            .contact(vehicle.id.as_str())
            .map_or(0, |it| it.sent.at);
        // A sync that was sent after a backup was made may have been ahead of the clock.
        let unknown = self.book().restore().at + self.settings().list_ahead_max_s;
        let at = self.clock().unix().max(last.max(unknown) + 1);
        let signed = self
            .sign_sync(fleet, vehicle, trust.version, uris, at)
            .await?;
        let sent = Sent {
            digest: digest(&signed),
            revision,
            at,
        };
        parts.insert(0, Arc::clone(&trust.bytes));
        parts.insert(0, signed.into());
        Ok((Synced { parts }, sent))
    }

    async fn sign_sync(
        &self,
        fleet: &Arc<FleetBook>,
        vehicle: &Vehicle,
        trust_version: u32,
        mut uris: Vec<String>,
        at: UnixTime,
    ) -> Result<Vec<u8>, Failure> {
        uris.sort_unstable();
        let (shared, fleet) = (Arc::clone(&self.shared), Arc::clone(fleet));
        let vehicle = vehicle.id.clone();
        let signed = concurrent::spawn_blocking(move || {
            let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
            let draft = |epoch: &Epoch| {
                let draft = Draft {
                    vehicle: vehicle.as_str(),
                    expires: at + LIFETIME_S,
                    issued_at: at,
                    fleet: fleet.fleet.id.0,
                    // Read last: a reset that came meanwhile is in it.
                    vehicle_epoch: fleet.vehicle(vehicle.as_str()).map_or(0, |it| it.epoch),
                    trust_version,
                    status_uris: &uris,
                };
                to_be_signed(&draft, epoch.key.algorithm(), &epoch.id.0)
                    .map_err(|why| Failure::Fault(format!("a sync that cannot be written: {why}")))
            };
            let (epoch, message, signatures) =
                sign::few(&shared, at, draft, |message| vec![message.message()])?;
            shared.tally.synced(epoch.id);
            Ok(message.assemble(&signatures[0]))
        });
        signed
            .await
            .map_err(|error| Failure::Fault(format!("a sync that was not signed: {error}")))?
    }

    /// The lists on which a vehicle's keys stand that have not expired, the newest last.
    async fn lists_of_vehicle(
        &self,
        fleet: &Arc<FleetBook>,
        vehicle: &VehicleId,
    ) -> Result<Vec<ShardId>, Failure> {
        let now = self.clock().unix();
        let mut lists = BTreeSet::new();
        for authorization in self.all_of_vehicle(fleet, vehicle).await? {
            for signed in self.versions_of(&authorization).await? {
                let bundle = &signed.bundle;
                if bundle.window.not_after > now {
                    let uris = bundle.subjects.iter().map(|it| &it.status_uri);
                    lists.extend(uris.filter_map(|uri| ShardId::at(uri)));
                }
            }
        }
        Ok(lists.into_iter().collect())
    }
}
