//! Store: the files of a device, which outlive the process that uses it.
//!
//! ```text
//! <state>/<cluster id>/<profile>/     one installation of one profile in one cluster
//!     lock                            held while the key is made
//!     key                             0600: a line with 32 random bytes in hexadecimal, the x25519 secret
//!     slot-0/ ... slot-15/            one device each
//!         lock                        flock, held while a process uses the device
//!         state.toml                  the position that admitted it, its highest number and unanswered requests,
//!                                     after a line with version and CRC-32C
//!         cursor                      its cursor: a line with a position
//! ```
//!
//! A line has a version and a CRC-32C ([`format`](super::format)). A position is `GROUP EPOCH GENERATION OP`,
//! with 5, 20, 10 and 20 digits; all but the op are zero. A position with another group, epoch or generation
//! is refused as of another version. So is a `state.toml` with an unknown field or request: if this program
//! ignored it, it would send another request than the stored one.
//!
//! A cluster created anew has a new id, so its devices start anew beside the old ones. `state.toml` is
//! replaced as a whole (tmp, fsync, rename, fsync of the directory); a request is in it before its first
//! datagram is sent. The cursor moves far more often, and is overwritten in place, in one write within one
//! sector. Both files have a checksum: bit rot in a nonce would turn an applied request into another one, and
//! bit rot in a body would change the text.
//!
//! The device key is the public half of `key`: the handshake proves to the servers that this device holds the
//! private half.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use recado_sys::sync::{self, Mutex};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use recado_proto::hex::{self, Hex};
use recado_proto::id::{ClusterId, DeviceId, DeviceKey, Moment, Name, Op, Priority, Seq, Topic};
use recado_proto::noise;
use recado_proto::packet::{Body, ChannelChange, CodeHash, Content, FollowChange, KeyChange, Role};
use recado_proto::seal::Key;
use recado_sys::clock::MachineClock;
use recado_sys::durable;
use recado_sys::random;

use super::error::{StoreError, StoreOp};
use super::format::{self, Unreadable};
use super::machine::{Numbered, Request};

/// Devices of one installation, and so the number of processes that can run as one profile at a time.
pub(super) const SLOTS: u8 = 16;

/// The interval between attempts to take a slot while all are in use. A short command takes less.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The file of the installation's key, beside its slots.
const KEY: &str = "key";

/// The file with a device's state, in its slot.
const STATE: &str = "state.toml";

/// No file is longer: 256 unanswered requests of 16 KiB, each byte of which may take six bytes in the file.
const TEXT_MAX: u64 = 64 << 20;

/// The cure if another kind of file is in a lock's place.
const LOCK_CURE: &str = "delete it: a lock file has no content";

/// A device, locked for this process until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    dir: PathBuf,
    device: DeviceId,
    /// The private half of the installation's key.
    private: Key,
    cursor: Mutex<CursorFile>,
    /// The system unlocks it when the file is closed, also after a crash.
    _lock: File,
}

#[derive(Debug)]
struct CursorFile {
    file: File,
    op: Option<Op>,
}

/// The content of a device's state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The op that admitted the device; none if it was never admitted.
    pub(super) created_op: Option<Op>,
    /// The highest number known here. If the servers know a higher one, a copy of this file gave it.
    pub(super) given: Seq,
    /// Requests without an answer, ascending.
    pub(super) unanswered: Vec<Numbered>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default)]
    given: Seq,
    #[serde(default)]
    unanswered: Vec<Unanswered>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unanswered {
    seq: Seq,
    /// In hexadecimal: TOML has no unsigned 64-bit integer.
    nonce: String,
    ask: StoredRequest,
}

/// A [`Request`] in the file's own format. That is stated by the types of this file down to names, numbers
/// and keys, so it does not change when the machine's types or those of packets do.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredRequest {
    Follow {
        #[serde(with = "StoredTopic")]
        topic: Topic,
    },
    Unfollow {
        #[serde(with = "StoredTopic")]
        topic: Topic,
    },
    Send {
        topic: Option<Target>,
        content: StoredContent,
    },
    Channel {
        channel: Name,
        #[serde(with = "StoredChannelChange")]
        change: ChannelChange,
    },
    Keys {
        #[serde(with = "StoredKeyChange")]
        change: KeyChange,
    },
}

