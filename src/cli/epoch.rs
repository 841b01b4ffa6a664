//! `fob epoch`: the life of issuing epochs, their root and their records.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use fob_verify::IssuerKey;
use serde_json::{Value, json};

use super::ceremony::{take, told};
use super::steps::{Ask, EpochRow, ProposalRow, Records, Status, Taken, Told};
use super::{Common, operator, place, print, reissue, sign, table};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::record::{Approval, Who};
use crate::domain::time::Time;
use crate::domain::{EpochId, Record, Step, UnixTime};
use crate::engine::records::{self, Ends};
use crate::engine::rotate::ACTIVE_S;

/// The whole plan, in short.
pub(super) const HELP: &str = "\
An epoch is the term of one issuing key pair. `prepare` makes some ahead, with the root's token at \
hand; the server then lets one after the other sign, by the schedule of [epochs] in fob.toml or as \
`activate` and `rotate` say, without the root. `revoke` ends one that is compromised. Every step is \
in force when the command returns, costs no request, and leaves a signed record.\n\n    \
    fob epoch prepare --count 4     with the root's token\n    \
    fob epoch rotate                without it\n    \
    fob epoch status                until when that will do";

const PREPARE_HELP: &str = "\
Do this well before the epochs are needed: cars refuse the keys of an epoch until they have a trust \
list that names it.\n\n    \
    fob epoch prepare --count 4\n    \
    fob epoch prepare --window 2027-01-01T00:00:00Z/2027-07-01T00:00:00Z";

const REVOKE_HELP: &str = "\
For a key that is compromised, or may be. Cars that have the new trust list refuse every key the \
epoch has signed. --reissue signs those of them that are live again, as they are: phones get them \
when they read their bundle or send their redemption again. It may be killed at any moment, and so \
may the server: the same command goes on, and signs nothing twice.\n\n    \
    fob epoch revoke 4f1d0c2b9a887766 --reissue";

#[derive(Subcommand)]
pub(super) enum EpochCommand {
    /// List all epochs
    List,
    /// Say how epochs and root stand: until when all goes on without the root, and what is left over
    Status,
    /// Make epochs and have the root list them: they wait for their turn (needs the root's token)
    #[command(after_help = PREPARE_HELP)]
    Prepare(PrepareArgs),
    /// Let a prepared epoch sign from now on; the one that did retires
    Activate(StepArgs),
    /// Let an epoch sign no more: what it signed still verifies
    Retire(StepArgs),
    /// Have an epoch believed no more: a trust list without it (needs the root's token)
    #[command(after_help = REVOKE_HELP)]
    Revoke(RevokeArgs),
    /// Go on to the next epoch: one that is ready, or a new one (which needs the root's token)
    Rotate(RotateArgs),
    /// Name the root that is to follow: a trust list says so to cars (needs the root's token)
    RootName(ConsentArgs),
    /// Let the root that was named take over, once cars know it (needs its token)
    RootSucceed(ConsentArgs),
    /// List the signed records of every step, and check that none is missing
    Records(RecordsArgs),
    /// List proposals that wait for approval
    Proposals,
    /// Approve of what another operator has proposed: it takes effect
    Approve(ApproveArgs),
}

#[derive(Args)]
pub(super) struct PrepareArgs {
    /// How many for each token
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=63))]
    count: u32,
    /// For how long each is to be active [default: [epochs] rotate_every, or 366d]
    #[arg(long, value_name = "TIME", value_parser = sign::seconds)]
    every: Option<u64>,
    /// How much longer than that it may sign [default: [epochs] overlap]
    #[arg(long, value_name = "TIME", value_parser = sign::seconds)]
    overlap: Option<u64>,
    /// When the first may begin, RFC 3339 or now; when the last that is planned ends where absent
    #[arg(long, value_name = "T", value_parser = moment)]
    from: Option<UnixTime>,
    /// The window of one epoch, spelled out; once for each
    #[arg(long, value_name = "FROM/UNTIL", value_parser = window,
          conflicts_with_all = ["count", "every", "overlap", "from"])]
    window: Vec<(UnixTime, UnixTime)>,
    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Args)]
