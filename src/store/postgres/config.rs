//! What of PostgreSQL can be set: floor 2, `store/postgres`. Bounds and defaults; the units are in
//! the names.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tokio_postgres::config::{Host, SslMode};

/// Where the store is, and how it is reached.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// `postgresql://user@host:port/database?…`, as libpq reads it; no password in it.
    pub url: String,
    /// The user's password, where the server asks for one.
    pub password: Option<SecretString>,
    /// What signed the server's certificate: PEM. The system's certificates where absent.
    pub tls_ca: Option<PathBuf>,
    /// Connections that read beside the one that writes (1 to 64).
    pub readers: usize,
    /// How long a statement may take, in milliseconds (100 to 600,000).
    pub statement_timeout_ms: u32,
    /// How long a connection may take to be made, in milliseconds (100 to 60,000).
    pub connect_timeout_ms: u32,
    /// How often a transaction is tried that others got in the way of (1 to 100).
    pub attempts_max: u32,
}

impl PostgresConfig {
    /// The store at `url`, with defaults for the rest.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            password: None,
            tls_ca: None,
            readers: 4,
            statement_timeout_ms: 10_000,
            connect_timeout_ms: 2_000,
            attempts_max: 10,
        }
    }

    /// Whether the URL can be used; what is wrong with it, without quoting it.
    ///
    /// # Errors
    /// It cannot be read, or has a password in it.
    pub fn check(&self) -> Result<(), &'static str> {
        self.address().map(drop)
    }

    /// The URL, read.
    pub(super) fn address(&self) -> Result<tokio_postgres::Config, &'static str> {
        if !["postgresql://", "postgres://"]
            .iter()
            .any(|it| self.url.starts_with(it))
        {
            return Err("it begins with postgresql://");
        }
        let mut to: tokio_postgres::Config = self
            .url
            .parse()
            .map_err(|_| "it cannot be read as an address")?;
        if to.get_password().is_some() {
            return Err("it has a password in it, which belongs into a file (password_file)");
        }
        if to.get_hosts().is_empty() {
            return Err("it names no host");
        }
        // Unless somebody has said otherwise, what crosses a network is encrypted.
        let far = to.get_hosts().iter().any(|host| match host {
            Host::Tcp(name) => {
                let ip: Option<IpAddr> = name.parse().ok();
                name != "localhost" && !ip.is_some_and(|ip| ip.is_loopback())
            }
            Host::Unix(_) => false,
        });
        if far && to.get_ssl_mode() == SslMode::Prefer {
            to.ssl_mode(SslMode::Require);
        }
        Ok(to)
    }

    /// The same within the bounds of each field.
    pub(super) fn bounded(self) -> Self {
        Self {
            readers: self.readers.clamp(1, 64),
            statement_timeout_ms: self.statement_timeout_ms.clamp(100, 600_000),
            connect_timeout_ms: self.connect_timeout_ms.clamp(100, 60_000),
            attempts_max: self.attempts_max.clamp(1, 100),
            ..self
        }
    }

    /// How long an answer is waited for: the server ends a statement first, if it is there.
    pub(super) fn answer_within(&self) -> Duration {
        Duration::from_millis(u64::from(self.statement_timeout_ms) + 1_000)
    }
}
