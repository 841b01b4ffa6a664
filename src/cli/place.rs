//! An issuer's directory: its files, its lock, its configuration.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use fob_verify::IssuerKey;

use super::Common;
use crate::config::{Config, FILE_NAME, IssuingToken, StoreConfig};
use crate::domain::code_set::{CODE_SET_KEY_LEN, CodeSetKey};
use crate::domain::record::{CkaId, PublicKey};
use crate::domain::{Epoch, RootKey};
use crate::engine::Book;
use crate::hook::Hook;
use crate::hsm::{HsmError, SoftHsm, Token, Tokens, read_pin_file, softhsm_module};
use crate::store::Store;
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::sqlite::{Sqlite, SqliteConfig};
use crate::store::whole::{Fence, Fenced, Testimony, Witness, Witnessed};

/// The root's public key, within the directory.
pub(super) const ROOT_FILE: &str = "root.cbor";

/// The lock that says a process has this directory open for writing.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Loads the configuration the command line names, and points SoftHSM at its files where it has
/// them. Call it before the first thread starts.
pub(super) fn configuration(common: &Common) -> anyhow::Result<Config> {
    let path = common
        .config
        .clone()
        .unwrap_or_else(|| common.dir.join(FILE_NAME));
    if !path.exists() {
        bail!("{} is not there; `fob init` makes it", path.display());
    }
    let config = Config::load(&path, std::env::vars())?;
    activate_softhsm(&config.dir)?;
    Ok(config)
}

/// Points SoftHSM at `dir`'s configuration, where there is one.
pub(super) fn activate_softhsm(dir: &Path) -> anyhow::Result<()> {
    let files = SoftHsm::under(dir);
    if files.conf.exists() {
        files.activate()?;
    }
    Ok(())
}

/// The module to use where none is named.
pub(super) fn default_module() -> anyhow::Result<PathBuf> {
    softhsm_module().ok_or_else(|| {
        anyhow!("SoftHSM is not installed (on Debian: apt-get install softhsm2); or name another module with --module")
    })
}

/// Takes the directory's lock. `None` where another process holds it.
pub(super) fn try_lock(dir: &Path) -> anyhow::Result<Option<Lock>> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).context(path.display().to_string()),
    }
}

/// Takes the directory's lock, or says who has it.
pub(super) fn lock(dir: &Path) -> anyhow::Result<Lock> {
    try_lock(dir)?.ok_or_else(|| anyhow!("another fob has {} open: stop it first", dir.display()))
}

/// Opens the store, watched by the file beside the configuration.
pub(super) fn store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let store: Arc<dyn Fenced> = match &config.store {
        StoreConfig::Sqlite(path) => Arc::new(file(path)?),
        StoreConfig::Postgres { at, password_file } => {
            Arc::new(database(at, password_file.as_deref())?)
        }
    };
    check_fences(config, &*store)?;
    watched(config, store)
}

/// How long nobody may have served from a database before it is taken for one that nobody serves
/// from, in seconds: three times as long as a node may be silent.
const QUIET_S: u64 = 90;

/// Refuses a database that somebody serves from.
pub(super) fn check_quiet(store: &Postgres) -> anyhow::Result<()> {
    let quiet = store.quiet_for_s().context("the database ([store] url)")?;
    match quiet.and_then(|quiet| QUIET_S.checked_sub(quiet)) {
        Some(left_s) if left_s > 0 => bail!(
            "somebody used the database a moment ago: stop every server, and try again in {left_s} s"
        ),
        _ => Ok(()),
    }
}

/// Watches a store with the file beside the configuration.
fn watched(config: &Config, store: Arc<dyn Fenced>) -> anyhow::Result<Arc<dyn Store>> {
    Ok(Arc::new(Witnessed::over(store, &config.witness)?))
}

/// Opens a store in a file.
pub(super) fn file(path: &Path) -> anyhow::Result<Sqlite> {
    Sqlite::open(path, SqliteConfig::default()).with_context(|| path.display().to_string())
}

