//! Floor 1: the rules. What a fleet, a vehicle, an authorization, a code set, an epoch and a
//! bundle are, and when the answer is no.
//!
//! Deliberately not here: I/O, clocks, async, locks. Time comes in as an argument; whoever calls
//! these functions twice with the same arguments gets the same answer twice.

pub mod authorization;
pub mod bundle;
pub mod change;
pub mod code_set;
pub mod epoch;
pub mod fleet;
pub mod function;
pub mod function_set;
pub mod id;
pub mod identity;
pub mod json;
pub mod operator;
pub mod record;
pub mod refusal;
pub mod restore;
pub mod rotation;
pub mod rules;
pub mod status;
pub mod terminal;
pub mod time;
pub mod token;
pub mod vehicle;

pub use authorization::{
    Amended, Author, Authorization, AuthorizationState, Recipient, Restrictions, Signing,
};
pub use bundle::{Bundle, KeyRecord, Subject};
pub use code_set::CodeSet;
pub use epoch::{Epoch, EpochState};
pub use fleet::{Fleet, FleetSettings};
pub use function::{Catalogue, FunctionCode};
pub use function_set::FunctionSet;
pub use id::{
    AuthorizationId, BundleId, EpochId, FleetId, FleetName, IdentityId, KeyId, TerminalId, TokenId,
    VehicleId,
};
pub use identity::{Hold, Identity, Licence, Status};
pub use operator::Operator;
pub use record::{Record, RootKey, Standing, Step};
pub use refusal::{Refusal, RefusalCode};
pub use restore::Restore;
pub use rotation::Schedule;
pub use rules::{Rules, RulesText};
pub use status::{Held, KeyChange, KeyStatus, Mark, Reason, Reasons, ShardId};
pub use terminal::{Attested, Terminal};
pub use time::{UnixTime, Window};
pub use token::{Scope, Scopes, Token};
pub use vehicle::Vehicle;
