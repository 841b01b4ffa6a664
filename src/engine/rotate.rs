//! The life of epochs: what a step changes, decided from the book and the tokens.
//!
//! A step becomes a record and what the record says, which the store takes whole. What goes on
//! without the root is signed here, by an epoch's key. What the root has to sign becomes a
//! [`Draft`] for whoever has the root at hand, and comes back through `ceremony.rs`.
//!
//! Deliberately not here: the root's token. No server opens it.

use super::ceremony::Draft;
use super::generate::{fault, key_ref};
use super::{Book, EngineSettings, Failure, consent, records};
use crate::domain::operator::check_name;
use crate::domain::record::{EpochNote, Facts, KeyNote, SERVER, TokenNote, Who};
use crate::domain::rotation::{self, Change};
use crate::domain::{
    Epoch, EpochId, EpochState, Operator, Record, Refusal, RefusalCode, RootKey, Step, UnixTime,
    Window,
};
use crate::hsm::{Custody, Signer};
use crate::store::RecordedStep;

/// How long an epoch is planned to be active where nothing is said, in seconds.
pub const ACTIVE_S: u64 = 366 * 86_400;

/// Where steps are decided.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// How things stand.
    pub book: &'a Book,
    /// The issuing tokens.
    pub custody: &'a dyn Custody,
    /// The rules.
    pub settings: &'a EngineSettings,
    /// The time.
    pub now: UnixTime,
    /// Whoever asks has the root at hand: epochs that are needed can be made.
    pub root_at_hand: bool,
}

/// A step that was decided.
pub enum Decided {
    /// It is to be written; then it is in force.
    Write(Box<RecordedStep>),
    /// The root has to sign it first.
    Draft(Box<Draft>),
}

/// What a step changes.
#[derive(Default)]
struct Changes {
    epochs: Vec<Epoch>,
    root: Option<RootKey>,
    next_root: Option<RootKey>,
    operators: Vec<Operator>,
    /// There has to be a new trust list.
    by_root: bool,
}

