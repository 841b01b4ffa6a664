//! TLS of the API's own listener: its certificate, renewed while it serves, and the certificates that
//! back ends show (RFC 8705 §2).
//!
//! A certificate a client shows must come from `tls_client_ca`. That says nothing about what it may
//! do: whom it stands for is a token's matter, which is found by the certificate's hash.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::serve::ServeError;
use crate::engine::authenticate::certificate_hash;

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where a certificate and its key are, PEM; and who vouches for clients' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificates: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Certificates from which those of clients come; no client is asked for one where absent.
    pub client_ca: Option<PathBuf>,
}

/// The certificate that is shown, as its files have it by now.
#[derive(Debug)]
pub(super) struct Renewing {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

/// When files were written.
type Written = [Option<SystemTime>; 2];

impl Renewing {
    /// What rustls needs to know, and what is to be renewed of it.
    ///
    /// # Errors
    /// [`ServeError::Tls`], naming the file at fault.
    pub(super) fn config(
        files: &TlsFiles,
    ) -> Result<(rustls::ServerConfig, Arc<Self>), ServeError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let renewing = Arc::new(Self {
            current: ArcSwap::from_pointee(read(files, &provider)?),
            files: files.clone(),
            provider: Arc::clone(&provider),
        });
        let refuse = |why: String| ServeError::Tls(files.certificates.clone(), why);
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(error.to_string()))?;
        let config = match &files.client_ca {
            None => config.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(roots(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    // A phone shows none; and a back end may have a bearer token.
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| ServeError::Tls(file.clone(), error.to_string()))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let resolver = Arc::clone(&renewing) as Arc<dyn ResolvesServerCert>;
        Ok((config.with_cert_resolver(resolver), renewing))
    }

    /// Looks after the files for as long as it is polled. What cannot be used leaves what was.
    pub(super) async fn renew(self: Arc<Self>) {
        let mut seen = self.written();
        loop {
            actix_web::rt::time::sleep(LOOK_EVERY).await;
            let written = self.written();
            if written == seen {
                continue;
            }
            match read(&self.files, &self.provider) {
                Ok(read) => {
                    self.current.store(Arc::new(read));
                    seen = written;
                    tracing::info!("the certificate of the listener was renewed");
                }
                // One of the two may not be there yet.
                Err(error) => tracing::warn!(%error, "the certificate stays what it was"),
            }
        }
    }

    fn written(&self) -> Written {
        [&self.files.certificates, &self.files.key]
            .map(|file| std::fs::metadata(file).and_then(|it| it.modified()).ok())
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| ServeError::Tls(file.into(), error.to_string()))
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, ServeError> {
    let chain = chain(&files.certificates)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| ServeError::Tls(files.key.clone(), error.to_string()))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| ServeError::Tls(files.certificates.clone(), error.to_string()))
}

fn roots(file: &Path) -> Result<RootCertStore, ServeError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(file)? {
        roots
            .add(certificate)
            .map_err(|error| ServeError::Tls(file.into(), error.to_string()))?;
    }
    Ok(roots)
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
