//! `recadod monitor` with real servers: what dies, hangs or is lost comes back by itself.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use recado_doctor::monitor::{MonitorView, Running, ServerView, State};
use recado_proto::id::NodeId;
use recado_sys::process::Process;
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, lock_out_other_clusters};
use crate::load::round_trip;

/// A cluster whose servers a monitor runs. Dropping it kills the monitor, then the servers.
struct Monitored {
    monitor: Option<Child>,
    /// The last field, so that the processes have ended before their files are removed.
    cluster: Cluster,
}

impl Monitored {
    /// The files of a cluster, without a monitor.
    fn init(servers: u16) -> Monitored {
        Monitored { monitor: None, cluster: Cluster::init(servers) }
    }

    /// A cluster whose servers all run.
    fn running(servers: u16) -> Monitored {
        let mut monitored = Monitored::init(servers);
        monitored.start(&[]);
        monitored.wait_until("all run", |servers| servers.iter().all(|one| one.state == State::Runs));
        monitored
    }

    fn dir(&self) -> PathBuf {
        self.cluster.dir().join("cluster")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(crate::recadod());
        command.args(["monitor", "--dir"]).arg(self.dir());
        command
    }

    fn start(&mut self, options: &[&str]) {
        let out = File::options().create(true).append(true).open(self.cluster.dir().join("monitor")).unwrap();
        let mut command = self.command();
        command.args(options).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        self.monitor = Some(command.spawn().unwrap());
    }

    /// What the monitor has told.
    fn told(&self) -> String {
        fs::read_to_string(self.cluster.dir().join("monitor")).unwrap_or_default()
    }

    fn kill_monitor(&mut self) {
        let mut monitor = self.monitor.take().unwrap();
        monitor.kill().unwrap();
        monitor.wait().unwrap();
    }

    /// Asks the monitor to end, and waits for it.
    fn stop(&mut self) -> ExitStatus {
        let mut monitor = self.monitor.take().unwrap();
        kill_process(Pid::from_child(&monitor), Signal::TERM).unwrap();
        let mut exit = None;
        let has_ended = self.cluster.poll(PATIENCE, || {
            exit = monitor.try_wait().unwrap();
            exit.is_some()
        });
        if !has_ended {
            monitor.kill().unwrap();
        }
        exit.unwrap_or_else(|| panic!("the monitor did not end within {PATIENCE:?}: {}", self.told()))
    }

    fn view(&self) -> Option<MonitorView> {
        MonitorView::read(&self.dir()).ok()
    }

    /// Waits until this holds for the servers, as a monitor that runs has written of them.
    fn wait_until(&self, what: &str, mut holds: impl FnMut(&[ServerView]) -> bool) -> Vec<ServerView> {
        let mut last = None;
        let met = self.cluster.poll(PATIENCE, || {
            last = self.view();
            last.as_ref().is_some_and(|view| view.runs() && holds(&view.servers))
        });
        assert!(met, "{what}: not within {PATIENCE:?}: {last:#?}\n{}", self.told());
        last.unwrap().servers
    }

    /// Waits until this holds for one server.
    fn wait_for(&self, id: u16, what: &str, holds: impl Fn(&ServerView) -> bool) -> ServerView {
        let of = |servers: &[ServerView]| servers.iter().find(|one| one.id == id).cloned();
        of(&self.wait_until(what, |servers| of(servers).is_some_and(|one| holds(&one)))).unwrap()
    }

    fn processes(&self) -> Vec<Running> {
        self.view().unwrap().servers.iter().map(|one| one.process.unwrap()).collect()
    }

    fn signal(&self, id: u16, signal: Signal) {
        let process = self.processes()[usize::from(id) - 1];
        Process::open(process.into()).unwrap().expect("it runs").signal(signal).unwrap();
    }
}

