//! Which server a command calls, and with which token: named by the caller, or of the issuer's
//! directory.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::link::{Link, Server};
use super::pass::{Issuer, Pass};
use super::retry::{Again, again};
use super::{Common, place};

/// Where a command finds its server.
#[derive(Args)]
pub(super) struct ReachArgs {
    /// The server; the one of D where absent
    #[arg(long)]
    url: Option<String>,
    /// A file with a bearer token; where absent, the server that holds D makes one for this run
    #[arg(long, value_name = "FILE", env = "FOB_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The fleet to have a token made for; the only one where absent
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    fleet: Option<String>,
    /// PEM certificates to trust for https, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ReachArgs {
    /// The way to the server; a token that is made for it has this scope.
    pub(super) fn reach(&self, common: &Common, scope: &'static str) -> anyhow::Result<Way> {
        let given = self.token_file.as_deref().map(Issuer::file).transpose()?;
        let config = match (&self.url, &given) {
            (Some(_), Some(_)) => None,
            _ => Some(place::configuration(common).context(
                "name server and token with --url and --token-file, or the issuer's directory \
                 with --dir",
            )?),
        };
        let url = match (&self.url, &config) {
            (Some(url), _) => url.clone(),
            (None, Some(config)) => match &config.public_url {
                Some(url) => url.clone(),
                None => config.address(config.listen),
            },
            (None, None) => bail!("name the server with --url"),
        };
        let issuer = match (given, &config) {
            (Some(given), _) => given,
            (None, Some(config)) => Issuer::desk(&config.dir, self.fleet.clone(), scope)?,
            (None, None) => bail!("name a token with --token-file"),
        };
        Ok(Way {
            server: Server::new(&url, self.ca.as_deref())?,
            issuer,
            reached: false,
        })
    }
}

/// The way to a server, as often as it is gone.
pub(super) struct Way {
    pub(super) server: Server,
    issuer: Issuer,
    /// Whether it has led there before: then the server may come back.
    reached: bool,
}

impl Way {
    /// Connects, with a token to call with. What may pass by itself is a reason to try again.
    pub(super) async fn go(&mut self) -> anyhow::Result<Result<(Link, Pass), Again>> {
        let link = match self.server.connect().await {
            Ok(link) => link,
            Err(error) if self.reached => return Ok(Err(again(error.to_string()))),
            Err(error) => {
                let authority = &self.server.authority;
                return Err(error).context(format!(
                    "no server answers at {authority}: start it with `fob serve`, or name another \
                     with --url"
                ));
            }
        };
        let pass = match self.issuer.pass() {
            Ok(pass) => pass,
            // A server that comes back opens its socket last.
            Err(error) if self.reached => return Ok(Err(again(format!("{error:#}")))),
            Err(error) => return Err(error),
        };
        self.reached = true;
        Ok(Ok((link, pass)))
    }
}
