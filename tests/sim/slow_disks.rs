//! Tests of slow disks: an election takes its fsyncs, however slow they are, and the elected primary stays.
//! The same holds for a candidate that takes long to read the snapshot that it fetches.
//!
//! Each test has three servers on the network of [`FaultMix::CLEAR`], or a lossy one, with disks of the given
//! speed, and one client that sends all the time. The assertions are on virtual time, which is the same on
//! every machine. `cargo test --test sim slow_disks -- --nocapture` prints the growth of the pause with the
//! latency of an fsync; `SIM_SEEDS` is the number of runs in each of its lines.

use std::collections::BTreeSet;
use std::time::Duration;

use recado::config::{Planted, PlantedBug, Preempt, Timing};
use recado::server::engine::Input;
use recado_proto::id::{NodeId, View};
use recado_proto::packet::RoleName;

use crate::client::{Client, ClientProfile};
use crate::fault_execution::DueFault;
use crate::faults::{Fault, MS, Plan, Target};
use crate::history::{ClientEvent, ClientId};
use crate::network::{FaultMix, Host, Micros};
use crate::population;
use crate::runs::from_environment;
use crate::server::{Death, DiskSpeed, Server};
use crate::storage::Storage;
use crate::world::World;

/// The result of a test step, or the failure.
type Told<T> = Result<T, String>;

const SECOND: Micros = 1_000 * MS;
const MINUTE: Micros = 60 * SECOND;
/// The bound of the pause is tested up to this fsync: a shared or failing disk, or a laptop's under load.
const SLOW: Micros = 2 * SECOND;
/// The down time of a server that does not return in the test.
const FOREVER: Micros = 600 * MINUTE;
/// The maximum of the client's unanswered requests.
const OUTSTANDING: usize = 16;

/// The fsyncs of a journal that begins a snapshot: the log, the next segment, the directory, and the mark.
const SNAPSHOT_FSYNCS: u64 = 4;

const PRESETS: [Timing; 4] = [Timing::DEFAULT, Timing::LAN, Timing::NOISY, Timing::WAN];

/// The initial conditions of a test.
#[derive(Clone, Copy)]
struct Setting {
    seed: u64,
    timing: Timing,
    /// The duration of an fsync on servers 1, 2 and 3.
    fsync: [Micros; 3],
    /// Lost datagrams, per thousand.
    loss: u64,
    preempt: Preempt,
    planted: Option<Planted>,
    /// The time in which each server has one snapshot: server 1 has it at the end of that time, server 2
    /// after its first third, server 3 after two.
    snapshots: [Micros; 3],
    /// The time between two requests of the client, if it has not too many unanswered.
    pace: Micros,
}

impl Setting {
    fn new(timing: Timing, fsync: [Micros; 3]) -> Setting {
        let (preempt, planted, snapshots, pace) = (Preempt::Off, None, [10 * MINUTE; 3], 20 * MS);
        Setting { seed: 1, timing, fsync, loss: 0, preempt, planted, snapshots, pace }
    }
}

struct SlowDiskRun {
    world: World,
    pace: Micros,
    next_send: Micros,
    /// The times of the client's acknowledgements.
    acks: Vec<Micros>,
    looked_at: usize,
    /// The views that any server has promised.
    views: BTreeSet<View>,
    /// The servers that were seen isolated.
    isolated: BTreeSet<NodeId>,
}

impl SlowDiskRun {
    fn new(setting: Setting) -> SlowDiskRun {
        let planted = PlantedBug(setting.planted);
        let weather = FaultMix { loss: setting.loss, ..FaultMix::CLEAR };
        let plan = Plan { seed: setting.seed, planted, fault_mix: weather, ..Plan::quiet() };
        let mut world = World::new(plan, false);
        for (id, (fsync, snapshots)) in
            (1..).map(NodeId).zip(setting.fsync.into_iter().zip(setting.snapshots))
        {
            let mut config = population::config(3, id, planted);
            config.timing = Timing { preempt_after: Duration::from_secs(2), ..setting.timing };
            config.preempt = setting.preempt;
            config.snapshot_every = Duration::from_micros(snapshots);
            let storage = Storage::initialised(&config);
            world.add_server(Server::new(config, storage, DiskSpeed { sync: around(fsync) }));
        }
        let character = ClientProfile { planted, ..ClientProfile::plain("ann", 1) };
        let rng = world.rng.fork();
        world.add_client(Client::new(ClientId(1), character, rng), 0);
        let (acks, views, isolated) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        SlowDiskRun { world, pace: setting.pace, next_send: 0, acks, looked_at: 0, views, isolated }
    }

