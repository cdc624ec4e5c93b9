//! Runs the tests that reach a mutant: first the fastest ones of its own module, which find most mutants,
//! then all the others in the order of their duration.

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

/// A mutant whose tests run longer than this counts as found, because they would not end. Tests that compute
/// without end are killed by their CPU limit ([`Stage::seconds`]), which a busy machine does not shorten.
const PATIENCE: Duration = Duration::from_secs(600);

/// The bounds of the groups in which tests are run together, by their duration without a mutant.
const QUICK: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(5), Duration::MAX];

/// These tests take long, and run only for mutants of the files that they test: slow disks, crashes, threads.
const LONG: [(&str, &str); 4] = [
    ("slow_disks::", "crates/log/src/replica/disk_pace.rs"),
    ("journal::", "crates/log/src/journal/"),
    ("server::interleavings::", "src/server/"),
    ("server::tests::", "src/server/"),
];

/// Some of the tests of one program.
struct Stage<'a> {
    program: &'a Path,
    tests: Vec<&'a str>,
    /// The CPU limit in seconds: several times what the tests take without a mutant.
    seconds: u64,
}

/// The outcome of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Found by this test, or by a run that did not end.
    Found(String),
    /// Every test that reaches it passed.
    Survived,
    /// No test reaches it.
    Unreached,
}

pub(crate) struct Trial {
    pub(crate) binaries: Binaries,
    /// The tests, by their duration.
    pub(crate) tests: Vec<Test>,
    pub(crate) seeds: u64,
    /// True if the output of the tests is printed.
    pub(crate) show: bool,
}

impl Trial {
    /// Tries every mutant, `jobs` at a time.
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
                for program in self.binaries.all() {
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

    /// Returns the first test that fails, if one does.
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

/// Returns the prefix of the names of a source's own tests: `replica::` for `crates/log/src/replica/log.rs`,
/// `links::` for `crates/log/src/links.rs`.
fn module_of(path: &str) -> String {
    let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
    let module = inside.rsplit_once('/').map_or(inside.trim_end_matches(".rs"), |(folder, _)| folder);
    format!("{}::", module.replace('/', "::"))
}

/// Ends the test process, whose outcome is known.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
