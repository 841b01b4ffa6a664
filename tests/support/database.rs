//! PostgreSQL for tests, for real: a server of this run's own, from Debian's package.
//!
//! Tests share one server, each in a schema of its own; the first that needs it makes and starts
//! it, and it ends with whoever runs the tests, or when nobody has used it for a while. What harms
//! a server starts one for itself.
//!
//! The database refuses to run as root. Root's tests run it as `postgres`, or as `nobody`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Ends the server when the run has ended (`$1`, the process that runs tests), or nobody has used
/// it for half a minute.
const WATCH: &str = r#"
"$2/postgres" -D "$3/data" -k "$3" >"$3/log" 2>&1 &
server=$!
needed() { [ -d "/proc/$1" ] && kill -0 "$server" 2>/dev/null; }
idle=0
exec 9>>"$3/start"
while :; do
  sleep 0.2
  if flock -n "$3/users" true; then idle=$((idle + 1)); else idle=0; fi
  if needed "$1" && [ "$idle" -lt 150 ]; then continue; fi
  # Nobody begins to use it while this is held.
  flock 9
  if ! needed "$1" || flock -n "$3/users" true; then break; fi
  flock -u 9
  idle=0
done
kill -INT "$server"
wait "$server"
rm -rf "$3"
"#;

/// The shared server: its folder, the lock that says it is used, and what ends it, which outlives
/// whoever started it.
struct Shared {
    folder: PathBuf,
    _users: File,
    _watch: Option<Child>,
}

/// Held by this process for as long as it uses the shared server.
static SHARED: OnceLock<Shared> = OnceLock::new();

/// Schemas of this process.
static SCHEMAS: AtomicU32 = AtomicU32::new(0);

/// A server's socket, in its folder.
pub(crate) struct Server {
    folder: PathBuf,
    /// Where it is this process's own.
    own: Option<(Child, tempfile::TempDir)>,
}

/// A schema of a server: an empty database, for all that matters.
pub(crate) struct Schema {
    folder: PathBuf,
    port: u16,
    name: String,
}

/// Where the server's programs are, newest first.
fn programs() -> PathBuf {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .map(|all| all.flatten().map(|one| one.path().join("bin")).collect())
        .unwrap_or_default();
    found.retain(|bin: &PathBuf| bin.join("initdb").exists());
    found.sort();
    found
        .pop()
        .expect("PostgreSQL is not installed (on Debian: apt-get install postgresql)")
}

/// Who the server runs as, where that is somebody else.
fn other_user() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let of = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = of.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    root.then(|| ids("postgres").or_else(|| ids("nobody")).unwrap())
}

/// A program of the server's, as the user it may run as, away from the test's own process group.
fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// Makes a server's files in `folder`.
fn make(folder: &Path) {
    if let Some((user, group)) = other_user() {
        chown(folder, Some(user), Some(group)).unwrap();
    }
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let made = as_server(&programs().join("initdb"))
        .args(["-D"])
        .arg(folder.join("data"))
        .args(["-U", "fob", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"])
        .status()
        .unwrap();
    assert!(made.success(), "initdb");
    let settings = "listen_addresses = ''\nfsync = on\nshared_buffers = 32MB\n\
                    max_connections = 100\nunix_socket_permissions = 0777\n";
    let file = folder.join("data/postgresql.conf");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, before + settings).unwrap();
}

/// Waits until the server in `folder` answers.
fn wait_for(folder: &Path, port: u16) {
    for _ in 0..600 {
        let asked = Command::new(programs().join("pg_isready"))
            .args([
                "-q",
                "-U",
                "fob",
                "-d",
                "postgres",
                "-p",
                &port.to_string(),
                "-h",
            ])
            .arg(folder)
            .status()
            .unwrap();
        if asked.success() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    panic!("the database did not start: {log}");
}

/// A file to lock, whoever made it.
fn lockable(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    // Another user's: it is open all the same.
    let _ = file.set_permissions(Permissions::from_mode(0o666));
    Ok(file)
}

/// The folder of the server that all tests of this run share.
fn shared() -> &'static Path {
    let shared = SHARED.get_or_init(|| {
        let run = parent_id();
        let folder = std::env::temp_dir().join(format!("fob-test-postgres-{run}"));
        loop {
            fs::create_dir_all(&folder).unwrap();
            // Whoever ends the server removes the folder while it holds this lock.
            let Ok(start) = lockable(&folder.join("start")) else {
                continue;
            };
            start.lock().unwrap();
            let named = fs::metadata(folder.join("start"));
            if named.is_ok_and(|it| it.ino() != start.metadata().unwrap().ino()) {
                continue;
            }
            let Ok(users) = lockable(&folder.join("users")) else {
                continue;
            };
            users.lock_shared().unwrap();
            let mut watch = None;
            if !folder.join("ready").exists() {
                make(&folder);
                let started = as_server(Path::new("/bin/sh"))
                    .args(["-c", WATCH, "sh", &run.to_string()])
                    .args([&programs(), &folder])
                    .spawn();
                watch = Some(started.unwrap());
                wait_for(&folder, PORT);
                fs::write(folder.join("ready"), "").unwrap();
            }
            return Shared {
                folder,
                _users: users,
                _watch: watch,
            };
        }
    });
    &shared.folder
}

impl Schema {
    /// A new one on the server that tests share.
    pub(crate) fn new() -> Self {
        Self::on(shared())
    }

    fn on(folder: &Path) -> Self {
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        let schema = Self {
            folder: folder.to_owned(),
            port: PORT,
            name: format!("t{}_{number}", std::process::id()),
        };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    /// The folder of its server's socket.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it is, as configurations say it.
    pub(crate) fn url(&self) -> String {
        self.url_over(&self.folder)
    }

    /// The same over a socket in another folder.
    pub(crate) fn url_over(&self, folder: &Path) -> String {
        let folder = folder.display().to_string().replace('/', "%2F");
        let port = self.port;
        format!(
            "postgresql://fob@{folder}:{port}/postgres?options=-c%20search_path%3D{}",
            self.name
        )
    }

    /// A backup, as `pg_dump` makes it.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let dumped = Command::new(programs().join("pg_dump"))
            .args(["-U", "fob", "-p", &self.port.to_string(), "-h"])
            .arg(&self.folder)
            .args(["-n", &self.name, "postgres"])
            .output()
            .unwrap();
        assert!(dumped.status.success(), "pg_dump");
        dumped.stdout
    }

    /// Puts a backup in the place of what is there.
    pub(crate) fn put_back(&self, dump: &[u8]) {
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.name));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), dump).unwrap();
        let done = Command::new(programs().join("psql"))
            .args(["-q", "-v", "ON_ERROR_STOP=1", "-U", "fob"])
            .args(["-p", &self.port.to_string(), "-d", "postgres", "-h"])
            .arg(&self.folder)
            .arg("-f")
            .arg(file.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success(), "psql");
    }

    /// Does something behind everybody's back; returns the first column of the first row, if any.
    pub(crate) fn execute(&self, sql: &str) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let url = self.url();
            let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
            let (client, connection) = connecting.await.unwrap();
            tokio::spawn(connection);
            let answers = client.simple_query(sql).await.unwrap();
            answers.iter().find_map(|answer| match answer {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(Into::into),
                _ => None,
            })
        })
    }
}

