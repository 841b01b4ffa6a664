//! What becomes of each write, decided on what was read: floor 2, `store/postgres`. The registry's
//! and the operators' writes are here, the others in `issue` and `amend`.

use std::collections::HashMap;
use std::sync::Arc;

use super::ground::{EpochRow, Ground, IdentityRow, TerminalRow, TokenRow, VehicleRow};
use super::{acts, amend, issue, rulings};
use crate::domain::{
    Epoch, EpochId, Fleet, FleetId, FunctionCode, Identity, IdentityId, Terminal, TerminalId,
    Token, TokenId, UnixTime, Vehicle,
};
use crate::store::encoding::{column, words};
use crate::store::{
    Applied, Attestation, Erasure, Member, RecordedStep, Rotation, StoreError, Write,
};

/// Decides a write and notes what it changes.
#[expect(clippy::too_many_lines, reason = "one short arm for each write")]
pub(super) fn decide(ground: &mut Ground, write: &Write) -> Result<Applied, StoreError> {
    Ok(match write {
        Write::Setting(name, value) => setting(ground, name, value),
        Write::NewFleet(fleet) => new_fleet(ground, fleet),
        Write::Function(fleet, code, name) => function(ground, *fleet, *code, name),
        Write::Vehicle(vehicle) => put_vehicle(ground, vehicle),
        Write::Identity(identity) => put_identity(ground, identity),
        Write::Terminal(terminal) => put_terminal(ground, terminal),
        Write::New(member) => put_new(ground, member),
        Write::Erase(erasure) => erase(ground, erasure),
        Write::Attest(attestation) => attest(ground, attestation),
        Write::NewToken(token) => new_token(ground, token),
        Write::RotateToken(rotation) => rotate_token(ground, rotation),
        Write::TokensUsed(used) => {
            for (id, at) in &**used {
                let known = ground.changes.tokens_used.entry(*id).or_insert(*at);
                *known = (*known).max(*at);
            }
            Applied::Done
        }
        Write::RevokeToken(fleet, token, at) => revoke_token(ground, *fleet, *token, *at),
        Write::Epoch(epoch) => put_epoch(ground, epoch),
        Write::TrustList(version, body) => put_trust_list(ground, *version, body),
        Write::Step(step) => take_step(ground, step)?,
        Write::Authorize(new) => issue::authorize(ground, new)?,
        Write::Recall(request) => issue::repeated(ground, request).unwrap_or(Applied::Done),
        Write::PinAttempt(id, version) => issue::pin_attempt(ground, id, *version),
        Write::PinRight(id, version) => issue::pin_right(ground, id, *version),
        Write::Redeem(redemption) => issue::redeem(ground, redemption)?,
        Write::Amend(amendment) => amend::amend(ground, amendment)?,
        Write::Reset(reset) => amend::reset(ground, reset)?,
        Write::Suspend(suspension) => amend::suspend(ground, suspension),
        Write::Follow(following) => amend::follow(ground, following),
        Write::Renew(renewal) => issue::renew(ground, renewal)?,
        // Written at the end, with what became of the others.
        Write::Signed(_) => Applied::Done,
        Write::Lists(lists) => {
            for list in &**lists {
                ground.list(&[list.listed]);
                let place = (list.listed.shard.tag, list.listed.shard.number);
                ground.changes.signed_lists.insert(place, list.clone());
            }
            Applied::Done
        }
        Write::AskLists(lists) => {
            let places = lists.iter().map(|shard| (shard.tag, shard.number));
            ground.changes.asked_lists.extend(places);
            Applied::Done
        }
        Write::TakeIndexes(fleet, count) => {
            let first = ground.take_indexes(*fleet, *count);
            first.map_or(Applied::Stale, Applied::Indexes)
        }
        Write::Under(lease, write) => {
            if !ground.holds(*lease) {
                return Ok(Applied::Stale);
            }
            decide(ground, write)?
        }
        Write::Contact(fleet, vehicle, contact) => {
            if ground.vehicle(*fleet, vehicle).is_none() {
                return Ok(Applied::Stale);
            }
            let name = (*fleet, vehicle.clone());
            ground.changes.contacts.insert(name, *contact);
            Applied::Done
        }
        Write::Rule(ruled) => rulings::rule(ground, ruled)?,
        Write::Act(act, write) => {
            let applied = match write {
                Some(write) => decide(ground, write)?,
                None if ground.fleets.contains_key(&act.fleet) => Applied::Done,
                None => Applied::Stale,
            };
            if applied.took_place() {
                acts::keep(ground, act)?;
            }
            applied
        }
        Write::Purge(..) => {
            return Err(StoreError::Failed("a purge is no single row".into()));
        }
        Write::Registered(..) => {
            return Err(StoreError::Failed(
                "what was registered is told of a list of writes".into(),
            ));
        }
    })
}

