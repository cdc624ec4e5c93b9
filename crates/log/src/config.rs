//! The configuration of the log: the cluster, the protocol's timers, and the policy of its primary.
//!
//! The documentation of a field says what it means and in which unit, how to choose it, its relation to other
//! fields and where that is checked, what goes wrong if it is too small or too large, whether the servers
//! must agree on it, and its default. No timer affects safety: a time-out only starts a probe, and what a
//! majority has promised and fsynced decides (DESIGN.md sections 4 and 6). A bad timer makes pauses longer or
//! more frequent, or keeps an election from ending. `config::file` is a module of the package `recado`
//! (`src/config/file.rs`).

use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::id::{ClusterId, NodeId};
use recado_proto::planted::PlantedBug;

/// The configuration of one server's part in the log, a part of the server's own (`recado::config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster and this server's place in it; the same on every server except for [`Cluster::me`].
    pub cluster: Cluster,
    /// The protocol's timers; the same on every server, which no server checks ([`Timing`]).
    pub timing: Timing,
    /// The policy when a server with a higher id is back. Only the primary reads it, so the servers may
    /// differ: that of the server that leads counts.
    pub preempt: Preempt,
    /// The mistake that a test plants, none by default. Without the feature `planted-bugs`, which only tests
    /// enable, there is none to plant; with one, the server breaks its promises.
    pub planted: PlantedBug,
}

/// A server, as all servers and clients know it.
///
/// The list of members is the same on every server. Its ids are compared: with `meta` and the snapshot at
/// each start, and with those of the sender of each HEARTBEAT. Its addresses are not compared: for a server
/// that has a wrong one, the server at the right one is dead. `config::file::check_addresses` refuses
/// addresses that no machine can have and addresses used twice, and IPv4 beside IPv6, because a server sends
/// to all the others from one address. No field has a default; `recadod init` fills in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its id and its rank, 1 to 65535, unique in the cluster (`config::file` checks both) and fixed for the
    /// cluster's life: of the servers that could lead, the one with the highest id does. Give the highest to
    /// the machine with the fastest disk and the shortest round trip to the clients. If a slow machine has
    /// it, that machine leads, and every write and read goes through it.
    pub id: NodeId,
    /// The UDP address that this server binds and that clients send to; COORDINATOR, ACCEPT_CONN, RESUME_OK
    /// and the status name it to them. So it is an address of the machine itself, as clients reach it: a
    /// server cannot bind one that only a NAT has. `recadod init` takes port 10097, or that of `--port`.
    pub client: SocketAddr,
    /// The UDP address that this server binds for the other servers, under the same rules. It has a socket of
    /// its own, so that a flood of clients delays no heartbeat (DESIGN.md section 2). `recadod init` takes
    /// the client port + 1000; nothing depends on that.
    pub peer: SocketAddr,
}

/// The cluster as one server sees it: fixed by `recadod init`, and the same on every server but for `me`.
/// `config::file` checks it when the file is read; the journal compares it with `meta` at each start, and
/// refuses another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id: 64 bits that `recadod init` draws, not zero. Every datagram names it; one with
    /// another id is refused and counted, except for a HELLO with zero, which asks any cluster for its id. It
    /// is no secret: a server is authenticated by `cluster.secret`.
    pub id: ClusterId,
    /// The id of this server, one of `members`. `meta` has it too, so a start on another server's data is
    /// refused. Two machines that run as one server, each on a copy of the data, break promises, and not
    /// every case is noticed (OPERATING.md, "Backup").
    pub me: NodeId,
    /// All members, this server included, ascending by id: the comparisons rely on that order, which
    /// `config::file` makes. 1 to 9 ([`MEMBERS_MAX`](recado_proto::id::MEMBERS_MAX), checked by
    /// `config::file` and the journal). Choose 3 or 5: a cluster of n survives the death of (n - 1) / 2,
    /// rounded down, so an even number survives no more than the odd one below it, and one or two survive
    /// none. Each further server costs the primary one more copy of every entry, and makes nothing faster.
    pub members: Vec<Member>,
}

impl Cluster {
    /// The number of servers in a quorum. The only place that defines it.
    pub(crate) fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The other members, ascending by id.
    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.id).filter(|id| *id != self.me)
    }
}

