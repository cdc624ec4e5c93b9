//! The tests that come to a mutant, with it: the quickest of its own module first, which find most of them in
//! no time, then all the others by how long they take.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::plant::Mutant;
use crate::reach::Test;
use crate::tree::Binaries;

/// A mutant whose tests wait longer than this is found: they would not end. Those that compute for ever are ended
/// by their share of the processor ([`Stage::seconds`]), which a busy machine does not shorten.
const PATIENCE: Duration = Duration::from_secs(600);

/// Tests are tried together that take no longer than this without a mutant, then those up to the next.
const QUICK: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(5), Duration::MAX];

/// These tests take long, and are tried only on the files they are about.
const LONG: [(&str, &str); 2] = [("slow_disks::", "src/replica/disk_pace.rs"), ("journal::", "src/journal/")];

/// Some of the tests of one program.
struct Stage<'a> {
    program: &'a Path,
    tests: Vec<&'a str>,
    /// Of a core: several times what they take without a mutant.
    seconds: u64,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By this test, or by a run that did not end.
    Found(String),
    /// Every test that comes to it passed.
    Survived,
    /// No test comes to it.
    Unreached,
}

pub(crate) struct Trial {
    pub(crate) binaries: Binaries,
    /// By how long they take.
    pub(crate) tests: Vec<Test>,
    pub(crate) seeds: u64,
    /// Whether to print what the tests say.
    pub(crate) show: bool,
}

impl Trial {
    /// Every mutant, `jobs` at a time.
    pub(crate) fn all(&self, mutants: &[Mutant], jobs: usize) -> Result<BTreeMap<u32, Outcome>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new((BTreeMap::new(), Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = self.one(mutant);
                        let Ok(mut results) = results.lock() else { return };
                        match outcome {
                            Ok(outcome) => {
                                match outcome {
                                    Outcome::Found(_) => {}
                                    Outcome::Survived => eprintln!("survived: {mutant}"),
                                    Outcome::Unreached => eprintln!("no test comes to: {mutant}"),
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

    fn one(&self, mutant: &Mutant) -> Result<Outcome> {
        let stages = self.stages(mutant);
        if stages.is_empty() {
            return Ok(Outcome::Unreached);
        }
        for stage in stages {
            if let Some(test) = self.failure(&stage, mutant.number)? {
                return Ok(Outcome::Found(test));
            }
        }
        Ok(Outcome::Survived)
    }

    fn stages(&self, mutant: &Mutant) -> Vec<Stage<'_>> {
        let own = module_of(&mutant.path);
        let about_others = |test: &Test| {
            let long = LONG.iter().find(|(tests, _)| test.name.starts_with(tests));
            long.is_some_and(|(_, about)| !mutant.path.starts_with(about))
        };
        let (mut stages, mut from) = (Vec::new(), Duration::ZERO);
        for upto in QUICK {
            for of_module in [true, false] {
                for program in [&self.binaries.unit, &self.binaries.simulation] {
                    let chosen = self.tests.iter().filter(|test| {
                        test.reaches.contains(&mutant.place)
                            && (from..upto).contains(&test.took)
                            && test.program == *program
                            && !about_others(test)
                            && test.name.starts_with(&own) == of_module
                    });
                    let (mut tests, mut took) = (Vec::new(), Duration::ZERO);
                    for test in chosen {
                        tests.push(test.name.as_str());
                        took += test.took;
                    }
                    if !tests.is_empty() {
                        stages.push(Stage { program, tests, seconds: 10 + 5 * took.as_secs() });
                    }
                }
            }
            from = upto;
        }
        stages
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
            .arg("--exact")
            .args(&stage.tests)
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