/// The topic of a SEND that names one.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Target(#[serde(with = "StoredTopic")] Topic);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Topic")]
enum StoredTopic {
    Feed(Name),
    Channel(Name),
    Inbox(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ChannelChange", deny_unknown_fields)]
enum StoredChannelChange {
    Create {
        private: bool,
    },
    Add {
        member: Name,
        #[serde(with = "StoredRole")]
        role: Role,
    },
    Remove {
        member: Name,
    },
    Delete,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Role")]
enum StoredRole {
    Reader,
    Writer,
    Owner,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "KeyChange", deny_unknown_fields)]
enum StoredKeyChange {
    Enrol { code: CodeHash },
    Revoke { key: DeviceKey },
}

/// A [`Content`]; bytes that are no text stand as numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredContent {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    priority: Priority,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extra: Vec<(String, Vec<u8>)>,
}

impl From<&Content> for StoredContent {
    fn from(content: &Content) -> StoredContent {
        let Content { title, priority, tags, body, extra } = content.clone();
        let (body, bytes) = match body.is_text() {
            true => (Some(body.to_string()), Vec::new()),
            false => (None, body.as_bytes().to_vec()),
        };
        StoredContent { title, priority, tags, body, bytes, extra }
    }
}

impl From<StoredContent> for Content {
    fn from(stored: StoredContent) -> Content {
        let StoredContent { title, priority, tags, body, bytes, extra } = stored;
        let body = body.map_or_else(|| Body::binary(bytes), Body::text);
        Content { title, priority, tags, body, extra }
    }
}

impl From<&Request> for StoredRequest {
    fn from(request: &Request) -> StoredRequest {
        match request {
            Request::Follow { topic, change: FollowChange::Add } => {
                StoredRequest::Follow { topic: topic.clone() }
            }
            Request::Follow { topic, change: FollowChange::Remove } => {
                StoredRequest::Unfollow { topic: topic.clone() }
            }
            Request::Send { topic, content } => {
                let topic = topic.clone().map(Target);
                StoredRequest::Send { topic, content: StoredContent::from(content) }
            }
            Request::Keys { change } => StoredRequest::Keys { change: *change },
            Request::Channel { channel, change } => {
                StoredRequest::Channel { channel: channel.clone(), change: change.clone() }
            }
        }
    }
}

impl From<StoredRequest> for Request {
    fn from(stored: StoredRequest) -> Request {
        match stored {
            StoredRequest::Follow { topic } => Request::Follow { topic, change: FollowChange::Add },
            StoredRequest::Unfollow { topic } => Request::Follow { topic, change: FollowChange::Remove },
            StoredRequest::Send { topic, content } => {
                Request::Send { topic: topic.map(|Target(topic)| topic), content: content.into() }
            }
            StoredRequest::Channel { channel, change } => Request::Channel { channel, change },
            StoredRequest::Keys { change } => Request::Keys { change },
        }
    }
}

impl Slot {
    /// Takes the first free slot of the installation under `state`, creating it if necessary. See
    /// [`once_free`].
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure.
    pub(super) fn take(
        state: &Path,
        cluster: ClusterId,
        profile: &Name,
    ) -> Result<(Slot, Remembered), StoreError> {
        let installation = installation(state, cluster, profile);
        make_dir(&installation)?;
        let private = device_key(&installation)?;
        // The directories above these two are the application's.
        for dir in installation.ancestors().take(2) {
            make_private(dir)?;
        }
        let key = DeviceKey(noise::public(&private));
        for slot in 0..SLOTS {
            let dir = installation.join(format!("slot-{slot}"));
            make_dir(&dir)?;
            let read = || {
                make_private(&dir)?;
                read_state(&dir.join(STATE))
            };
            let (lock, remembered) = match sync::locked(|| lock_slot(&dir), read) {
                Err(StoreError::InUse(_)) => continue,
                taken => taken?,
            };
            let cursor = Mutex::new(CursorFile::open(&dir.join("cursor"))?);
            return Ok((
                Slot { dir, device: DeviceId { key, slot }, private, cursor, _lock: lock },
                remembered,
            ));
        }
        Err(StoreError::NoSlot(installation))
    }

    /// The device's id.
    pub(super) fn device(&self) -> DeviceId {
        self.device
    }

    /// The private half of the installation's key.
    pub(super) fn private(&self) -> &Key {
        &self.private
    }

    /// The directory of the slot's files.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the installation's key.
    pub(super) fn key(&self) -> PathBuf {
        self.dir.with_file_name(KEY)
    }

    /// The device's cursor, as far as this machine knows.
    pub(super) fn cursor(&self) -> Option<Op> {
        self.cursor.lock().op
    }

    /// Moves the cursor forward, never back. On return it is in the page cache: it survives the process, not
    /// a power failure.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the cursor has not moved.
    pub(super) fn save_cursor(&self, op: Op) -> Result<(), StoreError> {
        let mut cursor = self.cursor.lock();
        match cursor.op {
            Some(old) if old >= op => Ok(()),
            _ => cursor.write(op, &self.dir),
        }
    }

