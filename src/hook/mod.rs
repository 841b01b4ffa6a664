//! Floor 2: another server that is asked whether keys may be issued.
//!
//! A question is one signed HTTPS call: the key that signs it is this room's own and signs nothing
//! else. Whom to ask stands in the configuration, host by host and port by port; a fleet chooses
//! among them. An answer counts only if it names the question it is for.
//!
//! Deliberately not here: rules, what is remembered, and what becomes of keys without an answer.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::EcdsaKeyPair;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::domain::UnixTime;
use crate::domain::rules::Range;
use crate::tls;

mod address;
mod call;
mod signer;

pub use address::{Allowed, Target};
use signer::Signer;
pub use signer::thumbprint;

/// The `typ` of a question.
pub const QUESTION_TYP: &str = "fob-hook+jwt";

/// How long a question may be believed, in seconds from `iat` to `exp`.
const QUESTION_LIFETIME_S: u64 = 60;

/// The most characters of a reason that is handed on.
const WHY_LEN_MAX: usize = 200;

/// Whom may be asked, and how long that may take.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Whom: nobody else is called.
    pub allow: Vec<Allowed>,
    /// Ranges of addresses a name may lead to although calls do not go there otherwise.
    pub allow_addresses: Vec<Range>,
    /// Addresses of this machine may be asked without TLS.
    pub plain_loopback: bool,
    /// What signed their certificates, where that is not what the system trusts.
    pub ca: Option<std::path::PathBuf>,
    /// How long one call may take, in all.
    pub deadline: Duration,
    /// Calls at one time; others wait, within their deadline.
    pub calls_max: usize,
    /// Answers that are remembered.
    pub answers_max: usize,
}

/// Asks others.
pub struct Hook {
    config: HookConfig,
    tls: Arc<ClientConfig>,
    signer: Signer,
    room: Semaphore,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether keys may be issued.
    pub allowed: bool,
    /// Why not, as they put it.
    pub why: Option<String>,
    /// How long it may be remembered, in seconds, where they say so.
    pub valid_s: Option<u32>,
}

/// Why there is no answer. Whatever it was, asking again later may bring one, and nothing has
/// happened here.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It must not be asked.
    #[error("{0}")]
    Address(String),
    /// It was not reached, or did not prove who it is.
    #[error("it was not reached: {0}")]
    Unreached(String),
    /// It took longer than it may.
    #[error("it has not answered within {} ms", .0.as_millis())]
    Late(Duration),
    /// What came is no answer to this question.
    #[error("what it sent is no answer: {0}")]
    NoAnswer(&'static str),
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    question: String,
    verdict: Verdict,
    why: Option<String>,
    valid_s: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

impl Hook {
    /// Asks with this key.
    ///
    /// # Errors
    /// [`HookError::Config`] for certificates that cannot be read.
    pub fn new(config: HookConfig, key: EcdsaKeyPair) -> Result<Self, HookError> {
        let tls = tls::roots(config.ca.as_deref()).and_then(tls::client);
        Ok(Self {
            tls: tls.map_err(HookError::Config)?,
            room: Semaphore::new(config.calls_max),
            signer: Signer::new(key),
            config,
        })
    }

    /// Answers that are remembered, at most.
    pub fn answers_max(&self) -> usize {
        self.config.answers_max
    }

    /// Whether this address may be asked.
    ///
    /// # Errors
    /// [`HookError::Address`], saying why not.
    pub fn check(&self, url: &str) -> Result<Target, HookError> {
        let target = Target::parse(url, self.config.plain_loopback)?;
        if self.config.allow.iter().any(|one| one.is(&target)) {
            return Ok(target);
        }
        Err(HookError::Address(format!(
            "{} is not among those this server may ask ([hook] allow of its configuration)",
            target.authority()
        )))
    }

    /// Asks `question` of whoever is at `url`, as `issuer`.
    ///
    /// # Errors
    /// See [`HookError`].
    pub async fn ask(
        &self,
        url: &str,
        issuer: &str,
        question: &Value,
        now: UnixTime,
    ) -> Result<Answer, HookError> {
        let target = self.check(url)?;
        let asked = self.signer.sign(
            QUESTION_TYP,
            &json!({
                "iss": issuer,
                "aud": url,
                "iat": now,
                "exp": now + QUESTION_LIFETIME_S,
                "jti": signer::nonce()?,
                "question": question,
            }),
        )?;
        let within = self.config.deadline;
        let call = async {
            let room = self.room.acquire().await;
            let _room = room.map_err(|_| HookError::Unreached("shutting down".into()))?;
            let to = target.resolve(&self.config.allow_addresses).await?;
            call::post(&target, &to, &self.tls, &asked).await
        };
        let body = tokio::time::timeout(within, call)
            .await
            .map_err(|_| HookError::Late(within))??;
        read(&body, &signer::digest(&asked))
    }
}

/// Reads an answer to the question of this digest.
fn read(body: &[u8], question: &str) -> Result<Answer, HookError> {
    let said: Said = serde_json::from_slice(body).map_err(|_| {
        HookError::NoAnswer("it is not {question, verdict: allow or deny, why?, valid_s?}")
    })?;
    if said.question != question {
        return Err(HookError::NoAnswer("it is for another question"));
    }
    let printable =
        |why: &String| why.chars().count() <= WHY_LEN_MAX && !why.chars().any(char::is_control);
    if said.why.as_ref().is_some_and(|why| !printable(why)) {
        return Err(HookError::NoAnswer(
            "its reason is not a line of 200 characters",
        ));
    }
    Ok(Answer {
        allowed: matches!(said.verdict, Verdict::Allow),
        why: said.why,
        valid_s: said.valid_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_its_question_and_of_its_form() {
        let answer = |text: &str| read(text.as_bytes(), "q");
        let allowed = answer(r#"{"question":"q","verdict":"allow"}"#).expect("an answer");
        assert!(allowed.allowed && allowed.why.is_none() && allowed.valid_s.is_none());
        let denied = answer(r#"{"question":"q","verdict":"deny","why":"unpaid","valid_s":9}"#);
        let denied = denied.expect("an answer");
        assert!(!denied.allowed && denied.why.as_deref() == Some("unpaid"));
        assert_eq!(denied.valid_s, Some(9));
        let long = "w".repeat(201);
        for bad in [
            r#"{"question":"p","verdict":"allow"}"#,
            r#"{"verdict":"allow"}"#,
            r#"{"question":"q","verdict":"Allow"}"#,
            r#"{"question":"q","verdict":true}"#,
            r#"{"question":"q","verdict":"allow","valid_s":-1}"#,
            r#"{"question":"q","verdict":"allow","more":1}"#,
            r#"{"question":"q","verdict":"deny","why":"a\nb"}"#,
            &format!(r#"{{"question":"q","verdict":"deny","why":"{long}"}}"#),
            "",
            "allow",
            "<html>",
        ] {
            assert!(matches!(answer(bad), Err(HookError::NoAnswer(_))), "{bad}");
        }
    }
}
