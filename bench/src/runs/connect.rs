//! `connect`: new devices of new profiles, until their sessions are open.

use std::time::Duration;

use serde_json::json;

use crate::allocations;
use crate::cluster::Target;
use crate::failure::Failure;
use crate::ledger::{histogram, record};
use crate::machines::{CONNECTING_MAX, Role};
use crate::process::Watched;
use crate::report::Report;
use crate::setup::{Setup, devices};

/// `connect`: how fast sessions open.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectRun {
    /// Devices that connect
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    count: u32,
    /// Devices that are connecting at the same time
    #[arg(long, value_name = "N", default_value_t = CONNECTING_MAX as u32, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    at_once: u32,
    #[command(flatten)]
    target: Target,
}

impl ConnectRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        let setup = Setup::new(&self.target, &[])?;
        let mut machines = setup.machines()?;
        let guests = devices("guest", self.count as usize, |_| Role::Guest)?;
        let mut watched = setup.watched()?;
        watched.iter_mut().for_each(Watched::begin);
        let (began, allocated) = (setup.clock.now(), allocations::count());
        machines.start_all(&guests, self.at_once as usize)?;
        let took = setup.clock.now().since(began);
        let allocations = allocations::count() - allocated;
        let used = watched.iter().filter_map(Watched::used).collect();
        let mut latency = histogram()?;
        machines.connect_times().for_each(|time: Duration| record(&mut latency, time));
        let mut report = Report::new("connect", setup.broker(), took, ("connect", self.count.into()));
        report.parameters = vec![("count", json!(self.count)), ("at_once", json!(self.at_once))];
        report.rates.push(("connects", f64::from(self.count) / took.as_secs_f64()));
        report.latencies.push(("session open", latency));
        (report.used, report.allocations) = (used, allocations);
        Ok(report)
    }
}
