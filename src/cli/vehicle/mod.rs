//! `fob vehicle`: a car to try things with. It is provisioned with the root's public key, its
//! vehicle id and its fleet's id, keeps what it knows in one file, and is offline unless told to
//! sync.
//!
//! | room | what it does |
//! |---|---|
//! | `state` | the file, and what the car remembers in it |
//! | `act` | what the car does: gives challenges, takes lists, opens functions |
//! | `car` | the file's contents as the car that `fob-verify` asks |
//! | `carried` | what a phone brings: keys, and lists beside them |
//! | `sync` | the way to the server |

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use fob_verify::region::Position;
use serde_json::{Value, json};

use super::link::Server;
use super::{Common, place, print};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{FleetId, VehicleId};

pub(super) mod act;
mod car;
pub(super) mod carried;
mod state;
pub(super) mod sync;

pub(super) use state::File;

#[derive(Subcommand)]
pub(super) enum VehicleCommand {
    /// Provision a car: its file, and a key of its own to be registered
    Init(InitArgs),
    /// What the car knows and remembers
    Show(StateArgs),
    /// Ask the car for a challenge; it is good for one attempt
    Challenge(ChallengeArgs),
    /// Show the car what a phone carries: a bundle with lists beside it, a trust list, status lists
    Take(TakeArgs),
    /// Open a function with a key and a use proof
    Open(OpenArgs),
    /// Connect the car to the server
    Sync(SyncArgs),
}

#[derive(Args)]
pub(super) struct StateArgs {
    /// The car's file
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
}

#[derive(Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The root's public key, as `fob init` leaves it in D/root.cbor
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The car's vehicle id
    #[arg(long, value_name = "ID", value_parser = vehicle_id)]
    vehicle: String,
    /// Its fleet's id, as `fob fleet list` prints it
    #[arg(long, value_name = "ID", value_parser = fleet_id)]
    fleet: FleetId,
    /// By how many seconds its clock may be wrong
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    uncertainty: u32,
}

#[derive(Args)]
pub(super) struct When {
    /// What the car's clock shows, RFC 3339; now where absent
    #[arg(long, value_name = "T")]
    at: Option<jiff::Timestamp>,
}

#[derive(Args)]
pub(super) struct ChallengeArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    when: When,
}

#[derive(Args)]
pub(super) struct TakeArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    when: When,
    /// A bundle (the JSON of an answer with staple=true), a trust list or a status list
    #[arg(required = true, value_name = "FILE")]
    objects: Vec<PathBuf>,
}

#[derive(Args)]
pub(super) struct OpenArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    when: When,
    /// The function, by name
    #[arg(long, value_name = "NAME")]
    function: String,
    /// A key (CBOR or base64url) or a bundle (JSON); lists beside a bundle are shown first
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The use proof (CBOR or base64url; - is standard input)
    #[arg(long, value_name = "FILE")]
    proof: PathBuf,
    /// Where the car is: latitude and longitude in degrees
    #[arg(long, num_args = 2, value_names = ["LAT", "LON"], allow_negative_numbers = true)]
    position: Option<Vec<f64>>,
}

#[derive(Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    when: When,
    /// The server's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8650")]
    server: String,
    /// The CA to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

pub(super) fn run(common: &Common, command: VehicleCommand) -> anyhow::Result<()> {
    match command {
        VehicleCommand::Init(args) => init(common, &args),
        VehicleCommand::Show(args) => show(common, &args),
        VehicleCommand::Challenge(args) => challenge(common, &args),
        VehicleCommand::Take(args) => take(common, &args),
        VehicleCommand::Open(args) => open(common, &args),
        VehicleCommand::Sync(args) => {
            let mut file = File::open(&args.state.state)?;
            let server = Server::new(&args.server, args.ca.as_deref())?;
            let applied = sync::run(&mut file, &server, now(&args.when)?)?;
            let answer = json!({
                "vehicle": file.state.vehicle,
                "vehicle_epoch": file.state.vehicle_epoch,
                "status_lists": applied.lists,
                "trust_version": applied.trust_version,
            });
            print(common, &answer, |_| {
                format!(
                    "{} knows vehicle epoch {}, trust list {} and {} status lists",
                    file.state.vehicle,
                    file.state.vehicle_epoch,
                    applied.trust_version,
                    applied.lists
                )
            })
        }
    }
}

