//! `fob acts`: what those who administer fleets have done, page by page.

use anyhow::{anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::desk::{Answer, Command};
use super::{Common, place, print, sign, socket, table};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::time::Time;
use crate::domain::{Refusal, UnixTime};
use crate::engine::{Book, operate};
use crate::store::{ActFilter, Acts, Cursor};

/// Acts of one page.
const PAGE: u32 = 500;

pub(super) const HELP: &str = "\
Who has made fleets and tokens, rotated and revoked them; put something into the registry, described \
it anew, imported it; set rules, frozen and released issuing; changed, suspended, resumed, revoked or \
erased. A token is named by its id. What is authorized and ordered is no act: it says itself who made \
it. Newest last; a table for each 500, or with --json a line for each:

  fob acts --fleet rental --since 7d
  fob acts --json | jq 'select(.why == null)'

What was done to epochs, roots and operators is in the signed records: fob epoch records. Commands of \
owners are kept with what they authorized.";

#[derive(Args)]
pub(super) struct ActsArgs {
    /// Of one fleet only, by name or id
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// Not before this time, RFC 3339; or so long ago: 12h, 30d
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<UnixTime>,
}

/// Which page is asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActsAsk {
    fleet: Option<String>,
    since: UnixTime,
    /// A place the page before named, base64url.
    after: Option<String>,
}

/// A page.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ActsTold {
    acts: Vec<ActRow>,
    next: Option<String>,
}

/// An act, as `--json` prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct ActRow {
    at: Time,
    /// An operator's name, or a token's id.
    by: String,
    act: String,
    fleet: String,
    /// Of what; empty for the whole fleet.
    object: String,
    why: Option<String>,
}

impl ActsAsk {
    /// What it asks of the store.
    ///
    /// # Errors
    /// `not_found` for a fleet that is not there.
    pub(super) fn filter(&self, book: &Book) -> Result<ActFilter, Refusal> {
        let fleet = self.fleet.as_deref();
        let fleet = fleet.map(|name| operate::fleet(book, name)).transpose()?;
        let bytes = self.after.as_ref().map(|text| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text);
            bytes.map_err(|_| Refusal::malformed("after", "it is not in base64url"))
        });
        Ok(ActFilter {
            fleet: fleet.map(|it| it.fleet.id),
            since: self.since,
            after: bytes.transpose()?.map(|bytes| Cursor(bytes.into())),
            limit: PAGE,
        })
    }
}

impl ActsTold {
    /// What the store has answered, fleets by their names.
    pub(super) fn of(book: &Book, acts: Acts) -> Self {
        let name = |id| match book.fleet(id) {
            Some(it) => it.fleet.name.to_string(),
            None => id.to_string(),
        };
        let row = |it: crate::store::Act| ActRow {
            at: Time(it.at),
            by: it.by,
            act: it.act,
            fleet: name(it.fleet),
            object: it.object,
            why: it.why,
        };
        Self {
            acts: acts.acts.into_iter().map(row).collect(),
            next: acts.next.map(|at| BASE64_URL_SAFE_NO_PAD.encode(at.0)),
        }
    }
}

pub(super) fn run(common: &Common, args: ActsArgs) -> anyhow::Result<()> {
    let config = place::configuration(common)?;
    let mut ask = ActsAsk {
        fleet: args.fleet,
        since: args.since.unwrap_or_default(),
        after: None,
    };
    let Some(_lock) = place::try_lock(&config.dir)? else {
        return pages(common, &mut ask, |ask| {
            let asked = Command::Acts { ask: ask.clone() };
            match socket::ask(&config.dir, &asked)? {
                Answer::Acts(told) => Ok(told),
                _ => bail!("the server answers another question"),
            }
        });
    };
    let store = place::store(&config)?;
    let book = place::book(&*store)?;
    pages(common, &mut ask, |ask| {
        let filter = ask.filter(&book).map_err(|why| anyhow!("{why}"))?;
        Ok(ActsTold::of(&book, store.acts(&filter)?))
    })
}

/// Prints one page after the other.
fn pages(
    common: &Common,
    ask: &mut ActsAsk,
    page: impl Fn(&ActsAsk) -> anyhow::Result<ActsTold>,
) -> anyhow::Result<()> {
    loop {
        let told = page(ask)?;
        if common.json {
            for act in &told.acts {
                print(common, act, |_| String::new())?;
            }
        } else if !told.acts.is_empty() {
            print(common, &told.acts, |acts| text(acts))?;
        }
        if told.next.is_none() {
            return Ok(());
        }
        ask.after = told.next;
    }
}

fn text(acts: &[ActRow]) -> String {
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    let cells = acts.iter().map(|it| {
        vec![
            it.at.to_string(),
            it.by.clone(),
            it.act.clone(),
            it.fleet.clone(),
            or_dash(&it.object),
            or_dash(it.why.as_deref().unwrap_or_default()),
        ]
    });
    table(
        &["AT", "BY", "ACT", "FLEET", "OF", "WHY"],
        &cells.collect::<Vec<_>>(),
    )
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<UnixTime, String> {
    if let Ok(ago) = sign::seconds(text) {
        return Ok(SystemClock.unix().saturating_sub(ago));
    }
    let time: Result<Time, _> = serde_json::from_value(Value::from(text));
    let wrong = "it is an RFC 3339 time, or so long ago as 12h or 30d";
    time.map(|Time(at)| at).map_err(|_| wrong.into())
}