pub(super) struct StepArgs {
    /// The epoch, as `fob epoch list` names it
    #[arg(value_parser = epoch_id)]
    id: EpochId,
    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Args)]
pub(super) struct RevokeArgs {
    /// The epoch, as `fob epoch list` names it
    #[arg(value_parser = epoch_id)]
    id: EpochId,
    /// Then sign every live bundle of it again under the epochs that are active. Of an epoch that
    /// is revoked already, go on with that
    #[arg(long)]
    reissue: bool,
    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Args)]
pub(super) struct RotateArgs {
    /// Do not wait for one whose window opens later: make one that is active at once. Cars refuse
    /// its keys until they have the new trust list
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Who asks.
#[derive(Args)]
pub(super) struct ConsentArgs {
    /// Who does this [default: the user of this process]
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Propose it only, signed with this operator's private JWK: another one has to approve
    #[arg(long, value_name = "JWKFILE", requires = "operator")]
    key: Option<PathBuf>,
    /// How long the proposal stays open
    #[arg(long, value_name = "TIME", default_value = "7d", requires = "key", value_parser = sign::seconds)]
    open_for: u64,
}

#[derive(Args)]
pub(super) struct RecordsArgs {
    /// A root's public key to check the records by [default: D/root.cbor]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct ApproveArgs {
    /// The proposal's number
    proposal: u64,
    /// Who approves
    #[arg(long, value_name = "NAME")]
    operator: String,
    /// This operator's private JWK
    #[arg(long, value_name = "JWKFILE")]
    key: PathBuf,
}

pub(super) fn run(common: &Common, command: EpochCommand) -> anyhow::Result<()> {
    let config = place::configuration(common)?;
    let (step, consent) = match command {
        EpochCommand::List => return list(common, &config),
        EpochCommand::Status => return status(common, &config),
        EpochCommand::Records(args) => return list_records(common, &config, &args),
        EpochCommand::Proposals => return proposals(common, &config),
        EpochCommand::Approve(args) => return approve(common, &config, &args),
        EpochCommand::Prepare(args) => prepare(&config, args),
        EpochCommand::Activate(args) => (Step::Activate { epoch: args.id }, args.consent),
        EpochCommand::Retire(args) => (Step::Retire { epoch: args.id }, args.consent),
        EpochCommand::Revoke(args) => return revoke(common, &config, args),
        EpochCommand::Rotate(args) => (Step::Rotate { now: args.now }, args.consent),
        EpochCommand::RootName(consent) => (Step::NameRoot, consent),
        EpochCommand::RootSucceed(consent) => (Step::SucceedRoot, consent),
    };
    ask_for(common, &config, step, consent)
}

/// Takes a step, or proposes it where it is signed.
pub(super) fn ask_for(
    common: &Common,
    config: &Config,
    step: Step,
    consent: ConsentArgs,
) -> anyhow::Result<()> {
    let operator = consent.operator.unwrap_or_else(place::os_user);
    let Some(key) = consent.key else {
        let who = Who {
            operator,
            approval: None,
        };
        return print(common, &take(config, step, who)?, taken);
    };
    let now = SystemClock.unix();
    let jws = operator::sign_proposal(&key, &operator, step, now, consent.open_for)?;
    let Told::Taken(proposed) = told(config, Ask::Propose(jws))? else {
        bail!("the server answers another question");
    };
    let answer = json!({ "proposal": proposed.record });
    print(common, &answer, |_| {
        let number = proposed.record;
        format!(
            "proposed {number}; it needs another operator's approval:\n\
             fob epoch approve {number} --operator NAME --key JWKFILE"
        )
    })
}

/// Revokes an epoch, unless it is revoked already and its bundles are to be signed again.
fn revoke(common: &Common, config: &Config, args: RevokeArgs) -> anyhow::Result<()> {
    let (epoch, reissue) = (args.id, args.reissue);
    let proposed = args.consent.key.is_some();
    if !(reissue && is_revoked(config, epoch)?) {
        let step = Step::Revoke { epoch, reissue };
        ask_for(common, config, step, args.consent)?;
    }
    if reissue && !proposed {
        return reissue::run(common, config, &[epoch]);
    }
    if !proposed && !common.json {
        println!(
            "what it has signed is refused; `fob epoch revoke {epoch} --reissue` signs again what \
             of it is live"
        );
    }
    Ok(())
}

fn is_revoked(config: &Config, epoch: EpochId) -> anyhow::Result<bool> {
    let Told::Epochs(rows) = told(config, Ask::List)? else {
        bail!("the server answers another question");
    };
    let id = epoch.to_string();
    Ok(rows
        .iter()
        .any(|row| row.id == id && row.state == "revoked"))
}

fn prepare(config: &Config, args: PrepareArgs) -> (Step, ConsentArgs) {
    let schedule = &config.engine.schedule;
    let step = Step::Prepare {
        count: args.count,
        every_s: args.every.or(schedule.rotate_every_s).unwrap_or(ACTIVE_S),
        overlap_s: args.overlap.unwrap_or(schedule.overlap_s),
        from: args.from,
        windows: args.window,
    };
    (step, args.consent)
}

fn approve(common: &Common, config: &Config, args: &ApproveArgs) -> anyhow::Result<()> {
    let Told::Proposals(open) = told(config, Ask::Proposals)? else {
        bail!("the server answers another question");
    };
    let proposal = open
        .into_iter()
        .find(|one| one.proposal == args.proposal)
        .context("there is no such open proposal; see `fob epoch proposals`")?;
    let jws = operator::sign_approval(&args.key, &args.operator, &proposal, SystemClock.unix())?;
    let who = Who {
        operator: proposal.operator,
        approval: Some(Approval {
            proposal: proposal.proposal,
            jws,
        }),
    };
    let step = proposal.step;
    print(common, &take(config, step.clone(), who)?, taken)?;
    match step {
        Step::Revoke {
            epoch,
            reissue: true,
        } => reissue::run(common, config, &[epoch]),
        _ => Ok(()),
    }
}

fn list(common: &Common, config: &Config) -> anyhow::Result<()> {
    let Told::Epochs(rows) = told(config, Ask::List)? else {
        bail!("the server answers another question");
    };
    print(common, &rows, |rows| epochs(rows))
}

fn status(common: &Common, config: &Config) -> anyhow::Result<()> {
    let Told::Status(status) = told(config, Ask::Status)? else {
        bail!("the server answers another question");
    };
    print(common, &status, |status| standing(status))
}

fn proposals(common: &Common, config: &Config) -> anyhow::Result<()> {
    let Told::Proposals(rows) = told(config, Ask::Proposals)? else {
        bail!("the server answers another question");
    };
    print(common, &rows, |rows| waiting(rows))
}

fn list_records(common: &Common, config: &Config, args: &RecordsArgs) -> anyhow::Result<()> {
    let Told::Records(answer) = told(config, Ask::Records)? else {
        bail!("the server answers another question");
    };
    let path = args.root.clone();
    let path = path.unwrap_or_else(|| config.dir.join(place::ROOT_FILE));
    let root = IssuerKey::decode(&place::read(&path)?)
        .map_err(|why| anyhow!("{}: {why}", path.display()))?;
    let Records {
        records: texts,
        trust_version,
        epochs,
    } = *answer;
    let read = |text: &String| records::read(text).map_err(|why| anyhow!("a record: {why}"));
    let all = texts.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let shown = all.iter().zip(&texts);
    let shown: Vec<_> = shown
        .map(|(record, text)| {
            json!({ "record": record, "digest": records::digest(text), "jws": text })
        })
        .collect();
    print(common, &shown, |_| history(&all))?;
    let ends = Ends {
        epochs: &epochs,
        trust_version,
        root,
    };
    let checked = records::check(texts.iter().map(String::as_str), &ends);
    let held = checked.map_err(|(number, why)| anyhow!("record {number} does not hold: {why}"))?;
    ensure!(held.number == all.len() as u64, "records are missing");
    Ok(())
}

fn taken(taken: &Taken) -> String {
    let changed = taken.epochs.iter().map(|epoch| {
        let (id, state) = (epoch.id, &epoch.state);
        format!(
            "epoch {id} is {state}, from {} until {}",
            epoch.not_before, epoch.not_after
        )
    });
    let end = format!(
        "record {}, trust list {}",
        taken.record, taken.trust_version
    );
    changed.chain([end]).collect::<Vec<_>>().join("\n")
}

fn epochs(rows: &[EpochRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            row.state.clone(),
            row.algorithm.clone(),
            row.not_before.to_string(),
            row.not_after.to_string(),
            row.token_serial.clone(),
        ]
    });
    let header = ["ID", "STATE", "ALGORITHM", "FROM", "UNTIL", "TOKEN"];
    table(&header, &cells.collect::<Vec<_>>())
}