    /// Returns a test with a primary and a client that it serves.
    fn begun(setting: Setting) -> Told<SlowDiskRun> {
        let mut story = SlowDiskRun::new(setting);
        story.until("service", 2 * MINUTE, |story| story.primary().is_some() && story.acks.len() > 4)?;
        Ok(story)
    }

    fn now(&self) -> Micros {
        self.world.now
    }

    fn step(&mut self) -> Told<()> {
        self.world.step()?;
        if self.now() >= self.next_send {
            self.next_send = self.now() + self.pace;
            let sends = |client: &Client| client.outstanding() < OUTSTANDING;
            if self.world.clients.get(&1).is_some_and(sends) {
                self.world.with_client(1, |client, now, history| {
                    let ask = client.send_text(None, format!("at {now}"));
                    client.ask(now, ask, history)
                })?;
            }
        }
        let now = self.now();
        let new = &self.world.history.events[self.looked_at..];
        self.acks
            .extend(new.iter().filter(|(_, what)| matches!(what, ClientEvent::Acked { .. })).map(|_| now));
        self.looked_at = self.world.history.events.len();
        self.views.extend(self.world.servers.values().filter_map(promised));
        let isolated = |server: &&Server| server.role() == Some(RoleName::Isolated);
        self.isolated.extend(self.world.servers.values().filter(isolated).map(|server| server.id));
        Ok(())
    }

    fn run(&mut self, time: Micros) -> Told<()> {
        let end = self.now() + time;
        while self.now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Runs until `done`. Returns the time that it took.
    fn until(&mut self, what: &str, limit: Micros, done: impl Fn(&SlowDiskRun) -> bool) -> Told<Micros> {
        let began = self.now();
        while !done(self) {
            self.hold(self.now() <= began + limit, || format!("no {what} within {} ms", limit / MS))?;
            self.step()?;
        }
        Ok(self.now() - began)
    }

    /// Checks that for this time no server promises another view, and that at least `acks` sends are
    /// acknowledged.
    fn serves_in_one_view(&mut self, time: Micros, acks: usize) -> Told<()> {
        let (views, before) = (self.views.clone(), self.acks.len());
        self.run(time)?;
        self.hold(self.views == views, || "a view changed without a cause".into())?;
        let served = self.acks.len() - before;
        self.hold(served >= acks, || format!("only {served} sends were acknowledged"))
    }

    /// Checks a condition. The error has the history of the run.
    fn hold(&self, holds: bool, why: impl FnOnce() -> String) -> Told<()> {
        if holds {
            return Ok(());
        }
        let roles: Vec<_> = self.world.servers.values().map(|server| (server.id.0, server.role())).collect();
        let role = |line: &&String| !line.starts_with("ann");
        let lines: Vec<&str> = self.world.lines.iter().filter(role).map(String::as_str).collect();
        Err(format!(
            "{}; at {} ms, roles {roles:?}, {} views promised so far; the last of it:\n{}",
            why(),
            self.now() / MS,
            self.views.len(),
            lines[lines.len().saturating_sub(40)..].join("\n")
        ))
    }

    fn primary(&self) -> Option<NodeId> {
        let primary = |server: &&Server| server.role() == Some(RoleName::Primary);
        self.world.servers.values().find(primary).map(|server| server.id)
    }

    fn the_primary(&self) -> Told<NodeId> {
        self.primary().ok_or_else(|| "there is no primary".into())
    }

    fn set_disk(&mut self, node: NodeId, fsync: Micros) {
        if let Some(server) = self.world.servers.get_mut(&node) {
            server.speed.sync = around(fsync);
        }
    }

    fn set_disks(&mut self, fsync: Micros) {
        (1..=3).for_each(|id| self.set_disk(NodeId(id), fsync));
    }

    /// Kills the primary for good, and waits until the next primary acknowledges a send.
    fn fail_over(&mut self, limit: Micros) -> Told<Pause> {
        let primary = self.the_primary()?;
        let views = self.views.len();
        DueFault(Fault::Crash(Target::Server(primary), Death { power: false, down: FOREVER }))
            .strike(&mut self.world)?;
        let to_primary = self.until("new primary", limit, |story| story.primary().is_some())?;
        let (views, acks) = (self.views.len() - views, self.acks.len());
        let to_ack = self.until("acknowledgement", limit, |story| story.acks.len() > acks)?;
        Ok(Pause { views, to_primary, to_ack: to_primary + to_ack })
    }
}

/// The cost of a primary's death.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// The number of views promised until one was active.
    views: usize,
    /// The time from the kill to the next primary.
    to_primary: Micros,
    /// The time from the kill to the next acknowledgement.
    to_ack: Micros,
}

