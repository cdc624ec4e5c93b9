//! State of the session, in calm words.

use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{ClientError, Code, ConnectionEvent, View};

use super::event::{Now, server};

/// Time for which a lost primary is shown as switching. After it, the session is shown as offline.
const SWITCHING: Duration = Duration::from_secs(5);

/// Time for which a banner is shown.
const BANNER: Duration = Duration::from_secs(8);

/// State of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There is no client yet.
    Apart,
    /// A client was opened, and no server has opened its session yet.
    Connecting { since: Duration },
    /// The primary serves the session.
    Connected,
    /// The client has not heard from the primary for some time.
    Searching { since: Duration },
    /// The session has ended, for this reason. No client is opened before the user asks for it.
    Over(String),
}

/// Message above the notifications about the state of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Banner {
    /// Main part. It is wrapped if it does not fit on one line.
    pub(crate) text: String,
    /// Additional part. It is shown only if both parts fit on one line.
    pub(crate) more: String,
}

/// The session, as the screen shows it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    /// Last view that served the session, and the address of its primary.
    pub(crate) primary: Option<(View, SocketAddr)>,
    pub(crate) round_trip: Option<Duration>,
    /// Banner of the last change of the primary, and the time until which it is shown.
    changed: Option<(Banner, Duration)>,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection { state: State::Apart, primary: None, round_trip: None, changed: None }
    }
}

impl Connection {
    pub(crate) fn opened(&mut self, now: Now) {
        self.state = State::Connecting { since: now.since_start };
    }

    pub(crate) fn over(&mut self, error: &ClientError) {
        let why = match error {
            ClientError::Ended(Code::SessionOver | Code::Fenced) => error.to_string(),
            // The screen asks for the code in a popup.
            ClientError::Ended(Code::InviteNeeded) => {
                "a new name needs an invitation code here; :connect asks for it".to_owned()
            }
            ClientError::Ended(code) => ClientError::Rejected(*code).to_string(),
            other => other.to_string(),
        };
        *self = Connection { state: State::Over(why), ..Connection::default() };
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub(crate) fn event(&mut self, now: Now, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Connected { view, addr, .. } => {
                self.state = State::Connected;
                self.primary = Some((view, addr));
            }
            // The screen shows these as notices.
            ConnectionEvent::SetBack { .. }
            | ConnectionEvent::Copied(_)
            | ConnectionEvent::ServersSetBack { .. }
            | ConnectionEvent::Renumbered { .. } => {}
            ConnectionEvent::Searching => {
                if self.state == State::Connected {
                    self.state = State::Searching { since: now.since_start };
                }
                self.changed = None;
            }
            ConnectionEvent::PrimaryFound { addr, pause } => {
                let view = self.primary.map_or(View::ZERO, |(view, _)| view);
                self.changed(now, (view, addr), "is back", None, pause);
            }
            ConnectionEvent::PrimaryChanged { view, addr, pause } => {
                let before = self.primary.filter(|(before, _)| before.primary() != view.primary());
                let old = before.map(|(view, addr)| server(view, addr));
                let what = if old.is_some() { "is primary now" } else { "is primary again" };
                self.changed(now, (view, addr), what, old, pause);
            }
            // The reason of the end decides whether another session is opened at once, so the state does
            // not change here.
            ConnectionEvent::Ended(_) => {}
        }
    }

    /// Records that a primary serves the session again. The only measured quantity is the pause, from the
    /// last message of the previous primary to this one.
    fn changed(
        &mut self,
        now: Now,
        primary: (View, SocketAddr),
        what: &str,
        old: Option<String>,
        pause: Duration,
    ) {
        let new = server(primary.0, primary.1);
        let text = format!("{new} {what}, {}", pause_in_words(pause));
        let more = match old {
            Some(old) => format!(" after the last datagram of {old}"),
            None => " after its last datagram".to_owned(),
        };
        self.changed = Some((Banner { text, more }, now.since_start + BANNER));
        self.state = State::Connected;
        self.primary = Some(primary);
        self.round_trip = None;
    }

    /// Banner to show above the notifications, if any.
    pub(crate) fn banner(&self, now: Now) -> Option<Banner> {
        let (text, more) = match &self.state {
            State::Searching { since } => {
                let long = now.since_start.saturating_sub(*since);
                match &self.primary {
                    _ if long >= SWITCHING => (
                        format!("no primary for {} s", long.as_secs()),
                        "; what you send is saved, and sent when there is one".to_owned(),
                    ),
                    Some((view, addr)) => (
                        format!("{} is silent", server(*view, *addr)),
                        "; looking for the next primary".to_owned(),
                    ),
                    None => ("looking for the primary".to_owned(), String::new()),
                }
            }
            State::Over(why) => (format!("no session; :connect tries again\n{why}"), String::new()),
            State::Apart | State::Connecting { .. } | State::Connected => {
                let (banner, until) = self.changed.as_ref()?;
                return (now.since_start < *until).then(|| banner.clone());
            }
        };
        Some(Banner { text, more })
    }

