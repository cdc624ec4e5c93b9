//! `overload`: what becomes of the latency, and of those who are refused, when twice as many messages come as
//! the servers take.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use recado_proto::id::Moment;
use recado_sys::clock::MachineClock;
use serde_json::json;

use crate::allocations;
use crate::broker::{Broker as _, Number, Observed};
use crate::cluster::Target;
use crate::failure::Failure;
use crate::ledger::{Checks, histogram, record};
use crate::load::{self, Load, Pace};
use crate::machines::Machines;
use crate::process::Watched;
use crate::progress;
use crate::report::Report;
use crate::setup::{Setup, Timing};

/// The longest wait for an answer once no more is sent.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest wait of one turn.
const TURN: Duration = Duration::from_millis(50);
/// Most messages that are sent in one turn, so that what comes in is taken too.
const BURST: usize = 1_024;

/// `overload`: open loop at half and at twice the rate of the closed loop.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OverloadRun {
    /// Devices that send, in turn
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    devices: u16,
    /// Messages in flight of each device at most: unanswered
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    timing: Timing,
}

impl OverloadRun {
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        let setup = Setup::new(&self.target, &[])?;
        let mut machines = setup.started_machines(self.devices, 0, 0)?;
        let view = setup.cluster.view()?;
        let Timing { size, .. } = self.timing;
        let (warm_up, measured) = (self.timing.before(), self.timing.measured());
        let pace = Pace::Closed { window: self.in_flight.into() };
        let load = Load { senders: self.devices, followers: 0, size, pace, warm_up, measured };
        let closed = load::run(setup.clock, &mut machines, load, Vec::new(), |_, _| Ok(()))?;
        let rate = closed.ledger.acks as f64 / measured.as_secs_f64();
        if rate == 0.0 {
            return Err(Failure::Late("a message of the closed loop".into()));
        }

        let clock = setup.clock;
        let half = self.offer(clock, &mut machines, rate / 2.0, &mut [])?;
        let allocated = allocations::count();
        let mut watched = setup.watched()?;
        let twice = self.offer(clock, &mut machines, rate * 2.0, &mut watched)?;
        let allocated = allocations::count() - allocated;
        let elections = setup.cluster.view()?.round() - view.round();

        let acked = twice.taken.len() + twice.taken_later.len();
        let mut report = Report::new("overload", setup.broker(), measured, ("send", acked));
        report.parameters = vec![
            ("senders", json!(self.devices)),
            ("in_flight", json!(self.in_flight)),
            ("size", json!(size)),
            ("through", json!("machines")),
        ];
        let seconds = measured.as_secs_f64();
        report.rates = vec![
            ("closed loop", rate),
            ("half: offered", half.offered() as f64 / seconds),
            ("twice: offered", twice.offered() as f64 / seconds),
            ("twice: taken", twice.acked as f64 / seconds),
        ];
        report.shares = vec![
            ("half: refused", half.refused_share()),
            ("twice: refused", twice.refused_share()),
            ("twice: held back by clients", twice.held_back_share()),
        ];
        report.counts.push(("views begun meanwhile", elections));
        let checks = [closed.ledger.checks(), half.checks(), twice.checks()];
        report.checks.lost = checks.iter().map(|checks| checks.lost).sum();
        report.checks.repeated = checks.iter().map(|checks| checks.repeated).sum();
        report.latencies = vec![
            ("half: ack", half.taken),
            ("twice: ack", twice.taken),
            ("twice: until refused", twice.refused),
            ("twice: ack after refusals", twice.taken_later),
        ];
        (report.used, report.allocations) = (twice.used, allocated);
        Ok(report)
    }

    /// Offers so many messages a second, open loop.
    ///
    /// A client that is told Busy waits before it sends anything more, and the latency would be that of the
    /// client. So a device with a message that waits because of a refusal, or with too many in flight, is not
    /// asked for another: what it had to send is counted as held back.
    fn offer(
        &self,
        clock: MachineClock,
        machines: &mut Machines,
        rate: f64,
        watched: &mut [Watched],
    ) -> Result<Offered, Failure> {
        progress::say(format_args!("offering {rate:.0} messages a second"));
        let began = clock.now();
        let from = began + self.timing.before();
        let until = from + self.timing.measured();
        let mut offered = Offered::new(self.devices, from..until)?;
        let mut observed = Vec::new();
        let (mut due_index, mut is_begun, mut is_over) = (0_u64, false, false);
        let mut heard_at = began;
        loop {
            let now = clock.now();
            if !is_begun && now >= from {
                is_begun = true;
                watched.iter_mut().for_each(Watched::begin);
            }
            if !is_over && now >= until {
                is_over = true;
                offered.used = watched.iter().filter_map(Watched::used).collect();
            }
            let mut wait = TURN;
            if !is_over {
                for _ in 0..BURST {
                    let due = began + Duration::from_secs_f64(due_index as f64 / rate);
                    if due > now || due >= until {
                        wait = due.since(now);
                        break;
                    }
                    wait = Duration::ZERO;
                    let sender = u16::try_from(due_index % u64::from(self.devices)).unwrap_or_default();
                    due_index += 1;
                    let number = offered.next(sender, self.in_flight, due);
                    let Some(number) = number else { continue };
                    if machines.send(number, self.timing.size)? {
                        offered.sent(number, due, clock.now());
                    } else {
                        offered.held_back(due);
                    }
                }
            } else if offered.under_way.is_empty() || now.since(heard_at) >= PATIENCE {
                return Ok(offered);
            }
            machines.turn(wait.min(TURN), &mut observed)?;
            for (at, what) in observed.drain(..) {
                heard_at = at;
                offered.observe(at, what);
            }
        }
    }
}

