//! Runs many seeds on all cores, one world in each thread, each as deterministic as alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use recado::config::Planted;

use crate::coverage::Coverage;
use crate::faults::Plan;
use crate::world::{self, Report, Violation};

/// The planted bugs that seeds must find; the first twelve have their numbers in DESIGN.md section 8. The
/// other planted bugs have their own tests: in `journal` and `slow_disks`, and among the unit tests of
/// recado-log, recado-service and the node (`long_start`).
pub const PLANTED: &[Planted] = &[
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
    Planted::LogTimeGoesBack,
    Planted::SessionsUnknownAfterInstall,
    Planted::ResultsNotInSnapshot,
    Planted::TrimForgotten,
    Planted::UnfollowKeepsFollower,
    Planted::FollowFromBirth,
    Planted::CursorBeyondAcknowledged,
    Planted::MissedUnheeded,
    Planted::LearnerVotesEarly,
    Planted::LearnerCounts,
    Planted::ServesBeforeViewStart,
    Planted::CommitBeyondMatched,
    Planted::AckUnmatched,
    Planted::OwnWriteCounts,
    Planted::StaleCompletionCounts,
    Planted::MatchedSurvivesView,
    Planted::FetchStopsShort,
    Planted::ForgetsOneResultTooMany,
    Planted::NumbersOutliveView,
    Planted::DigestUnchecked,
    Planted::DigestsNotInSnapshot,
    Planted::ForgottenIsSilence,
    Planted::InviteTwice,
    Planted::AdministersTwice,
    Planted::NonceNotKept,
    Planted::ToldBeforeSync,
    Planted::FollowSeenLate,
    Planted::KeyOutlivesPhase,
    Planted::CoalescedDropped,
    Planted::SegmentMisnumbered,
    Planted::SessionUnflushed,
    Planted::RetractedTextStays,
    Planted::AnybodyRetracts,
    Planted::RetractionUntold,
    Planted::RetractedTextSent,
    Planted::DeletedChannelKeepsTexts,
    Planted::AnswersBehindToken,
    Planted::AnswersUnconfirmed,
    Planted::StaleTimestampPasses,
    Planted::NullBehindToken,
    Planted::DeletedValueStays,
];

/// The planted bugs that only omit something, so that only a liveness check finds them.
const ONLY_LIVENESS: &[Planted] = &[
    Planted::CursorJumps,
    Planted::MissedUnheeded,
    Planted::ForgetsOneResultTooMany,
    Planted::NumbersOutliveView,
    Planted::ForgottenIsSilence,
    Planted::KeyOutlivesPhase,
    Planted::CoalescedDropped,
    Planted::SessionUnflushed,
];

/// The number of seeds that it may take to find a planted bug: a few of each theme, more for those that need
/// a rare mix.
pub fn seeds_to_find(bug: Planted) -> u64 {
    match bug {
        Planted::CommitOlderView
        | Planted::DigestUnchecked
        | Planted::InviteTwice
        | Planted::NonceNotKept
        | Planted::TrimForgotten
        | Planted::AckUnmatched
        | Planted::MatchedSurvivesView
        | Planted::StaleCompletionCounts
        | Planted::NumbersOutliveView => 600,
        Planted::ToldBeforeSync | Planted::AnswersUnconfirmed => 2_000,
        _ => 100,
    }
}

/// A number from the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The command that replays a seed.
pub fn replay_command(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test --test sim -- replay --nocapture")
}

/// Runs one seed. A panic in the code under test counts as a failure.
///
/// # Errors
/// The violated invariant, and the last lines of the trace.
pub fn play(seed: u64, planted: Option<Planted>, tracing: bool) -> Result<Report, (Violation, Vec<String>)> {
    recado_proto::noise::simulate_x25519();
    catch_unwind(AssertUnwindSafe(|| world::run(Plan::draw(seed, planted), tracing))).unwrap_or_else(
        |panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err((Violation::Safety(format!("panic: {}", text.unwrap_or_default())), Vec::new()))
        },
    )
}

/// Runs seeds on all cores until one fails, if `stop_at_failure`, or all are done. Returns reports, and
/// failures by seed.
fn run_seeds(
    first: u64,
    count: u64,
    planted: Option<Planted>,
    stop_at_failure: bool,
) -> (Vec<Report>, Vec<(u64, Violation)>) {
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

/// The number of seeds that must meet every situation.
const LONG: u64 = 2_000;

/// Runs `count` seeds. Panics with the commands that replay those that fail.
pub fn run_and_report(first: u64, count: u64) {
    let (reports, failures) = run_seeds(first, count, None, false);
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
    let mut met = Coverage::default();
    reports.iter().for_each(|report| met.add(&report.met));
    println!("met: {met}");
    let mut pauses: Vec<u64> = reports.iter().map(|report| report.pause).filter(|pause| *pause > 0).collect();
    pauses.sort_unstable();
    if let (Some(middle), Some(longest)) = (pauses.get(pauses.len() / 2), pauses.last()) {
        let number = pauses.len();
        println!("{number} pauses: {} ms in the middle, {} ms at most", middle / 1000, longest / 1000);
    }
    for (seed, why) in failures.iter().take(20) {
        println!("seed {seed}: {why}\n    {}", replay_command(*seed));
    }
    assert!(failures.is_empty(), "{} of {count} seeds failed", failures.len());
    let missing = met.missing();
    assert!(count < LONG || missing.is_empty(), "{count} seeds never met {missing:?}");
}

/// Returns the first seed that finds the planted bug and holds without it, and the breach: a safety
/// violation, or a liveness violation for the few planted bugs that only omit something.
pub fn first_found(bug: Planted) -> Option<(u64, Violation)> {
    let count = seeds_to_find(bug);
    let shows = |breach: &Violation| ONLY_LIVENESS.contains(&bug) || matches!(breach, Violation::Safety(_));
    let mut from = 0;
    while from < count {
        let (_, failures) = run_seeds(from, count - from, Some(bug), true);
        let (seed, breach) = failures.into_iter().next()?;
        if shows(&breach) && play(seed, None, false).is_ok() {
            return Some((seed, breach));
        }
        from = seed + 1;
    }
    None
}
