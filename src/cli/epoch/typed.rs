//! What is typed after `fob epoch`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::sign;
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Time;
use crate::domain::{EpochId, UnixTime};

/// The whole plan, in short.
pub(in crate::cli) const HELP: &str = "\
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
pub(in crate::cli) enum EpochCommand {
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
pub(in crate::cli) struct PrepareArgs {
    /// How many for each token
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=63))]
    pub(in crate::cli) count: u32,
    /// For how long each is to be active [default: [epochs] rotate_every, or 366d]
    #[arg(long, value_name = "TIME", value_parser = sign::seconds)]
    pub(in crate::cli) every: Option<u64>,
    /// How much longer than that it may sign [default: [epochs] overlap]
    #[arg(long, value_name = "TIME", value_parser = sign::seconds)]
    pub(in crate::cli) overlap: Option<u64>,
    /// When the first may begin, RFC 3339 or now; when the last that is planned ends where absent
    #[arg(long, value_name = "T", value_parser = moment)]
    pub(in crate::cli) from: Option<UnixTime>,
    /// The window of one epoch, spelled out; once for each
    #[arg(long, value_name = "FROM/UNTIL", value_parser = window,
          conflicts_with_all = ["count", "every", "overlap", "from"])]
    pub(in crate::cli) window: Vec<(UnixTime, UnixTime)>,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
}

#[derive(Args)]
pub(in crate::cli) struct StepArgs {
    /// The epoch, as `fob epoch list` names it
    #[arg(value_parser = epoch_id)]
    pub(in crate::cli) id: EpochId,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
}

#[derive(Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The epoch, as `fob epoch list` names it
    #[arg(value_parser = epoch_id)]
    pub(in crate::cli) id: EpochId,
    /// Then sign every live bundle of it again under the epochs that are active. Of an epoch that
    /// is revoked already, go on with that
    #[arg(long)]
    pub(in crate::cli) reissue: bool,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
}

#[derive(Args)]
pub(in crate::cli) struct RotateArgs {
    /// Do not wait for one whose window opens later: make one that is active at once. Cars refuse
    /// its keys until they have the new trust list
    #[arg(long)]
    pub(in crate::cli) now: bool,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
}

/// Who asks.
#[derive(Args)]
pub(in crate::cli) struct ConsentArgs {
    /// Who does this [default: the user of this process]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) operator: Option<String>,
    /// Propose it only, signed with this operator's private JWK: another one has to approve
    #[arg(long, value_name = "JWKFILE", requires = "operator")]
    pub(in crate::cli) key: Option<PathBuf>,
    /// How long the proposal stays open
    #[arg(long, value_name = "TIME", default_value = "7d", requires = "key", value_parser = sign::seconds)]
    pub(in crate::cli) open_for: u64,
}

#[derive(Args)]
pub(in crate::cli) struct RecordsArgs {
    /// A root's public key to check the records by [default: D/root.cbor]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) root: Option<PathBuf>,
}

#[derive(Args)]
pub(in crate::cli) struct ApproveArgs {
    /// The proposal's number
    pub(in crate::cli) proposal: u64,
    /// Who approves
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) operator: String,
    /// This operator's private JWK
    #[arg(long, value_name = "JWKFILE")]
    pub(in crate::cli) key: PathBuf,
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