/// A message that is not answered.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sent: Moment,
    /// It was due in the measured time.
    counts: bool,
    /// It was refused, or one of its device before it was: it waits in its client.
    waits: bool,
}

/// One device that sends.
#[derive(Clone, Copy, Debug, Default)]
struct Device {
    next: u64,
    in_flight: u16,
    /// Of these, those that wait in the client because of a refusal.
    waiting: u16,
}

/// What was offered at one rate, and what came of it.
#[derive(Debug)]
struct Offered {
    /// The measured time.
    measured: Range<Moment>,
    /// Acknowledgements that came in it. Those of messages sent before make up for those that come later.
    acked: u64,
    devices: Vec<Device>,
    under_way: BTreeMap<Number, UnderWay>,
    /// Messages that were due in the measured time and that no client sent.
    held_back: u64,
    /// Messages that were sent.
    sent: u64,
    /// Times to the acknowledgement of those that did not wait because of a refusal.
    taken: Histogram<u64>,
    /// Times to the refusal of those that met one and did not wait because of another ...
    refused: Histogram<u64>,
    /// ... and to the acknowledgement of all that waited.
    taken_later: Histogram<u64>,
    repeated: u64,
    used: Vec<crate::process::Used>,
}

impl Offered {
    fn new(devices: u16, measured: Range<Moment>) -> Result<Offered, Failure> {
        Ok(Offered {
            measured,
            acked: 0,
            devices: vec![Device::default(); devices.into()],
            under_way: BTreeMap::new(),
            held_back: 0,
            sent: 0,
            taken: histogram()?,
            refused: histogram()?,
            taken_later: histogram()?,
            repeated: 0,
            used: Vec::new(),
        })
    }

    /// The number of the device's message that is due; none if it holds the message back.
    fn next(&mut self, sender: u16, most: u16, due: Moment) -> Option<Number> {
        let device = *self.devices.get(usize::from(sender))?;
        if device.in_flight >= most || device.waiting > 0 {
            self.held_back(due);
            return None;
        }
        Some(Number { sender, index: device.next })
    }

    fn held_back(&mut self, due: Moment) {
        self.held_back += u64::from(due >= self.measured.start);
    }

