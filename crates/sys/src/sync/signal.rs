//! A signal: what a thread waits for that receives from several channels.
//!
//! Each of these channels is bound to the signal of its receiving thread, whose senders set it. The thread
//! waits for the signal and then looks into all of its channels. It parks at once: crossbeam's `Select` and
//! blocking receives spin and yield first, which takes the cores from the threads that would send.
//!
//! Invariant: a message, or the end of the last sender, that came after the thread has found a channel empty
//! ends its next wait, because it is there before the signal is set, and the signal stays set until a wait.
//! So a thread that heeds the end of a sender waits only after it has found that channel empty and open.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{self, Receiver, SendError, SendTimeoutError, TrySendError};
use super::{Condvar, Mistake, Mutex, planted, unwinds};

/// The signal of one thread. Its clones are the same signal.
#[derive(Clone, Debug)]
pub struct Signal(Arc<State>);

#[derive(Debug)]
struct State {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Default for Signal {
    fn default() -> Signal {
        Signal(Arc::new(State { set: Mutex::new(false), changed: Condvar::new() }))
    }
}

impl Signal {
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
        let before = mem::replace(&mut *self.0.set.lock(), true);
        if !before {
            self.0.changed.notify_all();
        }
    }

    /// Sets the signal for the thread's own next wait: it has not looked into its channels to the end.
    pub fn set_for_next_wait(&self) {
        *self.0.set.lock() = true;
    }

    /// Waits until the signal is set, at most for `patience`, and clears it. If `queued` holds, it does not
    /// wait: for what was left in a channel nobody sets the signal again. Returns true unless the time is
    /// over.
    pub fn wait(&self, patience: Duration, queued: impl Fn() -> bool) -> bool {
        if planted(Mistake::ForgetsTheSignal) {
            *self.0.set.lock() = false;
        }
        let mut set = self.0.set.lock();
        if !*set && !queued() {
            self.0.changed.wait_while_for(&mut set, |set| !*set, patience);
            return mem::take(&mut *set);
        }
        *set = false;
        true
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