/// The protocol's timers (DESIGN.md section 6, which calls them H, T_s, T_bully and T_coord).
///
/// Choose a preset by two measures. The first is the round trip between the servers, with the delay of their
/// schedulers: it must be shorter than `bully`. The second is the longest pause of a primary that must not
/// cause an election, such as one of a virtual machine: it must be shorter than `suspect_min - heartbeat`. Of
/// the presets that fit, the one with the lowest `suspect_min` notices a death soonest.
///
/// Relations that [`Timing::validate`] checks, for the presets at compile time:
///
/// - `heartbeat >= 1 ms`
/// - `2 heartbeat <= suspect_min <= suspect_max`, and `3 heartbeat <= suspect_max`
/// - `bully < coordinator`, and `9/8 heartbeat <= coordinator`
///
/// Relations that nothing checks, and that each preset keeps on the networks that it is for:
///
/// - `suspect_max` is longer than a round trip and a heartbeat: the age that a backup's latest echo reaches.
/// - `coordinator` is longer than two or three intervals between PREPAREs, each 3/4 to 9/8 of `heartbeat`,
///   so that a lost PREPARE ends no election, and than the two round trips of a hand-over.
/// - `preempt_after` is longer than `suspect_max`.
///
/// Every server must have the same timers. No server compares them (`recado doctor` does): a backup whose
/// `suspect_max` is near the primary's `heartbeat` probes again and again, and a candidate with a long
/// `coordinator` is overtaken by one with a short one. `recado.toml` offers the presets alone.
///
/// Disks need no choice: what waits for a disk waits at least for four of the slowest recent turns of the
/// journals (`replica::disk_pace`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// H: the interval between two HEARTBEATs to each backup, each of which is echoed. What is lost in an
    /// election or a catch-up is sent again after H to 2 H. Choose it longer than the usual delay of the
    /// schedulers, and than a turn of the replica thread (2 ms and the request in progress,
    /// `src/server/cost.rs`). Too small: more packets; and a server adds its own delays, from 3 H on, to its
    /// patience with a dead primary. Too large: the bounds of T_s grow with it, and a killed primary whose
    /// port refuses is suspected only 5/4 H after its last packet.
    pub heartbeat: Duration,
    /// The lower bound of T_s, the silence after which the primary is suspected. T_s follows the jitter of
    /// the primary's packets as the time-out of RFC 6298 follows that of round trips: smoothed gap + 4
    /// deviations + 2 H. Without jitter that is 3 H, so on a quiet network this bound decides. Too small: a
    /// short pause of the primary causes suspicion, and an election if a majority suspects it. Too large: a
    /// silent death is a longer pause; with the default it is 212 ms in the median (PERFORMANCE.md, SIGSTOP).
    pub suspect_min: Duration,
    /// The upper bound of T_s, and the measure of absence where no time-out adapts: a primary is isolated
    /// unless a majority, itself included, has echoed a heartbeat of the last 2 `suspect_max`; a backup that
    /// echoed none of the last `suspect_max` is no target of a hand-over; a disk with shorter turns never
    /// lags. Too small: jitter makes a majority suspect a live primary; below a round trip no hand-over has a
    /// target, and below half of one every primary is isolated. Too large: with jitter a death is noticed
    /// late, and a primary that is cut off tells its clients late.
    pub suspect_max: Duration,
    /// T_bully: how long a candidate with a majority waits, from the start of its probe, for a server with a
    /// higher id that has not answered. It does not wait for the suspected primary, nor for a server whose
    /// port refuses. Too small: the candidate does not hear the higher server in time; then the lower one
    /// leads until a hand-over, or both prepare, and one view fails. Too large: while the machine of a higher
    /// server is off, each failover takes that much longer.
    pub bully: Duration,
    /// T_coord: how long a server waits for another candidate that is not heard or makes no progress. It
    /// grows with each failed view of the server that waits, up to eight times; the wait for progress is
    /// longer where disks are slow. A candidate gives up its own view after 2 T_coord without progress, and a
    /// hand-over fails after T_coord. Too small: candidates overtake each other, an election takes several
    /// views, and hand-overs fail. Too large: a candidate that dies delays the next one by as much.
    pub coordinator: Duration,
    /// How long a server with a higher id must have echoed, without a break longer than `suspect_max`, before
    /// the primary hands over to it (its log must also be at most 64 ops behind). The time starts again with
    /// each view, and after a hand-over that failed. Only the primary reads it, with [`Preempt::Graceful`].
    /// Too small: a server that keeps dying takes the lead at each start, and each time there are two pauses.
    /// Too large: a lower id leads for longer, on which no promise depends. 10 s in every preset (DESIGN.md
    /// section 4).
    pub preempt_after: Duration,
}

/// The presets. Their values are from DESIGN.md section 6. In the simulation, without loss, a failover at
/// each of them takes at most `suspect_max` and eight fsyncs, each counted as 10 ms at least
/// (`tests/sim/slow_disks.rs`).
impl Timing {
    /// For one machine or a quiet local network: round trips below 40 ms, pauses below 160 ms. PERFORMANCE.md
    /// measures this one.
    pub const DEFAULT: Timing = Timing::ms(40, 200, 600, 40, 150);
    /// For a wired local network whose machines have no other work: round trips below 30 ms, pauses below
    /// 95 ms. It notices a silent death 80 ms sooner than the default.
    pub const LAN: Timing = Timing::ms(25, 120, 400, 30, 100);
    /// For busy or shared machines, or a local network with jitter: round trips below 80 ms, pauses below
    /// 340 ms. It notices a silent death 200 ms later than the default.
    pub const NOISY: Timing = Timing::ms(60, 400, 1200, 80, 300);
    /// For a network between cities: round trips below 300 ms, pauses below 800 ms.
    pub const WAN: Timing = Timing::ms(200, 1000, 3000, 300, 1000);

