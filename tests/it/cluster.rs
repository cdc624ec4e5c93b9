//! A cluster of real servers: processes, sockets, disks, in a temporary directory.
//!
//! No wait here sleeps blindly: a channel's ticks pace the checks of a condition, and every wait has a
//! deadline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{PipeReader, PipeWriter, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use recado::config::file::ServerFile;
use recado::config::secret::ClusterSecret;
use recado::config::{Config, Member};
use recado_proto::id::{ClusterId, NodeId, Op};
use recado_proto::packet::{RoleName, Status};
use recado_sys::clock::MachineClock;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::relay::{PassingDatagram, Relay};
use crate::status_client::StatusClient;

/// The deadline for everything that is not measured by its test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The interval between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a test may share the machine with. A measuring test holds it alone; the others hold it together, as
/// many as the harness runs at once.
static MACHINE: RwLock<()> = RwLock::new(());

/// Lets clusters of other tests run beside this test's own. A test that runs a cluster, and for which it does
/// not matter how fast, calls this first.
pub(crate) fn beside_other_clusters() -> RwLockReadGuard<'static, ()> {
    MACHINE.read()
}

/// Locks out other clusters. A test calls this first if it measures, or floods the machine.
pub(crate) fn lock_out_other_clusters() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write()
}

/// A port of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The port for clients.
    Client(NodeId),
    /// The port for the other servers.
    Peer(NodeId),
}

impl Port {
    pub(crate) fn node(self) -> NodeId {
        let (Port::Client(node) | Port::Peer(node)) = self;
        node
    }
}

/// One server of the cluster, running or not.
#[derive(Debug)]
struct ServerSlot {
    member: Member,
    /// The folder of the configuration file. The server runs in the directory above it, with a relative path.
    home: PathBuf,
    log: PathBuf,
    /// Environment variables of the server, added to those of the test.
    environment: Vec<(&'static str, PathBuf)>,
    process: Option<Child>,
}

/// A cluster of server processes. Dropping it kills those that run, and shows their logs if the test fails.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    clock: MachineClock,
    slots: Vec<ServerSlot>,
    asker: StatusClient,
    /// The secret of the servers. An attacker in a test must not use it.
    secret: [u8; 32],
    /// The relays in front of the servers' ports, if there are any.
    relays: Vec<Relay>,
    /// The addresses that clients use, where they differ from the servers' own.
    client_addresses: BTreeMap<NodeId, SocketAddr>,
    /// True if all files stay on the disk when the test fails.
    kept_on_failure: bool,
    /// The last field, so that the processes have ended before their files are removed.
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Runs `recadod init --servers n` in a new directory, with ports that are free. It starts no server.
    pub(crate) fn init(servers: u16) -> Cluster {
        Cluster::init_in(tempfile::tempdir().unwrap(), servers)
    }

    /// As [`Cluster::init`], below `dir`.
    pub(crate) fn init_in(dir: tempfile::TempDir, servers: u16) -> Cluster {
        let port = free_ports(&["127.0.0.1"], servers);
        let home = dir.path().join("cluster");
        let output = Command::new(crate::recadod())
            .args(["init", "--servers", &servers.to_string(), "--port", &port.to_string(), "--dir"])
            .arg(&home)
            .output();
        succeeded(&output.unwrap());
        let homes = (1..=servers).map(|id| home.join(NodeId(id).to_string())).collect();
        Cluster::of(dir, homes)
    }

    /// Makes a cluster of the servers with their files in `homes`, all below `dir`. It starts no server.
    pub(crate) fn of(dir: tempfile::TempDir, homes: Vec<PathBuf>) -> Cluster {
        let mut id = None;
        let mut places = Vec::new();
        for home in homes {
            let file = ServerFile::read(&home.join("recado.toml")).unwrap();
            let Config { cluster, .. } = file.config;
            id = Some((cluster.id, *ClusterSecret::read(&file.secret).unwrap().as_bytes()));
            let member = *cluster.members.iter().find(|member| member.id == cluster.me).unwrap();
            let log = dir.path().join(format!("{}.log", member.id));
            places.push(ServerSlot { member, home, log, environment: Vec::new(), process: None });
        }
        let (id, secret) = id.unwrap();
        let asker = StatusClient::new(id, &secret);
        Cluster {
            id,
            clock: MachineClock::start(),
            slots: places,
            asker,
            secret,
            relays: Vec::new(),
            client_addresses: BTreeMap::new(),
            kept_on_failure: false,
            dir,
        }
    }

