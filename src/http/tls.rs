//! TLS of the API's own listener: certificates that are taken up anew when their files change, and
//! clients that say who they are by one of theirs.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};

use super::ServeError;
use crate::engine::authenticate::certificate_hash;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where a certificate and its key are, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificates: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// What clients' certificates are signed by; without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Debug)]
struct Loaded {
    own: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// The files' content, the newest that could be used.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    now: ArcSwap<Loaded>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`ServeError::Tls`] with the file that cannot be used.
    pub(super) fn new(files: &TlsFiles) -> Result<Arc<Self>, ServeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let now = load(files, &provider)?;
        Ok(Arc::new(Self {
            files: files.clone(),
            provider,
            now: ArcSwap::from_pointee(now),
        }))
    }

    /// How to answer handshakes: by what was read last.
    ///
    /// # Errors
    /// [`ServeError::Tls`].
    pub(super) fn config(self: &Arc<Self>) -> Result<ServerConfig, ServeError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&self.files.certificates, &error))?;
        let builder = match self.files.client_ca {
            None => builder.with_no_client_auth(),
            Some(_) => builder.with_client_cert_verifier(Arc::new(Clients(Arc::clone(self)))),
        };
        Ok(builder.with_cert_resolver(Arc::new(Own(Arc::clone(self)))))
    }

    /// Looks at the files again and again, and reads them when they have changed. What cannot be
    /// used is logged once, and changes nothing.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut known = self.stamps();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let found = self.stamps();
            if found == known {
                continue;
            }
            known = found;
            match load(&self.files, &self.provider) {
                Ok(loaded) => {
                    self.now.store(Arc::new(loaded));
                    tracing::info!(
                        certificates = %self.files.certificates.display(),
                        "TLS: renewed files are in use"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "TLS: the files before stay in use");
                }
            }
        }
    }

    /// What a renewal changes of the files, links followed.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let files = &self.files;
        let all = [
            Some(&files.certificates),
            Some(&files.key),
            files.client_ca.as_ref(),
        ];
        let stamp = |path: &PathBuf| {
            let about = fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        all.into_iter().flatten().map(stamp).collect()
    }
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> ServeError {
    ServeError::Tls(path.to_owned(), why.to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, &error))
}

fn load(files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Loaded, ServeError> {
    let chain = certificates(&files.certificates)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, &error))?;
    // Refuses a key that is not the certificate's.
    let own = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| unusable(&files.certificates, &error))?;
    let clients = files
        .client_ca
        .as_deref()
        .map(|path| -> Result<_, ServeError> {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(path, &error))?;
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(path, &error))
        });
    Ok(Loaded {
        own: Arc::new(own),
        clients: clients.transpose()?,
    })
}

/// The server's own certificate.
#[derive(Debug)]
struct Own(Arc<Tls>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.now.load().own))
    }
}

/// Clients' certificates: signed by the authority, within their time, and the client has the key.
/// Who has none is let in: phones and cars have none, and a token does without.
#[derive(Debug)]
struct Clients(Arc<Tls>);

impl Clients {
    fn now(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let clients = self.0.now.load().clients.clone();
        clients.ok_or_else(|| rustls::Error::General("no client is asked for a certificate".into()))
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: they may change, and a hint cannot.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.now()?
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now()?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now()?.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0
            .provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The certificate that a client has shown, which is one of `tls_client_ca`'s: its hash, as a token
/// has it.
#[derive(Clone, Copy)]
pub(super) struct Shown(pub(super) [u8; 32]);

impl Shown {
    /// Keeps what the client of a connection that begins has shown.
    pub(super) fn note(connection: &dyn Any, of: &mut Extensions) {
        let stream = connection.downcast_ref::<TlsStream<TcpStream>>();
        let shown = stream.and_then(|it| it.get_ref().1.peer_certificates());
        if let Some([leaf, ..]) = shown {
            of.insert(Self(certificate_hash(leaf)));
        }
    }
}
