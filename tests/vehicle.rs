//! `fob vehicle` and `fob sign use`: a car and a phone at the terminal, with keys and lists made
//! here, and a server of one answer where the car syncs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fob_verify::ack::SignedAck;
use fob_verify::key::{self, Claims, StatusRef};
use fob_verify::sign1::ToBeSigned;
use fob_verify::status::{self, Status};
use fob_verify::trust::{self, Entry};
use fob_verify::{Algorithm, HolderKey, IssuerKey, PublicKey, RustCrypto, sync};
use minicbor::Encoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{FOB, now};

const FLEET: &str = "019b8b74-1800-7000-8000-0000000000f1";
const URI: &str = "https://fob.example/v1/status/1";

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn public(pair: &EcdsaKeyPair) -> PublicKey {
    PublicKey::from_sec1(pair.public_key().as_ref()).unwrap()
}

fn finish(pair: &EcdsaKeyPair, message: &ToBeSigned) -> Vec<u8> {
    let signature = pair.sign(&SystemRandom::new(), message.message()).unwrap();
    message.assemble(signature.as_ref().try_into().unwrap())
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A car in a folder, a phone beside it, and whoever signs.
struct World {
    folder: TempDir,
    root: EcdsaKeyPair,
    issuer: EcdsaKeyPair,
    phone: HolderKey,
    made_at: u64,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, issuer) = (pair(), pair());
        let mut encoded = vec![];
        let key = IssuerKey::new(Algorithm::Esp256, public(&root)).unwrap();
        key.encode(&mut encoded);
        std::fs::write(folder.path().join("root.cbor"), encoded).unwrap();
        // A phone's file, as `fob sign proof` makes one.
        let phone = crate::support::Phone::new();
        let mut jwk = phone.jwk();
        jwk["d"] = json!(phone.private());
        std::fs::write(folder.path().join("phone.jwk"), jwk.to_string()).unwrap();
        let part = |name: &str| {
            let part = BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap());
            <[u8; 32]>::try_from(part.unwrap()).unwrap()
        };
        let world = Self {
            phone: HolderKey::new_p256(&part("x"), &part("y")).unwrap(),
            folder,
            root,
            issuer,
            made_at: now() - 60,
        };
        world.says(
            &[
                "init",
                "--root",
                "root.cbor",
                "--vehicle",
                "VAN-7",
                "--fleet",
                FLEET,
            ],
            "EC",
        );
        world
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(FOB);
        command.current_dir(self.folder.path()).args(args);
        command.output().unwrap()
    }

    /// A command of the car that succeeds and whose answer contains this.
    #[track_caller]
    fn says(&self, args: &[&str], part: &str) -> String {
        let all = [&["vehicle"], args, &["--state", "car.json"]].concat();
        let done = self.run(&all);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{args:?}: {complaint}");
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(said.contains(part), "{args:?}: {said}");
        said.trim_end().to_owned()
    }

    /// What the car refuses to do, and why.
    #[track_caller]
    fn refuses(&self, args: &[&str], why: &str) {
        let all = [&["vehicle"], args, &["--state", "car.json"]].concat();
        let done = self.run(&all);
        assert!(!done.status.success(), "{args:?} is done");
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains(why), "{args:?}: {said}");
    }

    fn state(&self) -> Value {
        let bytes = std::fs::read(self.folder.path().join("car.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn trust(&self, version: u32) -> Vec<u8> {
        let entry = Entry {
            key: IssuerKey::new(Algorithm::Esp256, public(&self.issuer)).unwrap(),
            not_before: self.made_at - 1000,
            not_after: self.made_at + 100_000,
        };
        let draft = trust::Draft {
            issuer: "fob.example",
            expires: self.made_at + 100_000,
            issued_at: self.made_at,
            version,
            entries: &[entry],
            next_root: None,
        };
        let root = IssuerKey::new(Algorithm::Esp256, public(&self.root)).unwrap();
        finish(&self.root, &trust::to_be_signed(&draft, &root).unwrap())
    }

    fn list(&self, issued_at: u64, revoked: &[u32]) -> Vec<u8> {
        let mut octets = vec![0; status::LIST_LEN_MAX];
        for index in revoked {
            status::set(&mut octets, *index, Status::Revoked);
        }
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::ZlibEncoder::new(vec![], level);
        encoder.write_all(&octets).unwrap();
        let draft = status::Draft {
            uri: URI,
            expires: issued_at + 10_000,
            issued_at,
            ttl_s: 600,
            compressed: &encoder.finish().unwrap(),
        };
        let kid = public(&self.issuer).kid();
        let message = status::to_be_signed(&draft, Algorithm::Esp256, &kid).unwrap();
        finish(&self.issuer, &message)
    }

    fn sync(&self, issued_at: u64, vehicle_epoch: u32, trust_version: u32) -> Vec<u8> {
        let draft = sync::Draft {
            vehicle: "VAN-7",
            expires: issued_at + 1000,
            issued_at,
            fleet: uuid::Uuid::parse_str(FLEET).unwrap().into_bytes(),
            vehicle_epoch,
            trust_version,
            status_uris: &[URI],
        };
        let kid = public(&self.issuer).kid();
        let message = sync::to_be_signed(&draft, Algorithm::Esp256, &kid).unwrap();
        finish(&self.issuer, &message)
    }

    fn key(&self, function: u16, name: &str, version: u32, index: u32) -> Value {
        let claims = Claims {
            issuer: "fob.example",
            vehicle: "VAN-7",
            expires: self.made_at + 5000,
            not_before: self.made_at,
            issued_at: self.made_at,
            key_id: [u8::try_from(index).unwrap(); 16],
            holder: self.phone,
            function_name: name,
            status: StatusRef { index, uri: URI },
            function,
            bundle: [7; 16],
            version,
            vehicle_epoch: 1,
            region: None,
            max_uses: Some(3),
            fleet: uuid::Uuid::parse_str(FLEET).unwrap().into_bytes(),
            recurring: None,
        };
        let header = key::protected_header(Algorithm::Esp256, &public(&self.issuer).kid());
        let key = finish(&self.issuer, &key::encode(&header, &claims).unwrap());
        json!({ "function": name, "key": encode(&key) })
    }

    /// A bundle of version 1: unlock at 1, start at 3.
    fn bundle(&self) -> Value {
        let keys = [
            self.key(1, "doors.unlock", 1, 1),
            self.key(3, "engine.start", 1, 3),
        ];
        json!({ "keys": keys })
    }

    fn stapled(&self, bundle: Value, list: &[u8]) -> Value {
        let mut bundle = bundle;
        bundle["trust"] = json!(encode(&self.trust(1)));
        bundle["status_lists"] = json!([encode(list)]);
        bundle
    }

    /// The phone signs for a function; gives the arguments of `open`.
    fn prove(&self, function: &str, bundle: &str) {
        let challenge = self.says(&["challenge"], "");
        let done = self.run(&[
            "sign",
            "use",
            "--jwk",
            "phone.jwk",
            "--key",
            bundle,
            "--function",
            function,
            "--challenge",
            &challenge,
        ]);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{complaint}");
        self.write("proof", done.stdout);
    }

    #[track_caller]
    fn opens(&self, function: &str, bundle: &str) {
        self.prove(function, bundle);
        self.says(&open(function, bundle), "is done");
    }

    #[track_caller]
    fn stays_shut(&self, function: &str, bundle: &str, why: &str) {
        self.prove(function, bundle);
        let before = self.state();
        self.refuses(&open(function, bundle), why);
        let mut after = self.state();
        // The challenge alone is used up.
        assert!(after["challenge"].is_null());
        after["challenge"] = before["challenge"].clone();
        assert_eq!(after, before);
    }
}

fn open<'a>(function: &'a str, bundle: &'a str) -> [&'a str; 7] {
    [
        "open",
        "--function",
        function,
        "--key",
        bundle,
        "--proof",
        "proof",
    ]
}

