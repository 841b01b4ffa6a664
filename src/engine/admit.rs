//! Stage 1, admit: in the caller's thread, read the book without a lock, check every rule,
//! reserve the code set, hand over once. Nothing here waits on I/O.

use core::net::IpAddr;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use fob_verify::HolderKey;

use super::book::FleetBook;
use super::case::{Borrower, Case};
use super::hooks::{Question, Verdict};
use super::limits::Asks;
use super::recent::Seen;
use super::reserve::{Outcome, RequestKey, Reserved};
use super::ticket::Ticket;
use super::{Engine, Failure, batch, jws, shutting_down};
use crate::concurrent::channel::TrySendError;
use crate::concurrent::{self, oneshot};
use crate::domain::{
    Authorization, AuthorizationState, Bundle, BundleId, CodeSet, IdentityId, Refusal, RefusalCode,
    TerminalId, UnixTime, Vehicle, Window,
};
use crate::store::{Order, Redemption, ReliedOn};

/// Times one request is admitted anew after somebody else's failure before it is told to wait.
const ADMISSIONS_MAX: usize = 4;

/// How long a wrong guess takes: several times what the slowest look-up does.
const GUESS_TAKES: Duration = Duration::from_micros(4);

/// By how many nanoseconds more than that at most: many times what it takes to ask a clock.
const GUESS_DRAWN_NS: u64 = 1024;

/// How often a clock is asked meanwhile, at most: it takes some 20 ns.
const CLOCK_ASKED_MAX: u32 = 2_000;

/// A redemption as asked for: decoded, not yet believed.
pub struct RedemptionRequest {
    /// The code set, as text.
    pub code_set: String,
    /// Who redeems.
    pub identity: IdentityId,
    /// The PIN, where one was given.
    pub pin: Option<String>,
    /// The proof of the terminal's key, a compact JWS.
    pub proof: String,
    /// From where it comes, where that is known.
    pub address: Option<IpAddr>,
}

/// Who presented which code set with which key: all three proven.
struct Presented {
    authorization: Arc<Authorization>,
    fleet: Arc<FleetBook>,
    identity: IdentityId,
    holder: HolderKey,
    request: RequestKey,
    pin: Option<String>,
    pin_right: bool,
    address: Option<IpAddr>,
    /// What whoever was asked about it has answered.
    verdict: Option<Verdict>,
}

impl Presented {
    fn new(
        (authorization, fleet): (Arc<Authorization>, Arc<FleetBook>),
        identity: IdentityId,
        holder: HolderKey,
        pin: Option<String>,
    ) -> Self {
        let request = RequestKey {
            identity: identity.clone(),
            thumbprint: holder.thumbprint(),
        };
        Self {
            authorization,
            fleet,
            identity,
            holder,
            request,
            pin,
            pin_right: false,
            address: None,
            verdict: None,
        }
    }
}

/// A redemption that every rule allows, and whose code set is reserved for it; an order that every
/// rule allows; or a bundle to sign again.
pub struct Admitted {
    pub(super) ticket: Ticket,
    /// An order's is a draft: what it asks for, and no id yet.
    pub(super) authorization: Arc<Authorization>,
    pub(super) fleet: Arc<FleetBook>,
    pub(super) vehicle: Arc<Vehicle>,
    pub(super) identity: IdentityId,
    pub(super) holder: HolderKey,
    pub(super) terminal: Option<TerminalId>,
    /// When its keys may be used.
    pub(super) window: Window,
    pub(super) order: Option<Order>,
    /// The bundle as it stands, where it is to be signed again as it is.
    pub(super) renews: Option<Box<Bundle>>,
    /// What of rules, identity and vehicle it was decided on.
    pub(super) relies_on: ReliedOn,
}

impl Admitted {
    /// How many keys it comes to.
    pub(super) fn keys(&self) -> usize {
        let renewed = self.renews.as_ref().map(|bundle| bundle.keys.len());
        renewed.unwrap_or(self.authorization.functions.len())
    }
}

enum Admission {
    /// Its outcome will be told.
    Waiting(oneshot::Receiver<Outcome>),
    /// It has been redeemed, by this request or another.
    Redeemed,
    /// The PIN has to be counted and compared first.
    PinAsked,
    /// Somebody else has to be asked first.
    HookAsked(Box<Question>),
}