impl Pause {
    /// Returns true if the pause is within the bound: three views, and eight fsyncs after the detection.
    fn within_the_floor(&self, timing: Timing, fsync: Micros) -> bool {
        self.within(timing, 8, fsync)
    }

    /// The same, with the fsyncs of a snapshot in progress.
    fn within_the_floor_amid_snapshots(&self, timing: Timing, fsync: Micros) -> bool {
        self.within(timing, 8 + SNAPSHOT_FSYNCS, fsync)
    }

    fn within(&self, timing: Timing, fsyncs: u64, fsync: Micros) -> bool {
        self.views <= 3 && self.to_ack <= micros(timing.suspect_max) + fsyncs * fsync.max(10 * MS)
    }
}

fn around(fsync: Micros) -> (Micros, Micros) {
    (fsync * 9 / 10, fsync)
}

fn promised(server: &Server) -> Option<View> {
    Some(server.process.as_ref()?.node.promised())
}

fn micros(time: Duration) -> Micros {
    time.as_micros() as Micros
}

/// Runs a test, and panics with its failure.
fn tell(story: impl FnOnce() -> Told<()>) {
    if let Err(why) = story() {
        panic!("{why}");
    }
}

/// Checks the bound with equal disks: a failover, and then the time `then` without a view change.
fn floor(setting: Setting, then: Micros) -> Told<()> {
    let fsync = setting.fsync[0];
    let mut story = SlowDiskRun::begun(setting)?;
    let pause = story.fail_over(2 * MINUTE)?;
    println!("fsync {} ms, heartbeat {:?}: {pause:?}", fsync / MS, setting.timing.heartbeat);
    story.hold(pause.within_the_floor(setting.timing, fsync), || format!("{pause:?}"))?;
    story.serves_in_one_view(then, (then / fsync) as usize)
}

#[test]
fn with_fsyncs_of_two_seconds_on_all_disks_a_failover_is_a_pause_and_then_there_is_peace() {
    for timing in PRESETS {
        tell(|| floor(Setting::new(timing, [SLOW; 3]), 10 * MINUTE));
    }
}

#[test]
fn with_fsyncs_of_150_ms_on_a_majority_there_is_a_primary() {
    for fsync in [[150, 150, 1], [1, 150, 150], [150, 1, 150], [150, 150, 150]] {
        tell(|| {
            let mut story = SlowDiskRun::begun(Setting::new(Timing::DEFAULT, fsync.map(|ms| ms * MS)))?;
            let pause = story.fail_over(MINUTE)?;
            story.hold(pause.within_the_floor(Timing::DEFAULT, 150 * MS), || {
                format!("{fsync:?}: {pause:?}")
            })?;
            story.serves_in_one_view(MINUTE, 300)
        });
    }
}

/// The primary's journal group that begins a snapshot takes as long as several groups of the others, which
/// only write an entry now and then at that time.
#[test]
fn a_snapshot_makes_no_disk_look_slower_than_its_equals() {
    for fsync in [125, 160, 200, 250].map(|ms| ms * MS) {
        tell(|| {
            let snapshots = [10 * MINUTE, 10 * MINUTE, 5 * SECOND];
            let setting = Setting::new(Timing::DEFAULT, [fsync; 3]);
            let mut story = SlowDiskRun::begun(Setting { snapshots, pace: 1_300 * MS, ..setting })?;
            story.serves_in_one_view(5 * MINUTE, 100)?;
            story.hold(story.isolated.is_empty(), || {
                format!("{} ms: {:?} looked slow", fsync / MS, story.isolated)
            })
        });
    }
}

/// A job that has begun is completed: an election waits for a snapshot that a journal begins before it hears
/// of the election.
#[test]
fn a_failover_amid_snapshots_waits_for_those_that_are_under_way() {
    for timing in PRESETS {
        for later in 0..6 {
            tell(|| {
                let setting = Setting::new(timing, [SLOW; 3]);
                let mut story = SlowDiskRun::begun(Setting { snapshots: [15 * SECOND; 3], ..setting })?;
                story.run(15 * SECOND + later * 3 * SECOND)?;
                story.until("primary", MINUTE, |story| story.primary().is_some())?;
                let pause = story.fail_over(2 * MINUTE)?;
                println!("amid snapshots, {later}, heartbeat {:?}: {pause:?}", timing.heartbeat);
                story.hold(pause.within_the_floor_amid_snapshots(timing, SLOW), || format!("{pause:?}"))?;
                story.serves_in_one_view(MINUTE, 30)
            });
        }
    }
}