    /// State of the session, in a word or two.
    pub(crate) fn word(&self, now: Now) -> &'static str {
        match self.state {
            State::Apart => "no server yet",
            State::Connecting { since } if now.since_start.saturating_sub(since) < SWITCHING => "connecting",
            State::Connecting { .. } => "offline",
            State::Connected => "connected",
            State::Searching { since } if now.since_start.saturating_sub(since) < SWITCHING => "switching",
            State::Searching { .. } => "offline",
            State::Over(_) => "ended",
        }
    }

    /// Returns true if a request that is made now is sent at once.
    pub(crate) fn is_served(&self) -> bool {
        self.state == State::Connected
    }
}

/// A round trip in words. On one machine it is far below a millisecond.
pub(crate) fn trip_in_words(trip: Duration) -> String {
    let ms = trip.as_secs_f64() * 1e3;
    if ms < 1.0 { format!("{ms:.2} ms") } else { format!("{ms:.1} ms") }
}

/// A pause in words.
pub(crate) fn pause_in_words(pause: Duration) -> String {
    match pause.as_millis() {
        ms @ 0..10_000 => format!("{ms} ms"),
        _ => format!("{} s", pause.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use recado_client::{NodeId, Op, SessionId};

    use super::*;

    fn at(ms: u64) -> Now {
        Now { since_start: Duration::from_millis(ms), unix_ms: ms }
    }

    fn view(node: u16) -> View {
        View::new(4, NodeId(node))
    }

    fn addr() -> SocketAddr {
        "127.0.0.1:10099".parse().unwrap()
    }

    fn connected() -> Connection {
        let mut connection = Connection::default();
        connection.opened(at(0));
        assert_eq!(connection.word(at(10)), "connecting");
        let session = SessionId(Op(9));
        connection.event(at(20), ConnectionEvent::Connected { session, view: view(3), addr: addr() });
        connection
    }

    fn told(connection: &Connection, ms: u64) -> String {
        let Banner { text, more } = connection.banner(at(ms)).unwrap();
        text + &more
    }

    #[test]
    fn a_change_of_the_primary_is_one_line_with_its_pause_that_goes_away() {
        let mut connection = connected();
        connection.event(at(1_000), ConnectionEvent::Searching);
        assert_eq!(connection.word(at(1_001)), "switching");
        assert_eq!(told(&connection, 1_001), "server-3 is silent; looking for the next primary");
        let pause = Duration::from_millis(143);
        let changed = ConnectionEvent::PrimaryChanged { view: view(2), addr: addr(), pause };
        connection.event(at(1_100), changed);
        assert_eq!(
            told(&connection, 1_101),
            "server-2 is primary now, 143 ms after the last datagram of server-3"
        );
        assert_eq!(connection.word(at(1_101)), "connected");
        assert_eq!(connection.banner(at(20_000)), None);
        let addr = addr();
        connection.event(at(30_000), ConnectionEvent::Searching);
        connection.event(at(30_000), ConnectionEvent::PrimaryFound { addr, pause });
        assert_eq!(told(&connection, 30_001), "server-2 is back, 143 ms after its last datagram");
    }

    #[test]
    fn a_round_trip_is_never_shown_as_zero() {
        let trips = [43, 640, 12_340].map(|us| trip_in_words(Duration::from_micros(us)));
        assert_eq!(trips, ["0.04 ms", "0.64 ms", "12.3 ms"]);
    }

    #[test]
    fn a_long_search_is_shown_as_offline() {
        let mut connection = connected();
        connection.event(at(1_000), ConnectionEvent::Searching);
        assert_eq!(connection.word(at(6_500)), "offline");
        assert!(told(&connection, 6_500).contains("no primary for 5 s"));
        assert!(!connection.is_served());
    }

    #[test]
    fn the_banner_of_an_ended_session_shows_the_reason_and_the_cure() {
        let mut connection = connected();
        for (error, told_first) in [
            (
                ClientError::Ended(Code::SessionOver),
                "the session has ended: it was idle for a week, the device",
            ),
            (
                ClientError::Ended(Code::Fenced),
                "the session has ended: a copy of this device's files is in use",
            ),
            (
                ClientError::Ended(Code::InviteNeeded),
                "a new name needs an invitation code here; :connect asks for it",
            ),
            (
                ClientError::Ended(Code::NotYours),
                "the servers opened no session: the name belongs to another key",
            ),
            (ClientError::Forgotten("slot-0".into()), "the servers no longer know this device"),
        ] {
            connection.over(&error);
            let told = told(&connection, 90_000);
            assert!(told.starts_with(&format!("no session; :connect tries again\n{told_first}")), "{told}");
        }
        assert!(told(&connection, 90_000).ends_with("reset it: delete slot-0"));
        connection.opened(at(91_000));
        assert_eq!(connection.banner(at(91_000)), None);
    }
}
