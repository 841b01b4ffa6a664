//! What a fleet rules, in memory, read without a lock: a part of the book. Floor 3.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::book::Book;
use crate::domain::{FleetId, Rules, RulesText};
use crate::store::{Ruled, Ruling, Rulings};

/// What one fleet rules. The committer alone writes it.
#[derive(Default)]
pub struct Rulebook {
    rules: ArcSwap<Rules>,
    text: ArcSwap<RulesText>,
}

impl Rulebook {
    /// The rules in force.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// The same as the fleet has written them.
    pub fn text(&self) -> Arc<RulesText> {
        self.text.load_full()
    }
}

impl Book {
    /// Takes in a ruling that is durable.
    pub(super) fn rule(&self, ruled: Rulings) {
        match ruled.what {
            Ruling::Rules(version, text) => {
                self.put_ruled(ruled.fleet, Ruled::Rules(version, text));
            }
        }
    }

    /// Takes in what stands.
    pub(super) fn put_ruled(&self, fleet: FleetId, ruled: Ruled) {
        let Some(book) = self.fleet(fleet) else {
            return;
        };
        match ruled {
            Ruled::Rules(version, text) => {
                let read = RulesText::read(&text);
                let checked = read.and_then(|text| {
                    let rules = text.check(&book.catalogue(), version);
                    rules
                        .map(|rules| (text, rules))
                        .map_err(|it| it.to_string())
                });
                match checked {
                    Ok((text, rules)) => {
                        book.ruled.rules.store(Arc::new(rules));
                        book.ruled.text.store(Arc::new(text));
                    }
                    Err(why) => {
                        tracing::error!(%fleet, why, "the store holds rules that cannot be read");
                    }
                }
            }
        }
    }
}