/// Refuses a store that is not one to act on: of two that serve, and of one that was put back, code
/// sets would be redeemed that were redeemed already.
pub(super) fn check_fences(config: &Config, store: &dyn Fenced) -> anyhow::Result<()> {
    if let Some(says) = store.fence(Fence::Moved)? {
        bail!("this store was moved {says}; [store] in {FILE_NAME} is to name that one");
    }
    if store.fence(Fence::Unfinished)?.is_some() {
        bail!("this store is an unfinished copy; `fob store copy` goes on with it");
    }
    check_witness(config, store)
}

/// Refuses a store that was put back from a backup and not fenced.
pub(super) fn check_witness(config: &Config, store: &dyn Fenced) -> anyhow::Result<()> {
    match Witness::ask(&config.witness, store)? {
        Testimony::Reached => Ok(()),
        Testimony::Behind(_) => bail!(
            "this store was put back from a backup: what was answered since is missing in it; run \
             `fob restore` before anything else"
        ),
        Testimony::Missing => bail!(
            "{} is missing, and without it nobody can tell whether this store was put back from a \
             backup: if it was, run `fob restore`, and if it surely was not, `fob restore \
             --nothing-lost`; on a machine that is new to this store, copy \
             the file from the one that served last",
            config.witness.display()
        ),
    }
}

pub(super) fn database(
    at: &PostgresConfig,
    password_file: Option<&Path>,
) -> anyhow::Result<Postgres> {
    let at = with_password(at, password_file)?;
    Postgres::open(at).context("the database ([store] url)")
}

/// A database's address with its password.
pub(super) fn with_password(
    at: &PostgresConfig,
    file: Option<&Path>,
) -> anyhow::Result<PostgresConfig> {
    let password = file
        .map(|file| read_pin_file(file).with_context(|| file.display().to_string()))
        .transpose()?;
    Ok(PostgresConfig {
        password,
        ..at.clone()
    })
}

/// Loads the book of a store.
pub(super) fn book(store: &dyn Store) -> anyhow::Result<Book> {
    let book = Book::default();
    book.load(store)?;
    Ok(book)
}

/// Says what the root is where no record does: such an issuer has the root it began with.
pub(super) fn adopt_root(config: &Config, book: &Book) -> anyhow::Result<()> {
    if book.standing().root.is_some() {
        return Ok(());
    }
    let path = config.dir.join(ROOT_FILE);
    let id = book.setting("root_cka_id");
    let (Ok(key), Some(cka_id)) = (std::fs::read(&path), id.as_deref().and_then(CkaId::parse))
    else {
        return Ok(());
    };
    let key = IssuerKey::decode(&key).map_err(|why| anyhow!("{}: {why}", path.display()))?;
    book.adopt_root(RootKey {
        key: PublicKey(key),
        cka_id,
        token: config.root.serial.clone().unwrap_or_default(),
    });
    Ok(())
}

/// Brings `D/root.cbor` to the root of the store, where another has taken over.
pub(super) fn follow_root(config: &Config, book: &Book) -> anyhow::Result<()> {
    match &book.standing().root {
        Some(root) => write_root(config, root),
        None => Ok(()),
    }
}

/// Puts a root's public key into `D/root.cbor`, in one step, where it is not there yet.
pub(super) fn write_root(config: &Config, root: &RootKey) -> anyhow::Result<()> {
    let (path, new) = (config.dir.join(ROOT_FILE), config.dir.join("root.cbor.new"));
    let mut key = Vec::new();
    root.key.0.encode(&mut key);
    if std::fs::read(&path).is_ok_and(|known| known == key) {
        return Ok(());
    }
    // One that a crash has left would be in the way.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(new.display().to_string());
        }
        _ => {}
    }
    write_public(&new, &key)?;
    std::fs::rename(&new, &path).with_context(|| path.display().to_string())
}