fn setting(ground: &mut Ground, name: &str, value: &str) -> Applied {
    match ground.settings.get(name) {
        Some(known) if known == value => Applied::Done,
        Some(_) => Applied::Conflict,
        None => {
            let row = (name.to_owned(), value.to_owned());
            ground.settings.insert(row.0.clone(), row.1.clone());
            ground.changes.settings.push(row);
            Applied::Done
        }
    }
}

fn new_fleet(ground: &mut Ground, fleet: &Fleet) -> Applied {
    let (ids, names, tags) = &mut ground.fleets_taken;
    let name = fleet.name.as_str();
    if ids.contains(&fleet.id) || names.contains(name) || tags.contains(&fleet.tag) {
        return Applied::Conflict;
    }
    ids.insert(fleet.id);
    names.insert(name.to_owned());
    tags.insert(fleet.tag);
    let active = words::status(fleet.status) == words::ACTIVE;
    ground.fleets.insert(fleet.id, active);
    ground.changes.fleets.push(fleet.clone());
    ground.counters.insert(fleet.id, fleet.status_next);
    let status_next = &mut ground.changes.status_next;
    status_next.insert(fleet.id, fleet.status_next);
    Applied::Done
}

fn function(ground: &mut Ground, fleet: FleetId, code: FunctionCode, name: &str) -> Applied {
    if !ground.fleets.contains_key(&fleet) {
        return Applied::Stale;
    }
    if let Some(known) = ground.functions.get(&(fleet, code)) {
        return match **known == *name {
            true => Applied::Done,
            false => Applied::Conflict,
        };
    }
    let of_fleet = ground.functions.iter();
    if of_fleet
        .into_iter()
        .any(|((of, _), known)| *of == fleet && **known == *name)
    {
        return Applied::Conflict;
    }
    ground.functions.insert((fleet, code), name.into());
    ground.changes.functions.push((fleet, code, name.into()));
    Applied::Done
}

fn put_new(ground: &mut Ground, member: &Member) -> Applied {
    let there = match member {
        Member::Vehicle(it) => ground.vehicles.contains_key(&(it.fleet, it.id.clone())),
        Member::Identity(it) => ground.identities.contains_key(&(it.fleet, it.id.clone())),
        Member::Terminal(it) => ground.terminals.contains_key(&(it.fleet, it.id.clone())),
    };
    match member {
        _ if there => Applied::Conflict,
        Member::Vehicle(vehicle) => put_vehicle(ground, vehicle),
        Member::Identity(identity) => put_identity(ground, identity),
        Member::Terminal(terminal) => put_terminal(ground, terminal),
    }
}

