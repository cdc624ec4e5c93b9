//! The tests, once a mutant: the unit tests of its module first, which find most of them in no time, then the
//! simulation, then what takes long.

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

/// A mutant whose tests wait longer than this is found: they would not end. Those that compute for ever are ended
/// by their share of the processor ([`Stage::seconds`]), which a busy machine does not shorten.
const PATIENCE: Duration = Duration::from_secs(600);

/// Some of the tests.
struct Stage<'a> {
    program: &'a Path,
    arguments: &'a [&'a str],
    /// Of a core: several times what they take without a mutant.
    seconds: u32,
}

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
        for module in ["replica::", "journal::"] {
            let outcome = self.one(0, module)?;
            ensure!(outcome == Outcome::Survived, "{outcome:?}");
        }
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
                        let outcome = self.one(mutant.number, &module_of(&mutant.path));
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

    fn one(&self, number: u32, module: &str) -> Result<Outcome> {
        let Binaries { unit, simulation, .. } = &self.binaries;
        let of_module = [module];
        let of_others = ["--skip", module];
        let stage = |program, arguments, seconds| Stage { program, arguments, seconds };
        // In the order of what they find for a second of a core.
        let mut stages = vec![
            stage(unit, &of_module[..], 10),
            stage(simulation, &["scenarios"], 10),
            stage(simulation, &["two_thousand"], 10 + self.seeds as u32 / 2),
            stage(unit, &of_others[..], 80),
        ];
        match module {
            "journal::" => {
                let slow = ["journal", "--skip", "mistakes", "--skip", "every_single"].as_slice();
                stages.push(stage(simulation, slow, 300));
            }
            "replica::" => {
                let slow = ["slow_disks", "--skip", "planted", "--skip", "grows"].as_slice();
                stages.push(stage(simulation, slow, 300));
            }
            _ => {}
        }
        for stage in stages {
            if let Some(test) = self.failure(&stage, number)? {
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
    fn failure(&self, stage: &Stage<'_>, number: u32) -> Result<Option<String>> {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -t {}; exec \"$0\" \"$@\"", stage.seconds)])
            .arg(stage.program)
            .args(stage.arguments)
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

/// What the names of a source's own tests begin with: `service::` for `src/service/apply.rs`.
fn module_of(path: &str) -> String {
    let folder = path.trim_start_matches("src/").rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{}::", folder.replace('/', "::"))
}

/// Its outcome is known, whatever becomes of it.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