/// The name of the user this process runs as; records name it where no operator is named.
pub(super) fn os_user() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(own) = std::fs::metadata("/proc/self") else {
        return "unknown".into();
    };
    let uid = own.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid-{uid}"))
}

/// Opens the root's token. Never in a server.
pub(super) fn root_token(config: &Config) -> anyhow::Result<Token> {
    let at = "the root's token ([root])";
    let pin = read_pin_file(&config.root_pin_file).context(at)?;
    Token::open(config.root.clone(), pin).context(at)
}

/// Opens one issuing token.
pub(super) fn open_token(token: &IssuingToken) -> anyhow::Result<Token> {
    let label = &token.config.label;
    Token::open(token.config.clone(), token.pin()?)
        .with_context(|| format!("the issuing token {label:?} ([hsm])"))
}

/// Opens the issuing tokens, in the order of the configuration. Where there are several, one that
/// cannot be reached is opened by its first use.
pub(super) fn issuing_tokens(config: &Config) -> anyhow::Result<Vec<Arc<Token>>> {
    let alone = config.hsm.tokens.len() == 1;
    let open = |one: &IssuingToken| match open_token(one) {
        Err(error) if !alone && !pin_refused(&error) => {
            let label = &one.config.label;
            let error = format!("{error:#}");
            tracing::error!(label, error, "a token is not there yet");
            let token = Token::closed(one.config.clone(), one.pin()?);
            Ok(Arc::new(token))
        }
        token => token.map(Arc::new),
    };
    config.hsm.tokens.iter().map(open).collect()
}

/// Those of the opened tokens that keep keys of their own.
pub(super) fn custody(config: &Config, tokens: &[Arc<Token>]) -> Tokens {
    let each = config.hsm.tokens.iter().zip(tokens);
    let own = each.filter(|(one, _)| one.replica_of.is_none());
    Tokens::new(own.map(|(_, token)| Arc::clone(token)).collect())
}

/// Opens the issuing token that holds this epoch's key.
pub(super) fn issuing_token(config: &Config, epoch: &Epoch) -> anyhow::Result<Token> {
    let tokens = &config.hsm.tokens;
    let named = |token: &&IssuingToken| token.epochs_of() == Some(epoch.token_serial.as_str());
    let token = tokens.iter().find(named);
    // A single token is believed to be the one; whether it holds the key will show.
    let alone = tokens.first().filter(|_| tokens.len() == 1);
    let token = token.or(alone).with_context(|| {
        let (epoch, serial) = (epoch.id, &epoch.token_serial);
        format!("no [[hsm.token]] has the serial number {serial}, which epoch {epoch} names")
    })?;
    open_token(token)
}

/// Whether an error is about a PIN that a token has refused.
pub(super) fn pin_refused(error: &anyhow::Error) -> bool {
    let refused = |cause: &HsmError| cause.pin_refused();
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(refused)
}

/// Reads the code set key.
pub(super) fn code_set_key(config: &Config) -> anyhow::Result<CodeSetKey> {
    let path = config.code_set_key();
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let key: [u8; CODE_SET_KEY_LEN] = bytes
        .try_into()
        .map_err(|_| anyhow!("{}: it is not {CODE_SET_KEY_LEN} bytes", path.display()))?;
    Ok(CodeSetKey::new(&key))
}

/// Whoever asks others before keys are issued, where the configuration names whom.
pub(super) fn hook(config: &Config) -> anyhow::Result<Option<Hook>> {
    let Some(may) = &config.hook else {
        return Ok(None);
    };
    let (pair, _) = super::jwk::read(&config.hook_key)
        .context("[hook] names whom to ask, and the key to ask with is not there: fob hook init")?;
    Ok(Some(Hook::new(may.clone(), pair)?))
}

/// Reads a file; `-` is standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Writes a new file of our own that nobody else may read, and sees it onto the disk.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_new(path, bytes, 0o600)
}

/// Writes a new file that anybody may read.
pub(super) fn write_public(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_new(path, bytes, 0o644)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}
