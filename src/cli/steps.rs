//! The desk's part in the life of epochs: what may be asked, and what is told.

use serde::{Deserialize, Serialize};

use super::desk::{Answer, Context, Decision};
use crate::domain::record::{EpochNote, Proposal, PublicKey, Who};
use crate::domain::time::Time;
use crate::domain::{Epoch, EpochId, Operator, RootKey, Step, UnixTime};
use crate::engine::ceremony::{Draft, Signed};
use crate::engine::rotate::{Decided, Desk};
use crate::engine::{Failure, consent, keep};
use crate::store::{RecordedStep, Write};

/// A question about epochs, or a step.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    List,
    Status,
    Records,
    Operators,
    Proposals,
    /// A step. Whoever asks has the root at hand or not, and brings the root that is named.
    Take {
        step: Step,
        who: Who,
        root_at_hand: bool,
        next_root: Option<Box<RootKey>>,
    },
    /// A step that the root has signed.
    Conclude(Box<Signed>),
    /// A signed proposal.
    Propose(String),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Epochs(Vec<EpochRow>),
    Status(Box<Status>),
    Records(Box<Records>),
    Operators(Vec<Operator>),
    Proposals(Vec<ProposalRow>),
    Taken(Taken),
    /// The root has to sign this first.
    Draft(Box<Draft>),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct EpochRow {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) algorithm: String,
    pub(super) not_before: Time,
    pub(super) not_after: Time,
    pub(super) token_serial: String,
    pub(super) created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) activated: Option<Time>,
}

/// How epochs and root stand.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Status {
    pub(super) trust_version: u32,
    pub(super) root: Option<EpochId>,
    pub(super) next_root: Option<EpochId>,
    /// Until when all goes on without the root.
    pub(super) planned_until: Time,
    pub(super) epochs_low: bool,
    pub(super) dual_control: bool,
    /// Newest record: number and digest.
    pub(super) record: u64,
    pub(super) record_digest: String,
    /// `CKA_ID`s of key pairs that a step has left over.
    pub(super) spare_keys: Vec<String>,
    /// Why they could not be looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// The records, and what they have to lead to.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Records {
    pub(super) records: Vec<String>,
    pub(super) trust_version: u32,
    pub(super) epochs: Vec<EpochNote>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ProposalRow {
    pub(super) proposal: u64,
    pub(super) operator: String,
    pub(super) step: Step,
    pub(super) expires: Time,
    /// The signed proposal, of which an approval signs the digest.
    pub(super) jws: String,
}

/// A step that is in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Taken {
    pub(super) record: u64,
    pub(super) trust_version: u32,
    pub(super) epochs: Vec<Changed>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Changed {
    pub(super) id: EpochId,
    pub(super) state: String,
    pub(super) not_before: Time,
    pub(super) not_after: Time,
}

/// Decides what is asked about epochs.
pub(super) fn decide(context: &Context<'_>, ask: Ask) -> Result<Decision, Failure> {
    let book = context.book;
    let only = |told| {
        Ok(Decision {
            writes: Vec::new(),
            answer: Answer::Epoch(told),
        })
    };
    let now = context.unix_ms / 1000;
    match ask {
        Ask::List => only(Told::Epochs(
            book.epochs().iter().map(|epoch| row(epoch)).collect(),
        )),
        Ask::Status => only(Told::Status(Box::new(status(context)))),
        Ask::Records => only(Told::Records(Box::new(records(context)))),
        Ask::Operators => only(Told::Operators(book.standing().operators.clone())),
        Ask::Proposals => {
            let standing = book.standing();
            let open = standing.proposals.iter().filter(|one| now < one.expires);
            only(Told::Proposals(open.map(proposal_row).collect()))
        }
        Ask::Take {
            step,
            who,
            root_at_hand,
            next_root,
        } => at_desk(context, root_at_hand, |desk| {
            decided(
                context,
                desk.decide(step, who, next_root.map(|root| *root))?,
            )
        }),
        Ask::Conclude(signed) => at_desk(context, true, |desk| {
            Ok(taken(context, desk.conclude(&signed)?))
        }),
        Ask::Propose(jws) => at_desk(context, false, |desk| {
            let (step, who) = consent::propose(desk, &jws)?;
            decided(context, desk.decide(step, who, None)?)
        }),
    }
}

