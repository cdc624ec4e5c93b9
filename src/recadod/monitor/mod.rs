//! `recadod monitor`: runs the servers of a directory, and starts those again that die or hang.
//!
//! [`machine`] decides; this module has the processes, the sockets and the [`files`] around it. One thread
//! does everything, and waits for the pidfds of the servers, their answers and the signals together.

mod files;
mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use recado::config::file::{ConfigError, ServerFile};
use recado_doctor::monitor::{MonitorView, Running, ServerView, State};
use recado_log::journal::{Directory, JournalError, Seen};
use recado_proto::id::NodeId;
use recado_sys::clock::MachineClock;
use recado_sys::durable;
use recado_sys::local::Question;
use recado_sys::machine::mount_root;
use recado_sys::process::{Process, ProcessId, wait_any};
use rustix::process::Signal;
use signal_hook::low_level::pipe;

use self::machine::{Answer, Effect, Ended, Event, Found, Machine};
use super::local_status::{self, LocalStatus};
use super::log::LogQueue;
use super::{message, serve};

/// How long a server is silent before it hangs, unless the command line says otherwise.
pub(super) const HANG: Duration = Duration::from_secs(10);
/// How long a process that has the lock of a data directory is waited for to say which it is.
const TELLS_WITHIN: Duration = Duration::from_millis(200);
/// The longest wait when nothing is due.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs the servers of `dir` until a signal, and stops them then. A server hangs when it has not answered for
/// `hang`. People are told in lines that go to `told`.
pub(super) fn run(dir: &Path, hang: Duration, told: &LogQueue) -> Result<()> {
    let dir = fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
    let before = MonitorView::read(&dir);
    let lock = files::lock(&dir).with_context(|| format!("cannot lock {}", dir.display()))?;
    let Some(_lock) = lock else {
        // Its view may be on the way.
        let pid = before.ok().map_or("PID".to_owned(), |view| view.process.pid.to_string());
        bail!(
            "{dir} has a monitor already (pid {pid}), perhaps one that a killed run.sh left running. Show what it does: \
             recado status --monitor {dir}. Stop it and its servers, in order: kill {pid}",
            dir = dir.display()
        );
    };
    let before = match before {
        Ok(view) => Some(view),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // What it knew is looked for at the servers' sockets.
        Err(error) => {
            told.push(format!("what an earlier monitor wrote is left aside: {error}\n").as_bytes());
            None
        }
    };
    let signals = Signals::take().context("cannot handle signals")?;
    let mut monitor = Monitor::new(dir, hang, before, told.clone())?;
    loop {
        monitor.turn();
        if monitor.machine.has_ended() {
            return Ok(());
        }
        monitor.wait(&signals).context("cannot wait for the servers")?;
    }
}

/// The signals that ask for an end, as bytes to read.
struct Signals(UnixStream);

impl Signals {
    fn take() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        for signal in serve::endings() {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Signals(read))
    }

    /// The number of signals that have come.
    fn count(&self) -> usize {
        (&self.0).read(&mut [0; 16]).unwrap_or(0)
    }
}

/// A process of a server that this monitor holds.
struct Held {
    process: Process,
    /// It is this process's child, and has to be waited for.
    child: Option<Child>,
    question: Option<Question>,
}

/// A server's place.
struct Home {
    /// The directory with its `recado.toml`.
    path: PathBuf,
    /// Its data directory, once a configuration named it.
    data: Option<PathBuf>,
    /// What an earlier monitor knew of its process, until that was looked for.
    before: Option<(Running, bool)>,
    /// Where the file system of its data was mounted.
    mount: Option<PathBuf>,
    has_started: bool,
    held: Option<Held>,
}

struct Monitor {
    dir: PathBuf,
    program: PathBuf,
    clock: MachineClock,
    since_unix_ms: u64,
    machine: Machine,
    homes: BTreeMap<NodeId, Home>,
    /// What was last written.
    written: Option<MonitorView>,
    /// The last failure to write it, which is told once.
    unwritten: Option<String>,
    told: LogQueue,
}

