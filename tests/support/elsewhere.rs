//! Another server that is asked before keys are issued: a small one that speaks HTTPS, and answers
//! as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What it does when it is asked.
#[derive(Clone, Debug)]
pub enum Answers {
    /// It allows, and says for how long.
    Allow(Option<u32>),
    /// It denies, and says why.
    Deny(&'static str),
    /// It allows what is asked of this identity, and denies the rest.
    Only(&'static str),
    /// It allows, after this time.
    After(Duration),
    /// It answers the question before this one.
    Before,
    /// It sends this, whatever was asked.
    Raw(String),
    /// It closes the connection.
    Nothing,
}

#[derive(Default)]
struct State {
    answers: Option<Answers>,
    asked: Vec<String>,
    connections: usize,
}

/// The server; its threads end with the process.
pub struct Elsewhere {
    state: Arc<Mutex<State>>,
    pub port: u16,
}

/// SHA-256 of a question, as its answer names it.
pub fn digest_of(question: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, question.as_bytes()))
}

/// Makes a certificate of its own for `names` under `folder`: `NAME.crt` and `NAME.key`.
pub fn certificate(folder: &Path, name: &str, names: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args([
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-subj",
            "/CN=elsewhere",
        ])
        .args(["-addext", &format!("subjectAltName={names}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.crt")))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "openssl");
}

impl Elsewhere {
    /// Listens with this certificate on a free port of 127.0.0.1.
    pub fn start(folder: &Path, name: &str) -> Self {
        let chain = CertificateDer::pem_file_iter(folder.join(format!("{name}.crt")));
        let chain: Vec<_> = chain.unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&shared), Arc::clone(&tls));
                std::thread::spawn(move || serve(stream, &state, tls));
            }
        });
        Self { state, port }
    }

    /// It answers so from now on.
    pub fn answers(&self, answers: Answers) {
        self.state.lock().unwrap().answers = Some(answers);
    }

    /// The questions so far, as they came.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, tls: Arc<ServerConfig>) {
    state.lock().unwrap().connections += 1;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    let Some(question) = read(&mut stream) else {
        return;
    };
    let (answers, before) = {
        let mut state = state.lock().unwrap();
        let before = state.asked.last().cloned();
        state.asked.push(question.clone());
        (state.answers.clone().unwrap(), before)
    };
    let json = |question: &str, verdict: &str, why: Option<&str>, valid_s: Option<u32>| {
        let mut body = json!({ "question": digest_of(question), "verdict": verdict });
        if let Some(why) = why {
            body["why"] = json!(why);
        }
        if let Some(valid_s) = valid_s {
            body["valid_s"] = json!(valid_s);
        }
        let body = body.to_string();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = match answers {
        Answers::Allow(valid_s) => json(&question, "allow", None, valid_s),
        Answers::Deny(why) => json(&question, "deny", Some(why), None),
        Answers::Only(identity) if claims(&question)["question"]["identity"] == identity => {
            json(&question, "allow", None, None)
        }
        Answers::Only(_) => json(&question, "deny", Some("not this one"), None),
        Answers::After(time) => {
            std::thread::sleep(time);
            json(&question, "allow", None, None)
        }
        Answers::Before => json(&before.unwrap_or_default(), "allow", None, None),
        Answers::Raw(text) => text,
        Answers::Nothing => return,
    };
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.flush();
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// The claims of a question, unchecked.
pub fn claims(question: &str) -> Value {
    let body = question.split('.').nth(1).unwrap();
    let body = BASE64_URL_SAFE_NO_PAD.decode(body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// The body of a request; `None` where there comes none.
fn read(stream: &mut impl Read) -> Option<String> {
    let mut whole = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&whole).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower
                .lines()
                .find_map(|it| it.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            assert!(lower.contains("content-type: application/jose"), "{head}");
            if body.len() >= length {
                return Some(body.to_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => whole.extend_from_slice(&buffer[..n]),
        }
    }
}
