//! Channels: as `crossbeam::channel`, as far as the engine goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shuttle::rand::Rng as _;
use shuttle::thread::{self, Thread};

pub(crate) use crossbeam::channel::{
    RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError,
};

use super::point;

/// Waits shorter than this come to an end when nothing else happens: somebody looks again and
/// again. Longer ones do not.
const SHORT: Duration = Duration::from_secs(1);

struct State<T> {
    items: VecDeque<T>,
    room: usize,
    senders: usize,
    receivers: usize,
    /// Who is to look again when something has changed.
    waiting: Vec<Thread>,
}

type Shared<T> = Arc<Mutex<State<T>>>;

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes everybody; not under the lock, as each waking is a point.
fn changed<T>(shared: &Shared<T>) {
    let waiting = std::mem::take(&mut lock(shared).waiting);
    for thread in waiting {
        thread.unpark();
    }
}

pub(crate) struct Sender<T>(Shared<T>);

pub(crate) struct Receiver<T>(Shared<T>);

pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Mutex::new(State {
        items: VecDeque::new(),
        room,
        senders: 1,
        receivers: 1,
        waiting: Vec::new(),
    }));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// One on which nothing ever comes.
pub(crate) fn never<T>() -> Receiver<T> {
    let (sender, receiver) = bounded(1);
    std::mem::forget(sender);
    receiver
}

/// However long it was to be: nothing else has to happen before.
pub(crate) fn after(_: Duration) -> Receiver<()> {
    let (sender, receiver) = bounded(1);
    lock(&sender.0).items.push_back(());
    receiver
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        point();
        let mut state = lock(&self.0);
        if state.receivers == 0 {
            return Err(TrySendError::Disconnected(item));
        }
        if state.items.len() >= state.room {
            return Err(TrySendError::Full(item));
        }
        state.items.push_back(item);
        drop(state);
        changed(&self.0);
        Ok(())
    }

    pub(crate) fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut item = item;
        loop {
            item = match self.try_send(item) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(item)) => return Err(SendError(item)),
                Err(TrySendError::Full(item)) => item,
            };
            lock(&self.0).waiting.push(thread::current());
            thread::park();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        point();
        let state = lock(&self.0);
        state.items.len() >= state.room
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).items.len()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        lock(&self.0).senders -= 1;
        changed(&self.0);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.receivers -= 1;
        let left = std::mem::take(&mut state.items);
        drop(state);
        drop(left);
        changed(&self.0);
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        point();
        let mut state = lock(&self.0);
        let item = state.items.pop_front();
        let nobody = state.senders == 0;
        drop(state);
        match item {
            Some(item) => {
                changed(&self.0);
                Ok(item)
            }
            None if nobody => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        loop {
            match self.try_recv() {
                Ok(item) => return Ok(item),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => {}
            }
            self.look_again();
            thread::park();
        }
    }

    pub(crate) fn recv_timeout(&self, wait: Duration) -> Result<T, RecvTimeoutError> {
        if wait >= SHORT {
            return self.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        self.try_recv().map_err(|why| match why {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One of those that are waited for together.
pub(crate) trait Source {
    /// Whether to receive from it would not wait.
    fn is_ready(&self) -> bool;

    /// Wakes this thread once something has changed.
    fn look_again(&self);
}

impl<T> Source for Receiver<T> {
    fn is_ready(&self) -> bool {
        let state = lock(&self.0);
        !state.items.is_empty() || state.senders == 0
    }

    fn look_again(&self) {
        lock(&self.0).waiting.push(thread::current());
    }
}

/// The number of one that is ready, any of them where several are. `None` where none is and it
/// does not wait.
pub(crate) fn choose(sources: &[&dyn Source], waits: bool) -> Option<usize> {
    loop {
        point();
        let ready = (0..sources.len()).filter(|at| sources[*at].is_ready());
        let ready: Vec<usize> = ready.collect();
        match ready.len() {
            0 if !waits => return None,
            0 => {
                sources.iter().for_each(|source| source.look_again());
                thread::park();
            }
            1 => return Some(ready[0]),
            several => return Some(ready[shuttle::rand::thread_rng().gen_range(0..several)]),
        }
    }
}

/// Waits for several at once, or not.
macro_rules! select_model {
    ($(recv($from:expr) -> $got:pat => $then:expr),+ , default($wait:expr) => $or:expr $(,)?) => {{
        let _: std::time::Duration = $wait;
        let chosen = $crate::concurrent::channel::choose(&[$(&$from),+], false);
        $crate::concurrent::channel::arms!(chosen, $or, $($from, $got, $then),+)
    }};
    ($(recv($from:expr) -> $got:pat => $then:expr),+ $(,)?) => {{
        let chosen = $crate::concurrent::channel::choose(&[$(&$from),+], true);
        $crate::concurrent::channel::arms!(chosen, unreachable!("it waits"), $($from, $got, $then),+)
    }};
}

/// Goes on with the one that was chosen.
macro_rules! arms_model {
    ($chosen:expr, $or:expr, $($from:expr, $got:pat, $then:expr),+) => {{
        let mut at = 0;
        'chosen: {
            $(
                if $chosen == Some(at) {
                    // There is one reader of each, so what was ready still is.
                    let $got = $from.recv();
                    break 'chosen $then;
                }
                at += 1;
            )+
            let _ = at;
            $or
        }
    }};
}

pub(crate) use arms_model as arms;
pub(crate) use select_model as select;
