//! The schedule of faults, drawn from one seed.

use crate::disk::Damage;
use crate::rng::Rng;

/// The targets of a fault. A number is an index modulo the number of servers, resolved when the fault
/// happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Primary,
    One(u64),
    /// The primary and enough others that the rest is no majority.
    Majority,
    All,
}

/// One fault; `ms` is the time until it is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, after a while in which syncs took `sync_ms`; with `power_cut`, unsynced data is lost.
    Kill { who: Target, sync_ms: u64, power_cut: bool, ms: u64 },
    /// SIGSTOP, then SIGCONT.
    Stop { who: Target, ms: u64 },
    /// SIGTERM.
    Terminate { who: Target, ms: u64 },
    /// Faults of all datagrams: lost, repeated and delayed ones, per thousand, and the maximum of the delay.
    Weather { lost: u64, twice: u64, delayed: u64, delay_ms: u64, ms: u64 },
    /// Datagrams from one server to another are lost.
    OneWay { from: u64, to: u64, ms: u64 },
    /// Datagrams from clients to a server, or back, are lost.
    CutClients { who: Target, to_server: bool, ms: u64 },
    /// All datagrams from and to this server are lost.
    Isolate { who: Target, ms: u64 },
    /// All servers are killed and a file of one is damaged. It is started with all the others, or first with
    /// one other: either one that was killed before the last writes, or one that has them.
    Rot { who: u64, rot: Damage, first: First },
    /// A disk is full.
    Full { who: Target, ms: u64 },
    /// All reads of a disk fail (EIO).
    Unreadable { who: Target, ms: u64 },
    /// Syncs take `sync_ms`.
    Slow { who: Target, sync_ms: u64, ms: u64 },
    /// Syncs fail.
    FailingSync { who: Target, power_cut: bool },
    /// SIGKILL. After its restart the server logs into a full pipe that nobody reads.
    Unread { who: Target },
    /// A listener takes no notifications.
    Stall { listener: u64, ms: u64 },
    /// A client ends and starts again.
    Restart { sender: bool, which: u64 },
}

/// The servers that start first after a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// All servers.
    All,
    /// The damaged one and one that was killed before the last writes. The servers that have those start
    /// later.
    Laggard,
    /// The damaged one and another. The rest start later.
    Pair,
}

impl Fault {
    /// Returns true if this identifier occurs in the fault: `Kill`, `Majority`, `LogCut`.
    pub(crate) fn mentions(self, word: &str) -> bool {
        format!("{self:?}").split(|letter: char| !letter.is_alphanumeric()).any(|other| other == word)
    }
}

/// A fault, and true if everything is READY again before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) settle: bool,
}

/// One schedule: each kind of fault once, and several kinds of kills, in a random order and with random
/// parameters. Every schedule covers every fault, and the seed determines which fault follows which.
pub(crate) fn draw_schedule(rng: &mut Rng) -> Vec<Step> {
    let mut who_ever = rng.fork();
    let mut who = || match who_ever.below(3) {
        0 => Target::Primary,
        _ => Target::One(who_ever.next()),
    };
    let mut faults = Vec::new();
    for who in [Target::Primary, Target::One(rng.next()), Target::Majority, Target::All] {
        let sync_ms = *rng.pick(&[0, 0, 50, 150]).expect("there are some");
        faults.push(Fault::Kill { who, sync_ms, power_cut: rng.chance(0.7), ms: short(rng) });
    }
    faults.push(Fault::Kill { who: Target::All, sync_ms: rng.below(200), power_cut: true, ms: 0 });
    faults.push(Fault::Stop { who: who(), ms: rng.range(100, 1_500) });
    faults.push(Fault::Terminate { who: who(), ms: short(rng) });
    faults.push(Fault::Weather {
        lost: rng.below(250),
        twice: rng.below(100),
        delayed: rng.below(500),
        delay_ms: rng.range(1, 80),
        ms: rng.range(500, 1_500),
    });
    faults.push(Fault::OneWay { from: rng.next(), to: rng.next(), ms: rng.range(300, 1_500) });
    faults.push(Fault::CutClients { who: who(), to_server: rng.chance(0.5), ms: rng.range(300, 1_500) });
    faults.push(Fault::Isolate { who: who(), ms: rng.range(300, 1_500) });
    // The end of a log is damaged, where no later record names it durable, and the server that has these
    // entries is down.
    let rots = [Damage::LogZeroed, Damage::LogCut, Damage::LogHead];
    let rot = *rng.pick(&rots).expect("there are some");
    faults.push(Fault::Rot { who: rng.next(), rot, first: First::Laggard });
    let rot = *rng.pick(&Damage::ALL).expect("there are some");
    let first = *rng.pick(&[First::All, First::Laggard, First::Pair]).expect("there are some");
    faults.push(Fault::Rot { who: rng.next(), rot, first });
    let rot = *rng.pick(&Damage::UNREADABLE).expect("there are some");
    let first = *rng.pick(&[First::All, First::Pair]).expect("there are some");
    faults.push(Fault::Rot { who: rng.next(), rot, first });
    faults.push(Fault::Unreadable { who: who(), ms: rng.range(300, 1_500) });
    faults.push(Fault::Full { who: who(), ms: rng.range(300, 1_000) });
    let who_is_slow = [who(), Target::Majority, Target::All];
    faults.push(Fault::Slow {
        who: *rng.pick(&who_is_slow).expect("there are some"),
        sync_ms: *rng.pick(&[10, 50, 200]).expect("there are some"),
        ms: rng.range(500, 1_500),
    });
    faults.push(Fault::FailingSync { who: who(), power_cut: rng.chance(0.5) });
    faults.push(Fault::Unread { who: who() });
    faults.push(Fault::Stall { listener: rng.next(), ms: rng.range(300, 1_500) });
    faults.push(Fault::Restart { sender: true, which: rng.next() });
    faults.push(Fault::Restart { sender: false, which: rng.next() });
    for last in (1..faults.len()).rev() {
        faults.swap(last, rng.below(last as u64 + 1) as usize);
    }
    faults.into_iter().map(|fault| Step { fault, settle: rng.chance(0.5) }).collect()
}

fn short(rng: &mut Rng) -> u64 {
    if rng.chance(0.5) { 0 } else { rng.below(700) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_deals_the_same_again_and_another_deals_another() {
        let deal = |seed| draw_schedule(&mut Rng::seeded(seed));
        assert_eq!(deal(1), deal(1));
        assert_ne!(deal(1), deal(2));
    }
}
