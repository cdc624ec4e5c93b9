//! A cluster of real servers under load, and the execution of a schedule of faults.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::PipeReader;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use recado_proto::id::{Moment, NodeId};
use rustix::process::Signal;

use crate::cluster::{Cluster, full_pipe, primary_of};
use crate::disk::{Damage, Disk, PowerCutLoss};
use crate::history::History;
use crate::ledger::DiskFaults;
use crate::load::Load;
use crate::network::{Cut, FaultMix, Network};
use crate::rng::Rng;
use crate::schedule::{Fault, First, Step, Target};

/// The time in which a healed cluster must be READY, on a machine that is busy with other work.
pub(crate) const HEALED: Duration = Duration::from_secs(120);

/// The disk without faults. Its syncs take some time, so that a write is always in progress.
const WELL: DiskFaults =
    DiskFaults { sync_ms: 12, sync_fails: false, full: false, lies: false, unreadable: false };

const SENDERS: u8 = 3;
const LISTENERS: u8 = 3;
const PER_SECOND: u32 = 150;

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    pub(crate) lost: PowerCutLoss,
    pub(crate) acknowledged: u64,
}

/// A cluster, its disks and relays, and the clients that use it.
pub(crate) struct TortureRun {
    began: Moment,
    rng: Rng,
    disks: Vec<(NodeId, Disk)>,
    network: Network,
    load: Option<Load>,
    /// The history of the load, which is written to a file if the test fails.
    history: Arc<Mutex<History>>,
    done: Counts,
    /// Open readers of full pipes, so that their writers block instead of failing.
    unread: Vec<PipeReader>,
    told: String,
    /// Declared after the fields that use it, so that it is dropped after them.
    cluster: Cluster,
}

impl TortureRun {
    /// Starts a cluster that is ready and under load. Its directory is named after the seed, and stays if the
    /// test fails.
    pub(crate) fn new(seed: u64, servers: u16) -> TortureRun {
        let dir =
            tempfile::Builder::new().prefix(&format!("seed-{seed}-")).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let mut cluster = Cluster::init_in(dir.unwrap(), servers);
        cluster.keep_on_failure();
        let mut rng = Rng::seeded(seed ^ 0x7067);
        let network = Network::between(&mut cluster, rng.fork());
        let mut disks = Vec::new();
        for node in cluster.nodes() {
            // Snapshots are frequent, so that faults hit them in progress.
            cluster.edit(node, |text| text.replace("every_s = 60", "every_s = 1"));
            disks.push((node, Disk::under(&mut cluster, node)));
        }
        disks.iter().for_each(|(_, disk)| disk.set(WELL));
        cluster.start_all();
        cluster.wait_ready_within(HEALED);
        let load = Load::start(&cluster, SENDERS, LISTENERS, PER_SECOND);
        TortureRun {
            began: cluster.clock().now(),
            rng,
            disks,
            network,
            history: load.history(),
            load: Some(load),
            done: Counts::default(),
            unread: Vec::new(),
            told: String::new(),
            cluster,
        }
    }

    /// Executes the steps.
    pub(crate) fn play(&mut self, steps: &[Step]) {
        for step in steps {
            self.tell(format!(
                "{:?}{}",
                step.fault,
                if step.settle { ", READY before the next" } else { "" }
            ));
            self.nobody_has_ended();
            self.strike(step.fault);
            if step.settle {
                self.ready();
            }
        }
    }

    /// Heals, waits until every server is READY and every acknowledged notification has arrived, and checks
    /// the history.
    pub(crate) fn finish(mut self) -> Counts {
        self.nobody_has_ended();
        self.ready();
        let load = self.load.take().expect("it was started");
        self.done.acknowledged = load.acknowledged();
        load.finish(&self.cluster);
        self.done
    }

    /// Sets the behaviour of all disks.
    pub(crate) fn all_disks(&self, mood: DiskFaults) {
        self.mood(&self.cluster.nodes(), mood);
    }