    /// Returns a cluster that is initialised and started, with every server READY.
    pub(crate) fn ready(servers: u16) -> Cluster {
        let mut cluster = Cluster::init(servers);
        cluster.start_all();
        cluster.wait_ready();
        cluster
    }

    /// As [`Cluster::init`], with a relay in front of every port: `tap` sees every datagram to a server, and
    /// clients know only the addresses of the relays.
    pub(crate) fn relayed(
        servers: u16,
        tap: impl Fn(Port, &PassingDatagram<'_>) + Send + Sync + 'static,
    ) -> Cluster {
        let mut cluster = Cluster::init(servers);
        let tap = Arc::new(tap);
        let ports = cluster.slots.iter().flat_map(|place| {
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

    /// Redirects traffic, before the start: the server named first reaches a port of another server at the
    /// address that `front` returns. Clients reach a server at the address that `front` returns for it and
    /// its own client port.
    pub(crate) fn redirect(&mut self, front: impl Fn(NodeId, Port) -> SocketAddr) {
        let members: Vec<Member> = self.slots.iter().map(|place| place.member).collect();
        for me in &members {
            // Each server binds the address in its own file. Only the addresses of the others are replaced.
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
        self.client_addresses = members.iter().map(|me| (me.id, front(me.id, Port::Client(me.id)))).collect();
    }

    /// Changes the server's `recado.toml`, before the start.
    pub(crate) fn edit(&self, node: NodeId, change: impl FnOnce(String) -> String) {
        let path = self.config(node);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(text)).unwrap();
    }

    /// Sets environment variables of the server from its next start on.
    pub(crate) fn set_environment(&mut self, node: NodeId, environment: Vec<(&'static str, PathBuf)>) {
        self.place_mut(node).environment = environment;
    }

    /// Keeps all files if the test fails, and prints where they are.
    pub(crate) fn keep_on_failure(&mut self) {
        self.kept_on_failure = true;
    }

    /// As [`Cluster::ready`], but the first primary leads until a fault stops it: a server with a higher id
    /// that starts later does not take over. A change of view therefore always has a fault as its cause.
    pub(crate) fn steady(servers: u16) -> Cluster {
        let mut cluster = Cluster::init(servers);
        cluster.disable_preemption();
        cluster.start_all();
        cluster.wait_ready();
        cluster
    }

    /// Configures all servers, before the start, so that no primary hands over by itself.
    pub(crate) fn disable_preemption(&self) {
        for node in self.nodes() {
            self.edit(node, |text| {
                let steady = text.replace("preempt = \"graceful\"", "preempt = \"off\"");
                assert_ne!(steady, text);
                steady
            });
        }
    }

    /// The clock for all measurements of the test.
    pub(crate) fn clock(&self) -> MachineClock {
        self.clock
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The directory of all files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.slots.iter().map(|place| place.member.id).collect()
    }

    /// Sends a recorded datagram of a client to a server again, from the same address. The cluster must have
    /// relays.
    pub(crate) fn replay_from_client(&self, node: NodeId, client: SocketAddr, bytes: &[u8]) {
        let server = self.member(node).client;
        let relay = self.relays.iter().find(|relay| relay.server() == server).expect("one for every port");
        relay.send_as_client(client, bytes);
    }

    /// Returns the addresses at which clients reach the servers: those of the relays, if there are any.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let client = |place: &ServerSlot| {
            self.client_addresses.get(&place.member.id).copied().unwrap_or(place.member.client)
        };
        self.slots.iter().map(client).collect()
    }

    pub(crate) fn member(&self, node: NodeId) -> Member {
        self.place(node).member
    }

    pub(crate) fn pid(&self, node: NodeId) -> u32 {
        self.place(node).process.as_ref().expect("it runs").id()
    }

    pub(crate) fn data(&self, node: NodeId) -> PathBuf {
        ServerFile::read(&self.config(node)).unwrap().data
    }

    pub(crate) fn config(&self, node: NodeId) -> PathBuf {
        self.place(node).home.join("recado.toml")
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        let log = OpenOptions::new().create(true).append(true).open(&self.place(node).log).unwrap();
        self.start_logging_to(node, log);
    }

    /// As [`Cluster::start`], with the server's stderr going to `log`.
    pub(crate) fn start_logging_to(&mut self, node: NodeId, log: impl Into<Stdio>) {
        self.start_by(Command::new(crate::recadod()), node, log);
    }

    /// As [`Cluster::start_logging_to`], with SIGHUP not ignored, whatever runs the tests.
    pub(crate) fn start_heeding_hangup(&mut self, node: NodeId, log: impl Into<Stdio>) {
        let mut program = Command::new("env");
        program.arg("--default-signal=HUP").arg(crate::recadod());
        self.start_by(program, node, log);
    }

    /// As [`Cluster::start_logging_to`], in a shell that runs the commands in `shell` first.
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

    /// Kills the process with SIGKILL. It has ended when this returns.
    pub(crate) fn kill(&mut self, node: NodeId) {
        let mut process = self.place_mut(node).process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Kills all processes, as nearly at the same time as one process can.
    pub(crate) fn kill_all(&mut self) {
        let mut processes: Vec<Child> =
            self.slots.iter_mut().filter_map(|place| place.process.take()).collect();
        processes.iter_mut().for_each(|process| process.kill().unwrap());
        processes.iter_mut().for_each(|process| {
            process.wait().unwrap();
        });
    }

    /// Returns true if the process was started and not waited for. It may have ended by itself.
    pub(crate) fn runs(&self, node: NodeId) -> bool {
        self.place(node).process.is_some()
    }

    /// Waits until the process has ended by itself, and returns its exit status.
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

    /// Sends SIGTERM and waits for the exit. Returns how long it took.
    pub(crate) fn terminate(&mut self, node: NodeId) -> Duration {
        self.end_by(Signal::TERM, node)
    }

    /// As [`Cluster::terminate`], with another signal that asks for an orderly end.
    pub(crate) fn end_by(&mut self, signal: Signal, node: NodeId) -> Duration {
        let began = self.clock.now();
        self.signal(node, signal);
        let exit = self.exit(node);
        assert!(exit.success(), "{node} ended with {exit:?} on {signal:?}");
        self.clock.now().since(began)
    }

    /// Waits for the end of a server that was asked to end, or that ends by itself.
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

    /// Sends one STATUS. Returns `None` if it is not answered.
    pub(crate) fn status(&self, node: NodeId) -> Option<Status> {
        self.place(node).process.as_ref()?;
        self.asker.status(self.member(node).client)
    }

    /// Returns the status of every server, ascending by id; `None` for a silent one.
    pub(crate) fn statuses(&self) -> Vec<Option<Status>> {
        self.nodes().into_iter().map(|node| self.status(node)).collect()
    }

    /// Polls the servers' statuses until `condition` holds for them. Panics after `patience`.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut(&[Option<Status>]) -> bool,
    ) {
        let mut last = Vec::new();
        let met = self.poll(patience, || {
            last = self.statuses();
            condition(&last)
        });
        assert!(met, "{what}: not within {patience:?}; the servers say {}", told(&last));
    }

    /// Waits until there is one primary, and returns its id.
    pub(crate) fn wait_primary(&self) -> NodeId {
        let mut primary = None;
        self.wait_until("a primary", PATIENCE, |statuses| {
            primary = primary_of(statuses).map(|status| status.node);
            primary.is_some()
        });
        primary.expect("the condition found it")
    }

    /// Waits until every server runs in the primary's view and has applied what the primary had applied when
    /// the wait found it: READY of DESIGN.md, as seen from outside. Returns the primary.
    pub(crate) fn wait_ready(&self) -> NodeId {
        self.wait_ready_within(PATIENCE)
    }

    /// As [`Cluster::wait_ready`], with another deadline.
    pub(crate) fn wait_ready_within(&self, patience: Duration) -> NodeId {
        let mut since: Option<Status> = None;
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

    /// Polls `done` until it returns true or the deadline passes. Returns true if it was done.
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

    /// Returns the resident memory of a server in KiB (VmRSS in /proc).
    pub(crate) fn resident_kib(&self, node: NodeId) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(node))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Returns the text that a server has logged so far.
    pub(crate) fn log(&self, node: NodeId) -> String {
        fs::read_to_string(&self.place(node).log).unwrap_or_default()
    }

    fn place(&self, node: NodeId) -> &ServerSlot {
        self.slots.iter().find(|place| place.member.id == node).expect("a member")
    }

    fn place_mut(&mut self, node: NodeId) -> &mut ServerSlot {
        self.slots.iter_mut().find(|place| place.member.id == node).expect("a member")
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

fn ready(status: &Status, primary: &Status, goal: Op) -> bool {
    let in_place = match status.role {
        RoleName::Primary => status.node == primary.node,
        RoleName::Backup => true,
        RoleName::Candidate | RoleName::Isolated | RoleName::Learner | RoleName::Unknown(_) => false,
    };
    in_place && status.view == primary.view && status.applied >= goal
}

/// Returns the server that claims to be primary in the highest view of all statuses.
pub(crate) fn primary_of(statuses: &[Option<Status>]) -> Option<&Status> {
    let newest = statuses.iter().flatten().max_by_key(|status| status.view)?;
    statuses.iter().flatten().find(|status| status.role == RoleName::Primary && status.view == newest.view)
}

fn told(statuses: &[Option<Status>]) -> String {
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

/// Returns a command that runs `shell` in a shell (sets its umask, ignores a signal) and then `program` in
/// its place.
pub(crate) fn after(shell: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")]).arg(program);
    command
}

/// Returns a pipe with no room left: the next byte blocks its writer.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"x").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Returns the stdout of a command. The command must have succeeded.
pub(crate) fn succeeded(output: &Output) -> String {
    let (told, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{told}\n{complained}", output.status);
    told.into_owned()
}

/// The ports that [`free_ports`] has returned in this process, each with those after it.
static RETURNED: Mutex<Vec<(u16, u16)>> = Mutex::new(Vec::new());

/// Returns a port such that it and the `ports - 1` after it are free on every host, and those 1000 higher
/// too.
///
/// The port is below the range of ephemeral ports, and no two calls return the same. Otherwise the system
/// could give the port of a killed server to a client's socket, or this to another test's server, before the
/// server restarts.
pub(crate) fn free_ports(hosts: &[&str], ports: u16) -> u16 {
    let mut returned = RETURNED.lock();
    for _ in 0..1_000 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 11_000 + u16::from_le_bytes(random) % 19_000;
        // The peers' ports of a range may be the clients' of another.
        let clash = |(other, others): &(u16, u16)| {
            [0, 1_000, -1_000].iter().any(|by| {
                let (port, other) = (i32::from(port) + by, i32::from(*other));
                port < other + i32::from(*others) && other < port + i32::from(ports)
            })
        };
        if returned.iter().any(clash) {
            continue;
        }
        let bound: Vec<_> = hosts
            .iter()
            .flat_map(|host| {
                (port..port + ports).flat_map(move |client| [(*host, client), (*host, client + 1_000)])
            })
            .map(UdpSocket::bind)
            .collect();
        if bound.iter().all(Result::is_ok) {
            returned.push((port, ports));
            return port;
        }
    }
    panic!("no {ports} ports in a row are free on {hosts:?}");
}
