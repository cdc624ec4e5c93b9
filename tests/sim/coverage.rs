//! Coverage: the situations that the runs met. A simulation proves nothing about a situation that it never
//! reached.

use std::fmt;

/// A situation that the runs together must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Situation {
    /// A candidate fetched entries from a better log that a promise showed.
    Fetched,
    /// A candidate that had fetched became primary: the stale winner with the better log.
    StaleWinner,
    /// A candidate was refused, because another view was promised.
    PromiseRefused,
    /// A server with a higher id took over an election.
    Bullied,
    /// An election waited for servers whose logs it needs.
    Waited,
    /// A server installed a snapshot of a peer ...
    Installed,
    /// ... as a candidate, in place of the entries that it would have fetched ...
    InstalledInElection,
    /// ... as a learner.
    LearnerInstalled,
    /// A learner became a voter.
    LearnerVotes,
    /// A server found a range of its log damaged ...
    Rotten,
    /// ... and has since applied ops beyond it.
    Repaired,
    /// A server ran on an older copy of its directory, and another server reported it.
    PutBackNoticed,
    /// Entries of one view were superseded by entries of another.
    Superseded,
    /// A primary became isolated ...
    Isolated,
    /// ... and resumed when it reached a majority again.
    MajorityBack,
    /// A backup took over the lead in a hand-over ...
    HandedOver,
    /// ... or failed to.
    HandOverFailed,
    /// A primary restarted so soon that the restart revealed its failure.
    PrimaryRestarted,
    /// A closed port revealed it.
    PortRefused,
    /// An fsync failed, a write, a read.
    SyncFailed,
    WriteFailed,
    ReadFailed,
    /// A disk was full at a write of the log or of a snapshot ...
    DiskFull,
    /// ... at a write of meta ...
    MetaFull,
    /// ... at a primary, which then handed over ...
    FullHandedOver,
    /// ... and at the start of a server.
    FullAtStart,
    /// A datagram of a peer came while the journal was behind.
    JournalBehind,
    /// The socket buffer of a paused server was full.
    BacklogFull,
    /// The delivery's queue was full, so it missed notifications.
    Missed,
    /// The queue of client requests was full.
    QueueFull,
    /// The topics that a session may read became fewer.
    Withdrawn,
    /// A text was retracted ...
    Retracted,
    /// ... and a client that was beyond it was told.
    ToldOfRetraction,
    /// A follower was told that its channel was deleted.
    ToldOfDeletion,
    /// A device forgot what its files held.
    DeviceReset,
    /// A gap was reported to a client.
    Gap,
    /// A client got Busy, and NoQuorum.
    Busy,
    NoQuorum,
    /// A request was refused for lack of a right.
    NotAllowed,
    /// A client's session was fenced or over.
    SessionOver,
    /// A device was forgotten, and admitted again.
    Disowned,
    /// A device was refused.
    Outside,
    /// A key was enrolled by a code.
    Enrolled,
    /// A name was released from its keys.
    Released,
    /// A name was claimed by an invitation, and a claim was refused because the invitation was used up.
    Invited,
    InviteSpent,
    /// A name was claimed by an allowed key, and a claim was refused because the key was not allowed.
    KeyAllowed,
    KeyNotAllowed,
    /// A name that was never used expired.
    NameExpired,
    /// The name of a deleted channel became free.
    DeletedNameFree,
    /// An administrator removed a profile, and a channel.
    ProfileRemoved,
    ChannelRemoved,
    /// An owned channel was deleted.
    ChannelDeleted,
    /// A history query was answered.
    Read,
    /// A client with a new address answered a path challenge.
    Moved,
    /// A primary reported that its clock differs from the log's time.
    ClockAway,
    /// A client detected a copy of its files ...
    Copied,
    /// ... gave a request another number, because its own was used ...
    Renumbered,
    /// ... or learned that the result of its number is not held any more ...
    NumberForgotten,
    /// ... or learned that another copy had completed a request that it made before it reached a server.
    DoneByCopy,
    /// An answer was lost with the power of the client's machine ...
    AnswerLost,
    /// ... and its request, asked again, was answered again.
    AnsweredAgain,
    /// The primary of a cluster without faults was killed, and the pause measured.
    PauseMeasured,
    /// A HELLO got a forged answer.
    Forged,
    /// A datagram of a session was longer than the base, on a path that carried it ...
    Longer,
    /// ... and on one that did not.
    TooLong,
    /// A datagram between servers was longer than the base, on a path that carried it ...
    PeerLonger,
    /// ... and on one that did not.
    PeerTooLong,
    /// A reader had an answer of some server ...
    ReadAnywhere,
    /// ... and none, because all that answered were behind its token.
    ReadBehind,
    /// A write of the store was refused for its condition.
    ConditionFailed,
    /// A client read a value ...
    ValueRead,
    /// ... and that a key has none.
    NullRead,
}