    fn sent(&mut self, number: Number, due: Moment, now: Moment) {
        let counts = due >= self.measured.start;
        self.sent += u64::from(counts);
        self.under_way.insert(number, UnderWay { sent: now, counts, waits: false });
        if let Some(device) = self.devices.get_mut(usize::from(number.sender)) {
            device.next += 1;
            device.in_flight += 1;
        }
    }

    fn observe(&mut self, now: Moment, what: Observed) {
        match what {
            Observed::Acked(number) => self.acked(now, number),
            Observed::Deferred(number) => self.deferred(now, number),
            _ => {}
        }
    }

    fn acked(&mut self, now: Moment, number: Number) {
        let Some(message) = self.under_way.remove(&number) else {
            self.repeated += 1;
            return;
        };
        self.acked += u64::from(self.measured.contains(&now));
        if let Some(device) = self.devices.get_mut(usize::from(number.sender)) {
            device.in_flight -= 1;
            device.waiting -= u16::from(message.waits);
        }
        if message.counts {
            let times = if message.waits { &mut self.taken_later } else { &mut self.taken };
            record(times, now.since(message.sent));
        }
    }

    /// A message was refused. The client keeps it and all of its device behind it until the refusal's wait is
    /// over: only the first one's time to the refusal is the servers'.
    fn deferred(&mut self, now: Moment, number: Number) {
        let Number { sender, .. } = number;
        let Some(message) = self.under_way.get(&number).filter(|message| !message.waits) else { return };
        if message.counts {
            record(&mut self.refused, now.since(message.sent));
        }
        let behind = self.under_way.range_mut(number..=Number { sender, index: u64::MAX });
        let newly = behind.map(|(_, message)| message).filter(|message| !message.waits);
        let newly = newly.map(|message| message.waits = true).count();
        if let Some(device) = self.devices.get_mut(usize::from(sender)) {
            device.waiting += newly as u16;
        }
    }

    /// What was due in the measured time.
    fn offered(&self) -> u64 {
        self.sent + self.held_back
    }

    fn refused_share(&self) -> f64 {
        self.refused.len() as f64 / self.sent.max(1) as f64
    }

    fn held_back_share(&self) -> f64 {
        self.held_back as f64 / self.offered().max(1) as f64
    }

    fn checks(&self) -> Checks {
        Checks { lost: self.under_way.len() as u64, repeated: self.repeated, reordered: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_refused_holds_back_until_it_and_what_is_behind_it_are_answered() {
        let mut offered = Offered::new(1, Moment(100)..Moment(195)).unwrap();
        let send = |offered: &mut Offered, at| {
            let number = offered.next(0, 3, Moment(at)).unwrap();
            offered.sent(number, Moment(at), Moment(at));
            number
        };
        let early = send(&mut offered, 50);
        let [first, behind] = [110, 120].map(|at| send(&mut offered, at));
        assert_eq!(offered.next(0, 3, Moment(125)), None, "three are in flight");
        offered.observe(Moment(130), Observed::Acked(early));
        offered.observe(Moment(140), Observed::Deferred(first));
        offered.observe(Moment(150), Observed::Deferred(first));
        offered.observe(Moment(150), Observed::Deferred(behind));
        assert_eq!(offered.refused.max(), 30, "the client knows it from the first refusal");
        offered.observe(Moment(170), Observed::Acked(first));
        assert_eq!(offered.next(0, 3, Moment(175)), None, "one waits behind the one that was refused");
        offered.observe(Moment(180), Observed::Acked(behind));
        let last = send(&mut offered, 185);
        offered.observe(Moment(190), Observed::Acked(last));
        assert_eq!((offered.sent, offered.held_back, offered.acked), (3, 2, 4), "one was due before");
        assert_eq!((offered.taken.max(), offered.taken.len()), (5, 1));
        assert_eq!((offered.taken_later.max(), offered.taken_later.len()), (60, 2));
        assert_eq!(offered.refused.len(), 1);
        assert_eq!(offered.checks(), Checks::default());
        offered.observe(Moment(191), Observed::Acked(first));
        assert_eq!(offered.checks().repeated, 1);
    }
}
