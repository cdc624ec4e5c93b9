//! A cluster of real servers: processes, sockets, disks, in a temporary directory.
//!
//! Nothing here waits by sleeping: a condition is looked at again when a STATUS was answered, paced by
//! a channel's ticks, and every wait has a deadline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{PipeReader, PipeWriter, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use recado::config::file::ServerFile;
use recado::config::secret::ClusterSecret;
use recado::config::{Config, Member};
use recado::id::{ClusterId, NodeId, Op};
use recado::server::MachineClock;
use recado::wire::packet::{RoleName, StatusOk};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::asker::Asker;
use crate::relay::{Passed, Relay};

/// How long anything may take that is not the measure of its test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One cluster at a time: several would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Taken by every test that runs a cluster, first of all.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock()
}

/// A port of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// For clients.
    Client(NodeId),
    /// For the other servers.
    Peer(NodeId),
}

impl Port {
    pub(crate) fn node(self) -> NodeId {
        let (Port::Client(node) | Port::Peer(node)) = self;
        node
    }
}

/// One server of it, running or not.
#[derive(Debug)]
struct Place {
    member: Member,
    /// With its configuration file; served from the directory above, by a relative path.
    home: PathBuf,
    log: PathBuf,
    /// What the server finds in its environment beside the test's own.
    environment: Vec<(&'static str, PathBuf)>,
    process: Option<Child>,
}

/// Real servers; whatever still runs is killed when it is dropped, and a failing test shows their logs.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    clock: MachineClock,
    places: Vec<Place>,
    asker: Asker,
    /// What only servers know, and who attacks them in vain must not.
    secret: [u8; 32],
    /// What stands on every way to a server, if anything does.
    relays: Vec<Relay>,
    /// Where clients reach servers, if not where those listen.
    fronts: BTreeMap<NodeId, SocketAddr>,
    /// Whether everything stays on the disk if the test fails.
    kept_on_failure: bool,
    /// Last, so that the processes are gone before their files.
    dir: tempfile::TempDir,
}

impl Cluster {
    /// `recadod init --servers n` in a new directory, on ports that are free now. Nothing runs yet.
    pub(crate) fn init(servers: u16) -> Cluster {
        Cluster::init_in(tempfile::tempdir().unwrap(), servers)
    }

    /// The same below `dir`.
    pub(crate) fn init_in(dir: tempfile::TempDir, servers: u16) -> Cluster {
        let port = free_ports(&["127.0.0.1"], servers);
        let home = dir.path().join("cluster");
        let told = Command::new(crate::recadod())
            .args(["init", "--servers", &servers.to_string(), "--port", &port.to_string(), "--dir"])
            .arg(&home)
            .output();
        succeeded(&told.unwrap());
        let homes = (1..=servers).map(|id| home.join(NodeId(id).to_string())).collect();
        Cluster::of(dir, homes)
    }

    /// The servers whose files lie in `homes`, all below `dir`. Nothing runs yet.
    pub(crate) fn of(dir: tempfile::TempDir, homes: Vec<PathBuf>) -> Cluster {
        let mut id = None;
        let mut places = Vec::new();
        for home in homes {
            let file = ServerFile::read(&home.join("recado.toml")).unwrap();
            let Config { cluster, .. } = file.config;
            id = Some((cluster.id, *ClusterSecret::read(&file.secret).unwrap().as_bytes()));
            let member = *cluster.members.iter().find(|member| member.id == cluster.me).unwrap();
            let log = dir.path().join(format!("{}.log", member.id));
            places.push(Place { member, home, log, environment: Vec::new(), process: None });
        }
        let (id, secret) = id.unwrap();
        let asker = Asker::new(id, &secret);
        Cluster {
            id,
            clock: MachineClock::start(),
            places,
            asker,
            secret,
            relays: Vec::new(),
            fronts: BTreeMap::new(),
            kept_on_failure: false,
            dir,
        }
    }

    /// Initialised, started, and every server READY.
    pub(crate) fn ready(servers: u16) -> Cluster {
        let mut cluster = Cluster::init(servers);
        cluster.start_all();
        cluster.wait_ready();
        cluster
    }

