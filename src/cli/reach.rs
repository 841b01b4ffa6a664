//! Which server a command calls, and with which token: named by the caller, or of the issuer's
//! directory.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::link::Server;
use super::pass::Issuer;
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
    /// The server to call, and the token to call it with; one that is made has this scope.
    pub(super) fn reach(
        &self,
        common: &Common,
        scope: &'static str,
    ) -> anyhow::Result<(Server, Issuer)> {
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
        Ok((Server::new(&url, self.ca.as_deref())?, issuer))
    }
}
