//! Founding an issuer: root key, first epoch, first trust list, and the demo fleet.

use fob_verify::{Algorithm, HolderKey, IssuerKey};

use super::ids::Ids;
use super::operate::{By, FLEET_CREATE};
use super::records;
use super::trust::{self, TrustError};
use crate::domain::function::BUILT_IN;
use crate::domain::record::{CkaId, Digest, EpochNote, Facts, KeyNote, PublicKey, TokenNote, Who};
use crate::domain::{
    Epoch, EpochId, EpochState, Fleet, FleetId, Identity, IdentityId, Licence, Record, Refusal,
    RootKey, Status, Step, Terminal, TerminalId, UnixTime, Vehicle, VehicleId, Window,
};
use crate::hsm::{GeneratedKey, HsmError, Token};
use crate::store::{RecordedStep, Write};
use fob_verify::trust::Draft;

/// 2099-12-31T00:00:00Z, when the demo renters' licences end.
const DEMO_LICENCES_EXPIRE: UnixTime = 4_102_358_400;

/// What a new issuer is founded on.
pub struct Founding<'a> {
    /// The root's token.
    pub root: &'a Token,
    /// The issuing token.
    pub issuing: &'a Token,
    /// The issuer's name, signed into every key.
    pub issuer: &'a str,
    /// How root and first epoch sign.
    pub algorithm: Algorithm,
    /// How long the first epoch's window is, in seconds.
    pub epoch_lifetime_s: u64,
    /// The furthest a key may reach beyond its issue, in seconds.
    pub key_lifetime_max_s: u64,
    /// Who founds it.
    pub operator: &'a str,
    /// The time.
    pub now: UnixTime,
}

/// A founded issuer.
pub struct Founded {
    /// The root's public key: what a car is provisioned with.
    pub root: IssuerKey,
    /// What the store is to begin with.
    pub writes: Vec<Write>,
}

impl Founding<'_> {
    /// Generates the root's key pair and the first epoch's, each in its token, and has the root
    /// sign the first trust list and the first record.
    ///
    /// # Errors
    /// What tokens or format refuse.
    pub fn found(&self) -> Result<Founded, TrustError> {
        let root = self.root.generate_key_pair(self.algorithm, "fob-root")?;
        let label = format!("fob-epoch {}", EpochId(root.public.kid()));
        let pair = self.issuing.generate_key_pair(self.algorithm, &label)?;
        let epoch = self.first_epoch(&pair)?;
        let list = self.first_list(&root, &epoch)?;
        let record = self.first_record(&root, &pair, &epoch)?;
        let step = RecordedStep {
            number: 1,
            record: records::sign(&record, self.root, &root.key, &root.public)?.into(),
            epochs: vec![epoch],
            trust: Some((1, list.into())),
        };
        let writes = vec![
            Write::Setting("issuer".into(), self.issuer.into()),
            Write::Step(Box::new(step)),
        ];
        Ok(Founded {
            root: root.public,
            writes,
        })
    }

    fn first_epoch(&self, pair: &GeneratedKey) -> Result<Epoch, HsmError> {
        Ok(Epoch {
            id: EpochId(pair.public.kid()),
            key: pair.public,
            cka_id: pair.key.id,
            token_serial: self.issuing.identity()?.serial,
            window: Window {
                not_before: self.now,
                not_after: self.now + self.epoch_lifetime_s,
            },
            state: EpochState::Active,
            created_at: self.now,
            activated_at: Some(self.now),
        })
    }

    fn first_list(&self, root: &GeneratedKey, epoch: &Epoch) -> Result<Vec<u8>, TrustError> {
        let epochs = std::slice::from_ref(epoch);
        let entries: Vec<_> = trust::listed(epochs, self.now, self.key_lifetime_max_s).collect();
        let draft = Draft {
            issuer: self.issuer,
            expires: epoch.over_at(self.key_lifetime_max_s),
            issued_at: self.now,
            version: 1,
            entries: &entries,
            next_root: None,
        };
        trust::sign_draft((self.root, &root.key, &root.public), &draft)
    }

    fn first_record(
        &self,
        root: &GeneratedKey,
        pair: &GeneratedKey,
        epoch: &Epoch,
    ) -> Result<Record, HsmError> {
        let tokens = [self.root.identity()?, self.issuing.identity()?];
        let key = |pair: &GeneratedKey, token: &str| KeyNote {
            kid: EpochId(pair.public.kid()),
            token: token.to_owned(),
            attributes: serde_json::to_value(pair.attributes).unwrap_or_default(),
        };
        let after = Facts {
            trust_version: 1,
            root: Some(RootKey {
                key: PublicKey(root.public),
                cka_id: CkaId(root.key.id),
                token: tokens[0].serial.clone(),
            }),
            epochs: vec![EpochNote::from(epoch)],
            ..Facts::default()
        };
        Ok(Record {
            iss: self.issuer.into(),
            iat: self.now,
            number: 1,
            previous: Digest::default(),
            step: Step::Found,
            who: Who {
                operator: self.operator.into(),
                approval: None,
            },
            keys: vec![key(root, &tokens[0].serial), key(pair, &tokens[1].serial)],
            tokens: tokens.into_iter().map(TokenNote::from).collect(),
            before: Facts::default(),
            after,
        })
    }
}

/// The demo fleet: a hundred vehicles with all functions, the first ten owned by `owner-1`, and a
/// hundred renters; whoever holds a code set may redeem it.
///
/// # Errors
/// As [`By::act`]; every name in it is a name.
pub fn demo(
    fleet: Fleet,
    owner_phone: HolderKey,
    (by, now): (By, UnixTime),
) -> Result<Vec<Write>, Refusal> {
    let id = fleet.id;
    let owner = IdentityId::parse("owner-1")?;
    let name = fleet.name.to_string();
    let mut writes = vec![
        by.act(Write::NewFleet(fleet), (id, now), FLEET_CREATE, name)?,
        identity(id, owner.clone(), Vec::new()),
    ];
    writes.push(Write::Terminal(Terminal {
        fleet: id,
        id: TerminalId::parse("owner-1-phone")?,
        identity: owner.clone(),
        key: owner_phone,
        status: Status::Active,
        since: 0,
        attested: None,
    }));
    for n in 1..=100 {
        let licence = Licence {
            class: "B".into(),
            expires: DEMO_LICENCES_EXPIRE,
        };
        writes.push(identity(
            id,
            IdentityId::parse(&format!("renter-{n}"))?,
            vec![licence],
        ));
        writes.push(Write::Vehicle(Vehicle {
            fleet: id,
            id: VehicleId::parse(&format!("DEMO-{n:04}"))?,
            model: "Demo".into(),
            functions: BUILT_IN.iter().map(|(code, _)| *code).collect(),
            owner: (n <= 10).then(|| owner.clone()),
            key: None,
            epoch: 0,
            status: Status::Active,
        }));
    }
    Ok(writes)
}

/// The demo fleet itself.
///
/// # Errors
/// None in practice: its name is a name.
pub fn demo_fleet(book: &super::Book, ids: &Ids, unix_ms: u64) -> Result<Fleet, Refusal> {
    let settings = crate::domain::FleetSettings {
        open_redemption: true,
        signing: None,
    };
    super::operate::new_fleet(book, ids, unix_ms, "demo", settings)
}

fn identity(fleet: FleetId, id: IdentityId, licences: Vec<Licence>) -> Write {
    Write::Identity(Identity {
        fleet,
        id,
        status: Status::Active,
        hold: None,
        proved: None,
        licences,
    })
}