#[test]
fn a_primary_whose_disk_gets_slow_is_replaced_by_a_server_with_a_faster_one() {
    tell(|| {
        let quick = Setting::new(Timing::DEFAULT, [MS; 3]);
        let mut story = SlowDiskRun::begun(Setting { preempt: Preempt::Graceful, ..quick })?;
        let slow = story.the_primary()?;
        story.set_disk(slow, SLOW);
        story.until("other primary", 5 * SECOND, |story| story.primary().is_some_and(|now| now != slow))?;
        // The server does not get the lead back while its disk is slow, although it has the highest id.
        story.serves_in_one_view(MINUTE, 1_000)?;
        story.set_disk(slow, MS);
        story.until("hand-over back", MINUTE, |story| story.primary() == Some(slow))?;
        Ok(())
    });
}

#[test]
fn a_backup_with_a_slow_disk_disturbs_nobody() {
    for slow in [0, 1] {
        tell(|| {
            let mut fsync = [MS; 3];
            fsync[slow] = SLOW;
            let setting = Setting { snapshots: [MINUTE; 3], ..Setting::new(Timing::DEFAULT, fsync) };
            let mut story = SlowDiskRun::begun(setting)?;
            story.serves_in_one_view(MINUTE, 1_000)?;
            // Without the primary this server is needed, and its snapshot may be due at that time.
            let pause = story.fail_over(MINUTE)?;
            story.hold(pause.within_the_floor_amid_snapshots(Timing::DEFAULT, SLOW), || format!("{pause:?}"))
        });
    }
}

#[test]
fn the_highest_server_does_not_lead_with_a_slow_disk_among_fast_ones() {
    tell(|| {
        let mut story = SlowDiskRun::begun(Setting::new(Timing::DEFAULT, [MS, MS, SLOW]))?;
        story.hold(story.now() < 5 * SECOND, || "it took too long to find another".into())?;
        story.hold(story.primary() != Some(NodeId(3)), || "it leads".into())?;
        story.serves_in_one_view(MINUTE, 1_000)
    });
}

#[test]
fn disks_that_were_slow_for_a_while_make_no_later_election_slow() {
    tell(|| {
        let mut story = SlowDiskRun::begun(Setting::new(Timing::DEFAULT, [MS; 3]))?;
        story.set_disks(SLOW);
        story.serves_in_one_view(MINUTE, 30)?;
        story.set_disks(MS);
        story.serves_in_one_view(30 * SECOND, 500)?;
        let pause = story.fail_over(MINUTE)?;
        story.hold(pause.to_ack < SECOND, || format!("{pause:?}"))
    });
}

#[test]
fn a_primary_that_stops_hands_over_on_slow_disks_too() {
    for timing in PRESETS {
        tell(|| {
            let mut story = SlowDiskRun::begun(Setting::new(timing, [SLOW; 3]))?;
            let old = story.the_primary()?;
            let views = story.views.len();
            story.world.with_server(old, |server, step| server.on_input(step, Input::Stop))?;
            let told = story
                .until("other primary", MINUTE, |story| story.primary().is_some_and(|now| now != old))?;
            let tried = story.views.len() - views;
            story.hold(tried == 1 && told <= 8 * SLOW, || format!("{tried} views, {} ms", told / MS))
        });
    }
}

#[test]
fn two_servers_that_cannot_hear_each_other_while_a_third_hears_both_change_no_view() {
    for (fsync, acks) in [(MS, 1_000), (SLOW, 30)] {
        for (one, other) in [(1, 2), (1, 3), (2, 3)] {
            tell(|| {
                let mut story = SlowDiskRun::begun(Setting::new(Timing::DEFAULT, [fsync; 3]))?;
                story.world.network.cut(Host::Server(NodeId(one)), Host::Server(NodeId(other)));
                story.serves_in_one_view(MINUTE, acks)
            });
        }
    }
}

/// Server 3 was away, and comes back as the primary dies. Of the two that are left it has the higher id, and
/// lacks more than the log of the other one goes back.
fn leads_with_a_fetched_snapshot(timing: Timing, opens: Micros) -> Told<()> {
    for seed in 1..=8 {
        if is_candidate_and_leads(seed, timing, opens)? {
            return Ok(());
        }
    }
    Err("with no seed it is the first to ask for promises".into())
}

