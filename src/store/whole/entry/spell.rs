//! How entries are spelled: deterministic CBOR (RFC 8949 §4.2.1), an array for each kind.

use super::{Entry, OrderOf};
use crate::domain::{
    Authorization, BundleId, Epoch, Fleet, FleetId, FleetSettings, Held, Identity, Restore,
    Terminal, TerminalId, Token, UnixTime, Vehicle, VehicleId,
};
use crate::store::encoding::{authorization_body, bundle_parts, cbor, context, registry, words};
use crate::store::{
    Act, Contact, Frozen, Listed, Made, QuotaDay, Recorded, Request, Sent, SignatureCount,
    SignedBundle, StoreError,
};

impl Entry {
    /// Appends the entry. Structures are taken apart by name, so that a field that is added to one
    /// is missed by the compiler where it is missing here.
    #[expect(
        clippy::too_many_lines,
        reason = "one short arm for each kind of entry"
    )]
    pub(in crate::store) fn write(&self, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        match self {
            Self::Setting(name, value) => {
                cbor::write(bytes, |e| e.array(2)?.str(name)?.str(value)?.ok())
            }
            Self::Fleet(fleet) => write_fleet(bytes, fleet),
            Self::Function(fleet, code, name) => cbor::write(bytes, |e| {
                e.array(3)?.bytes(&fleet.0)?.u16(*code)?.str(name)?.ok()
            }),
            Self::Vehicle(vehicle) => write_vehicle(bytes, vehicle),
            Self::Identity(identity) => write_identity(bytes, identity),
            Self::Terminal(terminal) => write_terminal(bytes, terminal),
            Self::Token(token) => write_token(bytes, token),
            Self::Epoch(place, epoch) => write_epoch(bytes, *place, epoch),
            Self::Signatures(count) => write_signatures(bytes, count),
            Self::TrustList(version, body) => {
                cbor::write(bytes, |e| e.array(2)?.u32(*version)?.bytes(body)?.ok())
            }
            Self::Record(number, jws) => {
                cbor::write(bytes, |e| e.array(2)?.u64(*number)?.str(jws)?.ok())
            }
            Self::Revision(count) => cbor::write(bytes, |e| e.u64(*count)?.ok()),
            Self::Authorization(authorization, attempts, bundle) => {
                write_authorization(bytes, authorization, *attempts, bundle.as_ref())
            }
            Self::Request(request, authorization, made_at) => cbor::write(bytes, |e| {
                let Request { scope, digest } = request;
                e.array(4)?.bytes(scope)?.bytes(digest)?;
                e.bytes(&authorization.0)?.u64(*made_at)?.ok()
            }),
            Self::Command(authorization, version, command) => cbor::write(bytes, |e| {
                e.array(3)?.bytes(&authorization.0)?;
                e.u32(*version)?.str(command)?.ok()
            }),
            Self::Amendment {
                request: Request { scope, digest },
                authorization,
                made_at,
                command,
                outcome,
            } => cbor::write(bytes, |e| {
                e.array(6)?.bytes(scope)?.bytes(digest)?;
                write_bytes(e, authorization.as_ref().map(|id| &id.0[..]))?;
                e.u64(*made_at)?;
                cbor::write_text(e, command.as_deref())?;
                e.bytes(outcome)?.ok()
            }),
            Self::Bundle(signed, order) => write_bundle(bytes, signed, order.as_ref()),
            Self::Order {
                call,
                reference,
                digest,
                bundle,
                span,
            } => cbor::write(bytes, |e| {
                e.array(5)?.bytes(call)?.bytes(reference)?.bytes(digest)?;
                e.bytes(&bundle.0)?.u64(*span)?.ok()
            }),
            Self::Status {
                shard,
                index,
                held,
                span,
            } => cbor::write(bytes, |e| {
                e.array(5)?.u32(shard.tag)?.u64(shard.number)?;
                e.u32(*index)?;
                match held {
                    Held::ForGood => e.null()?,
                    Held::By(reasons) => e.u8(reasons.bits())?,
                };
                e.u64(*span)?.ok()
            }),
            Self::Listed(Listed {
                shard,
                issued_at,
                expires,
            }) => cbor::write(bytes, |e| {
                e.array(4)?.u32(shard.tag)?.u64(shard.number)?;
                e.u64(*issued_at)?.u64(*expires)?.ok()
            }),
            Self::Contact(fleet, vehicle, contact) => {
                write_contact(bytes, *fleet, vehicle, contact)
            }
            Self::Rules(fleet, version, text) => cbor::write(bytes, |e| {
                e.array(3)?.bytes(&fleet.0)?.u32(*version)?.str(text)?.ok()
            }),
            Self::Act(number, act) => write_act(bytes, *number, act),
            Self::Brake(fleet, vehicle, Frozen { since, by, why }) => cbor::write(bytes, |e| {
                e.array(5)?.bytes(&fleet.0)?;
                cbor::write_text(e, vehicle.as_ref().map(VehicleId::as_str))?;
                e.u64(*since)?.str(by)?;
                cbor::write_text(e, why.as_deref())
            }),
            Self::Quota(
                fleet,
                QuotaDay {
                    day,
                    base,
                    approved,
                },
            ) => cbor::write(bytes, |e| {
                e.array(4)?.bytes(&fleet.0)?;
                e.u64(*day)?.u64(*base)?.u64(*approved)?.ok()
            }),
            Self::Restore(Restore {
                number,
                at,
                trust_next,
            }) => cbor::write(bytes, |e| {
                e.array(3)?.u32(*number)?.u64(*at)?.u32(*trust_next)?.ok()
            }),
        }
    }
}

