//! Changes of one authorization: floor 3. What a change leads to is an amendment (`amend.rs`).

use std::sync::{Mutex, PoisonError};

use super::amend::{Caller, Done};
use super::authorize::AuthorizationSpec;
use super::book::FleetBook;
use super::caller::Doing;
use super::hooks::{Question, unanswered};
use super::plan::{Anew, Plan};
use super::{Engine, Failure};
use crate::domain::change::{check_changeable, narrows};
use crate::domain::{Authorization, AuthorizationId, Recipient, Refusal, RefusalCode};
use crate::store::SignedBundle;

/// Times others are asked about one change before it is told to wait.
const QUESTIONS_MAX: usize = 3;

impl Engine {
    /// Changes an authorization at `version`. Before redemption the code set is replaced; after it
    /// every function that remains is issued again, to the same terminal and under the same
    /// bundle's id, and keys that grant more than the authorization now does are revoked.
    ///
    /// `spec` says what the authorization, as it stands, is to say.
    ///
    /// # Errors
    /// `not_found`, `version_conflict`, `code_set_cancelled`, what the rules refuse, and
    /// `hsm_unavailable`.
    pub async fn change(
        &self,
        caller: Caller<'_>,
        id: AuthorizationId,
        version: u32,
        spec: impl Fn(&Authorization) -> Result<AuthorizationSpec, Refusal>,
    ) -> Result<Done, Failure> {
        let unasked = Mutex::new(None);
        for _ in 0..QUESTIONS_MAX {
            let done = self
                .change_if_answered(caller, (id, version), &spec, &unasked)
                .await;
            // About what it adds somebody else has to be asked: then it is decided anew.
            let question = unasked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match question {
                Some(question) => drop(self.verdict(&question).await),
                None => return done,
            }
        }
        Err(unanswered().into())
    }

    async fn change_if_answered(
        &self,
        caller: Caller<'_>,
        (id, version): (AuthorizationId, u32),
        spec: impl Fn(&Authorization) -> Result<AuthorizationSpec, Refusal>,
        unasked: &Mutex<Option<Question>>,
    ) -> Result<Done, Failure> {
        let doing = Doing {
            act: "change",
            object: format!("authorization {id}"),
            why: caller.why(),
        };
        self.amend(caller, id, &doing, |now, versions| {
            if now.version != version {
                return Err(Refusal::new(RefusalCode::VersionConflict)
                    .detail(format!("it is at version {}", now.version)));
            }
            check_changeable(now)?;
            let fleet = caller.fleet();
            let (author, at) = (now.author.clone(), self.clock().unix());
            // Whom it is for was settled when it was made, and stays so if that identity is
            // suspended by now.
            let mut spec = spec(now)?;
            spec.recipient = Recipient::default();
            let said = self.draft_as(now.id, fleet, spec, author, at)?;
            let mut plan = Plan::stay(now);
            plan.raise_version(versions, self.vehicle_epoch(now))?;
            plan.next.functions = said.functions;
            plan.next.window = said.window;
            plan.next.redeem_by = said.redeem_by;
            let mut restrictions = said.restrictions.unwrap_or_default();
            restrictions.recipient = now.recipient().clone();
            restrictions.amended = plan.next.amended().cloned();
            plan.next.restrictions = restrictions.boxed();
            let anew = if narrows(&plan.next, now) {
                Anew::Narrowed
            } else {
                Anew::Changed
            };
            if let Some(question) = added(fleet, &plan.next, versions) {
                let at = self.clock().monotonic();
                let Some(verdict) = self.shared.hooks.known(&question, at) else {
                    let mut unasked = unasked.lock().unwrap_or_else(PoisonError::into_inner);
                    *unasked = Some(question);
                    return Err(unanswered());
                };
                question.judge(&verdict)?;
            }
            self.issue_again(fleet, plan, versions, anew).map(Some)
        })
        .await
    }
}

/// What others have to be asked before functions are added to what was issued.
fn added(fleet: &FleetBook, next: &Authorization, versions: &[SignedBundle]) -> Option<Question> {
    let before = &versions.last()?.bundle;
    let had = |one: &&u16| before.subjects.iter().any(|it| it.function == **one);
    let more: Vec<_> = next
        .functions
        .iter()
        .filter(|one| !had(one))
        .copied()
        .collect();
    let vehicle = fleet.vehicle(next.vehicle.as_str())?;
    Question::new(fleet, &vehicle, &before.identity, &more)
}
