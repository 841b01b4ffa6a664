//! What became of a transaction whose answer was lost: floor 2, `store/postgres`.

use super::error::Trouble;
use super::session::{Address, Session, values};
use super::transaction::{Writer, no_session};
use crate::store::StoreError;

impl Writer {
    /// Connects anew and finds out what became of the last transaction.
    pub(super) async fn look(&mut self, address: &Address) -> Result<bool, StoreError> {
        self.session = Some(Session::open(address).await?.committing(address));
        self.read_back().await
    }

    /// Whether the last transaction took place. If not, it never will.
    pub(super) async fn read_back(&mut self) -> Result<bool, StoreError> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let again = session
            .query(
                "INSERT INTO transactions (process, number) VALUES ($1, $2)",
                values![self.process, self.number],
            )
            .await;
        let took_place = match again {
            Ok(_) => false,
            Err(Trouble::Again(_)) => self.is_there().await?,
            Err(trouble) => {
                self.session = None;
                return Err(trouble.into_error());
            }
        };
        self.in_doubt = false;
        if took_place {
            self.committed = self.number;
        }
        tracing::warn!(
            took_place,
            "the last transaction was in doubt and was read back"
        );
        Ok(took_place)
    }

    async fn is_there(&self) -> Result<bool, StoreError> {
        let session = self.session.as_ref().ok_or_else(no_session)?;
        let found = session
            .query(
                "SELECT 1 FROM transactions WHERE process = $1 AND number = $2",
                values![self.process, self.number],
            )
            .await?;
        match found.is_empty() {
            false => Ok(true),
            // Another attempt to read it back was in the way.
            true => Err(StoreError::Failed("what was in doubt still is".into())),
        }
    }
}
