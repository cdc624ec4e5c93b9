//! Event loop of the screen: passes events to the state, carries out its effects, and draws at most 30
//! times a second. A change by the user is drawn within [`FRAME`]; a change by the servers waits up to
//! [`CALM`], so that a flood of notifications does not delay the user's typing.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, never};
use crossbeam::select;
use crossterm::clipboard::CopyToClipboard;
use crossterm::{event as terminal_event, execute};
use ratatui::Terminal;
use ratatui::backend::Backend;
use recado_client::{ClientError, Trust, status};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use super::app::{App, Change};
use super::bridge::{Access, Bridge, ClientCommand, Query};
use super::clock::Clock;
use super::event::{Effect, Event, Link};
use super::osc;
use super::saved_state::{Removed, Store};
use super::settings::{Desktop, Settings};
use super::terminal::{self, Screen};
use super::theme::Theme;
use super::view;
use crate::config::{self, Config};
use crate::exit::Failure;
use crate::print;
use crate::trust;

/// Minimum time between two drawings of the user's changes: 30 a second.
const FRAME: Duration = Duration::from_millis(34);

/// Minimum time between a drawing and one that only shows changes by the servers.
const CALM: Duration = Duration::from_millis(100);

/// Interval of [`Event::Tick`] while nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// Limit of events in one turn. The screen may be drawn between turns.
const TURN_MAX: usize = 256;

/// Size of the queue of terminal events. When it is full, the reading thread waits.
const INPUT_MAX: usize = 1_024;

/// Interval at which the reading thread checks whether it is to end.
const INPUT_LOOK: Duration = Duration::from_millis(50);

/// Starts a thread with a name.
///
/// # Errors
/// The system cannot start another thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Action of the loop after an effect.
#[derive(Debug)]
pub(crate) enum Flow {
    GoOn,
    /// The effect produced this event.
    Tell(Event),
    Repaint,
    Suspend,
    /// The process was continued after a stop.
    Resume,
    Quit,
}

/// The event loop, for any terminal and any source of events.
pub(crate) struct Runtime<'a> {
    pub(crate) app: App,
    pub(crate) clock: Clock,
    pub(crate) input: Receiver<Event>,
    pub(crate) links: Receiver<Link>,
    pub(crate) signals: Receiver<i32>,
    pub(crate) perform: &'a mut dyn FnMut(Effect) -> Flow,
    /// Called after each drawing.
    pub(crate) on_drawn: &'a mut dyn FnMut(&App),
}

impl Runtime<'_> {
    /// Runs until an effect or a signal ends it, and returns the signal's number, if there was one. `pause`
    /// restores the terminal and takes it again if its argument is true, and only takes it again if it is
    /// false.
    ///
    /// # Errors
    /// The terminal cannot be drawn on.
    pub(crate) fn run<B: Backend>(
        &mut self,
        terminal: &mut Terminal<B>,
        pause: &mut dyn FnMut(&mut Terminal<B>, bool) -> io::Result<()>,
    ) -> Result<Option<i32>, Failure>
    where
        B::Error: std::fmt::Display,
    {
        let begin = self.app.begin_effects();
        let mut flows: Vec<Flow> = begin.into_iter().map(|effect| (self.perform)(effect)).collect();
        let (mut drawn, mut drawn_for_person): (Option<Duration>, Option<Duration>) = (None, None);
        loop {
            for flow in std::mem::take(&mut flows) {
                match flow {
                    Flow::GoOn => {}
                    Flow::Tell(event) => self.update(event, &mut flows),
                    Flow::Quit => return Ok(None),
                    Flow::Repaint => terminal.clear().map_err(trouble)?,
                    Flow::Suspend => pause(terminal, true)?,
                    Flow::Resume => pause(terminal, false)?,
                }
            }
            let now = self.clock.now().since_start;
            let after = |last: Option<Duration>, pause: Duration| {
                last.map_or(Duration::ZERO, |last| (last + pause).saturating_sub(now))
            };
            let change = self.app.change();
            let mut wait = match change {
                Change::Nothing => TICK,
                Change::Came => after(drawn, CALM),
                Change::Done => after(drawn_for_person, FRAME),
            };
            if wait.is_zero() {
                let draw = |frame: &mut ratatui::Frame<'_>| {
                    // The terminal may have a size for which no event has arrived yet.
                    self.app.size = (frame.area().width, frame.area().height);
                    view::draw(&self.app, frame);
                };
                terminal.draw(draw).map_err(trouble)?;
                self.app.drawn();
                drawn = Some(now);
                if change == Change::Done {
                    drawn_for_person = Some(now);
                }
                (self.on_drawn)(&self.app);
                wait = TICK;
            }
            match self.turn(wait, &mut flows) {
                Some(SIGTSTP) => flows.push(Flow::Suspend),
                Some(SIGCONT) => flows.push(Flow::Resume),
                Some(signal) => return Ok(Some(signal)),
                None => {}
            }
        }
    }

    fn update(&mut self, event: Event, flows: &mut Vec<Flow>) {
        for effect in self.app.update(self.clock.now(), event) {
            flows.push((self.perform)(effect));
        }
    }

    /// Waits for an event, then takes those that are queued: the user's before the servers'. Returns the
    /// number of a signal, if one came.
    fn turn(&mut self, wait: Duration, flows: &mut Vec<Flow>) -> Option<i32> {
        let mut next = select! {
            recv(self.input) -> event => match event {
                Ok(event) => Some(event),
                // The reading thread ends when the terminal is gone.
                Err(_) => return Some(SIGHUP),
            },
            recv(self.links) -> link => {
                if link.is_err() {
                    self.links = never();
                }
                link.ok().map(Event::Link)
            }
            recv(self.signals) -> signal => return signal.ok(),
            default(wait) => None,
        };
        for _ in 0..TURN_MAX {
            let Some(event) = next.take() else { break };
            self.update(event, flows);
            next = self.input.try_recv().ok().or_else(|| self.links.try_recv().ok().map(Event::Link));
        }
        // The last event of a full turn is not lost.
        if let Some(event) = next {
            self.update(event, flows);
        }
        self.update(Event::Tick, flows);
        None
    }
}

