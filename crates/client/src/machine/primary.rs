//! The primary of a session: the view that names it, keepalives, and the search when it is silent.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use recado_proto::id::{Moment, View};
use recado_proto::packet::{Coordinator, ToServer};

use super::again::Again;
use super::{Effect, Event, Machine, State};

/// The interval between two keepalives to the primary, until it tells another.
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);

/// Bounds of the interval that the primary tells, in ms: not so short that keepalives are a load, and short
/// enough that a server does not take the client for away.
const KEEPALIVE_TOLD: RangeInclusive<u32> = 1_000..=25_000;

/// The interval between two keepalives to each other server. They announce a new view to the clients that
/// they have heard within a minute (DESIGN.md section 3). RFC 4787 section 4.3 asks NATs to keep a UDP
/// mapping for 2 minutes. Behind one that keeps it for 30 s, a lost KEEPALIVE costs the announcements until
/// the next one; the client then finds the new primary by its search.
pub(super) const KEEPALIVE_OTHERS: Duration = Duration::from_secs(25);

/// The time over which clients spread the KEEPALIVEs after a restart of a server.
const RESTART_SPREAD: Duration = Duration::from_secs(1);

/// The first interval of a new session; each one is twice as long as the one before. A backup learns of a
/// session a little later than the primary, and must know the client's address before it becomes primary.
pub(super) const KEEPALIVE_FIRST: Duration = Duration::from_millis(50);

/// With something outstanding, all servers are asked after the primary was silent for this long (DESIGN.md
/// section 3).
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// With nothing outstanding, the primary may be silent for two keepalive intervals and this.
pub(super) const QUIET_IDLE: Duration = Duration::from_millis(500);

/// A refused port causes all servers to be asked at once, but not more often than this.
const REFUSED_EVERY: Duration = Duration::from_millis(20);

/// When KEEPALIVE goes again. Each wait is twice as long as the one before, up to `most`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalives {
    at: Moment,
    wait: Duration,
    pub(super) most: Duration,
}

impl Keepalives {
    /// The first is due now.
    pub(super) fn begin(now: Moment, most: Duration) -> Keepalives {
        Keepalives { at: now, wait: KEEPALIVE_FIRST, most }
    }

    fn due(&self, now: Moment) -> bool {
        self.at <= now
    }

    fn sent(&mut self, now: Moment) {
        self.at = now + self.wait;
        self.wait = (2 * self.wait).min(self.most);
    }
}

impl Machine {
    /// The time of the next KEEPALIVE.
    pub(super) fn keepalive_at(&self) -> Moment {
        self.to_primary.at.min(self.to_others.at)
    }

    pub(super) fn keep_alive(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (to_primary, to_others) = (self.to_primary.due(now), self.to_others.due(now));
        let primary = self.primary();
        for server in self.servers.addresses() {
            let due = if primary == Some(server) { to_primary } else { to_others };
            if due {
                self.ask(now, server, out);
            }
        }
        if to_primary {
            self.kept_alive.get_or_insert(now);
            self.to_primary.sent(now);
        }
        if to_others {
            self.to_others.sent(now);
        }
    }

    /// The primary tells the interval of keepalives to it, in ms.
    pub(super) fn on_keepalive_told(&mut self, now: Moment, told: u32) {
        let told = told.clamp(*KEEPALIVE_TOLD.start(), *KEEPALIVE_TOLD.end());
        let Keepalives { at, wait, most } = &mut self.to_primary;
        *most = Duration::from_millis(told.into());
        (*at, *wait) = ((*at).min(now + *most), (*wait).min(*most));
    }

    /// Another server has started again, and does not know where this client is. All are told, since it is
    /// not known which one it was; clients do it at different times.
    pub(super) fn on_restart_told(&mut self, now: Moment) {
        let later = Duration::from_micros(self.draw() % RESTART_SPREAD.as_micros() as u64);
        self.to_others = Keepalives::begin(now + later, self.to_others.most);
    }

    /// Sends KEEPALIVE to every server, and the next ones when they would be due after these.
    pub(super) fn ask_all(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.kept_alive.get_or_insert(now);
        self.to_primary.at = now + self.to_primary.most;
        self.to_others.at = now + self.to_others.most;
        for server in self.servers.addresses() {
            self.ask(now, server, out);
        }
    }

