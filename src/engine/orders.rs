//! Orders: authorization and redemption in one, for registered terminals, many at once.
//!
//! An order is admitted like a redemption, in its caller's thread, but it needs no code set and no
//! reservation: there is nothing to race for. What makes it one that is issued once is its durable
//! request, (`Idempotency-Key`, `ref`), which is a condition of its commit.

use std::collections::HashMap;
use std::sync::Arc;

use fob_verify::HolderKey;
use fob_verify::region::Region;
use fob_verify::window::Recurring;

use super::admit::{Admitted, check_vehicle};
use super::authenticate::{BackEnd, orders_scope};
use super::authorize::AuthorizationSpec;
use super::book::FleetBook;
use super::case::Case;
use super::commit::REPLAYED;
use super::hooks::{Answers, Question, Verdict};
use super::limits::Asks;
use super::reserve::Outcome;
use super::ticket::{self, Place, Ticket};
use super::{Engine, Failure, shutting_down};
use crate::concurrent;
use crate::domain::function::FunctionRef;
use crate::domain::{
    Author, Authorization, AuthorizationId, BundleId, IdentityId, Recipient, Refusal, RefusalCode,
    Signing, Status, TerminalId, UnixTime, Vehicle, VehicleId,
};
use crate::store::{self, OrderRequest, Redemption, ReliedOn};

mod asked;

/// Times one order is admitted anew after its conditions did not hold before it is told to wait.
const ADMISSIONS_MAX: usize = 3;

/// Orders handed over together at most: whoever waits for one waits for all of them.
const CHUNK_LEN_MAX: usize = 256;

/// The most bytes of a `ref`.
pub const REFERENCE_LEN_MAX: usize = 128;

/// One order as asked for: decoded, not yet checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The caller's name for it, unique under one `Idempotency-Key`; 1 to 128 bytes.
    pub reference: String,
    /// SHA-256 of what was asked, as it came.
    pub digest: [u8; 32],
    /// What is asked for.
    pub spec: OrderSpec,
}

/// What an order asks for.
#[derive(Clone, Debug)]
pub struct OrderSpec {
    /// The vehicle.
    pub vehicle: VehicleId,
    /// Its functions.
    pub functions: Vec<FunctionRef>,
    /// From when the keys may be used.
    pub not_before: UnixTime,
    /// First second in which they may not any more.
    pub not_after: UnixTime,
    /// Where they may be used.
    pub region: Option<Region>,
    /// At which hours of the week they may be used.
    pub recurring: Option<Recurring>,
    /// How often each function may be used.
    pub max_uses: Vec<(FunctionRef, u32)>,
    /// Who gets the keys.
    pub identity: IdentityId,
    /// The registered terminal they are bound to.
    pub terminal: TerminalId,
    /// How they are signed.
    pub signing: Option<Signing>,
}

/// One call that brings orders: who asks, under which `Idempotency-Key`, and what was answered
/// under it before.
pub struct OrderCall {
    caller: BackEnd,
    scope: Option<Arc<[u8; 32]>>,
    answered: HashMap<[u8; 16], ([u8; 16], BundleId)>,
}

impl OrderCall {
    /// The fleet whose orders these are.
    pub fn fleet(&self) -> &Arc<FleetBook> {
        &self.caller.fleet
    }

    /// What makes an order of this call one that may be sent again.
    fn request(&self, order: &Order) -> Option<OrderRequest> {
        let call = Arc::clone(self.scope.as_ref()?);
        let half = |hash: &[u8]| {
            let mut half = [0; 16];
            half.copy_from_slice(&hash[..16]);
            half
        };
        let hash =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, order.reference.as_bytes());
        Some(OrderRequest {
            call,
            reference: half(hash.as_ref()),
            digest: half(&order.digest),
        })
    }
}

/// An order that every rule allows, without anybody who waits for it.
struct Allowed {
    authorization: Authorization,
    vehicle: Arc<Vehicle>,
    identity: IdentityId,
    holder: HolderKey,
    terminal: TerminalId,
    order: store::Order,
    relies_on: ReliedOn,
}

type Answer = Result<Arc<Redemption>, Failure>;

impl Engine {
    /// Begins a call. With a key, each order's (key, reference) is durable: the same order again
    /// gets the bundle it got before.
    ///
    /// # Errors
    /// `malformed` for a key that is none; `store_unavailable`.
    pub async fn open_orders(
        &self,
        caller: BackEnd,
        key: Option<&str>,
    ) -> Result<OrderCall, Failure> {
        let mut answered = HashMap::new();
        let mut scope = None;
        if let Some(key) = key {
            let call = orders_scope(caller.fleet.fleet.id, key)?;
            for one in self.read(move |store| store.answered(&call)).await? {
                answered.insert(one.reference, (one.digest, one.bundle));
            }
            scope = Some(Arc::new(call));
        }
        Ok(OrderCall {
            caller,
            scope,
            answered,
        })
    }

