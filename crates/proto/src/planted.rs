//! Planted bugs, which the tests must find.

/// Planted bugs: the mistakes that ruin such systems, each of which the tests must find (DESIGN.md section
/// 8). Without the feature `planted-bugs` none can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// 1. A backup acknowledges on receipt, before its fsync.
    AckOnReceipt,
    /// 2. Entries of an older view are committed by counting copies.
    CommitOlderView,
    /// 3. The winner of an election keeps its own log though a promise showed a better one.
    KeepOwnLog,
    /// 4. The promise is not durable before REPLY.
    PromiseNotDurable,
    /// 5. A restarted primary continues in its own view.
    RestartAsPrimary,
    /// 6. Repeated requests are checked only against the committed state.
    DuplicatesOnlyCommitted,
    /// 7. The cursor skips a hole in the stream.
    CursorJumps,
    /// 8. Apply depends on something other than the log.
    ApplyNotDeterministic,
    /// 9. A server with an empty disk votes.
    EmptyDiskVotes,
    /// 10. A damaged record in the middle of the log passes for a torn write at its end.
    CorruptionIsTornTail,
    /// 11. A retransmitted cast cuts good entries.
    RecastCuts,
    /// 12. A snapshot holds uncommitted ops.
    SnapshotUncommitted,
    /// The mark covers records that are written and not yet fsynced.
    MarkBeforeSync,
    /// The mark is taken from the commit.
    CommitForMark,
    /// The mark does not move when a snapshot is installed.
    MarkNotMoved,
    /// LEARN_OK is sent before the incarnation that it acknowledges is durable.
    KnownNotDurable,
    /// A snapshot's name is not fsynced.
    SnapshotNameNotSynced,
    /// A log is not matched with the snapshot that it follows.
    LogNotMatched,
    /// The log is pruned one op too far.
    PruneTooFar,
    /// Time-outs ignore how slow the disks are.
    PatienceIgnoresDisk,
    /// A candidate that is heard, and that waits for a disk, is overtaken.
    OvertakesHeard,
    /// The primary stamps entries with its wall clock, so that the log's time goes back.
    LogTimeGoesBack,
    /// The handlers do not learn the sessions of a snapshot that was installed from a peer.
    SessionsUnknownAfterInstall,
    /// A snapshot holds no results of requests.
    ResultsNotInSnapshot,
    /// Retention drops notifications without recording up to which op.
    TrimForgotten,
    /// A profile that unfollows a topic still gets its notifications.
    UnfollowKeepsFollower,
    /// A follow counts from the op that created the follower's profile.
    FollowFromBirth,
    /// A device's cursor moves to the last notification queued for it, not to the last one acknowledged.
    CursorBeyondAcknowledged,
    /// The delivery ignores that it missed notifications.
    MissedUnheeded,
    /// A learner votes as soon as it knows the op that it has to reach.
    LearnerVotesEarly,
    /// A learner's copy counts for the commit.
    LearnerCounts,
    /// A primary serves before its first entry is committed.
    ServesBeforeViewStart,
    /// A backup takes the primary's commit for its own log, whether matched or not.
    CommitBeyondMatched,
    /// A backup acknowledges its durable op, whether matched or not.
    AckUnmatched,
    /// A primary counts its own copy before its fsync.
    OwnWriteCounts,
    /// An fsync that ends after an entry was replaced counts for the replacement.
    StaleCompletionCounts,
    /// The match with one primary's log counts as a match with the next one's.
    MatchedSurvivesView,
    /// A candidate opens its view after the first part of the entries that it lacks.
    FetchStopsShort,
    /// The service keeps one result too few of a device.
    ForgetsOneResultTooMany,
    /// A deposed primary that leads again still has the request numbers that it had logged before.
    NumbersOutliveView,
    /// A result is returned to any request with its number, whatever the digest.
    DigestUnchecked,
    /// The digests of requests are missing from snapshots.
    DigestsNotInSnapshot,
    /// A request whose result is no longer held gets no answer.
    ForgottenIsSilence,
    /// A request that was asked before any server was heard gets another nonce in each run of its client.
    NonceNotKept,
    /// An invitation that was used up is valid once more.
    InviteTwice,
    /// Servers are told that a request is answered before its answer is durable at the client.
    ToldBeforeSync,
    /// A repeated change by an administrator is made again.
    AdministersTwice,
    /// Whom the notifications of a topic are for is not found anew after a follow.
    FollowSeenLate,
    /// A sender goes on with the key of the phase before.
    KeyOutlivesPhase,
    /// A notification that would share a datagram with the one before it is dropped.
    CoalescedDropped,
    /// A datagram that follows a filled one of the same transmission has its number.
    SegmentMisnumbered,
    /// Of several sessions that a turn has left something to send, one is not flushed.
    SessionUnflushed,
    /// A retraction is reported, and the text stays in the state.
    RetractedTextStays,
    /// Whoever can name a notification may retract it.
    AnybodyRetracts,
    /// A retraction takes the text away, and reports nothing to the topic.
    RetractionUntold,
    /// The delivery goes on sending a text that was retracted.
    RetractedTextSent,
    /// A deleted channel keeps its notifications.
    DeletedChannelKeepsTexts,
    /// A server answers a query although its state is older than the token, and the asker takes it.
    AnswersBehindToken,
    /// A primary answers a linearizable query before a majority has confirmed that it leads.
    AnswersUnconfirmed,
    /// A turn applies everything that is committed, and no heartbeat leaves meanwhile.
    AppliesAllAtOnce,
    /// A peer's snapshot is installed before its bytes are synced.
    ReceivedNotSynced,
    /// A piece of a peer's snapshot is given to the journal again when more is asked for.
    PieceTwice,
    /// A peer's snapshot is installed however far the log has come while it was read back.
    InstallUnchecked,
    /// A PUT with the timestamp of an earlier value changes its key.
    StaleTimestampPasses,
    /// A server that is behind the token answers that a key has no value, and the asker takes it.
    NullBehindToken,
    /// A DELETE is acknowledged, and the value stays.
    DeletedValueStays,
}

/// The runtime value that says which bug is switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlantedBug(#[cfg(feature = "planted-bugs")] pub Option<Planted>);

impl PlantedBug {
    /// Returns true if this bug is switched on. Always false without the feature.
    #[inline]
    pub fn is(self, bug: Planted) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.0 == Some(bug);
        #[cfg(not(feature = "planted-bugs"))]
        {
            let _ = bug;
            false
        }
    }
}
