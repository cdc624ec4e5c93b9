//! Optional fields, at the end of the packets that may grow. A receiver that does not know one steps over it.

use serde::{Deserialize, Serialize};

/// One optional field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionalField {
    /// Its tag. The lowest bit is the critical bit, as in the extensions of X.509: a receiver that does not
    /// honour the meaning of an odd tag refuses the packet (Unsupported), and steps over an even one.
    pub tag: u16,
    /// Its content.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

/// The optional fields of a packet, ascending by tag, each tag once: at most [`OptionalFields::FIELDS_MAX`]
/// with [`OptionalFields::BYTES_MAX`] bytes together.
///
/// Tags have one meaning in all packets. In packets to clients and between servers no tag is critical.
/// Servers honour [`OptionalFields::CONSISTENCY`], [`OptionalFields::SELECTION`] and
/// [`OptionalFields::PROFILE`]. They send
/// [`OptionalFields::MADE_CHANNEL`], [`OptionalFields::KEEPALIVE`], [`OptionalFields::RESTARTED`], those of a
/// [`Notice`](super::Notice),
/// [`OptionalFields::DISPLAY`], for which a client asks under the same tag, in answer to a query
/// [`OptionalFields::AGE`], [`OptionalFields::APPLIED`] and [`OptionalFields::REACHED`], in answer to a PUT
/// or DELETE [`OptionalFields::APPLIED`] and [`OptionalFields::TIMESTAMP`], and, with a status,
/// [`OptionalFields::WALL_CLOCK`], [`OptionalFields::AGREED`], [`OptionalFields::RELEASE`],
/// [`OptionalFields::LOG_CLOCK`] and [`OptionalFields::IGNORED`]. The other tags below are reserved, and
/// servers of this version honour none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionalFields(pub Vec<OptionalField>);

impl OptionalFields {
    /// No fields.
    pub const NONE: OptionalFields = OptionalFields(Vec::new());
    /// The most fields.
    pub const FIELDS_MAX: usize = 16;
    /// The most bytes of all fields together.
    ///
    /// With as many a CONNECT or a QUERY still fits into an INITIATION, which no client sends in pieces. What
    /// is longer travels as an [`Extension`](super::Extension).
    pub const BYTES_MAX: usize = 512;

    /// SEND: the time after which nobody needs the notification, in ms since 1970. Not critical: a server
    /// that does not honour it keeps the notification as long as any other.
    pub const EXPIRES: u16 = 0;
    /// SEND: a key under which the author sends a notification once, whatever number the request has.
    pub const IDEMPOTENCY_KEY: u16 = 1;
    /// CONNECT: how long the session lives after its client was last heard, in ms. Not critical.
    pub const SESSION_EXPIRY: u16 = 2;
    /// Requests: the profile in whose name a gateway asks.
    pub const ON_BEHALF_OF: u16 = 3;
    /// SEND_ACK: the notification made the channel that it went to. Without content.
    pub const MADE_CHANNEL: u16 = 4;
    /// SEND: the time at which the notification is to be sent, in ms since 1970.
    pub const DELIVER_AT: u16 = 5;
    /// COORDINATOR, from the primary in answer to KEEPALIVE: the interval at which the client is to send
    /// KEEPALIVE to it, in ms; a u32, big-endian. Not critical: it replaces the interval of RESUME_OK.
    pub const KEEPALIVE: u16 = 6;
    /// SEND: the notification is the topic's retained one.
    pub const RETAINED: u16 = 7;
    /// Notification: its text was retracted, and is gone. Without content.
    pub const RETRACTED: u16 = 8;
    /// FOLLOW: every channel that is listed, in place of the topic.
    pub const ALL_LISTED: u16 = 9;
    /// Notification: it retracts the text of an earlier one of its topic, whose op this is; a u64,
    /// big-endian.
    pub const RETRACTS: u16 = 10;
    /// QUERY: the consistency of the answer, one byte: 0 for an answer of any state, whatever the token; 1
    /// for a linearizable one. Without it the answer is of a state that is as late as the token.
    pub const CONSISTENCY: u16 = 11;
    /// Notification: its channel was deleted with all that it held. Without content.
    pub const CHANNEL_DELETED: u16 = 12;
    /// CHANNEL and SEND: the channel that it creates is in no list.
    pub const UNLISTED: u16 = 13;
    /// QUERY, without content: the client reads display names. QUERY_OK: the profile's display name.
    pub const DISPLAY: u16 = 14;
    /// CHANNEL and SEND: the channel that it creates is forgotten after so many ms without a notification and
    /// a follower, and its name is free then.
    pub const TRANSIENT: u16 = 15;
    /// QUERY_OK with a status: the wall clock of the server's machine, in ms since 1970; a u64, big-endian.
    pub const WALL_CLOCK: u16 = 16;
    /// QUERY with a History: what it selects from its range, the encoding of a
    /// [`Selection`](super::Selection).
    pub const SELECTION: u16 = 17;
    /// QUERY_OK with a status: a digest of what all servers must be configured with alike (addresses, timers,
    /// who may claim a name); 8 bytes. Servers with one digest agree.
    pub const AGREED: u16 = 18;
    /// QUERY_OK with a status: the release of the server's program, as `recadod --version` prints it; ASCII.
    pub const RELEASE: u16 = 20;

