//! Disk pace: estimates how slow the disks of the servers are. Every time-out that waits for a disk follows
//! the estimate (DESIGN.md section 6).
//!
//! A server measures its own disk by the *turns* of its journal: a turn lasts from one report of what is
//! durable to the next. One fsync makes entries durable, three make a promise durable (the log, and both
//! slots of meta). In the same turn the journal may write a mark (one), end a snapshot (one: the directory)
//! and begin the next (four: the log, a segment, the directory, the mark), or install a peer's snapshot
//! (seven). Peers report their slowest turn in HEARTBEAT, ELECTION and REPLY. Patience is [`PATIENCE_TURNS`]
//! times the slowest turn: between a PREPARE and an active view lie two turns, and each may find the journal
//! in the middle of another one.
//!
//! Only recent turns count: a turn is remembered for [`REMEMBERED`] to twice that, and the turn in progress
//! counts as it grows. No turn counts for more than [`TURN_MAX`], so every wait is bounded. A disk
//! *lags* if a quorum of others is clearly faster. The others do not need it, so no server waits for it,
//! and its server lets the others lead.

use std::time::Duration;

use recado_proto::id::{Moment, NodeId};

/// Turns that a time-out waits for.
const PATIENCE_TURNS: u32 = 4;

/// A turn is remembered for at least this time, and at most twice this time. A single slow turn must not
/// slow elections for ever, and a disk under load shows its pace again within this time.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The longest turn that counts, on this server or reported by a peer. A disk that answers once in ten
/// seconds is of no use, and a peer may report any number.
const TURN_MAX: Duration = Duration::from_secs(10);

/// The factor by which a disk must be faster to be clearly faster. A smaller factor may be chance: of two
/// equal disks, one may do a mark, the end of a snapshot, the beginning of the next and its entries in one
/// turn, which is seven fsyncs, while the other does one.
const CLEARLY_FASTER_FACTOR: u32 = 8;

/// The known pace of the disks of all servers.
#[derive(Debug)]
pub(super) struct DiskPace {
    me: NodeId,
    quorum: usize,
    /// A disk whose turns take no longer than this never lags.
    tolerated: Duration,
    /// The start of the turn in progress.
    under_way: Option<Moment>,
    /// True if this server was asked to stop.
    stops: bool,
    recent: Recent,
    reports: Vec<Report>,
}

/// The slowest turn of the period that began at `since`, and of the period before it.
#[derive(Debug)]
struct Recent {
    since: Moment,
    slowest: Duration,
    before: Duration,
}

impl Recent {
    fn note(&mut self, now: Moment, took: Duration) {
        let age = now.since(self.since);
        if age >= REMEMBERED {
            self.before = if age < REMEMBERED * 2 { self.slowest } else { Duration::ZERO };
            (self.since, self.slowest) = (now, Duration::ZERO);
        }
        self.slowest = self.slowest.max(took);
    }

    fn slowest(&self, now: Moment) -> Duration {
        match now.since(self.since) {
            age if age < REMEMBERED => self.slowest.max(self.before),
            age if age < REMEMBERED * 2 => self.slowest,
            _ => Duration::ZERO,
        }
    }
}

/// The turn that a peer reported for its disk, and when.
#[derive(Clone, Copy, Debug)]
struct Report {
    peer: NodeId,
    turn: Duration,
    at: Moment,
}

impl DiskPace {
    /// Starts without knowledge. A disk whose turns take no longer than `tolerated` never lags.
    pub(super) fn new(me: NodeId, quorum: usize, tolerated: Duration, now: Moment) -> DiskPace {
        let recent = Recent { since: now, slowest: Duration::ZERO, before: Duration::ZERO };
        DiskPace { me, quorum, tolerated, under_way: None, stops: false, recent, reports: Vec::new() }
    }

    /// The journal was given a task. A turn begins if none is in progress.
    pub(super) fn task_given(&mut self, now: Moment) {
        self.under_way.get_or_insert(now);
    }

    /// The journal has ended a turn. If it has `more` to write, the next turn began at once.
    pub(super) fn turn_ended(&mut self, now: Moment, more: bool) {
        if let Some(since) = self.under_way.take() {
            self.recent.note(now, now.since(since));
        }
        self.under_way = more.then_some(now);
    }

