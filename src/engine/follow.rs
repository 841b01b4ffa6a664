//! Keys that follow an identity or a vehicle: suspended with it, and valid again with it. Floor 3.
//!
//! With an identity's status go the conditions on it. A key is suspended while its identity is held,
//! or lacks the licence that the fleet's rules ask for that function on that vehicle; or has one that
//! ends before the key. All of it is decided on the identity as it is in the book, under the
//! condition that it still is so in the store: of two descriptions the later one holds, for its keys
//! too. That a licence ends with time needs nobody to look: keys end with it.

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
    RefusalCode, Status, Subject, VehicleId,
};
use crate::store::{Applied, Following, SignedBundle, Write};

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
        let now = self.authorization(fleet.fleet.id, id).await?;
        let now = now.ok_or_else(|| Refusal::new(RefusalCode::NotFound))?;
        let versions = self.versions_of(&now).await?;
        // Whatever was done to its keys before identity or vehicle were made to stand so, and
        // nothing that contradicts that comes after.
        self.abreast().await?;
        let mut marks = self.marks(&versions, action.on_keys(of.reason()), |_, _, _| true);
        let identity = match of {
            Followed::Identity(id) => fleet.identity(id.as_str()),
            Followed::Vehicle(_) => None,
        };
        if let Some(identity) = &identity {
            marks.extend(self.condition_marks(fleet, &versions, identity, &now.vehicle));
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
            relies_on: identity,
        };
        let lists = lists_of(&following.marks);
        let applied = self.write(vec![Write::Follow(Arc::new(following))]).await?;
        match applied.first() {
            Some(Applied::Amended(_)) => Ok(Done {
                authorization: now,
                outcome,
                lists,
            }),
            _ => Err(changed_meanwhile().into()),
        }
    }

    /// Marks by which keys are suspended whose conditions `identity` does not meet, and those are
    /// no longer whose conditions it does.
    fn condition_marks(
        &self,
        fleet: &FleetBook,
        versions: &[SignedBundle],
        identity: &Identity,
        vehicle: &VehicleId,
    ) -> Vec<(KeyId, Mark)> {
        let rules = fleet.ruled.rules();
        // What is not known is decided when it is.
        let Some(vehicle) = fleet
            .vehicle(vehicle.as_str())
            .filter(|_| !rules.unreadable)
        else {
            return Vec::new();
        };
        let now = self.clock().unix();
        let kept = |bundle: &Bundle, subject: &Subject| {
            keeps(
                &rules,
                identity,
                &vehicle,
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
