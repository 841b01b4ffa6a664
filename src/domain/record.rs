//! Records: what was done to epochs, roots and operators, by whom, with what before and after.
//!
//! Each record carries the digest of the one before it, so none can be taken out or put in
//! unnoticed. What a record says is all there is to its step: who has read every record in order
//! knows the root, the operators and the open proposals ([`Standing`]).
//!
//! Deliberately not here: signatures, which `engine/records.rs` makes and checks.

use fob_verify::IssuerKey;
use serde::{Deserialize, Serialize};

mod wire;

use super::epoch::{Epoch, EpochState};
use super::id::EpochId;
use super::operator::Operator;
use super::time::{UnixTime, Window};

/// Who is named where no operator asked: the server, going by its schedule.
pub const SERVER: &str = "fob";

/// SHA-256 of a record's text; zeros before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

/// A public key, written as its COSE_Key in base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub IssuerKey);

/// `CKA_ID` of a key pair, written in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CkaId(pub [u8; 16]);

/// What an operator asks for, or the server does by its schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// The issuer begins: root, first epochs, first trust list.
    Found,
    /// New epochs, on a new trust list. Signed by the root.
    Prepare {
        /// How many for each token, with windows by schedule, where `windows` is empty.
        count: u32,
        /// How long each is planned to be active, in seconds.
        every_s: u64,
        /// How much longer than that its window is open, in seconds.
        overlap_s: u64,
        /// When the first window opens; after what is planned already where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<UnixTime>,
        /// The windows, spelled out: one epoch for each.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        windows: Vec<(UnixTime, UnixTime)>,
    },
    /// A prepared epoch becomes active.
    Activate {
        /// Which.
        epoch: EpochId,
    },
    /// An epoch signs no more.
    Retire {
        /// Which.
        epoch: EpochId,
    },
    /// An epoch is no longer believed: a trust list without it. Signed by the root.
    Revoke {
        /// Which.
        epoch: EpochId,
        /// What of its bundles is live is to be signed again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reissue: bool,
    },
    /// The next epoch of every token becomes active. Signed by the root where it has to be made.
    Rotate {
        /// Make new ones even where some are prepared for later.
        now: bool,
    },
    /// What was due: windows that closed, epochs active for as long as the schedule says.
    Schedule,
    /// A trust list names the next root. Signed by the root.
    NameRoot,
    /// The next root takes over by a trust list it signs.
    SucceedRoot,
    /// An operator is registered.
    AddOperator(Operator),
    /// An operator is no longer one.
    RemoveOperator {
        /// The name.
        operator: String,
    },
    /// An operator proposes a step, which another has to approve.
    Propose {
        /// The step.
        step: Box<Step>,
        /// When the proposal ends.
        expires: UnixTime,
        /// The signed proposal: a compact JWS.
        jws: String,
    },
}

/// Who asked for a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The operator; of an approved step, the one who proposed it.
    pub operator: String,
    /// What lets the step take effect under dual control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// An operator's consent to what another has proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The number of the record that holds the proposal.
    pub proposal: u64,
    /// The signed approval: a compact JWS.
    pub jws: String,
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The issuer's name.
    pub iss: String,
    /// When.
    pub iat: UnixTime,
    /// 1 for the first record, each one more than the one before it.
    pub number: u64,
    /// Digest of the record before it.
    pub previous: Digest,
    /// What.
    pub step: Step,
    /// By whom.
    pub who: Who,
    /// The tokens of the keys it is about.
    pub tokens: Vec<TokenNote>,
    /// The keys it is about, as their tokens describe them.
    pub keys: Vec<KeyNote>,
    /// What it found, of all that it changed.
    pub before: Facts,
    /// What it left.
    pub after: Facts,
}

/// A token, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenNote {
    /// Serial number.
    pub serial: String,
    /// Label.
    pub label: String,
    /// Maker.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Version of its firmware.
    pub firmware: String,
}

/// A key pair, as its token describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyNote {
    /// Its `kid`: of an epoch, or of a root.
    pub kid: EpochId,
    /// Serial number of its token.
    pub token: String,
    /// Attributes of its private half, as read back.
    pub attributes: serde_json::Value,
}