    /// Excludes `gap` from the turn in progress, because this process itself was late by it.
    pub(super) fn forgive(&mut self, gap: Duration) {
        self.under_way = self.under_way.map(|since| since + gap);
    }

    /// A peer reported the turn of its disk.
    pub(super) fn on_report(&mut self, now: Moment, peer: NodeId, turn_ms: u32) {
        self.reports.retain(|told| told.peer != peer);
        let turn = Duration::from_millis(turn_ms.into()).min(TURN_MAX);
        self.reports.push(Report { peer, turn, at: now });
    }

    /// A peer is suspected. Its disk counts as unknown until the peer is heard again.
    pub(super) fn drop_report(&mut self, peer: NodeId) {
        self.reports.retain(|told| told.peer != peer);
    }

    /// The time since the turn in progress began.
    fn current_turn(&self, now: Moment) -> Duration {
        self.under_way.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The slowest recent turn of this server's journal.
    fn own(&self, now: Moment) -> Duration {
        self.recent.slowest(now).max(self.current_turn(now)).min(TURN_MAX)
    }

    /// This server stops. Its disk may be full, and then the turn in progress never ends: peers that waited
    /// for it would wait for a server that is about to be gone, and two such servers for each other.
    pub(super) fn stop(&mut self) {
        self.stops = true;
    }

    /// The slowest recent turn of this server in ms, as it is reported to peers; of a server that stops, the
    /// slowest that has ended.
    pub(super) fn own_turn_ms(&self, now: Moment) -> u32 {
        let turn = if self.stops { self.recent.slowest(now) } else { self.own(now) };
        u32::try_from(turn.as_millis()).unwrap_or(u32::MAX)
    }

    /// The turn of each disk, this server's included, that was reported less than `not_older` ago.
    fn known(&self, now: Moment, not_older: Duration) -> impl Iterator<Item = (NodeId, Duration)> + '_ {
        let fresh = move |told: &&Report| now.since(told.at) < not_older;
        let told = self.reports.iter().filter(fresh).map(|told| (told.peer, told.turn));
        told.chain([(self.me, self.own(now))])
    }

    /// Returns true if the disk of `who` is slow and a quorum of other disks is clearly faster.
    pub(super) fn lags(&self, who: NodeId, now: Moment) -> bool {
        let Some((_, turn)) = self.known(now, REMEMBERED * 2).find(|(node, _)| *node == who) else {
            return false;
        };
        // Only servers that are heard now count: the others could not take over.
        let faster = self
            .known(now, self.tolerated)
            .filter(|(node, other)| *node != who && *other * CLEARLY_FASTER_FACTOR <= turn)
            .count();
        turn > self.tolerated && faster >= self.quorum
    }

    /// Returns true if this server's disk lags and a write has waited too long.
    pub(super) fn stalls(&self, now: Moment) -> bool {
        self.current_turn(now) > self.tolerated && self.lags(self.me, now)
    }

    /// The time to wait for writes of other servers, or of this one among them.
    pub(super) fn patience(&self, now: Moment) -> Duration {
        let needed = self.known(now, REMEMBERED * 2).filter(|(node, _)| !self.lags(*node, now));
        needed.map(|(_, turn)| turn).max().unwrap_or_default() * PATIENCE_TURNS
    }

    /// The time to wait for writes of other servers only.
    pub(super) fn patience_with_others(&self, now: Moment) -> Duration {
        let others = self.known(now, REMEMBERED * 2).filter(|(node, _)| *node != self.me);
        others.filter(|(node, _)| !self.lags(*node, now)).map(|(_, turn)| turn).max().unwrap_or_default()
            * PATIENCE_TURNS
    }

