//! What a TLS client trusts: rustls over aws-lc, whomever it calls.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The certificates of that file (PEM), or the system's, of which there may be none.
///
/// # Errors
/// The file, and why it cannot be used: not read, a certificate that is none, or none in it.
pub(crate) fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let refused = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let all = CertificateDer::pem_file_iter(file).map_err(|why| refused(&why))?;
    for one in all {
        let one = one.map_err(|why| refused(&why))?;
        roots.add(one).map_err(|why| refused(&why))?;
    }
    match roots.is_empty() {
        true => Err(refused(&"no certificate in it")),
        false => Ok(roots),
    }
}

/// A client that trusts whom these have signed, and shows no certificate of its own.
///
/// # Errors
/// Where the cryptography has no protocol version of TLS that is safe.
pub(crate) fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| format!("TLS: {why}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
