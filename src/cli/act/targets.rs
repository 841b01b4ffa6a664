//! What is named, on the command line or in a file, as bodies of a call.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value};

use crate::cli::lines::Lines;
use crate::cli::refusals::Refused;

/// What may be named.
const KINDS: [&str; 6] = [
    "key",
    "bundle",
    "authorization",
    "identity",
    "vehicle",
    "terminal",
];

/// The most bytes of a target: no id is as long as that.
const TARGET_LEN_MAX: usize = 4096;

/// What is named: one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct TargetArgs {
    /// One key: every key of its function on its authorization
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// A bundle: the same as its authorization
    #[arg(long, value_name = "ID")]
    bundle: Option<String>,
    /// An authorization, with every key issued on it
    #[arg(long, value_name = "ID")]
    authorization: Option<String>,
    /// An identity, with everything it has
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// A vehicle, with everything on it
    #[arg(long, value_name = "ID")]
    vehicle: Option<String>,
    /// A terminal that was lost; revoked, with everything it authorized
    #[arg(long, value_name = "ID")]
    terminal: Option<String>,
    /// Many: CSV or NDJSON; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

/// Why it is done.
#[derive(Args)]
pub(super) struct WhyArgs {
    /// Why, kept beside who and when; up to 200 characters. Lines of an NDJSON file may say it
    /// themselves
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

impl WhyArgs {
    /// Adds it to a body that does not say it.
    fn add(&self, body: &mut String) {
        if let Some(why) = &self.why
            && let Ok(Value::Object(mut members)) = serde_json::from_str(body)
        {
            members
                .entry("why")
                .or_insert_with(|| Value::from(why.as_str()));
            *body = Value::Object(members).to_string();
        }
    }
}

/// What a run is about.
pub(super) enum Targets {
    /// One target.
    One(String),
    /// The lines of a file that are targets, and those that are not.
    Many(Vec<(u64, String)>, Vec<Refused>),
}

impl Targets {
    /// How many.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Many(targets, wrong) => (targets.len() + wrong.len()) as u64,
        }
    }
}

impl Targets {
    /// The same, with why they are named.
    pub(super) fn because(mut self, why: &WhyArgs) -> Self {
        match &mut self {
            Self::One(body) => why.add(body),
            Self::Many(targets, _) => targets.iter_mut().for_each(|(_, body)| why.add(body)),
        }
        self
    }
}

impl TargetArgs {
    /// Reads them, all of a file before anything is asked for.
    pub(super) fn read(&self) -> anyhow::Result<Targets> {
        let ids = [
            &self.key,
            &self.bundle,
            &self.authorization,
            &self.identity,
            &self.vehicle,
            &self.terminal,
        ];
        let named = KINDS.into_iter().zip(ids).find_map(|(kind, id)| {
            let id = id.as_ref()?;
            Some(body(kind, id))
        });
        match (named, &self.from) {
            (Some(body), _) => Ok(Targets::One(body)),
            (None, Some(from)) if from == Path::new("-") => {
                many(std::io::stdin().lock(), "standard input")
            }
            (None, Some(from)) => {
                let shown = from.display().to_string();
                let file = File::open(from).with_context(|| shown.clone())?;
                many(file, &shown)
            }
            (None, None) => bail!("name a target, or a file of them with --from"),
        }
    }
}

fn body(kind: &str, id: &str) -> String {
    let mut body = Map::new();
    body.insert(kind.into(), id.into());
    Value::Object(body).to_string()
}

fn many(file: impl Read, shown: &str) -> anyhow::Result<Targets> {
    let mut lines = Lines::new(file);
    let (mut targets, mut wrong) = (Vec::new(), Vec::new());
    let mut table = None;
    while let Some(number) = lines.next().with_context(|| shown.to_owned())? {
        let text = lines.text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let Some(table) = table else {
            // NDJSON begins with a brace.
            let is_table = !text.starts_with(b"{");
            table = Some(is_table);
            if is_table {
                header(text, shown, number)?;
            } else {
                push(
                    target(text, false, lines.too_long),
                    number,
                    shown,
                    &mut targets,
                    &mut wrong,
                );
            }
            continue;
        };
        push(
            target(text, table, lines.too_long),
            number,
            shown,
            &mut targets,
            &mut wrong,
        );
    }
    Ok(Targets::Many(targets, wrong))
}

