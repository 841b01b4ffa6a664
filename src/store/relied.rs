//! What was believed when it was decided who may have keys, and must be so when that is committed:
//! floor 2.

use std::sync::Arc;

use crate::domain::{Identity, Vehicle};

/// Conditions of a write that issues keys, or says how keys stand: where one of them is not so, it is
/// [`super::Applied::Stale`]. Nothing that is left out is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReliedOn {
    /// The version of the fleet's newest rules; 0 where it has none.
    pub rules: Option<u32>,
    /// Whoever has the keys, as hold and licences were believed to be.
    pub identity: Option<Arc<Identity>>,
    /// What they are for, as its model was believed to be.
    pub vehicle: Option<Arc<Vehicle>>,
}