fn standing(status: &Status) -> String {
    let value = serde_json::to_value(status).unwrap_or_default();
    let mut text = super::operate::lines(&value);
    if status.epochs_low {
        text += "\n\nprepared epochs run low: `fob epoch prepare`, with the root's token at hand";
    }
    if !status.spare_keys.is_empty() {
        text +=
            "\n\na step was not finished: the next one that needs keys uses those that are spare";
    }
    text
}

fn waiting(rows: &[ProposalRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.proposal.to_string(),
            row.operator.clone(),
            row.expires.to_string(),
            step_text(&row.step),
        ]
    });
    let header = ["PROPOSAL", "OPERATOR", "UNTIL", "STEP"];
    table(&header, &cells.collect::<Vec<_>>())
}

fn history(all: &[Record]) -> String {
    let cells = all.iter().map(|record| {
        let changed = record.after.epochs.iter();
        let changed = changed.map(|note| format!("{} {}", note.id, note.state));
        let approved = record.who.approval.as_ref();
        vec![
            record.number.to_string(),
            Time(record.iat).to_string(),
            record.who.operator.clone(),
            approved.map_or_else(String::new, |it| format!("proposal {}", it.proposal)),
            step_text(&record.step),
            changed.collect::<Vec<_>>().join(", "),
        ]
    });
    let header = ["NUMBER", "WHEN", "WHO", "APPROVED", "STEP", "EPOCHS"];
    table(&header, &cells.collect::<Vec<_>>())
}

