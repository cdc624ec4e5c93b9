//! Receive loop of the listener: receives batches, passes on each datagram, checks the stop flag.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use recado_sys::clock::MachineClock;
use recado_sys::net::{Inbox, NetError};
use recado_sys::sync::{Mistake, planted, thread};

use super::log_throttle::LogThrottle;

/// Maximum number of datagrams taken at once, or of what the system joins.
const BATCH: usize = 8;
/// Pause after a failed receive. An interface that is down may come back; until then the loop must not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Receives until the stop flag is set. `take` gets each datagram, and then `end` ends the batch.
///
/// The flag is checked between batches: at the latest after the socket's time-out, or after the pause that
/// follows a failure.
pub(super) fn run(
    port: &'static str,
    stop: &AtomicBool,
    clock: MachineClock,
    mut receive: impl FnMut(&mut Inbox) -> Result<(), NetError>,
    mut take: impl FnMut(SocketAddr, &[u8]),
    mut end: impl FnMut(),
) {
    let mut inbox = Inbox::new(BATCH);
    let mut trouble = LogThrottle::default();
    while !stop.load(Ordering::Relaxed) || planted(Mistake::ListensForEver) {
        if let Err(error) = receive(&mut inbox) {
            if let Some(suppressed) = trouble.allow(clock.now()) {
                tracing::warn!(%error, cause = %error.source, suppressed, port);
            }
            thread::park_timeout(PAUSE);
            continue;
        }
        for (from, bytes) in inbox.datagrams() {
            take(from, bytes);
        }
        end();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, UdpSocket};

    use recado_sys::net::{BoundSocket, NetOp};

    use super::*;

    #[test]
    fn a_socket_that_keeps_failing_is_retried_at_intervals_until_the_stop_flag() {
        let (stop, clock) = (AtomicBool::new(false), MachineClock::start());
        let mut failed = 0;
        let fail = |_: &mut Inbox| {
            failed += 1;
            // The loop sees the flag although no receive succeeds.
            stop.store(failed == 4, Ordering::Relaxed);
            let addr = (Ipv4Addr::LOCALHOST, 1).into();
            Err(NetError { op: NetOp::Receive, addr, source: io::ErrorKind::NetworkDown.into() })
        };
        let began = clock.now();
        run("client", &stop, clock, fail, |_, _| panic!("nothing came"), || ());
        assert_eq!(failed, 4);
        // Only a spurious wake-up can cut a pause short, so four pauses take at least as long as one.
        assert!(clock.now().since(began) >= PAUSE, "{:?}", clock.now().since(began));
    }

    #[test]
    fn what_comes_after_a_failure_is_handed_out() {
        let (stop, clock) = (AtomicBool::new(false), MachineClock::start());
        let socket = BoundSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), Duration::from_millis(20)).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        sender.send_to(b"word", socket.addr()).unwrap();
        let mut failures = 1;
        let receive = |inbox: &mut Inbox| match failures {
            0 => socket.receive(inbox),
            _ => {
                failures -= 1;
                let source = io::ErrorKind::NetworkDown.into();
                Err(NetError { op: NetOp::Receive, addr: socket.addr(), source })
            }
        };
        let mut taken = Vec::new();
        let take = |from, bytes: &[u8]| {
            taken.push((from, bytes.to_vec()));
            stop.store(true, Ordering::Relaxed);
        };
        run("client", &stop, clock, receive, take, || ());
        assert_eq!(taken, [(sender.local_addr().unwrap(), b"word".to_vec())]);
    }
}