#[test]
fn a_new_car_opens_for_a_phone_that_carries_what_it_needs() {
    let world = World::new();
    world.write("bundle.json", world.bundle().to_string());
    world.refuses(
        &[
            "open",
            "--function",
            "x",
            "--key",
            "bundle.json",
            "--proof",
            "p",
        ],
        "challenge",
    );
    world.prove("doors.unlock", "bundle.json");
    world.refuses(&open("doors.unlock", "bundle.json"), "no trust list");
    world.write("trust.cbor", world.trust(1));
    world.says(&["take", "trust.cbor"], "taken    trust list");
    world.says(&["take", "trust.cbor"], "not newer");
    world.stays_shut("doors.unlock", "bundle.json", "status_missing");
    let list = world.list(world.made_at, &[]);
    let stapled = world.stapled(world.bundle(), &list);
    world.write("stapled.json", stapled.to_string());
    world.opens("doors.unlock", "stapled.json");
    // From now on it knows, and opens without.
    world.opens("doors.unlock", "bundle.json");
    let shown = world.says(&["show"], "not_before");
    assert!(!shown.contains("\"d\""), "the private key is not shown");
    world.opens("doors.unlock", "bundle.json");
    world.stays_shut("doors.unlock", "bundle.json", "uses_exhausted");
    world.opens("engine.start", "bundle.json");
    world.stays_shut_without_a_second_use();
}

