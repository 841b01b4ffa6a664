//! `fob demo`: the whole story on a terminal. A new issuer, its server, an owner, a borrower and a
//! car; a change, a revocation, a rotation.
//!
//! Nothing in it is played: the issuer is one of `fob init`, the server is `fob serve` as a process
//! of its own, the phones are those of `fob sign` and the car is that of `fob vehicle`. Each step
//! says what must come of it, and the command fails where the story does not hold.
//!
//! | room | what it does |
//! |---|---|
//! | `story` | the steps, in their order |
//! | `endings` | the later ones: an end, a sync, a rotation |
//! | `cast` | who takes part: the phones, the car, the way to the server |
//! | `house` | the issuer's folder and its server |
//! | `stage` | how a step is shown, and when the next one begins |

use clap::Args;

use super::Common;

mod cast;
mod endings;
mod house;
mod stage;
mod story;

use stage::{Pause, Stage};

pub(super) const HELP: &str = "\
The issuer is made in a folder of its own, which is removed at the end; with --dir D it is made in D, \
where none may be yet, and stays. Its keys are in SoftHSM.\n\n    \
    fob demo                straight through\n    \
    fob demo --pause        Enter goes on\n    \
    fob demo --pause 3      three seconds for each step\n    \
    fob demo --json         a line of JSON for each step";

#[derive(Args)]
pub(super) struct DemoArgs {
    /// Wait before each step: for Enter, or for so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "enter",
          value_parser = pause)]
    pause: Option<Pause>,
}

pub(super) fn run(common: &Common, args: &DemoArgs) -> anyhow::Result<()> {
    let house = house::House::new(common.dir_given.then_some(common.dir.as_path()))?;
    let stage = Stage::new(common.json, args.pause);
    story::tell(house, stage)
}

fn pause(text: &str) -> Result<Pause, String> {
    match text {
        "enter" => Ok(Pause::Enter),
        _ => text
            .parse()
            .map(Pause::Seconds)
            .map_err(|_| "a number of seconds, or nothing".into()),
    }
}
