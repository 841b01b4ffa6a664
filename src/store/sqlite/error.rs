//! How SQLite's errors become the store's: floor 2, `store/sqlite`.
//!
//! Only SQLite's fixed words and numbers go through, never a message, which may quote what was
//! written.

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;
pub(super) use crate::store::encoding::{column, corrupt, number};

impl From<Error> for StoreError {
    /// What a statement's failure means while nothing has been committed.
    fn from(error: Error) -> Self {
        match &error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                    Self::Corrupt(words(&error))
                }
                _ => Self::Failed(words(&error)),
            },
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => Self::Corrupt(words(&error)),
            _ => Self::Failed(words(&error)),
        }
    }
}

/// What a failed COMMIT means: nobody can say what of it is on disk. Busy is the exception, a
/// transaction that was refused its locks has not begun to write its end.
pub(super) fn at_commit(error: &Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => StoreError::Failed(words(error)),
        _ => StoreError::Unknown(words(error)),
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::SqliteFailure(failure, _) => {
            let words = rusqlite::ffi::code_to_str(failure.extended_code);
            format!("{words} (SQLite {})", failure.extended_code)
        }
        Error::InvalidColumnType(column, ..)
        | Error::FromSqlConversionFailure(column, ..)
        | Error::IntegralValueOutOfRange(column, _)
        | Error::Utf8Error(column, _) => format!("column {column} is not what it should be"),
        _ => "a statement did not run".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some("hunter2".into()))
    }

    #[test]
    fn messages_do_not_go_through() {
        let error = StoreError::from(failure(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE));
        assert!(
            matches!(&error, StoreError::Failed(words) if !words.contains("hunter2")),
            "{error}"
        );
    }

    #[test]
    fn a_commit_is_unknown_unless_it_was_refused_its_locks() {
        for code in [
            rusqlite::ffi::SQLITE_FULL,
            rusqlite::ffi::SQLITE_IOERR_FSYNC,
        ] {
            assert!(at_commit(&failure(code)).may_have_happened());
            assert!(!StoreError::from(failure(code)).may_have_happened());
        }
        assert!(!at_commit(&failure(rusqlite::ffi::SQLITE_BUSY)).may_have_happened());
    }
}
