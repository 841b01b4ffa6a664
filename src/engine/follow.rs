//! Keys that follow an identity, a vehicle or their fleet's rules: suspended with it, and valid again
//! with it. Floor 3.
//!
//! With an identity's status go the conditions on it. A key is suspended while its identity is held,
//! or lacks the licence that the fleet's rules ask for that function on that vehicle; or has one that
//! ends before the key. All of it is decided on the identity as it is in the book, under the
//! condition that it still is so in the store: of two descriptions the later one holds, for its keys
//! too. That a licence ends with time needs nobody to look: keys end with it. Rules that are set anew,
//! and a vehicle's model, are asked of keys in `rules`.

use std::sync::Arc;

use futures_util::future::join_all;

use super::amend::{Done, lists_of};
use super::book::FleetBook;
use super::revoke::{CHUNK, changed_meanwhile};
use super::{Engine, Failure};
use crate::domain::change::{Action, Followed};
use crate::domain::rules::keeps;
use crate::domain::{
    AuthorizationId, Bundle, Identity, IdentityId, KeyChange, KeyId, Mark, Reason, Refusal,
    RefusalCode, Rules, Status, Subject, Vehicle, VehicleId,
};
use crate::store::{Applied, Following, ReliedOn, SignedBundle, Write};

mod rules;

pub(super) use rules::followed;
pub use rules::{Sweep, Swept};

/// What decides whether somebody keeps keys on a vehicle.
struct Conditions {
    rules: Arc<Rules>,
    identity: Arc<Identity>,
    vehicle: Arc<Vehicle>,
}

impl Conditions {
    /// As they are now; `None` where the vehicle is not known, or the rules cannot be read.
    fn of(fleet: &FleetBook, identity: Arc<Identity>, vehicle: &VehicleId) -> Option<Self> {
        let rules = Arc::clone(&fleet.ruled.rules());
        Self::under(fleet, rules, identity, vehicle)
    }

    /// The same under other rules.
    fn under(
        fleet: &FleetBook,
        rules: Arc<Rules>,
        identity: Arc<Identity>,
        vehicle: &VehicleId,
    ) -> Option<Self> {
        let vehicle = fleet.vehicle(vehicle.as_str())?;
        (!rules.unreadable).then_some(Self {
            rules,
            identity,
            vehicle,
        })
    }

    fn relied_on(&self) -> ReliedOn {
        ReliedOn {
            rules: Some(self.rules.version),
            identity: Some(Arc::clone(&self.identity)),
            vehicle: Some(Arc::clone(&self.vehicle)).filter(|_| self.rules.asks_by_model()),
        }
    }
}

impl Engine {
    /// Has every key of an identity follow it, which was described by other means than a call to
    /// suspend or resume it.
    ///
    /// # Errors
    /// As [`Engine::carry_out`].
    pub(super) async fn follow_identity(
        &self,
        fleet: &FleetBook,
        id: &IdentityId,
        status: Status,
    ) -> Result<(), Failure> {
        let action = match status {
            Status::Active => Action::Resume,
            Status::Suspended => Action::Suspend,
        };
        let of = Followed::Identity(id.clone());
        for chunk in self.held_by(fleet, id).await?.chunks(CHUNK) {
            let one = |id: &AuthorizationId| self.follow_unlisted(fleet, *id, &of, action);
            let done = join_all(chunk.iter().map(one)).await;
            self.lists_of_all(&done).await?;
            for done in done {
                done?;
            }
        }
        Ok(())
    }

    /// Has the keys of one authorization follow an identity or a vehicle.
    pub(super) async fn follow_unlisted(
        &self,
        fleet: &FleetBook,
        id: AuthorizationId,
        of: &Followed,
        action: Action,
    ) -> Result<Done, Failure> {
        loop {
            let now = self.authorization(fleet.fleet.id, id).await?;
            let now = now.ok_or_else(|| Refusal::new(RefusalCode::NotFound))?;
            let versions = self.versions_of(&now).await?;
            // Whatever was done to its keys before identity or vehicle were made to stand so, and
            // nothing that contradicts that comes after.
            self.abreast().await?;
            let ruled = fleet.ruled.rules().version;
            let mut marks = self.marks(&versions, action.on_keys(of.reason()), |_, _, _| true);
            let mut relies_on = ReliedOn::default();
            if let Followed::Identity(id) = of
                && let Some(identity) = fleet.identity(id.as_str())
            {
                relies_on.identity = Some(Arc::clone(&identity));
                // What is not known is decided when it is.
                if let Some(conditions) = Conditions::of(fleet, identity, &now.vehicle) {
                    marks.extend(self.condition_marks(&versions, &conditions));
                    relies_on = conditions.relied_on();
                }
            }
            if marks.is_empty() {
                let revision = self.book().statuses.revision();
                return Ok(self.nothing_done(fleet, now, revision, &versions));
            }
            let outcome = self.outcome_of_marks(fleet, &now.vehicle, &marks);
            let following = Following {
                fleet: fleet.fleet.id,
                of: of.clone(),
                status: action.leaves(),
                marks: marks.into_iter().map(|(_, mark)| mark).collect(),
                relies_on,
            };
            let lists = lists_of(&following.marks);
            let applied = self.write(vec![Write::Follow(Arc::new(following))]).await?;
            if let Some(Applied::Amended(_)) = applied.first() {
                return Ok(Done {
                    authorization: now,
                    outcome,
                    lists,
                });
            }
            self.abreast().await?;
            // It is nobody's fault that the rules were set at the same moment.
            if fleet.ruled.rules().version == ruled {
                return Err(changed_meanwhile().into());
            }
        }
    }

    /// Marks by which keys are suspended whose conditions are not met, and those are no longer whose
    /// conditions are.
    fn condition_marks(
        &self,
        versions: &[SignedBundle],
        conditions: &Conditions,
    ) -> Vec<(KeyId, Mark)> {
        let now = self.clock().unix();
        let kept = |bundle: &Bundle, subject: &Subject| {
            keeps(
                &conditions.rules,
                &conditions.identity,
                &conditions.vehicle,
                subject.function,
                bundle.window,
                now,
            )
        };
        let suspend = KeyChange::Suspend(Reason::Condition);
        let resume = KeyChange::Resume(Reason::Condition);
        let mut marks = self.marks(versions, suspend, |bundle, subject, _| {
            !kept(bundle, subject)
        });
        marks.extend(self.marks(versions, resume, |bundle, subject, _| kept(bundle, subject)));
        marks
    }

    /// The authorizations on which an identity has keys.
    pub(super) async fn held_by(
        &self,
        fleet: &FleetBook,
        id: &IdentityId,
    ) -> Result<Vec<AuthorizationId>, Failure> {
        let (fleet, id) = (fleet.fleet.id, id.clone());
        self.read(move |store| store.held_by(fleet, &id)).await
    }
}
