//! `fob erase`: what is kept of an identity goes, over `DELETE /v1/identities/{id}/data`.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::link::{Orders, encoded, read};
use super::reach::{ReachArgs, Way};
use super::retry::{Again, again, jittered, turned_away};
use super::{Common, print};
use crate::domain::IdentityId;

/// The most bytes of an answer.
const ANSWER_LEN_MAX: usize = 64 * 1024;

pub(super) const HELP: &str = "\
Example, from the server that holds D, for its only fleet:

  fob erase --identity anna

What the identity has ends: open code sets are cancelled, keys revoked. Its licences, its status and \
its terminals go. Bundles, signed commands, decisions and revocations stay as evidence, under a name \
that nobody has had, which is printed. Whoever is registered as anna later has nothing of it.

It cannot be undone. An identity that owns a vehicle is not erased: give it another owner first. \
Backups made before still have what was erased.";

#[derive(Args)]
pub(super) struct EraseArgs {
    /// Whose data go
    #[arg(long, value_name = "ID")]
    identity: String,
    /// Why, kept beside who and when; do not name the person
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    server: ReachArgs,
    /// How often to call again in a row
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,
}

pub(super) fn run(common: &Common, args: &EraseArgs) -> anyhow::Result<()> {
    let id = IdentityId::parse(&args.identity).map_err(|why| anyhow!("--identity: {why}"))?;
    let mut way = args.server.reach(common, "admin")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let mut failures = 0;
        loop {
            let Again { why, wait } = match call(&mut way, &id, args.why.as_deref()).await? {
                Ok(answer) => return anyhow::Ok(answer),
                Err(again) => again,
            };
            if failures == args.retries {
                bail!("{why}; tried {} times in vain", failures + 1);
            }
            failures += 1;
            tokio::time::sleep(jittered(wait, failures)).await;
        }
    })?;
    print(common, &answer, |answer| text(&args.identity, answer))
}

/// Broken off, the same call goes on.
async fn call(
    way: &mut Way,
    id: &IdentityId,
    why: Option<&str>,
) -> anyhow::Result<Result<Value, Again>> {
    let (mut link, pass) = match way.go().await? {
        Ok(there) => there,
        Err(again) => return Ok(Err(again)),
    };
    let (body, pieces) = tokio::sync::mpsc::channel(1);
    body.try_send(Bytes::from(json!({ "why": why }).to_string()))?;
    drop(body);
    let path = format!("/v1/identities/{}/data", encoded(id.as_str()));
    let request = Request::delete(way.server.target(&path))
        .header(HOST, &way.server.authority)
        .header(AUTHORIZATION, format!("Bearer {}", pass.token))
        .header(CONTENT_TYPE, "application/json")
        .body(Orders(pieces))
        .context("the request")?;
    let response = match link.sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return Ok(Err(again(error.to_string()))),
    };
    if response.status() == StatusCode::OK {
        let answer = read(response.into_body(), ANSWER_LEN_MAX).await?;
        return Ok(Ok(serde_json::from_slice(&answer)?));
    }
    let refused = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    match turned_away(response, &refused).await? {
        Ok((code, detail)) => bail!("{code}: {detail}"),
        Err(again) => Ok(Err(again)),
    }
}

fn text(id: &str, answer: &Value) -> String {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    format!(
        "{id} is erased; what was issued to it is kept as {}\n{} authorizations ended, {} keys \
         revoked, {} terminals gone",
        answer["erased_as"].as_str().unwrap_or_default(),
        number("ended"),
        number("revoked"),
        number("terminals")
    )
}
