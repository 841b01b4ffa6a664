//! The issuer's folder, its server, and what operators type: all of it the commands of this
//! program, as processes of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::config::FILE_NAME;
use crate::engine::ids::Ids;
use crate::hsm::softhsm_module;

/// The folder; removed at the end where nobody named it, and its server ended before that.
pub(super) struct House {
    dir: PathBuf,
    stays: bool,
    server: Option<Child>,
}

impl House {
    /// A folder for a new issuer.
    pub(super) fn new(named: Option<&Path>) -> anyhow::Result<Self> {
        softhsm_module().context(
            "SoftHSM is not installed, and this issuer keeps its keys in it (on Debian: apt-get \
             install softhsm2; make run installs it too)",
        )?;
        let dir = match named {
            Some(dir) => dir.to_owned(),
            None => {
                let unique = u64::from_le_bytes(Ids::new().random());
                std::env::temp_dir().join(format!("fob-demo-{unique:016x}"))
            }
        };
        ensure!(
            !dir.join(FILE_NAME).exists(),
            "{}: there is an issuer already; the story begins with a new one",
            dir.display()
        );
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| dir.display().to_string())?;
        Ok(Self {
            dir,
            stays: named.is_some(),
            server: None,
        })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) const fn stays(&self) -> bool {
        self.stays
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command of this program about this issuer. What the environment says of others is left
    /// out.
    fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            let ours = name.to_string_lossy().starts_with("FOB_");
            if ours || name == "SOFTHSM2_CONF" {
                command.env_remove(name);
            }
        }
        command.args(args).arg("--json").arg("--dir").arg(&self.dir);
        Ok(command)
    }

    /// Runs one, and reads what it answers.
    pub(super) fn run(&self, args: &[&str]) -> anyhow::Result<Value> {
        let done = self.command(args)?.output()?;
        if !done.status.success() {
            let complaint = String::from_utf8_lossy(&done.stderr);
            bail!("fob {}: {}", args.join(" "), complaint.trim());
        }
        serde_json::from_slice(&done.stdout)
            .with_context(|| format!("fob {}: its answer", args.join(" ")))
    }

    /// Starts the server on a free port of this machine; its address.
    pub(super) fn serve(&mut self) -> anyhow::Result<String> {
        let log = std::fs::File::create(self.file("serve.log"))?;
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0"])?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let out = child.stdout.take().context("the server's first line")?;
        // Whatever becomes of it, it is ended with the house.
        self.server = Some(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).with_context(|| {
            let log = std::fs::read_to_string(self.file("serve.log")).unwrap_or_default();
            format!("the server does not serve: {}", log.trim())
        })?;
        let url = said.get("public_url").and_then(Value::as_str);
        Ok(url.context("the server's address")?.to_owned())
    }

    /// Asks the server to end, and waits for it.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let pid = server.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        if !asked.is_ok_and(|asked| asked.success()) {
            server.kill()?;
        }
        let ended = server.wait()?;
        ensure!(ended.success(), "the server did not end well: {ended}");
        Ok(())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("fob: {error:#}");
        }
        if !self.stays
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            eprintln!("fob: {} is left behind: {error}", self.dir.display());
        }
    }
}