    /// The time to wait for a write of this server, whether its disk lags or not.
    pub(super) fn own_patience(&self, now: Moment) -> Duration {
        self.patience(now).max(self.own(now) * PATIENCE_TURNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const TOLERATED: Duration = Duration::from_millis(600);
    const MS: Duration = Duration::from_millis(1);

    fn pace() -> (DiskPace, Moment) {
        let now = Moment(1_000_000);
        (DiskPace::new(ME, 2, TOLERATED, now), now)
    }

    /// Passes a turn of `ms` milliseconds.
    fn turn(pace: &mut DiskPace, now: &mut Moment, ms: u32) {
        pace.task_given(*now);
        *now = *now + MS * ms;
        pace.turn_ended(*now, false);
    }

    #[test]
    fn patience_is_four_turns_of_the_slowest_disk_seen_or_told_of() {
        let (mut pace, mut now) = pace();
        assert_eq!(pace.patience(now), Duration::ZERO);
        turn(&mut pace, &mut now, 150);
        turn(&mut pace, &mut now, 20);
        assert_eq!(pace.patience(now), MS * 600);
        pace.on_report(now, NodeId(2), 400);
        assert_eq!(pace.patience(now), MS * 1_600);
    }

    #[test]
    fn what_others_make_durable_is_not_waited_for_longer_because_this_disk_hangs() {
        let (mut pace, mut now) = pace();
        pace.task_given(now);
        now = now + MS * 5_000;
        pace.on_report(now, NodeId(2), 100);
        assert_eq!((pace.patience(now), pace.patience_with_others(now)), (MS * 20_000, MS * 400));
    }

    #[test]
    fn a_server_that_stops_reports_no_turn_that_may_never_end() {
        let (mut pace, now) = pace();
        pace.task_given(now);
        pace.turn_ended(now + MS * 40, true);
        pace.stop();
        assert_eq!(pace.own_turn_ms(now + MS * 5_000), 40);
    }

    #[test]
    fn a_turn_under_way_counts_as_it_grows() {
        let (mut pace, now) = pace();
        pace.task_given(now);
        pace.task_given(now + MS * 90);
        assert_eq!(pace.own_turn_ms(now + MS * 100), 100);
        pace.turn_ended(now + MS * 100, true);
        assert_eq!(pace.current_turn(now + MS * 130), MS * 30, "the next one began when that one ended");
        assert_eq!(pace.own_turn_ms(now + MS * 130), 100);
    }

    #[test]
    fn one_hiccup_is_forgotten() {
        let (mut pace, mut now) = pace();
        turn(&mut pace, &mut now, 5_000);
        let hiccup = now;
        while now < hiccup + REMEMBERED - MS {
            assert_eq!(pace.own_turn_ms(now), 5_000);
            turn(&mut pace, &mut now, 10);
        }
        while now <= hiccup + REMEMBERED * 2 {
            turn(&mut pace, &mut now, 10);
        }
        assert_eq!(pace.own_turn_ms(now), 10);
        let (mut idle, mut now) = self::pace();
        turn(&mut idle, &mut now, 5_000);
        assert_eq!(idle.own_turn_ms(now + REMEMBERED * 2), 0);
    }

    #[test]
    fn nobody_is_believed_beyond_the_limit() {
        let (mut pace, now) = pace();
        pace.on_report(now, NodeId(2), u32::MAX);
        assert_eq!(pace.patience(now), TURN_MAX * PATIENCE_TURNS);
        pace.task_given(now);
        assert_eq!(pace.own_patience(now + TURN_MAX * 9), TURN_MAX * PATIENCE_TURNS);
    }

    #[test]
    fn what_a_peer_told_is_forgotten_when_it_is_gone() {
        let (mut pace, now) = pace();
        pace.on_report(now, NodeId(2), 2_000);
        assert_eq!(pace.patience(now + REMEMBERED * 2), Duration::ZERO);
    }

    #[test]
    fn a_disk_lags_only_behind_a_quorum_of_others_that_are_clearly_faster() {
        let (mut pace, mut now) = pace();
        turn(&mut pace, &mut now, 2_000);
        pace.on_report(now, NodeId(2), 250);
        assert!(!pace.lags(ME, now), "one other is no quorum");
        pace.on_report(now, NodeId(3), 251);
        assert!(!pace.lags(ME, now), "more than an eighth is not clearly faster");
        pace.on_report(now, NodeId(3), 250);
        assert!(pace.lags(ME, now));
        assert!(!pace.lags(ME, now + TOLERATED), "who is not heard is no help");
        pace.drop_report(NodeId(3));
        assert!(!pace.lags(ME, now), "nor is who is believed dead");
    }

    #[test]
    fn a_disk_that_is_quick_enough_never_lags() {
        let (mut pace, mut now) = pace();
        turn(&mut pace, &mut now, 600);
        pace.on_report(now, NodeId(2), 0);
        pace.on_report(now, NodeId(3), 0);
        assert!(!pace.lags(ME, now));
    }

    #[test]
    fn nobody_waits_for_a_disk_that_lags_but_its_own_server() {
        let (mut pace, mut now) = pace();
        turn(&mut pace, &mut now, 10);
        pace.on_report(now, NodeId(2), 20);
        pace.on_report(now, NodeId(3), 2_000);
        assert!(pace.lags(NodeId(3), now));
        assert_eq!(pace.patience(now), MS * 80);
        turn(&mut pace, &mut now, 3_000);
        pace.on_report(now, NodeId(2), 20);
        pace.on_report(now, NodeId(3), 20);
        assert_eq!((pace.patience(now), pace.own_patience(now)), (MS * 80, MS * 12_000));
    }

    #[test]
    fn a_disk_stalls_only_while_it_owes_a_write() {
        let (mut pace, mut now) = pace();
        pace.task_given(now);
        now = now + TOLERATED + MS;
        pace.on_report(now, NodeId(2), 1);
        assert!(!pace.stalls(now), "as slow as all that are known");
        pace.on_report(now, NodeId(3), 1);
        assert!(pace.stalls(now));
        pace.turn_ended(now, false);
        assert!(pace.lags(ME, now) && !pace.stalls(now));
    }

    #[test]
    fn ones_own_lateness_is_not_the_disks() {
        let (mut pace, now) = pace();
        pace.task_given(now);
        pace.forgive(MS * 5_000);
        assert_eq!(pace.own_turn_ms(now + MS * 5_010), 10);
    }

    #[test]
    fn the_slowest_turn_of_an_idle_disk_is_remembered_for_at_least_ten_seconds() {
        let (mut pace, mut now) = pace();
        turn(&mut pace, &mut now, 5_000);
        assert_eq!(pace.own_turn_ms(now + REMEMBERED - MS), 5_000);
    }

    #[test]
    fn each_slowest_turn_of_an_idle_disk_is_forgotten_exactly_when_its_time_is_over() {
        let (mut pace, mut now) = pace();
        let began = now;
        turn(&mut pace, &mut now, 5_000);
        // The period after it begins with a turn that ends ten seconds after the first one began.
        now = began + REMEMBERED - MS * 10;
        turn(&mut pace, &mut now, 10);
        for (idle, slowest) in
            [(REMEMBERED - MS, 5_000), (REMEMBERED, 10), (REMEMBERED * 2 - MS, 10), (REMEMBERED * 2, 0)]
        {
            assert_eq!(pace.own_turn_ms(now + idle), slowest, "after {idle:?}");
        }
    }

    #[test]
    fn a_slow_turn_is_forgotten_after_twenty_seconds_whenever_others_end() {
        let (mut pace, mut now) = pace();
        let began = now;
        turn(&mut pace, &mut now, 1_000);
        let slow_until = now;
        // One turn ends exactly with the period, the next one just before the period after it does.
        for end in [REMEMBERED, REMEMBERED * 2 - MS] {
            now = began + end - MS * 10;
            turn(&mut pace, &mut now, 10);
        }
        assert_eq!(pace.own_turn_ms(slow_until + REMEMBERED * 2), 10);
    }

    #[test]
    fn a_slow_turn_counts_until_the_period_after_its_own_ends_and_no_longer() {
        for (end, slowest) in [(REMEMBERED * 2 - MS, 5_000), (REMEMBERED * 2, 10)] {
            let (mut pace, mut now) = pace();
            let began = now;
            turn(&mut pace, &mut now, 5_000);
            now = began + end - MS * 10;
            turn(&mut pace, &mut now, 10);
            assert_eq!(pace.own_turn_ms(now), slowest, "after {end:?}");
        }
    }

    #[test]
    fn a_disk_that_lags_stalls_only_after_the_time_that_is_tolerated() {
        let (mut pace, mut now) = pace();
        turn(&mut pace, &mut now, 2_000);
        pace.task_given(now);
        for (waited, stalls) in [(TOLERATED, false), (TOLERATED + MS, true)] {
            let at = now + waited;
            pace.on_report(at, NodeId(2), 1);
            pace.on_report(at, NodeId(3), 1);
            assert!(pace.lags(ME, at));
            assert_eq!(pace.stalls(at), stalls, "after {waited:?}");
        }
    }
}
