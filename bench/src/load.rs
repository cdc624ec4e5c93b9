//! The two loops: closed, where each sender has so many messages in flight, and open, where messages are
//! due at fixed times whatever has become of the earlier ones.

use std::time::Duration;

use recado_proto::id::Moment;
use recado_sys::clock::MachineClock;

use crate::allocations;
use crate::broker::{Broker, Observed};
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::process::{Used, Watched};
use crate::progress;

/// The longest wait of one turn.
const TURN: Duration = Duration::from_millis(50);
/// A run in which nothing happens for so long has failed.
const STALLED: Duration = Duration::from_secs(20);
/// Most messages of an open loop that are sent in one turn, so that what comes in is taken too.
const BURST: usize = 64;

/// How the senders send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Each sender has so many messages in flight: a message is in flight until all have seen it.
    Closed {
        /// Messages in flight.
        window: usize,
    },
    /// The senders in turn send so many messages a second. The latency of a message counts from the time
    /// that it was due, so a broker that falls behind cannot hide it (no coordinated omission).
    Open {
        /// Messages a second.
        rate: f64,
    },
}

/// What is sent, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) senders: u16,
    pub(crate) followers: usize,
    pub(crate) size: usize,
    pub(crate) pace: Pace,
    /// The time before the measurement begins.
    pub(crate) warm_up: Duration,
    /// The measured time.
    pub(crate) measured: Duration,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ledger: Ledger,
    /// What each process used in the measured time.
    pub(crate) used: Vec<Used>,
    /// The allocations of this process in the measured time.
    pub(crate) allocations: u64,
}

/// Runs a load. `each` is called in every turn, with the time since the load began and the ledger; what it
/// does delays the load, so it must be short.
pub(crate) fn run(
    clock: MachineClock,
    broker: &mut dyn Broker,
    load: Load,
    mut watched: Vec<Watched>,
    mut each: impl FnMut(Moment, &mut Ledger) -> Result<(), Failure>,
) -> Result<Ran, Failure> {
    progress::say(format_args!("measuring for {:?}, after {:?}", load.measured, load.warm_up));
    let began = clock.now();
    let from = began + load.warm_up;
    let until = from + load.measured;
    let mut ledger = Ledger::new(load.senders, load.followers, broker.acknowledges(), from..until)?;
    let mut observed: Vec<(Moment, Observed)> = Vec::new();
    let mut schedule = Schedule { began, given: 0 };
    let mut before = None;
    let mut after = None;
    let (mut seen, mut seen_at) = (0, began);
    loop {
        let now = clock.now();
        each(now, &mut ledger)?;
        if before.is_none() && now >= from {
            watched.iter_mut().for_each(Watched::begin);
            before = Some(allocations::count());
        }
        if now >= until && after.is_none() {
            after = Some((watched.iter().filter_map(Watched::used).collect(), allocations::count()));
        }
        let wait = match load.pace {
            Pace::Closed { window } if after.is_none() => {
                refill(clock, broker, &mut ledger, load, window)?;
                TURN
            }
            // What was due in the measured time is sent and measured, however late.
            Pace::Open { rate } if schedule.due(rate) < until => {
                schedule.send(clock, broker, &mut ledger, load, rate)?
            }
            Pace::Closed { .. } | Pace::Open { .. } if after.is_some() && ledger.is_settled() => break,
            Pace::Closed { .. } | Pace::Open { .. } => TURN,
        };
        broker.turn(wait.min(TURN), &mut observed)?;
        for (at, what) in observed.drain(..) {
            ledger.observe(at, what);
        }
        let now = clock.now();
        if ledger.observations != seen || ledger.is_settled() {
            (seen, seen_at) = (ledger.observations, now);
        } else if now.since(seen_at) >= STALLED {
            if after.is_some() {
                break;
            }
            return Err(Failure::Late(format!("an answer for {} s", STALLED.as_secs())));
        }
    }
    let (used, allocated) = after.unwrap_or_default();
    Ok(Ran { ledger, used, allocations: allocated.saturating_sub(before.unwrap_or_default()) })
}

/// Sends `count` messages of sender 0, with so many in flight, and waits until all are acknowledged.
pub(crate) fn store(
    clock: MachineClock,
    broker: &mut dyn Broker,
    count: u64,
    window: usize,
    size: usize,
) -> Result<(), Failure> {
    progress::say(format_args!("storing {count} messages"));
    let mut ledger = Ledger::new(1, 0, true, Moment(0)..Moment(0))?;
    let mut observed = Vec::new();
    let mut acked_at = clock.now();
    while ledger.next(0).index < count || !ledger.is_settled() {
        while ledger.outstanding(0) < window && ledger.next(0).index < count {
            if !broker.send(ledger.next(0), size)? {
                break;
            }
            ledger.sent(0, clock.now());
        }
        broker.turn(TURN, &mut observed)?;
        for (at, what) in observed.drain(..) {
            acked_at = at;
            ledger.observe(at, what);
        }
        if clock.now().since(acked_at) >= STALLED {
            return Err(Failure::Late(format!("an answer for {} s", STALLED.as_secs())));
        }
    }
    Ok(())
}

/// Brings every sender up to its window.
fn refill(
    clock: MachineClock,
    broker: &mut dyn Broker,
    ledger: &mut Ledger,
    load: Load,
    window: usize,
) -> Result<(), Failure> {
    for sender in 0..load.senders {
        while ledger.outstanding(sender) < window {
            let now = clock.now();
            if !broker.send(ledger.next(sender), load.size)? {
                break;
            }
            ledger.sent(sender, now);
        }
    }
    Ok(())
}

/// The times at which the messages of an open loop are due.
#[derive(Debug)]
struct Schedule {
    began: Moment,
    /// The messages that were sent.
    given: u64,
}

impl Schedule {
    fn due(&self, rate: f64) -> Moment {
        self.began + Duration::from_secs_f64(self.given as f64 / rate)
    }

    /// Sends what is due, and returns the time until the next message is.
    fn send(
        &mut self,
        clock: MachineClock,
        broker: &mut dyn Broker,
        ledger: &mut Ledger,
        load: Load,
        rate: f64,
    ) -> Result<Duration, Failure> {
        for _ in 0..BURST {
            let due = self.due(rate);
            let now = clock.now();
            if due > now {
                return Ok(due.since(now));
            }
            let sender = u16::try_from(self.given % u64::from(load.senders)).unwrap_or_default();
            if !broker.send(ledger.next(sender), load.size)? {
                // Its turn comes when it has room, and its latency counts from the time that it was due.
                return Ok(TURN);
            }
            ledger.sent(sender, due);
            self.given += 1;
        }
        Ok(Duration::ZERO)
    }
}
