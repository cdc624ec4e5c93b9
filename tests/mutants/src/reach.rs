//! Finds the places of mutants that each test reaches, and the duration of each test. A mutant is tried only
//! on the tests that reach it.
//!
//! Every test runs alone once, without a mutant, and writes the places that it reaches to `RECADO_REACHED`. A
//! test with other random numbers in each run may reach more. The score can therefore only be too low, never
//! too high: such a test might find a mutant that is counted as a survivor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::tree::Binaries;

/// Parts of the names of simulation tests that are not run: they test the simulator's own checkers, or other
/// tests find the same faster.
const LEFT_OUT: [&str; 6] = ["planted", "mistakes", "every_single", "grows", "replay", "a_long_run"];

/// A test, as it runs without a mutant.
#[derive(Debug)]
pub(crate) struct Test {
    /// The test program that contains it.
    pub(crate) program: PathBuf,
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// The first numbers of the places that it reaches.
    pub(crate) reaches: BTreeSet<u32>,
}

/// Runs each test alone, `jobs` at a time.
///
/// # Errors
/// A test fails without a mutant.
pub(crate) fn survey(binaries: &Binaries, seeds: u64, jobs: usize) -> Result<Vec<Test>> {
    let mut named = Vec::new();
    for program in binaries.all() {
        for name in names(program)? {
            if *program != binaries.simulation || !LEFT_OUT.iter().any(|part| name.contains(part)) {
                named.push((program.clone(), name));
            }
        }
    }
    eprintln!("{} tests are run alone, to see where they come to", named.len());
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Vec::new(), Vec::new()));
    std::thread::scope(|scope| {
        for job in 0..jobs {
            let (named, next, results) = (&named, &next, &results);
            scope.spawn(move || {
                let list = binaries.folder.join(format!("../reached.{job}"));
                while let Some((program, name)) = named.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let test = alone(binaries, program, name, seeds, &list);
                    let Ok(mut results) = results.lock() else { return };
                    match test {
                        Ok(test) => results.0.push(test),
                        Err(error) => results.1.push(error),
                    }
                }
            });
        }
    });
    let (mut tests, errors) = results.into_inner().unwrap_or_default();
    tests.sort_by_key(|test: &Test| test.took);
    for test in tests.iter().rev().take(12) {
        eprintln!("{:.1} s: {}, {} places", test.took.as_secs_f64(), test.name, test.reaches.len());
    }
    errors.into_iter().next().map_or(Ok(tests), Err)
}

fn names(program: &Path) -> Result<Vec<String>> {
    let listed = |more: &[&str]| -> Result<Vec<String>> {
        let output = Command::new(program).args(["--list", "--format", "terse"]).args(more).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = listed(&["--ignored"])?;
    Ok(listed(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
}

#[expect(clippy::disallowed_methods, reason = "it is no part of the library, whose clock this is")]
fn alone(binaries: &Binaries, program: &Path, name: &str, seeds: u64, list: &Path) -> Result<Test> {
    std::fs::write(list, "")?;
    let began = Instant::now();
    let output = Command::new(program)
        .args(["--exact", name])
        .current_dir(&binaries.folder)
        .env("RECADO_REACHED", list)
        .env("SIM_SEEDS", seeds.to_string())
        .output()?;
    let took = began.elapsed();
    ensure!(
        output.status.success(),
        "{name} must pass before a mutant is planted:\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let written = std::fs::read_to_string(list).with_context(|| list.display().to_string())?;
    let reaches = written.lines().map(str::parse).collect::<Result<_, _>>()?;
    Ok(Test { program: program.to_owned(), name: name.to_owned(), took, reaches })
}