fn write_bytes(e: &mut cbor::Into<'_>, bytes: Option<&[u8]>) -> cbor::Written {
    match bytes {
        None => e.null()?.ok(),
        Some(bytes) => e.bytes(bytes)?.ok(),
    }
}

fn write_time(e: &mut cbor::Into<'_>, time: Option<UnixTime>) -> cbor::Written {
    match time {
        None => e.null()?.ok(),
        Some(time) => e.u64(time)?.ok(),
    }
}

fn write_fleet(bytes: &mut Vec<u8>, fleet: &Fleet) -> Result<(), StoreError> {
    let Fleet {
        id,
        name,
        status,
        tag,
        status_key,
        status_next,
        settings,
    } = fleet;
    let FleetSettings {
        open_redemption,
        signing,
    } = settings;
    cbor::write(bytes, |e| {
        e.array(8)?.bytes(&id.0)?.str(name.as_str())?;
        e.i64(words::status(*status))?
            .u32(*tag)?
            .bytes(status_key)?;
        e.u64(*status_next)?.bool(*open_redemption)?;
        match signing {
            None => e.null()?.ok(),
            Some(signing) => e.u8(words::signing(*signing))?.ok(),
        }
    })
}

fn write_vehicle(bytes: &mut Vec<u8>, vehicle: &Vehicle) -> Result<(), StoreError> {
    let Vehicle {
        fleet,
        id,
        model,
        functions,
        owner,
        key,
        epoch,
        status,
    } = vehicle;
    cbor::write(bytes, |e| {
        e.array(8)?.bytes(&fleet.0)?.str(id.as_str())?.str(model)?;
        authorization_body::write_functions(e, functions)?;
        cbor::write_text(e, owner.as_ref().map(|owner| owner.as_str()))?;
        write_bytes(e, key.as_ref().map(|key| key.public().as_bytes()))?;
        e.u32(*epoch)?.i64(words::status(*status))?.ok()
    })
}

fn write_identity(bytes: &mut Vec<u8>, identity: &Identity) -> Result<(), StoreError> {
    let Identity {
        fleet,
        id,
        status,
        licences,
        hold,
        proved,
    } = identity;
    let licences = registry::licences(licences)?;
    cbor::write(bytes, |e| {
        e.array(6)?.bytes(&fleet.0)?.str(id.as_str())?;
        e.i64(words::status(*status))?.bytes(&licences)?;
        match hold {
            None => e.null()?,
            Some(hold) => e.i64(words::hold(*hold))?,
        };
        write_time(e, *proved)
    })
}

fn write_act(bytes: &mut Vec<u8>, number: u64, act: &Act) -> Result<(), StoreError> {
    let Act {
        fleet,
        at,
        by,
        act,
        object,
        why,
    } = act;
    cbor::write(bytes, |e| {
        e.array(7)?.bytes(&fleet.0)?.u64(number)?.u64(*at)?;
        e.str(by)?.str(act)?.str(object)?;
        cbor::write_text(e, why.as_deref())
    })
}

fn write_terminal(bytes: &mut Vec<u8>, terminal: &Terminal) -> Result<(), StoreError> {
    let Terminal {
        fleet,
        id,
        identity,
        key,
        status,
        since,
        attested,
    } = terminal;
    let attested = attested.as_deref();
    cbor::write(bytes, |e| {
        e.array(8)?.bytes(&fleet.0)?.str(id.as_str())?;
        e.str(identity.as_str())?.bytes(key.public().as_bytes())?;
        e.i64(words::status(*status))?.u64(*since)?;
        cbor::write_text(e, attested.map(|it| it.by.as_str()))?;
        write_time(e, attested.map(|it| it.at))
    })
}

fn write_token(bytes: &mut Vec<u8>, token: &Token) -> Result<(), StoreError> {
    let Token {
        id,
        fleet,
        hash,
        scopes,
        created_at,
        expires_at,
        revoked_at,
        used_at,
    } = token;
    cbor::write(bytes, |e| {
        e.array(8)?.bytes(&id.0)?.bytes(&fleet.0)?.bytes(hash)?;
        e.u8(scopes.bits())?.u64(*created_at)?;
        write_time(e, *expires_at)?;
        write_time(e, *revoked_at)?;
        write_time(e, *used_at)
    })
}

