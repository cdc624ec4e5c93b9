//! Batches of datagrams, sent and received.
//!
//! Sending uses `sendmmsg`, one system call for up to [`SEND_BATCH`] datagrams. For receiving, rustix has
//! no `recvmmsg`, and this crate has no unsafe code to call it with. So a receive blocks for the first
//! datagram and then takes the queued ones with `MSG_DONTWAIT`, which costs one system call each but wakes
//! the thread, and the threads behind it, once per batch.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Bytes kept of a datagram. One byte more than our longest datagram would show that a datagram is too
/// long; the room beyond only lets a slightly longer one be counted with its true length.
const SLOT_BYTES: usize = 1536;
/// Maximum number of datagrams per `sendmmsg`.
const SEND_BATCH: usize = 64;

/// Buffer for a batch of received datagrams; it is allocated once and reused.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    filled: Vec<(SocketAddr, usize)>,
    most: usize,
}

impl Inbox {
    /// Creates a buffer for `most` datagrams (at least one).
    pub fn new(most: usize) -> Inbox {
        let most = most.max(1);
        Inbox { bytes: vec![0; most * SLOT_BYTES].into_boxed_slice(), filled: Vec::with_capacity(most), most }
    }

    /// The datagrams of the last receive: source address, bytes, and true length. The true length exceeds
    /// the bytes if the datagram was too long for any protocol of ours.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8], usize)> + '_ {
        self.filled.iter().zip(self.bytes.chunks_exact(SLOT_BYTES)).map(|((from, len), slot)| {
            let kept = slot.get(..*len).unwrap_or(slot);
            (*from, kept, *len)
        })
    }

    /// The number of datagrams of the last receive.
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Removes the datagrams of the last receive.
    #[cfg(feature = "model")]
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// Adds a datagram as a receive does; it is lost if there is no room.
    #[cfg(feature = "model")]
    pub fn put(&mut self, from: SocketAddr, bytes: &[u8]) {
        let start = self.filled.len() * SLOT_BYTES;
        if let Some(slot) = self.bytes.get_mut(start..start + SLOT_BYTES) {
            let kept = bytes.len().min(SLOT_BYTES);
            slot[..kept].copy_from_slice(&bytes[..kept]);
            self.filled.push((from, bytes.len()));
        }
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
    /// Number of datagrams that it did not take.
    pub failed: usize,
    /// The system's error for the last of those.
    pub last_error: Option<io::Error>,
}

impl SendReport {
    fn fail(&mut self, error: Errno) {
        self.failed += 1;
        self.last_error = Some(error.into());
    }
}

pub(super) fn receive(socket: &UdpSocket, inbox: &mut Inbox) -> io::Result<()> {
    inbox.filled.clear();
    while inbox.filled.len() < inbox.most {
        let start = inbox.filled.len() * SLOT_BYTES;
        let Some(slot) = inbox.bytes.get_mut(start..start + SLOT_BYTES) else { break };
        // TRUNC gives the true length of a datagram longer than the slot.
        let wait = if start == 0 { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        match rustix::net::recvfrom(socket, slot, wait | RecvFlags::TRUNC) {
            Ok((_, len, from)) => {
                // A datagram without an IP address to answer to cannot come from a UDP socket.
                if let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) {
                    inbox.filled.push((from, len));
                }
            }
            Err(Errno::INTR) => {}
            // Some systems report the refused port of an earlier send here; it says nothing about our own
            // port.
            Err(Errno::CONNREFUSED) => {}
            // No (more) datagrams are queued. EAGAIN equals EWOULDBLOCK, and a read time-out gives it too.
            Err(Errno::AGAIN) => break,
            // The batch received so far is returned first; an error that lasts comes again.
            Err(_) if !inbox.filled.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
pub(super) fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, Vec<u8>)]) -> SendReport {
    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SocketAddrAny};

    let mut report = SendReport::default();
    for batch in datagrams.chunks(SEND_BATCH) {
        let to: Vec<SocketAddrAny> = batch.iter().map(|(to, _)| SocketAddrAny::from(*to)).collect();
        let bytes: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            batch.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut headers: Vec<MMsgHdr<'_>> = to
            .iter()
            .zip(&bytes)
            .zip(&mut controls)
            .map(|((to, bytes), control)| MMsgHdr::new_with_addr(to, bytes, control))
            .collect();
        let mut rest = headers.as_mut_slice();
        while !rest.is_empty() {
            let done = match rustix::net::sendmmsg(socket, rest, SendFlags::empty()) {
                Ok(taken) => {
                    report.sent += taken;
                    // Zero taken without an error does not happen; skipping one keeps the loop finite.
                    taken.max(1)
                }
                Err(Errno::INTR) => 0,
                // The error belongs to the first datagram; the others have not been tried.
                Err(error) => {
                    report.fail(error);
                    1
                }
            };
            rest = rest.get_mut(done..).unwrap_or_default();
        }
    }
    report
}

#[cfg(not(target_os = "linux"))]
pub(super) fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, Vec<u8>)]) -> SendReport {
    let mut report = SendReport::default();
    for (to, bytes) in datagrams {
        loop {
            match rustix::net::sendto(socket, bytes, SendFlags::empty(), to) {
                Ok(_) => report.sent += 1,
                Err(Errno::INTR) => continue,
                Err(error) => report.fail(error),
            }
            break;
        }
    }
    report
}
