//! `fob epoch`: the life of issuing epochs, their root and their records.

use anyhow::{Context, anyhow, bail, ensure};
use fob_verify::IssuerKey;
use serde_json::json;

use super::ceremony::{take, told};
use super::steps::{Ask, Records, Told};
use super::{Common, operator, place, print, reissue};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::record::{Approval, Who};
use crate::domain::{EpochId, Step};
use crate::engine::records::{self, Ends};
use crate::engine::rotate::ACTIVE_S;

mod shown;
mod typed;

use shown::{epochs, history, standing, taken, waiting};
use typed::{ApproveArgs, PrepareArgs, RecordsArgs, RevokeArgs};
pub(super) use typed::{ConsentArgs, EpochCommand, HELP};

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