    /// As [`Cluster::init`], with a relay before every port: whatever goes to a server passes `tap`, and
    /// clients find no server but behind its relay.
    pub(crate) fn relayed(servers: u16, tap: impl Fn(Port, &Passed<'_>) + Send + Sync + 'static) -> Cluster {
        let mut cluster = Cluster::init(servers);
        let tap = Arc::new(tap);
        let ports = cluster.places.iter().flat_map(|place| {
            let Member { id, client, peer } = place.member;
            [(Port::Client(id), client), (Port::Peer(id), peer)]
        });
        let relays = ports.map(|(port, address)| {
            let tap = Arc::clone(&tap);
            (port, address, Relay::to(address, move |passed| tap(port, passed)))
        });
        let relays: Vec<(Port, SocketAddr, Relay)> = relays.collect();
        cluster.redirect(|_, port| {
            let relay = relays.iter().find(|(of, _, _)| *of == port);
            relay.expect("one for every port").2.address()
        });
        cluster.relays = relays.into_iter().map(|(_, _, relay)| relay).collect();
        cluster
    }

    /// Before it is started: the server named first finds the port of another where `front` says; clients
    /// find a server where `front` says of it and its own port.
    pub(crate) fn redirect(&mut self, front: impl Fn(NodeId, Port) -> SocketAddr) {
        let members: Vec<Member> = self.places.iter().map(|place| place.member).collect();
        for me in &members {
            // Each server binds what its own file says of it; where the others are it is told otherwise.
            let replaced = members.iter().filter(|other| other.id != me.id).flat_map(|other| {
                let Member { id, client, peer } = *other;
                [(client, front(me.id, Port::Client(id))), (peer, front(me.id, Port::Peer(id)))]
            });
            let replaced: Vec<_> = replaced.collect();
            self.edit(me.id, |mut text| {
                for (address, front) in &replaced {
                    text = text.replace(&format!("\"{address}\""), &format!("\"{front}\""));
                }
                text
            });
        }
        self.fronts = members.iter().map(|me| (me.id, front(me.id, Port::Client(me.id)))).collect();
    }

    /// Before it is started: changes the server's `recado.toml`.
    pub(crate) fn edit(&self, node: NodeId, change: impl FnOnce(String) -> String) {
        let path = self.config(node);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(text)).unwrap();
    }

    /// From its next start on the server finds this in its environment.
    pub(crate) fn set_environment(&mut self, node: NodeId, environment: Vec<(&'static str, PathBuf)>) {
        self.place_mut(node).environment = environment;
    }

    /// If the test fails, everything stays where it is, and where is told.
    pub(crate) fn keep_on_failure(&mut self) {
        self.kept_on_failure = true;
    }

    /// As [`Cluster::ready`], and whoever leads first leads until something happens to it: a server of a
    /// higher id that was late is no reason. So every change of view is.
    pub(crate) fn steady(servers: u16) -> Cluster {
        let mut cluster = Cluster::init(servers);
        cluster.stay_with_the_first();
        cluster.start_all();
        cluster.wait_ready();
        cluster
    }

    /// Before it is started: no primary gives way by itself.
    pub(crate) fn stay_with_the_first(&self) {
        for node in self.nodes() {
            self.edit(node, |text| {
                let steady = text.replace("preempt = \"graceful\"", "preempt = \"off\"");
                assert_ne!(steady, text);
                steady
            });
        }
    }

    /// The clock that all measures of this test are taken by.
    pub(crate) fn clock(&self) -> MachineClock {
        self.clock
    }

    /// The cluster's secret.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Where everything lies.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.places.iter().map(|place| place.member.id).collect()
    }

    /// Sends to a server what somebody sent to it before, from the same address; there are relays.
    pub(crate) fn say_again(&self, node: NodeId, client: SocketAddr, bytes: &[u8]) {
        let server = self.member(node).client;
        let relay = self.relays.iter().find(|relay| relay.server() == server).expect("one for every port");
        relay.send_as_client(client, bytes);
    }