    /// Sends KEEPALIVE to a server, which answers with the active view that it knows, and learns the client's
    /// address. The serving primary also gets a CLIENT_ACK again: the last one may be lost, and a primary
    /// without credit sends nothing that would cause another.
    fn ask(&mut self, now: Moment, server: SocketAddr, out: &mut Vec<Effect>) {
        let serves = matches!(self.state, State::Served) && self.primary() == Some(server);
        let mut packets = vec![ToServer::keepalive()];
        if serves && self.inbox.receives() {
            packets.push(ToServer::ClientAck(self.inbox.ack()));
        }
        packets.push(ToServer::Padding);
        self.servers.send(now, server, self.view, &packets, None, out);
        self.servers.check_boot(server, &mut self.start.entropy, out);
    }

    /// Returns true if an answer of the primary is outstanding. Requests and queries do not count while the
    /// client backs off.
    pub(super) fn owes(&self, now: Moment) -> bool {
        let asks = !self.outbox.is_empty() || self.queries.values().any(|query| !query.is_status());
        asks && !self.backoff.waits(now) || matches!(self.state, State::Resuming { .. })
    }

    /// How long the client has missed answers of the primary: from the first request, query, RESUME or
    /// keepalive since its last datagram that was not answered. Before that the client expected nothing.
    pub(super) fn missed(&self, now: Moment) -> Duration {
        let heard = self.last_heard_before.unwrap_or(self.heard);
        let outstanding = self.outstanding_since.map(|since| since.max(heard));
        let from = outstanding.into_iter().chain(self.kept_alive).min();
        from.map_or(Duration::ZERO, |from| now.since(from))
    }

    /// The time at which the search for a silent primary begins.
    pub(super) fn search_at(&self) -> Moment {
        let idle_at = self.heard + 2 * self.to_primary.most + QUIET_IDLE;
        let quiet_at = match self.outstanding_since {
            Some(since) => (self.heard.max(since) + QUIET).min(idle_at),
            None => idle_at,
        };
        quiet_at.max(if self.searching { self.searched + QUIET } else { Moment(0) })
    }

    pub(super) fn search(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if now < self.search_at() {
            return;
        }
        self.searched = now;
        if !self.searching {
            self.searching = true;
            self.last_heard_before.get_or_insert(self.heard);
            if self.connected {
                out.push(Effect::Event(Event::Searching));
            }
        }
        self.ask_all(now, out);
    }

    pub(super) fn on_port_refused(&mut self, now: Moment, server: SocketAddr, out: &mut Vec<Effect>) {
        let hurts =
            self.primary() == Some(server) && matches!(self.state, State::Served | State::Resuming { .. });
        if hurts && now.since(self.searched) >= REFUSED_EVERY {
            self.searched = now;
            self.ask_all(now, out);
        }
    }

    /// A server asks for a proof of the client's address (as in QUIC's path validation) and does not answer
    /// packets before. So the RESUME or KEEPALIVE is sent again with the response.
    pub(super) fn on_path_challenge(
        &mut self,
        now: Moment,
        from: SocketAddr,
        token: u64,
        out: &mut Vec<Effect>,
    ) {
        let packet = match self.state {
            State::Resuming { .. } if self.primary() == Some(from) => self.resume_packet(),
            _ => ToServer::keepalive(),
        };
        let packets = [ToServer::PathResponse(token), packet];
        self.servers.send(now, from, self.view, &packets, None, out);
    }

    pub(super) fn on_coordinator(&mut self, now: Moment, coordinator: &Coordinator) {
        self.servers.learn_all(&coordinator.members);
        if coordinator.view > self.view {
            self.on_view(now, coordinator.view);
        }
    }

    /// A higher view is active: its primary is asked to resume the session.
    pub(super) fn on_view(&mut self, now: Moment, view: View) {
        self.view = view;
        self.last_heard_before.get_or_insert(self.heard);
        if matches!(self.state, State::Served | State::Resuming { .. }) {
            self.state = State::Resuming { again: Again::now(now) };
        }
    }
}
