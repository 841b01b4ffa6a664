//! HTTP/1.1 on one keep-alive connection: finished bytes out, one answer in. Of an answer's head
//! only status, length, `Retry-After` and `Connection` are read. Bodies have a length; chunks are
//! an error, because this server sends none here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Headers of an answer that are looked at, at most.
const HEADERS_MAX: usize = 32;

/// The most bytes of an answer.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// Room for an answer before it grows.
const ANSWER_USUAL: usize = 8 * 1024;

/// Connections that share an address of ours. Linux searches its ports one by one once half of an
/// address's are taken, which costs a millisecond for each new connection.
const EACH_ADDRESS: usize = 4096;

/// What an answer's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after_s: Option<u32>,
    body: (usize, usize),
    close: bool,
}

/// A connection, or the place of one that is opened when it is first used.
pub(crate) struct Connection {
    address: SocketAddr,
    from: Option<SocketAddr>,
    stream: Option<TcpStream>,
    answer: Vec<u8>,
    /// How often it was opened: more than once where the server has closed it meanwhile.
    pub(crate) opened: u64,
}

impl Connection {
    /// A place for the `nth` connection to `address`, from 0.
    pub(crate) fn to(address: SocketAddr, nth: usize) -> Self {
        Self {
            address,
            from: own_address(address.ip(), nth),
            stream: None,
            answer: Vec::new(),
            opened: 0,
        }
    }

    /// Sends `request` and reads its answer. A server may close a connection that idles at any
    /// moment, so a request that gets no byte back on an old one is sent once more on a new one;
    /// every request made here may be.
    ///
    /// # Errors
    /// The operating system's, and `InvalidData` for what is not such an answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Head> {
        if let Some(stream) = self.stream.take() {
            match self.on(stream, request).await {
                Err(error) if self.answer.is_empty() && closed(&error) => {}
                done => return done,
            }
        }
        let stream = match self.from {
            None => TcpStream::connect(self.address).await?,
            Some(from) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(from)?;
                socket.connect(self.address).await?
            }
        };
        stream.set_nodelay(true)?;
        self.opened += 1;
        self.on(stream, request).await
    }

    /// The body of the last answer.
    pub(crate) fn body(&self, head: &Head) -> &[u8] {
        &self.answer[head.body.0..head.body.1]
    }

    async fn on(&mut self, mut stream: TcpStream, request: &[u8]) -> io::Result<Head> {
        self.answer.clear();
        self.answer.reserve(ANSWER_USUAL);
        stream.write_all(request).await?;
        let head = loop {
            if stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match head(&self.answer)? {
                Some(head) if head.body.1 > ANSWER_MAX => return Err(invalid("too long")),
                Some(head) if head.body.1 <= self.answer.len() => break head,
                _ => {}
            }
        };
        // Dropped where something went wrong or the server ends it: the next use opens it anew.
        if !head.close {
            self.stream = Some(stream);
        }
        Ok(head)
    }
}

/// Where the `nth` connection comes from, if that is to be said: all of 127.0.0.0/8 is this machine,
/// and every one of its addresses has ports of its own.
fn own_address(to: IpAddr, nth: usize) -> Option<SocketAddr> {
    let beyond = u8::try_from(nth / EACH_ADDRESS).ok()?;
    let own = Ipv4Addr::new(127, 0, 0, beyond.checked_add(1)?);
    (beyond > 0 && to.is_loopback() && to.is_ipv4()).then(|| SocketAddr::from((own, 0)))
}

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe | K::ConnectionAborted
    )
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The head of an answer, once it is whole.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(bytes).map_err(|_| invalid("no HTTP answer"))?;
    let httparse::Status::Complete(begin) = parsed else {
        return Ok(None);
    };
    let find = |name: &str| {
        let mut all = answer.headers.iter();
        let found = all.find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| std::str::from_utf8(header.value).unwrap_or_default())
    };
    let length: usize = find("content-length")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid("an answer without Content-Length"))?;
    Ok(Some(Head {
        status: answer.code.unwrap_or_default(),
        retry_after_s: find("retry-after").and_then(|text| text.parse().ok()),
        body: (begin, begin.saturating_add(length)),
        close: find("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text =
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nRetry-After: 2\r\n\r\nbusy";
        assert_eq!(head(&text[..40]).unwrap(), None);
        let read = head(text).unwrap().unwrap();
        assert_eq!((read.status, read.retry_after_s), (503, Some(2)));
        assert_eq!(&text[read.body.0..read.body.1], b"busy");
        assert!(!read.close);
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        for bad in [
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..],
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        ] {
            assert!(head(bad).is_err());
        }
    }

    #[test]
    fn many_connections_to_loopback_come_from_several_addresses() {
        let loopback = "127.0.0.1".parse().unwrap();
        let from = |nth| own_address(loopback, nth).map(|own| own.to_string());
        assert_eq!(from(0), None);
        assert_eq!(from(EACH_ADDRESS - 1), None);
        assert_eq!(from(EACH_ADDRESS).as_deref(), Some("127.0.0.2:0"));
        assert_eq!(from(3 * EACH_ADDRESS).as_deref(), Some("127.0.0.4:0"));
        for elsewhere in ["192.0.2.1", "::1"] {
            assert_eq!(own_address(elsewhere.parse().unwrap(), EACH_ADDRESS), None);
        }
    }

    #[test]
    fn a_connection_closed_while_idle_is_opened_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Answers once on each connection and then closes it without having said so.
        let server = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let read = stream.read(&mut [0; 64]).unwrap();
                assert!(read > 0);
                let text = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(text).unwrap();
            }
        });
        let mut connection = Connection::to(address, EACH_ADDRESS);
        for _ in 0..2 {
            let head = runtime.block_on(connection.exchange(b"x")).unwrap();
            assert_eq!(head.status, 201);
            assert_eq!(connection.body(&head), b"ok");
        }
        assert_eq!(connection.opened, 2);
        server.join().unwrap();
    }
}