fn put_vehicle(ground: &mut Ground, vehicle: &Vehicle) -> Applied {
    if !ground.fleets.contains_key(&vehicle.fleet) {
        return Applied::Stale;
    }
    let name = (vehicle.fleet, vehicle.id.clone());
    let known = ground.vehicles.entry(name.clone());
    let known = known.or_insert_with(|| VehicleRow {
        status: words::status(vehicle.status),
        epoch: vehicle.epoch,
        owner: vehicle.owner.clone(),
    });
    if known.owner != vehicle.owner {
        return Applied::Conflict;
    }
    if let Some(model) = ground.models.get_mut(&name) {
        model.clone_from(&vehicle.model);
    }
    ground.changes.vehicles.insert(name, vehicle.clone());
    Applied::Done
}

fn put_identity(ground: &mut Ground, identity: &Identity) -> Applied {
    if !ground.fleets.contains_key(&identity.fleet) {
        return Applied::Stale;
    }
    let name = (identity.fleet, identity.id.clone());
    let now = IdentityRow {
        active: words::status(identity.status) == words::ACTIVE,
        held: identity.hold.is_some(),
    };
    let before = ground.identities.insert(name.clone(), now);
    let mut changed = before.is_some_and(|before| before != now);
    if let Some(conditions) = ground.conditions.get_mut(&name) {
        let now = (identity.hold, identity.licences.clone());
        changed |= *conditions != now;
        *conditions = now;
    }
    if changed {
        ground.changes.standings.insert(identity.fleet);
    }
    ground.changes.identities.insert(name, identity.clone());
    Applied::Done
}

fn put_terminal(ground: &mut Ground, terminal: &Terminal) -> Applied {
    if !ground.fleets.contains_key(&terminal.fleet) {
        return Applied::Stale;
    }
    let name = (terminal.fleet, terminal.id.clone());
    match ground.terminals.get_mut(&name) {
        Some(known) => {
            known.identity = terminal.identity.clone();
            ground.changes.standings.insert(terminal.fleet);
        }
        None => {
            let row = TerminalRow {
                status: words::status(terminal.status),
                identity: terminal.identity.clone(),
            };
            ground.terminals.insert(name.clone(), row);
        }
    }
    ground.changes.terminals.insert(name, terminal.clone());
    Applied::Done
}

/// What the same transaction has written of it before goes too.
fn erase(ground: &mut Ground, erasure: &Erasure) -> Applied {
    let name = (erasure.fleet, erasure.id.clone());
    if ground.identities.remove(&name).is_none() {
        return Applied::Stale;
    }
    let others = |it: &IdentityId| *it != erasure.id;
    ground
        .terminals
        .retain(|(fleet, _), row| *fleet != erasure.fleet || others(&row.identity));
    let changes = &mut ground.changes;
    changes.identities.remove(&name);
    changes.identities_stand.remove(&name);
    changes
        .terminals
        .retain(|(fleet, _), it| *fleet != erasure.fleet || others(&it.identity));
    let left = &ground.terminals;
    changes
        .terminals_stand
        .retain(|name| left.contains_key(name));
    changes.standings.insert(erasure.fleet);
    changes.erased.insert(name, erasure.becomes.clone());
    Applied::Done
}

/// A terminal that another vouches for.
fn attest(ground: &mut Ground, attestation: &Attestation) -> Applied {
    let Attestation { terminal, request } = attestation;
    if let Some(answer) = issue::repeated(ground, &request.request) {
        return answer;
    }
    let name = (terminal.fleet, terminal.id.clone());
    let by = terminal.attested.as_ref().map(|it| it.by.clone());
    let own = |by: &TerminalId| {
        let by = ground.terminals.get(&(terminal.fleet, by.clone()));
        by.is_some_and(|by| by.identity == terminal.identity)
    };
    if ground.terminals.contains_key(&name)
        || !by.as_ref().is_some_and(own)
        || !issue::may_command(ground, terminal.fleet, by.as_ref())
    {
        return Applied::Stale;
    }
    put_terminal(ground, terminal);
    ground.keep(None, Some(request));
    Applied::Done
}