    /// Sets the cursor to the one that the servers remember, also backwards: the old one does not belong to
    /// their log.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the cursor has not moved.
    pub(super) fn set_cursor(&self, op: Op) -> Result<(), StoreError> {
        self.cursor.lock().write(op, &self.dir)
    }

    /// Replaces the state file, whole or not at all; on disk on return.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the previous state is kept.
    pub(super) fn save_state<'a>(
        &self,
        born: Option<Op>,
        given: Seq,
        unanswered: impl Iterator<Item = (Seq, u64, &'a Request)>,
    ) -> Result<(), StoreError> {
        write_state(&self.dir.join(STATE), born, given, unanswered)
    }
}

/// Calls `take` until a slot is free, at most until `patience` after the start of the clock.
///
/// # Errors
/// [`StoreError::NoSlot`] when the time is over; any other [`StoreError`] at once.
pub(super) fn once_free<T>(
    clock: MachineClock,
    patience: Duration,
    mut take: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    loop {
        match take() {
            Err(StoreError::NoSlot(_)) if clock.now().since(Moment(0)) < patience => {
                // `flock` cannot wait for the first of several locks to become free.
                sync::thread::park_timeout(TRY_AGAIN);
            }
            taken => return taken,
        }
    }
}

impl CursorFile {
    fn open(path: &Path) -> Result<CursorFile, StoreError> {
        let cure = "delete it: the servers remember how far this device has read, at most a second behind, and \
                    what it read in that second comes once more";
        let file = open(path, cure)?;
        let op = match read_text(path, cure)?.as_deref() {
            None | Some("") => None,
            Some(line) => {
                Some(format::read_line(line).and_then(read_position).map_err(unreadable(path, cure))?)
            }
        };
        Ok(CursorFile { file, op })
    }

    fn write(&mut self, op: Op, dir: &Path) -> Result<(), StoreError> {
        let written = self.file.write_all_at(format::line(&position(op)).as_bytes(), 0);
        written.map_err(at(StoreOp::Write, &dir.join("cursor")))?;
        self.op = Some(op);
        Ok(())
    }
}

/// An op as the files write it: its position in the first epoch of the first group. All positions have one
/// length, so that one overwrites another completely.
fn position(op: Op) -> String {
    format!("{:05} {:020} {:010} {:020}", 0, 0, 0, op.0)
}

/// Reads an op that [`position`] wrote. A later program may write a position of another group, epoch or
/// generation, whose op means nothing here.
fn read_position(text: &str) -> Result<Op, Unreadable> {
    let mut words = text.split(' ');
    let mut number = |digits: usize| {
        let word = words.next().filter(|word| word.len() == digits)?;
        word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse::<u64>().ok()).flatten()
    };
    let numbers = [number(5), number(20), number(10), number(20)];
    match (numbers, words.next()) {
        ([Some(0), Some(0), Some(0), Some(op)], None) => Ok(Op(op)),
        ([Some(_), Some(_), Some(_), Some(_)], None) => Err(Unreadable::OtherVersion(format::VERSION + 1)),
        _ => Err(Unreadable::Damaged),
    }
}

/// The error for a file whose text cannot be read.
pub(super) fn unreadable(path: &Path, cure: &'static str) -> impl Fn(Unreadable) -> StoreError {
    move |reason| match reason {
        Unreadable::Damaged => StoreError::Damaged { path: path.to_owned(), cure },
        Unreadable::OtherVersion(found) => {
            StoreError::OtherVersion { path: path.to_owned(), found, reads: format::VERSION }
        }
    }
}

/// Reads a device's state file; the default if there is none.
pub(super) fn read_state(path: &Path) -> Result<Remembered, StoreError> {
    let cure = "delete its directory to start the device anew, without the requests it left unanswered";
    let Some(text) = read_text(path, cure)? else { return Ok(Remembered::default()) };
    let unreadable = unreadable(path, cure);
    let damaged = || unreadable(Unreadable::Damaged);
    let rest = format::read_sealed(&text).map_err(&unreadable)?;
    // A table that a program wrote, and in which this one does not know its way, is a later program's.
    let file: StateFile = toml::from_str(rest).map_err(|_| match rest.parse::<toml::Table>() {
        Ok(_) => unreadable(Unreadable::OtherVersion(format::VERSION + 1)),
        Err(_) => damaged(),
    })?;
    let created_op = file.created.as_deref().map(read_position).transpose().map_err(&unreadable)?;
    let numbered = |stored: Unanswered| {
        let nonce = u64::from_be_bytes(hex::parse(&stored.nonce).ok_or_else(damaged)?);
        Ok(Numbered { seq: stored.seq, nonce, request: stored.ask.into() })
    };
    let unanswered: Vec<Numbered> =
        file.unanswered.into_iter().map(numbered).collect::<Result<_, StoreError>>()?;
    let highest = unanswered.last().map_or(Seq(0), |of| of.seq);
    Ok(Remembered { created_op, given: file.given.max(highest), unanswered })
}