    const fn ms(heartbeat: u64, suspect_min: u64, suspect_max: u64, bully: u64, coordinator: u64) -> Timing {
        Timing {
            heartbeat: Duration::from_millis(heartbeat),
            suspect_min: Duration::from_millis(suspect_min),
            suspect_max: Duration::from_millis(suspect_max),
            bully: Duration::from_millis(bully),
            coordinator: Duration::from_millis(coordinator),
            preempt_after: Duration::from_secs(10),
        }
    }

    /// Checks the relations between the timers. It checks no relation to the network.
    ///
    /// The presets are checked at compile time, and `recado.toml` offers no other timers, so no program of
    /// recado calls this at run time. A program that makes other timers calls it, because
    /// `ReplicaManager::new` takes any.
    ///
    /// # Errors
    /// [`TimingError`]: the relation that does not hold. The caller's fault; nothing changed.
    pub const fn validate(&self) -> Result<(), TimingError> {
        let heartbeat = self.heartbeat.as_micros();
        if heartbeat < 1_000 {
            return Err(TimingError::Heartbeat);
        }
        if self.suspect_max.as_micros() < 3 * heartbeat {
            return Err(TimingError::SuspectMax);
        }
        if self.suspect_min.as_micros() < 2 * heartbeat
            || self.suspect_min.as_micros() > self.suspect_max.as_micros()
        {
            return Err(TimingError::SuspectMin);
        }
        if self.coordinator.as_micros() <= self.bully.as_micros() {
            return Err(TimingError::Coordinator);
        }
        // The longest interval between two PREPAREs: 3/4 heartbeat, and jitter of up to half of that.
        if 8 * self.coordinator.as_micros() < 9 * heartbeat {
            return Err(TimingError::PrepareInterval);
        }
        Ok(())
    }
}

const _: () = assert!(
    Timing::DEFAULT.validate().is_ok()
        && Timing::LAN.validate().is_ok()
        && Timing::NOISY.validate().is_ok()
        && Timing::WAN.validate().is_ok()
);

/// A relation between the protocol's timers that does not hold. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// `heartbeat` is below a millisecond.
    #[error("the heartbeat must be at least 1 ms")]
    Heartbeat,
    /// `suspect_max` is below three heartbeats: one lost heartbeat must not cause a suspicion.
    #[error("suspect_max must be at least 3 heartbeats")]
    SuspectMax,
    /// `suspect_min` is below two heartbeats, for the same reason, or above `suspect_max`.
    #[error("suspect_min must be at least 2 heartbeats and at most suspect_max")]
    SuspectMin,
    /// `coordinator` is not longer than `bully`: a candidate must have time to be heard before it is given
    /// up.
    #[error("coordinator must be longer than bully")]
    Coordinator,
    /// `coordinator` is shorter than 9/8 of `heartbeat`, the longest interval between two PREPAREs: a backup
    /// would give up a candidate between two PREPAREs of it.
    #[error("coordinator must be at least 9/8 of the heartbeat, the longest interval between two PREPAREs")]
    PrepareInterval,
}

/// The primary's policy when a server with a higher id is back and has been stable for
/// [`Timing::preempt_after`]. The servers may differ: that of the primary counts. A primary that stops hands
/// over whatever the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// Hands over without a failed request, as the bully rule demands. Choose it if the ids follow how well
    /// the machines are suited to lead. Each return of a higher id is a short pause: a hand-over at SIGTERM
    /// took 30 ms in the median (PERFORMANCE.md). The default.
    Graceful,
    /// Stays primary. Choose it if all machines are alike, so that a return is no pause. The highest id then
    /// leads only after the next election.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_that_would_suspect_at_one_lost_heartbeat_are_refused() {
        let ms = Duration::from_millis;
        let timing = Timing { suspect_max: ms(119), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::SuspectMax));
        let timing = Timing { suspect_min: ms(79), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::SuspectMin));
        let timing = Timing { suspect_min: ms(601), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::SuspectMin));
        let timing = Timing { heartbeat: ms(0), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::Heartbeat));
        let timing = Timing { coordinator: ms(40), ..Timing::DEFAULT };
        assert_eq!(timing.validate(), Err(TimingError::Coordinator));
    }

    #[test]
    fn timers_with_which_a_backup_would_give_up_a_candidate_between_two_prepares_are_refused() {
        let timing = |heartbeat, coordinator| Timing {
            heartbeat: Duration::from_micros(heartbeat),
            bully: Duration::from_millis(10),
            coordinator: Duration::from_micros(coordinator),
            ..Timing::DEFAULT
        };
        assert_eq!(timing(40_000, 44_999).validate(), Err(TimingError::PrepareInterval));
        assert_eq!(timing(40_000, 45_000).validate(), Ok(()));
        // 9/8 of 40.001 ms is 45.001125 ms.
        assert_eq!(timing(40_001, 45_001).validate(), Err(TimingError::PrepareInterval));
        assert_eq!(timing(40_001, 45_002).validate(), Ok(()));
    }
}
