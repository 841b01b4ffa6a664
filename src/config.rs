//! The configuration: `fob.toml` as typed becomes [`Config`] as checked.
//!
//! Paths are relative to the file's own directory. `FOB_<SECTION>_<KEY>` variables override the
//! file; secrets come from files named in it. Every setting is described in `docs/operations.md`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::domain::time::seconds;
use crate::domain::{Schedule, Signing};
use crate::engine::EngineSettings;
use crate::hsm::TokenConfig;
use crate::http::{Limits, ServerConfig, TlsFiles};

mod hsm;
mod store;

pub use hsm::{HsmConfig, IssuingToken};
use hsm::{HsmSection, TokenSection};
pub use store::StoreConfig;
use store::StoreSection;

/// The file's name within its directory.
pub const FILE_NAME: &str = "fob.toml";

/// The address where nothing else is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8650";

/// What is logged where nothing else is said.
const DEFAULT_LOG_FILTER: &str = "info,actix_server=warn,actix_http=off,cryptoki=off";

/// The most characters of `public_url`: it is part of every key's status address.
const PUBLIC_URL_LEN_MAX: usize = 200;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file, or a variable that overrides it, does not say what it should.
    #[error("{source_name}: {message}")]
    Form {
        /// The file, or the variables.
        source_name: String,
        /// Line, column, field and what is wrong, as the parser puts it.
        message: String,
    },
    /// A setting has a value it cannot have.
    #[error("{0}: {1}: {2}")]
    Setting(PathBuf, &'static str, String),
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of the file: `D`.
    pub dir: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Its address as clients see it, where that is not the address bound.
    pub public_url: Option<String>,
    /// A proxy in front of it ends TLS.
    pub behind_proxy: bool,
    /// How it listens.
    pub server: ServerConfig,
    /// The engine's bounds; its addresses are known once it is bound.
    pub engine: EngineSettings,
    /// Where the store is.
    pub store: StoreConfig,
    /// The file that says how far the store has come; no backup of the store has it.
    pub witness: PathBuf,
    /// The issuing tokens.
    pub hsm: HsmConfig,
    /// The root's token. `serve` never opens it.
    pub root: TokenConfig,
    /// The file with the root token's PIN.
    pub root_pin_file: PathBuf,
    /// Log lines as JSON.
    pub log_json: bool,
    /// Which lines are logged, as in `info,fob=debug`.
    pub log_filter: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    server: ServerSection,
    engine: EngineSection,
    store: StoreSection,
    epochs: EpochsSection,
    hsm: HsmSection,
    root: TokenSection,
    log: LogSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerSection {
    listen: Option<SocketAddr>,
    public_url: Option<String>,
    behind_proxy: bool,
    metrics_listen: Option<SocketAddr>,
    tls_certificates: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    workers: Option<usize>,
    body_bytes_max: Option<usize>,
    import_bytes_max: Option<usize>,
    connections_max: Option<usize>,
    round_ms_max: Option<u64>,
    request_timeout_ms: Option<u64>,
    import_timeout_ms: Option<u64>,
    batches_max: Option<usize>,
    batch_idle_ms: Option<u64>,
    address_requests_per_s_max: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EngineSection {
    queue_len_max: Option<usize>,
    queue_wait_ms_max: Option<u64>,
    batch_bundles_max: Option<usize>,
    batch_age_us: Option<u64>,
    latency_goal_ms: Option<u64>,
    batch_signing_ms_max: Option<u64>,
    signing: Option<String>,
    waiters_max: Option<usize>,
    verify_one_in: Option<u64>,
    key_lifetime_max_days: Option<u64>,
    status_list_ttl_s: Option<u32>,
    status_list_lifetime_days: Option<u64>,
    answer_within_ms: Option<u64>,
    prepare_threads: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EpochsSection {
    rotate_every: Option<String>,
    overlap: Option<String>,
    warn_before: Option<String>,
    dual_control: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogSection {
    json: bool,
    filter: Option<String>,
}

/// The sections that variables may override.
const SECTIONS: [&str; 7] = ["server", "engine", "store", "epochs", "hsm", "root", "log"];

/// Keys whose value is text, whatever it looks like: a serial number may be all digits.
const TEXTS: [&str; 16] = [
    "serial",
    "label",
    "module",
    "init_args",
    "profile",
    "pin_file",
    "path",
    "url",
    "password_file",
    "tls_ca",
    "public_url",
    "filter",
    "signing",
    "rotate_every",
    "overlap",
    "warn_before",
];

impl Config {
    /// Reads and checks `path`; `variables` are the environment's.
    ///
    /// # Errors
    /// See [`ConfigError`]: file, line and field, and what is wrong with it.
    pub fn load(
        path: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Read(path.into(), error))?;
        let form = |source_name: String, error: toml::de::Error| ConfigError::Form {
            source_name,
            message: error.to_string().trim_end().to_owned(),
        };
        // The file by itself first: its errors then have lines.
        let mut file: File =
            toml::from_str(&text).map_err(|error| form(path.display().to_string(), error))?;
        let overrides: Vec<_> = variables.into_iter().filter_map(split_variable).collect();
        if !overrides.is_empty() {
            let mut table: toml::Table =
                toml::from_str(&text).map_err(|error| form(path.display().to_string(), error))?;
            let names: Vec<_> = overrides.iter().map(|one| one.name.clone()).collect();
            for one in overrides {
                let section = table
                    .entry(one.section)
                    .or_insert_with(|| toml::Table::new().into());
                if let Some(section) = section.as_table_mut() {
                    section.insert(one.key, one.value);
                }
            }
            let source = format!("{} with {}", path.display(), names.join(", "));
            file = table.try_into().map_err(|error| form(source, error))?;
        }
        file.check(path)
    }

    /// The engine's settings for a server bound to `bound`.
    pub fn engine_settings(&self, bound: SocketAddr) -> EngineSettings {
        let public_url = self
            .public_url
            .clone()
            .unwrap_or_else(|| self.address(bound));
        EngineSettings {
            status_url: format!("{public_url}/v1/status"),
            public_url,
            ..self.engine.clone()
        }
    }

    /// The address of a server bound to `bound`, as a URL.
    pub fn address(&self, bound: SocketAddr) -> String {
        let scheme = if self.server.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{bound}")
    }

    /// Where the code set key is.
    pub fn code_set_key(&self) -> PathBuf {
        self.dir.join("code-set.key")
    }
}

struct Override {
    name: String,
    section: String,
    key: String,
    value: toml::Value,
}

/// `FOB_ENGINE_BATCH_AGE_US=100` is `batch_age_us = 100` in `[engine]`.
fn split_variable((name, text): (String, String)) -> Option<Override> {
    let rest = name.strip_prefix("FOB_")?.to_ascii_lowercase();
    let (section, key) = SECTIONS
        .iter()
        .find_map(|section| Some((section, rest.strip_prefix(section)?.strip_prefix('_')?)))?;
    let value = if TEXTS.contains(&key) {
        text.into()
    } else {
        let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
        parsed
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| text.into())
    };
    Some(Override {
        section: (*section).into(),
        key: key.into(),
        name,
        value,
    })
}

impl File {
    fn check(self, path: &Path) -> Result<Config, ConfigError> {
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let setting = |name, why: String| ConfigError::Setting(path.into(), name, why);
        let listen = match self.server.listen {
            Some(listen) => listen,
            None => SocketAddr::from(([127, 0, 0, 1], 8650)),
        };
        let public_url = self.server.public_url.clone();
        if let Some(url) = &public_url {
            check_url(url).map_err(|why| setting("server.public_url", why.into()))?;
        }
        let server = self
            .server
            .check(dir)
            .map_err(|(name, why)| setting(name, why))?;
        let mut engine = self
            .engine
            .check(&self.store)
            .map_err(|(name, why)| setting(name, why))?;
        let wrong = |(name, why)| setting(name, why);
        engine.schedule = self.epochs.check(engine.schedule).map_err(wrong)?;
        engine.dual_control = self.epochs.dual_control;
        let store = self.store.check(dir).map_err(wrong)?;
        let hsm = self.hsm.check(dir).map_err(wrong)?;
        let (root, root_pin_file) = self.root.check_root(dir).map_err(wrong)?;
        Ok(Config {
            dir: dir.into(),
            listen,
            public_url,
            behind_proxy: self.server.behind_proxy,
            server,
            engine,
            witness: self.store.witness(dir),
            store,
            hsm,
            root,
            root_pin_file,
            log_json: self.log.json,
            log_filter: self.log.filter.unwrap_or_else(|| DEFAULT_LOG_FILTER.into()),
        })
    }
}

type Wrong = (&'static str, String);

impl EpochsSection {
    fn check(&self, default: Schedule) -> Result<Schedule, Wrong> {
        let read = |name: &'static str, text: &Option<String>| {
            let read = text.as_deref().map(seconds).transpose();
            read.map_err(|why| (name, why))
        };
        let overlap_s = read("epochs.overlap", &self.overlap)?;
        let warn_before_s = read("epochs.warn_before", &self.warn_before)?;
        Ok(Schedule {
            rotate_every_s: read("epochs.rotate_every", &self.rotate_every)?,
            overlap_s: overlap_s.unwrap_or(default.overlap_s),
            warn_before_s: warn_before_s.unwrap_or(default.warn_before_s),
        })
    }
}

/// `value`, or `default` where none is given, within its limits.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    name: &'static str,
    value: Option<T>,
    default: T,
    limits: std::ops::RangeInclusive<T>,
) -> Result<T, Wrong> {
    let value = value.unwrap_or(default);
    if limits.contains(&value) {
        return Ok(value);
    }
    Err((
        name,
        format!(
            "{value} is not within {} to {}",
            limits.start(),
            limits.end()
        ),
    ))
}

impl ServerSection {
    fn address_requests_per_s_max(&self) -> Result<u32, Wrong> {
        let name = "server.address_requests_per_s_max";
        within(
            name,
            self.address_requests_per_s_max,
            100_000,
            0..=1_000_000,
        )
    }

    fn check(&self, dir: &Path) -> Result<ServerConfig, Wrong> {
        let tls = match (&self.tls_certificates, &self.tls_key) {
            (None, None) => None,
            (Some(certificates), Some(key)) => Some(TlsFiles {
                certificates: dir.join(certificates),
                key: dir.join(key),
            }),
            _ => {
                return Err((
                    "server.tls_key",
                    "set tls_certificates and tls_key, or neither".into(),
                ));
            }
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let timeout_ms = within(
            "server.request_timeout_ms",
            self.request_timeout_ms,
            5_000,
            100..=600_000,
        )?;
        let import_timeout_ms = within(
            "server.import_timeout_ms",
            self.import_timeout_ms,
            60_000,
            100..=3_600_000,
        )?;
        let batch_idle_ms = within(
            "server.batch_idle_ms",
            self.batch_idle_ms,
            30_000,
            100..=3_600_000,
        )?;
        let limits = Limits {
            body_bytes_max: within(
                "server.body_bytes_max",
                self.body_bytes_max,
                65_536,
                1_024..=16_777_216,
            )?,
            import_bytes_max: within(
                "server.import_bytes_max",
                self.import_bytes_max,
                67_108_864,
                1_024..=1_073_741_824,
            )?,
            request_timeout: Duration::from_millis(timeout_ms),
            import_timeout: Duration::from_millis(import_timeout_ms),
            batches_max: within("server.batches_max", self.batches_max, 8, 1..=1_024)?,
            batch_idle: Duration::from_millis(batch_idle_ms),
            address_requests_per_s_max: self.address_requests_per_s_max()?,
            forwarded: self.behind_proxy,
        };
        Ok(ServerConfig {
            metrics_listen: self.metrics_listen,
            tls,
            workers: within("server.workers", self.workers, cores.min(64), 1..=256)?,
            limits,
            round_max: Duration::from_millis(within(
                "server.round_ms_max",
                self.round_ms_max,
                25,
                1..=60_000,
            )?),
            connections_max: within(
                "server.connections_max",
                self.connections_max,
                25_000,
                1..=1_000_000,
            )?,
        })
    }
}

impl EngineSection {
    fn list_ttl_s(&self, default: u32) -> Result<u32, Wrong> {
        let name = "engine.status_list_ttl_s";
        within(name, self.status_list_ttl_s, default, 10..=86_400)
    }

    fn list_lifetime_days(&self) -> Result<u64, Wrong> {
        let name = "engine.status_list_lifetime_days";
        within(name, self.status_list_lifetime_days, 7, 1..=366)
    }

    fn check(&self, store: &StoreSection) -> Result<EngineSettings, Wrong> {
        let default = EngineSettings::new("");
        let days = 86_400;
        let age_us = within("engine.batch_age_us", self.batch_age_us, 0, 0..=100_000)?;
        let within_ms = within(
            "engine.answer_within_ms",
            self.answer_within_ms,
            10_000,
            10..=600_000,
        )?;
        Ok(EngineSettings {
            latency_goal: Duration::from_millis(within(
                "engine.latency_goal_ms",
                self.latency_goal_ms,
                2,
                1..=10_000,
            )?),
            batch_signing_max: self.batch_signing_max()?,
            signing: self.signing(default.signing)?,
            queue_len_max: within(
                "engine.queue_len_max",
                self.queue_len_max,
                default.queue_len_max,
                1..=1_048_576,
            )?,
            queue_wait_max: self.queue_wait_max()?,
            batch_bundles_max: within(
                "engine.batch_bundles_max",
                self.batch_bundles_max,
                default.batch_bundles_max,
                1..=16_384,
            )?,
            batch_age: Duration::from_micros(age_us),
            waiters_max: within(
                "engine.waiters_max",
                self.waiters_max,
                default.waiters_max,
                1..=65_536,
            )?,
            verify_one_in: within(
                "engine.verify_one_in",
                self.verify_one_in,
                default.verify_one_in,
                0..=u64::MAX,
            )?,
            key_lifetime_max_s: days
                * within(
                    "engine.key_lifetime_max_days",
                    self.key_lifetime_max_days,
                    731,
                    1..=36_525,
                )?,
            list_ttl_s: self.list_ttl_s(default.list_ttl_s)?,
            list_lifetime_s: days * self.list_lifetime_days()?,
            retain_for_s: days
                * within(
                    "store.retain_for_days",
                    store.retain_for_days,
                    90,
                    1..=36_525,
                )?,
            answer_within: Duration::from_millis(within_ms),
            lease: Duration::from_secs(within("store.lease_s", store.lease_s, 10, 1..=3_600)?),
            prepare_threads: within(
                "engine.prepare_threads",
                self.prepare_threads,
                default.prepare_threads,
                1..=256,
            )?,
            ..default
        })
    }
}

impl EngineSection {
    fn queue_wait_max(&self) -> Result<Duration, Wrong> {
        let name = "engine.queue_wait_ms_max";
        let ms = within(name, self.queue_wait_ms_max, 50, 1..=60_000)?;
        Ok(Duration::from_millis(ms))
    }

    fn batch_signing_max(&self) -> Result<Duration, Wrong> {
        let name = "engine.batch_signing_ms_max";
        let ms = within(name, self.batch_signing_ms_max, 50, 1..=10_000)?;
        Ok(Duration::from_millis(ms))
    }

    fn signing(&self, default: Signing) -> Result<Signing, Wrong> {
        let Some(name) = &self.signing else {
            return Ok(default);
        };
        let wrong = || format!("{name} is not each, tree or auto");
        Signing::parse(name).ok_or_else(|| ("engine.signing", wrong()))
    }
}

fn check_url(url: &str) -> Result<(), &'static str> {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    match host {
        None | Some("") => Err("it begins with https:// or http://, and a host follows"),
        Some(_) if url.ends_with('/') => Err("it does not end in a slash"),
        Some(_) if url.len() > PUBLIC_URL_LEN_MAX => Err("it has 200 characters at most"),
        Some(host)
            if !host
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"?#\"<>\\".contains(&b)) =>
        {
            Err("it is a plain address without query and fragment")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        [hsm]
        module = "/m.so"
        label = "issuer"
        pin_file = "hsm.pin"
        [root]
        module = "/m.so"
        label = "root"
        pin_file = "root.pin"
    "#;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, text).expect("written");
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Config::load(&path, variables).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_within_their_limits_and_variables_override() {
        let config = load(MINIMAL, &[]).expect("a configuration");
        assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
        assert_eq!(config.engine.batch_bundles_max, 2048);
        let config = load(
            MINIMAL,
            &[
                ("FOB_ENGINE_BATCH_BUNDLES_MAX", "7"),
                ("FOB_SERVER_LISTEN", "127.0.0.1:0"),
                ("FOB_X", "1"),
                ("FOB_HSM_SERIAL", "1234567812345678"),
            ],
        );
        let config = config.expect("a configuration");
        assert_eq!(
            (config.engine.batch_bundles_max, config.listen.port()),
            (7, 0)
        );
        assert_eq!(
            config.hsm.tokens[0].config.serial.as_deref(),
            Some("1234567812345678")
        );
        let settings = config.engine_settings(SocketAddr::from(([127, 0, 0, 1], 9)));
        assert_eq!(settings.status_url, "http://127.0.0.1:9/v1/status");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| load(text, &[]).expect_err("an error");
        let message = wrong(&format!("{MINIMAL}\n[engine]\nbatch_size = 3"));
        assert!(
            message.contains("batch_size") && message.contains("line 12"),
            "{message}"
        );
        let message = wrong(&format!("{MINIMAL}\n[engine]\nqueue_len_max = 0"));
        assert!(
            message.contains("engine.queue_len_max: 0 is not within"),
            "{message}"
        );
        let message = wrong(&format!("{MINIMAL}\n[server]\npublic_url = \"ftp://x\""));
        assert!(message.contains("server.public_url"), "{message}");
        for (store, said) in [
            ("url = \"mysql://h/d\"", "store.url: "),
            ("url = \"postgresql://u:hunter2@h/d\"", "store.url: "),
            (
                "path = \"a.db\"\nurl = \"postgresql://h/d\"",
                "store.path: ",
            ),
            ("tls_ca = \"ca.pem\"", "store.url: "),
            ("url = \"postgresql://h/d\"\nreaders = 0", "store.readers: "),
        ] {
            let message = wrong(&format!("{MINIMAL}\n[store]\n{store}"));
            assert!(message.contains(said), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(wrong("[hsm]\nmodule = \"/m.so\"").contains("hsm."));
        let message = load(MINIMAL, &[("FOB_ENGINE_QUEUE_LEN_MAX", "many")]).expect_err("an error");
        assert!(message.contains("FOB_ENGINE_QUEUE_LEN_MAX"), "{message}");
    }
}
