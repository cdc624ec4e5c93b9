//! The deterministic simulation: production code on virtual time, from one seed.
//!
//! | to read | about |
//! |---|---|
//! | `world`, `schedule` | a run, and its events to come |
//! | `server`, `storage`, `disk` | one server: node, delivery, journal, and its deaths |
//! | `server::threads` | the time that its threads take for their work, and the queues before them |
//! | `client` | one client: the library's machine and an application |
//! | `network` | loss, delay and duplication of datagrams, and cut links |
//! | `faults`, `fault_execution` | the faults planned from the seed, and their effects |
//! | `retry_forger` | an attacker that forges RETRY |
//! | `swarm` | the other parameters of each seed: bounds, sizes, requests |
//! | `population` | the servers and clients that they give |
//! | `rng` | the generator that every choice is drawn from |
//! | `invariants`, `ledger`, `nonces` | the properties that hold after each event |
//! | `tap` | opens sealed datagrams for the trace and the checks |
//! | `history`, `checkers`, `rights`, `copies`, `values` | what clients saw, and the checks of it |
//! | `replay`, `name_ownership` | the actions in the log, and the ownership of names |
//! | `coverage` | the situations that the runs met |
//! | `scenario` | transcripts in `scenarios/*.txt` |
//! | `slow_disks` | elections with slow disks |
//! | `overload` | clients that ask for more than servers can do |
//! | `lossy_queries` | queries over a network that loses much |
//! | `one_shot` | round trips and log entries of a one-shot command |
//! | `journal` | the journal alone, on a disk that crashes and rots |
//! | `runs` | many seeds on all cores, and the planted bugs that they must find |
//!
//! `SIM_SEED=8123 cargo test --test sim -- replay --nocapture` plays one seed with its trace;
//! `SIM_PLANTED=3` beside it switches a planted bug on, `SIM_TRACE=40000` prints so
//! many lines. `SIM_SEEDS` and `SIM_FIRST` choose other seeds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod checkers;
mod client;
mod coverage;
mod disk;
mod fault_execution;
mod faults;
mod history;
mod invariants;
mod journal;
mod ledger;
mod lossy_queries;
mod name_ownership;
mod network;
mod nonces;
mod one_shot;
mod overload;
mod population;
mod reader;
mod replay;
mod restarted_backups;
mod retry_forger;
mod rng;
mod runs;
mod scenario;
mod schedule;
mod server;
mod slow_disks;
mod storage;
mod swarm;
mod tap;
mod values;
mod world;

use std::path::Path;

use recado::config::Planted;

use runs::{PLANTED, from_environment, play, replay_command, run_and_report};

#[test]
fn two_thousand_seeds_hold_every_promise() {
    let seeds = from_environment("SIM_SEEDS").unwrap_or(2_000);
    run_and_report(from_environment("SIM_FIRST").unwrap_or(0), seeds);
}

#[test]
#[ignore = "takes as long as SIM_SEEDS says"]
fn a_long_run_of_seeds_holds_every_promise() {
    run_and_report(
        from_environment("SIM_FIRST").unwrap_or(0),
        from_environment("SIM_SEEDS").unwrap_or(50_000),
    );
}

/// Replays the seed in `SIM_SEED`, if it is set.
#[test]
fn replay() {
    let Some(seed) = from_environment("SIM_SEED") else { return };
    let planted =
        from_environment("SIM_PLANTED").and_then(|number| PLANTED.get(number as usize - 1).copied());
    match play(seed, planted, true) {
        Ok(report) => println!("seed {seed}: {report:?}"),
        Err((why, trace)) => panic!("{}\nseed {seed}: {why}", trace.join("\n")),
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || format!("{:?}", play(7, None, false));
    assert_eq!(run(), run());
}

#[test]
fn planted_bugs_are_found() {
    let only = from_environment("SIM_PLANTED");
    let mut missed: Vec<Planted> = Vec::new();
    for (number, bug) in (1..).zip(PLANTED.iter().copied()) {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        match runs::first_found(bug) {
            Some((seed, why)) => println!("{number:>2} {bug:?}: found at seed {seed}: {why}"),
            None => {
                println!("{number:>2} {bug:?}: NOT FOUND");
                missed.push(bug);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}; see {}", replay_command(0));
}

#[test]
fn the_scenarios_tell_the_expected_stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let failures: Vec<String> = paths.iter().filter_map(|path| scenario::play(path).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
