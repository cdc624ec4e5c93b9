//! `catchup`: followers that were away read what has come meanwhile.

use std::time::Duration;

use recado_proto::id::Moment;
use serde_json::json;

use crate::allocations;
use crate::broker::{Broker, Observed};
use crate::cluster::{Setting, Target};
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::load;
use crate::machines::{CONNECTING_MAX, Role};
use crate::process::Watched;
use crate::report::Report;
use crate::setup::{Setup, devices, size};

/// The longest wait for the next notification.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages in flight while they are stored.
pub(crate) const STORE_WINDOW: usize = 256;

/// `catchup`: how fast a follower reads what is pending.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CatchupRun {
    /// Notifications pending
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    stored: u32,
    /// Followers that read them at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    followers: u32,
    /// Bytes of a message's body
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = size)]
    size: usize,
    #[command(flatten)]
    target: Target,
}

/// Settings under which the servers keep so many notifications of one topic.
pub(crate) fn keeping(stored: u32) -> Vec<Setting> {
    vec![
        ("\ncount = 10000\n", format!("\ncount = {}\n", u64::from(stored) + 10_000)),
        ("\nmib = 64\n", "\nmib = 768\n".to_owned()),
        ("\nall_mib = 512\n", "\nall_mib = 768\n".to_owned()),
    ]
}

impl CatchupRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        let setup = Setup::new(&self.target, &keeping(self.stored))?;
        let mut sender = setup.started_machines(1, 0, 0)?;
        // The followers follow, and leave before anything is sent.
        let followers = self.followers as usize;
        let mut before = setup.machines()?;
        before.start_all(&devices("follower", followers, Role::Follower)?, CONNECTING_MAX)?;
        before.disconnect()?;
        let away: Vec<_> = before.devices().cloned().zip((0..followers).map(Role::Returning)).collect();
        let stored = u64::from(self.stored);
        load::store(setup.clock, &mut sender, stored, STORE_WINDOW, self.size)?;

        let mut watched = setup.watched()?;
        watched.iter_mut().for_each(Watched::begin);
        let allocated = allocations::count();
        let began = setup.clock.now();
        let mut ledger = Ledger::new(1, followers, false, began..began + Duration::from_secs(86_400))?;
        (0..stored).for_each(|_| ledger.sent(0, began));
        let mut machines = setup.machines()?;
        machines.start_all(&away, CONNECTING_MAX)?;
        let mut observed: Vec<(Moment, Observed)> = std::mem::take(&mut machines.early);
        let mut seen_at = began;
        while !ledger.is_settled() && setup.clock.now().since(seen_at) < PATIENCE {
            for (at, what) in observed.drain(..) {
                seen_at = at;
                ledger.observe(at, what);
            }
            machines.turn(Duration::from_millis(50), &mut observed)?;
        }
        let took = seen_at.since(began);
        let used = watched.iter().filter_map(Watched::used).collect();
        let mut report = Report::new("catchup", setup.broker(), took, ("delivery", ledger.deliveries));
        report.parameters =
            vec![("stored", json!(self.stored)), ("followers", json!(followers)), ("size", json!(self.size))];
        report.rates.push(("deliveries", ledger.deliveries as f64 / took.as_secs_f64()));
        report.times.push(("until the first delivery", Duration::from_micros(ledger.delivery_latency.min())));
        report.times.push(("until the last delivery", took));
        report.checks = ledger.checks();
        (report.used, report.allocations) = (used, allocations::count() - allocated);
        Ok(report)
    }
}