/// Replaces a device's state file, whole or not at all.
fn write_state<'a>(
    path: &Path,
    created_op: Option<Op>,
    given: Seq,
    unanswered: impl Iterator<Item = (Seq, u64, &'a Request)>,
) -> Result<(), StoreError> {
    let unanswered = unanswered
        .map(|(seq, nonce, request)| Unanswered {
            seq,
            nonce: Hex(&nonce.to_be_bytes()).to_string(),
            ask: request.into(),
        })
        .collect();
    let file = StateFile { created: created_op.map(position), given, unanswered };
    let text = toml::to_string(&file).map_err(|error| at(StoreOp::Write, path)(io::Error::other(error)))?;
    replace(path, format::sealed(&text).as_bytes())
}

/// Reads a text file; none if there is no file. A file that is not UTF-8, or too long, is damaged.
pub(super) fn read_text(path: &Path, cure: &'static str) -> Result<Option<String>, StoreError> {
    sync::step();
    match durable::read_text(path, TEXT_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(StoreError::Damaged { path: path.to_owned(), cure })
        }
        Err(error) => Err(opening(StoreOp::Read, path, cure)(error)),
    }
}

/// Reads the installation's private key. Creates one if it is missing, unless a device has been used with a
/// key before.
fn device_key(installation: &Path) -> Result<Key, StoreError> {
    let lock_path = installation.join("lock");
    // A process that creates the key holds the lock for a moment.
    let _lock = wait_for_lock(&lock_path)?;
    let secret = match read_key(installation)? {
        Some(secret) => secret,
        None if slots(installation).any(|slot| slot.join(STATE).exists()) => {
            return Err(StoreError::KeyMissing {
                key: installation.join(KEY),
                devices: installation.to_owned(),
            });
        }
        None => {
            let secret = random::bytes().map_err(at(StoreOp::Create, &installation.join(KEY)))?;
            write_key(installation, &secret)?;
            secret
        }
    };
    Ok(Key::new(secret))
}

/// The directory of an installation's files.
pub(super) fn installation(state: &Path, cluster: ClusterId, profile: &Name) -> PathBuf {
    state.join(cluster.to_string()).join(profile.as_str())
}

/// The directories of its devices.
fn slots(installation: &Path) -> impl Iterator<Item = PathBuf> {
    (0..SLOTS).map(|slot| installation.join(format!("slot-{slot}")))
}

/// An installation's secret key, if it has one.
pub(super) fn read_key(installation: &Path) -> Result<Option<[u8; 32]>, StoreError> {
    let path = installation.join(KEY);
    let cure = "restore it from a copy: without it the profile is not yours";
    let Some(text) = read_text(&path, cure)? else { return Ok(None) };
    let mode = fs::metadata(&path).map_err(at(StoreOp::Read, &path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path, mode });
    }
    let secret = format::read_line(&text).and_then(|secret| hex::parse(secret).ok_or(Unreadable::Damaged));
    secret.map(Some).map_err(unreadable(&path, cure))
}

/// Writes an installation's secret key, 0600.
fn write_key(installation: &Path, secret: &[u8; 32]) -> Result<(), StoreError> {
    replace(&installation.join(KEY), format::line(&Hex(secret).to_string()).as_bytes())
}

/// Gives an installation this key. If it has another one, only `force` replaces it; the devices of the old
/// key are removed, because their numbers mean nothing under the new one.
pub(super) fn put_key(installation: &Path, secret: &[u8; 32], force: bool) -> Result<(), StoreError> {
    make_dir(installation)?;
    let lock_path = installation.join("lock");
    let _lock = wait_for_lock(&lock_path)?;
    match read_key(installation)? {
        Some(stored) if stored == *secret => return Ok(()),
        Some(_) if !force => return Err(StoreError::OtherKey(installation.join(KEY))),
        Some(_) => {
            let slots: Vec<PathBuf> = slots(installation).filter(|slot| slot.exists()).collect();
            let _locks = slots.iter().map(|slot| lock_slot(slot)).collect::<Result<Vec<_>, _>>()?;
            for slot in &slots {
                fs::remove_dir_all(slot).map_err(at(StoreOp::Write, slot))?;
            }
        }
        None => {}
    }
    write_key(installation, secret)
}