fn write_epoch(bytes: &mut Vec<u8>, place: u64, epoch: &Epoch) -> Result<(), StoreError> {
    let Epoch {
        id,
        key,
        cka_id,
        token_serial,
        window,
        state,
        created_at,
        activated_at,
    } = epoch;
    let mut public = Vec::new();
    key.encode(&mut public);
    cbor::write(bytes, |e| {
        e.array(10)?.u64(place)?.bytes(&id.0)?.bytes(&public)?;
        e.bytes(cka_id)?.str(token_serial)?;
        e.u64(window.not_before)?.u64(window.not_after)?;
        e.i64(words::epoch_state(*state))?.u64(*created_at)?;
        write_time(e, *activated_at)
    })
}

fn write_signatures(bytes: &mut Vec<u8>, count: &SignatureCount) -> Result<(), StoreError> {
    let SignatureCount {
        epoch,
        process,
        made,
        recorded,
        ended,
    } = count;
    let Made {
        signed,
        synced,
        tried,
        given_up,
        failed,
        in_flight_max,
    } = made;
    let Recorded {
        keys,
        trees,
        lists,
        versions,
        gone,
    } = recorded;
    cbor::write(bytes, |e| {
        e.array(14)?.bytes(&epoch.0)?.bytes(process)?;
        e.u64(*signed)?.u64(*synced)?.u64(*tried)?;
        e.u64(*given_up)?.u64(*failed)?.u64(*in_flight_max)?;
        e.u64(*keys)?.u64(*trees)?.u64(*lists)?;
        e.u64(*versions)?.u64(*gone)?.bool(*ended)?.ok()
    })
}

fn write_authorization(
    bytes: &mut Vec<u8>,
    authorization: &Authorization,
    attempts: u32,
    bundle: Option<&BundleId>,
) -> Result<(), StoreError> {
    let Authorization {
        id,
        fleet,
        version,
        vehicle,
        functions: _,
        window,
        redeem_by,
        restrictions: _,
        pin: _,
        signing: _,
        state,
        redeemed: _,
        created_at: _,
        author: _,
    } = authorization;
    // What is passed over above is in the body.
    let body = authorization_body::encode(authorization)?;
    let code_set = authorization_body::code_set(authorization)?;
    let amended = authorization.amended();
    cbor::write(bytes, |e| {
        e.array(12)?.bytes(&id.0)?.bytes(&fleet.0)?;
        e.u32(*version)?.str(vehicle.as_str())?;
        e.u64(window.not_after)?.u64(*redeem_by)?;
        e.i64(words::state(*state))?.u32(attempts)?;
        write_bytes(e, bundle.map(|id| &id.0[..]))?;
        write_time(e, amended.map(|amended| amended.revision))?;
        write_bytes(e, code_set.as_deref())?;
        e.bytes(&body)?.ok()
    })
}

fn write_bundle(
    bytes: &mut Vec<u8>,
    signed: &SignedBundle,
    order: Option<&OrderOf>,
) -> Result<(), StoreError> {
    let SignedBundle { bundle, proof } = signed;
    let crate::domain::Bundle {
        id,
        authorization,
        version,
        fleet,
        vehicle,
        vehicle_epoch,
        identity,
        holder,
        epoch,
        algorithm,
        issuer,
        issued_at,
        window,
        region,
        recurring,
        subjects,
        keys,
    } = bundle;
    let mut stand_for = Vec::new();
    context::write_subjects(&mut stand_for, subjects)?;
    cbor::write(bytes, |e| {
        e.array(21)?.bytes(&id.0)?.bytes(&authorization.0)?;
        e.u32(*version)?.bytes(&fleet.0)?.str(vehicle.as_str())?;
        e.u32(*vehicle_epoch)?.str(identity.as_str())?;
        e.bytes(holder.public().as_bytes())?.bytes(&epoch.0)?;
        e.i64(algorithm.cose())?.str(issuer)?.u64(*issued_at)?;
        e.u64(window.not_before)?.u64(window.not_after)?;
        cbor::write_region(e, region.as_deref())?;
        cbor::write_recurring(e, recurring.as_deref())?;
        e.bytes(&stand_for)?;
        bundle_parts::write_keys(e, keys)?;
        bundle_parts::write_proof(e, proof)?;
        write_bytes(e, order.map(|order| &order.author.0[..]))?;
        let terminal = order.and_then(|order| order.terminal.as_ref());
        cbor::write_text(e, terminal.map(TerminalId::as_str))
    })
}

fn write_contact(
    bytes: &mut Vec<u8>,
    fleet: FleetId,
    vehicle: &VehicleId,
    contact: &Contact,
) -> Result<(), StoreError> {
    let Contact {
        heard_at,
        sent,
        acked,
    } = contact;
    let write_sent = |e: &mut cbor::Into<'_>, sent: &Sent| {
        e.array(3)?.bytes(&sent.digest)?;
        e.u64(sent.revision)?.u64(sent.at)?.ok()
    };
    cbor::write(bytes, |e| {
        e.array(5)?.bytes(&fleet.0)?.str(vehicle.as_str())?;
        e.u64(*heard_at)?;
        write_sent(e, sent)?;
        match acked {
            None => e.null()?.ok(),
            Some(acked) => write_sent(e, acked),
        }
    })
}