    /// Issues orders: one answer for each, in their order, when all are durable. Waits for room
    /// where too many are under way; an order once handed over is carried through, whether or not
    /// anybody waits for it.
    pub async fn issue(&self, call: &OrderCall, orders: Vec<Order>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = orders.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..orders.len()).collect();
        let chunk_len = CHUNK_LEN_MAX.min(self.shared.settings.queue_len_max);
        for admission in 0..=ADMISSIONS_MAX {
            let mut again = Vec::new();
            for part in left.chunks(chunk_len) {
                let outcomes = self.issue_chunk(call, &orders, part).await;
                for (at, outcome) in part.iter().zip(outcomes) {
                    match outcome {
                        Ok(Outcome::Issued(redemption)) => answers[*at] = Some(Ok(redemption)),
                        Ok(Outcome::Answered(bundle)) => {
                            answers[*at] = Some(self.answered_before(bundle).await);
                        }
                        Err(refusal) if admission == 0 && self.is_early(&refusal) => {
                            answers[*at] = Some(Err(refusal.into()));
                            again.push(*at);
                        }
                        Ok(Outcome::Refused(refusal)) | Err(refusal) => {
                            answers[*at] = Some(Err(refusal.into()));
                        }
                        // Renewals alone are answered so.
                        Ok(Outcome::Released | Outcome::Renewed) => {
                            answers[*at] = None;
                            again.push(*at);
                        }
                    }
                }
            }
            left = again;
            // Another node may have changed what they rest on: look again when that is known.
            if left.is_empty() || self.abreast().await.is_err() {
                break;
            }
        }
        let unlucky = || {
            Err(self
                .shared
                .busy("what this order rests on keeps changing")
                .into())
        };
        let answer = |answer: Option<Answer>| answer.unwrap_or_else(unlucky);
        answers.into_iter().map(answer).collect()
    }

    /// Admits some of the orders, hands them over together, and waits for all of them. One outcome
    /// or refusal for each.
    async fn issue_chunk(
        &self,
        call: &OrderCall,
        orders: &[Order],
        part: &[usize],
    ) -> Vec<Result<Outcome, Refusal>> {
        let now = self.shared.clock.unix();
        let answers = self.ask_about(call, orders, part, now).await;
        let mut allowed = Vec::with_capacity(part.len());
        let mut outcomes: Vec<_> = part
            .iter()
            .map(|at| match self.allow(call, &orders[*at], now, &answers)? {
                Ok(one) => {
                    allowed.push(one);
                    Ok(Outcome::Released)
                }
                Err(bundle) => Ok(Outcome::Answered(bundle)),
            })
            .collect();
        if allowed.is_empty() {
            return outcomes;
        }
        let waiting = outcomes
            .iter_mut()
            .filter(|outcome| matches!(outcome, Ok(Outcome::Released)));
        match self.hand_over_orders(call, allowed).await {
            Ok(told) => waiting
                .zip(told)
                .for_each(|(outcome, told)| *outcome = Ok(told)),
            Err(refusal) => waiting.for_each(|outcome| *outcome = Err(refusal.clone())),
        }
        outcomes
    }

    async fn hand_over_orders(
        &self,
        call: &OrderCall,
        allowed: Vec<Allowed>,
    ) -> Result<Vec<Outcome>, Refusal> {
        let admit = |one: Allowed, place| Admitted {
            ticket: Ticket::Order(place),
            window: one.authorization.window,
            authorization: Arc::new(one.authorization),
            fleet: Arc::clone(&call.caller.fleet),
            vehicle: one.vehicle,
            identity: one.identity,
            holder: one.holder,
            terminal: Some(one.terminal),
            order: Some(one.order),
            renews: None,
            relies_on: one.relies_on,
        };
        self.hand_over_chunk(allowed, admit).await
    }

    /// Hands over what nobody waits for alone, once there is room, and waits for all of it.
    pub(super) async fn hand_over_chunk<T>(
        &self,
        all: Vec<T>,
        admit: impl Fn(T, Place) -> Admitted,
    ) -> Result<Vec<Outcome>, Refusal> {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.order_room).acquire_many_owned(count);
        let room = room.await.map_err(|_| shutting_down())?;
        self.shared.check_door()?;
        let (places, told) = ticket::chunk(all.len(), room);
        let chunk: Vec<_> = places
            .into_iter()
            .zip(all)
            .map(|(place, one)| admit(one, place))
            .collect();
        let keys = chunk.iter().map(Admitted::keys).sum();
        self.shared.pace.arrive(keys);
        if self.orders.try_send(chunk).is_err() {
            self.shared.pace.leave(keys);
            return Err(shutting_down());
        }
        // Many orders take as long as the HSM needs for them; only trouble is a reason to stop
        // waiting.
        tokio::pin!(told);
        loop {
            match concurrent::timeout(self.shared.settings.answer_within, &mut told).await {
                Ok(outcomes) => return outcomes.map_err(|_| shutting_down()),
                Err(_) if self.shared.well() => {}
                Err(_) => return Err(self.shared.too_late()),
            }
        }
    }

    /// Checks every rule. An order that was answered before is not asked whether it would be
    /// allowed now: its bundle is named.
    fn allow(
        &self,
        call: &OrderCall,
        order: &Order,
        now: UnixTime,
        answers: &Answers,
    ) -> Result<Result<Allowed, BundleId>, Refusal> {
        if !(1..=REFERENCE_LEN_MAX).contains(&order.reference.len()) {
            return Err(Refusal::malformed("ref", "a ref has 1 to 128 bytes"));
        }
        let request = call.request(order);
        if let Some(request) = &request
            && let Some((digest, bundle)) = call.answered.get(&request.reference)
        {
            if *digest == request.digest {
                return Ok(Err(*bundle));
            }
            return Err(Refusal::new(RefusalCode::CommandReplayed)
                .field("ref")
                .detail(REPLAYED));
        }
        self.shared.check_door()?;
        self.shared.check_signing(now)?;
        let fleet = &call.caller.fleet;
        let author = call.caller.token.id;
        // It gets its bundle's id when that is made.
        let id = AuthorizationId([0; 16]);
        let spec = order.spec.clone();
        let (identity, terminal) = (spec.identity.clone(), spec.terminal.clone());
        let author_of = Author::Token(author);
        let mut authorization = self.draft_as(id, fleet, spec.into(), author_of, now)?;
        let vehicle = check_vehicle(fleet, &authorization, now)?;
        let relies_on = limit_to_eligible(fleet, &mut authorization, now)?;
        let functions = &authorization.functions;
        if let Some(question) = Question::new(fleet, &vehicle, &identity, functions) {
            // Under rules that came in between nobody was asked, and that is no answer.
            let verdict = answers.get(&question.digest);
            question.judge(verdict.unwrap_or(&Verdict::Unanswered))?;
        }
        let asks = Asks {
            token: Some(&call.caller.token.id),
            identity: Some(&identity),
            terminal: Some(&terminal),
            vehicle: Some(&vehicle.id),
        };
        self.shared.limits.ask(fleet, asks)?;
        let holder = fleet
            .terminal(terminal.as_str())
            .filter(|terminal| terminal.status == Status::Active)
            .map(|terminal| terminal.key)
            .ok_or_else(|| {
                Refusal::new(RefusalCode::TerminalMismatch)
                    .field("recipient.terminal")
                    .detail("this terminal is suspended")
            })?;
        self.count_issue(fleet, &vehicle.id, authorization.functions.len(), now)?;
        Ok(Ok(Allowed {
            authorization,
            vehicle,
            identity,
            holder,
            terminal,
            order: store::Order { author, request },
            relies_on,
        }))
    }

    async fn answered_before(&self, id: BundleId) -> Answer {
        let signed = self.bundle(id).await?.ok_or_else(|| {
            Refusal::new(RefusalCode::NotFound)
                .field("ref")
                .detail("what this order was answered with is over and gone")
        })?;
        Ok(Arc::new(Redemption {
            signed,
            terminal: None,
            status_next: 0,
            order: None,
            relies_on: ReliedOn::default(),
        }))
    }
}

