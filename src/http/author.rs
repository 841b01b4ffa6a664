//! Who made an authorization, as it is shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Author;

/// Who made an authorization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuthorView {
    /// A back end, by its token's id.
    Token(String),
    /// An owner's terminal.
    Terminal(String),
}

impl From<&Author> for AuthorView {
    fn from(author: &Author) -> Self {
        match author {
            Author::Token(id) => Self::Token(id.to_string()),
            Author::Terminal(id) => Self::Terminal(id.to_string()),
        }
    }
}
