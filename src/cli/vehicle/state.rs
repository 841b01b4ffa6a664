//! The car's file: all it knows, replaced as a whole and synced to the disk before anything that
//! follows from it is done.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::vehicle::{Memory, News};
use fob_verify::{ID_LEN, Refusal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::domain::time::Time;
use crate::domain::{BundleId, FleetId};

/// How long a challenge may be answered, in seconds: a person types in between. A car's own is a
/// few seconds.
pub(super) const CHALLENGE_LIFETIME_S: u64 = 120;

/// Octets, as base64url in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Octets(pub(super) Vec<u8>);

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets = BASE64_URL_SAFE_NO_PAD.decode(text);
        octets.map(Self).map_err(serde::de::Error::custom)
    }
}

/// All a car knows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) vehicle: String,
    /// The fleet's id, as UUID.
    fleet: String,
    /// The root's COSE_Key: as provisioned, or of the newest trust list.
    pub(super) root: Octets,
    /// The car's own private JWK.
    pub(super) key: Value,
    /// By how many seconds the clock may be wrong.
    pub(super) uncertainty_s: u32,
    pub(super) trust: Option<Octets>,
    /// By address.
    pub(super) lists: BTreeMap<String, Octets>,
    pub(super) vehicle_epoch: u32,
    /// The newest time anything verified has stated.
    time: u64,
    /// By the bundle's id.
    bundles: BTreeMap<String, Met>,
    pub(super) synced: Option<Synced>,
    /// The time in the ack that was sent last.
    pub(super) acked_at: u64,
    pub(super) challenge: Option<Pending>,
}

/// What is known of a bundle.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Met {
    version: u32,
    /// Uses by function code.
    uses: BTreeMap<u16, u32>,
}

/// The sync that was taken last.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Synced {
    at: u64,
    pub(super) digest: Octets,
}

/// A challenge that waits for its answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    pub(super) octets: Octets,
    pub(super) at: u64,
}

impl Pending {
    pub(super) const fn new(octets: Vec<u8>, at: u64) -> Self {
        Self {
            octets: Octets(octets),
            at,
        }
    }
}

impl State {
    /// A car as it leaves the factory.
    pub(super) fn new(
        vehicle: String,
        fleet: FleetId,
        root: Vec<u8>,
        key: Value,
        uncertainty_s: u32,
    ) -> Self {
        Self {
            vehicle,
            fleet: fleet.to_string(),
            root: Octets(root),
            key,
            uncertainty_s,
            trust: None,
            lists: BTreeMap::new(),
            vehicle_epoch: 0,
            time: 0,
            bundles: BTreeMap::new(),
            synced: None,
            acked_at: 0,
            challenge: None,
        }
    }

    pub(super) fn fleet(&self) -> anyhow::Result<[u8; ID_LEN]> {
        let fleet = FleetId::parse(&self.fleet).context("the file's fleet is no id")?;
        Ok(fleet.0)
    }

    /// Everything but the private key and the octets of objects.
    pub(super) fn shown(&self) -> Value {
        json!({
            "vehicle": self.vehicle,
            "fleet": self.fleet,
            "uncertainty_s": self.uncertainty_s,
            "has_trust_list": self.trust.is_some(),
            "status_lists": self.lists.keys().collect::<Vec<_>>(),
            "vehicle_epoch": self.vehicle_epoch,
            "not_before": Time(self.time),
            "bundles": self.bundles,
            "synced_at": self.synced.as_ref().map(|synced| Time(synced.at)),
        })
    }

    fn met(&self, bundle: &[u8; ID_LEN]) -> Option<&Met> {
        self.bundles.get(&BundleId(*bundle).to_string())
    }

    fn learn(&mut self, news: &News<'_>) {
        self.time = self.time.max(news.time());
        match *news {
            News::Use {
                vehicle_epoch,
                bundle,
                version,
                function,
                ..
            } => {
                self.vehicle_epoch = self.vehicle_epoch.max(vehicle_epoch);
                let bundle = BundleId(bundle).to_string();
                let met = self.bundles.entry(bundle).or_default();
                met.version = met.version.max(version);
                let uses = met.uses.entry(function).or_default();
                *uses = uses.saturating_add(1);
            }
            News::Trust { bytes, list } => {
                self.trust = Some(Octets(bytes.to_vec()));
                let mut root = Vec::new();
                list.root().encode(&mut root);
                self.root = Octets(root);
            }
            News::Status { bytes, list } => {
                let list = list.uri().to_owned();
                self.lists.insert(list, Octets(bytes.to_vec()));
            }
            News::Sync {
                vehicle_epoch,
                issued_at,
                digest,
            } => {
                self.vehicle_epoch = self.vehicle_epoch.max(vehicle_epoch);
                self.synced = Some(Synced {
                    at: issued_at,
                    digest: Octets(digest.to_vec()),
                });
            }
        }
    }
}

/// The file, and the lock that says this process alone acts as the car.
pub(in crate::cli) struct File {
    path: PathBuf,
    pub(super) state: State,
    _lock: fs::File,
}

impl File {
    /// Writes a new file.
    pub(super) fn create(path: &Path, state: &State) -> anyhow::Result<()> {
        if path.exists() {
            bail!("{} is there already", path.display());
        }
        let _lock = lock(path)?;
        replace(path, state).with_context(|| path.display().to_string())
    }

    /// Opens a car's file and waits until no other process acts as this car.
    pub(in crate::cli) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            bail!(
                "{} is not there; `fob vehicle init` makes it",
                path.display()
            );
        }
        let lock = lock(path)?;
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let state = serde_json::from_slice(&bytes)
            .map_err(|error| anyhow!("{}: it is no car's file: {error}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            state,
            _lock: lock,
        })
    }

    /// Makes a state durable, and this car's.
    pub(super) fn save(&mut self, state: State) -> anyhow::Result<()> {
        replace(&self.path, &state).with_context(|| self.path.display().to_string())?;
        self.state = state;
        Ok(())
    }
}

impl Memory for File {
    fn vehicle_epoch(&self) -> u32 {
        self.state.vehicle_epoch
    }

    fn version(&self, bundle: &[u8; ID_LEN]) -> u32 {
        self.state.met(bundle).map_or(0, |met| met.version)
    }

    fn time(&self) -> u64 {
        self.state.time
    }

    fn uses(&self, bundle: &[u8; ID_LEN], function: u16) -> u32 {
        let met = self.state.met(bundle);
        let uses = met.and_then(|met| met.uses.get(&function));
        uses.copied().unwrap_or(0)
    }

    fn synced_at(&self) -> u64 {
        self.state.synced.as_ref().map_or(0, |synced| synced.at)
    }

    fn remember(&mut self, news: &News<'_>) -> Result<(), Refusal> {
        let mut state = self.state.clone();
        state.learn(news);
        self.save(state).map_err(|error| {
            eprintln!("fob: {error:#}");
            Refusal::MemoryFailed
        })
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn lock(path: &Path) -> anyhow::Result<fs::File> {
    let path = beside(path, ".lock");
    let take = || {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    take().with_context(|| path.display().to_string())
}

/// A crash before the rename leaves the old file, one after it the new one; the folder is synced
/// so that the rename itself is durable.
fn replace(path: &Path, state: &State) -> std::io::Result<()> {
    let new = beside(path, ".new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(state)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::File::open(folder)?.sync_all()
}
