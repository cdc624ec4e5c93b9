//! `cargo run -p recado-mutants -- run`: plants mutants in the protocol's sources, one at a time, and counts
//! those that the tests find.
//!
//! A *mutant* is a small change of one expression or statement: `<` for `<=`, a value for a function's body,
//! a statement left out. All are compiled into **one** build, each behind a number; a test process activates
//! the mutant whose number is in `RECADO_MUTANT`. A mutant then costs one run of the tests and no build,
//! which makes thousands of them affordable.
//!
//! | to read | about |
//! |---|---|
//! | `sites` | the possible mutants of a source |
//! | `plant` | the source with all mutants in it |
//! | `tree` | a copy of the workspace, built |
//! | `reach` | the places that each test reaches |
//! | `trial` | runs those tests, once for each mutant |
//! | `survivors` | the mutants that no test need find, each with a reason |
//!
//! The copy is under `target/mutants`; the workspace itself is never written.

#![forbid(unsafe_code)]

mod plant;
mod reach;
mod sites;
mod survivors;
mod tree;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use plant::Mutant;
use trial::{Outcome, Trial};

/// The folders and files whose sources are mutated: the protocol, and the code that its promises depend on.
const MODULES: [&str; 7] = [
    "crates/log/src/bully.rs",
    "crates/log/src/bully",
    "crates/log/src/replica",
    "crates/log/src/journal",
    "crates/log/src/links.rs",
    "crates/service/src",
    "crates/client/src/machine",
];

/// The share of the mutants that must be found, in percent.
const FLOOR: f64 = 95.0;

/// Plants mutants in the protocol's sources and counts those that the tests find.
#[derive(Parser)]
#[command(name = "recado-mutants")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the possible mutants of the sources.
    List {
        /// Only in files whose path begins with this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Builds, runs the tests for each mutant, and prints the score of each module.
    Run {
        /// Only in files whose path begins with this.
        #[arg(long, default_value = "")]
        only: String,
        /// Every n-th mutant, from the k-th on: `k/n`.
        #[arg(long, default_value = "0/1", value_parser = shard)]
        shard: (usize, usize),
        /// Only this one, and prints the output of its tests.
        #[arg(long)]
        mutant: Option<u32>,
        /// Only those whose numbers follow a word and a colon in this file, as an earlier run printed them.
        #[arg(long)]
        again: Option<PathBuf>,
        /// Number of simulation seeds for each mutant that no other test finds.
        #[arg(long, default_value_t = 300)]
        seeds: u64,
        /// Number of mutants tried at a time; all cores by default.
        #[arg(long)]
        jobs: Option<usize>,
    },
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(k, n)| k < n).ok_or_else(|| "a shard is k/n, with k from 0 to n - 1".to_owned())
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    match Arguments::parse().command {
        Command::List { only } => {
            for mutant in plant::all(&root, &MODULES, &only)?.mutants {
                println!("{mutant}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { only, shard, mutant, again, seeds, jobs } => {
            let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
            run(&root, &Choice { only, shard, mutant, again }, seeds, jobs.unwrap_or(1))
        }
    }
}

/// The mutants to try.
struct Choice {
    only: String,
    shard: (usize, usize),
    mutant: Option<u32>,
    again: Option<PathBuf>,
}

impl Choice {
    fn of(&self, viable: Vec<Mutant>) -> Result<Vec<Mutant>> {
        let (first, step) = self.shard;
        let listed = self.again.as_ref().map(std::fs::read_to_string).transpose()?;
        let listed: Option<BTreeSet<u32>> = listed.map(|text| text.lines().filter_map(number_in).collect());
        let chosen = viable.into_iter().skip(first).step_by(step).filter(|mutant| {
            self.mutant.is_none_or(|number| number == mutant.number)
                && listed.as_ref().is_none_or(|listed| listed.contains(&mutant.number))
        });
        Ok(chosen.collect())
    }
}

/// Parses the number in a line like `survived: 17 crates/...`.
fn number_in(line: &str) -> Option<u32> {
    line.split_once(": ")?.1.split(' ').next()?.parse().ok()
}

fn run(root: &Path, choice: &Choice, seeds: u64, jobs: usize) -> Result<ExitCode> {
    let planted = plant::all(root, &MODULES, &choice.only)?;
    eprintln!("{} mutants fit the sources; building them", planted.mutants.len());
    let (viable, binaries) = tree::build(root, planted)?;
    let chosen = choice.of(viable)?;
    eprintln!("{} of those that compile are tried, {jobs} at a time", chosen.len());
    let tests = reach::survey(&binaries, seeds, jobs)?;
    let found = Trial { binaries, tests, seeds, show: choice.mutant.is_some() }.all(&chosen, jobs)?;
    let known = survivors::read(&root.join("tests/mutants/survivors.txt"))?;
    Ok(report(&chosen, &found, &known))
}

/// Prints a line for each module, and the survivors. Fails below the floor, and for a survivor without a
/// reason.
fn report(chosen: &[Mutant], found: &BTreeMap<u32, Outcome>, known: &survivors::Known) -> ExitCode {
    let mut modules: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut unexplained = 0;
    println!("\nsurvivors:");
    for mutant in chosen {
        let module = MODULES.iter().find(|module| mutant.path.starts_with(**module)).copied().unwrap_or("");
        let (caught, all) = modules.entry(module).or_default();
        *all += 1;
        match found.get(&mutant.number) {
            Some(Outcome::Found(_)) => *caught += 1,
            Some(Outcome::Survived | Outcome::Unreached) | None => match known.reason(mutant) {
                Some(reason) => println!("  {mutant}\n      {reason}"),
                None => {
                    unexplained += 1;
                    println!("  {mutant}");
                }
            },
        }
    }
    println!("\n| module | mutants | found | |\n|---|---|---|---|");
    let mut sum = (0, 0);
    for (module, (caught, all)) in &modules {
        sum = (sum.0 + caught, sum.1 + all);
        println!("| {module} | {all} | {caught} | {:.1} % |", percent(*caught, *all));
    }
    println!("| all | {} | {} | {:.1} % |", sum.1, sum.0, percent(sum.0, sum.1));
    if percent(sum.0, sum.1) >= FLOOR && unexplained == 0 {
        return ExitCode::SUCCESS;
    }
    println!(
        "{unexplained} survivors stand in no line of tests/mutants/survivors.txt; the floor is {FLOOR} %"
    );
    ExitCode::FAILURE
}

fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}
