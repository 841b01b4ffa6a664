//! The connections that read: floor 2, `store/postgres`. As many as are needed, up to a bound.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::error::Trouble;
use super::session::{Address, Session};
use crate::store::StoreError;

/// Connections that are not in use, and how many more there may be.
pub(super) struct Readers {
    /// Held to take one or to put one back.
    idle: Mutex<Vec<Session>>,
    room: Semaphore,
    /// How long one is waited for.
    patience: Duration,
}

impl Readers {
    pub(super) fn new(at_most: usize, patience: Duration) -> Self {
        Self {
            idle: Mutex::default(),
            room: Semaphore::new(at_most),
            patience,
        }
    }

    /// Asks over a connection, and once more over a new one where an idle one has been cut.
    pub(super) async fn lend<T>(
        &self,
        address: &Address,
        mut ask: impl AsyncFnMut(&Session) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let room = tokio::time::timeout(self.patience, self.room.acquire());
        let Ok(Ok(_room)) = room.await else {
            return Err(StoreError::Failed(
                "every connection that reads is busy".into(),
            ));
        };
        if let Some(session) = self.take() {
            match ask(&session).await {
                Err(Trouble::Lost(_)) => self.close(),
                answer => return self.put(session, answer),
            }
        }
        let session = Session::open(address).await?;
        let answer = ask(&session).await;
        self.put(session, answer)
    }

    /// Closes those that are not in use.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Session> {
        let mut idle = self.lock();
        idle.retain(|session| !session.is_closed());
        idle.pop()
    }

    fn put<T>(&self, session: Session, answer: Result<T, Trouble>) -> Result<T, StoreError> {
        // What a statement was refused for may have left a transaction open.
        if answer.is_ok() {
            self.lock().push(session);
        }
        answer.map_err(Trouble::into_error)
    }
}
