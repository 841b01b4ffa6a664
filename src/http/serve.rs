//! Listeners: binding, TLS, and an orderly end.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::Data;
use actix_web::{App, HttpResponse, HttpServer, web};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;

use super::address::Addresses;
use super::batches::Door;
use super::socket::Socket;
use super::{State, observe, round, routes};
use crate::engine::Engine;
use crate::metrics::Exporter;

/// Connections that may wait to be accepted, as far as the system allows (`net.core.somaxconn`).
/// Where they find no room their clients try again after a second, and then after three.
const BACKLOG: i32 = 8192;

/// How long open connections may take to end when the server stops, in seconds.
const SHUTDOWN_S: u64 = 5;

/// Where a certificate and its key are, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificates: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How to listen.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// A listener of their own for metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// TLS for the API.
    pub tls: Option<TlsFiles>,
    /// Worker threads.
    pub workers: usize,
    /// Bounds of requests.
    pub limits: Limits,
    /// The most connections open at once, each worker.
    pub connections_max: usize,
    /// How long a worker's round may take before it refuses what it turns to.
    pub round_max: Duration,
}

/// Bounds of requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of a request's body.
    pub body_bytes_max: usize,
    /// The most bytes of an import.
    pub import_bytes_max: usize,
    /// How long a client may take to send a request's head, and then its body.
    pub request_timeout: Duration,
    /// How long a client may take to send an import.
    pub import_timeout: Duration,
    /// The most batch calls open at once.
    pub batches_max: usize,
    /// How long a batch call's client may send nothing while it is waited for.
    pub batch_idle: Duration,
    /// The most requests a second from one address, a second's worth at once; 0 is no limit.
    pub address_requests_per_s_max: u32,
    /// A proxy in front says in `X-Forwarded-For` who asks.
    pub forwarded: bool,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, std::io::Error),
    /// The certificate or its key cannot be used.
    #[error("TLS cannot be set up from {0}: {1}")]
    Tls(PathBuf, String),
    /// The operating system said no.
    #[error("the server ended: {0}")]
    Io(#[from] std::io::Error),
}

/// A server that listens.
pub struct Server {
    api: actix_web::dev::Server,
    metrics: Option<actix_web::dev::Server>,
}

impl Server {
    /// Serves the API on `listener`.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn start(
        listener: TcpListener,
        engine: Arc<Engine>,
        exporter: Exporter,
        config: &ServerConfig,
    ) -> Result<Self, ServeError> {
        let own = config.metrics_listen.is_some();
        let state = Data::new(State {
            engine: Arc::clone(&engine),
            round_max: config.round_max,
            exporter: (!own).then(|| exporter.clone()),
            door: Door::new(config.limits.batches_max, config.limits.batch_idle),
            addresses: Addresses::new(&engine, &config.limits),
        });
        // A listener made by the standard library has room for 128. Listening again changes that.
        SockRef::from(&listener).listen(BACKLOG)?;
        let limits = config.limits;
        let (watched, round_max) = (Arc::clone(&engine), config.round_max);
        let http = HttpServer::new(move || {
            // Once in each worker, in its own thread.
            round::watch(Arc::clone(&watched), round_max);
            App::new()
                .app_data(state.clone())
                .wrap(DefaultHeaders::new().add(("X-Content-Type-Options", "nosniff")))
                .wrap(from_fn(observe::observe))
                .configure(|services| routes(services, limits))
        })
        .on_connect(Socket::note)
        .workers(config.workers)
        .max_connections(config.connections_max)
        .client_request_timeout(limits.request_timeout)
        .shutdown_timeout(SHUTDOWN_S)
        .disable_signals();
        let http = match &config.tls {
            None => http.listen(listener)?,
            Some(files) => http.listen_rustls_0_23(listener, tls(files)?)?,
        };
        let metrics = config
            .metrics_listen
            .map(|address| metrics_server(address, engine, exporter))
            .transpose()?;
        Ok(Self {
            api: http.run(),
            metrics,
        })
    }

    /// A handle to stop the API with.
    pub fn handle(&self) -> ServerHandle {
        self.api.handle()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn run(self) -> Result<(), ServeError> {
        let metrics = self.metrics.map(|server| {
            let handle = server.handle();
            actix_web::rt::spawn(server);
            handle
        });
        let ended = self.api.await;
        if let Some(metrics) = metrics {
            metrics.stop(false).await;
        }
        Ok(ended?)
    }
}

fn metrics_server(
    address: SocketAddr,
    engine: Arc<Engine>,
    exporter: Exporter,
) -> Result<actix_web::dev::Server, ServeError> {
    let listener = TcpListener::bind(address).map_err(|error| ServeError::Bind(address, error))?;
    let page = move || {
        let (engine, exporter) = (Arc::clone(&engine), exporter.clone());
        async move {
            exporter.observe(&engine);
            HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4")
                .body(exporter.render())
        }
    };
    let server = HttpServer::new(move || App::new().route("/metrics", web::get().to(page.clone())))
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn tls(files: &TlsFiles) -> Result<rustls::ServerConfig, ServeError> {
    let refuse = |path: &PathBuf, why: String| ServeError::Tls(path.clone(), why);
    let certificates = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(&files.certificates, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| refuse(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(certificates, key))
        .map_err(|error| refuse(&files.certificates, error.to_string()))
}
