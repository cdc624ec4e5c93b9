//! Batches of datagrams, sent and received with few system calls. quinn-udp makes them: it holds the unsafe
//! code of `recvmmsg`, and of segmentation and receive offload (GSO and GRO, udp(7)), by which datagrams of
//! one size between two addresses cross the kernel as one.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use recado_proto::DATAGRAM_BASE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::waker::Waker;

/// Bytes of a slot: what receive offload joins at most. Of a slot that is never filled, the system gives no
/// memory.
const SLOT_BYTES: usize = 64 * 1024;
/// Maximum number of bytes sent as one: what an IPv4 packet holds, less the headers of IP and UDP with room
/// for options of IP.
const JOINED_MAX: usize = 65_487;
/// The longest wait of one call for room in the kernel's send buffer. What finds none then is lost, like any
/// datagram that is lost on the network.
const ROOM_PATIENCE: Duration = Duration::from_millis(5);

/// What one slot of an [`Inbox`] holds: datagrams of one size, but the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
struct Filled {
    from: SocketAddr,
    /// The bytes of all of them.
    len: usize,
    /// The bytes of each.
    stride: usize,
}

/// Buffer for a batch of received datagrams; it is allocated once and reused.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    filled: Vec<Filled>,
    most: usize,
}

impl Inbox {
    /// Creates a buffer of `most` slots, from 1 to 32. Each takes a datagram, or what receive offload joins,
    /// and up to 64 KiB of memory once it was filled.
    pub fn new(most: usize) -> Inbox {
        let most = most.clamp(1, BATCH_SIZE);
        Inbox { bytes: vec![0; most * SLOT_BYTES].into_boxed_slice(), filled: Vec::with_capacity(most), most }
    }

    /// The datagrams of the last receive, with their source addresses, in the order in which they came.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> + '_ {
        self.filled.iter().zip(self.bytes.chunks_exact(SLOT_BYTES)).flat_map(|(filled, slot)| {
            let Filled { from, len, stride } = *filled;
            let joined = slot.get(..len).unwrap_or(slot);
            // An empty datagram is one too.
            let count = joined.len().div_ceil(stride.max(1)).max(1);
            (0..count).map(move |index| {
                let start = index * stride;
                (from, joined.get(start..joined.len().min(start + stride)).unwrap_or_default())
            })
        })
    }

    /// Removes the datagrams of the last receive.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// Adds a datagram as a receive does; it is lost if there is no room.
    #[cfg(feature = "model")]
    pub fn put(&mut self, from: SocketAddr, bytes: &[u8]) {
        let start = self.filled.len() * SLOT_BYTES;
        if let Some(slot) = self.bytes.get_mut(start..start + SLOT_BYTES) {
            let len = bytes.len().min(SLOT_BYTES);
            slot[..len].copy_from_slice(&bytes[..len]);
            self.filled.push(Filled { from, len, stride: len });
        }
    }

    /// Returns true if the last receive filled every slot: there may be more.
    pub fn is_full(&self) -> bool {
        self.filled.len() == self.most
    }

    /// Returns true if the last receive took nothing.
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }
}

/// Outcome of sending a batch.
#[derive(Debug, Default)]
pub struct SendReport {
    /// Number of datagrams that the system took.
    pub sent: usize,
    /// Number of datagrams that it did not take, but for those longer than [`DATAGRAM_BASE`] and than its
    /// interface carries: these are lost, like a probe that is too long for the path.
    pub failed: usize,
    /// The system's error for the last of those.
    pub last_error: Option<io::Error>,
    /// The port of a connected socket is closed: a datagram of this batch or of an earlier one was refused.
    pub refused: bool,
}

/// The state of sending a batch.
struct Progress {
    /// It may still wait for room in the kernel's buffer.
    waits: bool,
    /// The kernel has reported a refusal.
    refused: bool,
}

