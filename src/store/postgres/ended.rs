//! The commit point, and how transactions end otherwise: floor 2, `store/postgres`.

use super::error::{Trouble, refused_at_commit};
use super::line::Line;
use super::session::{Ask, Unanswered};
use crate::store::{Applied, StoreError};

/// The commit point: what was decided last is sent together with `COMMIT`, after what `line` has
/// sent already. Before that the database holds nothing that counts, and a crash leaves the store as it was. After it, the transaction is
/// there whole or not at all, and its own row says which.
pub(super) async fn finish<'a>(
    mut line: Line<'a>,
    asks: Vec<Ask<'a>>,
    applied: &[Applied],
    beside: &mut dyn FnMut(),
) -> Result<(), Ended> {
    let count = line.len() + asks.len();
    let answered = match line.send(asks).await {
        Ok(()) => line.answers_beside(beside).await.map(drop),
        Err(unanswered) => Err(unanswered),
    };
    let Err(Unanswered { at, error }) = answered else {
        return Ok(());
    };
    let Some(error) = error else {
        let why = Trouble::late().into_error().to_string();
        return Err(Ended::InDoubt(applied.to_vec(), why));
    };
    let trouble = Trouble::of(&error);
    let before_commit = at + 1 < count;
    let unknown = error.code().is_none_or(|code| code.code() == "40003");
    if !unknown && before_commit {
        // What a statement was refused for has ended the transaction.
        return Err(trouble.into());
    }
    if !unknown && refused_at_commit(&error) {
        return Err(Ended::Again(trouble.into_error()));
    }
    let why = trouble.into_error().to_string();
    Err(Ended::InDoubt(applied.to_vec(), why))
}

/// Why a transaction did not end well.
pub(super) enum Ended {
    /// Taken back; it may be tried again.
    Again(StoreError),
    /// Taken back: it is somebody else's turn.
    SteppedBack,
    /// Taken back.
    Failed(StoreError),
    /// The connection was lost before anything could be committed.
    Lost(StoreError),
    /// The connection was lost after `COMMIT` was sent; these would be the answers.
    InDoubt(Vec<Applied>, String),
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Again(why) => Self::Again(why),
            Trouble::Failed(why) => Self::Failed(why),
            Trouble::Lost(why) => Self::Lost(why),
        }
    }
}

impl From<StoreError> for Ended {
    fn from(why: StoreError) -> Self {
        Self::Failed(why)
    }
}
