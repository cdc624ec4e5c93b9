//! The cluster, the protocol's timers and the policy of the log's primary.

use std::net::SocketAddr;
use std::time::Duration;

use recado_proto::id::{ClusterId, NodeId};
use recado_proto::planted::PlantedBug;

/// The configuration of one server's part in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster and this server's place in it.
    pub cluster: Cluster,
    /// The protocol's timers.
    pub timing: Timing,
    /// The policy when a server with a higher id is back.
    pub preempt: Preempt,
    /// For tests only.
    pub planted: PlantedBug,
}

/// A server, as all servers and clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its id and rank.
    pub id: NodeId,
    /// Its address for clients.
    pub client: SocketAddr,
    /// Its address for peers; by convention at the client port + 1000.
    pub peer: SocketAddr,
}

/// The cluster as one server sees it: fixed by `init`, and the same on every server but for `me`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id.
    pub id: ClusterId,
    /// The id of this server.
    pub me: NodeId,
    /// All members, this server included, ascending by id.
    pub members: Vec<Member>,
}

impl Cluster {
    /// The number of servers in a quorum. The only place that defines it.
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The other members, ascending by id.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.id).filter(|id| *id != self.me)
    }
}

/// The protocol's timers (DESIGN.md section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// H: the interval between two heartbeats.
    pub heartbeat: Duration,
    /// The least value of T_s, the time after which a silent primary is suspected.
    pub suspect_min: Duration,
    /// The largest value of T_s; at least three heartbeats.
    pub suspect_max: Duration,
    /// T_bully: how long a candidate waits for a silent server with a higher id.
    pub bully: Duration,
    /// T_coord: how long another candidate may go without progress.
    pub coordinator: Duration,
    /// The time that a returning server with a higher id is observed before the primary hands over to it.
    pub preempt_after: Duration,
}

impl Timing {
    /// For one machine or a quiet local network.
    pub const DEFAULT: Timing = Timing::ms(40, 200, 600, 40, 150);
    /// For a wired local network.
    pub const LAN: Timing = Timing::ms(25, 120, 400, 30, 100);
    /// For busy or shared machines.
    pub const NOISY: Timing = Timing::ms(60, 400, 1200, 80, 300);
    /// For a network between cities.
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

    /// Checks the relations between the timers. The presets are checked at compile time.
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
}

/// The primary's policy when a server with a higher id is back and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// Hands over without a pause, as the bully rule demands.
    Graceful,
    /// Stays primary.
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
}