fn at_desk(
    context: &Context<'_>,
    root_at_hand: bool,
    work: impl FnOnce(&Desk<'_>) -> Result<Decision, Failure>,
) -> Result<Decision, Failure> {
    let custody = (context.custody)().map_err(Failure::Fault)?;
    work(&Desk {
        book: context.book,
        custody: &*custody,
        settings: context.settings,
        now: context.unix_ms / 1000,
        root_at_hand,
    })
}

fn decided(context: &Context<'_>, decided: Decided) -> Result<Decision, Failure> {
    match decided {
        Decided::Write(step) => Ok(taken(context, *step)),
        Decided::Draft(draft) => Ok(Decision {
            writes: Vec::new(),
            answer: Answer::Epoch(Told::Draft(draft)),
        }),
    }
}

fn taken(context: &Context<'_>, step: RecordedStep) -> Decision {
    let known = context.book.trust().map_or(0, |list| list.version);
    let changed = |epoch: &Epoch| Changed {
        id: epoch.id,
        state: epoch.state.name().into(),
        not_before: Time(epoch.window.not_before),
        not_after: Time(epoch.window.not_after),
    };
    let taken = Taken {
        record: step.number,
        trust_version: step.trust.as_ref().map_or(known, |(version, _)| *version),
        epochs: step.epochs.iter().map(changed).collect(),
    };
    Decision {
        writes: vec![Write::Step(Box::new(step))],
        answer: Answer::Epoch(Told::Taken(taken)),
    }
}

fn status(context: &Context<'_>) -> Status {
    let (book, schedule) = (context.book, &context.settings.schedule);
    let now: UnixTime = context.unix_ms / 1000;
    let standing = book.standing();
    let kid = |root: &RootKey| {
        let PublicKey(key) = root.key;
        EpochId(key.kid())
    };
    let planned_until = keep::runway(&book.epochs(), now, schedule.rotate_every_s);
    let mut status = Status {
        trust_version: book.trust().map_or(0, |list| list.version),
        root: standing.root.as_ref().map(kid),
        next_root: standing.next_root.as_ref().map(kid),
        planned_until: Time(planned_until),
        epochs_low: planned_until < now.saturating_add(schedule.warn_before_s),
        dual_control: context.settings.dual_control,
        record: standing.number,
        record_digest: serde_json::to_value(standing.digest)
            .ok()
            .and_then(|digest| digest.as_str().map(Into::into))
            .unwrap_or_default(),
        spare_keys: Vec::new(),
        problem: None,
    };
    let spare = at_custody(context);
    match spare {
        Ok(spare) => status.spare_keys = spare,
        Err(failure) => status.problem = Some(failure.to_string()),
    }
    status
}

fn at_custody(context: &Context<'_>) -> Result<Vec<String>, Failure> {
    let custody = (context.custody)().map_err(Failure::Fault)?;
    let desk = Desk {
        book: context.book,
        custody: &*custody,
        settings: context.settings,
        now: context.unix_ms / 1000,
        root_at_hand: false,
    };
    let spare = desk.spare_keys();
    let spare = spare.map_err(|error| Failure::Fault(error.to_string()))?;
    let text = |id| serde_json::to_value(id).ok()?.as_str().map(String::from);
    Ok(spare.iter().filter_map(|(_, id)| text(id)).collect())
}

fn records(context: &Context<'_>) -> Records {
    let book = context.book;
    let epochs = book.epochs();
    Records {
        records: book.records().iter().map(|text| text.to_string()).collect(),
        trust_version: book.trust().map_or(0, |list| list.version),
        epochs: epochs
            .iter()
            .map(|epoch| EpochNote::from(&**epoch))
            .collect(),
    }
}

fn row(epoch: &Epoch) -> EpochRow {
    EpochRow {
        id: epoch.id.to_string(),
        state: epoch.state.name().into(),
        algorithm: epoch.key.algorithm().name().into(),
        not_before: Time(epoch.window.not_before),
        not_after: Time(epoch.window.not_after),
        token_serial: epoch.token_serial.clone(),
        created: Time(epoch.created_at),
        activated: epoch.activated_at.map(Time),
    }
}

fn proposal_row(proposal: &Proposal) -> ProposalRow {
    ProposalRow {
        proposal: proposal.number,
        operator: proposal.operator.clone(),
        step: proposal.step.clone(),
        expires: Time(proposal.expires),
        jws: proposal.jws.clone(),
    }
}