/// Returns false if server 1 asks for promises first, so that server 3 has nothing to fetch.
fn is_candidate_and_leads(seed: u64, timing: Timing, opens: Micros) -> Told<bool> {
    let snapshots = [2 * SECOND; 3];
    let setting = Setting { seed, snapshots, ..Setting::new(timing, [MS; 3]) };
    let mut story = SlowDiskRun::begun(setting)?;
    story.until("primary with the highest id", MINUTE, |story| story.primary() == Some(NodeId(3)))?;
    let away = 10 * SECOND;
    DueFault(Fault::Crash(Target::Server(NodeId(3)), Death { power: false, down: away }))
        .strike(&mut story.world)?;
    story.until("other primary", MINUTE, |story| story.primary() == Some(NodeId(2)))?;
    let back = |story: &SlowDiskRun| story.world.servers.get(&NodeId(3)).is_some_and(Server::alive);
    story.until("return", MINUTE, back)?;
    if let Some(server) = story.world.servers.get_mut(&NodeId(3)) {
        server.opens = (opens, opens);
    }
    let before = story.views.last().copied();
    let pause = story.fail_over(2 * MINUTE)?;
    let first = story.views.iter().find(|view| Some(**view) > before).and_then(|view| view.primary());
    if first == Some(NodeId(1)) {
        return Ok(false);
    }
    println!("a snapshot opened in {} ms, heartbeat {:?}: {pause:?}", opens / MS, timing.heartbeat);
    story.hold(story.primary() == Some(NodeId(3)), || "it gave up".into())?;
    let bound = opens + micros(timing.suspect_max) + SECOND;
    story.hold(pause.views == 1 && pause.to_ack <= bound, || format!("{pause:?}"))?;
    story.serves_in_one_view(10 * SECOND, 200)?;
    Ok(true)
}

#[test]
fn a_candidate_that_takes_long_to_read_the_snapshot_that_it_fetched_leads_in_its_first_view() {
    for timing in PRESETS {
        for opens in [20 * MS, 500 * MS, 3 * SECOND, 8 * SECOND] {
            tell(|| leads_with_a_fetched_snapshot(timing, opens));
        }
    }
}

#[test]
fn planted_bugs_of_patience_are_found() {
    for bug in [Planted::PatienceIgnoresDisk, Planted::OvertakesHeard] {
        let setting = Setting::new(Timing::DEFAULT, [SLOW; 3]);
        let found = floor(Setting { planted: Some(bug), ..setting }, MINUTE).err();
        let first = found.as_deref().and_then(|why| why.lines().next());
        println!("{bug:?}: {first:?}");
        assert!(found.is_some(), "{bug:?} passes for right");
    }
}

/// The printed figures are for readers; the bound is asserted.
#[test]
fn the_pause_grows_with_the_fsync() {
    let runs = from_environment("SIM_SEEDS").unwrap_or(5).clamp(1, 100);
    println!("{runs} runs a line; median (longest)");
    println!("| fsync | loss | kill to primary | kill to next acknowledgement | most views |");
    println!("|---|---|---|---|---|");
    for fsync in [1, 10, 100, 500, 2_000].map(|ms| ms * MS) {
        for loss in [0, 100, 200] {
            let mut pauses = Vec::new();
            for seed in 0..runs {
                tell(|| {
                    let setting = Setting { seed, loss, ..Setting::new(Timing::DEFAULT, [fsync; 3]) };
                    let mut story = SlowDiskRun::begun(setting)?;
                    // The kill comes at different phases of the timers.
                    story.run(seed * 37 * MS)?;
                    story.until("primary", MINUTE, |story| story.primary().is_some())?;
                    let pause = story.fail_over(2 * MINUTE)?;
                    let holds = loss > 0 || pause.within_the_floor(Timing::DEFAULT, fsync);
                    story.hold(holds, || format!("seed {seed}: {pause:?}"))?;
                    pauses.push(pause);
                    Ok(())
                });
            }
            let mut ms = |of: fn(&Pause) -> Micros| {
                pauses.sort_by_key(of);
                let at = |n: usize| pauses.get(n).map_or(0, of) / MS;
                format!("{} ms ({})", at(pauses.len() / 2), at(pauses.len() - 1))
            };
            let (primary, ack) = (ms(|pause| pause.to_primary), ms(|pause| pause.to_ack));
            let views = pauses.iter().map(|pause| pause.views).max().unwrap_or_default();
            println!("| {} ms | {} % | {primary} | {ack} | {views} |", fsync / MS, loss / 10);
        }
    }
}