    /// QUERY_OK and the ERROR of a query, from a server that does not serve as primary: the time since it
    /// last heard an active primary, in ms; a u64, big-endian; empty if it has heard none since its start.
    /// The answer may lack what was acknowledged since, and a refusal is as the server knows it.
    pub const AGE: u16 = 22;
    /// ERROR with TryOtherServerOrLater, and of a PUT or DELETE whose condition does not hold: the last op
    /// that the server has applied; a u64, big-endian. In the second case it raises the client's token.
    pub const APPLIED: u16 = 24;
    /// QUERY without a session: the profile as which the holder of the key asks, which must be one of the
    /// profile's keys. Without it the profile of the key's first device. Not critical.
    pub const PROFILE: u16 = 26;
    /// COORDINATOR, from the primary: another server has started again, and does not know where clients are.
    /// The client sends KEEPALIVE to every server, within a second. Without content.
    pub const RESTARTED: u16 = 28;
    /// QUERY_OK with a status, from the primary: the log's time, which it stamps into entries, in ms since
    /// 1970; a u64, big-endian.
    pub const LOG_CLOCK: u16 = 30;
    /// QUERY_OK with a status: the ids of the servers whose packets this one ignores, because it knows of a
    /// later start of them; a u16 each, big-endian. Left out if there is none.
    pub const IGNORED: u16 = 32;

    /// QUERY_OK with a page of history that has more: the op up to which the server has looked, in the
    /// direction of the range; a u64, big-endian. The next page is asked for from there. Only in answer to a
    /// query with [`OptionalFields::SELECTION`].
    pub const REACHED: u16 = 34;
    /// ERROR of a PUT or DELETE whose condition does not hold: the timestamp of the value that the key has; a
    /// u64, big-endian. Left out if it has none.
    pub const TIMESTAMP: u16 = 36;

    /// The fields with one more, whose tag they must not have yet.
    pub fn with(mut self, tag: u16, bytes: Vec<u8>) -> OptionalFields {
        let at = self.0.partition_point(|field| field.tag < tag);
        self.0.insert(at, OptionalField { tag, bytes });
        self
    }

    /// The content of a field.
    pub fn get(&self, tag: u16) -> Option<&[u8]> {
        self.0.iter().find(|field| field.tag == tag).map(|field| field.bytes.as_slice())
    }

    /// Returns true if a receiver that honours no critical field may act on the packet.
    pub fn may_be_ignored(&self) -> bool {
        self.are_honoured_by(&[])
    }

    /// Returns true if a receiver that honours these tags, and no other critical one, may act on the packet.
    pub fn are_honoured_by(&self, honoured: &[u16]) -> bool {
        self.0.iter().all(|field| field.tag & 1 == 0 || honoured.contains(&field.tag))
    }

    /// The bytes of all fields together.
    pub fn size(&self) -> usize {
        self.0.iter().map(|field| field.bytes.len()).sum()
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.0.len() <= OptionalFields::FIELDS_MAX
            && self.size() <= OptionalFields::BYTES_MAX
            && self.0.is_sorted_by(|one, next| one.tag < next.tag)
    }
}
