//! `D/fob.sock`: the running server's door for operators. A line of JSON in, a line of JSON out;
//! whoever may open the socket (0600) may ask.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::acts::ActsTold;
use super::desk::{Answer, Command, Context as Desk, check, decide};
use super::hsm::Report;
use super::reissue;
use crate::engine::Engine;
use crate::hsm::Custody;

/// The most bytes of a command.
const COMMAND_LEN_MAX: u64 = 1024 * 1024;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ok(Answer),
    Refused(String),
}

fn path(dir: &Path) -> PathBuf {
    dir.join("fob.sock")
}

/// Asks the server that holds `dir`.
pub(super) fn ask(dir: &Path, command: &Command) -> anyhow::Result<Answer> {
    let path = path(dir);
    let mut stream = Blocking::connect(&path).with_context(|| {
        format!(
            "another fob holds {}, and its socket {} does not answer",
            dir.display(),
            path.display()
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", serde_json::to_string(command)?).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).context("the server's answer")? {
        Reply::Ok(answer) => Ok(answer),
        Reply::Refused(why) => Err(anyhow!("{why}")),
    }
}

/// The socket of a running server; removed when dropped.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds it. The caller holds the directory's lock, so one that is there is a leftover.
    pub(super) fn bind(dir: &Path) -> anyhow::Result<Self> {
        let path = path(dir);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers commands for as long as it is polled, one after the other: operators can wait.
    pub(super) async fn serve(&self, engine: Arc<Engine>, custody: Arc<dyn Custody>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if tokio::time::timeout(PATIENCE, converse(&engine, &custody, stream))
                        .await
                        .is_err()
                    {
                        tracing::warn!("an operator's command took too long");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the operators' socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

async fn converse(engine: &Arc<Engine>, custody: &Arc<dyn Custody>, mut stream: UnixStream) {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    let mut reader = tokio::io::BufReader::new(reader.take(COMMAND_LEN_MAX));
    let reply = match reader.read_line(&mut line).await {
        Err(error) => Reply::Refused(error.to_string()),
        Ok(_) => match serde_json::from_str(&line) {
            Err(error) => Reply::Refused(format!("not a command: {error}")),
            Ok(command) => match carry_out(engine, custody, command).await {
                Ok(answer) => Reply::Ok(answer),
                Err(why) => Reply::Refused(why),
            },
        },
    };
    let text = serde_json::to_string(&reply).unwrap_or_default() + "\n";
    if let Err(error) = writer.write_all(text.as_bytes()).await {
        tracing::debug!(%error, "an operator did not wait for the answer");
    }
}

/// Returns when what was asked for is in force: durable, and in the book.
async fn carry_out(
    engine: &Arc<Engine>,
    custody: &Arc<dyn Custody>,
    command: Command,
) -> Result<Answer, String> {
    if let Command::Acts { ask } = command {
        let filter = ask.filter(engine.book()).map_err(|it| it.to_string())?;
        let acts = engine.acts(filter).await.map_err(|it| it.to_string())?;
        return Ok(Answer::Acts(ActsTold::of(engine.book(), acts)));
    }
    if let Command::Renew { ask } = command {
        let told = reissue::slice(engine, ask).await;
        return told.map(Answer::Renewed).map_err(|why| why.to_string());
    }
    let abreast = engine.abreast().await;
    abreast.map_err(|refusal| refusal.to_string())?;
    // The HSM may be slow; the server goes on meanwhile.
    let (deciding, custody) = (Arc::clone(engine), Arc::clone(custody));
    let decided = tokio::task::spawn_blocking(move || {
        let desk = Desk {
            book: deciding.book(),
            settings: deciding.settings(),
            unix_ms: deciding.clock().unix_ms(),
            custody: &|| Ok(Arc::clone(&custody)),
            hsm: &|| {
                let asked = deciding.ask_tokens().into_iter();
                let asked = asked.map(|(station, token)| (Some(station), token));
                Ok(Report::of(asked.collect(), deciding.book()))
            },
        };
        decide(&desk, command)
    });
    let decision = decided
        .await
        .map_err(|error| error.to_string())?
        .map_err(|failure| failure.to_string())?;
    if !decision.writes.is_empty() {
        let applied = engine
            .write(decision.writes)
            .await
            .map_err(|refusal| refusal.to_string())?;
        check(&applied).map_err(|refusal| refusal.to_string())?;
    }
    Ok(decision.answer)
}
