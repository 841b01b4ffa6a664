//! An identity's data go, on request: floor 3.
//!
//! First everything it has ends, as if it were revoked. Then its row, in one transaction, loses what
//! was known of it and gets a name that nobody has had: what was issued to it stays, as evidence,
//! under that name. Its terminals go. Whoever is registered under the old name later is somebody
//! else, and has nothing.

use super::authenticate::BackEnd;
use super::book::FleetBook;
use super::caller::Caller;
use super::certain::CertainBy;
use super::revoke::{CHUNK, Part, Target};
use super::ruling::check_why;
use super::{Engine, Failure};
use crate::concurrent;
use crate::domain::change::Action;
use crate::domain::{IdentityId, Refusal, RefusalCode};
use crate::store::{Applied, Erasure, Write};

/// What the names begin with under which bundles of erased identities are kept. Nobody can register
/// such a name.
const ERASED: &str = "erased-";

/// What an erasure has come to.
#[derive(Clone, Debug)]
pub struct Erased {
    /// The name that stands for the identity now.
    pub becomes: IdentityId,
    /// Authorizations that ended with it, open code sets among them.
    pub ended: usize,
    /// Keys that were revoked.
    pub revoked: usize,
    /// Terminals that went.
    pub terminals: usize,
    /// When it is certain that cars refuse the keys.
    pub certain_by: CertainBy,
}

/// Whether a name is one that stands for an erased identity.
pub(super) fn is_erased(id: &IdentityId) -> bool {
    id.as_str().starts_with(ERASED)
}

impl Engine {
    /// Erases what is kept of an identity. Broken off, the same call goes on.
    ///
    /// # Errors
    /// `malformed` for a reason that is too long; `not_found`; `identity_owns_vehicles`; `version_conflict` where another call has resumed it
    /// meanwhile; `busy`, `hsm_unavailable`, `store_unavailable`: it may be sent again.
    pub async fn erase(&self, caller: &BackEnd, id: &IdentityId) -> Result<Erased, Failure> {
        let fleet = &caller.fleet;
        let known = || known(fleet, id);
        self.look(known).await?;
        self.check_owns_nothing(caller, id).await?;
        check_why(caller.why.as_deref())?;
        let mut erased = Erased {
            becomes: self.nobody()?,
            ended: 0,
            revoked: 0,
            terminals: fleet.terminals_of(id.as_str()).len(),
            certain_by: CertainBy::Now,
        };
        let all = Target::Identity(id.clone());
        let by = Caller::BackEnd(caller, None);
        let parts = self.parts_of(by, Action::Cancel, &all).await?;
        self.end(by, &parts, &mut erased).await?;
        let erasure = Erasure {
            fleet: fleet.fleet.id,
            id: id.clone(),
            becomes: erased.becomes.clone(),
        };
        let at = self.clock().unix();
        let object = format!("identity {}", erased.becomes.as_str());
        let write = Write::Erase(erasure).as_act(caller.act(at, "erase", object));
        match self.write(vec![write]).await?.first() {
            Some(Applied::Done) => {}
            _ => return Err(Refusal::new(RefusalCode::NotFound).field("id").into()),
        }
        tracing::info!(fleet = %fleet.fleet.id, becomes = erased.becomes.as_str(), "an identity was erased");
        // What was authorized for it while the others ended.
        self.abreast().await?;
        let mut late = self.meant_for(fleet, id).await?;
        late.retain(|id| {
            let before = self.book().look_up(*id, |it| it.created_at <= at);
            before.unwrap_or_default()
        });
        let late: Vec<_> = late.into_iter().map(Part::Member).collect();
        self.end(by, &late, &mut erased).await?;
        Ok(erased)
    }

    async fn end(
        &self,
        caller: Caller<'_>,
        parts: &[Part],
        erased: &mut Erased,
    ) -> Result<(), Failure> {
        for chunk in parts.chunks(CHUNK) {
            for done in self.carry_out(caller, Action::Cancel, chunk).await? {
                match done {
                    Ok(outcome) => {
                        erased.ended += 1;
                        erased.revoked += outcome.revoked.len();
                        erased.certain_by = erased.certain_by.and(outcome.certain_by);
                    }
                    // Purged meanwhile.
                    Err(Failure::Refused(refusal)) if refusal.code == RefusalCode::NotFound => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }

    /// Refuses whoever owns a vehicle: it would belong to nobody.
    async fn check_owns_nothing(&self, caller: &BackEnd, id: &IdentityId) -> Result<(), Failure> {
        let (fleet, owner) = (std::sync::Arc::clone(&caller.fleet), id.clone());
        // Every vehicle is looked at: that may take a while.
        let owned = concurrent::spawn_blocking(move || fleet.owned_by(&owner)).await;
        match owned {
            Ok(None) => Ok(()),
            Ok(Some(vehicle)) => Err(Refusal::new(RefusalCode::IdentityOwnsVehicles)
                .detail(format!(
                    "it owns {}, perhaps others too: give them another owner first (PUT /v1/vehicles)",
                    vehicle.as_str()
                ))
                .into()),
            Err(error) => Err(Failure::Fault(format!("a look through the book: {error}"))),
        }
    }

    /// A name that nobody has had.
    fn nobody(&self) -> Result<IdentityId, Refusal> {
        let random = self.shared.ids.random::<16>();
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        IdentityId::parse(&format!("{ERASED}{hex}"))
    }
}

fn known(fleet: &FleetBook, id: &IdentityId) -> Result<(), Refusal> {
    if fleet.identity(id.as_str()).is_none() || is_erased(id) {
        return Err(Refusal::new(RefusalCode::NotFound).field("id"));
    }
    Ok(())
}
