//! Ending connections that nobody uses, a few at a time.
//!
//! A keep-alive connection without a request for a while is ended (RFC 9112, 9.5). After a burst
//! there are thousands of these. Told to, actix ends all that were used last within the same half
//! second at one stroke, and for tens of milliseconds its worker does nothing else: seconds after
//! the burst, requests wait for it. So each worker looks at its connections in turn, and at each of
//! its rounds ends a few.
//!
//! Deliberately not here: a connection's first request, for which the listener's own deadline
//! stands; and connections that are encrypted here, which actix sees to.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Extensions;
use actix_web::web::Bytes;

use super::socket::Socket;

/// How long a connection may be idle. It is ended within as long again.
pub(super) const IDLE: Duration = Duration::from_secs(5);

/// Connections a worker ends in each round: about 20 µs each.
const ENDED_MAX: usize = 8;

thread_local! {
    static LOOKS: Looks = const { Looks(RefCell::new(VecDeque::new())) };
}

/// A connection that is open. What belongs to it holds it, and goes with it.
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// Requests that are not answered to their end.
    requests: Cell<u32>,
    /// What has happened on it since it was looked at last.
    since: Cell<Since>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// It is new: nobody looks at it yet.
    New,
    /// A request began or was answered.
    Used,
    /// Nothing.
    Nothing,
    /// Some of a request's head came before that, and the rest has not.
    Begun,
}

impl Connection {
    /// Keeps a connection that begins.
    pub(super) fn note(connection: &dyn Any, of: &mut Extensions) {
        if let Some(socket) = Socket::of(connection) {
            of.insert(Rc::new(Self {
                socket,
                requests: Cell::new(0),
                since: Cell::new(Since::New),
            }));
        }
    }

    /// Whether it is to be ended, at a look that comes [`IDLE`] after the one before.
    fn idles(&self, waited: impl FnOnce() -> Option<Duration>) -> bool {
        if self.requests.get() > 0 {
            return false;
        }
        match self.since.replace(Since::Nothing) {
            Since::New | Since::Used => false,
            Since::Begun => true,
            Since::Nothing if waited().is_some_and(|waited| waited < IDLE) => {
                self.since.set(Since::Begun);
                false
            }
            Since::Nothing => true,
        }
    }
}

/// A request under way: its connection is in use until this is dropped.
pub(super) struct Use(Option<Rc<Connection>>);

impl Use {
    /// Begins with a request's first look, at `now`.
    pub(super) fn begin(request: &HttpRequest, now: Option<Duration>) -> Self {
        let connection = request.conn_data::<Rc<Connection>>().map(Rc::clone);
        if let (Some(connection), Some(now)) = (&connection, now) {
            if connection.since.replace(Since::Used) == Since::New {
                LOOKS.with(|looks| looks.add(connection, now));
            }
            connection.requests.set(connection.requests.get() + 1);
            return Self(Some(Rc::clone(connection)));
        }
        Self(None)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.since.set(Since::Used);
            connection.requests.set(connection.requests.get() - 1);
        }
    }
}

/// When each connection of a worker is to be looked at, soonest first.
struct Looks(RefCell<VecDeque<(Duration, Weak<Connection>)>>);

impl Looks {
    fn add(&self, connection: &Rc<Connection>, now: Duration) {
        let at = now.saturating_add(IDLE);
        self.0
            .borrow_mut()
            .push_back((at, Rc::downgrade(connection)));
    }

    /// The next one whose time has come.
    fn due(&self, now: Duration) -> Option<Weak<Connection>> {
        let mut all = self.0.borrow_mut();
        if all.front()?.0 > now {
            return None;
        }
        all.pop_front().map(|(_, connection)| connection)
    }

    /// Looks at those whose time has come. Returns how many it has ended.
    fn look(&self, now: Duration) -> usize {
        let mut ended = 0;
        while ended < ENDED_MAX
            && let Some(connection) = self.due(now)
        {
            let Some(connection) = connection.upgrade() else {
                continue;
            };
            if connection.idles(|| connection.socket.waited()) {
                connection.socket.end();
                ended += 1;
            } else {
                self.add(&connection, now);
            }
        }
        ended
    }
}

/// Ends what idles on this thread's worker, a few of them.
pub(super) fn look(now: Duration) {
    LOOKS.with(|looks| looks.look(now));
}

/// An answer's body. Its connection is in use until it is sent.
pub(super) struct Sent<B> {
    body: B,
    _until: Use,
}

impl<B> Sent<B> {
    pub(super) fn new(body: B, until: Use) -> Self {
        Self {
            body,
            _until: until,
        }
    }
}

impl<B: MessageBody + Unpin> MessageBody for Sent<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection that was used once, and what keeps its socket open.
    fn connection(listener: &TcpListener) -> (Rc<Connection>, (TcpStream, TcpStream)) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let made = Connection {
            socket: Socket::of_std(&server),
            requests: Cell::new(0),
            since: Cell::new(Since::Used),
        };
        (Rc::new(made), (client, server))
    }

    #[test]
    fn what_was_used_since_the_last_look_or_is_in_use_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, _open) = connection(&listener);
        let long_ago = || Some(IDLE);
        assert!(!one.idles(long_ago));
        let until = Use(Some(Rc::clone(&one)));
        one.requests.set(1);
        assert!(!one.idles(long_ago) && !one.idles(long_ago));
        drop(until);
        assert!(!one.idles(long_ago), "answered since");
        assert!(one.idles(long_ago));
    }

    #[test]
    fn a_head_that_has_begun_to_come_gets_one_more_look() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, _open) = connection(&listener);
        let just_now = || Some(Duration::ZERO);
        let looks: Vec<_> = (0..3).map(|_| one.idles(just_now)).collect();
        assert_eq!(looks, [false, false, true]);
    }

    #[test]
    fn a_few_are_ended_at_each_look_and_those_gone_cost_none_of_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let looks = Looks(RefCell::default());
        let at = Duration::from_secs;
        let mut open: Vec<_> = (0..3 * ENDED_MAX).map(|_| connection(&listener)).collect();
        for (one, _) in &open {
            one.since.set(Since::Nothing);
            looks.add(one, at(0));
        }
        open.drain(..ENDED_MAX / 2);
        assert_eq!(looks.look(IDLE / 2), 0);
        let ended: Vec<_> = (0..3).map(|_| open_ended(&looks, &open)).collect();
        assert_eq!(ended, [ENDED_MAX, 2 * ENDED_MAX, 5 * ENDED_MAX / 2]);
    }

    /// Looks once, with all in doubt, and says how many of `open` have ended so far.
    fn open_ended(looks: &Looks, open: &[(Rc<Connection>, (TcpStream, TcpStream))]) -> usize {
        for (one, _) in open {
            one.since.set(Since::Begun);
        }
        looks.look(IDLE);
        let ended = |(_, (_, server)): &&(Rc<Connection>, (TcpStream, TcpStream))| {
            server.set_nonblocking(true).unwrap();
            server.peek(&mut [0]).is_ok_and(|read| read == 0)
        };
        open.iter().filter(ended).count()
    }
}