fn header(text: &[u8], shown: &str, number: u64) -> anyhow::Result<()> {
    let names: Vec<_> = text.split(|b| *b == b',').map(<[u8]>::trim_ascii).collect();
    if names == [&b"kind"[..], b"id"] {
        return Ok(());
    }
    bail!("{shown}, line {number}: a table begins with the header kind,id")
}

fn push(
    target: Result<String, (&'static str, String)>,
    line: u64,
    shown: &str,
    targets: &mut Vec<(u64, String)>,
    wrong: &mut Vec<Refused>,
) {
    match target {
        Ok(target) => targets.push((line, target)),
        Err((field, why)) => wrong.push(Refused {
            line,
            reference: None,
            code: "malformed".into(),
            field: Some(field.into()),
            detail: Some(format!("{shown}, line {line}, {field}: {why}")),
        }),
    }
}

/// The target on a line; or the column at fault, and why.
fn target(text: &[u8], table: bool, too_long: bool) -> Result<String, (&'static str, String)> {
    if too_long || text.len() > TARGET_LEN_MAX {
        return Err(("line", "a target is not as long as that".into()));
    }
    let text =
        std::str::from_utf8(text).map_err(|_| ("line", "it is no text in UTF-8".to_owned()))?;
    if !table {
        return Ok(text.into());
    }
    let (kind, id) = text
        .split_once(',')
        .ok_or_else(|| ("id", "there is none".to_owned()))?;
    let (kind, id) = (kind.trim(), id.trim());
    if !KINDS.contains(&kind) {
        return Err(("kind", format!("it is one of {}", KINDS.join(", "))));
    }
    if id.is_empty() {
        return Err(("id", "there is none".into()));
    }
    Ok(body(kind, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that are targets, and the field that is wrong in each of the others.
    fn read(text: &str) -> anyhow::Result<[Vec<(u64, String)>; 2]> {
        let Targets::Many(targets, wrong) = many(text.as_bytes(), "targets")? else {
            bail!("a file has many");
        };
        let wrong = wrong.into_iter();
        let wrong = wrong.map(|it| (it.line, it.field.unwrap_or_default()));
        Ok([targets, wrong.collect()])
    }

    #[test]
    fn a_table_of_targets() {
        let text =
            "kind, id\r\nvehicle,VAN-7\n\n key , 01a2 \ncar,x\nvehicle\nvehicle, \nidentity,a\"b\n";
        let [targets, wrong] = read(text).expect("targets");
        let expected = [
            (2, r#"{"vehicle":"VAN-7"}"#.to_owned()),
            (4, r#"{"key":"01a2"}"#.into()),
            (8, r#"{"identity":"a\"b"}"#.into()),
        ];
        assert_eq!(targets, expected);
        let expected = [(5, "kind".to_owned()), (6, "id".into()), (7, "id".into())];
        assert_eq!(wrong, expected);
        assert!(read("kind\nvehicle,x").is_err());
        assert!(read("vehicle,x\n").is_err(), "there is no header");
    }

    #[test]
    fn targets_as_lines() {
        let long = "x".repeat(TARGET_LEN_MAX);
        let text = format!("\n{{\"key\":\"a\"}}\nnonsense\n{{\"key\":\"{long}\"}}\n");
        let [targets, wrong] = read(&text).expect("targets");
        let expected = [(2, r#"{"key":"a"}"#.to_owned()), (3, "nonsense".into())];
        assert_eq!(targets, expected, "what they say is the server's to judge");
        assert_eq!(wrong, [(4, "line".into())]);
    }
}
