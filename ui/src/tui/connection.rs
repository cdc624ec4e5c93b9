//! State of the session, in calm words.

use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{ClientError, Code, ConnectionEvent, View};

use super::event::{Now, server};
use crate::wording::not_claimed;

/// Time for which a missing session or primary is shown as connecting. After it, it is shown as offline.
const PATIENCE: Duration = Duration::from_secs(5);

/// The word for a session or a primary that is looked for, and for one that was looked for in vain for long.
pub(crate) const CONNECTING: &str = "connecting";
pub(crate) const OFFLINE: &str = "offline";

/// The word for servers that answer while there is no name to open a session for.
pub(crate) const READY: &str = "ready";

/// Time for which a banner is shown.
const BANNER: Duration = Duration::from_secs(8);

/// Shortest wait for an answer that is told.
const FELT: Duration = Duration::from_millis(50);

/// State of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No server has opened a session yet.
    Connecting { since: Duration },
    /// The primary serves the session.
    Connected,
    /// The client has not heard from the primary for some time.
    Searching { since: Duration },
    /// The session has ended, for this reason. No client is opened before the user asks for it.
    Over(String),
}

/// The session, as the screen shows it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    /// Last view that served the session, and the address of its primary.
    pub(crate) primary: Option<(View, SocketAddr)>,
    pub(crate) round_trip: Option<Duration>,
    /// Why the servers that answer at the addresses of the cluster are not its own, if they are not.
    pub(crate) other: Option<String>,
    /// True if the session ended because the servers no longer know the device.
    pub(crate) forgotten: bool,
    /// Banner of the last change of the primary, and the time until which it is shown.
    changed: Option<(String, Duration)>,
}

impl Default for Connection {
    fn default() -> Connection {
        let state = State::Connecting { since: Duration::ZERO };
        Connection { state, primary: None, round_trip: None, other: None, forgotten: false, changed: None }
    }
}

impl Connection {
    pub(crate) fn opened(&mut self, now: Now) {
        self.state = State::Connecting { since: now.since_start };
        self.forgotten = false;
    }

    pub(crate) fn over(&mut self, error: &ClientError) {
        let why = match error {
            ClientError::Ended(Code::SessionOver | Code::Fenced) => error.to_string(),
            // The screen asks for the code in a popup.
            ClientError::Ended(Code::InviteNeeded) => {
                "a new name needs an invitation code here; /connect asks for it".to_owned()
            }
            ClientError::Ended(code) => ClientError::Rejected(*code).to_string(),
            ClientError::NotClaimed { profile, cluster } => not_claimed(profile, *cluster),
            other => other.to_string(),
        };
        let forgotten = matches!(error, ClientError::Forgotten(_));
        *self = Connection { state: State::Over(why), forgotten, ..Connection::default() };
    }

    /// Adds to the reason of the end.
    pub(crate) fn over_also(&mut self, words: &str) {
        if let State::Over(why) = &mut self.state {
            why.push('\n');
            why.push_str(words);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub(crate) fn event(&mut self, now: Now, event: ConnectionEvent) {
        self.other = None;
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
                self.changed(now, (view, addr), "is back", pause);
            }
            ConnectionEvent::PrimaryChanged { view, addr, pause } => {
                let other = self.primary.is_some_and(|(before, _)| before.primary() != view.primary());
                let what = if other { "is primary now" } else { "is primary again" };
                self.changed(now, (view, addr), what, pause);
            }
            // The reason of the end decides whether another session is opened at once, so the state does
            // not change here.
            ConnectionEvent::Ended(_) => {}
        }
    }

    /// Records that a primary serves the session again, and for how long the client missed its answers.
    fn changed(&mut self, now: Now, primary: (View, SocketAddr), what: &str, missed: Duration) {
        let new = server(primary.0, primary.1);
        let text = match missed {
            missed if missed < FELT => format!("{new} {what}"),
            missed => format!("{new} {what}; {} without an answer", pause_in_words(missed)),
        };
        self.changed = Some((text, now.since_start + BANNER));
        self.state = State::Connected;
        self.primary = Some(primary);
        self.round_trip = None;
    }

    /// Banner to show above the notifications, if any: a message that is wrapped and never cut.
    pub(crate) fn banner(&self, now: Now) -> Option<String> {
        let waits = matches!(self.state, State::Searching { .. } | State::Connecting { .. });
        if let Some(other) = self.other.as_ref().filter(|_| waits) {
            let then = "and start the screen again. What you send before is saved for the old cluster.";
            return Some(format!("{other}\n{then}"));
        }
        Some(match &self.state {
            State::Searching { since } => {
                let long = now.since_start.saturating_sub(*since);
                match &self.primary {
                    _ if long >= PATIENCE => format!(
                        "no primary for {} s; what you send is saved, and sent when there is one",
                        long.as_secs()
                    ),
                    Some((view, addr)) => {
                        format!("{} is silent; looking for the next primary", server(*view, *addr))
                    }
                    None => "looking for the primary".to_owned(),
                }
            }
            State::Over(why) => format!("no session; /connect tries again\n{why}"),
            State::Connecting { .. } | State::Connected => {
                let (banner, until) = self.changed.as_ref()?;
                return (now.since_start < *until).then(|| banner.clone());
            }
        })
    }

    /// State of the session, in one word: the same wherever the screen names it.
    pub(crate) fn word(&self, now: Now) -> &'static str {
        match self.state {
            State::Connecting { since } | State::Searching { since } => {
                let long = now.since_start.saturating_sub(since) >= PATIENCE;
                if long { OFFLINE } else { CONNECTING }
            }
            State::Connected => "connected",
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
        connection.banner(at(ms)).unwrap()
    }

    #[test]
    fn a_change_of_the_primary_is_one_line_with_its_pause_that_goes_away() {
        let mut connection = connected();
        connection.event(at(1_000), ConnectionEvent::Searching);
        assert_eq!(connection.word(at(1_001)), "connecting");
        assert_eq!(told(&connection, 1_001), "server-3 is silent; looking for the next primary");
        let pause = Duration::from_millis(110);
        let changed = ConnectionEvent::PrimaryChanged { view: view(2), addr: addr(), pause };
        connection.event(at(1_100), changed);
        assert_eq!(told(&connection, 1_101), "server-2 is primary now; 110 ms without an answer");
        assert_eq!(connection.word(at(1_101)), "connected");
        assert_eq!(connection.banner(at(20_000)), None);
        let addr = addr();
        connection.event(at(30_000), ConnectionEvent::Searching);
        let pause = Duration::from_micros(640);
        connection.event(at(30_000), ConnectionEvent::PrimaryFound { addr, pause });
        assert_eq!(told(&connection, 30_001), "server-2 is back");
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
                "a new name needs an invitation code here; /connect asks for it",
            ),
            (
                ClientError::Ended(Code::NotYours),
                "the servers opened no session: the name belongs to another key",
            ),
            (ClientError::Forgotten("slot-0".into()), "the servers no longer know this device"),
        ] {
            connection.over(&error);
            let told = told(&connection, 90_000);
            assert!(told.starts_with(&format!("no session; /connect tries again\n{told_first}")), "{told}");
        }
        assert!(told(&connection, 90_000).contains("`recado device reset` forgets what is in slot-0"));
        connection.opened(at(91_000));
        assert_eq!(connection.banner(at(91_000)), None);
    }
}
