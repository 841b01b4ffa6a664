//! The floors hold: no import points up or sideways, and each heavy dependency has one home.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor. The root files are wiring and may import anything.
const FLOORS: [(&str, u8); 8] = [
    ("domain", 1),
    ("hsm", 2),
    ("store", 2),
    ("clock", 2),
    ("hook", 2),
    ("engine", 3),
    ("http", 4),
    ("cli", 4),
];

/// Imports that point sideways on purpose.
const ALLOWED: [(&str, &str, &str); 2] = [
    // A bundle is stored with its signatures, and a signature is what the HSM makes.
    ("store/mod.rs", "hsm", "Signature is the HSM's word"),
    // `fob serve` is the command that starts the other surface.
    ("cli/serve.rs", "http", "serve starts it"),
];

/// Heavy dependencies and where they may be named.
const HOMES: [(&str, &[&str]); 13] = [
    ("actix_web", &["http/", "cli/serve.rs"]),
    ("cryptoki", &["hsm/"]),
    ("cryptoki_sys", &["hsm/"]),
    ("rusqlite", &["store/sqlite/"]),
    ("tokio_postgres", &["store/postgres/"]),
    ("rayon", &["engine/", "hsm/"]),
    ("mimalloc", &["main.rs"]),
    ("clap", &["cli/"]),
    ("utoipa", &["http/"]),
    (
        "hyper",
        &[
            "cli/act/",
            "cli/answers.rs",
            "cli/erase.rs",
            "cli/import/",
            "cli/issue/",
            "cli/link.rs",
            "cli/retry.rs",
            "hook/",
        ],
    ),
    (
        "tokio_rustls",
        &["cli/link.rs", "hook/", "store/postgres/tls.rs"],
    ),
    ("csv_core", &["cli/csv.rs"]),
    ("flate2", &["engine/"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Path within `src`, and the text without comments.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&source(), &mut found);
    let code = |path: &Path| {
        let text = fs::read_to_string(path).expect("a source file");
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let name = |path: &Path| {
        path.strip_prefix(source())
            .expect("within src")
            .display()
            .to_string()
    };
    found.iter().map(|path| (name(path), code(path))).collect()
}

fn room(path: &str) -> Option<(&'static str, u8)> {
    let first = path
        .split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs");
    FLOORS.into_iter().find(|(room, _)| *room == first)
}

/// The rooms a text imports: `crate::room`, also within `use crate::{room, …}`.
fn imports(text: &str) -> Vec<(&'static str, u8)> {
    let named = |room: &str| {
        text.contains(&format!("crate::{room}::"))
            || text.contains(&format!("crate::{room};"))
            || text
                .split("use crate::{")
                .skip(1)
                .filter_map(|rest| rest.split(';').next())
                .any(|list| {
                    list.split([',', '{', '}', ' ', '\n', ':'])
                        .any(|word| word == room)
                })
    };
    FLOORS.into_iter().filter(|(room, _)| named(room)).collect()
}

#[test]
fn no_import_points_up_or_sideways() {
    let sources = sources();
    assert!(sources.len() > 40, "the test looks at the source");
    for (path, text) in &sources {
        let Some((own, floor)) = room(path) else {
            continue;
        };
        for (other, level) in imports(text) {
            let allowed = other == own
                || level < floor
                || ALLOWED.iter().any(|(at, to, _)| path == at && other == *to)
                || (own == "store"
                    && other == "hsm"
                    && ["store/sqlite", "store/postgres", "store/encoding"]
                        .iter()
                        .any(|room| path.starts_with(room)));
            assert!(
                allowed,
                "{path} (floor {floor}) imports {other} (floor {level})"
            );
        }
    }
}

#[test]
fn heavy_dependencies_stay_at_home() {
    for (path, text) in sources() {
        for (dependency, homes) in HOMES {
            let named = text.contains(&format!("{dependency}::"));
            let home = homes.iter().any(|home| path.starts_with(home));
            assert!(
                !named || home,
                "{path} names {dependency}, whose home is {homes:?}"
            );
        }
    }
}

#[test]
fn the_rules_know_no_clock_no_lock_and_no_io() {
    for (path, text) in sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("domain/"))
    {
        for word in [
            "std::fs",
            "std::net",
            "std::time",
            "Mutex",
            "RwLock",
            "async fn",
            "tokio",
        ] {
            assert!(!text.contains(word), "{path} names {word}");
        }
    }
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    for (path, text) in sources() {
        let allows = text.contains("allow(unsafe_code") || text.contains("unsafe_code,");
        let home = [
            "hsm/fast.rs",
            "hsm/initialize.rs",
            "hsm/leave.rs",
            "hsm/softhsm.rs",
            "http/socket.rs",
        ]
        .contains(&path.as_str());
        assert!(!allows || home, "{path} allows unsafe code");
    }
}
