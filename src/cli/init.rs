//! `fob init`: a new issuer in a directory.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;
use fob_verify::Algorithm;
use serde::Serialize;

use super::{Common, jwk, place, print};
use crate::clock::{Clock, SystemClock};
use crate::config::FILE_NAME;
use crate::domain::code_set::CODE_SET_KEY_LEN;
use crate::engine::found::{self, Founding};
use crate::engine::ids::Ids;
use crate::engine::operate::By;
use crate::engine::{Book, EngineSettings};
use crate::hsm::{
    Profile, Signer, SoftHsm, Token, TokenConfig, init_token, random_pin, read_pin_file,
    write_pin_file,
};
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::sqlite::{Sqlite, SqliteConfig};
use crate::store::whole::{WITNESS_FILE, Witnessed};
use crate::store::{Applied, Store, Write};

const DAY_S: u64 = 86_400;

#[derive(Args)]
pub(super) struct InitArgs {
    /// Add the fleet `demo`: a hundred vehicles, an owner with a phone, a hundred renters
    #[arg(long)]
    demo: bool,
    /// The issuer's name, signed into every key; it cannot be changed later
    #[arg(long, value_name = "NAME", default_value = "fob.example")]
    issuer: String,
    /// How root and issuing keys sign: ESP256, ES256 or Ed25519
    #[arg(long, value_name = "ALG", default_value = "ESP256", value_parser = algorithm)]
    alg: Algorithm,
    /// How long the first epoch may sign, in days
    #[arg(long, value_name = "DAYS", default_value_t = 366, value_parser = clap::value_parser!(u64).range(1..=3660))]
    epoch_days: u64,
    /// The PKCS#11 module; SoftHSM with its tokens under D where absent
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// What the module is told when it is initialised: some find their tokens by it
    #[arg(long, value_name = "TEXT", requires = "module")]
    init_args: Option<String>,
    /// What is particular about the module: the name of a profile, where it does not say itself
    #[arg(long, value_name = "NAME", requires = "module", value_parser = PossibleValuesParser::new(Profile::names()))]
    profile: Option<String>,
    /// Label of the issuing token
    #[arg(long, value_name = "LABEL", default_value = "fob-issuer")]
    hsm_label: String,
    /// Its serial number, where other tokens have the same label
    #[arg(long, value_name = "SERIAL", requires = "hsm_pin_file")]
    hsm_serial: Option<String>,
    /// The issuing token is there already, and its user PIN is in this file
    #[arg(long, value_name = "FILE", requires = "module")]
    hsm_pin_file: Option<PathBuf>,
    /// Label of the root's token
    #[arg(long, value_name = "LABEL", default_value = "fob-root")]
    root_label: String,
    /// Its serial number, where other tokens have the same label
    #[arg(long, value_name = "SERIAL", requires = "root_pin_file")]
    root_serial: Option<String>,
    /// The root's token is there already, and its user PIN is in this file
    #[arg(long, value_name = "FILE", requires = "module")]
    root_pin_file: Option<PathBuf>,
    /// Keep the store in this PostgreSQL database, which many nodes may share; a file under D
    /// where absent
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The file with the password of the database's user
    #[arg(long, value_name = "FILE", requires = "store")]
    store_password_file: Option<PathBuf>,
    /// What signed the database's certificate: PEM; the system's certificates where absent
    #[arg(long, value_name = "FILE", requires = "store")]
    store_tls_ca: Option<PathBuf>,
}

#[derive(Serialize)]
struct Created {
    dir: PathBuf,
    config: PathBuf,
    issuer: String,
    root_kid: String,
    epoch: String,
    hsm_serial: String,
    root_serial: String,
    demo: bool,
}

pub(super) fn run(common: &Common, args: InitArgs) -> anyhow::Result<()> {
    let dir = common.dir.clone();
    let file = dir.join(FILE_NAME);
    ensure!(
        !file.exists(),
        "{} exists: this directory has an issuer already",
        file.display()
    );
    ensure!(
        (1..=fob_verify::key::ISSUER_LEN_MAX).contains(&args.issuer.len()),
        "an issuer's name is 1 to 128 bytes"
    );
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| dir.display().to_string())?;
    let mut undo = Undo::new(&dir)?;
    let _lock = place::lock(&dir)?;
    let created = create(&dir, &args)?;
    undo.keep();
    print(common, &created, |created| {
        format!(
            "issuer {} in {}: root {}, epoch {} active, tokens {} and {} at hand\n\
             next: fob serve --dir {}",
            created.issuer,
            created.dir.display(),
            created.root_kid,
            created.epoch,
            args.root_label,
            args.hsm_label,
            created.dir.display(),
        )
    })
}

