//! A copy of the workspace under `target/mutants`, with the mutants planted, and built.
//!
//! Not every mutant that is valid syntax passes the type check. The sites at which the compiler reports
//! errors are removed until there are none: their mutants are not viable and do not count.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::plant::{Mutant, Planted, RUNTIME, Rewritten, rewrite};

/// The limit of rounds of removal. The compiler checks types first, and borrows only once the types are
/// right.
const ROUNDS_MAX: usize = 20;

/// The crates whose unit tests are run. Those with mutants come first.
const CRATES: [&str; 4] = ["recado-log", "recado-service", "recado-client", "recado"];

/// The root of a crate with mutants, to which the code that activates them is appended.
const ROOTS: [&str; 3] = ["crates/log/src/lib.rs", "crates/service/src/lib.rs", "crates/client/src/lib.rs"];

/// The test programs.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// The unit tests of each crate.
    pub(crate) units: Vec<PathBuf>,
    /// The simulation.
    pub(crate) simulation: PathBuf,
    /// The folder in which tests run: the copy's root.
    pub(crate) folder: PathBuf,
}

impl Binaries {
    pub(crate) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.units.iter().chain([&self.simulation])
    }
}

/// Plants the mutants and builds. Returns the mutants that compile.
pub(crate) fn build(root: &Path, planted: Planted) -> Result<(Vec<Mutant>, Binaries)> {
    let folder = root.join("target/mutants/tree");
    copy(root, &folder, &planted)?;
    let refusals = Refusals::of(&folder, &planted);
    let mut without = refusals.read();
    for _ in 0..ROUNDS_MAX {
        let rewritten = write(&folder, &planted, &without)?;
        let refused = refused(&folder, &rewritten)?;
        if refused.is_empty() {
            refusals.write(&without)?;
            let viable = planted.mutants.into_iter().filter(|mutant| {
                let places = &planted.sources[&mutant.path].sites;
                let at = places.partition_point(|(first, _)| *first <= mutant.number);
                at > 0 && !without.contains(&places[at - 1].0)
            });
            return Ok((viable.collect(), binaries(&folder)?));
        }
        without.extend(refused);
    }
    bail!("after {ROUNDS_MAX} rounds the compiler still refuses something")
}

/// A file with the sites that the compiler refused at the last build of these sources. A copy that is written
/// without them at once equals the one that was built, and need not be built again.
struct Refusals {
    path: PathBuf,
    sources: u64,
}

impl Refusals {
    fn of(folder: &Path, planted: &Planted) -> Refusals {
        let mut sources = std::hash::DefaultHasher::new();
        for (path, source) in &planted.sources {
            (path, &source.text).hash(&mut sources);
        }
        Refusals { path: folder.join("../refused"), sources: sources.finish() }
    }

    /// Returns nothing if the file is for other sources.
    fn read(&self) -> BTreeSet<u32> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let mut lines = text.lines();
        match lines.next() == Some(self.sources.to_string().as_str()) {
            true => lines.filter_map(|number| number.parse().ok()).collect(),
            false => BTreeSet::new(),
        }
    }

    fn write(&self, refused: &BTreeSet<u32>) -> Result<()> {
        let numbers: Vec<String> = refused.iter().map(u32::to_string).collect();
        let text = format!("{}\n{}\n", self.sources, numbers.join("\n"));
        std::fs::write(&self.path, text).with_context(|| self.path.display().to_string())
    }
}

fn copy(root: &Path, folder: &Path, planted: &Planted) -> Result<()> {
    let all = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").arg("-C").arg(root).args(all).output()?;
    for path in String::from_utf8(listed.stdout)?.lines() {
        let from = root.join(path);
        if planted.sources.contains_key(path) || !from.is_file() {
            continue;
        }
        let mut bytes = std::fs::read(&from).with_context(|| path.to_owned())?;
        if ROOTS.contains(&path) {
            bytes.extend_from_slice(RUNTIME.as_bytes());
        }
        write_if_other(&folder.join(path), &bytes)?;
    }
    Ok(())
}

