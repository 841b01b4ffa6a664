//! Who has made fleets and tokens: each has an act that says so. Those older than the first such
//! act were made before acts were kept.

use std::collections::{HashMap, HashSet};

use super::{Flaw, Report};
use crate::domain::{Fleet, FleetId, Token, TokenId, UnixTime};
use crate::engine::operate::{FLEET_CREATE, TOKEN_CREATE, TOKEN_ROTATE};
use crate::store::Act;

/// Fleets and tokens, and the acts that made some.
#[derive(Default)]
pub(super) struct Made {
    fleets: HashMap<FleetId, UnixTime>,
    tokens: Vec<(TokenId, FleetId, UnixTime)>,
    by_act: HashSet<(FleetId, String)>,
    /// When the first act was that made anything.
    first: Option<UnixTime>,
}

impl Made {
    pub(super) fn fleet(&mut self, fleet: &Fleet) {
        self.fleets.insert(fleet.id, made_at(fleet.id));
    }

    pub(super) fn token(&mut self, token: &Token) {
        let of = (token.id, token.fleet, token.created_at);
        self.tokens.push(of);
    }

    pub(super) fn act(&mut self, act: &Act) {
        let made = match act.act.as_str() {
            FLEET_CREATE => "",
            TOKEN_CREATE | TOKEN_ROTATE => act.object.split(' ').next().unwrap_or_default(),
            _ => return,
        };
        self.by_act.insert((act.fleet, made.to_owned()));
        self.first = Some(self.first.map_or(act.at, |first| first.min(act.at)));
    }

    pub(super) fn check(&self, report: &mut Report) {
        let Some(first) = self.first else { return };
        let missing = |fleet, made: String| !self.by_act.contains(&(fleet, made));
        for (fleet, at) in &self.fleets {
            if *at > first && missing(*fleet, String::new()) {
                report.find(
                    Flaw::ActMissing,
                    format!("fleet {fleet}"),
                    "no fleet.create",
                );
            }
        }
        for (token, fleet, at) in &self.tokens {
            if *at > first && missing(*fleet, token.to_string()) {
                let detail = "neither token.create nor token.rotate";
                report.find(Flaw::ActMissing, format!("token {token}"), detail);
            }
        }
    }
}

/// When an id was made (RFC 9562 §5.7): its first 48 bits are milliseconds.
fn made_at(FleetId(id): FleetId) -> UnixTime {
    let ms = id.iter().take(6);
    ms.fold(0, |ms, byte| ms << 8 | UnixTime::from(*byte)) / 1000
}
