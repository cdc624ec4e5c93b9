//! What the runs met: a simulation that never came into a corner says nothing about it.

use std::fmt;

/// Something that happened in a run, and that many runs together must have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// A candidate fetched what another's promise showed.
    Fetched,
    /// One that had fetched became primary: a stale winner with the better log.
    StaleWinner,
    /// A candidate was refused: somebody had promised more.
    PromiseRefused,
    /// A higher server took an election on.
    Bullied,
    /// An election waited for servers whose copies it needs.
    Waited,
    /// A peer's snapshot was installed ...
    Installed,
    /// ... by a candidate, in place of what it would have fetched ...
    InstalledInElection,
    /// ... by a learner.
    LearnerInstalled,
    /// A learner votes.
    LearnerVotes,
    /// A server found a range of its log rotten ...
    Rotten,
    /// ... and has applied beyond it since.
    Repaired,
    /// A server ran on an older copy of its directory, and another said so.
    PutBackNoticed,
    /// What was written of one view was replaced by what is of another.
    Superseded,
    /// A primary saw that it is alone ...
    Isolated,
    /// ... and went on when it was not any more.
    MajorityBack,
    /// A backup took a hand-over, and leads ...
    HandedOver,
    /// ... or came to nothing.
    HandOverFailed,
    /// A primary was back so soon that its restart gave it away.
    PrimaryRestarted,
    /// A closed port gave it away.
    PortRefused,
    /// An fsync failed, a write, a read.
    SyncFailed,
    WriteFailed,
    ReadFailed,
    /// A disk was full when the log or a snapshot was to be written ...
    DiskFull,
    /// ... where meta was ...
    MetaFull,
    /// ... where a primary then handed over ...
    FullHandedOver,
    /// ... and when its server was to start.
    FullAtStart,
    /// A peer's datagram came while the journal was behind.
    JournalBehind,
    /// A paused server's socket was full.
    BacklogFull,
    /// The delivery's queue was full: it missed notifications.
    Missed,
    /// The queue of what clients ask was full.
    QueueFull,
    /// What a session may read became less.
    Withdrawn,
    /// A client was told of a gap.
    Gap,
    /// A client was told Busy, and NoQuorum.
    Busy,
    NoQuorum,
    /// A request was refused for lack of a right.
    NotAllowed,
    /// A client's session was fenced or over.
    SessionOver,
    /// A device was forgotten, and came in anew.
    Disowned,
    /// A device was not let in.
    Outside,
    /// A key was enrolled by a code.
    Enrolled,
    /// A name was taken from its keys.
    Released,
    /// A name was claimed by an invitation, and one was refused for one that was used up.
    Invited,
    InviteSpent,
    /// A name was claimed by a key that was allowed, and one was refused for one that was not.
    KeyAllowed,
    KeyNotAllowed,
    /// A name that was never used became free.
    NameExpired,
    /// The name of a channel that was deleted became free.
    DeletedNameFree,
    /// An administrator removed a profile, and a channel.
    ProfileRemoved,
    ChannelRemoved,
    /// An owned channel was deleted.
    ChannelDeleted,
    /// A question was answered.
    Read,
    /// A client that had moved was asked whether it receives there.
    Moved,
    /// A primary told that its clock is away from the log's time.
    ClockAway,
    /// A client found a sign of a copy of its files ...
    Copied,
    /// ... gave a request another number, since its own was used ...
    Renumbered,
    /// ... or was told that the result of its number is not held any more ...
    NumberForgotten,
    /// ... and so of what it asked before it had heard a server, and another copy had done.
    DoneByCopy,
    /// A calm cluster's primary was killed, and the pause measured.
    PauseMeasured,
    /// A HELLO was answered by somebody else.
    Forged,
}

impl Met {
    /// All of them.
    pub const ALL: [Met; 58] = [
        Met::Fetched,
        Met::StaleWinner,
        Met::PromiseRefused,
        Met::Bullied,
        Met::Waited,
        Met::Installed,
        Met::InstalledInElection,
        Met::LearnerInstalled,
        Met::LearnerVotes,
        Met::Rotten,
        Met::Repaired,
        Met::PutBackNoticed,
        Met::Superseded,
        Met::Isolated,
        Met::MajorityBack,
        Met::HandedOver,
        Met::HandOverFailed,
        Met::PrimaryRestarted,
        Met::PortRefused,
        Met::SyncFailed,
        Met::WriteFailed,
        Met::ReadFailed,
        Met::DiskFull,
        Met::MetaFull,
        Met::FullHandedOver,
        Met::FullAtStart,
        Met::JournalBehind,
        Met::BacklogFull,
        Met::Missed,
        Met::QueueFull,
        Met::Withdrawn,
        Met::Gap,
        Met::Busy,
        Met::NoQuorum,
        Met::NotAllowed,
        Met::SessionOver,
        Met::Disowned,
        Met::Outside,
        Met::Enrolled,
        Met::Released,
        Met::Invited,
        Met::InviteSpent,
        Met::KeyAllowed,
        Met::KeyNotAllowed,
        Met::NameExpired,
        Met::DeletedNameFree,
        Met::ProfileRemoved,
        Met::ChannelRemoved,
        Met::ChannelDeleted,
        Met::Read,
        Met::Moved,
        Met::ClockAway,
        Met::Copied,
        Met::Renumbered,
        Met::NumberForgotten,
        Met::DoneByCopy,
        Met::PauseMeasured,
        Met::Forged,
    ];
}

/// How often each was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: [u64; Met::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { counts: [0; Met::ALL.len()] }
    }
}

impl Coverage {
    /// Once more.
    pub fn note(&mut self, met: Met) {
        self.counts[met as usize] += 1;
    }

    /// Those of another run too.
    pub fn add(&mut self, other: &Coverage) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// How often this was met.
    pub fn count(&self, met: Met) -> u64 {
        self.counts[met as usize]
    }

    /// What was never met.
    pub fn missing(&self) -> Vec<Met> {
        Met::ALL.into_iter().filter(|met| self.counts[*met as usize] == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, met) in Met::ALL.into_iter().enumerate() {
            let gap = if at == 0 { "" } else { ", " };
            write!(f, "{gap}{met:?} {}", self.counts[met as usize])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_met_is_named() {
        let mut coverage = Coverage::default();
        Met::ALL.into_iter().filter(|met| *met != Met::Gap).for_each(|met| coverage.note(met));
        assert_eq!(coverage.missing(), [Met::Gap]);
        coverage.note(Met::Gap);
        assert_eq!(coverage.missing(), []);
    }

    #[test]
    fn each_has_a_place_of_its_own() {
        assert!(Met::ALL.iter().enumerate().all(|(at, met)| *met as usize == at));
    }
}
