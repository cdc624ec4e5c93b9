//! `sessions`: many devices that listen: what they cost the servers, and how soon the next primary serves
//! them.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use recado_proto::id::Moment;
use recado_sys::clock::MachineClock;
use recado_sys::threads::spawn_named;
use serde_json::json;

use crate::allocations;
use crate::broker::Broker as _;
use crate::cluster::{Cluster, Setting, Target};
use crate::failure::Failure;
use crate::ledger::{histogram, record};
use crate::machines::{Machines, Role};
use crate::process::{Watched, raise_file_limit};
use crate::report::Report;
use crate::setup::{Setup, devices, seconds};

/// Devices that connect at the same time.
const CONNECTING: usize = 256;
/// The rest before memory is read, and before the idle time begins: confirmations, cursors and entries are on
/// their way.
const REST: Duration = Duration::from_secs(1);
/// The longest wait for a further session to be served again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interval between two looks at who is served again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Files of this process that are no sockets of devices, at most.
const OTHER_FILES: u64 = 100;

/// `sessions`: many sessions that listen.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SessionsRun {
    /// Profiles, each with a device and a session
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    count: u32,
    /// Feeds that each of them follows
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=100))]
    follows: u16,
    /// Seconds in which nothing happens
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    idle: f64,
    #[command(flatten)]
    target: Target,
}

/// Settings under which the servers let so many devices of this machine in as fast as they can.
fn letting_in() -> Vec<Setting> {
    let many = |name: &str| format!("\n{name} = 1000000\n");
    [
        ("\nhandshakes_per_s = 500\n", "handshakes_per_s"),
        ("\nhandshakes_burst = 1000\n", "handshakes_burst"),
        ("\nnetwork_handshakes_per_s = 200\n", "network_handshakes_per_s"),
        ("\nnetwork_handshakes_burst = 400\n", "network_handshakes_burst"),
    ]
    .map(|(before, name)| (before, many(name)))
    .into()
}

impl SessionsRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        self.target.must_be_ours()?;
        if self.target.servers == 2 {
            return Err(Failure::Usage("of 2 servers the other one does not serve alone".into()));
        }
        if u32::from(self.follows) >= self.count {
            return Err(Failure::Usage(
                "nobody follows its own feed: more sessions, or fewer follows".into(),
            ));
        }
        if let Some(limit) = raise_file_limit().filter(|limit| *limit < u64::from(self.count) + OTHER_FILES) {
            return Err(Failure::Usage(format!(
                "the system lets this program open {limit} files (ulimit -Hn)"
            )));
        }
        let setup = Setup::new(&self.target, &letting_in())?;
        let mut machines = setup.machines()?;
        let mut watched = setup.watched()?;
        let resident = |watched: &[Watched]| watched.iter().map(Watched::resident_kib).collect::<Vec<_>>();
        let before = resident(&watched);
        let count = u64::from(self.count);

        let began = setup.clock.now();
        machines.start_all(&devices("listener", self.count as usize, |_| Role::Listener)?, CONNECTING)?;
        let connected = setup.clock.now().since(began);
        let began = setup.clock.now();
        machines.follow_each_other(self.follows.into())?;
        let followed = setup.clock.now().since(began);

        rest(&setup, &mut machines, REST)?;
        let after = resident(&watched);
        watched.iter_mut().for_each(Watched::begin);
        let (allocated, idle) = (allocations::count(), Duration::from_secs_f64(self.idle));
        rest(&setup, &mut machines, idle)?;
        let used = watched.iter().filter_map(Watched::used).collect();
        let allocated = allocations::count() - allocated;

        let mut report = Report::new("sessions", setup.broker(), idle, ("session", count));
        report.parameters =
            vec![("count", json!(self.count)), ("follows", json!(self.follows)), ("idle", json!(self.idle))];
        (report.used, report.allocations) = (used, allocated);
        report.rates.push(("connects", count as f64 / connected.as_secs_f64()));
        if self.follows > 0 {
            let follows = count * u64::from(self.follows);
            report.rates.push(("follows", follows as f64 / followed.as_secs_f64()));
        }
        let grown = before.iter().zip(&after).map(|pair| match pair {
            (Some(before), Some(after)) => after.saturating_sub(*before) * 1024 / count,
            _ => 0,
        });
        // The primary is the first process, and this one the last.
        let grown: Vec<u64> = grown.take(setup.cluster.len()).collect();
        if let Some((primary, backups)) = grown.split_first() {
            report.counts.push(("resident B/session, primary", *primary));
            let backup = backups.iter().sum::<u64>().checked_div(backups.len() as u64);
            report.counts.extend(backup.map(|bytes| ("resident B/session, a backup", bytes)));
        }

        let Outage { ended, ready } = outage(setup, &mut machines, self.count as usize)?;
        let from = ready.unwrap_or(ended);
        let mut times = histogram()?;
        let served = machines.served_times().filter(|at| *at >= ended);
        served.for_each(|at| record(&mut times, at.since(from)));
        for (name, quantile) in [("50 % served", 0.5), ("99 % served", 0.99), ("all served", 1.0)] {
            report.times.push((name, Duration::from_micros(times.value_at_quantile(quantile))));
        }
        report.times.extend(ready.map(|ready| ("from the kill to ready", ready.since(ended))));
        report.checks.lost = count - times.len();
        report.latencies.push(("until served again", times));
        Ok(report)
    }
}

