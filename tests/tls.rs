//! TLS of the server's own: clients known by their certificates, and files renewed under way.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Issuer, Server};

/// Certificates of one test, with their keys beside them.
struct Papers(tempfile::TempDir);

impl Papers {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Makes a certificate, signed by `by` or by itself, with more of openssl's arguments.
    fn make(&self, name: &str, by: Option<&str>, more: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(self.0.path())
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-keyout", &format!("{name}.key")])
            .args(["-out", &format!("{name}.crt")])
            .args(more);
        if let Some(by) = by {
            openssl.args(["-CA", &format!("{by}.crt"), "-CAkey", &format!("{by}.key")]);
        }
        let done = openssl.output().unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn server(&self, name: &str) {
        let own = "basicConstraints=critical,CA:FALSE";
        self.make(
            name,
            None,
            &["-addext", "subjectAltName=IP:127.0.0.1", "-addext", own],
        );
    }

    fn client(&self, name: &str, by: &str) {
        self.make(
            name,
            Some(by),
            &["-addext", "basicConstraints=critical,CA:FALSE"],
        );
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).unwrap()
    }

    fn serve(&self, issuer: &Issuer, clients: bool) -> Server {
        let text = |file: &str| self.path(file).to_str().unwrap().to_owned();
        let (certificates, key, ca) = (text("server.crt"), text("server.key"), text("ca.crt"));
        let mut variables = vec![
            ("FOB_SERVER_TLS_CERTIFICATES", certificates.as_str()),
            ("FOB_SERVER_TLS_KEY", key.as_str()),
        ];
        if clients {
            variables.push(("FOB_SERVER_TLS_CLIENT_CA", ca.as_str()));
        }
        issuer.serve_with(&variables)
    }

    /// A call that trusts what `server` says of itself, and shows the certificate `client`. The
    /// answer's status, or that there was no answer.
    fn get(
        &self,
        server: &Server,
        client: Option<&str>,
        (path, token): (&str, Option<&str>),
    ) -> Result<u16, std::io::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("server")).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder
                    .with_client_auth_cert(vec![self.certificate(name)], key)
                    .unwrap()
            }
        };
        let address = server.url.strip_prefix("https://").unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let connection =
            ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let bearer = bearer.unwrap_or_default();
        write!(
            tls,
            "GET {path} HTTP/1.1\r\nHost: fob\r\n{bearer}Connection: close\r\n\r\n"
        )?;
        let mut answer = [0; 12];
        tls.read_exact(&mut answer)?;
        let text = std::str::from_utf8(&answer).unwrap();
        Ok(text.strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn create(issuer: &Issuer, certificate: &Path, scopes: &str) -> String {
    let certificate = certificate.to_str().unwrap();
    let made = issuer.fob(&[
        "token",
        "create",
        "--fleet",
        "demo",
        "--scopes",
        scopes,
        "--certificate",
        certificate,
        "--json",
    ]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert!(made.get("token").is_none(), "{made}");
    assert_eq!(made["certificate"].as_str().unwrap().len(), 64);
    made["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_certificate_stands_for_a_token_until_that_ends() {
    let (issuer, papers) = (Issuer::demo(), Papers::new());
    papers.server("server");
    papers.make("ca", None, &[]);
    papers.make("other-ca", None, &[]);
    for (name, by) in [
        ("reader", "ca"),
        ("revoker", "ca"),
        ("unknown", "ca"),
        ("stranger", "other-ca"),
    ] {
        papers.client(name, by);
    }
    let server = papers.serve(&issuer, true);
    let id = create(&issuer, &papers.path("reader.crt"), "read");
    let rules = ("/v1/rules", None);
    assert_eq!(papers.get(&server, Some("reader"), rules).unwrap(), 200);
    // What it may not do, and who shows nothing, or what nobody registered.
    create(&issuer, &papers.path("revoker.crt"), "revoke");
    assert_eq!(papers.get(&server, Some("revoker"), rules).unwrap(), 403);
    assert_eq!(papers.get(&server, None, rules).unwrap(), 401);
    assert_eq!(papers.get(&server, Some("unknown"), rules).unwrap(), 401);
    // What the authority did not sign gets no connection at all, not even with a token.
    let token = issuer.token("read");
    papers
        .get(&server, Some("stranger"), ("/v1/rules", Some(&token)))
        .unwrap_err();
    // A token does without a certificate, and beside one it is what counts.
    for shown in [None, Some("reader")] {
        let (good, bad) = (Some(token.as_str()), Some("fob_wrong"));
        assert_eq!(
            papers.get(&server, shown, ("/v1/rules", good)).unwrap(),
            200
        );
        assert_eq!(papers.get(&server, shown, ("/v1/rules", bad)).unwrap(), 401);
    }
    issuer.fob(&["token", "revoke", &id]);
    assert_eq!(papers.get(&server, Some("reader"), rules).unwrap(), 401);
    let again = papers.path("reader.crt");
    let complaint = issuer.fob_fails(&[
        "token",
        "create",
        "--fleet",
        "demo",
        "--scopes",
        "read",
        "--certificate",
        again.to_str().unwrap(),
    ]);
    assert!(complaint.contains("use a new certificate"), "{complaint}");
}

#[test]
fn without_an_authority_no_client_is_asked() {
    let (issuer, papers) = (Issuer::demo(), Papers::new());
    papers.server("server");
    papers.make("ca", None, &[]);
    papers.client("reader", "ca");
    let server = papers.serve(&issuer, false);
    create(&issuer, &papers.path("reader.crt"), "read");
    let shown = papers.get(&server, Some("reader"), ("/v1/rules", None));
    assert_eq!(shown.unwrap(), 401);
}

#[test]
fn renewed_files_are_taken_up_and_unusable_ones_are_not() {
    let (issuer, papers) = (Issuer::demo(), Papers::new());
    papers.server("server");
    papers.make("ca", None, &[]);
    papers.client("reader", "ca");
    let server = papers.serve(&issuer, true);
    let ready = ("/readyz", None);
    assert_eq!(papers.get(&server, None, ready).unwrap(), 200);
    // Half a renewal: the certificate is there, its key is not yet.
    papers.server("next");
    let swap = |file: &str, to: &str| std::fs::rename(papers.path(file), papers.path(to)).unwrap();
    let kept = std::fs::read(papers.path("server.crt")).unwrap();
    swap("next.crt", "server.crt");
    until(|| issuer.log().contains("the files before stay in use"));
    let renewed = std::fs::read(papers.path("server.crt")).unwrap();
    std::fs::write(papers.path("server.crt"), kept).unwrap();
    assert_eq!(papers.get(&server, None, ready).unwrap(), 200);
    // All of it.
    std::fs::write(papers.path("server.crt"), renewed).unwrap();
    swap("next.key", "server.key");
    until(|| {
        papers
            .get(&server, None, ready)
            .is_ok_and(|status| status == 200)
    });
    // The authority over clients too.
    create(&issuer, &papers.path("reader.crt"), "read");
    let rules = ("/v1/rules", None);
    assert_eq!(papers.get(&server, Some("reader"), rules).unwrap(), 200);
    papers.make("other-ca", None, &[]);
    swap("other-ca.crt", "ca.crt");
    until(|| papers.get(&server, Some("reader"), rules).is_err());
}

/// Waits for it; a renewal is seen within seconds.
#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "it never came to hold"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
