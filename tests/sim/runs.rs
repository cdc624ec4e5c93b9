//! Many seeds on all cores, one world a thread, each as deterministic as alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use recado::config::Planted;

use crate::faults::Plan;
use crate::world::{self, Breach, Report};

/// The mistakes that seeds find. Those of the journal alone, its tests find (`journal`).
pub const PLANTED: [Planted; 15] = [
    Planted::AckOnReceipt,
    Planted::CommitOlderView,
    Planted::KeepOwnLog,
    Planted::PromiseNotDurable,
    Planted::RestartAsPrimary,
    Planted::DuplicatesOnlyCommitted,
    Planted::CursorJumps,
    Planted::ApplyNotDeterministic,
    Planted::EmptyDiskVotes,
    Planted::CorruptionIsTornTail,
    Planted::RecastCuts,
    Planted::SnapshotUncommitted,
    Planted::DigestUnchecked,
    Planted::DigestsNotInSnapshot,
    Planted::ForgottenIsSilence,
];

/// A number from the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What to type to see a seed again.
pub fn replay_command(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test --test sim -- replay --nocapture")
}

/// Plays one seed. A panic in the code under test is a failure like any other.
///
/// # Errors
/// What does not hold, and the last of the trace.
pub fn play(seed: u64, planted: Option<Planted>, tracing: bool) -> Result<Report, (Breach, Vec<String>)> {
    catch_unwind(AssertUnwindSafe(|| world::run(Plan::draw(seed, planted), tracing))).unwrap_or_else(
        |panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err((Breach::Safety(format!("panic: {}", text.unwrap_or_default())), Vec::new()))
        },
    )
}

/// Plays seeds on all cores until `stop` wants no more; gives reports and failures by seed.
fn spread(
    first: u64,
    count: u64,
    planted: Option<Planted>,
    stop_at_failure: bool,
) -> (Vec<Report>, Vec<(u64, Breach)>) {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let reports = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    match play(seed, planted, false) {
                        Ok(report) => reports.lock().unwrap().push(report),
                        Err((why, _)) => {
                            failures.lock().unwrap().push((seed, why));
                            stop.fetch_or(stop_at_failure, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    (reports.into_inner().unwrap(), failures)
}

/// Plays `count` seeds and panics with how to replay those that fail.
pub fn many(first: u64, count: u64) {
    let (reports, failures) = spread(first, count, None, false);
    let sum = |part: fn(&Report) -> u64| reports.iter().map(part).sum::<u64>();
    println!(
        "{} seeds held: {} events, {} s of virtual time, {} ops, {} acknowledged, {} delivered",
        reports.len(),
        sum(|report| report.events),
        sum(|report| report.virtual_ms) / 1000,
        sum(|report| report.ops),
        sum(|report| report.acked as u64),
        sum(|report| report.delivered as u64),
    );
    for (seed, why) in failures.iter().take(20) {
        println!("seed {seed}: {why}\n    {}", replay_command(*seed));
    }
    assert!(failures.is_empty(), "{} of {count} seeds failed", failures.len());
}

/// The first seed below `count` that shows the mistake and holds without it, and how it shows: by what
/// must never happen, or, for the mistakes that only leave something out, by what never comes.
pub fn first_found(count: u64, bug: Planted) -> Option<(u64, Breach)> {
    let leaves_out = matches!(bug, Planted::CursorJumps | Planted::ForgottenIsSilence);
    let shows = |breach: &Breach| leaves_out || matches!(breach, Breach::Safety(_));
    let mut from = 0;
    while from < count {
        let (_, failures) = spread(from, count - from, Some(bug), true);
        let (seed, breach) = failures.into_iter().next()?;
        if shows(&breach) && play(seed, None, false).is_ok() {
            return Some((seed, breach));
        }
        from = seed + 1;
    }
    None
}
