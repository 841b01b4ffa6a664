//! The connections: a bounded number, opened when first needed, the last one used taken first.
//! There is no waiting list: who finds no free connection is told so.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use crate::connection::Connection;

/// All connections of a run. One thread owns it.
pub(crate) struct Pool {
    address: SocketAddr,
    max: usize,
    idle: RefCell<Vec<Connection>>,
    made: Cell<usize>,
    taken: Cell<usize>,
    taken_most: Cell<usize>,
}

impl Pool {
    /// No connection yet, and never more than `max`.
    pub(crate) fn new(address: SocketAddr, max: usize) -> Self {
        Self {
            address,
            max,
            idle: RefCell::default(),
            made: Cell::new(0),
            taken: Cell::new(0),
            taken_most: Cell::new(0),
        }
    }

    /// A free connection, or none.
    pub(crate) fn take(&self) -> Option<Connection> {
        let connection = match self.idle.borrow_mut().pop() {
            Some(connection) => connection,
            None if self.made.get() < self.max => {
                let nth = self.made.replace(self.made.get() + 1);
                Connection::to(self.address, nth)
            }
            None => return None,
        };
        self.taken.set(self.taken.get() + 1);
        self.taken_most
            .set(self.taken_most.get().max(self.taken.get()));
        Some(connection)
    }

    /// Gives a connection back.
    pub(crate) fn give(&self, connection: Connection) {
        self.taken.set(self.taken.get() - 1);
        self.idle.borrow_mut().push(connection);
    }

    /// The most that were taken at one time since this was last asked.
    pub(crate) fn taken_most(&self) -> usize {
        self.taken_most.replace(self.taken.get())
    }

    /// How many connections were opened so far, those opened again included.
    pub(crate) fn opened(&self) -> u64 {
        self.idle.borrow().iter().map(|one| one.opened).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_bound_and_the_last_used_first() {
        let pool = Pool::new(SocketAddr::from(([127, 0, 0, 1], 1)), 2);
        let (mut first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        first.opened = 7;
        pool.give(second);
        pool.give(first);
        assert_eq!(pool.take().unwrap().opened, 7);
        assert_eq!(pool.taken_most(), 2);
        assert_eq!(pool.taken_most(), 1);
    }
}
