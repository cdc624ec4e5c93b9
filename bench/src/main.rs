//! `recado-bench`: measures recado, and its peers with the same loops.
//!
//! It starts servers of its own, in a temporary directory, or measures those of `--server`. A closed loop
//! keeps a number of messages in flight; an open loop sends at fixed times, and a latency counts from the
//! time that its message was due. Participants are blocking clients, as programs use them, or client machines
//! in one thread, where thousands are needed.
//!
//! Reading order: `runs`, then `load` (the loops), `ledger` (every message), `broker` (what is measured),
//! `machines` and `clients` (recado), `peers`, `cluster`, `process`, `report`.

mod allocations;
mod broker;
mod clients;
mod cluster;
mod failure;
mod interrupt;
mod ledger;
mod load;
mod machines;
mod peers;
mod process;
mod progress;
mod report;
mod runs;
mod setup;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use report::Report;
use runs::catchup::CatchupRun;
use runs::connect::ConnectRun;
use runs::failover::FailoverRun;
use runs::overload::OverloadRun;
use runs::sessions::SessionsRun;
use runs::snapshot::SnapshotRun;
use runs::steady::{FanoutRun, PacedRun, SendRun};

/// Measures recado: throughput, latency, CPU and memory
#[derive(Debug, Parser)]
#[command(name = "recado-bench", version, after_help = failure::EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print the result as one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Acknowledged messages, each device with so many in flight
    Send(SendRun),
    /// One sender and many followers of a channel
    Fanout(FanoutRun),
    /// Messages at a fixed rate, whatever becomes of them
    Paced(PacedRun),
    /// Kills the primary while messages are sent, and measures the pauses
    Failover(FailoverRun),
    /// New devices of new profiles
    Connect(ConnectRun),
    /// Many sessions: memory, CPU while idle, and the time to recover from the death of their primary
    Sessions(SessionsRun),
    /// Twice as many messages as the servers take, against half as many
    Overload(OverloadRun),
    /// Followers that were away read what is pending
    Catchup(CatchupRun),
    /// Messages at a fixed rate while the servers write snapshots
    Snapshot(SnapshotRun),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = interrupt::watch().and_then(|()| match &arguments.command {
        Command::Send(run) => run.run(),
        Command::Fanout(run) => run.run(),
        Command::Paced(run) => run.run(),
        Command::Failover(run) => run.run(),
        Command::Connect(run) => run.run(),
        Command::Sessions(run) => run.run(),
        Command::Overload(run) => run.run(),
        Command::Catchup(run) => run.run(),
        Command::Snapshot(run) => run.run(),
    });
    match measured.and_then(|report| print(&report, arguments.json).map(|()| report)) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("recado-bench: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    let text = if json { format!("{}\n", report.json()) } else { report.table() };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::io("standard output"))
}
