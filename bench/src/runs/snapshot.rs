//! `snapshot`: messages at a fixed rate while the servers write snapshots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use recado_proto::id::Moment;
use serde_json::json;

use crate::cluster::Target;
use crate::failure::Failure;
use crate::load::{self, Load, Pace};
use crate::report::Report;
use crate::runs::catchup::{STORE_WINDOW, keeping};
use crate::setup::{Setup, Timing};

/// The interval between two looks into the data directories.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// `snapshot`: what snapshots do to the latency.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SnapshotRun {
    /// Notifications stored before, which every snapshot holds
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    stored: u32,
    /// Messages a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Seconds between two snapshots of a server
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    every: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    timing: Timing,
}

impl SnapshotRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        self.target.must_be_ours()?;
        let mut settings = keeping(self.stored.max(100_000));
        settings.push(("every_s = 60", format!("every_s = {}", self.every)));
        let setup = Setup::new(&self.target, &settings)?;
        // Another sender, because a run numbers its messages from 0.
        let mut before = setup.started_machines(1, 0, 0)?;
        let Timing { size, .. } = self.timing;
        load::store(setup.clock, &mut before, self.stored.into(), STORE_WINDOW, size)?;
        before.disconnect()?;
        let mut machines = setup.started_machines(1, 0, 0)?;

        let mut snapshots = Snapshots { data: setup.cluster.data().collect(), ..Snapshots::default() };
        let measured = self.timing.measured();
        let (warm_up, pace) = (self.timing.before(), Pace::Open { rate: self.rate.into() });
        let load = Load { senders: 1, followers: 0, size, pace, warm_up, measured };
        let watched = setup.watched()?;
        let ran = load::run(setup.clock, &mut machines, load, watched, |now, ledger| {
            if snapshots.look(now)? {
                ledger.mark(now);
            }
            Ok(())
        })?;
        let mut report = Report::new("snapshot", setup.broker(), measured, ("send", ran.ledger.acks));
        report.parameters = vec![
            ("stored", json!(self.stored)),
            ("rate", json!(self.rate)),
            ("every_s", json!(self.every)),
            ("size", json!(size)),
        ];
        report.counts.push(("snapshots seen", snapshots.seen));
        report.times.push(("time in snapshots", snapshots.time));
        report.checks = ran.ledger.checks();
        report.latencies = vec![
            ("ack, in snapshots", ran.ledger.marked_latency),
            ("ack, outside", ran.ledger.unmarked_latency),
        ];
        (report.used, report.allocations) = (ran.used, ran.allocations);
        Ok(report)
    }
}

/// Snapshots that servers write, as their data directories show them: a server is in a snapshot while there
/// is a temporary file of one. That the file is read back afterwards shows nowhere.
#[derive(Debug, Default)]
struct Snapshots {
    data: Vec<PathBuf>,
    under_way: Vec<bool>,
    looked: Option<Moment>,
    seen: u64,
    time: Duration,
}

impl Snapshots {
    /// Looks, if the last look is long enough ago. Returns true if a snapshot is under way on any server.
    fn look(&mut self, now: Moment) -> Result<bool, Failure> {
        let since = self.looked.map_or(LOOK_EVERY, |looked| now.since(looked));
        let before = self.under_way.contains(&true);
        if since < LOOK_EVERY {
            return Ok(before);
        }
        self.looked = Some(now);
        if before {
            self.time += since;
        }
        let mut under_way = Vec::new();
        for data in &self.data {
            under_way.push(writes_snapshot(data)?);
        }
        let begun = |(at, now): (usize, &bool)| *now && !self.under_way.get(at).copied().unwrap_or_default();
        self.seen += under_way.iter().enumerate().filter(|pair| begun(*pair)).count() as u64;
        self.under_way = under_way;
        Ok(self.under_way.contains(&true))
    }
}

fn writes_snapshot(data: &Path) -> Result<bool, Failure> {
    let entries = std::fs::read_dir(data).map_err(Failure::io(data.display().to_string()))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.any(|name| name.to_string_lossy().starts_with("tmp.snap.")))
}