    /// Where clients reach the servers: by the relays, if there are any.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let client =
            |place: &Place| self.fronts.get(&place.member.id).copied().unwrap_or(place.member.client);
        self.places.iter().map(client).collect()
    }

    pub(crate) fn member(&self, node: NodeId) -> Member {
        self.place(node).member
    }

    pub(crate) fn pid(&self, node: NodeId) -> u32 {
        self.place(node).process.as_ref().expect("it runs").id()
    }

    /// The server's data directory.
    pub(crate) fn data(&self, node: NodeId) -> PathBuf {
        ServerFile::read(&self.config(node)).unwrap().data
    }

    /// The server's `recado.toml`.
    pub(crate) fn config(&self, node: NodeId) -> PathBuf {
        self.place(node).home.join("recado.toml")
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        let log = OpenOptions::new().create(true).append(true).open(&self.place(node).log).unwrap();
        self.start_logging_to(node, log);
    }

    /// As [`Cluster::start`]; whatever the server says goes there.
    pub(crate) fn start_logging_to(&mut self, node: NodeId, log: impl Into<Stdio>) {
        self.start_by(Command::new(crate::recadod()), node, log);
    }

    /// As [`Cluster::start_logging_to`], after what a shell does first.
    pub(crate) fn start_after(&mut self, shell: &str, node: NodeId, log: impl Into<Stdio>) {
        self.start_by(after(shell, crate::recadod()), node, log);
    }

    fn start_by(&mut self, mut program: Command, node: NodeId, log: impl Into<Stdio>) {
        let place = self.place_mut(node);
        assert!(place.process.is_none(), "{node} runs already");
        let process = program
            .args(["serve", "--config"])
            .arg(Path::new(place.home.file_name().expect("a directory of its own")).join("recado.toml"))
            .current_dir(place.home.parent().expect("below a directory"))
            .envs(place.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        place.process = Some(process.unwrap());
    }

    pub(crate) fn start_all(&mut self) {
        for node in self.nodes() {
            self.start(node);
        }
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill(&mut self, node: NodeId) {
        let mut process = self.place_mut(node).process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// All of them, as nearly at once as one process can.
    pub(crate) fn kill_all(&mut self) {
        let mut processes: Vec<Child> =
            self.places.iter_mut().filter_map(|place| place.process.take()).collect();
        processes.iter_mut().for_each(|process| process.kill().unwrap());
        processes.iter_mut().for_each(|process| {
            process.wait().unwrap();
        });
    }

    /// Whether its process was started and has not been waited for, though it may have ended by itself.
    pub(crate) fn runs(&self, node: NodeId) -> bool {
        self.place(node).process.is_some()
    }

    /// Waits until the process has ended by itself: with what.
    pub(crate) fn wait_for_its_end(&mut self, node: NodeId, patience: Duration) -> Option<ExitStatus> {
        let mut process = self.place_mut(node).process.take().expect("it runs");
        let mut exit = None;
        self.poll(patience, || {
            exit = process.try_wait().unwrap();
            exit.is_some()
        });
        if exit.is_none() {
            self.place_mut(node).process = Some(process);
        }
        exit
    }

    pub(crate) fn signal(&self, node: NodeId, signal: Signal) {
        let pid = Pid::from_child(self.place(node).process.as_ref().expect("it runs"));
        kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and the exit it came to: how long it took.
    pub(crate) fn terminate(&mut self, node: NodeId) -> Duration {
        self.end_by(Signal::TERM, node)
    }

    /// As [`Cluster::terminate`], by another signal that asks for an orderly end.
    pub(crate) fn end_by(&mut self, signal: Signal, node: NodeId) -> Duration {
        let began = self.clock.now();
        self.signal(node, signal);
        let exit = self.exit(node);
        assert!(exit.success(), "{node} ended with {exit:?} on {signal:?}");
        self.clock.now().since(began)
    }

    /// Waits for the end of a server that was asked to end, or does by itself.
    pub(crate) fn exit(&mut self, node: NodeId) -> ExitStatus {
        let mut process = self.place_mut(node).process.take().expect("it runs");
        let mut exit = None;
        let ended = self.poll(PATIENCE, || {
            exit = process.try_wait().unwrap();
            exit.is_some()
        });
        if !ended {
            process.kill().unwrap();
        }
        exit.unwrap_or_else(|| panic!("{node} did not end within {PATIENCE:?}"))
    }

    /// One STATUS, answered or not.
    pub(crate) fn status(&self, node: NodeId) -> Option<StatusOk> {
        self.place(node).process.as_ref()?;
        self.asker.status(self.member(node).client)
    }

    /// STATUS of every server, ascending by id; none of one that is silent.
    pub(crate) fn statuses(&self) -> Vec<Option<StatusOk>> {
        self.nodes().into_iter().map(|node| self.status(node)).collect()
    }

    /// Looks again and again until `condition` holds of what the servers say; panics after `patience`.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut(&[Option<StatusOk>]) -> bool,
    ) {
        let mut last = Vec::new();
        let met = self.poll(patience, || {
            last = self.statuses();
            condition(&last)
        });
        assert!(met, "{what}: not within {patience:?}; the servers say {}", told(&last));
    }

    /// Waits until there is one primary, and says which.
    pub(crate) fn wait_primary(&self) -> NodeId {
        let mut primary = None;
        self.wait_until("a primary", PATIENCE, |statuses| {
            primary = primary_of(statuses).map(|status| status.node);
            primary.is_some()
        });
        primary.expect("the condition found it")
    }

    /// Waits until every server runs in the primary's view and has applied what the primary had
    /// applied when the wait found it: DESIGN.md's READY, seen from outside.
    pub(crate) fn wait_ready(&self) -> NodeId {
        self.wait_ready_within(PATIENCE)
    }

    /// The same, with another patience.
    pub(crate) fn wait_ready_within(&self, patience: Duration) -> NodeId {
        let mut since: Option<StatusOk> = None;
        self.wait_until("every server READY", patience, |statuses| {
            let Some(primary) = primary_of(statuses) else { return false };
            if since.as_ref().is_none_or(|since| since.view != primary.view) {
                since = Some(primary.clone());
            }
            let goal = since.as_ref().map_or(Op::ZERO, |since| since.applied);
            statuses.iter().flatten().filter(|status| ready(status, primary, goal)).count() == statuses.len()
        });
        since.expect("the condition found it").node
    }

    /// Looks until `done` or the deadline; whether it was done.
    pub(crate) fn poll(&self, patience: Duration, mut done: impl FnMut() -> bool) -> bool {
        let deadline = self.clock.now() + patience;
        let ticks = crossbeam::channel::tick(LOOK_EVERY);
        while !done() {
            if self.clock.now() >= deadline {
                return false;
            }
            ticks.recv().expect("a tick never ends");
        }
        true
    }

    /// Resident memory of a server, in KiB (VmRSS of /proc).
    pub(crate) fn resident_kib(&self, node: NodeId) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(node))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What a server has logged so far.
    pub(crate) fn log(&self, node: NodeId) -> String {
        fs::read_to_string(&self.place(node).log).unwrap_or_default()
    }

    fn place(&self, node: NodeId) -> &Place {
        self.places.iter().find(|place| place.member.id == node).expect("a member")
    }

    fn place_mut(&mut self, node: NodeId) -> &mut Place {
        self.places.iter_mut().find(|place| place.member.id == node).expect("a member")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            for node in self.nodes() {
                let log = self.log(node);
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(60)..];
                eprintln!("---- {node}, its last {} lines\n{}", tail.len(), tail.join("\n"));
            }
            if self.kept_on_failure {
                self.dir.disable_cleanup(true);
                eprintln!("---- everything is kept in {}", self.dir().display());
            }
        }
    }
}