/// A step's name, and what it is about.
fn step_text(step: &Step) -> String {
    let name = |step: &Step| {
        let value = serde_json::to_value(step).unwrap_or_default();
        value["kind"].as_str().unwrap_or_default().to_owned()
    };
    match step {
        Step::Activate { epoch } | Step::Retire { epoch } | Step::Revoke { epoch, .. } => {
            format!("{} {epoch}", name(step))
        }
        Step::Propose { step, .. } => format!("propose {}", step_text(step)),
        Step::AddOperator(operator) => format!("{} {}", name(step), operator.name),
        Step::RemoveOperator { operator } => format!("{} {operator}", name(step)),
        _ => name(step),
    }
}

fn epoch_id(text: &str) -> Result<EpochId, String> {
    EpochId::parse(text).ok_or_else(|| "an epoch's id is 16 hexadecimal digits".into())
}

fn moment(text: &str) -> Result<UnixTime, String> {
    if text == "now" {
        return Ok(SystemClock.unix());
    }
    let time: Result<Time, _> = serde_json::from_value(Value::from(text));
    time.map(|Time(at)| at).map_err(|error| error.to_string())
}

fn window(text: &str) -> Result<(UnixTime, UnixTime), String> {
    let (from, until) = text
        .split_once('/')
        .ok_or("a window is FROM/UNTIL, each RFC 3339 or now")?;
    Ok((moment(from)?, moment(until)?))
}