impl Engine {
    /// Redeems a code set: admits, waits for the commit, answers. The same request again is
    /// answered with the same bundle.
    ///
    /// # Errors
    /// Every refusal of the rules; `busy`, `hsm_unavailable`, `store_unavailable` or
    /// `shutting_down`, after which the same request may be sent again.
    pub async fn redeem(&self, asked: RedemptionRequest) -> Result<Arc<Redemption>, Failure> {
        let claimed = CodeSet::parse(&asked.code_set)?;
        let believed = self.look(|| self.believe(&claimed)).await?;
        // Before the proof is checked, which is most of the work.
        if believed.0.state != AuthorizationState::Redeemed {
            self.shared.check_queue()?;
        }
        let (audience, now) = (&self.shared.settings.public_url, self.shared.clock.unix());
        let holder = jws::check_proof(&asked.proof, audience, claimed.nonce(), now)?;
        let presented = Presented::new(believed, asked.identity, holder, asked.pin);
        self.carry_through(Presented {
            address: asked.address,
            ..presented
        })
        .await
    }

    /// Redeems for a terminal whose key the caller has checked by other means than a proof.
    ///
    /// # Errors
    /// As [`Engine::redeem`].
    pub async fn redeem_for(
        &self,
        code_set: &str,
        identity: IdentityId,
        holder: HolderKey,
    ) -> Result<Arc<Redemption>, Failure> {
        let claimed = CodeSet::parse(code_set)?;
        let believed = self.look(|| self.believe(&claimed)).await?;
        self.carry_through(Presented::new(believed, identity, holder, None))
            .await
    }

    async fn carry_through(&self, mut presented: Presented) -> Result<Arc<Redemption>, Failure> {
        self.count_redemption(&presented)?;
        let deadline = concurrent::sleep(self.shared.settings.answer_within);
        tokio::pin!(deadline);
        for _ in 0..=ADMISSIONS_MAX {
            match self.look(|| self.admit(&presented)).await? {
                Admission::Redeemed => return self.read_back(&presented).await,
                Admission::PinAsked => {
                    presented.pin_right = self
                        .check_pin(&presented.authorization, presented.pin.as_deref())
                        .await?;
                }
                Admission::HookAsked(question) => {
                    presented.verdict = Some(self.verdict(&question).await);
                }
                Admission::Waiting(outcome) => {
                    let outcome = tokio::select! {
                        outcome = outcome => outcome.unwrap_or(Outcome::Released),
                        () = &mut deadline => return Err(self.shared.too_late().into()),
                    };
                    match outcome {
                        Outcome::Issued(redemption) => return Ok(redemption),
                        Outcome::Refused(refusal) => return Err(refusal.into()),
                        // Another node may have been faster: look again when that is known.
                        Outcome::Released => self.abreast().await?,
                        // Orders and renewals alone are answered so.
                        Outcome::Answered(_) | Outcome::Renewed => {}
                    }
                }
            }
        }
        Err(self
            .shared
            .busy("others keep failing to redeem this code set")
            .into())
    }

    /// Counts an attempt to redeem, right or wrong, as the fleet's rules have it.
    fn count_redemption(&self, presented: &Presented) -> Result<(), Refusal> {
        let fleet = &presented.fleet;
        if fleet.ruled.rules().limits.is_none() {
            return Ok(());
        }
        // Whoever is not known is refused in any case, and leaves no trace.
        let identity = fleet.identity(presented.identity.as_str());
        let known = fleet.terminals_of(presented.identity.as_str());
        let terminal = known.iter().find(|one| one.key == presented.holder);
        let asks = Asks {
            token: None,
            identity: identity.as_ref().map(|it| &it.id),
            terminal: terminal.map(|it| &it.id),
            vehicle: Some(&presented.authorization.vehicle),
        };
        self.shared.limits.ask(fleet, asks)
    }

    /// What a code set is for, to somebody who holds it.
    ///
    /// # Errors
    /// `code_set_malformed`, `code_set_unknown`, and what [`Authorization::check_open`] refuses.
    pub async fn preview(&self, code_set: &str) -> Result<Arc<Authorization>, Refusal> {
        let claimed = CodeSet::parse(code_set)?;
        self.look(|| {
            let (authorization, _) = self.believe(&claimed)?;
            authorization.check_open(self.shared.clock.unix())?;
            Ok(authorization)
        })
        .await
    }

