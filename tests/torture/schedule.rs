//! What happens to a cluster, drawn from one seed.

use crate::disk::Rot;
use crate::rng::Rng;

/// Whom it happens to. Numbers are taken around the circle of servers, as it stands when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Primary,
    One(u64),
    /// The primary and so many others that the rest is no majority.
    Majority,
    All,
}

/// One fault. A time is how long it lasts before it is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9, after moments in which syncs took so long; with it, or not, what no sync had confirmed is
    /// gone.
    Kill { who: Who, sync_ms: u64, power_cut: bool, ms: u64 },
    /// SIGSTOP, then SIGCONT.
    Stop { who: Who, ms: u64 },
    /// SIGTERM.
    Terminate { who: Who, ms: u64 },
    /// Datagrams everywhere: so many of a thousand are lost, repeated, delayed for up to so long.
    Weather { lost: u64, twice: u64, delayed: u64, delay_ms: u64, ms: u64 },
    /// What one server says to another does not arrive.
    OneWay { from: u64, to: u64, ms: u64 },
    /// What clients say to a server does not arrive, or what it says to them.
    Deaf { who: Who, to_server: bool, ms: u64 },
    /// Nothing from or to this server arrives.
    Isolate { who: Who, ms: u64 },
    /// All are killed and files of one rot. It is started, with all the others, or first with all but one:
    /// that one may be behind, because it was killed before the last writes, or the one that has them.
    Rot { who: u64, rot: Rot, first: First },
    /// A disk is full.
    Full { who: Who, ms: u64 },
    /// Nothing that a disk holds can be read (EIO).
    Unreadable { who: Who, ms: u64 },
    /// Syncs take so long.
    Slow { who: Who, sync_ms: u64, ms: u64 },
    /// Syncs fail.
    FailingSync { who: Who, power_cut: bool },
    /// kill -9, and from its start on nobody reads what it logs, into a pipe that is full.
    Unread { who: Who },
    /// A listener takes nothing.
    Stall { listener: u64, ms: u64 },
    /// A client ends and begins again.
    Restart { sender: bool, which: u64 },
}

/// Who is started first after a rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Everybody.
    All,
    /// The rotten one and one that was killed before the last writes; the ones that have them later.
    Laggard,
    /// The rotten one and another; the rest later.
    Pair,
}

impl Fault {
    /// Whether this word stands in it: `Kill`, `Majority`, `LogCut`.
    pub(crate) fn mentions(self, word: &str) -> bool {
        format!("{self:?}").split(|letter: char| !letter.is_alphanumeric()).any(|other| other == word)
    }
}

/// A fault, and whether everything is READY again before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) settle: bool,
}

/// One of each kind of fault, and the kills in all their kinds, in an order and with numbers of the seed. So
/// every deal has everything, and what matters, what follows on what, is the seed's.
pub(crate) fn deal(rng: &mut Rng) -> Vec<Step> {
    let mut who_ever = rng.fork();
    let mut who = || match who_ever.below(3) {
        0 => Who::Primary,
        _ => Who::One(who_ever.next()),
    };
    let mut faults = Vec::new();
    for who in [Who::Primary, Who::One(rng.next()), Who::Majority, Who::All] {
        let sync_ms = *rng.pick(&[0, 0, 50, 150]).expect("there are some");
        faults.push(Fault::Kill { who, sync_ms, power_cut: rng.chance(0.7), ms: short(rng) });
    }
    faults.push(Fault::Kill { who: Who::All, sync_ms: rng.below(200), power_cut: true, ms: 0 });
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
    faults.push(Fault::Deaf { who: who(), to_server: rng.chance(0.5), ms: rng.range(300, 1_500) });
    faults.push(Fault::Isolate { who: who(), ms: rng.range(300, 1_500) });
    // The end of a log, where nothing behind it says that it was durable, and who could tell is not there.
    let rots = [Rot::LogZeroed, Rot::LogCut, Rot::LogHead];
    let rot = *rng.pick(&rots).expect("there are some");
    faults.push(Fault::Rot { who: rng.next(), rot, first: First::Laggard });
    let rot = *rng.pick(&Rot::ALL).expect("there are some");
    let first = *rng.pick(&[First::All, First::Laggard, First::Pair]).expect("there are some");
    faults.push(Fault::Rot { who: rng.next(), rot, first });
    let rot = *rng.pick(&Rot::UNREADABLE).expect("there are some");
    let first = *rng.pick(&[First::All, First::Pair]).expect("there are some");
    faults.push(Fault::Rot { who: rng.next(), rot, first });
    faults.push(Fault::Unreadable { who: who(), ms: rng.range(300, 1_500) });
    faults.push(Fault::Full { who: who(), ms: rng.range(300, 1_000) });
    let who_is_slow = [who(), Who::Majority, Who::All];
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
        let deal = |seed| deal(&mut Rng::seeded(seed));
        assert_eq!(deal(1), deal(1));
        assert_ne!(deal(1), deal(2));
    }
}