/// How things stand, as far as a step changes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Version of the newest trust list.
    pub trust_version: u32,
    /// The root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKey>,
    /// The root that is to follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_root: Option<RootKey>,
    /// The epochs that the step changes.
    pub epochs: Vec<EpochNote>,
    /// All operators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<Operator>,
}

/// A root's key pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKey {
    /// Its public half.
    pub key: PublicKey,
    /// Its name in its token.
    pub cka_id: CkaId,
    /// Serial number of that token.
    pub token: String,
}

/// An epoch, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochNote {
    /// Its id.
    pub id: EpochId,
    /// `prepared`, `active`, `retired` or `revoked`.
    pub state: String,
    /// Its public key.
    pub key: PublicKey,
    /// The key pair's name in its token.
    pub cka_id: CkaId,
    /// Serial number of that token.
    pub token: String,
    /// When its window opens.
    pub not_before: UnixTime,
    /// When it closes.
    pub not_after: UnixTime,
    /// When it was prepared.
    pub created: UnixTime,
    /// When it became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated: Option<UnixTime>,
}

impl From<&Epoch> for EpochNote {
    fn from(epoch: &Epoch) -> Self {
        Self {
            id: epoch.id,
            state: epoch.state.name().into(),
            key: PublicKey(epoch.key),
            cka_id: CkaId(epoch.cka_id),
            token: epoch.token_serial.clone(),
            not_before: epoch.window.not_before,
            not_after: epoch.window.not_after,
            created: epoch.created_at,
            activated: epoch.activated_at,
        }
    }
}

impl EpochNote {
    /// The epoch; `None` where the state is none or the id is not the key's.
    pub fn epoch(&self) -> Option<Epoch> {
        let epoch = Epoch {
            id: self.id,
            key: self.key.0,
            cka_id: self.cka_id.0,
            token_serial: self.token.clone(),
            window: Window {
                not_before: self.not_before,
                not_after: self.not_after,
            },
            state: EpochState::parse(&self.state)?,
            created_at: self.created,
            activated_at: self.activated,
        };
        (epoch.key.kid() == epoch.id.0).then_some(epoch)
    }
}

/// A proposal that nobody has approved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The number of its record.
    pub number: u64,
    /// Who proposed.
    pub operator: String,
    /// What.
    pub step: Step,
    /// When it ends.
    pub expires: UnixTime,
    /// The signed proposal.
    pub jws: String,
}

/// Where all records so far have led.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The number of the newest record; 0 where there is none.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
    /// The `kid` of the root the issuer began with: its name in tokens, whatever follows it.
    pub founder: Option<EpochId>,
    /// The root.
    pub root: Option<RootKey>,
    /// The root that is to follow it.
    pub next_root: Option<RootKey>,
    /// Registered operators, by name.
    pub operators: Vec<Operator>,
    /// Open proposals, oldest first.
    pub proposals: Vec<Proposal>,
}

impl Standing {
    /// Takes in the next record, whose text has this digest.
    pub fn apply(&mut self, record: &Record, digest: Digest) {
        self.number = record.number;
        self.digest = digest;
        self.begin_with(record.after.root.as_ref());
        self.root.clone_from(&record.after.root);
        self.next_root.clone_from(&record.after.next_root);
        self.operators.clone_from(&record.after.operators);
        if let Some(approval) = &record.who.approval {
            self.proposals.retain(|one| one.number != approval.proposal);
        }
        if let Step::Propose { step, expires, jws } = &record.step {
            self.proposals.push(Proposal {
                number: record.number,
                operator: record.who.operator.clone(),
                step: Step::clone(step),
                expires: *expires,
                jws: jws.clone(),
            });
        }
    }

    /// Remembers the first root there is.
    pub fn begin_with(&mut self, root: Option<&RootKey>) {
        let kid = root.map(|root| EpochId(root.key.0.kid()));
        self.founder = self.founder.or(kid);
    }

    /// The operator of that name.
    pub fn operator(&self, name: &str) -> Option<&Operator> {
        self.operators.iter().find(|one| one.name == name)
    }

    /// An open proposal.
    pub fn proposal(&self, number: u64, now: UnixTime) -> Option<&Proposal> {
        self.proposals
            .iter()
            .find(|one| one.number == number && now < one.expires)
    }
}