fn create(dir: &Path, args: &InitArgs) -> anyhow::Result<Created> {
    let clock = SystemClock;
    let (module, softhsm) = match &args.module {
        Some(module) => (module.clone(), false),
        None => (place::default_module()?, true),
    };
    if softhsm {
        SoftHsm::under(dir).create()?;
    }
    place::activate_softhsm(dir)?;
    let token = |label: &String, serial: &Option<String>| TokenConfig {
        serial: serial.clone(),
        init_args: args.init_args.clone(),
        profile: args.profile.as_deref().and_then(Profile::named),
        ..TokenConfig::new(&module, label)
    };
    let root = token(&args.root_label, &args.root_serial);
    let root = Opened::new(dir, root, args.root_pin_file.as_deref(), "root")?;
    let issuing = token(&args.hsm_label, &args.hsm_serial);
    let issuing = Opened::new(dir, issuing, args.hsm_pin_file.as_deref(), "hsm")?;
    let founded = Founding {
        root: &root.token,
        issuing: &issuing.token,
        issuer: &args.issuer,
        algorithm: args.alg,
        epoch_lifetime_s: args.epoch_days * DAY_S,
        key_lifetime_max_s: EngineSettings::new("").key_lifetime_max_s,
        operator: &place::os_user(),
        now: clock.unix(),
    }
    .found()?;
    let mut root_key = Vec::new();
    founded.root.encode(&mut root_key);
    place::write_public(&dir.join("root.cbor"), &root_key)?;
    let ids = Ids::new();
    place::write_private(&dir.join("code-set.key"), &ids.random::<CODE_SET_KEY_LEN>())?;
    let mut writes = founded.writes;
    if args.demo {
        writes.extend(demo(dir, &ids, clock.unix_ms())?);
    }
    let store = create_store(dir, args)?;
    let applied = store.commit(&writes)?;
    if applied.iter().any(|one| *one != Applied::Done) {
        bail!("the new store refused what it was to begin with");
    }
    let book = place::book(&*store)?;
    let epoch = book
        .active_epoch()
        .context("the new store has no active epoch")?
        .id
        .to_string();
    // The configuration last: a directory without it is not an issuer yet.
    let text = config_text(&root, &issuing, &store_text(args)?);
    let config = dir.join(FILE_NAME);
    place::write_private(&config, text.as_bytes())?;
    Ok(Created {
        dir: dir.into(),
        config,
        issuer: args.issuer.clone(),
        root_kid: crate::domain::EpochId(founded.root.kid()).to_string(),
        epoch,
        hsm_serial: issuing.serial,
        root_serial: root.serial,
        demo: args.demo,
    })
}

/// Makes the store: a file under the directory, or what is in a database.
fn create_store(dir: &Path, args: &InitArgs) -> anyhow::Result<Box<dyn Store>> {
    let watched = |store| {
        let watched = Witnessed::over(store, &dir.join(WITNESS_FILE))?;
        anyhow::Ok(Box::new(watched) as Box<dyn Store>)
    };
    let Some(url) = &args.store else {
        let store = Sqlite::create(&dir.join("fob.db"), SqliteConfig::default())?;
        return watched(Arc::new(store));
    };
    let at = PostgresConfig {
        tls_ca: args.store_tls_ca.clone(),
        ..PostgresConfig::new(url)
    };
    let at = place::with_password(&at, args.store_password_file.as_deref())?;
    let store = Postgres::create(at).context("the database (--store)")?;
    watched(Arc::new(store))
}

