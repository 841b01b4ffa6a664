//! A connection's socket: how long a request has waited in it before anybody looked at it, and
//! ending it.
//!
//! Linux keeps for every TCP connection when it received data last (`TCP_INFO`, tcp(7)). Of a
//! connection that is encrypted here it is not asked: whoever serves bursts over TLS has a proxy
//! for it.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use actix_web::rt::net::TcpStream;

/// The socket of a connection. Its number may be another's once the connection has ended, its cookie
/// never is.
#[derive(Clone, Copy)]
pub(super) struct Socket {
    fd: RawFd,
    cookie: u64,
}

impl Socket {
    /// The socket of a connection that begins; none where it is encrypted.
    pub(super) fn of(connection: &dyn Any) -> Option<Self> {
        Self::with(connection.downcast_ref::<TcpStream>()?.as_raw_fd())
    }

    #[cfg(test)]
    pub(super) fn of_std(stream: &std::net::TcpStream) -> Self {
        Self::with(stream.as_raw_fd()).unwrap()
    }

    fn with(fd: RawFd) -> Option<Self> {
        let cookie = told(fd, libc::SOL_SOCKET, libc::SO_COOKIE)?;
        Some(Self { fd, cookie })
    }

    /// How long ago data came last, to the millisecond; nothing where the system does not say.
    pub(super) fn waited(self) -> Option<Duration> {
        let info: libc::tcp_info = told(self.fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
        Some(Duration::from_millis(info.tcpi_last_data_recv.into()))
    }

    /// Has the connection end as if its client had said it was done: what has come is still read
    /// and answered. Nothing happens where it has ended.
    pub(super) fn end(self) {
        if Self::with(self.fd).is_some_and(|now| now.cookie == self.cookie) {
            // SAFETY: `shutdown` takes no memory of ours; the socket is that of this connection.
            // That it fails means that the connection is not there any more.
            let _ = unsafe { libc::shutdown(self.fd, libc::SHUT_RD) };
        }
    }
}

/// What the system says of a socket.
fn told<T: Plain>(fd: RawFd, level: libc::c_int, of: libc::c_int) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<T>()).ok()?;
    // SAFETY: `value` has room for `len` bytes, all of it is zero beforehand, which is a value of
    // every of its fields, and the system writes at most `len` bytes. A socket that is closed
    // meanwhile, or is none, is an error.
    unsafe {
        let told = libc::getsockopt(fd, level, of, value.as_mut_ptr().cast(), &raw mut len);
        (told == 0).then(|| value.assume_init())
    }
}

/// What is valid whatever its bytes are.
trait Plain {}
impl Plain for u64 {}
impl Plain for libc::tcp_info {}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use crate::clock::Clock as _;

    use super::*;

    #[test]
    fn what_came_a_while_ago_has_waited_since() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"GET").unwrap();
        let clock = crate::clock::SystemClock;
        let before = clock.monotonic();
        let at_least = Duration::from_millis(80);
        std::thread::sleep(at_least);
        let socket = Socket::with(server.as_raw_fd()).unwrap();
        let waited = socket.waited().unwrap();
        // The system counts in its own steps, of ten milliseconds at most.
        assert!(waited + Duration::from_millis(20) >= at_least, "{waited:?}");
        let at_most = clock.monotonic() - before + Duration::from_millis(20);
        assert!(waited <= at_most, "{waited:?}");
        assert!(Socket::with(-1).is_none());
    }

    #[test]
    fn what_is_ended_still_gives_what_has_come_and_another_of_its_number_is_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"GET").unwrap();
        let socket = Socket::with(server.as_raw_fd()).unwrap();
        let other = Socket {
            cookie: socket.cookie + 1,
            ..socket
        };
        let limit = Some(Duration::from_millis(50));
        server.set_read_timeout(limit).unwrap();
        let mut read = [0; 3];
        server.read_exact(&mut read).unwrap();
        other.end();
        let open = server.read(&mut read).unwrap_err().kind();
        assert_eq!(open, std::io::ErrorKind::WouldBlock);
        client.write_all(b"PUT").unwrap();
        server.peek(&mut read).unwrap();
        socket.end();
        assert_eq!(server.read(&mut read).unwrap(), 3);
        assert_eq!(server.read(&mut read).unwrap(), 0);
    }
}