/// Lets the machines do what they have to, and nothing else, for a time.
fn rest(setup: &Setup, machines: &mut Machines, time: Duration) -> Result<(), Failure> {
    let until = setup.clock.now() + time;
    while setup.clock.now() < until {
        machines.turn(until.since(setup.clock.now()), &mut Vec::new())?;
    }
    Ok(())
}

/// The end of a primary.
struct Outage {
    /// When it was killed.
    ended: Moment,
    /// When a server was first seen to serve as primary, if it is the same one.
    ready: Option<Moment>,
}

/// Kills the primary, which starts again at once if there is no other server, and waits until all sessions
/// are served, or none more is for long.
fn outage(setup: Setup, machines: &mut Machines, count: usize) -> Result<Outage, Failure> {
    let Setup { clock, cluster, .. } = setup;
    let (kill, killed) = channel();
    let (finish, finished) = channel();
    let killing = spawn_named("kill", move || {
        // A receiver that is gone has failed already.
        let _ = finish.send(kill_primary(cluster, clock, &kill));
    })
    .map_err(Failure::io("a thread"))?;
    let (mut ended, mut done) = (None, None);
    let (mut served, mut served_at) = (0, clock.now());
    loop {
        let until = clock.now() + LOOK_EVERY;
        while clock.now() < until {
            machines.turn(until.since(clock.now()), &mut Vec::new())?;
        }
        if let Ok(result) = finished.try_recv() {
            done = Some(result?);
        }
        ended = ended.or_else(|| killed.try_recv().ok());
        let Some(ended) = ended else { continue };
        let now_served = machines.served_times().filter(|at| *at >= ended).count();
        if now_served > served {
            (served, served_at) = (now_served, clock.now());
        }
        let is_over = served == count || clock.now().since(served_at) >= PATIENCE;
        if let Some((_, ready)) = done.as_ref().filter(|_| is_over) {
            killing.join();
            return Ok(Outage { ended, ready: *ready });
        }
    }
}

/// Kills the primary, and reports when. If it is the only server, starts it again, and returns when it
/// serves. The servers go on until the cluster is dropped.
fn kill_primary(
    mut cluster: Cluster,
    clock: MachineClock,
    killed: &Sender<Moment>,
) -> Result<(Cluster, Option<Moment>), Failure> {
    let primary = cluster.primary()?;
    let _ = killed.send(clock.now());
    cluster.kill(primary)?;
    if cluster.len() > 1 {
        return Ok((cluster, None));
    }
    cluster.restart(primary)?;
    cluster.wait_ready()?;
    Ok((cluster, Some(clock.now())))
}
