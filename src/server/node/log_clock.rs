//! The log's clock: the time stamped into entries, by which everything expires (retention, idle and
//! pending sessions, codes).
//!
//! The log's time never goes back, and all servers share it. If the primary stamped its wall clock, an
//! error of one hour would drop an hour too much on every server, and would stay in the log after the clock
//! is right again. So the log's time is not the wall clock but follows it, slowly enough for people to
//! notice:
//!
//! - It runs on the **monotonic** clock from the last time in the log, also across a change of primary.
//! - It is **slewed** towards the wall clock: while the wall clock is ahead it runs at most twice as fast,
//!   and while the wall clock is behind it runs at half speed. It never stops, so everything expires in the
//!   end.
//! - If the wall clock is more than [`NEAR`] ahead for [`PATIENCE`], it **steps**, by [`STEP`] at the most,
//!   and again after another [`PATIENCE`]. It steps and does not run faster, so that between two steps a
//!   code is valid for its full time and a session has its full time to be confirmed.
//! - A server that **starts** knows only the last time in the log, and not for how long all servers were
//!   off. Its first step is therefore due at once, within its first [`PATIENCE`]. A night off is made up at
//!   the start, a weekend within two hours, a month within 30 hours.
//! - A time before [`EARLIEST_DATE_MS`] is not a date. An empty log starts at the wall clock, and a log
//!   that was begun on a machine without a clock leaves 1970 as soon as the wall clock shows a date. That
//!   jump does not age anything by fifty years: a stamp from before it ages from the first date on
//!   (`Service::housekeeping`). Only limits computed before the jump are void: those of enrolment codes and
//!   invitations.
//!
//! A wall clock that jumps a year ahead therefore only doubles the speed of the log's time for an hour.
//! Then it costs a day of retention per hour, with a warning each minute. Once it is set right, the log's
//! time runs at half speed until the excess has passed. People see this time on notifications: it is right
//! to within [`NEAR`] as long as there is no warning, and never decreases from one notification to the
//! next.

use std::time::Duration;

use recado_proto::id::Moment;
use recado_service::EARLIEST_DATE_MS;

use super::Clock;

/// Maximum difference from the wall clock without a warning or a step.
const NEAR: Duration = Duration::from_secs(60);
/// Time that the wall clock must be ahead before a step, and time between two steps.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Maximum size of one step.
const STEP: Duration = Duration::from_secs(24 * 3600);
/// Interval between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The log's clock on one server; the module documentation has its rules.
#[derive(Debug)]
pub(super) struct LogClock {
    started: Moment,
    /// The last applied time of the log, in ms since 1970.
    last_ms: u64,
    /// The log's time at `at` as this server computes it, in microseconds since 1970.
    unix_us: u64,
    /// The moment at which `unix_us` was computed.
    at: Moment,
    /// The earliest moment of the next step.
    step_at: Moment,
    warn_at: Moment,
}

impl LogClock {
    /// Clock of a server that starts now, whose log ends at this time.
    pub(super) fn new(now: Moment, last_ms: u64) -> LogClock {
        let unix_us = last_ms.saturating_mul(1000);
        LogClock { started: now, last_ms, unix_us, at: now, step_at: now, warn_at: now }
    }

    /// Takes the time of the last applied entry. A backup adopts it. A primary is ahead of it, except after
    /// it took over entries of another primary, so a primary adopts only a later time.
    pub(super) fn on_applied(&mut self, now: Moment, last_ms: u64, leads: bool) {
        if last_ms == self.last_ms {
            return;
        }
        self.last_ms = last_ms;
        let last_us = last_ms.saturating_mul(1000);
        if !leads || last_us > self.unix_us {
            (self.unix_us, self.at) = (last_us, now);
        }
    }

    /// Records that this server becomes primary.
    pub(super) fn on_primary(&mut self, now: Moment) {
        if now.since(self.started) >= PATIENCE {
            self.step_at = now + PATIENCE;
        }
    }

    /// Advances the primary's clock and returns the log's time, in ms since 1970.
    pub(super) fn read(&mut self, clock: Clock) -> u64 {
        let passed = micros(clock.now.since(self.at));
        let wall = clock.unix_ms.saturating_mul(1000);
        self.at = self.at.max(clock.now);
        self.unix_us = self.unix_us.saturating_add(passed);
        if self.unix_us < EARLIEST_DATE_MS * 1000 {
            self.unix_us = self.unix_us.max(wall);
        }
        let (ahead, behind) = (wall.saturating_sub(self.unix_us), self.unix_us.saturating_sub(wall));
        self.unix_us = self.unix_us + ahead.min(passed) - behind.min(passed / 2);

        let ahead = wall.saturating_sub(self.unix_us);
        if ahead <= micros(NEAR) {
            self.step_at = self.step_at.max(clock.now + PATIENCE);
        } else if clock.now >= self.step_at {
            self.unix_us += ahead.min(micros(STEP));
            self.step_at = clock.now + PATIENCE;
        }
        self.unix_us / 1000
    }

    /// The log's time, in ms since 1970, as far as it is known without the wall clock: what has passed since
    /// it was read is added.
    pub(super) fn now_ms(&self, now: Moment) -> u64 {
        self.unix_us.saturating_add(micros(now.since(self.at))) / 1000
    }

