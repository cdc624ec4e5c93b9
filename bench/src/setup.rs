//! What a measurement needs before it can begin: servers, participants and the processes to watch.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use recado_client::{Name, Topic};
use recado_sys::clock::MachineClock;

use crate::broker::{Broker, SIZE_MIN};
use crate::clients::{Clients, Place};
use crate::cluster::{Cluster, Setting, Target, fresh_name};
use crate::failure::Failure;
use crate::machines::{CONNECTING_MAX, Device, Machines, Role};
use crate::process::Watched;

/// More participants than these are machines in one thread, unless the command line says otherwise.
const CLIENTS_MAX: usize = 16;

/// The kind of client that participants are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Through {
    /// The blocking client, as programs use it: two threads each, and files on a disk
    Client,
    /// The client's protocol alone: all in one thread, nothing on a disk
    Machines,
}

/// The time of a run, and the size of its messages.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Timing {
    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds of the same load before the measurement
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Bytes of a message's body
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = size)]
    pub(crate) size: usize,
}

impl Timing {
    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn before(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

/// A number of seconds that a duration can hold: at most an hour.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 3600".to_owned()) }
}

/// A size that a body may have.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|_| "not a number".to_owned())?;
    let range = SIZE_MIN..=recado_client::Content::BODY_MAX;
    if range.contains(&size) { Ok(size) } else { Err(format!("{} to {}", range.start(), range.end())) }
}

/// Chooses the kind of client for so many participants.
pub(crate) fn through(asked: Option<Through>, participants: usize) -> Through {
    asked.unwrap_or(if participants <= CLIENTS_MAX { Through::Client } else { Through::Machines })
}

/// The name of the choice, as the report has it.
pub(crate) fn written(through: Through) -> &'static str {
    match through {
        Through::Client => "client",
        Through::Machines => "machines",
    }
}

/// Servers of recado with a topic that nobody uses yet.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) clock: MachineClock,
    pub(crate) cluster: Cluster,
    pub(crate) topic: Topic,
}

impl Setup {
    /// Starts or finds the servers.
    pub(crate) fn new(target: &Target, settings: &[Setting]) -> Result<Setup, Failure> {
        let clock = MachineClock::start();
        let cluster = Cluster::ready(target, clock, settings)?;
        let channel = fresh_name("bench")?;
        let topic = Topic::to_send(&format!("#{channel}")).map_err(|_| Failure::Other("no topic".into()))?;
        Ok(Setup { clock, cluster, topic })
    }

    /// What is measured, for a report.
    pub(crate) fn broker(&self) -> String {
        format!("recado, {} servers", self.cluster.len())
    }

    /// The servers' processes on this machine, and this one.
    pub(crate) fn watched(&self) -> Result<Vec<Watched>, Failure> {
        let mut watched = self.cluster.processes()?;
        watched.push(Watched::this());
        Ok(watched)
    }

    /// Machines of the cluster, none started.
    pub(crate) fn machines(&self) -> Result<Machines, Failure> {
        let addresses: Vec<SocketAddr> = self.cluster.addresses().to_vec();
        Machines::new(self.clock, addresses, self.cluster.identity(), self.topic.clone())
    }

    /// Machines of the cluster that send and follow.
    pub(crate) fn started_machines(
        &self,
        senders: u16,
        followers: usize,
        stuck: usize,
    ) -> Result<Machines, Failure> {
        let mut machines = self.machines()?;
        let sending =
            devices("sender", senders.into(), |at| Role::Sender(u16::try_from(at).unwrap_or_default()))?;
        let following = devices("follower", followers, Role::Follower)?;
        // The senders come first, because they open the channel.
        machines.start_all(&sending, CONNECTING_MAX)?;
        machines.start_all(&following, CONNECTING_MAX)?;
        machines.start_all(&devices("stuck", stuck, |_| Role::Stuck)?, CONNECTING_MAX)?;
        Ok(machines)
    }

    /// Participants that send and follow.
    pub(crate) fn participants(
        &self,
        through: Through,
        senders: u16,
        followers: usize,
        stuck: usize,
    ) -> Result<Box<dyn Broker>, Failure> {
        if through == Through::Machines {
            return Ok(Box::new(self.started_machines(senders, followers, stuck)?));
        }
        if stuck > 0 {
            return Err(Failure::Usage("only machines can be stuck: --through machines".into()));
        }
        let state = self.cluster.dir().join("clients");
        let place =
            Place { addresses: self.cluster.addresses(), identity: self.cluster.identity(), state: &state };
        let names = |what, count: usize| {
            std::iter::repeat_with(|| fresh_name(what)).take(count).collect::<Result<Vec<Name>, Failure>>()
        };
        let (senders, followers) = (names("sender", senders.into())?, names("follower", followers)?);
        Ok(Box::new(Clients::connect(self.clock, place, &self.topic, &senders, &followers)?))
    }
}

/// So many devices with their roles, of profiles that nobody has used.
pub(crate) fn devices(
    what: &str,
    count: usize,
    role: impl Fn(usize) -> Role,
) -> Result<Vec<(Device, Role)>, Failure> {
    (0..count).map(|at| Ok((Device::new(fresh_name(what)?)?, role(at)))).collect()
}
