//! What a run uses up: one code set for each arrival, made by the server through
//! `POST /v1/authorizations`, and one finished request with a proof for each of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock;
use crate::proof;
use crate::target::Target;

/// Authorizations asked for at the same time: enough for the server to commit them in groups.
const AT_ONCE: usize = 256;

/// Times one authorization is asked for again after a 503.
const TRIES_MAX: usize = 100;

/// How long to wait before it.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How long the keys may be used, in seconds.
const KEYS_FOR_S: u64 = 3600;

/// Vehicles, and borrowers, of the demo fleet.
const DEMO: usize = 100;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Functions of each code set: the built-in ones from code 1 on.
    pub(crate) functions: u16,
    /// `signing` of each authorization, where it is to be said.
    pub(crate) signing: Option<String>,
    /// Key pairs that sign the proofs in turn.
    pub(crate) holders: usize,
}

/// One redemption, ready to be sent.
pub(crate) struct Request {
    /// Head and body.
    pub(crate) bytes: Box<[u8]>,
    /// The vehicle its bundle must name.
    pub(crate) vehicle: String,
}

/// What preparing took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Preparation {
    code_sets: usize,
    authorize_s: f64,
    authorizations_per_s: f64,
    sign_s: f64,
}

/// A code set and whose it is.
pub(crate) struct CodeSet {
    pub(crate) text: String,
    pub(crate) vehicle: String,
    pub(crate) identity: String,
}

/// `count` redemptions. Their proofs are signed last: they are good for 300 seconds.
///
/// # Errors
/// Where the server does not authorize.
pub(crate) async fn prepare(
    target: &Rc<Target>,
    count: usize,
    wanted: &Wanted,
) -> anyhow::Result<(Vec<Request>, Preparation)> {
    let began = clock::now();
    let code_sets = authorize_all(target, count, wanted).await?;
    let authorized = clock::now();
    let requests = proof::requests(target, code_sets, wanted.holders)?;
    let authorize_s = (authorized - began).as_secs_f64();
    let preparation = Preparation {
        code_sets: count,
        authorize_s,
        authorizations_per_s: count as f64 / authorize_s,
        sign_s: (clock::now() - authorized).as_secs_f64(),
    };
    Ok((requests, preparation))
}

async fn authorize_all(
    target: &Rc<Target>,
    count: usize,
    wanted: &Wanted,
) -> anyhow::Result<Vec<CodeSet>> {
    let next = Rc::new(Cell::new(0));
    let made = Rc::new(RefCell::new(Vec::with_capacity(count)));
    let crew: Vec<_> = (0..AT_ONCE.min(count))
        .map(|_| {
            let (target, wanted) = (Rc::clone(target), wanted.clone());
            let (next, made) = (Rc::clone(&next), Rc::clone(&made));
            tokio::task::spawn_local(async move {
                while next.get() < count {
                    let nth = next.replace(next.get() + 1);
                    let code_set = authorize(&target, nth, &wanted).await?;
                    made.borrow_mut().push(code_set);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for one in crew {
        one.await??;
    }
    Ok(made.take())
}

async fn authorize(target: &Target, nth: usize, wanted: &Wanted) -> anyhow::Result<CodeSet> {
    #[derive(Deserialize)]
    struct Made {
        code_set: String,
    }
    let vehicle = format!("DEMO-{:04}", nth % DEMO + 1);
    let now = clock::unix();
    let mut body = json!({
        "vehicle": vehicle,
        "functions": (1..=wanted.functions).collect::<Vec<_>>(),
        "not_before": time(now)?,
        "not_after": time(now + KEYS_FOR_S)?,
    });
    if let Some(signing) = &wanted.signing {
        body["signing"] = json!(signing);
    }
    let bearer = format!("Authorization: Bearer {}\r\n", target.token);
    let request = target.post("/v1/authorizations", &bearer, &body.to_string());
    let mut connection = target.pool.take().context("no connection is free")?;
    for _ in 0..TRIES_MAX {
        let head = connection.exchange(&request).await?;
        if head.status == 503 {
            tokio::time::sleep(TRY_AGAIN).await;
            continue;
        }
        let body = connection.body(&head);
        if head.status != 201 {
            let text = String::from_utf8_lossy(body);
            bail!("an authorization was answered {}: {text:.300}", head.status);
        }
        let made: Made = serde_json::from_slice(body).context("an authorization's answer")?;
        target.pool.give(connection);
        return Ok(CodeSet {
            text: made.code_set,
            vehicle,
            identity: format!("renter-{}", nth % DEMO + 1),
        });
    }
    bail!("the server keeps being busy while code sets are made")
}

/// RFC 3339, whole seconds.
fn time(unix: u64) -> anyhow::Result<String> {
    Ok(jiff::Timestamp::from_second(i64::try_from(unix)?)?.to_string())
}