/// A transaction that does nothing but hold what it has locked, until it is dropped.
pub(crate) struct Held(
    Option<tokio::runtime::Runtime>,
    #[expect(dead_code)] tokio_postgres::Client,
);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Schema {
    /// Begins a transaction that locks something.
    pub(crate) fn hold(&self, sql: &str) -> Held {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let url = self.url();
            let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
            let (client, connection) = connecting.await.unwrap();
            tokio::spawn(connection);
            client
                .batch_execute(&format!("BEGIN; {sql}"))
                .await
                .unwrap();
            client
        });
        Held(Some(runtime), client)
    }
}

/// The socket's number, where nothing else is said.
const PORT: u16 = 5432;

/// A server's own certificate, for 127.0.0.1 alone.
fn certificate(folder: &Path) {
    let made = as_server(Path::new("openssl"))
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=database",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-days",
            "2",
        ])
        .arg("-keyout")
        .arg(folder.join("data/server.key"))
        .arg("-out")
        .arg(folder.join("data/server.crt"))
        .status()
        .unwrap();
    assert!(made.success(), "openssl");
}

impl Server {
    /// One of this test's own that asks for TLS and a password on 127.0.0.1; its port.
    pub(crate) fn with_tls(password: &str) -> (Self, u16) {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().to_owned();
        make(&folder);
        certificate(&folder);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let append = |name: &str, text: &str| {
            let file = folder.join("data").join(name);
            let before = fs::read_to_string(&file).unwrap();
            fs::write(&file, before + text).unwrap();
        };
        append(
            "postgresql.conf",
            &format!("listen_addresses = '127.0.0.1'\nssl = on\nport = {port}\n"),
        );
        let who = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(folder.join("data/pg_hba.conf"), who).unwrap();
        let child = run(&folder, port);
        let server = Self {
            folder,
            own: Some((child, own)),
        };
        let admin = Schema {
            folder: server.folder.clone(),
            port,
            name: "public".into(),
        };
        admin.execute(&format!("ALTER ROLE fob PASSWORD '{password}'"));
        (server, port)
    }

    /// The certificate of [`Server::with_tls`].
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("data/server.crt")
    }

    /// One of this test's own.
    pub(crate) fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().to_owned();
        make(&folder);
        let child = run(&folder, PORT);
        Self {
            folder,
            own: Some((child, own)),
        }
    }

    /// A new schema on it.
    pub(crate) fn schema(&self) -> Schema {
        Schema::on(&self.folder)
    }

    /// Ends it at once, as a crash does: nothing is written that was not written before, and the
    /// next start recovers from the log.
    pub(crate) fn kill(&mut self) {
        let Some((child, _)) = &mut self.own else {
            return;
        };
        let id = child.id().to_string();
        let killed = Command::new("kill").args(["-QUIT", &id]).status();
        assert!(killed.unwrap().success());
        child.wait().unwrap();
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        let folder = self.folder.clone();
        if let Some((child, _)) = &mut self.own {
            *child = run(&folder, PORT);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.own {
            let id = child.id().to_string();
            let _ = Command::new("kill").args(["-INT", &id]).status();
            let _ = child.wait();
        }
    }
}

fn run(folder: &Path, port: u16) -> Child {
    let child = as_server(&programs().join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .spawn()
        .unwrap();
    wait_for(folder, port);
    child
}
