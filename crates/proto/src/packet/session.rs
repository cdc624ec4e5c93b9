//! Sessions: how a client opens, resumes and ends one.

use serde::{Deserialize, Serialize};

use super::{Code, Coordinator, Home, OptionalFields, Position};
use crate::id::{DeviceId, Name, Op, Seq, SessionId};
use crate::seal::{Aead, Key};

/// CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The device that asks.
    pub device: DeviceId,
    /// The profile to connect as.
    pub profile: Name,
    /// True if the session receives notifications.
    pub receives: bool,
    /// The nonce of this CONNECT; the same in its retransmissions, different in every other CONNECT.
    pub nonce: u64,
    /// True if the device was never admitted before, as far as the client knows. If false and the service
    /// does not know the device, it was forgotten: the answer is UnknownDevice, and the device is never
    /// silently restarted.
    pub fresh: bool,
    /// The code of an enrolment, which adds the device's key to the profile if it is not one of its keys yet.
    pub code: Option<CodeHash>,
    /// The code of an invitation, for a name that is unclaimed.
    pub invite: Option<CodeHash>,
    /// The AEADs that the client offers beside ChaCha20-Poly1305
    /// ([`Ciphers::offered`](crate::seal::Ciphers::offered)).
    pub aeads: u8,
    /// The optional fields.
    pub options: OptionalFields,
}

/// The hash of an enrolment's code and the profile's name, or of an invitation's code. The code itself stays
/// with people. Until the code is used its hash is as good as the code, so it is never shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CodeHash(pub [u8; 32]);

impl std::fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeHash(..)")
    }
}

/// DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// The final cursor: the application has taken everything of the stream up to this position.
    pub upto: Position,
}

/// ACCEPT_CONN: the session is pending, and is served after its RESUME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptConn {
    /// The nonce of the CONNECT it answers.
    pub nonce: u64,
    /// The session's id.
    pub session: SessionId,
    /// The primary and its view, and where all servers are.
    pub coordinator: Coordinator,
    /// The session's secret, from which its keys are derived.
    pub secret: Key,
    /// The AEAD of the session's datagrams, among those that the CONNECT offered.
    pub aead: Aead,
    /// The optional fields.
    pub options: OptionalFields,
}

/// REJECT_CONN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectConn {
    /// The nonce of the CONNECT it answers.
    pub nonce: u64,
    /// The reason.
    pub code: Code,
    /// The time to wait before trying again, in ms; 0 with a final code. Another value does not mean that the
    /// client tries again: with TooManyNames it is the time until the network may claim one more name, and
    /// recado's client reports that refusal as final.
    pub retry_ms: u32,
    /// What the refusal tells beyond its code; nothing in this version.
    pub data: OptionalFields,
}

impl RejectConn {
    /// A refusal that tells nothing beyond its code.
    pub const fn new(nonce: u64, code: Code, retry_ms: u32) -> RejectConn {
        RejectConn { nonce, code, retry_ms, data: OptionalFields::NONE }
    }
}

/// RESUME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The client's cursor; none if it does not know one, then the replicated cursor is used.
    pub cursor: Option<Position>,
    /// The number of notifications after the cursor that the client accepts.
    pub credit: u32,
    /// The session's home.
    pub home: Home,
    /// The optional fields.
    pub options: OptionalFields,
}

/// RESUME_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeOk {
    /// The op that admitted the device. A device that was removed and admitted again has another one: its
    /// numbers start anew, and requests from before may have been applied.
    pub created_op: Op,
    /// The last request number applied for this device; the next is one more.
    pub last_seq: Seq,
    /// The primary and its view, and where all servers are.
    pub coordinator: Coordinator,
    /// The device's replicated cursor. The stream begins there if the client named none.
    pub cursor: Position,
    /// The interval at which the client sends KEEPALIVE, in ms.
    pub keepalive_ms: u32,
    /// The optional fields.
    pub options: OptionalFields,
}

/// KEEPALIVE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// The session's home.
    pub home: Home,
    /// The optional fields.
    pub options: OptionalFields,
}
