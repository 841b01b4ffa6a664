//! How PostgreSQL's errors become the store's: floor 2, `store/postgres`.
//!
//! Only SQLSTATE codes go through, never a message, which may quote what was written.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// Why a round of statements was not answered, and what that means for its transaction.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The transaction was taken back because another was in the way; it may be tried again.
    Again(StoreError),
    /// The transaction was taken back.
    Failed(StoreError),
    /// The connection is of no use any more. What was sent may or may not have been done.
    Lost(StoreError),
}

impl Trouble {
    /// What a statement's failure means.
    pub(super) fn of(error: &Error) -> Self {
        let why = words(error);
        let Some(code) = error.code() else {
            if std::error::Error::source(error)
                .is_some_and(|cause| cause.is::<tokio_postgres::types::WasNull>())
            {
                return Self::Failed(StoreError::Corrupt(why));
            }
            return Self::Lost(StoreError::Failed(why));
        };
        match code.code() {
            // Serialization, deadlock, a lock not to be had, and a row that another has just
            // inserted: the next attempt sees it.
            "40001" | "40P01" | "55P03" | "23505" => Self::Again(StoreError::Failed(why)),
            // Shutting down, a transaction that waited for this process for too long, and a
            // completion nobody knows.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "40003" => {
                Self::Lost(StoreError::Failed(why))
            }
            "XX001" | "XX002" => Self::Failed(StoreError::Corrupt(why)),
            code if code.starts_with("08") => Self::Lost(StoreError::Failed(why)),
            _ => Self::Failed(StoreError::Failed(why)),
        }
    }

    /// No answer came in time.
    pub(super) fn late() -> Self {
        Self::Lost(StoreError::Failed(
            "the database did not answer in time".into(),
        ))
    }

    /// The error alone.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Again(why) | Self::Failed(why) | Self::Lost(why) => why,
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        trouble.into_error()
    }
}

/// Whether `COMMIT` itself was answered with a refusal, after which nothing of it took place.
pub(super) fn refused_at_commit(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        let class = code.code();
        class == SqlState::T_R_SERIALIZATION_FAILURE.code()
            || class == SqlState::T_R_DEADLOCK_DETECTED.code()
            || class.starts_with("23")
    })
}

/// An error in fixed words.
pub(super) fn words(error: &Error) -> String {
    match error.code() {
        Some(code) => format!("the database answered SQLSTATE {}", code.code()),
        None if error.is_closed() => "the connection to the database is closed".into(),
        None => match std::error::Error::source(error) {
            Some(cause) if cause.is::<std::io::Error>() => {
                format!("the connection to the database failed: {cause}")
            }
            _ => {
                // Its own words name the kind of error alone.
                let said = error.to_string();
                let kind = said.split(':').next().unwrap_or_default();
                format!("the database: {kind}")
            }
        },
    }
}

impl From<StoreError> for Trouble {
    fn from(why: StoreError) -> Self {
        Self::Failed(why)
    }
}