/// What the configuration says of a store that is a database.
fn store_text(args: &InitArgs) -> anyhow::Result<String> {
    let Some(url) = &args.store else {
        return Ok(String::new());
    };
    let url = quoted(url);
    let mut text = format!("\n# The store that all nodes share.\n[store]\nurl = {url}\n");
    for (key, file) in [
        ("password_file", &args.store_password_file),
        ("tls_ca", &args.store_tls_ca),
    ] {
        if let Some(file) = file {
            let file = file
                .canonicalize()
                .with_context(|| file.display().to_string())?;
            text += &format!("{key} = {}\n", quoted(&file.display().to_string()));
        }
    }
    Ok(text)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A token, open, and what the configuration says of it.
struct Opened {
    token: Token,
    config: TokenConfig,
    serial: String,
    pin_file: PathBuf,
}

impl Opened {
    /// Opens the token whose PIN is in `pin_file`; without one it initialises a token through
    /// PKCS#11 and keeps its PINs in files of their own.
    fn new(
        dir: &Path,
        mut config: TokenConfig,
        pin_file: Option<&Path>,
        name: &str,
    ) -> anyhow::Result<Self> {
        let at = format!("token {} in {}", config.label, config.module.display());
        let at = || at.clone();
        let (pin_file, pin) = match pin_file {
            Some(file) => (file.canonicalize().with_context(at)?, read_pin_file(file)?),
            None => {
                let (so_pin, pin) = (random_pin()?, random_pin()?);
                let file = PathBuf::from(format!("{name}.pin"));
                write_pin_file(&dir.join(format!("{name}-so.pin")), &so_pin)?;
                write_pin_file(&dir.join(&file), &pin)?;
                let serial = init_token(&config, &so_pin, &pin).with_context(at)?;
                config.serial = Some(serial);
                (file, pin)
            }
        };
        let token = Token::open(config.clone(), pin).with_context(at)?;
        let serial = token.status().serial;
        Ok(Self {
            token,
            config,
            serial,
            pin_file,
        })
    }
}

fn demo(dir: &Path, ids: &Ids, unix_ms: u64) -> anyhow::Result<Vec<Write>> {
    let phone = jwk::generate()?;
    let private = jwk::private_json(&phone, Some("demo/owner-1-phone"));
    place::write_private(
        &dir.join("demo-owner.jwk"),
        format!("{private}\n").as_bytes(),
    )?;
    let fleet = found::demo_fleet(&Book::default(), ids, unix_ms)
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let by = By {
        operator: place::os_user(),
        why: Some("fob init --demo".into()),
    };
    found::demo(fleet, jwk::public(&phone)?, (by, unix_ms / 1000))
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))
}

fn config_text(root: &Opened, issuing: &Opened, store: &str) -> String {
    let token = |opened: &Opened| {
        let config = &opened.config;
        let lines = [
            ("module", Some(config.module.display().to_string())),
            ("init_args", config.init_args.clone()),
            ("profile", config.profile.map(|one| one.name.to_owned())),
            ("label", Some(config.label.clone())),
            ("serial", Some(opened.serial.clone())),
            ("pin_file", Some(opened.pin_file.display().to_string())),
        ];
        let line = |(key, value): (&str, Option<String>)| {
            value.map(|value| format!("{key} = {}\n", quoted(&value)))
        };
        lines.into_iter().filter_map(line).collect::<String>()
    };
    format!(
        "# An issuer of virtual car keys. Every setting, with its default and limits, is described in\n\
         # docs/operations.md; paths are relative to this file; FOB_SECTION_KEY variables override it.\n\
         \n\
         [server]\n\
         listen = \"{}\"\n\
         # public_url = \"https://keys.example.com\"   # the address clients use, if not the one above\n\
         # behind_proxy = true                        # a proxy in front ends TLS\n\
         \n\
         # The issuing token.\n\
         [hsm]\n\
         {}\
         sessions = \"auto\"\n\
         session_key_copy = \"auto\"\n\
         \n\
         # The root's token. `fob serve` never opens it: keep it elsewhere.\n\
         [root]\n\
         {}\
         {store}",
        crate::config::DEFAULT_LISTEN,
        token(issuing),
        token(root),
    )
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    [Algorithm::Esp256, Algorithm::Es256, Algorithm::Ed25519]
        .into_iter()
        .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| "ESP256, ES256 or Ed25519".into())
}

/// Removes what a failed `init` has made, and nothing that was there before.
struct Undo {
    dir: PathBuf,
    before: Vec<std::ffi::OsString>,
    armed: bool,
}

impl Undo {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        let before = std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            dir: dir.into(),
            before,
            armed: true,
        })
    }

    fn keep(&mut self) {
        self.armed = false;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| self.armed && !self.before.contains(&entry.file_name()))
        {
            let path = entry.path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            if let Err(error) = removed {
                eprintln!("fob: {} is left behind: {error}", path.display());
            }
        }
    }
}