impl Desk<'_> {
    /// Decides a step. `next_root` is the key that [`Step::NameRoot`] names.
    ///
    /// New key pairs are generated here. Should it end before the step is written, they are found
    /// by [`Desk::spare_keys`] and used by the next step that needs some.
    ///
    /// # Errors
    /// `malformed`, `not_found` or `forbidden`, saying what to do; faults of the HSM.
    pub fn decide(
        &self,
        step: Step,
        who: Who,
        next_root: Option<RootKey>,
    ) -> Result<Decided, Failure> {
        check_name(&who.operator)?;
        consent::check(self, &step, &who)?;
        let changes = self.changes(&step, next_root)?;
        self.check_keys(&changes.epochs)?;
        let record = self.record(step, who, &changes)?;
        if changes.by_root {
            let draft = Draft::new(self, record, &changes.epochs)?;
            return Ok(Decided::Draft(Box::new(draft)));
        }
        let all = self.after(&changes.epochs);
        let (key, signer) = self.signer(&all, &changes.epochs)?;
        let text = records::sign(&record, signer, &key_ref(key), &key.key).map_err(fault)?;
        Ok(Decided::Write(Box::new(RecordedStep {
            number: record.number,
            record: text.into(),
            epochs: changes.epochs,
            trust: None,
        })))
    }

    /// Whose key signs the record of a step, and who signs with it: an epoch that is active now,
    /// one that the step is about first, in a token that can be reached.
    fn signer<'a>(
        &'a self,
        all: &'a [Epoch],
        touched: &'a [Epoch],
    ) -> Result<(&'a Epoch, &'a dyn Signer), Failure> {
        let active = all
            .iter()
            .rev()
            .filter(|epoch| epoch.state == EpochState::Active);
        let (first, then): (Vec<_>, Vec<_>) = active.partition(|epoch| touched.contains(epoch));
        let mut problem = Failure::from(refusal("no epoch is there to sign the record"));
        for epoch in first.into_iter().chain(then).chain(touched.first()) {
            match self.custody.signer(&epoch.token_serial) {
                Ok(signer) => return Ok((epoch, signer)),
                Err(error) => problem = fault(error),
            }
        }
        Err(problem)
    }

    /// What is due by the schedule; `None` where nothing is.
    ///
    /// # Errors
    /// As [`Desk::decide`]: then everything stays as it is, and the next call tries again.
    pub fn sweep(&self) -> Result<Option<Box<RecordedStep>>, Failure> {
        let every_s = self.settings.schedule.rotate_every_s;
        if rotation::sweep(&self.epochs(), self.now, every_s).is_empty() {
            return Ok(None);
        }
        let who = Who {
            operator: SERVER.into(),
            approval: None,
        };
        match self.decide(Step::Schedule, who, None)? {
            Decided::Write(step) => Ok(Some(step)),
            Decided::Draft(_) => Err(Failure::Fault("the schedule asks for the root".into())),
        }
    }

    pub(super) fn epochs(&self) -> Vec<Epoch> {
        let epochs = self.book.epochs();
        epochs.iter().map(|epoch| Epoch::clone(epoch)).collect()
    }

    pub(super) fn after(&self, touched: &[Epoch]) -> Vec<Epoch> {
        rotation::after(&self.epochs(), touched)
    }

    fn changes(&self, step: &Step, next_root: Option<RootKey>) -> Result<Changes, Failure> {
        let epochs = self.epochs();
        let standing = self.book.standing();
        let mut changes = Changes {
            root: standing.root.clone(),
            next_root: standing.next_root.clone(),
            operators: standing.operators.clone(),
            ..Changes::default()
        };
        let apply = |changes: &[Change], new| rotation::changed(&epochs, changes, new, self.now);
        match step {
            Step::Found => return Err(refusal("an issuer is founded once").into()),
            Step::Prepare { .. } => {
                changes.by_root = true;
                changes.epochs = apply(&[], self.prepare(&epochs, step)?)?;
            }
            Step::Activate { epoch } => {
                changes.epochs = apply(&rotation::activate(&epochs, *epoch, self.now)?, vec![])?;
            }
            Step::Retire { epoch } => {
                changes.epochs = apply(&rotation::retire(&epochs, *epoch, self.now)?, vec![])?;
            }
            Step::Revoke { epoch, .. } => {
                changes.by_root = true;
                let revoked = rotation::revoke(&epochs, *epoch, self.now)?;
                let new = self.successor(&epochs, *epoch, &revoked)?;
                changes.epochs = apply(&revoked, new)?;
            }
            Step::Rotate { now } => {
                let (rotated, new) = self.rotate(&epochs, *now)?;
                changes.by_root = !new.is_empty();
                changes.epochs = apply(&rotated, new)?;
            }
            Step::Schedule => {
                changes.epochs = apply(&self.due(&epochs)?, vec![])?;
            }
            Step::NameRoot => {
                let next = next_root.ok_or_else(|| refusal("no next root was brought"))?;
                changes.by_root = true;
                changes.next_root = Some(next);
            }
            Step::SucceedRoot => {
                changes.by_root = true;
                let next = changes.next_root.take();
                changes.root = Some(next.ok_or_else(|| {
                    refusal("no next root is named: `fob epoch root-name` comes first")
                })?);
            }
            Step::AddOperator(operator) => add_operator(&mut changes.operators, operator)?,
            Step::RemoveOperator { operator } => {
                remove_operator(&mut changes.operators, operator)?;
            }
            Step::Propose { .. } => {}
        }
        Ok(changes)
    }

    /// What the schedule asks for. An epoch that is to take over in a token that cannot be reached
    /// waits for it, and keeps no other token's waiting.
    fn due(&self, epochs: &[Epoch]) -> Result<Vec<Change>, Failure> {
        let every_s = self.settings.schedule.rotate_every_s;
        let mut due = rotation::sweep(epochs, self.now, every_s);
        let mut problem = Failure::from(refusal("nothing is due"));
        for token in rotation::tokens(epochs) {
            let is_own = |change: &Change| {
                let mut own = epochs.iter().filter(|epoch| epoch.token_serial == token);
                own.any(|epoch| epoch.id == change.id)
            };
            let mut own = due.iter().filter(|change| is_own(change));
            if own.any(|change| change.to == EpochState::Active)
                && let Err(error) = self.custody.signer(token)
            {
                due.retain(|change| !is_own(change));
                problem = fault(error);
            }
        }
        if due.is_empty() {
            Err(problem)
        } else {
            Ok(due)
        }
    }

    /// New epochs for every token.
    fn prepare(&self, epochs: &[Epoch], step: &Step) -> Result<Vec<Epoch>, Failure> {
        let Step::Prepare {
            count,
            every_s,
            overlap_s,
            from,
            windows,
        } = step
        else {
            return Ok(Vec::new());
        };
        let mut new = Vec::new();
        for token in self.tokens()? {
            let windows = if windows.is_empty() {
                let plan = (*count, *every_s, *overlap_s);
                rotation::next_windows(epochs, &token.serial, self.now, *from, plan)
            } else {
                let each = windows.iter();
                each.map(|(from, until)| Window::new(*from, *until, self.now))
                    .collect::<Result<_, _>>()?
            };
            self.check_room(epochs, windows.len() + new.len())?;
            self.check_not_due(epochs, &token.serial, &windows)?;
            new.extend(self.make(&token.serial, &windows, EpochState::Prepared)?);
        }
        Ok(new)
    }

    /// Whether none of these windows makes an epoch sign that was only to be prepared.
    fn check_not_due(
        &self,
        epochs: &[Epoch],
        token: &str,
        windows: &[Window],
    ) -> Result<(), Refusal> {
        let open = windows.iter().any(|window| window.contains(self.now));
        if open && rotation::active(epochs, token).is_none() {
            return Err(refusal(format!(
                "token {token} has no active epoch, so one whose window is open would sign before \
                 any car knows it: give it a later one, or let it, with `fob epoch rotate`"
            )));
        }
        Ok(())
    }

    /// Whether a trust list has room for so many more.
    fn check_room(&self, epochs: &[Epoch], more: usize) -> Result<(), Refusal> {
        let lifetime_max_s = self.settings.key_lifetime_max_s;
        let listed = super::trust::listed(epochs, self.now, lifetime_max_s).count();
        let most = fob_verify::trust::ENTRIES_MAX;
        if more == 0 {
            return Err(refusal("no epochs were asked for"));
        }
        if listed + more > most {
            return Err(refusal(format!(
                "a trust list holds {most} epochs and {listed} are on it; each stays until its \
                 last key has expired"
            )));
        }
        Ok(())
    }

    /// The epoch that follows a revoked one where none is ready: a new one, unless its token cannot
    /// be reached and others sign.
    fn successor(
        &self,
        epochs: &[Epoch],
        revoked: EpochId,
        changes: &[Change],
    ) -> Result<Vec<Epoch>, Failure> {
        let was_active = epochs
            .iter()
            .find(|epoch| epoch.id == revoked && epoch.state == EpochState::Active);
        let followed = changes.iter().any(|one| one.to == EpochState::Active);
        match was_active {
            Some(epoch) if !followed => {
                let own = &epoch.token_serial;
                let mut others = epochs.iter().filter(|other| other.token_serial != *own);
                let signs = others.any(|other| other.state == EpochState::Active);
                match self.make_active(own) {
                    Err(Failure::Fault(why)) if signs => {
                        tracing::warn!(token = own, why, "no epoch follows the revoked one");
                        Ok(Vec::new())
                    }
                    made => made,
                }
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The next epoch of every token: one that is ready, or a new one.
    fn rotate(&self, epochs: &[Epoch], now: bool) -> Result<(Vec<Change>, Vec<Epoch>), Failure> {
        let (mut changes, mut new) = (Vec::new(), Vec::new());
        for token in self.tokens()? {
            if let Some(ready) = rotation::ready(epochs, &token.serial, self.now) {
                changes.extend(rotation::activate(epochs, ready.id, self.now)?);
                continue;
            }
            let later = epochs
                .iter()
                .filter(|epoch| epoch.token_serial == token.serial)
                .filter(|epoch| epoch.state == EpochState::Prepared)
                .find(|epoch| epoch.window.not_before > self.now);
            if let Some(later) = later.filter(|_| !now) {
                return Err(refusal(format!(
                    "epoch {} is prepared and its window is not open yet; `--now` makes another \
                     one whose window is",
                    later.id
                ))
                .into());
            }
            if let Some(active) = rotation::active(epochs, &token.serial) {
                changes.push(Change {
                    id: active.id,
                    to: EpochState::Retired,
                });
            }
            self.check_room(epochs, new.len() + 1)?;
            new.extend(self.make_active(&token.serial)?);
        }
        Ok((changes, new))
    }

    fn record(&self, step: Step, who: Who, changes: &Changes) -> Result<Record, Failure> {
        let standing = self.book.standing();
        let before = self.facts(&changes.epochs);
        let after = Facts {
            trust_version: match changes.by_root {
                true => self.book.restore().trust_after(before.trust_version),
                false => before.trust_version,
            },
            root: changes.root.clone(),
            next_root: changes.next_root.clone(),
            epochs: changes.epochs.iter().map(EpochNote::from).collect(),
            operators: changes.operators.clone(),
        };
        let attributes = |epoch: &Epoch| {
            let read = self.inspect(&epoch.token_serial, &key_ref(epoch));
            let read = read.map(|(_, attributes)| attributes);
            serde_json::to_value(read.ok()).unwrap_or_default()
        };
        let note = |epoch: &Epoch| KeyNote {
            kid: epoch.id,
            token: epoch.token_serial.clone(),
            attributes: attributes(epoch),
        };
        // A token that cannot be reached is named by its keys alone.
        let tokens = rotation::tokens(&changes.epochs).into_iter();
        let tokens = tokens.filter_map(|serial| self.custody.token(serial).ok());
        Ok(Record {
            iss: self.book.setting("issuer").unwrap_or_default(),
            iat: self.now,
            number: standing.number + 1,
            previous: standing.digest,
            step,
            who,
            tokens: tokens.map(TokenNote::from).collect(),
            keys: changes.epochs.iter().map(note).collect(),
            before,
            after,
        })
    }

    /// How things stand before a step that changes these epochs.
    pub(super) fn facts(&self, touched: &[Epoch]) -> Facts {
        let standing = self.book.standing();
        let known = self.book.epochs();
        let known = known
            .iter()
            .filter(|epoch| touched.iter().any(|one| one.id == epoch.id));
        Facts {
            trust_version: self.book.trust().map_or(0, |list| list.version),
            root: standing.root.clone(),
            next_root: standing.next_root.clone(),
            epochs: known.map(|epoch| EpochNote::from(&**epoch)).collect(),
            operators: standing.operators.clone(),
        }
    }
}

fn add_operator(operators: &mut Vec<Operator>, new: &Operator) -> Result<(), Refusal> {
    check_name(&new.name)?;
    super::jws::holder_key(&new.jwk).map_err(|why| Refusal::malformed("jwk", why))?;
    if operators
        .iter()
        .any(|one| one.name == new.name || one.jwk == new.jwk)
    {
        return Err(refusal(
            "an operator of this name, or with this key, is there",
        ));
    }
    operators.push(new.clone());
    operators.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

fn remove_operator(operators: &mut Vec<Operator>, name: &str) -> Result<(), Refusal> {
    let before = operators.len();
    operators.retain(|one| one.name != name);
    if operators.len() == before {
        let why = "there is no such operator; see `fob operator list`";
        return Err(Refusal::new(RefusalCode::NotFound).detail(why));
    }
    Ok(())
}

pub(super) fn refusal(why: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(RefusalCode::Malformed).detail(why)
}
