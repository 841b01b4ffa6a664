//! One call: a connection of its own, TLS, a POST, and an answer of bounded length. Redirects are
//! not followed: whatever is no 200 is no answer.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{HookError, Target};

/// The most bytes of an answer.
const ANSWER_LEN_MAX: usize = 16 * 1024;

/// Posts `body` to whoever is at one of these addresses and is `target`.
pub(super) async fn post(
    target: &Target,
    to: &[SocketAddr],
    tls: &Arc<ClientConfig>,
    body: &str,
) -> Result<Vec<u8>, HookError> {
    let unreached =
        |why: std::io::Error| HookError::Unreached(format!("{}: {why}", target.authority()));
    let stream = TcpStream::connect(to).await.map_err(unreached)?;
    if !target.tls {
        return exchange(target, stream, body).await;
    }
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| HookError::Address(format!("{} is no name to prove", target.host)))?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await.map_err(unreached)?;
    exchange(target, stream, body).await
}

async fn exchange(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    body: &str,
) -> Result<Vec<u8>, HookError> {
    let broken = |why: hyper::Error| HookError::Unreached(why.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::post(&target.path)
        .header(HOST, target.authority())
        .header(CONTENT_TYPE, "application/jose")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("fob/", env!("CARGO_PKG_VERSION")))
        .body(body.to_owned())
        .map_err(|_| HookError::Address(format!("{} is no path", target.path)))?;
    let call = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        read(answer).await
    };
    tokio::pin!(call);
    tokio::select! {
        biased;
        answer = &mut call => answer,
        // It may end as soon as it has handed on all there is.
        _ = connection => call.await,
    }
}

async fn read(mut answer: Response<Incoming>) -> Result<Vec<u8>, HookError> {
    if answer.status() != StatusCode::OK {
        return Err(HookError::NoAnswer("its status is not 200"));
    }
    let mut whole = Vec::new();
    let body = answer.body_mut();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|why| HookError::Unreached(why.to_string()))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if whole.len() + piece.len() > ANSWER_LEN_MAX {
            return Err(HookError::NoAnswer("it is longer than 16 KiB"));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}