/// Replaces a file whole or not at all, durably. Only its owner may read it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    sync::step();
    durable::replace(path, bytes).map_err(at(StoreOp::Write, path))
}

pub(super) fn make_dir(path: &Path) -> Result<(), StoreError> {
    durable::make_dir(path).map_err(|source| StoreError::NoDirectory { path: path.to_owned(), source })
}

/// Removes the rights of other users to a device's directory and files, which an earlier version or a copying
/// program may have left. A key that other users can read is refused instead ([`read_key`]): they may have
/// read it.
fn make_private(dir: &Path) -> Result<(), StoreError> {
    let mended = durable::make_private(dir)
        .map_err(|durable::Exposed { path, mode, .. }| StoreError::Exposed { path, mode })?;
    if mended > 0 {
        tracing::warn!(dir = %dir.display(), mended, "other users had access to the files of a device; they no longer have it");
    }
    Ok(())
}

fn open(path: &Path, cure: &'static str) -> Result<File, StoreError> {
    sync::step();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    durable::open(path, &mut options).map_err(opening(StoreOp::Create, path, cure))
}

/// Opens a lock's file and locks it, waiting until it is free. Closing the file unlocks it.
pub(super) fn wait_for_lock(path: &Path) -> Result<File, StoreError> {
    let lock = open(path, LOCK_CURE)?;
    sync::flock(&lock).map_err(at(StoreOp::Lock, path))?;
    Ok(lock)
}

/// Takes a slot's lock, if it is free.
///
/// # Errors
/// [`StoreError::InUse`] if another process holds it.
fn lock_slot(slot: &Path) -> Result<File, StoreError> {
    let path = slot.join("lock");
    let lock = open(&path, LOCK_CURE)?;
    sync::step();
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(StoreError::InUse(slot.to_owned())),
        Err(error) => Err(at(StoreOp::Lock, &path)(error.into())),
    }
}

/// The error of a file that could not be opened or read; with the cure, if it is not a regular file.
fn opening(op: StoreOp, path: &Path, cure: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| match durable::is_not_regular(&source) {
        true => StoreError::NotRegular { path: path.to_owned(), cure },
        false => at(op, path)(source),
    }
}

