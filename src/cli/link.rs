//! The way to the server: one HTTP/1.1 connection, in the clear or over TLS.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::tls;

/// A server's address.
pub(super) struct Server {
    /// Host and port, as the address has them.
    pub(super) authority: String,
    /// What every path begins with.
    prefix: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

/// A connection; closed when dropped, whatever is under way on it.
pub(super) struct Link {
    pub(super) sender: SendRequest<Orders>,
    connection: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The body of a call: what arrives in the channel.
pub(super) struct Orders(pub(super) Receiver<Bytes>);

impl Body for Orders {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = ready!(self.0.poll_recv(cx));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl Server {
    /// Reads an address; `ca` has the certificates to trust instead of the system's.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--url {url}"))?;
        let (scheme, authority) = uri
            .scheme_str()
            .zip(uri.authority())
            .ok_or_else(|| anyhow!("--url {url}: it begins with http:// or https://"))?;
        let tls = match scheme {
            "http" => None,
            "https" => Some(connector(ca)?),
            _ => bail!("--url {url}: it begins with http:// or https://"),
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let default_port = if tls.is_some() { 443 } else { 80 };
        Ok(Self {
            authority: authority.as_str().into(),
            prefix: uri.path().trim_end_matches('/').into(),
            host,
            port: authority.port_u16().unwrap_or(default_port),
            tls,
        })
    }

    /// A path of this server, as a request's target.
    pub(super) fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// One call on a connection of its own: the status, and the body, which is refused where it is
    /// longer than `len_max`. Blocks, for [`WITHIN`] at most.
    pub(super) fn call(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: Vec<u8>,
        len_max: usize,
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let call = async {
            let mut link = self.connect().await?;
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            if !body.is_empty() {
                sender.try_send(Bytes::from(body))?;
            }
            drop(sender);
            let request = headers.iter().fold(
                Request::builder()
                    .method(method)
                    .uri(self.target(path))
                    .header(HOST, &self.authority),
                |request, (name, value)| request.header(*name, *value),
            );
            let answer = link.sender.send_request(request.body(Orders(receiver))?);
            let answer = answer.await?;
            let status = answer.status().as_u16();
            Ok((status, read(answer.into_body(), len_max).await?))
        };
        runtime
            .block_on(async { tokio::time::timeout(WITHIN, call).await })
            .context("the server does not answer")?
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> std::io::Result<Link> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => shake_hands(stream).await,
            Some(connector) => {
                let name =
                    ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
                shake_hands(connector.connect(name, stream).await?).await
            }
        }
    }
}

/// How long one call may take.
const WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn read(mut body: Incoming, len_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > len_max {
            bail!("the server's answer is too long");
        }
    }
    Ok(bytes)
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<Link> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    // What goes wrong with it is told to the request.
    let connection = tokio::spawn(async move { drop(connection.await) });
    Ok(Link { sender, connection })
}

fn connector(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let roots = tls::roots(ca).map_err(anyhow::Error::msg)?;
    if roots.is_empty() {
        bail!("there is no certificate to trust: name the server's CA with --ca");
    }
    let config = tls::client(roots).map_err(anyhow::Error::msg)?;
    Ok(TlsConnector::from(config))
}

/// A text as it stands in a path or a query (RFC 3986 §2.1).
pub(super) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let one = |b: u8| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_addresses() {
        assert_eq!(encoded("anna-1.x_~"), "anna-1.x_~");
        assert_eq!(encoded("anna@a:b+c"), "anna%40a%3Ab%2Bc");
        assert_eq!(encoded("für & wider?"), "f%C3%BCr%20%26%20wider%3F");
    }

    #[test]
    fn addresses() {
        let server = Server::new("http://127.0.0.1:8650", None).expect("an address");
        assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", 8650));
        assert_eq!(server.target("/v1/batches"), "/v1/batches");
        let server = Server::new("http://[::1]/fob/", None).expect("an address");
        assert_eq!((server.host.as_str(), server.port), ("::1", 80));
        assert_eq!(server.target("/v1/batches"), "/fob/v1/batches");
        for bad in ["", "127.0.0.1:8650", "ftp://x", "/v1"] {
            assert!(Server::new(bad, None).is_err(), "{bad}");
        }
    }
}