    /// Checks the proof of whoever reads a bundle as its borrower, and returns the thumbprint of
    /// the key that signed it: the caller compares it with the bundle's.
    ///
    /// # Errors
    /// `proof_invalid`.
    pub fn bundle_reader(&self, id: &BundleId, proof: &str) -> Result<[u8; 32], Refusal> {
        Ok(self.bundle_prover(id, proof)?.thumbprint())
    }

    /// The key of whoever has signed a proof over a bundle's id.
    ///
    /// # Errors
    /// `proof_invalid`.
    pub fn bundle_prover(&self, id: &BundleId, proof: &str) -> Result<HolderKey, Refusal> {
        let nonce = fob_verify::code_set::text_nonce(&id.to_string());
        let audience = &self.shared.settings.public_url;
        jws::check_proof(proof, audience, &nonce, self.shared.clock.unix())
    }

    /// The authorization a code set stands for. Says nothing about its state to somebody who does
    /// not hold all of id, secret and codes; whether such an id exists he learns neither from what
    /// he is told nor from how long that takes.
    fn believe(&self, claimed: &CodeSet) -> Result<(Arc<Authorization>, Arc<FleetBook>), Refusal> {
        let shared = &self.shared;
        let began = shared.clock.monotonic();
        let believed = shared.book.look_up(claimed.id, |held| {
            let (version, functions) = held.code_set();
            let key = &shared.code_set_key;
            let same = key.matches(claimed, held.fleet, version, functions);
            same.then(|| Arc::new(held.clone()))
        });
        let found = believed.flatten().and_then(|authorization| {
            let fleet = shared.book.fleet(authorization.fleet)?;
            Some((authorization, fleet))
        });
        found.ok_or_else(|| {
            self.wait_as_for_every_guess(began);
            Refusal::new(RefusalCode::CodeSetUnknown).field("code_set")
        })
    }

    /// Lets the time of a wrong guess pass, whatever it has taken to see that it is one. Asleep it
    /// would be far longer; and a clock that stands still is asked so often and no more. Until when
    /// is drawn: the clock is asked every so often, and with an end that is always the same by how
    /// much that is missed would tell when the asking began.
    fn wait_as_for_every_guess(&self, began: Duration) {
        let drawn = RandomState::new().hash_one(began) % GUESS_DRAWN_NS;
        let takes = GUESS_TAKES + Duration::from_nanos(drawn);
        let passed = || self.shared.clock.monotonic().saturating_sub(began);
        for _ in 0..CLOCK_ASKED_MAX {
            if passed() >= takes {
                break;
            }
            std::hint::spin_loop();
        }
    }

    fn admit(&self, presented: &Presented) -> Result<Admission, Refusal> {
        let shared = &self.shared;
        // The book may have moved on since this request last looked.
        let authorization = shared
            .book
            .authorization(presented.authorization.id)
            .filter(|now| now.code_set().0 == presented.authorization.code_set().0)
            .ok_or_else(|| Refusal::new(RefusalCode::CodeSetUnknown).field("code_set"))?;
        if authorization.redeemed {
            return Ok(Admission::Redeemed);
        }
        shared.check_door()?;
        let now = shared.clock.unix();
        authorization.check_open(now)?;
        let Allowed {
            vehicle,
            terminal,
            window,
            asks_pin,
            seen,
            relies_on,
        } = check_rules(presented, &authorization, now)?;
        shared.check_signing(now)?;
        // Before the PIN, so that no attempt at it is spent on what is refused.
        let (fleet, functions) = (&presented.fleet, &authorization.functions);
        if let Some(question) = Question::new(fleet, &vehicle, &presented.identity, functions) {
            let known = || shared.hooks.known(&question, shared.clock.monotonic());
            match presented.verdict.clone().or_else(known) {
                Some(verdict) => question.judge(&verdict)?,
                None => return Ok(Admission::HookAsked(Box::new(question))),
            }
        }
        if asks_pin && !presented.pin_right {
            return Ok(Admission::PinAsked);
        }
        let id = authorization.id;
        let still_open = || {
            let again = shared.book.look_up(id, |again| again.check_open(now));
            again.unwrap_or_else(|| Err(RefusalCode::CodeSetUnknown.into()))
        };
        let reserved = shared
            .reservations
            .reserve(id, presented.request.clone(), still_open);
        let (reserved, outcome) = match reserved {
            Err(refusal) if refusal.code == RefusalCode::CodeSetRedeemed => {
                return Ok(Admission::Redeemed);
            }
            other => other?,
        };
        if let Reserved::Mine(reservation) = reserved {
            // Where it may not, the reservation is dropped, and whoever waits for it asks anew.
            let keys = authorization.functions.len();
            self.count_issue(&presented.fleet, &vehicle.id, keys, now)?;
            self.hand_over(Admitted {
                ticket: Ticket::Redemption(reservation),
                authorization,
                fleet: Arc::clone(&presented.fleet),
                vehicle,
                identity: presented.identity.clone(),
                holder: presented.holder,
                terminal,
                window,
                order: None,
                renews: None,
                relies_on,
            })?;
            if let Some(seen) = seen {
                presented.fleet.recent.note(seen);
            }
        }
        Ok(Admission::Waiting(outcome))
    }