fn trouble(error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("the terminal cannot be drawn on: {error}"))
}

/// Time to look for a server before the screen starts without one.
const MEET: Duration = Duration::from_millis(500);

/// Meets the cluster before the screen starts, so that the prompt about a new cluster appears on the
/// plain terminal. If no server answers, the screen starts all the same, and trusts only the known
/// clusters.
fn meet(config: &Config, accept_new: bool) -> Result<Trust, Failure> {
    match status(config.servers()?, MEET, &trust::trust(config, accept_new)) {
        Ok(_) => {}
        Err(error) if is_nobody(&error) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(match config.cluster_key {
        Some(key) => Trust::Pinned(key),
        None => Trust::known(trust::known(config)),
    })
}

/// Returns true if the error means that no server answers. A server that died between its hello and its
/// proof counts as not answering.
pub(crate) fn is_nobody(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { .. } | ClientError::Unproved { .. })
}

/// Runs the screen on the real terminal, with a real client.
pub(crate) fn run(config: &Config, settings: Settings, accept_new: bool) -> Result<(), Failure> {
    let clock = Clock::start();
    let access = Access {
        servers: config.servers()?.to_vec(),
        state: config.state.clone(),
        trust: meet(config, accept_new)?,
        claims: config.claims,
        store: Store::new(&config.state),
    };
    let signals = signals()?;
    let (desktop, mouse) = (settings.desktop, settings.mouse);
    let servers = config.servers()?.to_vec();
    let mut app = App::new(settings, config.profile.clone(), config.invite, servers, clock.now());
    (app.may_claim, app.may_create) = (config.claims, config.creates);
    app.account.clone_from(&config.account);
    app.config_path = config.path.display().to_string();
    app.remembered = access.store.known(config.servers()?).is_some();

    let mut screen = Screen::enter(mouse)?;
    let bridge = Bridge::start(access, clock)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut runtime = Runtime {
        app,
        clock,
        input: input(stop.clone())?,
        links: bridge.links.clone(),
        signals,
        perform: &mut |effect| perform(&bridge, config, desktop, effect),
        on_drawn: &mut |_| {},
    };
    let ended =
        runtime.run(&mut screen.terminal, &mut |terminal, stopped| terminal::pause(terminal, mouse, stopped));
    let removed = runtime.app.files.as_deref().and_then(Removed::of);
    let unsent = runtime.app.unsent(removed);
    stop.store(true, Ordering::Relaxed);
    // The terminal is restored before the servers learn of the end, which may take a moment.
    drop(screen);
    bridge.leave();
    unsent.iter().for_each(print::note);
    match ended? {
        None => Ok(()),
        Some(signal) => Err(Failure::Signal(u8::try_from(signal).unwrap_or(u8::MAX))),
    }
}

