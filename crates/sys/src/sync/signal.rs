//! A signal: what a thread waits for that receives from several channels.
//!
//! Each of these channels is bound to the signal of its receiving thread, whose senders set it. The thread
//! waits for the signal and then looks into all of its channels. It parks at once: crossbeam's `Select` and
//! blocking receives spin and yield first, which takes the cores from the threads that would send.
//!
//! Invariant: a message, or the end of the last sender, that came after the thread has found a channel empty
//! ends its next wait, because it is there before the signal is set, and the signal stays set until a wait.
//! So a thread that heeds the end of a sender waits only after it has found that channel empty and open.
//!
//! A thread may wait for a socket and its signal together ([`SocketSignal`]). Then it waits in the
//! system for the socket and a [`Waker`], and says so under the lock of the signal, which it has just found
//! not set. The first to set the signal while it says so wakes it. Nobody makes a system call for a thread
//! that runs.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{self, Receiver, SendError, SendTimeoutError, TrySendError};
use super::{BoundSocket, Condvar, Mistake, Mutex, Waker, planted, unwinds};
use crate::net::NetError;

/// The signal of one thread. Its clones are the same signal.
#[derive(Clone, Debug)]
pub struct Signal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Of a [`SocketSignal`].
    waker: Option<Arc<Waker>>,
}

#[derive(Debug, Default)]
struct State {
    set: bool,
    /// The thread waits for its socket, or is about to: only the waker wakes it.
    at_socket: bool,
}

impl Default for Signal {
    fn default() -> Signal {
        Signal::new(None)
    }
}

impl Signal {
    fn new(waker: Option<Arc<Waker>>) -> Signal {
        Signal(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), waker }))
    }

    /// Creates a channel with `capacity` places that is bound to this signal.
    pub fn bounded<T>(&self, capacity: usize) -> (Sender<T>, Receiver<T>) {
        let (queue, receiver) = channel::bounded(capacity);
        (Sender { queue, signal: Guard(self.clone()) }, receiver)
    }

    /// Sets the signal.
    fn set(&self) {
        if unwinds() {
            return;
        }
        let mut state = self.0.state.lock();
        let (before, at_socket) = (mem::replace(&mut state.set, true), state.at_socket);
        drop(state);
        if before {
            return;
        }
        match &self.0.waker {
            Some(waker) if at_socket => waker.wake(),
            _ => {
                self.0.changed.notify_all();
            }
        }
    }

    /// Sets the signal for the thread's own next wait: it has not looked into its channels to the end.
    pub fn set_for_next_wait(&self) {
        self.0.state.lock().set = true;
    }

    /// Waits until the signal is set, at most for `patience`, and clears it. If `queued` holds, it does not
    /// wait: for what was left in a channel nobody sets the signal again. Returns true unless the time is
    /// over.
    pub fn wait(&self, patience: Duration, queued: impl Fn() -> bool) -> bool {
        let mut state = self.0.state.lock();
        if planted(Mistake::ForgetsTheSignal) {
            state.set = false;
        }
        if !state.set && !queued() {
            self.0.changed.wait_while_for(&mut state, |state| !state.set, patience);
            return mem::take(&mut state.set);
        }
        state.set = false;
        true
    }
}

/// A signal whose thread also waits for a socket. Its clones are the same signal.
#[derive(Clone, Debug)]
pub struct SocketSignal {
    signal: Signal,
    waker: Arc<Waker>,
}

impl SocketSignal {
    /// Creates a signal.
    ///
    /// # Errors
    /// The process may open no more files.
    pub fn new() -> io::Result<SocketSignal> {
        let waker = Arc::new(Waker::new()?);
        Ok(SocketSignal { signal: Signal::new(Some(Arc::clone(&waker))), waker })
    }

    /// The signal, to bind channels to, or to wait for without the socket.
    pub fn signal(&self) -> &Signal {
        &self.signal
    }

