//! The tests, once a mutant: the unit tests first, which take seconds, then the simulation.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::plant::Mutant;
use crate::tree::Binaries;

/// A mutant that makes the tests run longer than this is found: they would not end.
const PATIENCE: Duration = Duration::from_secs(180);

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By this test, or by a run that did not end.
    Found(String),
    /// Every test passed.
    Survived,
}

pub(crate) struct Hunt {
    pub(crate) binaries: Binaries,
    pub(crate) seeds: u64,
    /// Whether to print what the tests say.
    pub(crate) show: bool,
}

impl Hunt {
    /// Without a mutant, everything passes.
    pub(crate) fn holds_without_any(&self) -> Result<()> {
        let outcome = self.one(0)?;
        ensure!(outcome == Outcome::Survived, "{outcome:?}");
        Ok(())
    }

    /// Every mutant, `jobs` at a time.
    pub(crate) fn all(&self, mutants: &[Mutant], jobs: usize) -> Result<BTreeMap<u32, Outcome>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new((BTreeMap::new(), Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = self.one(mutant.number);
                        let Ok(mut results) = results.lock() else { return };
                        match outcome {
                            Ok(outcome) => {
                                if outcome == Outcome::Survived {
                                    eprintln!("survived: {mutant}");
                                }
                                results.0.insert(mutant.number, outcome);
                            }
                            Err(error) => return results.1.push(error),
                        }
                        if results.0.len() % 50 == 0 {
                            eprintln!("{} of {}", results.0.len(), mutants.len());
                        }
                    }
                });
            }
        });
        let (found, errors) = results.into_inner().unwrap_or_default();
        errors.into_iter().next().map_or(Ok(found), Err)
    }

    fn one(&self, number: u32) -> Result<Outcome> {
        let stages: [(&Path, &[&str]); 3] = [
            (&self.binaries.unit, &[]),
            (&self.binaries.simulation, &["scenarios", "journal", "slow_disks"]),
            (&self.binaries.simulation, &["two_thousand"]),
        ];
        for (program, arguments) in stages {
            if let Some(test) = self.failure(program, arguments, number)? {
                return Ok(Outcome::Found(test));
            }
        }
        Ok(Outcome::Survived)
    }

    /// The first test that fails, if one does.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is no part of the library, whose clock and threads these are"
    )]
    fn failure(&self, program: &Path, arguments: &[&str], number: u32) -> Result<Option<String>> {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(&self.binaries.folder)
            .env("RECADO_MUTANT", number.to_string())
            .env("SIM_SEEDS", self.seeds.to_string())
            .stdout(Stdio::piped())
            .stderr(if self.show { Stdio::inherit() } else { Stdio::null() })
            .spawn()?;
        let Some(stdout) = child.stdout.take() else { return Ok(None) };
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let began = Instant::now();
        loop {
            match told.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(line) => {
                    if self.show {
                        println!("{line}");
                    }
                    let failed = line.strip_suffix(" ... FAILED").and_then(|test| test.strip_prefix("test "));
                    if let Some(test) = failed {
                        end(&mut child);
                        return Ok(Some(test.to_owned()));
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    end(&mut child);
                    return Ok(Some("a run that does not end".to_owned()));
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    let passed = child.wait()?.success();
                    return Ok((!passed).then(|| "an abort".to_owned()));
                }
            }
        }
    }
}

/// Its outcome is known, whatever becomes of it.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