impl Monitor {
    fn new(dir: PathBuf, hang: Duration, before: Option<MonitorView>, told: LogQueue) -> Result<Monitor> {
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let mut homes: BTreeMap<NodeId, Home> = BTreeMap::new();
        let mut learn = BTreeMap::new();
        let home = |id: NodeId| Home {
            path: dir.join(id.to_string()),
            data: None,
            before: None,
            mount: None,
            has_started: false,
            held: None,
        };
        for id in servers_in(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            homes.insert(id, home(id));
        }
        let is_this_boot = before.as_ref().is_some_and(|view| view.boot == recado_sys::process::boot_id());
        for server in before.into_iter().flat_map(|view| view.servers) {
            // A server that was here is one still, also if its directory is gone.
            let id = NodeId(server.id);
            let home = homes.entry(id).or_insert_with(|| home(id));
            let process = server.process.filter(|_| is_this_boot);
            home.before = process.map(|process| (process, server.state == State::Runs));
            home.mount = server.mount;
            learn.insert(id, server.learns);
        }
        if homes.is_empty() {
            bail!(
                "{} has no directory of a server, server-N with a recado.toml; `recadod init --dir` makes them",
                dir.display()
            );
        }
        let clock = MachineClock::start();
        let read = clock.read();
        let servers = homes.keys().map(|id| (*id, learn.get(id).copied().unwrap_or(false)));
        let machine = Machine::new(read, servers, hang);
        let since_unix_ms = read.unix_ms;
        Ok(Monitor {
            dir,
            program,
            clock,
            since_unix_ms,
            machine,
            homes,
            written: None,
            unwritten: None,
            told,
        })
    }

    /// Does what is due, until nothing more follows from it, and writes the view.
    fn turn(&mut self) {
        let mut effects = Vec::new();
        self.machine.on_time(self.clock.read(), &mut effects);
        self.perform(effects);
        // What was lost is decided about after a look at all servers.
        let mut effects = Vec::new();
        self.machine.on_time(self.clock.read(), &mut effects);
        self.perform(effects);
        self.write_view();
    }

