//! `fob hook`: the key that signs what others are asked before keys are issued.

use anyhow::ensure;
use clap::Subcommand;
use serde_json::Value;

use super::{Common, jwk, place, print};
use crate::hook::thumbprint;

pub(super) const HELP: &str = "\
A fleet may have another server asked before it issues. That server knows this one by the key made \
here, which signs questions and nothing else:

  fob hook init                     # makes D/hook.jwk and prints its public half
  fob hook key > fob-hook.jwk       # prints the public half again, for whoever is asked

Whom this server may ask stands in its configuration, host by host, and is in force when it starts:

  [hook]
  allow = [\"checks.example.com:443\"]

A fleet then names one of them in its rules (PUT /v1/rules), with the functions it is asked about.";

#[derive(Subcommand)]
pub(super) enum HookCommand {
    /// Make the key, once, and print its public half as a JWK
    Init,
    /// Print the public half of the key as a JWK
    Key,
}

pub(super) fn run(common: &Common, command: &HookCommand) -> anyhow::Result<()> {
    let file = place::configuration(common)?.hook_key;
    let pair = match command {
        HookCommand::Init => {
            ensure!(
                !file.exists(),
                "{} exists: whoever is asked knows this server by it; `fob hook key` prints its \
                 public half",
                file.display()
            );
            let pair = jwk::generate()?;
            let text = format!("{}\n", jwk::private_json(&pair, None));
            place::write_private(&file, text.as_bytes())?;
            pair
        }
        HookCommand::Key => jwk::read(&file)?.0,
    };
    let mut public = jwk::public_json(&pair);
    public["kid"] = thumbprint(&pair).into();
    public["alg"] = "ES256".into();
    public["use"] = "sig".into();
    print(common, &public, Value::to_string)
}
