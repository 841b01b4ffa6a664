//! How long a request has waited in its socket before anybody looked at it.
//!
//! Linux keeps for every TCP connection when it received data last (`TCP_INFO`, tcp(7)). Of a
//! connection that is encrypted here it is not asked: whoever serves bursts over TLS has a proxy
//! for it.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;

/// The socket of a connection, for as long as the connection lasts: it is kept with what belongs to
/// the connection, and goes with it.
#[derive(Clone, Copy)]
pub(super) struct Socket(RawFd);

impl Socket {
    /// Keeps the socket of a connection that begins.
    pub(super) fn note(connection: &dyn Any, of: &mut Extensions) {
        if let Some(stream) = connection.downcast_ref::<TcpStream>() {
            of.insert(Self(stream.as_raw_fd()));
        }
    }

    /// How long ago data came last, to the millisecond; nothing where the system does not say.
    pub(super) fn waited(self) -> Option<Duration> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let size = size_of::<libc::tcp_info>();
        let mut len = libc::socklen_t::try_from(size).ok()?;
        // SAFETY: `info` has room for `len` bytes, all of it is zero beforehand, which is a value
        // of every of its fields, and the system writes at most `len` bytes. A socket that is
        // closed meanwhile, or is none, is an error.
        let info = unsafe {
            let told = libc::getsockopt(
                self.0,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            );
            if told != 0 {
                return None;
            }
            info.assume_init()
        };
        Some(Duration::from_millis(info.tcpi_last_data_recv.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
        let waited = Socket(server.as_raw_fd()).waited().unwrap();
        // The system counts in its own steps, of ten milliseconds at most.
        assert!(waited + Duration::from_millis(20) >= at_least, "{waited:?}");
        let at_most = clock.monotonic() - before + Duration::from_millis(20);
        assert!(waited <= at_most, "{waited:?}");
        assert_eq!(Socket(-1).waited(), None);
    }
}