    /// The one hand-off: a full queue refuses at the door.
    fn hand_over(&self, admitted: Admitted) -> Result<(), Refusal> {
        let keys = admitted.keys();
        self.shared.pace.arrive(keys);
        let now = self.shared.clock.monotonic();
        self.shared.queue.join(now);
        let item = batch::Item::Redeem(Box::new(admitted), now);
        let (item, refusal) = match self.walk_ins.try_send(item) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(item)) => (item, self.shared.busy("the queue is full")),
            Err(TrySendError::Disconnected(item)) => (item, shutting_down()),
        };
        self.shared.pace.leave(keys);
        self.shared.queue.turn_away();
        if let batch::Item::Redeem(admitted, _) = item {
            admitted.ticket.resolve(Outcome::Refused(refusal.clone()));
        }
        Err(refusal)
    }

    async fn read_back(&self, presented: &Presented) -> Result<Arc<Redemption>, Failure> {
        let id = presented.authorization.id;
        let found = self.bundle_of(id).await?;
        let redeemed = found.ok_or_else(|| {
            Failure::Fault(format!("authorization {id} is redeemed and has no bundle"))
        })?;
        let bundle = &redeemed.bundle;
        let same = bundle.identity == presented.request.identity
            && bundle.holder.thumbprint() == presented.request.thumbprint;
        if !same {
            return Err(RefusalCode::CodeSetRedeemed.into());
        }
        Ok(Arc::new(Redemption {
            signed: redeemed,
            terminal: None,
            status_next: 0,
            order: None,
            relies_on: ReliedOn::default(),
        }))
    }
}

/// Every rule about what may be issued, apart from to whom.
pub(super) fn check_vehicle(
    fleet: &FleetBook,
    authorization: &Authorization,
    now: UnixTime,
) -> Result<Arc<Vehicle>, Refusal> {
    Case::new(fleet, authorization, now).check_vehicle()
}

/// What the rules allow.
struct Allowed {
    vehicle: Arc<Vehicle>,
    terminal: Option<TerminalId>,
    window: Window,
    /// The PIN has to be right.
    asks_pin: bool,
    /// What is remembered of it, where the fleet's rules ask for that.
    seen: Option<Seen>,
    /// What of rules, identity and vehicle it was decided on.
    relies_on: ReliedOn,
}

/// Every rule about who may redeem what, apart from the PIN's value.
fn check_rules(
    presented: &Presented,
    authorization: &Authorization,
    now: UnixTime,
) -> Result<Allowed, Refusal> {
    let case = Case::new(&presented.fleet, authorization, now).redeemed_by(Borrower {
        id: &presented.identity,
        holder: Some(&presented.holder),
    });
    let case = case.seen_from(presented.address);
    let vehicle = case.check_vehicle()?;
    case.check_borrower()?;
    // A PIN that is given where there is one is compared before it counts.
    case.check_step_up(authorization.pin && presented.pin.is_some())?;
    let (terminal, judged) = (case.terminal(), case.judged());
    let asks_pin = authorization.pin && case.asks_pin(terminal.is_some());
    Ok(Allowed {
        vehicle,
        terminal,
        window: case.window(false),
        asks_pin,
        seen: judged.and_then(|_| case.seen(presented.address)),
        relies_on: case.relies_on(),
    })
}