impl World {
    fn stays_shut_without_a_second_use(&self) {
        self.prove("engine.start", "bundle.json");
        self.says(&open("engine.start", "bundle.json"), "is done");
        self.refuses(&open("engine.start", "bundle.json"), "challenge");
        self.prove("engine.start", "bundle.json");
        // Another challenge than the one that was signed.
        self.says(&["challenge"], "");
        self.refuses(&open("engine.start", "bundle.json"), "proof_mismatch");
    }
}

#[test]
fn an_offline_car_learns_of_a_change_from_a_phone() {
    let world = World::new();
    let list = world.list(world.made_at, &[]);
    world.write("old.json", world.stapled(world.bundle(), &list).to_string());
    world.opens("engine.start", "old.json");
    let keys = [
        world.key(1, "doors.unlock", 2, 11),
        world.key(4, "trunk.open", 2, 14),
    ];
    let newer = world.list(world.made_at + 10, &[3]);
    let changed = world.stapled(json!({ "keys": keys }), &newer);
    world.write("new.json", changed.to_string());
    world.says(&["take", "new.json"], "taken    status list");
    world.stays_shut("engine.start", "old.json", "revoked");
    world.opens("trunk.open", "new.json");
    world.stays_shut("engine.start", "old.json", "version_superseded");
    world.stays_shut("doors.unlock", "old.json", "version_superseded");
}

#[test]
fn a_clock_that_is_set_back_and_one_that_runs_ahead() {
    let world = World::new();
    let list = world.list(world.made_at, &[]);
    world.write("b.json", world.stapled(world.bundle(), &list).to_string());
    world.opens("doors.unlock", "b.json");
    let at = |seconds: u64| {
        let time = i64::try_from(world.made_at + seconds).unwrap();
        jiff::Timestamp::from_second(time).unwrap().to_string()
    };
    let open_at = |time: &str, challenge_at: &str| {
        let challenge = world.says(&["challenge", "--at", challenge_at], "");
        let done = world.run(&[
            "sign",
            "use",
            "--jwk",
            "phone.jwk",
            "--key",
            "b.json",
            "--function",
            "engine.start",
            "--challenge",
            &challenge,
        ]);
        world.write("proof", done.stdout);
        let all = [&["vehicle"], &open("engine.start", "b.json")[..]].concat();
        let all = [&all[..], &["--state", "car.json", "--at", time, "--json"]].concat();
        let done = world.run(&all);
        let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        (said, String::from_utf8(done.stderr).unwrap())
    };
    let (late, _) = open_at(&at(5000), &at(5000));
    assert_eq!(late["refusal"], "expired");
    // Years before anything the car has verified: the newest of that is the present.
    let (back, _) = open_at("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z");
    assert_eq!(back["opened"], true);
    let (_, old) = open_at(&at(130), &at(0));
    assert!(old.contains("the challenge is older"), "{old}");
}

