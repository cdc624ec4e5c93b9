//! Newtypes for everything that is counted, ranked or named, with their ordering rules.
//!
//! Invariant: this module knows nothing of packets, files, sockets or clocks.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};

use crate::hex::{self, Hex};

mod name;

pub use self::name::{ChannelName, Name, NameError, NameKind, StoreKey, Topic};

/// Readings of the two clocks, which the caller passes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic; never goes back.
    pub now: Moment,
    /// Wall clock, in ms since 1970; may jump. Only the log's clock reads it, and follows it slowly.
    pub unix_ms: u64,
}

/// A moment on this process's monotonic clock, in microseconds since the process started.
///
/// Time is an argument everywhere in the pure modules; a `Moment` never leaves the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole ms, the unit of the log's time. A duration that does not fit a u64 becomes
/// `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(wait.as_micros().min(u128::from(u64::MAX)) as u64))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_sub(wait.as_micros().min(u128::from(u64::MAX)) as u64))
    }
}

/// Most servers of a cluster. Each one receives every entry, and COORDINATOR and the status name them all.
/// Every other bound that depends on the number of servers follows from this one.
pub const MEMBERS_MAX: usize = 9;

/// The id of one server of the cluster, from 1. The bully algorithm ranks by it: the higher id wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server-{}", self.0)
    }
}

/// The id of a cluster: names the cluster that a datagram, a directory or a client belongs to. `recadod
/// init` draws it at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;
    fn from_str(text: &str) -> Result<ClusterId, ClusterIdError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u64::from_str_radix(text, 16).ok().filter(|id| digits && *id != 0);
        id.map(ClusterId).ok_or(ClusterIdError)
    }
}

/// The text is not a cluster id. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster id is 16 hexadecimal digits, not all zero")]
pub struct ClusterIdError;

/// The setting that decides who may claim a free name. Each server has one, and the primary's counts. A
/// profile that exists keeps its name, whatever the setting becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Admission {
    /// Anybody.
    #[default]
    Open,
    /// Anybody with the code of an invitation (`recadod admin invite`).
    Invite,
    /// Anybody whose key was allowed (`recadod admin allow`).
    Keys,
}

/// The public key of a cluster, by which its clients authenticate it. Written as 64 hexadecimal digits.
///
/// It is derived from the cluster's secret, so all servers have the same key, and it never changes while
/// the cluster exists (DESIGN.md section 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey(pub [u8; 32]);

impl ClusterKey {
    /// A hash of the key, short enough for people to compare.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest =
            Blake2s256::new().chain_update(b"recado 1 cluster key\0").chain_update(self.0).finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Fingerprint(short)
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0))
    }
}

impl FromStr for ClusterKey {
    type Err = ClusterKeyError;
    fn from_str(text: &str) -> Result<ClusterKey, ClusterKeyError> {
        hex::parse(text).map(ClusterKey).ok_or(ClusterKeyError)
    }
}

/// The text is not a cluster key. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cluster's key is 64 hexadecimal digits, as `recadod fingerprint` and `recado cluster show` print it \
     (the fingerprint is for people to compare)"
)]
pub struct ClusterKeyError;

/// 128 bits of a BLAKE2s of a [`ClusterKey`]: 32 hexadecimal digits in groups of four.
///
/// It is half as long as the key because people compare it, and its digits have one case because people
/// also read it aloud. A second key with the same fingerprint still takes 2^128 trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, [high, low]) in self.0.as_chunks().0.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{high:02x}{low:02x}")?;
        }
        Ok(())
    }
}

/// The start of a server on its directory: each counts it up and fsyncs it. It begins at zero, or, in a
/// directory that does not know its past, at the seconds since 1970, so that it also grows when a disk is
/// replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// The history that a log, a cursor or a request number belongs to. [`Epoch::FIRST`] from `recadod init` on;
/// a cluster that is restored from a copy draws another one at random, so that a position in the history of
/// before is never taken for one in the history after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a cluster that was never restored.
    pub const FIRST: Epoch = Epoch(0);
}

/// The period of one primary: `(round u48, node u16)` in one number, ordered by round, then by node.
///
/// A view has exactly one possible primary, the node inside it, so two candidates of one round can never
/// both hold the same view, and the higher id holds the higher view. That makes the bully rule safe
/// (DESIGN.md section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View(pub u64);

impl View {
    /// The view before any election: no primary, lower than every real view.
    pub const ZERO: View = View(0);
    /// The highest round, of 48 bits: at a thousand elections a second, it lasts for eight thousand years.
    pub const ROUND_MAX: u64 = (1 << 48) - 1;

    /// The view of `node` in `round`.
    pub fn new(round: u64, node: NodeId) -> View {
        View((round.min(Self::ROUND_MAX) << 16) | u64::from(node.0))
    }

    /// The round. Every election counts it up.
    pub fn round(self) -> u64 {
        self.0 >> 16
    }

    /// The only server that can be primary in this view; none in [`View::ZERO`].
    pub fn primary(self) -> Option<NodeId> {
        let node = (self.0 & 0xffff) as u16;
        (node != 0).then_some(NodeId(node))
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round(), self.0 & 0xffff)
    }
}

/// A position in the replicated log: dense, from 1. 0 is the position before the first entry.
///
/// It is also the id of a notification, the logical clock of the service and the cursor of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Op(pub u64);

impl Op {
    /// The position before the first entry.
    pub const ZERO: Op = Op(0);

    /// The op after this one.
    pub fn next(self) -> Op {
        Op(self.0.saturating_add(1))
    }