impl Drop for Monitored {
    fn drop(&mut self) {
        if let Some(mut monitor) = self.monitor.take() {
            let _ = monitor.kill();
            let _ = monitor.wait();
        }
        let servers = self.view().into_iter().flat_map(|view| view.servers);
        for process in servers.filter_map(|one| one.process) {
            if let Ok(Some(process)) = Process::open(process.into()) {
                let _ = process.signal(Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("---- the monitor told\n{}", self.told());
        }
    }
}

/// What a command told people, and its exit code.
fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_server_that_dies_or_hangs_is_back_without_anybody_doing_anything() {
    // A server that hangs is told by its time.
    let _alone = lock_out_other_clusters();
    let mut monitored = Monitored::init(3);
    monitored.start(&["--hang-after", "3"]);
    let all = monitored.wait_until("all run", |all| all.iter().all(|one| one.state == State::Runs));
    round_trip(&monitored.cluster, "before");

    monitored.signal(1, Signal::KILL);
    let back = monitored.wait_for(1, "the killed one is back", |one| {
        one.restarts == 1 && one.state == State::Runs && one.process != all[0].process
    });
    assert_eq!((back.exit.unwrap().how.as_str(), back.hangs), ("signal 9", 0));

    monitored.signal(2, Signal::STOP);
    let back = monitored.wait_for(2, "the stopped one is back", |one| {
        one.restarts == 1 && one.state == State::Runs && one.process != all[1].process
    });
    assert_eq!((back.exit.unwrap().how.as_str(), back.hangs), ("signal 9", 1));
    assert!(monitored.told().contains("server-2 (pid "), "{}", monitored.told());
    let third = &monitored.view().unwrap().servers[2];
    assert_eq!((third.process, third.restarts), (all[2].process, 0), "it was left alone");
    round_trip(&monitored.cluster, "after");

    assert_eq!(monitored.stop().code(), Some(0));
    assert!(monitored.told().contains("All servers stopped."), "{}", monitored.told());
    let view = monitored.view().unwrap();
    assert!(
        !view.runs() && view.servers.iter().all(|one| one.state == State::Stopped && one.process.is_none())
    );
    for node in monitored.cluster.nodes() {
        assert!(!monitored.cluster.data(node).join("status.sock").exists(), "{node} ended in order");
    }
}

#[test]
fn the_servers_of_a_killed_monitor_go_on_and_the_next_one_adopts_them_and_is_the_only_one() {
    let _shared = beside_other_clusters();
    let mut monitored = Monitored::running(3);
    let before = monitored.processes();
    let second = monitored.command().output().unwrap();
    let (code, told) = ended(&second);
    assert!(code == Some(1) && told.contains("has a monitor already (pid "), "{told}");
    assert_eq!(monitored.processes(), before);

    monitored.kill_monitor();
    let view = monitored.view().unwrap();
    assert!(!view.runs() && before.iter().all(|process| view.is_alive(*process)));
    round_trip(&monitored.cluster, "without a monitor");
    monitored.start(&[]);
    monitored.wait_until("all adopted", |all| all.iter().all(|one| one.state == State::Runs));
    assert_eq!(monitored.processes(), before, "{}", monitored.told());

    // It is known when one dies that this monitor has not started.
    monitored.signal(3, Signal::KILL);
    monitored.wait_for(3, "it is back", |one| one.restarts == 1 && one.state == State::Runs);

    // Without what the monitor before it wrote, the servers say who they are.
    let before = monitored.processes();
    monitored.kill_monitor();
    fs::remove_file(monitored.dir().join("monitor.json")).unwrap();
    monitored.start(&[]);
    monitored.wait_until("all adopted", |all| all.iter().all(|one| one.state == State::Runs));
    assert_eq!(monitored.processes(), before, "{}", monitored.told());
    assert_eq!(monitored.stop().code(), Some(0));
}

#[test]
fn a_lost_directory_is_learnt_anew_and_one_whose_disk_is_not_mounted_is_waited_for() {
    let _shared = beside_other_clusters();
    let mut monitored = Monitored::init(3);
    // The disk of the second server.
    let home = monitored.dir().join("server-2");
    let (disk, away) = (home.join("disk"), home.join("away"));
    fs::create_dir(&disk).unwrap();
    fs::rename(home.join("data"), disk.join("data")).unwrap();
    monitored.cluster.edit(NodeId(2), |text| text.replace("\ndata = \"data\"\n", "\ndata = \"disk/data\"\n"));
    monitored.start(&[]);
    monitored.wait_until("all run", |all| all.iter().all(|one| one.state == State::Runs));
    round_trip(&monitored.cluster, "before");

    fs::rename(&disk, &away).unwrap();
    monitored.signal(2, Signal::KILL);
    let waits = monitored.wait_for(2, "its disk is waited for", |one| one.reason.is_some());
    assert!(waits.reason.as_ref().unwrap().contains("mount its disk"), "{waits:?}");
    assert!(!disk.exists() && !waits.learns);
    fs::rename(&away, &disk).unwrap();
    let back = monitored.wait_for(2, "it is back", |one| one.state == State::Runs);
    assert!(!back.learns && !monitored.told().contains("are lost"), "{}", monitored.told());

    let data = monitored.cluster.data(NodeId(3));
    monitored.signal(3, Signal::KILL);
    fs::remove_dir_all(&data).unwrap();
    monitored
        .wait_for(3, "it has learnt", |one| one.restarts == 1 && one.state == State::Runs && !one.learns);
    assert!(monitored.told().contains("server-3: its data are lost"), "{}", monitored.told());
    round_trip(&monitored.cluster, "after");

    // Two at once could not learn from one: nothing is made.
    assert_eq!(monitored.stop().code(), Some(0));
    for id in [1, 3] {
        fs::remove_dir_all(monitored.cluster.data(NodeId(id))).unwrap();
    }
    monitored.start(&[]);
    for id in [1, 3] {
        let waits = monitored.wait_for(id, "it waits for a person", |one| one.reason.is_some());
        assert!(waits.reason.unwrap().contains("this version cannot bring it back"));
        assert!(!monitored.cluster.data(NodeId(id)).exists());
    }
    monitored.wait_for(2, "the second one runs", |one| one.process.is_some());
    assert_eq!(monitored.stop().code(), Some(0));
}

#[test]
fn a_directory_without_a_server_has_nothing_to_monitor() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("server-1")).unwrap();
    let run = |dir: &std::path::Path| {
        ended(&Command::new(crate::recadod()).args(["monitor", "--dir"]).arg(dir).output().unwrap())
    };
    let (code, told) = run(dir.path());
    assert!(code == Some(1) && told.contains("server-N with a recado.toml"), "{told}");
    let (code, told) = run(&dir.path().join("none"));
    assert!(code == Some(1) && told.contains("cannot find"), "{told}");
}