/// What an order asks for ends with what its holder needs to have keys at all. Says what that was
/// decided on.
fn limit_to_eligible(
    fleet: &FleetBook,
    authorization: &mut Authorization,
    now: UnixTime,
) -> Result<ReliedOn, Refusal> {
    let to = authorization.recipient().identity.as_ref();
    let identity = to.and_then(|id| fleet.identity(id.as_str()));
    let unknown = || Refusal::new(RefusalCode::UnknownIdentity).field("recipient.identity");
    let mut case = Case::new(fleet, authorization, now);
    case.check_identity(identity.ok_or_else(unknown)?)?;
    let (window, relies_on) = (case.window(true), case.relies_on());
    authorization.window = window;
    authorization.redeem_by = authorization.redeem_by.min(window.not_after);
    Ok(relies_on)
}

impl From<OrderSpec> for AuthorizationSpec {
    fn from(spec: OrderSpec) -> Self {
        Self {
            vehicle: spec.vehicle,
            functions: spec.functions,
            not_before: spec.not_before,
            not_after: spec.not_after,
            region: spec.region,
            recurring: spec.recurring,
            max_uses: spec.max_uses,
            recipient: Recipient {
                identity: Some(spec.identity),
                terminal: Some(spec.terminal),
                key: None,
            },
            pin: false,
            redeem_by: None,
            signing: spec.signing,
            answers: None,
        }
    }
}