fn ready(status: &StatusOk, primary: &StatusOk, goal: Op) -> bool {
    let in_place = match status.role {
        RoleName::Primary => status.node == primary.node,
        RoleName::Backup => true,
        RoleName::Candidate | RoleName::Isolated | RoleName::Learner => false,
    };
    in_place && status.view == primary.view && status.applied >= goal
}

/// The one that says it is primary in the highest view anybody names.
pub(crate) fn primary_of(statuses: &[Option<StatusOk>]) -> Option<&StatusOk> {
    let newest = statuses.iter().flatten().max_by_key(|status| status.view)?;
    statuses.iter().flatten().find(|status| status.role == RoleName::Primary && status.view == newest.view)
}

fn told(statuses: &[Option<StatusOk>]) -> String {
    let mut text = String::new();
    for status in statuses {
        let _ = match status {
            None => write!(text, "[silent] "),
            Some(status) => write!(
                text,
                "[{} {:?} view {} applied {} durable {}] ",
                status.node, status.role, status.view, status.applied, status.durable
            ),
        };
    }
    text
}

/// `program`, in the place of a shell that has done something before (set its umask, ignored a signal).
pub(crate) fn after(shell: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")]).arg(program);
    command
}

/// A pipe with no room left: the first byte more blocks who writes it.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"x").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// The output of a command that must have gone well.
pub(crate) fn succeeded(output: &Output) -> String {
    let (told, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{told}\n{complained}", output.status);
    told.into_owned()
}

/// A port such that it and the `ports - 1` after it are free on every host, and those 1000 higher too.
///
/// Below the range the system hands out by itself: otherwise the port of a server that was just
/// killed could go to some client's socket before the server is back.
pub(crate) fn free_ports(hosts: &[&str], ports: u16) -> u16 {
    for _ in 0..1_000 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 11_000 + u16::from_le_bytes(random) % 19_000;
        let bound: Vec<_> = hosts
            .iter()
            .flat_map(|host| {
                (port..port + ports).flat_map(move |client| [(*host, client), (*host, client + 1_000)])
            })
            .map(UdpSocket::bind)
            .collect();
        if bound.iter().all(Result::is_ok) {
            return port;
        }
    }
    panic!("no {ports} ports in a row are free on {hosts:?}");
}