fn init(common: &Common, args: &InitArgs) -> anyhow::Result<()> {
    let root = place::read(&args.root)?;
    let car = (args.vehicle.as_str(), args.fleet);
    let jwk = act::provision(&args.state.state, car, root, args.uncertainty)
        .with_context(|| args.root.display().to_string())?;
    let answer = json!({ "vehicle": args.vehicle, "jwk": jwk });
    print(common, &answer, |answer| answer["jwk"].to_string())
}

fn show(common: &Common, args: &StateArgs) -> anyhow::Result<()> {
    let file = File::open(&args.state)?;
    let shown = file.state.shown();
    print(common, &shown, |shown| {
        serde_json::to_string_pretty(shown).unwrap_or_default()
    })
}

fn challenge(common: &Common, args: &ChallengeArgs) -> anyhow::Result<()> {
    let mut file = File::open(&args.state.state)?;
    let octets = act::challenge(&mut file, now(&args.when)?)?;
    let text = BASE64_URL_SAFE_NO_PAD.encode(octets);
    print(common, &json!({ "challenge": text }), |_| text.clone())
}

fn take(common: &Common, args: &TakeArgs) -> anyhow::Result<()> {
    let mut file = File::open(&args.state.state)?;
    let now = now(&args.when)?;
    let mut outcomes = Vec::new();
    for path in &args.objects {
        let carried =
            carried::read(&place::read(path)?).with_context(|| path.display().to_string())?;
        outcomes.extend(carried::take(&mut file, &carried, now)?);
    }
    let lines: Vec<Value> = outcomes.iter().map(carried::Outcome::json).collect();
    print(common, &lines, |_| {
        let lines: Vec<_> = outcomes.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn open(common: &Common, args: &OpenArgs) -> anyhow::Result<()> {
    let mut file = File::open(&args.state.state)?;
    let now = now(&args.when)?;
    let pending = act::spend_challenge(&mut file, now)?;
    let carried =
        carried::read(&place::read(&args.key)?).with_context(|| args.key.display().to_string())?;
    let key = carried.key_of(&args.function)?.to_vec();
    let proof = carried::octets(&place::read(&args.proof)?)
        .with_context(|| args.proof.display().to_string())?;
    let position = args.position.as_deref().map(position).transpose()?;
    // What does not help is no reason to refuse: the key may open all the same.
    carried::take(&mut file, &carried, now)?;
    let answer = act::open(&mut file, (&key, &proof), &pending, position, now)?;
    let verdict = match answer {
        Ok(code) => json!({ "opened": true, "function": args.function, "code": code }),
        Err(why) => json!({
            "opened": false,
            "function": args.function,
            "refusal": why.code(),
            "why": why.text(),
        }),
    };
    print(common, &verdict, |_| match answer {
        Ok(_) => format!("{}: {} is done", file.state.vehicle, args.function),
        Err(why) => format!("{}: no {}: {why}", file.state.vehicle, args.function),
    })?;
    match answer {
        Ok(_) => Ok(()),
        Err(why) => bail!("the car refuses: {}", why.code()),
    }
}

fn now(when: &When) -> anyhow::Result<u64> {
    match when.at {
        Some(at) => u64::try_from(at.as_second()).context("--at lies before 1970"),
        None => Ok(SystemClock.unix()),
    }
}

fn position(degrees: &[f64]) -> anyhow::Result<Position> {
    let e7 = |at: usize| {
        let degrees = degrees.get(at).copied().unwrap_or(f64::NAN);
        // What is out of range saturates, and is then refused like what is no number.
        if degrees.is_nan() {
            i32::MAX
        } else {
            (degrees * 1e7).round() as i32
        }
    };
    Position::new(e7(0), e7(1)).map_err(|_| anyhow!("--position is no place on earth"))
}

fn vehicle_id(text: &str) -> Result<String, String> {
    let id = VehicleId::parse(text).map_err(|_| "1 to 32 of A-Z a-z 0-9 - _ .".to_owned())?;
    Ok(id.to_string())
}

fn fleet_id(text: &str) -> Result<FleetId, String> {
    FleetId::parse(text).ok_or_else(|| "a UUID".to_owned())
}