/// Starts the thread that reads the terminal.
fn input(stop: Arc<AtomicBool>) -> io::Result<Receiver<Event>> {
    let (events_in, events) = channel::bounded(INPUT_MAX);
    spawn("recado-input", move || {
        while !stop.load(Ordering::Relaxed) {
            match terminal_event::poll(INPUT_LOOK) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let Ok(event) = terminal_event::read() else { return };
            panic_if_asked();
            let event = match event {
                terminal_event::Event::Key(key) => Event::Key(key),
                terminal_event::Event::Mouse(mouse) => Event::Mouse(mouse),
                terminal_event::Event::Paste(text) => Event::Paste(text),
                terminal_event::Event::Resize(width, height) => Event::Resize(width, height),
                terminal_event::Event::FocusGained => Event::Focus(true),
                terminal_event::Event::FocusLost => Event::Focus(false),
            };
            if events_in.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}

fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT])?;
    let (numbers_in, numbers) = channel::bounded(16);
    spawn("recado-signal", move || {
        for signal in signals.forever() {
            if numbers_in.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(numbers)
}

fn perform(bridge: &Bridge, config: &Config, desktop: Desktop, effect: Effect) -> Flow {
    let send = |command| match bridge.request(command) {
        Ok(()) => Flow::GoOn,
        Err(ClientCommand::Request(id, _)) => {
            Flow::Tell(Event::Link(Link::NotTaken(id, "too many tasks are running already".to_owned())))
        }
        Err(_) => Flow::GoOn,
    };
    let done = |result: io::Result<()>, what: &str| match result {
        Ok(()) => Flow::GoOn,
        Err(error) => Flow::Tell(Event::Trouble(format!("{what}: {error}"))),
    };
    match effect {
        Effect::Open(profile, invite) => send(ClientCommand::Open(profile, invite)),
        Effect::Request(id, request) => send(ClientCommand::Request(id, Box::new(request))),
        Effect::Keep(saved, upto) => send(ClientCommand::Keep(saved, upto)),
        Effect::History(place, range) => send(ClientCommand::Query(Query::History(place, range))),
        Effect::List(listing) => send(ClientCommand::Query(Query::List(listing))),
        Effect::Watch(watched) => send(ClientCommand::Watch(watched)),
        Effect::Info(name) => send(ClientCommand::Query(Query::Info(name))),
        Effect::Enrol => send(ClientCommand::Query(Query::Enrol)),
        Effect::KeepProfile(name) => match config::keep_profile(&config.path, &name) {
            Ok(()) => Flow::GoOn,
            Err(failure) => Flow::Tell(Event::Trouble(failure.to_string())),
        },
        Effect::Copy(text) => {
            done(execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text)), "cannot copy")
        }
        Effect::Browse(link) => done(browse(&link), "no browser could be started"),
        Effect::Theme(name) => {
            let theme = Theme::load(&name, &config.themes).map(Box::new);
            Flow::Tell(Event::Theme(name, theme))
        }
        Effect::Bell => done(write("\u{7}"), "cannot ring"),
        Effect::Desktop(title, body) => {
            done(write(&osc::desktop(desktop, &title, &body)), "cannot show it on the desktop")
        }
        Effect::Repaint => {
            panic_if_asked();
            Flow::Repaint
        }
        Effect::Suspend => Flow::Suspend,
        Effect::Quit => Flow::Quit,
    }
}

/// Panics if RECADO_PANIC names this thread; never in a release build. A test checks how a panic leaves the
/// terminal.
#[expect(clippy::panic, reason = "it is what this is for")]
fn panic_if_asked() {
    let is_asked = |name: String| thread::current().name() == Some(name.as_str());
    if cfg!(debug_assertions) && std::env::var("RECADO_PANIC").is_ok_and(is_asked) {
        panic!("asked for by RECADO_PANIC");
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Opens an address in the browser. The user has confirmed exactly this address, and no shell interprets
/// it.
fn browse(link: &str) -> io::Result<()> {
    let browser = std::env::var("BROWSER").ok().filter(|browser| !browser.is_empty());
    let program = browser.as_deref().unwrap_or("xdg-open");
    let mut child = Command::new(program)
        .arg(link)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // Waiting keeps the process from remaining as a zombie.
    spawn("recado-browser", move || child.wait()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_died_before_its_proof_keeps_no_screen_from_beginning() {
        let (server, waited) = ("127.0.0.1:7".parse().unwrap(), MEET);
        assert!(is_nobody(&ClientError::Unproved { server, waited }));
        assert!(is_nobody(&ClientError::Unreachable { servers: vec![server], waited }));
        assert!(!is_nobody(&ClientError::NoServers));
    }
}
