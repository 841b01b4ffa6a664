//! The server under test, as the client sees it.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;

use anyhow::Context as _;

use crate::pool::Pool;

/// Where the server is, and what it is called with.
pub(crate) struct Target {
    /// Its address as it calls itself: `aud` of every proof.
    pub(crate) audience: String,
    /// `Host`.
    pub(crate) host: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The fleet's token, scope `authorize`.
    pub(crate) token: String,
    /// Its process, where memory and CPU are to be read.
    pub(crate) pid: Option<u32>,
    /// The connections to it.
    pub(crate) pool: Rc<Pool>,
}

impl Target {
    /// The server at `url`, over at most `connections_max` connections.
    ///
    /// # Errors
    /// Where `url` is not `http://host:port`.
    pub(crate) fn new(
        url: &str,
        audience: Option<String>,
        token: String,
        pid: Option<u32>,
        connections_max: usize,
    ) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let host = url
            .strip_prefix("http://")
            .context("the address is http://host:port; there is no TLS here")?;
        let address = host
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .with_context(|| format!("{host} is no host and port"))?;
        Ok(Self {
            audience: audience.unwrap_or_else(|| url.into()),
            host: host.into(),
            address,
            token,
            pid,
            pool: Rc::new(Pool::new(address, connections_max)),
        })
    }

    /// A request as bytes. `headers` are whole lines.
    pub(crate) fn post(&self, path: &str, headers: &str, body: &str) -> Box<[u8]> {
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            self.host,
            body.len()
        );
        text.into_bytes().into_boxed_slice()
    }
}
