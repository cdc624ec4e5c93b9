//! The cluster that is measured: real server processes of its own, in a temporary directory, or one that runs
//! already.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use recado_client::{ClusterIdentity, Name, RoleName, ServerStatus, Trust, identify, status};
use recado_proto::id::{NodeId, View};
use recado_sys::clock::MachineClock;
use recado_sys::random;

use crate::failure::Failure;
use crate::interrupt;
use crate::process::Watched;
use crate::progress;

/// The longest wait for servers to start, to elect or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for the answers of all servers to one query while they start.
const LOOK_PATIENCE: Duration = Duration::from_millis(300);
/// The same of servers that are known to run.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The interval between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The file of a server to which `recadod-counted` writes the number of its allocations.
const ALLOCATIONS: &str = "allocations";

/// A setting of `recado.toml` that differs from the default, as its line before and after.
pub(crate) type Setting = (&'static str, String);

/// A server process of ours.
#[derive(Debug)]
struct Server {
    node: NodeId,
    home: PathBuf,
    child: Option<Child>,
}

/// The servers. Those that it has started are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    clock: MachineClock,
    recadod: PathBuf,
    addresses: Vec<SocketAddr>,
    identity: ClusterIdentity,
    servers: Vec<Server>,
    /// The last field, so that the processes have ended before their files are removed.
    dir: tempfile::TempDir,
}

/// The cluster to measure, as the command line says.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// Address of a server of a running cluster; without it servers are started
    #[arg(long, value_name = "ADDR")]
    pub(crate) server: Option<SocketAddr>,
    /// Servers to start
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9),
          conflicts_with = "server")]
    pub(crate) servers: u16,
    /// The daemon to start; recadod-counted also counts its allocations [default: recadod beside this
    /// program]
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    pub(crate) recadod: Option<PathBuf>,
}

impl Target {
    /// Fails if the servers run already.
    pub(crate) fn must_be_ours(&self) -> Result<(), Failure> {
        match self.server {
            None => Ok(()),
            Some(_) => Err(Failure::Usage("this measurement needs servers that it has started".into())),
        }
    }
}