    /// Returns by how many ms the wall clock is ahead of the log's time (negative: behind), if that is more
    /// than [`NEAR`] and there was no warning within the last minute.
    pub(super) fn warn(&mut self, clock: Clock) -> Option<i64> {
        let away = i64::try_from(clock.unix_ms).ok()?.checked_sub_unsigned(self.unix_us / 1000)?;
        if clock.now < self.warn_at || u128::from(away.unsigned_abs()) <= NEAR.as_millis() {
            return None;
        }
        self.warn_at = clock.now + WARN_EVERY;
        Some(away)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_800_000_000_000;
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;

    /// A server whose moments count from its start, and its wall clock.
    struct Rig {
        clock: LogClock,
        now_ms: u64,
        wall_ms: u64,
    }

    impl Rig {
        fn new(last_ms: u64, wall_ms: u64) -> Rig {
            Rig { clock: LogClock::new(Moment(0), last_ms), now_ms: 0, wall_ms }
        }

        fn read(&mut self) -> u64 {
            self.clock.read(Clock { now: Moment(self.now_ms * 1000), unix_ms: self.wall_ms })
        }

        /// Advances time, and reads the clock each second as a primary does.
        fn pass(&mut self, ms: u64) -> u64 {
            for _ in 0..ms / 1000 {
                (self.now_ms, self.wall_ms) = (self.now_ms + 1000, self.wall_ms + 1000);
                self.read();
            }
            self.read()
        }
    }

    #[test]
    fn a_right_clock_is_followed_to_the_millisecond() {
        let mut rig = Rig::new(0, T0);
        assert_eq!(rig.read(), T0, "an empty log begins with it");
        assert_eq!(rig.pass(5 * DAY), T0 + 5 * DAY);
        rig.wall_ms += 500;
        assert_eq!(rig.pass(2_000), rig.wall_ms, "half a second is made good at once");
    }

    #[test]
    fn the_time_that_a_status_tells_is_the_logs_between_two_readings_too() {
        let mut rig = Rig::new(T0 + 3 * DAY, T0);
        let read = rig.read();
        assert_eq!(read, T0 + 3 * DAY);
        assert_eq!(rig.clock.now_ms(Moment(700_000)), read + 700);
    }

    #[test]
    fn a_clock_that_jumps_ahead_costs_nothing_for_an_hour_and_then_a_day_an_hour() {
        let mut rig = Rig::new(T0, T0);
        rig.pass(HOUR);
        rig.wall_ms += 365 * DAY;
        assert_eq!(rig.pass(59 * MINUTE), T0 + HOUR + 2 * 59 * MINUTE, "twice as fast");
        let early = rig.pass(9 * HOUR);
        let allowed = T0 + 11 * HOUR + 10 * HOUR;
        assert!((allowed + 8 * DAY..=allowed + 10 * DAY).contains(&early), "{}", early - T0);

        rig.wall_ms -= 365 * DAY;
        let at_correction = rig.read();
        assert_eq!(rig.pass(HOUR), at_correction + HOUR / 2, "it goes on, at half its pace");
        rig.pass(30 * DAY);
        assert_eq!(rig.read(), rig.wall_ms, "and is right again in the end");
    }

    #[test]
    fn a_cluster_that_was_off_catches_up_a_day_at_once_and_the_rest_in_steps() {
        let mut rig = Rig::new(T0, T0 + 12 * HOUR);
        assert_eq!(rig.pass(1_000), rig.wall_ms, "a night at once");
        let mut rig = Rig::new(T0, T0 + 30 * DAY);
        assert_eq!(rig.read(), T0 + DAY, "a month not at once");
        rig.pass(29 * HOUR);
        assert_eq!(rig.read(), rig.wall_ms);
    }

    #[test]
    fn a_backup_that_takes_over_continues_from_the_logs_time_whatever_its_wall_clock() {
        let mut rig = Rig::new(T0, T0);
        rig.now_ms = 5 * HOUR;
        rig.clock.on_applied(Moment(rig.now_ms * 1000), T0 + 5 * HOUR, false);
        // Nothing is logged for two hours; then this server becomes primary.
        rig.now_ms = 7 * HOUR;
        rig.wall_ms = T0 + 365 * DAY;
        rig.clock.on_primary(Moment(rig.now_ms * 1000));
        assert_eq!(
            rig.read(),
            T0 + 5 * HOUR + 2 * 2 * HOUR,
            "what passed, and as much towards the wall clock"
        );
        assert!(rig.pass(59 * MINUTE) < T0 + 12 * HOUR, "and no step before an hour");
    }

    #[test]
    fn a_time_reckoned_alone_gives_way_to_the_time_of_the_next_primary() {
        let mut rig = Rig::new(T0, T0 + 365 * DAY);
        rig.pass(3 * HOUR);
        rig.clock.on_applied(Moment(rig.now_ms * 1000), T0 + HOUR, false);
        rig.clock.on_primary(Moment(rig.now_ms * 1000));
        assert_eq!(rig.read(), T0 + HOUR);
    }

    #[test]
    fn a_log_begun_without_a_clock_leaves_1970_as_soon_as_there_is_one() {
        let mut rig = Rig::new(0, 5_000);
        assert_eq!(rig.pass(60_000), 65_000);
        rig.wall_ms = T0;
        assert_eq!(rig.read(), T0);
    }

    #[test]
    fn a_clock_that_is_away_is_warned_of_each_minute() {
        let mut rig = Rig::new(T0, T0 - 2 * DAY);
        rig.read();
        let mut warnings = Vec::new();
        for _ in 0..180 {
            rig.pass(1_000);
            let clock = Clock { now: Moment(rig.now_ms * 1000), unix_ms: rig.wall_ms };
            warnings.extend(rig.clock.warn(clock));
        }
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings.iter().all(|ms| (-2 * DAY as i64..-2 * DAY as i64 + 180_000).contains(ms)));
    }
}
