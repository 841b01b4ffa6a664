//! What `fob epoch` says to those who read it.

use crate::cli::operate;
use crate::cli::steps::{EpochRow, ProposalRow, Status, Taken};
use crate::cli::table;
use crate::domain::time::Time;
use crate::domain::{Record, Step};

pub(super) fn taken(taken: &Taken) -> String {
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

pub(super) fn epochs(rows: &[EpochRow]) -> String {
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

pub(super) fn standing(status: &Status) -> String {
    let value = serde_json::to_value(status).unwrap_or_default();
    let mut text = operate::lines(&value);
    if status.epochs_low {
        text += "\n\nprepared epochs run low: `fob epoch prepare`, with the root's token at hand";
    }
    if !status.spare_keys.is_empty() {
        text +=
            "\n\na step was not finished: the next one that needs keys uses those that are spare";
    }
    text
}

pub(super) fn waiting(rows: &[ProposalRow]) -> String {
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

pub(super) fn history(all: &[Record]) -> String {
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
