//! SoftHSM behind p11-kit: a module whose far end can be killed, restarted and stopped.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Issuer;

/// p11-kit's server over the SoftHSM tokens of a directory.
pub struct Far {
    dir: PathBuf,
    child: Option<Child>,
}

impl Far {
    /// Serves the tokens of this issuer's directory.
    pub fn of(issuer: &Issuer) -> Self {
        let mut far = Self {
            dir: issuer.path().to_owned(),
            child: None,
        };
        far.start();
        far
    }

    /// What a process needs to reach it.
    pub fn address(&self) -> (&'static str, String) {
        let socket = self.socket();
        let address = format!("unix:path={}", socket.display());
        ("P11_KIT_SERVER_ADDRESS", address)
    }

    /// Starts it and waits until it can be reached.
    pub fn start(&mut self) {
        let serve = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config/p11-kit/serve");
        let socket = self.socket();
        let mut command = Command::new(serve);
        command
            .arg(&socket)
            .env("SOFTHSM2_CONF", self.dir.join("softhsm2.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // It has a process for each connection: signals go to all of them.
            .process_group(0);
        self.child = Some(command.spawn().unwrap());
        for _ in 0..2_000 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("p11-kit does not serve; are p11-kit and p11-kit-modules installed?");
    }

    /// Kills it, and all its connections.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal("KILL", child.id());
            child.wait().unwrap();
        }
    }

    /// Stops it: calls into it hang.
    pub fn stop(&self) {
        signal("STOP", self.child.as_ref().unwrap().id());
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        signal("CONT", self.child.as_ref().unwrap().id());
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("far.sock")
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The library that forwards to it.
pub fn client_module() -> PathBuf {
    library("pkcs11/p11-kit-client.so")
}

/// The library that writes down every call.
pub fn spy_module() -> PathBuf {
    library("pkcs11-spy.so")
}

fn library(name: &str) -> PathBuf {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let places = [
        format!("/usr/lib/{multiarch}"),
        "/usr/lib64".into(),
        "/usr/lib".into(),
    ];
    let found = places.iter().map(|place| Path::new(place).join(name));
    let found = found.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing; see TEST_PACKAGES in the Makefile"))
}

/// Has an issuer's configuration name this module for `[hsm]`.
pub fn use_module(issuer: &Issuer, module: &Path) {
    let file = issuer.file("fob.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut table: toml::Table = toml::from_str(&text).unwrap();
    table["hsm"]["module"] = module.display().to_string().into();
    std::fs::write(&file, table.to_string()).unwrap();
}

/// Sends a signal to a process group.
fn signal(name: &str, group: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), "--", &format!("-{group}")])
        .status();
    assert!(sent.unwrap().success(), "SIG{name} to group {group}");
}