    /// Performs effects in order, those too that follow from them.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut left = std::collections::VecDeque::from(effects);
        while let Some(effect) = left.pop_front() {
            let (server, event) = match effect {
                Effect::Say(text) => {
                    self.told.push(format!("{text}\n").as_bytes());
                    continue;
                }
                Effect::Ask(id) => {
                    self.ask(id);
                    continue;
                }
                Effect::Stop(id) => {
                    // A server that was stopped with SIGSTOP takes the first once it goes on.
                    self.signal(id, &[Signal::TERM, Signal::CONT]);
                    continue;
                }
                Effect::Kill(id) => {
                    self.signal(id, &[Signal::KILL]);
                    continue;
                }
                Effect::Look(id) => (id, Event::Found(self.look(id))),
                Effect::Start { server, makes_data } => (server, self.start(server, makes_data)),
            };
            let mut more = Vec::new();
            self.machine.handle(self.clock.read(), server, event, &mut more);
            left.extend(more);
        }
    }

    /// Looks who runs on a server's directory, and what is there.
    fn look(&mut self, id: NodeId) -> Found {
        let Some(home) = self.homes.get_mut(&id) else { return Found::Unusable("it is not known".into()) };
        let file = ServerFile::read(&home.path.join("recado.toml"));
        home.data = file.as_ref().ok().map(|file| file.data.clone());
        let seen = home.data.as_deref().map(Directory::look);
        if let (Some(data), Some(Ok(Seen::Locked | Seen::Kept))) = (&home.data, &seen) {
            home.mount = mount_root(data).ok();
        }
        // A process that was known is told by its number and start, also before it has the lock, and also if
        // its files are gone.
        if let Some((running, was_ready)) = home.before.take()
            && let Ok(Some(process)) = Process::open(running.into())
        {
            home.held = Some(Held { process, child: None, question: None });
            // One that cannot be asked is not judged.
            return Found::Runs { process: running, was_ready: was_ready && home.data.is_some() };
        }
        let (file, seen) = match (file, seen) {
            (Ok(file), Some(seen)) if file.config.cluster.me == id => (file, seen),
            (Ok(file), _) => {
                let me = file.config.cluster.me;
                return Found::Unusable(format!(
                    "{} is the file of {me}",
                    home.path.join("recado.toml").display()
                ));
            }
            (Err(error), _) => return Found::Unusable(unreadable(&home.path, error)),
        };
        let data = &file.data;
        match seen {
            Ok(Seen::Locked) => match who_runs(data) {
                Some(process) => {
                    let running = process.id().into();
                    home.held = Some(Held { process, child: None, question: None });
                    Found::Runs { process: running, was_ready: false }
                }
                None => Found::Taken,
            },
            Ok(Seen::Kept) => Found::Ready,
            Ok(Seen::Empty) | Err(JournalError::Missing) => {
                lost(data, home.mount.as_deref(), file.config.cluster.members.len())
            }
            Err(error) => {
                Found::Unusable(format!("data directory {}: {}", data.display(), message(&Error::new(error))))
            }
        }
    }

    fn start(&mut self, id: NodeId, makes_data: bool) -> Event {
        let (program, Some(home)) = (&self.program, self.homes.get_mut(&id)) else {
            return Event::NotStarted("it is not known".into());
        };
        match start(program, home, makes_data) {
            Ok(held) => {
                let running = held.process.id().into();
                home.held = Some(held);
                home.has_started = true;
                Event::Started(running)
            }
            Err(error) => Event::NotStarted(message(&error)),
        }
    }

    /// Asks a server, unless it has not answered the last question yet. Who gives no answer is silent.
    fn ask(&mut self, id: NodeId) {
        let Some(home) = self.homes.get_mut(&id) else { return };
        let (Some(held), Some(data)) = (&mut home.held, &home.data) else { return };
        if held.question.is_none() {
            held.question = Question::ask(&local_status::socket(data)).ok();
        }
    }

    /// Sends signals to a server's process, which is held and was told by its start.
    fn signal(&mut self, id: NodeId, signals: &[Signal]) {
        let Some(held) = self.homes.get(&id).and_then(|home| home.held.as_ref()) else { return };
        for signal in signals {
            if let Err(error) = held.process.signal(*signal) {
                self.told.push(
                    format!("{id} (pid {}) takes no signal: {error}\n", held.process.id().pid).as_bytes(),
                );
            }
        }
    }

    /// Waits for an end, an answer, a signal or what is due, and takes what has come.
    fn wait(&mut self, signals: &Signals) -> io::Result<()> {
        #[derive(Clone, Copy)]
        enum Source {
            Signals,
            Process(NodeId),
            Question(NodeId),
        }
        let mut sources = vec![(Source::Signals, signals.0.as_fd())];
        for (id, held) in self.homes.iter().filter_map(|(id, home)| Some((*id, home.held.as_ref()?))) {
            sources.push((Source::Process(id), held.process.as_fd()));
            sources.extend(held.question.as_ref().map(|one| (Source::Question(id), one.as_fd())));
        }
        let now = self.clock.now();
        let patience = self.machine.next_deadline().map_or(WAIT_MAX, |due| due.since(now).min(WAIT_MAX));
        let (what, files): (Vec<Source>, Vec<BorrowedFd<'_>>) = sources.into_iter().unzip();
        let ready = wait_any(&files, patience)?;
        for (source, _) in what.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
            match source {
                Source::Signals => {
                    for _ in 0..signals.count() {
                        let mut effects = Vec::new();
                        self.machine.stop(self.clock.read(), &mut effects);
                        self.perform(effects);
                    }
                }
                Source::Question(id) => self.on_answer(id),
                Source::Process(id) => self.on_end(id)?,
            }
        }
        Ok(())
    }

    fn on_answer(&mut self, id: NodeId) {
        let Some(held) = self.homes.get_mut(&id).and_then(|home| home.held.as_mut()) else { return };
        let Some(question) = &mut held.question else { return };
        let status = match question.answer() {
            Ok(None) => return,
            Ok(Some(line)) => line.parse::<LocalStatus>().ok(),
            Err(_) => None,
        };
        held.question = None;
        // An answer of another process would tell nothing of this one.
        let Some(status) = status.filter(|status| status.process == held.process.id()) else { return };
        let LocalStatus { turns, catches_up, fsync, process: _ } = status;
        let answer = Event::Answered(Answer { turns, catches_up, fsync });
        let mut effects = Vec::new();
        self.machine.handle(self.clock.read(), id, answer, &mut effects);
        self.perform(effects);
    }

    fn on_end(&mut self, id: NodeId) -> io::Result<()> {
        let Some(held) = self.homes.get_mut(&id).and_then(|home| home.held.take()) else { return Ok(()) };
        let ended = match held.child {
            // It has ended, so this does not wait.
            Some(mut child) => {
                let status = child.wait()?;
                match (status.code(), status.signal()) {
                    (Some(code), _) => Ended::Code(code),
                    (None, Some(signal)) => Ended::Signal(signal),
                    (None, None) => Ended::Unknown,
                }
            }
            None => Ended::Unknown,
        };
        let mut effects = Vec::new();
        self.machine.handle(self.clock.read(), id, Event::Ended(ended), &mut effects);
        self.perform(effects);
        Ok(())
    }

    /// Writes what has changed since it was last written. The servers are more important than the view: if it
    /// cannot be written, that is told once, and tried again with the next change.
    fn write_view(&mut self) {
        let servers = self.machine.view().into_iter().map(|server| {
            let mount = self.homes.get(&NodeId(server.id)).and_then(|home| home.mount.clone());
            ServerView { mount, ..server }
        });
        let view = MonitorView::own(self.since_unix_ms, servers.collect());
        if view.as_ref().ok() == self.written.as_ref() {
            return;
        }
        let written = view.and_then(|view| {
            view.write(&self.dir)?;
            self.written = Some(view);
            Ok(())
        });
        let unwritten = written.err().map(|error| error.to_string());
        if let Some(error) = unwritten.as_ref().filter(|_| unwritten != self.unwritten) {
            self.told.push(
                format!("what `recado status --monitor` shows cannot be written: {error}\n").as_bytes(),
            );
        }
        self.unwritten = unwritten;
    }
}

