//! What others are asked about orders before these are let in. Floor 3.

use std::collections::HashMap;

use super::super::Engine;
use super::super::admit::check_vehicle;
use super::super::hooks::{Answers, Question};
use super::{Order, OrderCall, limit_to_eligible};
use crate::domain::{Author, AuthorizationId, UnixTime};

impl Engine {
    /// Has others asked about orders, where the fleet's rules want that, each question once.
    pub(super) async fn ask_about(
        &self,
        call: &OrderCall,
        orders: &[Order],
        part: &[usize],
        now: UnixTime,
    ) -> Answers {
        let fleet = &call.caller.fleet;
        if fleet.ruled.rules().hook.is_none() {
            return Answers::new();
        }
        let author = Author::Token(call.caller.token.id);
        let mut questions = HashMap::new();
        for order in part.iter().map(|at| &orders[*at]) {
            let answered = call.request(order).is_some_and(|request| {
                let known = call.answered.get(&request.reference);
                known.is_some()
            });
            let spec = order.spec.clone();
            let (vehicle, identity) = (fleet.vehicle(spec.vehicle.as_str()), spec.identity.clone());
            let id = AuthorizationId([0; 16]);
            // What is refused for another reason nobody is asked about.
            let draft = self.draft_as(id, fleet, spec.into(), author.clone(), now);
            let (Ok(mut draft), Some(vehicle), false) = (draft, vehicle, answered) else {
                continue;
            };
            let fits = check_vehicle(fleet, &draft, now).is_ok()
                && limit_to_eligible(fleet, &mut draft, now).is_ok();
            let question = Question::new(fleet, &vehicle, &identity, &draft.functions);
            if let (true, Some(question)) = (fits, question) {
                questions.insert(question.digest, question);
            }
        }
        self.verdicts(questions.into_values().collect()).await
    }
}
