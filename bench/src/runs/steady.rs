//! The measurements of load: `send`, `fanout` and `paced`.

use clap::ValueEnum as _;
use recado_sys::clock::MachineClock;
use serde_json::json;

use crate::broker::Broker;
use crate::cluster::Target;
use crate::failure::Failure;
use crate::load::{self, Load, Pace};
use crate::peers::{Kind, Peer};
use crate::process::Watched;
use crate::report::Report;
use crate::setup::{Setup, Through, Timing, through, written};

/// What the measurements of load have in common.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    timing: Timing,
    /// The kind of client [default: client for up to 16 participants, else machines]
    #[arg(long, value_enum)]
    through: Option<Through>,
    /// What is measured; a peer must run already, at --server
    #[arg(long, value_enum, default_value_t = Kind::Recado)]
    broker: Kind,
    /// Process id of a server of the peer, whose use is measured
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Replicas of a JetStream stream, and those that Redis is to wait for
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: u16,
}

/// `send`: acknowledged messages, closed loop.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SendRun {
    /// Devices that send
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    devices: u16,
    /// Messages in flight of each device: unacknowledged
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    #[command(flatten)]
    common: Common,
}

/// `fanout`: one sender and many followers, closed loop.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FanoutRun {
    /// Followers of the one channel
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    followers: u32,
    /// Messages in flight: not yet at every follower
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    window: u16,
    /// Further followers that read nothing, whose messages nobody waits for
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    stuck: u32,
    #[command(flatten)]
    common: Common,
}

/// `paced`: a fixed rate, open loop.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PacedRun {
    /// Messages a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Devices that send, in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    devices: u16,
    /// Followers of the one channel
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    followers: u32,
    #[command(flatten)]
    common: Common,
}

/// A load on whatever is measured, with what its report says of it.
struct Run<'a> {
    command: &'static str,
    operation: &'static str,
    senders: u16,
    followers: usize,
    stuck: usize,
    pace: Pace,
    common: &'a Common,
}

impl SendRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        let pace = Pace::Closed { window: self.in_flight.into() };
        let (command, operation, senders) = ("send", "send", self.devices);
        Run { command, operation, senders, followers: 0, stuck: 0, pace, common: &self.common }.run()
    }
}

impl FanoutRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        let pace = Pace::Closed { window: self.window.into() };
        let (command, operation, senders) = ("fanout", "delivery", 1);
        let (followers, stuck) = (self.followers as usize, self.stuck as usize);
        Run { command, operation, senders, followers, stuck, pace, common: &self.common }.run()
    }
}

impl PacedRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        let pace = Pace::Open { rate: f64::from(self.rate) };
        let (command, operation) = ("paced", "send");
        let (senders, followers) = (self.devices, self.followers as usize);
        Run { command, operation, senders, followers, stuck: 0, pace, common: &self.common }.run()
    }
}

impl Run<'_> {
    fn run(&self) -> Result<Report, Failure> {
        let Common { target, through: asked, broker, .. } = self.common;
        if *broker != Kind::Recado {
            return self.on_peer(*broker);
        }
        let through = through(*asked, usize::from(self.senders) + self.followers + self.stuck);
        let setup = Setup::new(target, &[])?;
        let mut participants = setup.participants(through, self.senders, self.followers, self.stuck)?;
        self.on(setup.clock, &mut *participants, setup.broker(), setup.watched()?, written(through))
    }

    fn on_peer(&self, kind: Kind) -> Result<Report, Failure> {
        let Common { target, pid, replicas, .. } = self.common;
        let Some(server) = target.server else {
            return Err(Failure::Usage("a peer must run already: give its address with --server".into()));
        };
        if self.stuck > 0 {
            return Err(Failure::Usage("the followers of a peer are never stuck: leave out --stuck".into()));
        }
        let clock = MachineClock::start();
        let mut watched: Vec<Watched> =
            pid.iter().filter_map(|pid| Watched::new(format!("server {pid}"), *pid, "")).collect();
        watched.push(Watched::this());
        let mut peer = Peer::connect(clock, kind, server, *replicas, self.senders, self.followers)?;
        let name = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        self.on(clock, &mut peer, name, watched, "connections")
    }

    fn on(
        &self,
        clock: MachineClock,
        broker: &mut dyn Broker,
        name: String,
        watched: Vec<Watched>,
        through: &'static str,
    ) -> Result<Report, Failure> {
        let Timing { size, seconds, .. } = self.common.timing;
        let (warm_up, measured) = (self.common.timing.before(), self.common.timing.measured());
        let load = Load {
            senders: self.senders,
            followers: self.followers,
            size,
            pace: self.pace,
            warm_up,
            measured,
        };
        let acknowledges = broker.acknowledges();
        let ran = load::run(clock, broker, load, watched, |_, _| Ok(()))?;
        let (sends, deliveries) = (ran.ledger.acks, ran.ledger.deliveries);
        let pace = match self.pace {
            Pace::Closed { window } => ("in_flight", json!(window)),
            Pace::Open { rate } => ("rate", json!(rate)),
        };
        let operations = if self.operation == "delivery" { deliveries } else { sends };
        let mut report = Report::new(self.command, name, measured, (self.operation, operations));
        report.parameters = vec![
            ("senders", json!(self.senders)),
            ("followers", json!(self.followers)),
            ("stuck", json!(self.stuck)),
            pace,
            ("size", json!(size)),
            ("through", json!(through)),
        ];
        report.checks = ran.ledger.checks();
        (report.used, report.allocations) = (ran.used, ran.allocations);
        if acknowledges {
            report.rates.push(("sends", sends as f64 / seconds));
            report.latencies.push(("ack", ran.ledger.ack_latency));
        }
        if self.followers > 0 {
            report.rates.push(("deliveries", deliveries as f64 / seconds));
            report.latencies.push(("delivery", ran.ledger.delivery_latency));
        }
        Ok(report)
    }
}
