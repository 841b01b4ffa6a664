//! `fob-load`: an open-loop load client for `POST /v1/redemptions`.
//!
//! Arrivals are scheduled by the clock before the run begins, and each latency counts from the
//! moment its arrival was *due*: a server that stalls cannot slow its own test down and hide the
//! stall (coordinated omission). Client and server share the processors, so a request is finished
//! bytes before the clock starts and an answer is read only as far as the report needs.
//!
//! | room | what it does |
//! |---|---|
//! | [`prepare`], [`proof`] | code sets from the server, proofs signed, requests spelled out |
//! | [`schedule`], [`clock`] | when each arrival is due; waiting until then |
//! | [`pool`], [`connection`] | a bounded number of keep-alive connections; HTTP/1.1 on one |
//! | [`drive`], [`ledger`] | the loop; how each arrival ended |
//! | [`watch`] | the server's memory, CPU and queue, once a second |
//! | [`report`], [`answer`] | figures from the ledger; the check of a sample of answers |
//! | [`redeem`], [`search`], [`overload`] | the three modes |
//!
//! Deliberately not here: starting a server (`loadtest/run` does), TLS, verifying signatures.

use std::process::ExitCode;

mod answer;
mod clock;
mod command_line;
mod connection;
mod drive;
mod ledger;
mod overload;
mod pool;
mod prepare;
mod proof;
mod redeem;
mod report;
mod schedule;
mod search;
mod target;
mod watch;

fn main() -> ExitCode {
    match command_line::run() {
        Ok(true) => ExitCode::SUCCESS,
        // Made, but not valid: the report says why.
        Ok(false) => ExitCode::from(99),
        Err(error) => {
            eprintln!("fob-load: {error:#}");
            ExitCode::from(2)
        }
    }
}
