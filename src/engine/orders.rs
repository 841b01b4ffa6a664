//! Orders: authorization and redemption in one, for registered terminals, many at once.

use std::sync::Arc;

use fob_verify::region::Region;

use super::authenticate::{BackEnd, idempotency};
use super::authorize::AuthorizationSpec;
use super::book::FleetBook;
use super::{Engine, Failure};
use crate::domain::function::FunctionRef;
use crate::domain::{
    IdentityId, Recipient, Refusal, RefusalCode, Signing, TerminalId, UnixTime, VehicleId,
};
use crate::store::{Redemption, Request};

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
    /// How often each function may be used.
    pub max_uses: Vec<(FunctionRef, u32)>,
    /// Who gets the keys.
    pub identity: IdentityId,
    /// The registered terminal they are bound to.
    pub terminal: TerminalId,
    /// How they are signed.
    pub signing: Option<Signing>,
}

/// One call that brings orders: who asks, and under which `Idempotency-Key`.
pub struct OrderCall {
    caller: BackEnd,
    key: Option<String>,
}

impl OrderCall {
    /// The fleet whose orders these are.
    pub fn fleet(&self) -> &Arc<FleetBook> {
        &self.caller.fleet
    }
}

impl Engine {
    /// Begins a call. With a key, each order's (key, reference) is durable: the same order again
    /// gets the bundle it got before.
    ///
    /// # Errors
    /// `malformed` for a key that is none.
    pub async fn open_orders(
        &self,
        caller: BackEnd,
        key: Option<&str>,
    ) -> Result<OrderCall, Failure> {
        if let Some(key) = key {
            idempotency(caller.fleet.fleet.id, "", key, b"")?;
        }
        Ok(OrderCall {
            caller,
            key: key.map(Into::into),
        })
    }

    /// Issues orders: one answer for each, in their order, when all are durable.
    pub async fn issue(
        &self,
        call: &OrderCall,
        orders: Vec<Order>,
    ) -> Vec<Result<Arc<Redemption>, Failure>> {
        let mut answers = Vec::with_capacity(orders.len());
        for order in orders {
            answers.push(self.issue_one(call, order).await);
        }
        answers
    }

    async fn issue_one(&self, call: &OrderCall, order: Order) -> Result<Arc<Redemption>, Failure> {
        let fleet = &call.caller.fleet;
        let spec = order.spec;
        let terminal = fleet
            .terminal(spec.terminal.as_str())
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound).field("recipient.terminal"))?;
        let request = match &call.key {
            None => None,
            Some(key) => {
                let request = idempotency(fleet.fleet.id, &order.reference, key, &order.digest)?;
                Some(Request { ..request })
            }
        };
        let identity = spec.identity.clone();
        let spec = AuthorizationSpec {
            vehicle: spec.vehicle,
            functions: spec.functions,
            not_before: spec.not_before,
            not_after: spec.not_after,
            region: spec.region,
            max_uses: spec.max_uses,
            recipient: Recipient {
                identity: Some(spec.identity),
                terminal: Some(spec.terminal),
            },
            pin: false,
            redeem_by: None,
            signing: spec.signing,
        };
        let made = self
            .authorize_for_fleet(&call.caller, spec, request)
            .await?;
        self.redeem_for(&self.code_set(&made)?, identity, terminal.key)
            .await
    }
}