impl Cluster {
    /// Starts servers with these settings, or finds those that run, and waits until they serve.
    pub(crate) fn ready(
        target: &Target,
        clock: MachineClock,
        settings: &[Setting],
    ) -> Result<Cluster, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("recado-bench-")
            .tempdir()
            .map_err(Failure::io("a temporary directory"))?;
        if let Some(server) = target.server {
            let identity = identify(&[server], PATIENCE)?;
            let recadod = PathBuf::new();
            let mut cluster =
                Cluster { clock, recadod, addresses: vec![server], identity, servers: vec![], dir };
            cluster.addresses = cluster.statuses(ANSWER_PATIENCE)?.iter().map(|server| server.addr).collect();
            return Ok(cluster);
        }
        let recadod = match &target.recadod {
            Some(path) => path.clone(),
            None => beside_this_program()?,
        };
        progress::say(format_args!("starting {} servers", target.servers));
        let port = free_ports(target.servers)?;
        let home = dir.path().join("cluster");
        let output = Command::new(&recadod)
            .args(["init", "--servers", &target.servers.to_string(), "--port", &port.to_string(), "--dir"])
            .arg(&home)
            .output()
            .map_err(Failure::io(recadod.display().to_string()))?;
        if !output.status.success() {
            return Err(Failure::Other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        // From here on an early return kills the servers that were started.
        let mut started = Started(Vec::new());
        for node in (1..=target.servers).map(NodeId) {
            let home = home.join(node.to_string());
            // A hand-over amid a measurement would be measured.
            let steady = [("preempt = \"graceful\"", "preempt = \"off\"".to_owned())];
            configure(&home.join("recado.toml"), &steady)?;
            configure(&home.join("recado.toml"), settings)?;
            started.0.push(Server { node, child: Some(start(&recadod, &home)?), home });
        }
        let addresses: Vec<SocketAddr> =
            (port..port + target.servers).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let identity = identify(&addresses, PATIENCE)?;
        let servers = std::mem::take(&mut started.0);
        let cluster = Cluster { clock, recadod, addresses, identity, servers, dir };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn identity(&self) -> ClusterIdentity {
        self.identity
    }

    /// The directory of all files, also of those that clients keep.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directories of the servers of ours.
    pub(crate) fn data(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.servers.iter().map(|server| server.home.join("data"))
    }

    /// The number of servers.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The status of every server that answers in time. Returns once all have answered.
    fn statuses(&self, patience: Duration) -> Result<Vec<ServerStatus>, Failure> {
        Ok(status(&self.addresses, patience, &Trust::Pinned(self.identity.key))?)
    }

    /// The primary's id.
    pub(crate) fn primary(&self) -> Result<NodeId, Failure> {
        let statuses = self.statuses(ANSWER_PATIENCE)?;
        primary_of(&statuses).ok_or_else(|| Failure::Late("a primary".into()))
    }

    /// The highest view that a server is in.
    pub(crate) fn view(&self) -> Result<View, Failure> {
        let statuses = self.statuses(ANSWER_PATIENCE)?;
        let views = statuses.iter().filter_map(|server| Some(server.answer.as_ref()?.view));
        views.max().ok_or_else(|| Failure::Late("a server's answer".into()))
    }

    /// The server processes on this machine, the primary first.
    pub(crate) fn processes(&self) -> Result<Vec<Watched>, Failure> {
        let statuses = self.statuses(ANSWER_PATIENCE)?;
        let primary = primary_of(&statuses);
        let mut watched: Vec<Watched> = statuses
            .iter()
            .filter_map(|server| {
                let pid = server.answer.as_ref()?.pid;
                let role = if Some(server.node) == primary { "primary" } else { "backup" };
                let ours = self.servers.iter().find(|ours| ours.node == server.node);
                let counted = ours.map(|ours| ours.home.join(ALLOCATIONS));
                Some(Watched::new(format!("{role} {}", server.node), pid, "recadod")?.counted_in(counted))
            })
            .collect();
        watched.sort_by_key(|process| !process.name().starts_with("primary"));
        Ok(watched)
    }

    /// Waits until there is a primary and every server has answered as primary or backup in its view.
    pub(crate) fn wait_ready(&self) -> Result<(), Failure> {
        let (_never, pace) = mpsc::channel::<()>();
        let deadline = self.clock.now() + PATIENCE;
        while !self.is_ready()? {
            interrupt::check()?;
            if self.clock.now() >= deadline {
                return Err(Failure::Late("the servers are ready".into()));
            }
            let _ = pace.recv_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<bool, Failure> {
        let statuses = match self.statuses(LOOK_PATIENCE) {
            Ok(statuses) => statuses,
            Err(Failure::Client(_)) => return Ok(false),
            Err(failure) => return Err(failure),
        };
        let answers: Vec<_> = statuses.iter().filter_map(|server| server.answer.as_ref()).collect();
        let view = answers.iter().map(|status| status.view).max();
        Ok(answers.len() == self.len()
            && primary_of(&statuses).is_some()
            && answers.iter().all(|status| {
                matches!(status.role, RoleName::Primary | RoleName::Backup) && Some(status.view) == view
            }))
    }

    /// Kills a server of ours with SIGKILL. It has ended when this returns.
    pub(crate) fn kill(&mut self, node: NodeId) -> Result<(), Failure> {
        let server = self.servers.iter_mut().find(|server| server.node == node);
        let child = server.and_then(|server| server.child.take());
        let mut child = child.ok_or_else(|| Failure::Other(format!("{node} is not running")))?;
        child.kill().and_then(|()| child.wait()).map_err(Failure::io("killing a server"))?;
        Ok(())
    }

    /// Starts a server of ours that was killed.
    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), Failure> {
        for server in self.servers.iter_mut().filter(|server| server.node == node && server.child.is_none()) {
            server.child = Some(start(&self.recadod, &server.home)?);
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Started(std::mem::take(&mut self.servers)));
    }
}

/// Servers that are killed when this is dropped.
struct Started(Vec<Server>);

impl Drop for Started {
    fn drop(&mut self) {
        let mut children: Vec<Child> = self.0.iter_mut().filter_map(|server| server.child.take()).collect();
        // One that has ended by itself cannot be killed, and needs not be.
        children.iter_mut().for_each(|child| drop(child.kill()));
        children.iter_mut().for_each(|child| drop(child.wait()));
    }
}

fn primary_of(statuses: &[ServerStatus]) -> Option<NodeId> {
    let answers = || statuses.iter().filter_map(|server| server.answer.as_ref());
    let view = answers().map(|status| status.view).max()?;
    answers().find(|status| status.role == RoleName::Primary && status.view == view).map(|status| status.node)
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::io("the path of this program"))?;
    let daemon = own.with_file_name("recadod");
    if daemon.exists() {
        return Ok(daemon);
    }
    Err(Failure::Usage(format!(
        "{} does not exist: build it (cargo build --release), or name another with --recadod",
        daemon.display()
    )))
}

fn configure(path: &Path, settings: &[Setting]) -> Result<(), Failure> {
    let mut text = fs::read_to_string(path).map_err(Failure::io(path.display().to_string()))?;
    for (before, after) in settings {
        if !text.contains(before) {
            return Err(Failure::Other(format!("{} has no line {before:?}", path.display())));
        }
        text = text.replace(before, after);
    }
    fs::write(path, text).map_err(Failure::io(path.display().to_string()))
}

fn start(recadod: &Path, home: &Path) -> Result<Child, Failure> {
    let log = fs::OpenOptions::new().create(true).append(true).open(home.with_extension("log"));
    Command::new(recadod)
        .args(["serve", "--config"])
        .arg(home.join("recado.toml"))
        .env("RECADO_ALLOCATIONS", home.join(ALLOCATIONS))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.map_err(Failure::io("the log of a server"))?)
        .spawn()
        .map_err(Failure::io(recadod.display().to_string()))
}

/// A port such that it and the `ports - 1` after it are free, and those 1000 higher too. It is below the
/// range of ephemeral ports, so that the system does not give it to a client while its server is down.
fn free_ports(ports: u16) -> Result<u16, Failure> {
    for _ in 0..1_000 {
        let drawn = u16::from_le_bytes(random::bytes().map_err(Failure::io("randomness"))?);
        let port = 11_000 + drawn % 19_000;
        let bound: Vec<_> = (port..port + ports)
            .flat_map(|port| [port, port + 1_000])
            .map(|port| UdpSocket::bind(("127.0.0.1", port)))
            .collect();
        if bound.iter().all(Result::is_ok) {
            return Ok(port);
        }
    }
    Err(Failure::Other(format!("no {ports} free ports in a row")))
}

/// A name that no earlier run has used, so that one cluster can be measured again.
pub(crate) fn fresh_name(what: &str) -> Result<Name, Failure> {
    let drawn = u64::from_le_bytes(random::bytes().map_err(Failure::io("randomness"))?);
    format!("{what}-{drawn:016x}").parse().map_err(|_| Failure::Other(format!("{what}: no name")))
}