pub(super) fn at(op: StoreOp, path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(state: &Path) -> Result<(Slot, Remembered), StoreError> {
        Slot::take(state, ClusterId(7), &"alice".parse().unwrap())
    }

    fn send(body: &str) -> Request {
        let content = Content {
            title: None,
            priority: Priority::default(),
            tags: vec!["a".into()],
            body: body.into(),
            extra: Vec::new(),
        };
        Request::Send { topic: Some(Topic::to_send("#ops").unwrap()), content }
    }

    fn save(slot: &Slot, unanswered: &[(Seq, Request)]) {
        let given = unanswered.last().map_or(Seq(0), |(seq, _)| *seq);
        let numbered = unanswered.iter().map(|(seq, ask)| (*seq, seq.0, ask));
        slot.save_state(Some(Op(3)), given, numbered).unwrap();
    }

    #[test]
    fn a_second_process_takes_the_next_slot_of_the_same_installation() {
        let state = tempfile::tempdir().unwrap();
        let (first, _) = take(state.path()).unwrap();
        let (second, _) = take(state.path()).unwrap();
        assert_eq!(first.device().key, second.device().key);
        assert_eq!((first.device().slot, second.device().slot), (0, 1));
        drop(first);
        assert_eq!(take(state.path()).unwrap().0.device().slot, 0);
    }

    #[test]
    fn when_every_slot_is_taken_the_error_says_so() {
        let state = tempfile::tempdir().unwrap();
        let taken: Vec<_> = (0..SLOTS).map(|_| take(state.path()).unwrap()).collect();
        assert!(matches!(take(state.path()), Err(StoreError::NoSlot(_))));
        drop(taken);
        assert!(take(state.path()).is_ok());
    }

    #[test]
    fn a_slot_that_becomes_free_in_time_is_taken() {
        let state = tempfile::tempdir().unwrap();
        let mut taken: Vec<_> = (0..SLOTS).map(|_| take(state.path()).unwrap()).collect();
        let mut tries = 0;
        let clock = MachineClock::start();
        let (slot, _) = once_free(clock, Duration::from_secs(60), || {
            tries += 1;
            if tries == 3 {
                taken.remove(5);
            }
            take(state.path())
        })
        .unwrap();
        assert_eq!((tries, slot.device().slot), (3, 5));
        assert!(matches!(
            once_free(clock, Duration::ZERO, || take(state.path())),
            Err(StoreError::NoSlot(_))
        ));
    }

    #[test]
    fn clusters_and_profiles_have_their_own_keys() {
        let state = tempfile::tempdir().unwrap();
        let (alice, _) = take(state.path()).unwrap();
        let (bob, _) = Slot::take(state.path(), ClusterId(7), &"bob".parse().unwrap()).unwrap();
        let (elsewhere, _) = Slot::take(state.path(), ClusterId(8), &"alice".parse().unwrap()).unwrap();
        assert_ne!(alice.device().key, bob.device().key);
        assert_ne!(alice.device().key, elsewhere.device().key);
    }

    #[test]
    fn unanswered_requests_and_the_cursor_outlive_the_process() {
        let state = tempfile::tempdir().unwrap();
        let follow =
            Request::Follow { topic: Topic::to_follow("@bob").unwrap(), change: FollowChange::Remove };
        let change = |change| Request::Channel { channel: "ops".parse().unwrap(), change };
        let member = || "bob".parse().unwrap();
        let asks = [
            (Seq(1), change(ChannelChange::Create { private: true })),
            (Seq(2), change(ChannelChange::Add { member: member(), role: Role::Writer })),
            (Seq(3), change(ChannelChange::Delete)),
            (Seq(4), follow),
            (Seq(5), Request::Keys { change: KeyChange::Revoke { key: DeviceKey([0xfe; 32]) } }),
            (Seq(6), send("two\nlines \u{1b}[0m \"quoted\"")),
        ];
        let (slot, remembered) = take(state.path()).unwrap();
        assert_eq!((remembered, slot.cursor()), (Remembered::default(), None));
        // A nonce that uses all 64 bits.
        let nonce = |seq: Seq| u64::MAX - seq.0;
        let numbered = asks.iter().map(|(seq, ask)| (*seq, nonce(*seq), ask));
        slot.save_state(Some(Op(3)), Seq(9), numbered).unwrap();
        slot.save_cursor(Op(17)).unwrap();
        slot.save_cursor(Op(12)).unwrap();
        drop(slot);
        let (slot, remembered) = take(state.path()).unwrap();
        let unanswered = asks.map(|(seq, ask)| Numbered { seq, nonce: nonce(seq), request: ask }).to_vec();
        assert_eq!(remembered, Remembered { created_op: Some(Op(3)), given: Seq(9), unanswered });
        assert_eq!(slot.cursor(), Some(Op(17)));
    }

    #[test]
    fn a_crash_between_write_and_rename_leaves_the_state_before() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        save(&slot, &[(Seq(1), send("kept"))]);
        fs::write(slot.dir().join("state.tmp"), "born = 3\n[[unans").unwrap();
        drop(slot);
        let (slot, remembered) = take(state.path()).unwrap();
        assert_eq!(remembered.unanswered, [Numbered { seq: Seq(1), nonce: 1, request: send("kept") }]);
        save(&slot, &[]);
        drop(slot);
        assert_eq!(take(state.path()).unwrap().1.unanswered, vec![]);
    }

    #[test]
    fn the_key_file_is_private_and_its_damage_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        let key = slot.key();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        drop(slot);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(take(state.path()), Err(StoreError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, "short").unwrap();
        assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn the_files_of_a_device_are_private_and_wrong_permissions_are_corrected() {
        let state = tempfile::tempdir().unwrap();
        let modes = |slot: &Slot| {
            let dir = slot.dir();
            let paths =
                [dir.ancestors().nth(2).unwrap(), dir.parent().unwrap(), dir, &dir.join("state.toml")];
            paths.map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777)
        };
        let (slot, _) = take(state.path()).unwrap();
        save(&slot, &[]);
        let private = [0o700, 0o700, 0o700, 0o600];
        assert_eq!(modes(&slot), private);
        let dir = slot.dir().to_owned();
        drop(slot);
        for (path, mode) in dir
            .ancestors()
            .take(3)
            .map(|dir| (dir.to_owned(), 0o755))
            .chain([(dir.join("state.toml"), 0o644), (dir.join("cursor"), 0o664)])
        {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (slot, _) = take(state.path()).unwrap();
        assert_eq!(modes(&slot), private);
        assert_eq!(fs::metadata(dir.join("cursor")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_cursor_or_state_is_an_error_and_not_guessed() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        let dir = slot.dir().to_owned();
        drop(slot);
        fs::write(dir.join("cursor"), "12").unwrap();
        assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })));
        fs::remove_file(dir.join("cursor")).unwrap();
        assert_eq!(take(state.path()).unwrap().0.cursor(), None);
        for bad in [
            "",
            "given = 3\n",
            "# Version 1",
            &format::sealed("created = "),
            &format::sealed("created = \"3\""),
        ] {
            fs::write(dir.join("state.toml"), bad).unwrap();
            assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })), "{bad}");
        }
    }

    #[test]
    fn a_state_file_with_anything_that_this_program_does_not_know_is_of_another_version_and_not_touched() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        let path = slot.dir().join(STATE);
        drop(slot);
        let unanswered = "[[unanswered]]\nseq = 1\nnonce = \"0000000000000001\"\n";
        let content = "priority = 3\ntags = []\nbody = \"at noon\"\n";
        let send = format!("{unanswered}[unanswered.ask.send.content]\n{content}");
        let create = format!(
            "{unanswered}[unanswered.ask.channel]\nchannel = \"ops\"\n\
             [unanswered.ask.channel.change.Create]\nprivate = true\n"
        );
        for known in [&send, &create] {
            fs::write(&path, format::sealed(known)).unwrap();
            assert_eq!(take(state.path()).unwrap().1.unanswered.len(), 1, "{known}");
        }
        for later in [
            format!("later = 7\n{send}"),
            send.replace("seq = 1\n", "seq = 1\nlater = 7\n"),
            send.replace(
                "[unanswered.ask.send.content]",
                "[unanswered.ask.send]\nlater = 7\n[unanswered.ask.send.content]",
            ),
            send.replace(".send.", ".later."),
            format!("{send}later = 7\n"),
            format!("{create}later = 7\n"),
            create.replace(".Create", ".Later"),
        ] {
            let text = format::sealed(&later);
            fs::write(&path, &text).unwrap();
            let told = take(state.path());
            assert!(matches!(told, Err(StoreError::OtherVersion { .. })), "{later}: {told:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn the_files_of_a_device_have_their_pinned_bytes() {
        let state = tempfile::tempdir().unwrap();
        put_key(&installation(state.path(), ClusterId(7), &"alice".parse().unwrap()), &[0x5e; 32], false)
            .unwrap();
        let (slot, _) = take(state.path()).unwrap();
        save(&slot, &[(Seq(1), send("at noon"))]);
        slot.save_cursor(Op(1_234)).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(slot.key()), format!("v1 {} 65c538db\n", "5e".repeat(32)));
        assert_eq!(
            read(slot.dir().join("cursor")),
            "v1 00000 00000000000000000000 0000000000 00000000000000001234 959acffd\n"
        );
        let state = "# Version 1, CRC-32C 93ea56af\n\
             created = \"00000 00000000000000000000 0000000000 00000000000000000003\"\n\
             given = 1\n\
             \n\
             [[unanswered]]\n\
             seq = 1\n\
             nonce = \"0000000000000001\"\n\
             \n\
             [unanswered.ask.send.topic]\n\
             Channel = \"ops\"\n\
             \n\
             [unanswered.ask.send.content]\n\
             priority = 3\n\
             tags = [\"a\"]\n\
             body = \"at noon\"\n\
             ";
        assert_eq!(read(slot.dir().join(STATE)), state);
    }

    #[test]
    fn a_file_of_another_version_is_refused_as_such_and_not_touched() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        save(&slot, &[]);
        slot.save_cursor(Op(3)).unwrap();
        let (dir, key) = (slot.dir().to_owned(), slot.key());
        drop(slot);
        let line = |versioned: &str| format!("{versioned} {:08x}\n", crc32c::crc32c(versioned.as_bytes()));
        let elsewhere = "00000 00000000000000000001 0000000000 00000000000000000003";
        let checked = format!("# Version 2, CRC-32C {:08x}\nx", crc32c::crc32c(b"# Version 2x"));
        let elsewhere_created = format::sealed(&format!("created = \"{elsewhere}\"\n"));
        for (path, text) in [
            (key, line("v2 a key")),
            (dir.join("cursor"), line("v2 a cursor")),
            (dir.join("cursor"), format::line(elsewhere)),
            (dir.join(STATE), checked),
            (dir.join(STATE), elsewhere_created),
        ] {
            let good = fs::read(&path).unwrap();
            fs::write(&path, &text).unwrap();
            let error = take(state.path()).unwrap_err();
            assert!(
                matches!(&error, StoreError::OtherVersion { path: named, found: 2, reads: 1 } if *named == path),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            fs::write(&path, good).unwrap();
        }
        assert!(take(state.path()).is_ok());
    }

    #[test]
    fn an_error_about_a_file_that_is_no_text_names_the_file_and_a_cure() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        let (dir, key) = (slot.dir().to_owned(), slot.key());
        save(&slot, &[]);
        drop(slot);
        for path in [dir.join("state.toml"), dir.join("cursor"), key] {
            let good = fs::read(&path).unwrap();
            fs::write(&path, [0xff; 64]).unwrap();
            let message = take(state.path()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{} is damaged; ", path.display())), "{message}");
            fs::write(&path, good).unwrap();
        }
        assert!(take(state.path()).is_ok());
    }

    #[test]
    fn no_flipped_bit_of_a_cursor_makes_another_cursor() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        slot.save_cursor(Op(1_234)).unwrap();
        let path = slot.dir().join("cursor");
        drop(slot);
        let good = fs::read(&path).unwrap();
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let message = take(state.path()).unwrap_err().to_string();
            assert!(message.contains("cursor is damaged; delete it"), "bit {bit}: {message}");
        }
        fs::write(&path, &good).unwrap();
        let (slot, _) = take(state.path()).unwrap();
        assert_eq!(slot.cursor(), Some(Op(1_234)));
        slot.set_cursor(Op(7)).unwrap();
        drop(slot);
        assert_eq!(take(state.path()).unwrap().0.cursor(), Some(Op(7)), "back when the servers say so");
    }

    #[test]
    fn no_flipped_bit_of_a_state_file_makes_another_request() {
        let state = tempfile::tempdir().unwrap();
        let (slot, remembered) = take(state.path()).unwrap();
        save(&slot, &[(Seq(1), send("at noon"))]);
        let path = slot.dir().join("state.toml");
        drop(slot);
        let good = fs::read(&path).unwrap();
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let message = read_state(&path).unwrap_err().to_string();
            assert!(message.contains("state.toml is damaged; delete its directory"), "bit {bit}: {message}");
        }
        fs::write(&path, &good).unwrap();
        assert_ne!(read_state(&path).unwrap(), remembered);
    }

    #[test]
    fn a_file_that_is_not_regular_is_an_error_with_a_cure_and_blocks_nobody() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        let (dir, key) = (slot.dir().to_owned(), slot.key());
        save(&slot, &[]);
        drop(slot);
        let beside = key.with_file_name("lock");
        for path in [dir.join("state.toml"), dir.join("cursor"), dir.join("lock"), key, beside] {
            let aside = path.with_extension("aside");
            fs::rename(&path, &aside).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
            let told = |what: &str| {
                let told = take(state.path()).unwrap_err();
                assert!(
                    matches!(&told, StoreError::NotRegular { path: at, .. } if *at == path),
                    "{what}: {told}"
                );
                fs::remove_file(&path).unwrap();
            };
            told("a pipe");
            for target in [Path::new("/dev/zero"), &aside] {
                std::os::unix::fs::symlink(target, &path).unwrap();
                told("a link");
            }
            fs::rename(&aside, &path).unwrap();
        }
        assert!(take(state.path()).is_ok());
        // A file that is longer than any that was ever written there.
        OpenOptions::new().write(true).open(dir.join("cursor")).unwrap().set_len(TEXT_MAX + 1).unwrap();
        assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_missing_key_beside_a_device_is_an_error_and_no_new_key_is_drawn() {
        let state = tempfile::tempdir().unwrap();
        let (slot, _) = take(state.path()).unwrap();
        let (key, device) = (slot.key(), slot.device());
        drop(slot);
        let aside = state.path().join("aside");
        fs::rename(&key, &aside).unwrap();
        // The key was never used by a device, so a new one is made.
        assert_ne!(take(state.path()).unwrap().0.device(), device);
        fs::rename(&aside, &key).unwrap();
        let (slot, _) = take(state.path()).unwrap();
        save(&slot, &[(Seq(1), send("kept"))]);
        drop(slot);
        fs::rename(&key, &aside).unwrap();
        let error = take(state.path()).unwrap_err();
        assert!(matches!(error, StoreError::KeyMissing { .. }), "{error}");
        let installation = key.parent().unwrap();
        for part in [key.to_str().unwrap(), "restore it", &format!("delete {}", installation.display())] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        assert!(!key.exists());
        fs::rename(&aside, &key).unwrap();
        let (slot, remembered) = take(state.path()).unwrap();
        assert_eq!((slot.device(), remembered.unanswered.len()), (device, 1));
    }
}
