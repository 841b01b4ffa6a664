//! A wire to the database that can be cut at the worst moment: a socket of its own, which hands
//! everything on until it is told otherwise.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

/// The name a server's socket has within its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// What happens to the next `COMMIT` that comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is handed on, and so is its answer.
    Pass,
    /// The database gets it; the answer is lost with the connection.
    LoseAnswer,
    /// The database never gets it.
    LoseQuestion,
    /// The database gets it; the client's end is closed at once, whether or not the database is
    /// done with it.
    Leave,
}

struct State {
    next: Next,
    /// Whether new connections are let through.
    open: bool,
}

/// The wire.
pub(crate) struct Wire {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

impl Wire {
    /// A wire to the server whose socket is in `to`.
    pub(crate) fn new(to: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let state = Arc::new(Mutex::new(State {
            next: Next::Pass,
            open: true,
        }));
        let (to, shared) = (to.join(SOCKET), Arc::clone(&state));
        // Ends with its process: a test.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.lock().unwrap().open {
                    let (to, shared) = (to.clone(), Arc::clone(&shared));
                    thread::spawn(move || carry(client, &to, &shared));
                }
            }
        });
        Self { folder, state }
    }

    /// Its own folder, in place of the server's.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Says what happens to the next `COMMIT`; what comes after it passes.
    pub(crate) fn next(&self, next: Next) {
        self.state.lock().unwrap().next = next;
    }

    /// Lets new connections through, or not.
    pub(crate) fn open(&self, open: bool) {
        self.state.lock().unwrap().open = open;
    }
}

fn carry(mut client: UnixStream, to: &Path, state: &Mutex<State>) {
    let mut server = UnixStream::connect(to).unwrap();
    let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let lost = Arc::new(Mutex::new(false));
    let lost_too = Arc::clone(&lost);
    let answering = thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(len @ 1..) = answers.read(&mut bytes) {
            // What was lost is read all the same: the database does not wait.
            if !*lost_too.lock().unwrap() && back.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut bytes = vec![0; 1 << 20];
    while let Ok(len @ 1..) = client.read(&mut bytes) {
        let commits = bytes[..len].windows(7).any(|word| word == b"COMMIT\0");
        let next = match commits {
            true => std::mem::replace(&mut state.lock().unwrap().next, Next::Pass),
            false => Next::Pass,
        };
        if next != Next::Pass {
            *lost.lock().unwrap() = true;
        }
        if next != Next::LoseQuestion && server.write_all(&bytes[..len]).is_err() {
            break;
        }
        match next {
            Next::Pass => {}
            // The database ends the session when it comes to the end of what it was sent.
            Next::LoseAnswer => {
                server.write_all(b"X\0\0\0\x04").unwrap();
                answering.join().unwrap();
                let _ = client.shutdown(Shutdown::Both);
                return;
            }
            Next::LoseQuestion => break,
            Next::Leave => {
                let _ = client.shutdown(Shutdown::Both);
                // Its end stays open here until the database has done what it was sent.
                let _ = server.write_all(b"X\0\0\0\x04");
                answering.join().unwrap();
                return;
            }
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