fn new_token(ground: &mut Ground, token: &Token) -> Applied {
    if !ground.fleets.contains_key(&token.fleet) {
        return Applied::Stale;
    }
    if ground.tokens.contains_key(&token.id) {
        return Applied::Conflict;
    }
    let row = TokenRow {
        fleet: token.fleet,
        revoked_at: token.revoked_at,
    };
    ground.tokens.insert(token.id, row);
    ground.changes.tokens.push(token.clone());
    Applied::Done
}

/// A token in the place of another.
fn rotate_token(ground: &mut Ground, rotation: &Rotation) -> Applied {
    let Rotation {
        before,
        ends,
        token,
    } = rotation;
    let known = ground.tokens.get(before);
    if !known.is_some_and(|row| row.fleet == token.fleet && row.revoked_at.is_none()) {
        return Applied::Stale;
    }
    let made = new_token(ground, token);
    if made == Applied::Done {
        let known = ground.changes.tokens_end.entry(*before).or_insert(*ends);
        *known = (*known).min(*ends);
    }
    made
}

/// A token that has ended keeps the time of its first end.
fn revoke_token(ground: &mut Ground, fleet: FleetId, token: TokenId, at: UnixTime) -> Applied {
    match ground.tokens.get_mut(&token) {
        Some(row) if row.fleet == fleet => {
            if row.revoked_at.is_none() {
                row.revoked_at = Some(at);
                ground.changes.tokens_revoked.insert(token);
            }
            Applied::Done
        }
        _ => Applied::Stale,
    }
}

fn put_epoch(ground: &mut Ground, epoch: &Epoch) -> Applied {
    let last = ground.epochs.values().map(|row| row.place).max();
    let row = EpochRow {
        state: words::epoch_state(epoch.state),
        token_serial: epoch.token_serial.clone(),
        place: ground
            .epochs
            .get(&epoch.id)
            .map_or(last.unwrap_or(0) + 1, |row| row.place),
    };
    ground.epochs.insert(epoch.id, row);
    ground.changes.epochs.insert(epoch.id, epoch.clone());
    Applied::Done
}

fn put_trust_list(ground: &mut Ground, version: u32, body: &Arc<[u8]>) -> Applied {
    let version = i64::from(version);
    if ground.trust.is_some_and(|newest| newest >= version) {
        return Applied::Conflict;
    }
    ground.trust = Some(version);
    ground.changes.trust.push((version, Arc::clone(body)));
    Applied::Done
}

/// Writes a step, if it was decided on what is there.
fn take_step(ground: &mut Ground, step: &RecordedStep) -> Result<Applied, StoreError> {
    let number = column(step.number)?;
    let trust = step.trust.as_ref().map(|(version, _)| i64::from(*version));
    let new_trust = trust.is_none_or(|version| ground.trust.is_none_or(|newest| newest < version));
    if number != ground.record + 1 || !new_trust || !one_active_each(ground, step) {
        return Ok(Applied::Stale);
    }
    if let Some((version, body)) = &step.trust {
        let version = i64::from(*version);
        ground.trust = Some(version);
        ground.changes.trust.push((version, body.clone()));
    }
    for epoch in &step.epochs {
        put_epoch(ground, epoch);
    }
    ground.record = number;
    ground.changes.records.push((number, step.record.clone()));
    Ok(Applied::Done)
}

/// Whether it leaves no token with two active epochs.
fn one_active_each(ground: &Ground, step: &RecordedStep) -> bool {
    let active = words::epoch_state(crate::domain::EpochState::Active);
    let now = ground.epochs.iter().filter(|(_, row)| row.state == active);
    let mut of: HashMap<EpochId, &str> = now
        .map(|(id, row)| (*id, row.token_serial.as_str()))
        .collect();
    for epoch in &step.epochs {
        of.remove(&epoch.id);
        if words::epoch_state(epoch.state) == active {
            of.insert(epoch.id, &epoch.token_serial);
        }
    }
    let mut tokens: Vec<_> = of.into_values().collect();
    tokens.sort_unstable();
    tokens.is_sorted_by(|a, b| a < b)
}