    /// As [`Signal::wait`], and a datagram ends the wait too. Returns true if the socket has datagrams, or
    /// may have some: it is not looked at if there is no need to wait.
    ///
    /// # Errors
    /// [`NetError`] if the socket is not usable any more.
    pub fn wait(
        &self,
        socket: &BoundSocket,
        patience: Duration,
        queued: impl Fn() -> bool,
    ) -> Result<bool, NetError> {
        let mut state = self.signal.0.state.lock();
        if planted(Mistake::ForgetsTheSignal) {
            state.set = false;
        }
        if mem::take(&mut state.set) || queued() {
            return Ok(true);
        }
        if planted(Mistake::WaitsUnannounced) {
            drop(state);
            state = self.signal.0.state.lock();
        }
        state.at_socket = true;
        drop(state);
        let has = socket.wait(&self.waker, patience);
        *self.signal.0.state.lock() = State::default();
        has
    }
}

/// The sending end of a channel that is bound to a signal.
#[derive(Debug)]
pub struct Sender<T> {
    // Dropped in this order, so that the signal is set when the channel counts one sender less.
    queue: channel::Sender<T>,
    signal: Guard,
}

/// Sets its signal when it is dropped.
#[derive(Clone, Debug)]
struct Guard(Signal);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { queue: self.queue.clone(), signal: self.signal.clone() }
    }
}

impl<T> Sender<T> {
    /// Sends a message, and waits for room.
    ///
    /// # Errors
    /// The receiver is gone; the error has the message.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.queue.send(message)?;
        self.signal.0.set();
        Ok(())
    }

    /// Sends a message, and waits for room, at most for `patience`.
    ///
    /// # Errors
    /// There was no room, or the receiver is gone; the error has the message.
    pub fn send_timeout(&self, message: T, patience: Duration) -> Result<(), SendTimeoutError<T>> {
        self.queue.send_timeout(message, patience)?;
        self.signal.0.set();
        Ok(())
    }

    /// Queues a message if there is room, without setting the signal: the sender calls [`Sender::wake`] when
    /// it has queued what it has. A receiver that is woken by the first of several messages may take the core
    /// from their sender, and handle them one by one.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone; the error has the message.
    pub fn try_queue(&self, message: T) -> Result<(), TrySendError<T>> {
        self.queue.try_send(message)
    }

    /// Sets the signal: the receiver handles what was queued.
    pub fn wake(&self) {
        self.signal.0.set();
    }

    /// Sends a message if there is room.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone; the error has the message.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.try_queue(message)?;
        self.wake();
        Ok(())
    }

    /// The number of messages in the channel.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns true if the channel holds no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(all(test, feature = "model"))]
#[expect(clippy::unwrap_used, reason = "a test ends where it fails")]
mod tests {
    use crate::net::Inbox;
    use crate::sync::channel::TryRecvError;
    use crate::sync::model::{TimeOuts, explore, seeds_to_find};
    use crate::threads::{Thread, spawn_named};

    use super::*;

    /// Longer than any test.
    const AN_HOUR: Duration = Duration::from_secs(3_600);
    const EACH: u64 = 3;