/// Writes a file only if its content differs, because cargo compares modification times.
fn write_if_other(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

fn write(folder: &Path, planted: &Planted, without: &BTreeSet<u32>) -> Result<Vec<(String, Rewritten)>> {
    let mut written = Vec::new();
    for (path, source) in &planted.sources {
        let rewritten = rewrite(source, &|number| without.contains(&number));
        let numbers = rewritten.text.matches('\n').count() == source.text.matches('\n').count();
        ensure!(numbers, "{path} got other lines");
        let mut bytes = rewritten.text.clone().into_bytes();
        if ROOTS.contains(&path.as_str()) {
            bytes.extend_from_slice(RUNTIME.as_bytes());
        }
        write_if_other(&folder.join(path), &bytes)?;
        written.push((path.clone(), rewritten));
    }
    Ok(written)
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("../target")).stderr(Stdio::inherit());
    // Warnings in the mutated sources are irrelevant.
    cargo.env("RUSTFLAGS", "--cap-lints allow");
    cargo
}

/// Returns the first numbers of the sites at which the compiler reports errors.
fn refused(folder: &Path, rewritten: &[(String, Rewritten)]) -> Result<BTreeSet<u32>> {
    let checked = cargo(folder)
        .args(["check", "--quiet", "--lib", "--tests", "--message-format=json"])
        .args(CRATES.iter().flat_map(|name| ["-p", name]))
        .output()?;
    let mut refused = BTreeSet::new();
    let mut unplaced = Vec::new();
    for message in messages(&checked.stdout) {
        let message = &message["message"];
        if message["level"] != "error" || message["spans"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        let mut places = Vec::new();
        message["spans"].as_array().into_iter().flatten().for_each(|span| collect(span, &mut places));
        let sites: Vec<u32> = places.iter().filter_map(|(path, at)| site_at(rewritten, path, *at)).collect();
        if sites.is_empty() {
            unplaced.push(message["rendered"].as_str().unwrap_or_default().to_owned());
        }
        refused.extend(sites);
    }
    ensure!(checked.status.success() || !refused.is_empty(), "cannot mend:\n{}", unplaced.join("\n"));
    Ok(refused)
}

/// Collects the position of a span, and of the macro calls from which it was expanded.
fn collect(span: &Value, places: &mut Vec<(String, usize)>) {
    if let (Some(path), Some(at)) = (span["file_name"].as_str(), span["byte_start"].as_u64()) {
        places.push((path.to_owned(), at as usize));
    }
    if span["expansion"].is_object() {
        collect(&span["expansion"]["span"], places);
    }
}

/// Returns the first number of the innermost site at this position.
fn site_at(rewritten: &[(String, Rewritten)], path: &str, at: usize) -> Option<u32> {
    let (_, rewritten) = rewritten.iter().find(|(known, _)| known == path)?;
    let around = rewritten.places.iter().filter(|(range, ..)| range.contains(&at));
    around.min_by_key(|(range, ..)| range.len()).map(|(_, number, _)| *number)
}

fn messages(output: &[u8]) -> impl Iterator<Item = Value> + '_ {
    output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

fn binaries(folder: &Path) -> Result<Binaries> {
    let built = cargo(folder)
        .args(["test", "--no-run", "--quiet", "--lib", "--test", "sim", "--message-format=json"])
        .args(CRATES.iter().flat_map(|name| ["-p", name]))
        .output()?;
    ensure!(built.status.success(), "the copy in {} does not build", folder.display());
    let program = |name: &str| {
        let name = name.replace('-', "_");
        messages(&built.stdout)
            .filter(|message| message["target"]["name"] == *name && message["profile"]["test"] == true)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("the build made no test program {name}"))
    };
    let units = CRATES.iter().map(|name| program(name)).collect::<Result<_>>()?;
    Ok(Binaries { units, simulation: program("sim")?, folder: folder.to_owned() })
}