/// A server that answers these bodies, one after the other, and gives the acks it was sent.
fn server(answers: Vec<Vec<u8>>) -> (String, thread::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let answer = |body: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            // A chunked body ends with an empty chunk.
            while !asked.ends_with(b"\r\n0\r\n\r\n") {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0, "the request breaks off");
                asked.extend_from_slice(&piece[..read]);
            }
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: ";
            let head = [&head[..], body.len().to_string().as_bytes(), b"\r\n\r\n"].concat();
            stream.write_all(&[head, body].concat()).unwrap();
            asked
        };
        answers.into_iter().map(answer).collect()
    };
    (url, thread::spawn(serve))
}

fn array(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out);
    encoder.array(parts.len() as u64).unwrap();
    for part in parts {
        encoder.bytes(part).unwrap();
    }
    out
}

/// The ack in a request: the body's first chunk.
fn ack_in(request: &[u8]) -> &[u8] {
    let at = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let (size, chunk) =
        request[at..].split_at(request[at..].windows(2).position(|w| w == b"\r\n").unwrap());
    let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
    &chunk[2..2 + size]
}

#[test]
fn a_sync_brings_everything_and_the_second_ack_says_so() {
    let world = World::new();
    world.write("bundle.json", world.bundle().to_string());
    let list = world.list(world.made_at, &[3]);
    let (first, second) = (
        world.sync(world.made_at + 1, 1, 1),
        world.sync(world.made_at + 2, 2, 1),
    );
    let trust = world.trust(1);
    let (url, serving) = server(vec![
        array(&[&first, &trust, &list]),
        array(&[&second, &trust, &list]),
    ]);
    world.says(
        &["sync", "--server", &url],
        "vehicle epoch 2, trust list 1 and 1 status lists",
    );
    let asked = serving.join().unwrap();
    let jwk = world.state()["key"].clone();
    let part = |name: &str| {
        let part = BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap());
        <[u8; 32]>::try_from(part.unwrap()).unwrap()
    };
    let car = PublicKey::p256(&part("x"), &part("y")).unwrap();
    let acks: Vec<_> = asked
        .iter()
        .map(|request| {
            assert!(request.starts_with(b"POST /v1/vehicles/VAN-7/sync HTTP/1.1\r\n"));
            let ack = SignedAck::decode(ack_in(request)).unwrap();
            let ack = ack.verify("VAN-7", &car, &RustCrypto).unwrap();
            (ack.applied, ack.issued_at)
        })
        .collect();
    assert_eq!(acks[0].0, None);
    assert_eq!(acks[1].0, Some(sync::digest(&first)));
    assert!(acks[0].1 < acks[1].1);
    // The second sync was a reset.
    world.stays_shut("doors.unlock", "bundle.json", "vehicle_epoch_superseded");
}

#[test]
fn a_sync_without_what_it_names_is_refused() {
    let world = World::new();
    let sync = world.sync(world.made_at + 1, 1, 2);
    let list = world.list(world.made_at, &[]);
    let trust = world.trust(1);
    for (parts, why) in [
        (vec![&sync[..], &trust, &list], "trust list is older"),
        (vec![&sync[..], &trust], "trust list is older"),
        (vec![&sync[..]], "no sync and trust list"),
    ] {
        let (url, serving) = server(vec![array(&parts)]);
        world.refuses(&["sync", "--server", &url], why);
        serving.join().unwrap();
    }
    assert!(world.state()["synced"].is_null());
}

/// A challenge is random: one in 64 looks like an option of the command line.
#[test]
fn a_challenge_may_begin_with_a_hyphen() {
    let world = World::new();
    world.write("bundle.json", world.bundle().to_string());
    let done = world.run(&[
        "sign",
        "use",
        "--jwk",
        "phone.jwk",
        "--key",
        "bundle.json",
        "--function",
        "doors.unlock",
        "--challenge",
        "-NAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ]);
    let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{complaint}");
}

#[test]
fn a_car_is_provisioned_once_and_its_file_is_its_own() {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    let init = [
        "init",
        "--root",
        "root.cbor",
        "--vehicle",
        "VAN-8",
        "--fleet",
        FLEET,
    ];
    world.refuses(&init, "is there already");
    let mode = std::fs::metadata(world.folder.path().join("car.json")).unwrap();
    assert_eq!(mode.mode() & 0o777, 0o600);
    world.write("car.json", "{}");
    world.refuses(&["show"], "it is no car's file");
}