    /// The op before this one; zero stays zero.
    pub fn prev(self) -> Op {
        Op(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a request of one device: 1, 2, 3 ... A client never reuses one for other content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }
}

/// Most requests of one device without an answer: the numbers from its lowest unanswered one to the highest
/// given. A client gives no number beyond it, and the servers keep the results of as many numbers
/// (DESIGN.md section 3): with fewer results, a client would be told NumberForgotten for a request that it
/// still waits for.
pub const OUTSTANDING_MAX: usize = 256;

/// The public key of one installation of a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceKey(pub [u8; 32]);

impl DeviceKey {
    /// The whole key in hexadecimal; [`Display`](fmt::Display) shows the first six bytes.
    pub fn in_full(&self) -> String {
        Hex(&self.0).to_string()
    }
}

/// The text is not a device key. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device's key is 64 hexadecimal digits")]
pub struct DeviceKeyError;

impl FromStr for DeviceKey {
    type Err = DeviceKeyError;
    /// Reads the form that [`DeviceKey::in_full`] writes.
    fn from_str(text: &str) -> Result<DeviceKey, DeviceKeyError> {
        hex::parse(text).map(DeviceKey).ok_or(DeviceKeyError)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0[..6]))
    }
}

/// The boot id of a server: 128 random bits that name one run of its process. They are drawn at the start and
/// the server stores them nowhere, so that not even a restored copy of it has the same boot id twice. Keys
/// are bound to it (DESIGN.md section 7), and the other servers remember it ([`KnownBoot`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0[..4]))
    }
}

/// The latest boot that is known of a server.
///
/// A server counts its incarnation up durably before it sends anything, so two of its boots have the same
/// incarnation only if its directory was put back from a copy. The boot id tells the two apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownBoot {
    /// The highest known incarnation; zero if no boot is known.
    pub incarnation: Incarnation,
    /// The boot id of that incarnation; `None` while only other servers have named the incarnation.
    pub boot_id: Option<BootId>,
}

impl From<Incarnation> for KnownBoot {
    /// The boot with this incarnation, whose id is not known.
    fn from(incarnation: Incarnation) -> KnownBoot {
        KnownBoot { incarnation, boot_id: None }
    }
}

impl KnownBoot {
    /// Returns true if a boot may be this one or a later one. Another boot of the same incarnation runs on a
    /// copy of the directory.
    pub fn allows(self, incarnation: Incarnation, boot_id: BootId) -> bool {
        incarnation > self.incarnation
            || (incarnation == self.incarnation && self.boot_id.is_none_or(|known| known == boot_id))
    }

    /// Takes in what was heard. Returns true if that says more: a later incarnation, or the boot id of the
    /// known one. A known boot id is never replaced by another one of the same incarnation.
    pub fn learn(&mut self, heard: KnownBoot) -> bool {
        let later = heard.incarnation > self.incarnation;
        let named =
            heard.incarnation == self.incarnation && self.boot_id.is_none() && heard.boot_id.is_some();
        if later || named {
            *self = heard;
        }
        later || named
    }
}

/// One slot of one installation. It numbers its own requests and has its own cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId {
    /// The installation.
    pub key: DeviceKey,
    /// The slot of the installation; a second process of the same user takes the next one.
    pub slot: u8,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.key, self.slot)
    }
}

/// The id of a session: the op of the SessionOpen entry that admits the device. A session outlives
/// addresses, connections and primaries. The higher session of a device fences the lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub Op);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The urgency of a notification: 1 (lowest) to 5 (highest), 3 by default. Every constructor validates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Default for Priority {
    fn default() -> Self {
        Priority(3)
    }
}

impl TryFrom<u8> for Priority {
    type Error = PriorityError;
    fn try_from(value: u8) -> Result<Priority, PriorityError> {
        if (1..=5).contains(&value) { Ok(Priority(value)) } else { Err(PriorityError(value)) }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

/// A priority outside 1 to 5. The caller's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a priority is 1 (lowest) to 5 (highest), not {0}")]
pub struct PriorityError(pub u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_id_holds_the_higher_view_of_a_round() {
        assert!(View::new(7, NodeId(2)) > View::new(7, NodeId(1)));
        assert!(View::new(8, NodeId(1)) > View::new(7, NodeId(65535)));
        assert_eq!(View::new(7, NodeId(2)).primary(), Some(NodeId(2)));
        assert_eq!(View::new(7, NodeId(2)).round(), 7);
        assert_eq!(View::ZERO.primary(), None);
    }

    #[test]
    fn a_cluster_key_survives_its_text_and_nothing_else_is_one() {
        let key = ClusterKey(std::array::from_fn(|at| 7 * at as u8));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<ClusterKey>(), Err(ClusterKeyError), "{text}");
        }
        assert_eq!(ClusterId(0xfeed).to_string().parse(), Ok(ClusterId(0xfeed)));
        for text in ["feed", "+00000000000feed", "0000000000000000"] {
            assert_eq!(text.parse::<ClusterId>(), Err(ClusterIdError), "{text}");
        }
    }

    /// People write fingerprints down, so the digits of a key must never change. The expected digits come
    /// from another implementation of BLAKE2s.
    #[test]
    fn a_fingerprint_is_32_digits_in_groups_of_four_that_any_bit_of_the_key_changes() {
        let key = ClusterKey(std::array::from_fn(|at| at as u8));
        assert_eq!(key.fingerprint().to_string(), "46ff b090 9cce cbdc 98a5 5fe0 120a 3b0e");
        for bit in 0..256 {
            let mut other = key;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(other.fingerprint(), key.fingerprint(), "bit {bit}");
        }
    }
}