/// The servers with a directory of their own in `dir`.
fn servers_in(dir: &Path) -> io::Result<Vec<NodeId>> {
    let mut servers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("server-")).and_then(|id| id.parse().ok());
        // A number that is written in another way is not the name of its directory.
        let id = id.map(NodeId).filter(|id| Some(id.to_string().as_str()) == name.to_str());
        servers.extend(id.filter(|_| entry.path().join("recado.toml").exists()));
    }
    Ok(servers)
}

/// Why a server's configuration is of no use, and what to do.
fn unreadable(home: &Path, error: ConfigError) -> String {
    match &error {
        ConfigError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => format!(
            "{} is gone: mount its disk, or put a recado.toml of another server there, with this server's number as \
             `node`, and its cluster.secret",
            home.join("recado.toml").display()
        ),
        _ => format!("{}: {}", home.join("recado.toml").display(), message(&Error::new(error))),
    }
}

/// There is no data directory, or no promise in it: a disk that is not mounted, or one that is lost.
fn lost(data: &Path, mount: Option<&Path>, members: usize) -> Found {
    let parent = data.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        return Found::Unusable(format!(
            "there is no {}, in which its data directory is: mount its disk",
            parent.display()
        ));
    }
    match (mount, mount_root(data)) {
        (Some(before), Ok(now)) if before != now => Found::Unusable(format!(
            "its data directory {} is on the disk that was mounted at {}, and none is mounted there: mount it",
            data.display(),
            before.display()
        )),
        (_, Err(error)) => Found::Unusable(format!("data directory {}: {error}", data.display())),
        _ => Found::Lost { members },
    }
}

/// The process that has the lock of this data directory, as it says itself. It has to be one of this user's.
fn who_runs(data: &Path) -> Option<Process> {
    let mut question = Question::ask(&local_status::socket(data)).ok()?;
    wait_any(&[question.as_fd()], TELLS_WITHIN).ok()?;
    let status: LocalStatus = question.answer().ok()??.parse().ok()?;
    Process::open(status.process).ok()?
}

/// Starts a server, in a process group of its own: what a terminal sends to the monitor's group, as Ctrl-C
/// does, reaches the monitor alone, which then asks each server once.
fn start(program: &Path, home: &Home, makes_data: bool) -> Result<Held> {
    if let (true, Some(data)) = (makes_data, &home.data)
        && !data.exists()
    {
        durable::make_dir_in_place(data).with_context(|| format!("cannot make {}", data.display()))?;
    }
    let log = files::log(&home.path, !home.has_started).context("cannot open its log")?;
    let mut child = Command::new(program)
        .args(["serve", "--config"])
        .arg(home.path.join("recado.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot open its log")?)
        .stderr(log)
        .env("NO_COLOR", "1")
        // A supervisor of the monitor is none of the server.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // The child has not been waited for, so its number is its own.
    match ProcessId::of(child.id()).and_then(Process::open_child) {
        Ok(process) => Ok(Held { process, child: Some(child), question: None }),
        Err(error) => {
            // One that cannot be watched must not run.
            let _ = child.kill();
            let _ = child.wait();
            Err(error).context("cannot watch its process")
        }
    }
}
