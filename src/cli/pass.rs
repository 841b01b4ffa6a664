//! The bearer token of a run: one from a file, or one made for this run through the operators'
//! socket and revoked at its end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use super::desk::{Answer, Command};
use super::{place, socket};
use crate::engine::operate::By;

/// How long a token made for a call may be shown. It is revoked when the call is over; this is for
/// when that does not happen.
const PASS_S: u64 = 600;

/// Where tokens come from.
pub(super) enum Issuer {
    /// The caller has one.
    Given(String),
    /// The server that holds this directory makes one.
    Desk {
        dir: PathBuf,
        fleet: String,
        scope: &'static str,
    },
}

/// A token; one that was made is revoked when dropped.
pub(super) struct Pass {
    pub(super) token: String,
    made: Option<(PathBuf, String)>,
}

impl Issuer {
    /// From a file.
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        let text = String::from_utf8(place::read(path)?).unwrap_or_default();
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            bail!("{}: there is no token in it", path.display());
        }
        Ok(Self::Given(token.into()))
    }

    /// From the server that holds `dir`, for the fleet named, or for the only one there is; with
    /// this scope.
    pub(super) fn desk(
        dir: &Path,
        fleet: Option<String>,
        scope: &'static str,
    ) -> anyhow::Result<Self> {
        if place::try_lock(dir)?.is_some() {
            bail!(
                "no server holds {0}: start one with `fob serve --dir {0}`; or name a server with \
                 --url and a token for it with --token-file",
                dir.display()
            );
        }
        let fleet = match fleet {
            Some(fleet) => fleet,
            None => only_fleet(dir)?,
        };
        Ok(Self::Desk {
            dir: dir.into(),
            fleet,
            scope,
        })
    }

    /// A token to call with.
    pub(super) fn pass(&self) -> anyhow::Result<Pass> {
        let (dir, fleet, scope) = match self {
            Self::Given(token) => {
                return Ok(Pass {
                    token: token.clone(),
                    made: None,
                });
            }
            Self::Desk { dir, fleet, scope } => (dir, fleet, *scope),
        };
        let command = Command::TokenCreate {
            fleet: fleet.clone(),
            scopes: vec![scope.into()],
            expires_in_s: Some(PASS_S),
            certificate: None,
            by: by(),
        };
        match socket::ask(dir, &command)? {
            Answer::Token(made) => Ok(Pass {
                token: made.token.context("a token without text")?,
                made: Some((dir.clone(), made.id)),
            }),
            _ => bail!("the server made no token"),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((dir, id)) = self.made.take()
            && let Err(error) = socket::ask(&dir, &Command::TokenRevoke { id, by: by() })
        {
            tracing::debug!(%error, "a token ends by itself");
        }
    }
}

/// Who makes and ends it: whoever runs the command, for its run.
fn by() -> By {
    By {
        operator: place::os_user(),
        why: Some("for one run of a command".into()),
    }
}

fn only_fleet(dir: &Path) -> anyhow::Result<String> {
    let Answer::Fleets(fleets) = socket::ask(dir, &Command::FleetList)? else {
        bail!("the server lists no fleets");
    };
    match fleets.as_slice() {
        [one] => Ok(one.name.clone()),
        [] => Err(anyhow!(
            "there is no fleet: `fob fleet create NAME` makes one"
        )),
        many => {
            let names: Vec<_> = many.iter().map(|fleet| fleet.name.as_str()).collect();
            Err(anyhow!(
                "there are several fleets: name one with --fleet: {}",
                names.join(", ")
            ))
        }
    }
}
