//! Refusals: typed codes, and what each answers.

use serde::{Deserialize, Serialize};

use super::{OptionalFields, QueryId};
use crate::id::Seq;
use crate::open_enum::open_enum;

open_enum! {
    /// The reason of a refusal. A code and never a string: the client chooses the words. An unknown one is
    /// final, unless it is in an ERROR whose `retry_ms` is not 0.
    pub enum Code {
        /// A queue is full or a rate is exceeded; try again after `retry_ms`. Takes no number.
        Busy,
        /// This server is primary and does not reach a majority; try again. Takes no number.
        NoQuorum,
        /// This server is not the primary. Takes no number.
        NotPrimary,
        /// No such profile.
        UnknownProfile,
        /// No such channel.
        UnknownChannel,
        /// The device was forgotten or never admitted, so its numbers mean nothing here; or a key to revoke
        /// is not the profile's.
        UnknownDevice,
        /// The session has ended or is unknown.
        SessionOver,
        /// The profile belongs to another device key.
        NotYours,
        /// The profile lacks the right: only the owner sends to a feed and reads an inbox, and the members of
        /// an owned channel do what their roles allow.
        NotAllowed,
        /// The profile follows the topic already.
        AlreadyFollowing,
        /// The profile does not follow the topic.
        NotFollowing,
        /// A profile cannot follow or unfollow its own feed and its own inbox.
        Yourself,
        /// A part of the request is over its limit. Servers do not send this code, because they drop such a
        /// request when they decode it. recado's client library refuses the request before it sends anything.
        TooLarge,
        /// A limit is reached: on profiles, devices, sessions, keys, follows, channels or their members, on
        /// invitations or allowed keys, or on the size of all records.
        LimitReached,
        /// The number is more than `Limits::outstanding` above the last one applied; the client sends the
        /// lower numbers first. Takes no number.
        TooFarAhead,
        /// A channel of this name exists.
        NameTaken,
        /// The profile is not a member of the channel.
        NotMember,
        /// The last owner of a channel, or the last key of a profile, cannot be removed.
        LastOne,
        /// No open enrolment has this code: it is wrong, was used, has expired, or was tried too often.
        WrongCode,
        /// The cursor of a RESUME is beyond the end of the log, so it is not a cursor of this log.
        BeyondEnd,
        /// The channel was deleted; its name stays taken for `Limits::deleted`.
        ChannelDeleted,
        /// Another request of this device has the number, because the device's files were copied. Nothing
        /// changed, and this request never had an effect; the client gives it a new number.
        NumberTaken,
        /// The number was applied and its result is not held, because a client of this device has
        /// acknowledged it. Nothing changed, and nothing will.
        NumberForgotten,
        /// A newer session of the same device took over: a copy of the device's files is in use elsewhere.
        Fenced,
        /// A new name needs an invitation, and none was given.
        InviteNeeded,
        /// No invitation with this code can be used: it is wrong, used up, expired, or for another name.
        WrongInvite,
        /// A new name needs a key that an administrator has allowed, and this one is not.
        KeyNotAllowed,
        /// Too many new names or channels from one network, or new channels of one profile, in the last
        /// hours.
        TooManyNames,
        /// The packet asks for something that this server does not do: a critical optional field, a home, or
        /// a kind of query.
        Unsupported,
        /// This server's state is not as late as the query's token yet. Takes no number.
        TryOtherServerOrLater,
        /// The position is of another epoch, group or generation of the log.
        OtherEpoch,
        /// The session's home does not serve it any more; the client moves. No server of this version sends
        /// it.
        HomeGone,
        /// This server is no member of the cluster any more; the client asks another. No server of this
        /// version sends it.
        NotAMember,
        /// No notification of this op is held that the profile may read: none was sent, retention dropped it,
        /// its channel was deleted, or it is only a notice.
        UnknownNotification,
        /// The key has a value.
        KeyExists,
        /// The key has no value.
        UnknownKey,
        /// The value of the key has another timestamp.
        StaleTimestamp,
    }
}

/// What an ERROR answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answers {
    /// The session as a whole, or a CONNECT.
    Session,
    /// A numbered request.
    Request(Seq),
    /// A query.
    Query(QueryId),
}

/// ERROR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The reason.
    pub code: Code,
    /// What it answers.
    pub answers: Answers,
    /// The time to wait before trying again, in ms.
    ///
    /// In the answer to a request or a query, 0 means that the refusal is final; only after NumberTaken the
    /// client sends the request again, under another number. In an answer about the session 0 does not mean
    /// that: the code decides. Busy means that the primary does not serve the session for now, and the client
    /// sends RESUME after this time, soon if it is 0.
    pub retry_ms: u32,
    /// What the refusal tells beyond its code: [`OptionalFields::AGE`], [`OptionalFields::APPLIED`] and
    /// [`OptionalFields::TIMESTAMP`], or nothing.
    pub data: OptionalFields,
}

impl Refused {
    /// A refusal that tells nothing beyond its code.
    pub const fn new(code: Code, answers: Answers, retry_ms: u32) -> Refused {
        Refused { code, answers, retry_ms, data: OptionalFields::NONE }
    }
}
