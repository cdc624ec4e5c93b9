//! `failover`: the primary is killed while messages are sent at a fixed rate.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use recado_sys::threads::spawn_named;
use serde_json::json;

use crate::cluster::{Cluster, Target};
use crate::failure::Failure;
use crate::ledger::{histogram, record};
use crate::load::{self, Load, Pace};
use crate::process::Watched;
use crate::report::Report;
use crate::setup::{Setup, Through, Timing, through, written};

/// `failover`: the longest pause that anybody sees.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FailoverRun {
    /// Messages a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Devices that send, in turn
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    devices: u16,
    /// Followers of the one channel
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    followers: u32,
    /// How often the primary is killed; it is started again before the next one is
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    kills: u32,
    /// The kind of client [default: client for up to 16 participants, else machines]
    #[arg(long, value_enum)]
    through: Option<Through>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    timing: Timing,
}

impl FailoverRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        self.target.must_be_ours()?;
        if self.target.servers < 3 {
            return Err(Failure::Usage("fewer than 3 servers do not survive the death of one".into()));
        }
        let followers = self.followers as usize;
        let through = through(self.through, usize::from(self.devices) + followers);
        let setup = Setup::new(&self.target, &[])?;
        let mut participants = setup.participants(through, self.devices, followers, 0)?;
        let Setup { clock, cluster, .. } = setup;
        let broker = format!("recado, {} servers", cluster.len());
        // The time of one kill, with what comes after it.
        let Timing { size, .. } = self.timing;
        let measured = self.timing.measured() * self.kills;
        let (warm_up, pace) = (self.timing.before(), Pace::Open { rate: self.rate.into() });
        let load = Load { senders: self.devices, followers, size, pace, warm_up, measured };

        let (kill, killed) = channel();
        let (stop, stopped) = channel::<()>();
        let (end, ended) = channel();
        let (kills, every) = (self.kills, self.timing.measured());
        let killing = spawn_named("kill", move || {
            // Receivers gone: the run has failed already.
            let _ = end.send(kill_primaries(cluster, &kill, &stopped, kills, warm_up, every));
        })
        .map_err(Failure::io("a thread"))?;
        let mut pauses = Vec::new();
        let ran = load::run(clock, &mut *participants, load, vec![Watched::this()], |_, ledger| {
            // What ends before the first kill is no pause of a failover.
            killed.try_iter().for_each(|()| pauses.push(ledger.take_pauses()));
            Ok(())
        });
        drop(stop);
        killing.join();
        let _cluster = ended.recv().map_err(|_| Failure::Other("no kill was tried".into()))??;
        let mut ran = ran?;
        pauses.push(ran.ledger.take_pauses());

        let (mut of_senders, mut of_followers) = (histogram()?, histogram()?);
        for (sender, follower) in pauses.iter().skip(1) {
            record(&mut of_senders, *sender);
            record(&mut of_followers, *follower);
        }
        let mut report = Report::new("failover", broker, measured, ("send", ran.ledger.acks));
        report.parameters = vec![
            ("senders", json!(self.devices)),
            ("followers", json!(followers)),
            ("rate", json!(self.rate)),
            ("size", json!(size)),
            ("through", json!(written(through))),
        ];
        report.counts.push(("kills", pauses.len() as u64 - 1));
        report.times.push(("longest pause, senders", Duration::from_micros(of_senders.max())));
        report.times.push(("longest pause, followers", Duration::from_micros(of_followers.max())));
        report.latencies = vec![
            ("pause of a kill, senders", of_senders),
            ("pause of a kill, followers", of_followers),
            ("ack", ran.ledger.ack_latency.clone()),
            ("delivery", ran.ledger.delivery_latency.clone()),
        ];
        report.checks = ran.ledger.checks();
        (report.used, report.allocations) = (ran.used, ran.allocations);
        Ok(report)
    }
}

/// Kills the primary `kills` times, the first time after `warm_up`, and starts it again as soon as the others
/// serve. Returns the cluster with its last victim restarted, or sooner if the run stops.
fn kill_primaries(
    mut cluster: Cluster,
    kill: &Sender<()>,
    stopped: &Receiver<()>,
    kills: u32,
    warm_up: Duration,
    every: Duration,
) -> Result<Cluster, Failure> {
    let mut wait = warm_up + every / 4;
    for _ in 0..kills {
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        let primary = cluster.primary()?;
        let _ = kill.send(());
        cluster.kill(primary)?;
        // The victim comes back only when the pause is over.
        if stopped.recv_timeout(every / 2) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        cluster.restart(primary)?;
        cluster.wait_ready()?;
        wait = every / 2;
    }
    Ok(cluster)
}