    /// Two threads send to one by a channel each, with fewer places than messages, and end.
    fn two_channels() {
        let signal = Signal::default();
        let channels = [signal.bounded(1), signal.bounded(2)];
        let [(first, mut left), (second, mut right)] = channels.map(|(to, from)| (to, Some(from)));
        let sends = |sender: Sender<u64>| {
            let work = move || (0..EACH).for_each(|n| sender.send(n).unwrap());
            spawn_named("sends", work).unwrap()
        };
        let threads = [sends(first), sends(second)];
        let mut taken = Vec::new();
        loop {
            let mut looks_again = false;
            for open in [&mut left, &mut right] {
                match open.as_ref().map(Receiver::try_recv) {
                    Some(Ok(n)) => {
                        taken.push(n);
                        looks_again = true;
                    }
                    Some(Err(TryRecvError::Disconnected)) => *open = None,
                    Some(Err(TryRecvError::Empty)) | None => {}
                }
            }
            if left.is_none() && right.is_none() {
                break;
            }
            let queued = |of: &Option<Receiver<u64>>| of.as_ref().is_some_and(|of| !of.is_empty());
            if !looks_again {
                signal.wait(AN_HOUR, || queued(&left) || queued(&right));
            }
        }
        threads.into_iter().for_each(Thread::join);
        taken.sort_unstable();
        assert_eq!(taken, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_thread_that_waits_misses_no_message_and_no_end_of_a_sender() {
        explore(TimeOuts::Never, 300, two_channels);
        let seed = seeds_to_find(Mistake::ForgetsTheSignal, TimeOuts::Never, 300, two_channels);
        eprintln!("{:?} is found by seed {seed:?}", Mistake::ForgetsTheSignal);
        assert!(seed.is_some());
    }

    /// As [`two_channels`], and a third thread sends to a socket of the one that waits.
    fn a_channel_and_a_socket() {
        let local = |port| ([127, 0, 0, 1], port).into();
        let socket = BoundSocket::bind(local(1), AN_HOUR).unwrap();
        let signal = SocketSignal::new().unwrap();
        let (sender, receiver) = signal.signal().bounded(1);
        let sends = spawn_named("sends", move || (0..EACH).for_each(|n| sender.send(n).unwrap()));
        let writes = spawn_named("writes", move || {
            let socket = BoundSocket::bind(local(2), AN_HOUR).unwrap();
            (0..EACH).for_each(|n| drop(socket.send(&[(local(1), vec![n as u8])])));
        });
        let (mut sent, mut written, mut open) = (Vec::new(), Vec::new(), true);
        let mut inbox = Inbox::new(2);
        while open || written.len() < EACH as usize {
            let has = match open {
                true => signal.wait(&socket, AN_HOUR, || !receiver.is_empty()).unwrap(),
                false => signal.wait(&socket, AN_HOUR, || false).unwrap(),
            };
            if has {
                socket.take(&mut inbox).unwrap();
                written.extend(inbox.datagrams().map(|(_, bytes)| u64::from(bytes[0])));
            }
            loop {
                match receiver.try_recv() {
                    Ok(n) => sent.push(n),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
            }
        }
        [sends, writes].into_iter().for_each(|thread| thread.unwrap().join());
        assert_eq!((sent, written), ((0..EACH).collect(), (0..EACH).collect()));
    }

    #[test]
    fn a_thread_that_waits_for_a_socket_too_misses_no_message_no_end_of_a_sender_and_no_datagram() {
        explore(TimeOuts::Never, 300, a_channel_and_a_socket);
        for mistake in [Mistake::ForgetsTheSignal, Mistake::WaitsUnannounced] {
            let seed = seeds_to_find(mistake, TimeOuts::Never, 300, a_channel_and_a_socket);
            eprintln!("{mistake:?} is found by seed {seed:?}");
            assert!(seed.is_some(), "{mistake:?}");
        }
    }

    #[test]
    fn a_wait_for_a_socket_ends_with_a_datagram_with_a_message_or_in_time() {
        let socket = BoundSocket::bind(([127, 0, 0, 1], 0).into(), AN_HOUR).unwrap();
        let signal = SocketSignal::new().unwrap();
        let (sender, receiver) = signal.signal().bounded(4);
        let mut inbox = Inbox::new(1);
        let moment = Duration::from_millis(1);
        assert!(!signal.wait(&socket, moment, || false).unwrap(), "nothing came");
        socket.send(&[(socket.addr(), vec![1])]);
        assert!(signal.wait(&socket, AN_HOUR, || false).unwrap());
        socket.take(&mut inbox).unwrap();
        assert_eq!(inbox.datagrams().count(), 1);
        let sends = spawn_named("sends", move || {
            // Before the wait or during it.
            sender.send(1).unwrap();
            sender.send(2).unwrap();
        });
        while receiver.len() < 2 {
            signal.wait(&socket, AN_HOUR, || false).unwrap();
        }
        sends.unwrap().join();
        // The end of the sender may be signalled still.
        signal.wait(&socket, moment, || false).unwrap();
        assert!(!signal.wait(&socket, moment, || false).unwrap(), "what woke it is cleared");
    }

    #[test]
    fn a_wait_ends_in_time_or_with_what_is_queued_already() {
        let signal = Signal::default();
        let (sender, receiver) = signal.bounded(4);
        assert!(!signal.wait(Duration::from_millis(1), || false), "nothing came");
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert!(signal.wait(AN_HOUR, || false));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert!(signal.wait(AN_HOUR, || !receiver.is_empty()), "2 was signalled before the wait");
    }
}