impl Situation {
    /// All of them.
    pub const ALL: [Situation; 73] = [
        Situation::Fetched,
        Situation::StaleWinner,
        Situation::PromiseRefused,
        Situation::Bullied,
        Situation::Waited,
        Situation::Installed,
        Situation::InstalledInElection,
        Situation::LearnerInstalled,
        Situation::LearnerVotes,
        Situation::Rotten,
        Situation::Repaired,
        Situation::PutBackNoticed,
        Situation::Superseded,
        Situation::Isolated,
        Situation::MajorityBack,
        Situation::HandedOver,
        Situation::HandOverFailed,
        Situation::PrimaryRestarted,
        Situation::PortRefused,
        Situation::SyncFailed,
        Situation::WriteFailed,
        Situation::ReadFailed,
        Situation::DiskFull,
        Situation::MetaFull,
        Situation::FullHandedOver,
        Situation::FullAtStart,
        Situation::JournalBehind,
        Situation::BacklogFull,
        Situation::Missed,
        Situation::QueueFull,
        Situation::Withdrawn,
        Situation::Retracted,
        Situation::ToldOfRetraction,
        Situation::ToldOfDeletion,
        Situation::DeviceReset,
        Situation::Gap,
        Situation::Busy,
        Situation::NoQuorum,
        Situation::NotAllowed,
        Situation::SessionOver,
        Situation::Disowned,
        Situation::Outside,
        Situation::Enrolled,
        Situation::Released,
        Situation::Invited,
        Situation::InviteSpent,
        Situation::KeyAllowed,
        Situation::KeyNotAllowed,
        Situation::NameExpired,
        Situation::DeletedNameFree,
        Situation::ProfileRemoved,
        Situation::ChannelRemoved,
        Situation::ChannelDeleted,
        Situation::Read,
        Situation::Moved,
        Situation::ClockAway,
        Situation::Copied,
        Situation::Renumbered,
        Situation::NumberForgotten,
        Situation::DoneByCopy,
        Situation::AnswerLost,
        Situation::AnsweredAgain,
        Situation::PauseMeasured,
        Situation::Forged,
        Situation::Longer,
        Situation::TooLong,
        Situation::PeerLonger,
        Situation::PeerTooLong,
        Situation::ReadAnywhere,
        Situation::ReadBehind,
        Situation::ConditionFailed,
        Situation::ValueRead,
        Situation::NullRead,
    ];
}

/// The number of times that each situation was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: [u64; Situation::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { counts: [0; Situation::ALL.len()] }
    }
}

impl Coverage {
    /// Counts a situation.
    pub fn note(&mut self, met: Situation) {
        self.counts[met as usize] += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Coverage) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// Returns the count of a situation.
    pub fn count(&self, met: Situation) -> u64 {
        self.counts[met as usize]
    }

    /// Returns the situations that were never met.
    pub fn missing(&self) -> Vec<Situation> {
        Situation::ALL.into_iter().filter(|met| self.counts[*met as usize] == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, met) in Situation::ALL.into_iter().enumerate() {
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
        Situation::ALL.into_iter().filter(|met| *met != Situation::Gap).for_each(|met| coverage.note(met));
        assert_eq!(coverage.missing(), [Situation::Gap]);
        coverage.note(Situation::Gap);
        assert_eq!(coverage.missing(), []);
    }

    #[test]
    fn each_has_a_place_of_its_own() {
        assert!(Situation::ALL.iter().enumerate().all(|(at, met)| *met as usize == at));
    }
}