    /// Makes all servers lose power at the same time, several times.
    pub(crate) fn kill_all_under_load(&mut self, times: u32) {
        for _ in 0..times {
            self.under_way();
            let all = self.cluster.nodes();
            self.kill(&all, true);
            self.ready();
        }
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { who, sync_ms, power_cut, ms } => {
                let nodes = self.nodes(who);
                if sync_ms > 0 {
                    self.mood(&nodes, DiskFaults { sync_ms, ..WELL });
                    self.hold(2 * sync_ms);
                }
                self.kill(&nodes, power_cut);
                self.mood(&nodes, WELL);
                self.hold(ms);
                self.start(&nodes);
            }
            Fault::Stop { who, ms } => {
                let nodes = self.nodes(who);
                nodes.iter().for_each(|node| self.cluster.signal(*node, Signal::STOP));
                self.hold(ms);
                nodes.iter().for_each(|node| self.cluster.signal(*node, Signal::CONT));
            }
            Fault::Terminate { who, ms } => {
                let nodes = self.nodes(who);
                for node in &nodes {
                    self.answers(*node);
                    self.cluster.terminate(*node);
                    self.died(*node, true);
                }
                self.hold(ms);
                self.start(&nodes);
            }
            Fault::Weather { lost, twice, delayed, delay_ms, ms } => {
                self.network.set(FaultMix { lost, twice, delayed, delay_ms, cuts: BTreeSet::new() });
                self.hold(ms);
                self.network.clear_faults();
            }
            Fault::OneWay { from, to, ms } => {
                let (from, to) = (self.around(from), self.around(to));
                self.cut([Cut::Between(from, to)].into(), ms);
            }
            Fault::CutClients { who, to_server, ms } => {
                let cut = if to_server { Cut::ToServer } else { Cut::ToClients };
                self.cut(self.nodes(who).into_iter().map(cut).collect(), ms);
            }
            Fault::Isolate { who, ms } => {
                let mut cuts = BTreeSet::new();
                for node in self.nodes(who) {
                    cuts.extend([Cut::ToServer(node), Cut::ToClients(node)]);
                    for other in self.cluster.nodes() {
                        cuts.extend([Cut::Between(node, other), Cut::Between(other, node)]);
                    }
                }
                self.cut(cuts, ms);
            }
            Fault::Rot { who, rot, first } => self.rot(self.around(who), rot, first),
            Fault::Full { who, ms } => {
                let nodes = self.nodes(who);
                self.mood(&nodes, DiskFaults { full: true, ..WELL });
                self.hold(ms);
                self.mood(&nodes, WELL);
                for node in nodes {
                    // A server may have stopped, may be stopping, or may have had nothing to write. All of
                    // these are allowed.
                    match self.cluster.wait_for_its_end(node, Duration::ZERO) {
                        Some(exit) => {
                            self.tell(format!("  {node} ended with {exit}"));
                            self.died(node, false);
                        }
                        None => self.kill(&[node], false),
                    }
                    self.start(&[node]);
                }
            }
            Fault::Unreadable { who, ms } => {
                let nodes = self.nodes(who);
                self.mood(&nodes, DiskFaults { unreadable: true, ..WELL });
                self.hold(ms);
                self.mood(&nodes, WELL);
                for node in nodes {
                    // A snapshot that cannot be read back ends the server, possibly at this moment.
                    match self.cluster.wait_for_its_end(node, Duration::ZERO) {
                        Some(exit) => {
                            assert!(!exit.success(), "{node} could not read its disk, and ended with {exit}");
                            self.tell(format!("  {node} ended with {exit}"));
                            self.died(node, false);
                        }
                        None => self.kill(&[node], false),
                    }
                    self.start(&[node]);
                }
            }
            Fault::Slow { who, sync_ms, ms } => {
                let nodes = self.nodes(who);
                self.mood(&nodes, DiskFaults { sync_ms, ..WELL });
                self.hold(ms);
                self.mood(&nodes, WELL);
            }
            Fault::FailingSync { who, power_cut } => {
                let nodes = self.nodes(who);
                self.mood(&nodes, DiskFaults { sync_fails: true, ..WELL });
                for node in &nodes {
                    match self.cluster.wait_for_its_end(*node, Duration::from_secs(10)) {
                        Some(exit) => {
                            assert!(!exit.success(), "{node} could not sync, and ended with {exit}");
                            self.died(*node, power_cut);
                        }
                        // It received nothing that it had to sync.
                        None => self.kill(&[*node], power_cut),
                    }
                }
                self.mood(&nodes, WELL);
                self.start(&nodes);
            }
            Fault::Unread { who } => {
                let nodes = self.nodes(who);
                self.kill(&nodes, false);
                for node in nodes {
                    let (reader, full) = full_pipe();
                    self.cluster.start_logging_to(node, full);
                    self.unread.push(reader);
                }
            }
            Fault::Stall { listener, ms } => {
                let load = self.load();
                let listeners = load.listeners();
                let listener = listeners[(listener % listeners.len() as u64) as usize];
                load.stall(listener, true);
                self.hold(ms);
                self.load().stall(listener, false);
            }
            Fault::Restart { sender, which } => {
                let load = self.load();
                let clients = if sender { load.senders() } else { load.listeners() };
                load.restart(clients[(which % clients.len() as u64) as usize]);
                self.hold(100);
            }
        }
    }

    /// Damages only one copy, and only when all copies are whole: the promises cover only that.
    fn rot(&mut self, node: NodeId, rot: Damage, first: First) {
        self.ready();
        let others: Vec<NodeId> = self.cluster.nodes().into_iter().filter(|other| *other != node).collect();
        let second = others[self.rng.below(others.len() as u64) as usize];
        if first == First::Laggard {
            self.kill(&[second], false);
            self.under_way();
        }
        // An orderly stop, so that all its data is durable and marked.
        self.cluster.terminate(node);
        let running: Vec<NodeId> = others.iter().copied().filter(|other| self.cluster.runs(*other)).collect();
        self.kill(&running, false);
        self.died(node, false);
        let disk = &self.disks.iter().find(|(of, _)| *of == node).expect("a member").1;
        let told = disk.rot(rot, &mut self.rng);
        self.tell(format!("  {node}: {told}; with it {second}"));
        match first {
            First::All => {}
            First::Laggard | First::Pair => {
                self.start(&[node, second]);
                self.hold(2_000);
                self.nobody_has_ended();
            }
        }
        let later: Vec<NodeId> =
            self.cluster.nodes().into_iter().filter(|node| !self.cluster.runs(*node)).collect();
        self.start(&later);
        self.ready();
    }

    /// Starts every server that is down, and waits until all have what was acknowledged.
    fn ready(&mut self) {
        let down = |node: &NodeId| !self.cluster.runs(*node);
        let down: Vec<NodeId> = self.cluster.nodes().into_iter().filter(down).collect();
        self.start(&down);
        self.cluster.wait_ready_within(HEALED);
        self.nobody_has_ended();
    }

    /// Waits for an answer of the server. A process that has just started does not handle signals yet.
    fn answers(&self, node: NodeId) {
        self.cluster.wait_until("an answer", HEALED, |statuses| {
            statuses.iter().flatten().any(|status| status.node == node)
        });
    }

    /// Waits until more sends are acknowledged.
    fn under_way(&self) {
        let before = self.load().acknowledged();
        let moved = self.cluster.poll(HEALED, || {
            assert!(!self.load().has_failed(), "a client has failed");
            self.load().acknowledged() > before + 20
        });
        assert!(moved, "nothing was acknowledged for {HEALED:?}");
    }

    fn nobody_has_ended(&mut self) {
        assert!(!self.load().has_failed(), "a client has failed");
        for node in self.cluster.nodes() {
            if self.cluster.runs(node)
                && let Some(exit) = self.cluster.wait_for_its_end(node, Duration::ZERO)
            {
                panic!("{node} ended by itself with {exit}");
            }
        }
    }

    fn kill(&mut self, nodes: &[NodeId], power_cut: bool) {
        if nodes.len() == self.cluster.nodes().len() {
            self.cluster.kill_all();
        } else {
            nodes.iter().for_each(|node| self.cluster.kill(*node));
        }
        self.done.kills += nodes.len() as u64;
        nodes.iter().for_each(|node| self.died(*node, power_cut));
    }

    fn died(&mut self, node: NodeId, power_cut: bool) {
        let disk = &self.disks.iter().find(|(of, _)| *of == node).expect("a member").1;
        disk.process_died();
        if power_cut {
            let lost = disk.power_cut(&mut self.rng);
            self.done.power_cuts += 1;
            self.done.lost.sectors += lost.sectors;
            self.done.lost.names += lost.names;
            self.tell(format!("  {node} without what was not synced: {lost:?}"));
        }
    }

    fn start(&mut self, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.cluster.start(*node));
    }

    fn mood(&self, nodes: &[NodeId], mood: DiskFaults) {
        self.disks.iter().filter(|(node, _)| nodes.contains(node)).for_each(|(_, disk)| disk.set(mood));
    }

    fn cut(&self, cuts: BTreeSet<Cut>, ms: u64) {
        self.network.set(FaultMix { cuts, ..FaultMix::default() });
        self.hold(ms);
        self.network.clear_faults();
    }

    /// Waits while a fault lasts.
    fn hold(&self, ms: u64) {
        self.cluster.poll(Duration::from_millis(ms), || false);
    }

    fn nodes(&self, who: Target) -> Vec<NodeId> {
        let all = self.cluster.nodes();
        match who {
            Target::All => all,
            Target::One(number) => vec![self.around(number)],
            Target::Primary => vec![self.primary()],
            Target::Majority => {
                let first = all.iter().position(|node| *node == self.primary()).unwrap_or(0);
                (0..all.len() / 2 + 1).map(|next| all[(first + next) % all.len()]).collect()
            }
        }
    }

    fn around(&self, number: u64) -> NodeId {
        let all = self.cluster.nodes();
        all[(number % all.len() as u64) as usize]
    }

    /// Returns the primary, or any server if there is none.
    fn primary(&self) -> NodeId {
        primary_of(&self.cluster.statuses()).map_or(self.cluster.nodes()[0], |primary| primary.node)
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("it is under load until it is finished")
    }

    fn tell(&mut self, what: String) {
        let after = self.cluster.clock().now().since(self.began);
        eprintln!("{:7.1} s  {what}", after.as_secs_f64());
        let _ = writeln!(self.told, "{:7.1} s  {what}", after.as_secs_f64());
    }
}

impl Drop for TortureRun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut history = String::new();
            for (client, happened) in &self.history.lock().events {
                let _ = writeln!(history, "{} {happened:?}", client.0);
            }
            for (name, text) in [("schedule.txt", &self.told), ("history.txt", &history)] {
                if let Err(error) = fs::write(self.cluster.dir().join(name), text) {
                    eprintln!("{name} cannot be kept: {error}");
                }
            }
        }
    }
}
