//! How far a call that suspends, resumes or revokes many has come.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::amendments::CertainView;
use super::terminals::TerminalView;
use crate::domain::change::Action;
use crate::domain::{RefusalCode, Terminal};
use crate::engine::Failure;
use crate::engine::certain::CertainBy;
use crate::engine::outcome::Outcome;

/// What a call has come to so far.
#[derive(Serialize, ToSchema)]
pub(super) struct ProgressView {
    /// `revoking`, then `revoked`; `suspending`, `suspended`; `resuming`, `resumed`; or the code of
    /// a refusal.
    status: &'static str,
    /// Authorizations and keys this stands for.
    total: usize,
    /// How many of them stand as asked for.
    done: usize,
    /// Those that are gone.
    passed_over: usize,
    /// Keys that were revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<usize>,
    /// Keys that were valid and are suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<usize>,
    /// Keys that were suspended and are valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<usize>,
    /// Of a terminal that is suspended or revoked: what it has registered, which stays as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    registered: Vec<TerminalView>,
    /// When it is certain that the cars refuse what was revoked or suspended.
    certain_by: CertainView,
}

/// Where a call stands.
pub(super) struct Progress {
    action: Action,
    pub(super) total: usize,
    done: usize,
    passed_over: usize,
    keys: usize,
    registered: Vec<Arc<Terminal>>,
    certain_by: CertainBy,
}

impl Progress {
    pub(super) fn new(action: Action, total: usize) -> Self {
        Self {
            action,
            total,
            done: 0,
            passed_over: 0,
            keys: 0,
            registered: Vec::new(),
            certain_by: CertainBy::Now,
        }
    }

    /// The same, about a terminal that has registered these.
    pub(super) fn of(self, registered: Vec<Arc<Terminal>>) -> Self {
        Self { registered, ..self }
    }

    pub(super) fn view(&self) -> ProgressView {
        let over = self.done + self.passed_over >= self.total;
        let of = |action| (self.action == action).then_some(self.keys);
        ProgressView {
            status: match (self.action, over) {
                (Action::Cancel, false) => "revoking",
                (Action::Cancel, true) => "revoked",
                (Action::Suspend, false) => "suspending",
                (Action::Suspend, true) => "suspended",
                (Action::Resume, false) => "resuming",
                (Action::Resume, true) => "resumed",
            },
            total: self.total,
            done: self.done,
            passed_over: self.passed_over,
            revoked: of(Action::Cancel),
            suspended: of(Action::Suspend),
            resumed: of(Action::Resume),
            registered: match over {
                true => self
                    .registered
                    .iter()
                    .map(|it| TerminalView::new(it))
                    .collect(),
                false => Vec::new(),
            },
            certain_by: self.certain_by.into(),
        }
    }

    /// Notes what became of one part. Of many, what is gone meanwhile is passed over.
    ///
    /// # Errors
    /// Why it was not done.
    pub(super) fn note(&mut self, outcome: Result<Outcome, Failure>) -> Result<(), Failure> {
        match outcome {
            Ok(outcome) => {
                self.done += 1;
                self.keys += match self.action {
                    Action::Cancel => outcome.revoked.len(),
                    Action::Suspend => outcome.suspended.len(),
                    Action::Resume => outcome.resumed.len(),
                };
                self.certain_by = self.certain_by.and(outcome.certain_by);
                Ok(())
            }
            Err(Failure::Refused(refusal))
                if self.total > 1 && refusal.code == RefusalCode::NotFound =>
            {
                self.passed_over += 1;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}
