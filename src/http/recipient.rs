//! The shape of whom a code set is for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::json::optional_strict;
use crate::domain::{IdentityId, Recipient, Refusal, TerminalId};
use crate::engine::jws;

/// Whom a code set is for.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipientArg {
    /// Only this identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// Only this registered terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    terminal: Option<String>,
    /// Only the terminal with this public key (RFC 7517), registered or not; not beside `terminal`.
    #[serde(
        default,
        deserialize_with = "optional_strict",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Object>)]
    jwk: Option<Value>,
}

impl RecipientArg {
    /// Whether nobody is named.
    pub(super) fn is_anybody(&self) -> bool {
        self.identity.is_none() && self.terminal.is_none() && self.jwk.is_none()
    }

    /// As it is meant.
    ///
    /// # Errors
    /// `malformed`, naming the member.
    pub(super) fn check(&self) -> Result<Recipient, Refusal> {
        let identity = self.identity.as_deref().map(IdentityId::parse).transpose();
        let terminal = self.terminal.as_deref().map(TerminalId::parse).transpose();
        let key = self.jwk.as_ref().map(jws::holder_key).transpose();
        let key = key.map_err(|why| Refusal::malformed("recipient.jwk", why))?;
        if key.is_some() && self.terminal.is_some() {
            return Err(Refusal::malformed(
                "recipient",
                "a terminal is named by its id or by its key",
            ));
        }
        Ok(Recipient {
            identity: identity.map_err(|refusal| refusal.field("recipient.identity"))?,
            terminal: terminal.map_err(|refusal| refusal.field("recipient.terminal"))?,
            key,
        })
    }

    /// As it is shown.
    pub(super) fn of(recipient: &Recipient) -> Self {
        let text = |id: &dyn ToString| id.to_string();
        Self {
            identity: recipient.identity.as_ref().map(|id| text(id)),
            terminal: recipient.terminal.as_ref().map(|id| text(id)),
            jwk: recipient.key.as_ref().map(jws::public_jwk),
        }
    }
}