/// Waits until the socket has a datagram, or an error; at most `patience`.
pub(super) fn wait(socket: &UdpSocket, patience: Duration) -> io::Result<bool> {
    ready(socket, PollFlags::IN, patience)
}

/// Waits until the socket has a datagram, or an error, or until the waker is set, which clears it; at most
/// `patience`. Returns true if the socket has something.
pub(super) fn wait_or_woken(socket: &UdpSocket, waker: &Waker, patience: Duration) -> io::Result<bool> {
    let mut both = [PollFd::new(socket, PollFlags::IN), PollFd::new(waker, PollFlags::IN)];
    poll_for(&mut both, patience)?;
    let [has, woken] = both.map(|one| !one.revents().is_empty());
    if woken {
        waker.clear();
    }
    Ok(has)
}

/// Takes the datagrams that are queued, as many as the inbox has slots for. None is no error.
pub(super) fn take(socket: &UdpSocket, state: &UdpSocketState, inbox: &mut Inbox) -> io::Result<()> {
    inbox.filled.clear();
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    let mut slots = inbox.bytes.chunks_exact_mut(SLOT_BYTES);
    let mut slots: [IoSliceMut<'_>; BATCH_SIZE] =
        std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
    let slots = slots.get_mut(..inbox.most).unwrap_or_default();
    match state.recv(socket.into(), slots, &mut meta) {
        Ok(count) => {
            let filled = meta.iter().take(count);
            inbox.filled.extend(filled.map(|meta| Filled {
                from: meta.addr,
                len: meta.len,
                stride: meta.stride,
            }));
            Ok(())
        }
        // Nothing is queued. Some systems report the refused port of an earlier send here; it says nothing
        // about our own port.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Sends datagrams in order. Those that follow each other to one address and have one size, but the last,
/// which may be shorter, go as one. If the system does not take them so, they go one by one; quinn-udp then
/// joins no more on this socket where it sees that the network device cannot do it.
pub(super) fn send(
    socket: &UdpSocket,
    state: &UdpSocketState,
    datagrams: &[(SocketAddr, Vec<u8>)],
    waits: bool,
) -> SendReport {
    let mut report = SendReport::default();
    let mut joined = Vec::new();
    let mut progress = Progress { waits, refused: false };
    let before = state.max_gso_segments();
    let mut rest = datagrams;
    while let Some((to, first)) = rest.first() {
        let (batch, after) = rest.split_at(alike(rest, state.max_gso_segments()));
        rest = after;
        if batch.len() > 1 {
            joined.clear();
            batch.iter().for_each(|(_, bytes)| joined.extend_from_slice(bytes));
            match transmit(socket, state, *to, &joined, Some(first.len()), &mut progress) {
                Ok(()) => {
                    report.sent += batch.len();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    report.failed += batch.len();
                    report.last_error = Some(error);
                    continue;
                }
                Err(_) => {}
            }
        }
        for (to, bytes) in batch {
            match transmit(socket, state, *to, bytes, None, &mut progress) {
                Ok(()) => report.sent += 1,
                // Longer than the interface carries: it is lost, like a probe that is too long for the path.
                Err(error)
                    if bytes.len() > DATAGRAM_BASE
                        && error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => {}
                Err(error) => {
                    report.failed += 1;
                    report.last_error = Some(error);
                }
            }
        }
    }
    report.refused = progress.refused;
    if state.max_gso_segments() < before {
        tracing::info!("the system refuses joined datagrams (GSO); from now on they are sent one by one");
    }
    report
}

/// The number of datagrams at the start that go as one; at least one.
fn alike(datagrams: &[(SocketAddr, Vec<u8>)], most: usize) -> usize {
    let Some((to, first)) = datagrams.first() else { return 0 };
    let most = most.min(JOINED_MAX / first.len().max(1));
    let mut count = 1;
    for (next, bytes) in datagrams.iter().take(most).skip(1) {
        if next != to || bytes.is_empty() || bytes.len() > first.len() {
            break;
        }
        // A long one may be a probe of what the path carries. Joined with another it would be refused as if
        // the device joined nothing, and then nothing more would be joined.
        let shorter = bytes.len() < first.len();
        if shorter && count == 1 && first.len() > DATAGRAM_BASE {
            break;
        }
        count += 1;
        if shorter {
            break;
        }
    }
    count
}

/// Sends bytes to one address, cut into datagrams of `segment` bytes. Of a batch that may wait, the first
/// call that finds no room in the kernel's buffer waits for it.
///
/// On a connected socket the kernel reports what ICMP says of an earlier datagram in place of sending this
/// one: that its port is closed, or that it was too long for the path. So this one is sent again.
fn transmit(
    socket: &UdpSocket,
    state: &UdpSocketState,
    to: SocketAddr,
    bytes: &[u8],
    segment: Option<usize>,
    progress: &mut Progress,
) -> io::Result<()> {
    // A datagram may claim to come from port 0. The system refuses to send there, as it refuses joined
    // datagrams, and quinn-udp would take it for that.
    if to.port() == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let transmit =
        Transmit { destination: to, ecn: None, contents: bytes, segment_size: segment, src_ip: None };
    let mut again = true;
    loop {
        let Err(error) = state.try_send(socket.into(), &transmit) else { return Ok(()) };
        progress.refused |= error.kind() == io::ErrorKind::ConnectionRefused;
        if error.kind() == io::ErrorKind::WouldBlock {
            if !std::mem::take(&mut progress.waits) {
                return Err(error);
            }
            ready(socket, PollFlags::OUT, ROOM_PATIENCE)?;
        } else if !std::mem::take(&mut again) {
            return Err(error);
        }
    }
}

fn ready(socket: &UdpSocket, wanted: PollFlags, patience: Duration) -> io::Result<bool> {
    poll_for(&mut [PollFd::new(socket, wanted)], patience).map(|ready| ready > 0)
}

/// Waits until one of them is ready, at most for `patience`. Returns their number.
fn poll_for(files: &mut [PollFd<'_>], patience: Duration) -> io::Result<usize> {
    let patience = Timespec::try_from(patience).ok();
    match poll(files, patience.as_ref()) {
        Ok(ready) => Ok(ready),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_as_one_has_one_address_and_one_size_but_for_a_shorter_last() {
        let [one, other]: [SocketAddr; 2] = [([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()];
        let batch = |sizes: &[(SocketAddr, usize)]| -> Vec<_> {
            sizes.iter().map(|(to, size)| (*to, vec![0; *size])).collect()
        };
        let counted = |sizes: &[(SocketAddr, usize)]| alike(&batch(sizes), 64);
        assert_eq!(counted(&[(one, 9), (one, 9), (one, 9)]), 3);
        assert_eq!(counted(&[(one, 9), (one, 5), (one, 5)]), 2);
        assert_eq!(counted(&[(one, 5), (one, 9)]), 1);
        assert_eq!(counted(&[(one, 9), (other, 9)]), 1);
        assert_eq!(counted(&[(one, 9), (one, 0), (one, 9)]), 1);
        assert_eq!(counted(&[(one, 1_452), (one, 1_200)]), 1, "a probe");
        assert_eq!(counted(&[(one, 1_452), (one, 1_452), (one, 9)]), 3);
        assert_eq!(counted(&[(one, 1_200), (one, 9)]), 2);
        assert_eq!(counted(&[(one, 0), (one, 0)]), 1);
        assert_eq!(alike(&batch(&[(one, 9); 10]), 4), 4);
        assert_eq!(alike(&batch(&[(one, 1200); 64]), 64), 54, "all of it is less than 64 KiB");
        assert_eq!(alike(&batch(&[(one, 9); 3]), 1), 1, "where the system joins nothing");
    }
}
