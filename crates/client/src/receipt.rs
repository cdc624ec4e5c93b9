//! Receipt of a numbered request: the application's half, and the driver's.

use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::{Condvar, Mistake, Mutex, planted};

use recado_proto::id::{Op, Seq};
use recado_proto::packet::Code;

use super::ending::Ending;
use super::error::{ClientError, explain};

/// The reason why a request has no op.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The request was refused for good. Nothing changed.
    #[error("{}", explain(*.0))]
    Refused(Code),
    /// There is no answer so far, or the client ended before one came. The request was applied, will be, or
    /// never will be. It is kept in the device's files, and the device's next client settles it: it is never
    /// applied twice. (Of a client without files, [`Options::memory_only`](super::Options::memory_only),
    /// nobody settles it.)
    #[error("outcome unknown: no server acknowledged it in time")]
    OutcomeUnknown,
    /// The request had a number whose result the servers hold no longer, because some copy of this device has
    /// acknowledged it. Nobody can know whether it was applied, and it is not sent again.
    #[error("outcome unknown: {}", explain(Code::NumberForgotten))]
    Forgotten,
    /// The client ended, for this reason, before the request was in the device's files, and nothing is sent
    /// before that. It has no effect and never will.
    #[error("not sent: {0}")]
    NotSent(Box<ClientError>),
}

#[derive(Debug, Default)]
struct State {
    seq: Option<Seq>,
    result: Option<Result<Op, Code>>,
    made_channel: bool,
    /// Of a key whose condition did not hold.
    timestamp: Option<Op>,
    /// True if the request is in the device's files, or was sent by a client without files.
    saved: bool,
    over: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The ending of the client that took the request.
    ending: Arc<Ending>,
}

/// The receipt of a numbered request. Dropping it changes nothing for the request.
#[derive(Clone, Debug)]
pub struct Receipt(Arc<Shared>);

impl Receipt {
    /// Waits for the outcome; may be called again after [`ReceiptError::OutcomeUnknown`]. An op means that
    /// the request is fsynced on a quorum of the servers, and in the log of every later primary (P1).
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn wait(&self, timeout: Duration) -> Result<Op, ReceiptError> {
        // A client that has ended numbers no request. One that it has not taken may stay in its channel, with
        // the promise, for as long as the application holds the client.
        let untaken = |state: &State| state.seq.is_none() && self.0.ending.is_set();
        let mut state = self.0.state.lock();
        let open = |state: &mut State| state.result.is_none() && !state.over && !untaken(state);
        // The state shows whether the wait timed out.
        self.0.changed.wait_while_for(&mut state, open, timeout);
        match state.result {
            Some(Err(Code::NumberForgotten)) => Err(ReceiptError::Forgotten),
            Some(result) => result.map_err(ReceiptError::Refused),
            None if untaken(&state) || state.over && !state.saved => {
                Err(ReceiptError::NotSent(Box::new(self.0.ending.error())))
            }
            None => Err(ReceiptError::OutcomeUnknown),
        }
    }

    /// Returns true if the notification is known to have made the open channel that it went to: its first
    /// notification does. Known with the op.
    pub fn made_channel(&self) -> bool {
        self.0.state.lock().made_channel
    }

    /// The timestamp of the value that the key had when a PUT or a DELETE was refused for its condition;
    /// none: it had none. Known with the refusal.
    pub fn timestamp(&self) -> Option<Op> {
        self.0.state.lock().timestamp
    }

    /// The request's number; none until the client has taken the request. It may change while there is no
    /// result: see [`ConnectionEvent::Renumbered`](super::ConnectionEvent::Renumbered).
    pub fn seq(&self) -> Option<Seq> {
        self.0.state.lock().seq
    }
}

/// The driver's half. Dropping it without a result leaves the outcome unknown.
#[derive(Debug)]
pub(super) struct Promise(Arc<Shared>);

impl Promise {
    pub(super) fn numbered(&self, seq: Seq) {
        self.0.state.lock().seq = Some(seq);
    }

    /// The request is in the device's files: a later client settles it if this one does not.
    pub(super) fn saved(&self) {
        self.0.state.lock().saved = true;
    }

    /// The notification made the channel that it went to.
    pub(super) fn made_channel(&self) {
        self.0.state.lock().made_channel = true;
    }

    /// A condition did not hold.
    pub(super) fn timestamp(&self, timestamp: Option<Op>) {
        self.0.state.lock().timestamp = timestamp;
    }

    pub(super) fn settle(self, result: Result<Op, Code>) {
        self.0.state.lock().result = Some(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.state.lock().over = true;
        if !planted(Mistake::EndIsNotTold) {
            self.0.changed.notify_all();
        }
    }
}

/// Both halves for a request to the client with this ending.
pub(super) fn pair(ending: Arc<Ending>) -> (Promise, Receipt) {
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), ending });
    (Promise(shared.clone()), Receipt(shared))
}

#[cfg(test)]
mod tests {
    use super::super::ending::Cause;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pair() -> (Promise, Receipt) {
        super::pair(Arc::default())
    }

    #[test]
    fn a_request_that_an_ended_client_has_not_taken_was_not_sent() {
        let ending = Arc::<Ending>::default();
        let (promise, receipt) = super::pair(ending.clone());
        assert!(matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown)));
        ending.set(Cause::Disconnected);
        assert!(matches!(receipt.wait(LONG), Err(ReceiptError::NotSent(_))), "although its promise is held");
        promise.numbered(Seq(3));
        promise.saved();
        assert!(matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown)), "it was taken");
    }

    #[test]
    fn a_receipt_returns_the_op_or_the_refusal() {
        let (promise, receipt) = pair();
        assert_eq!(receipt.seq(), None);
        promise.numbered(Seq(3));
        assert_eq!(receipt.seq(), Some(Seq(3)));
        assert!(matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown)));
        promise.settle(Ok(Op(9)));
        assert!(matches!(receipt.wait(Duration::ZERO), Ok(Op(9))));

        let (promise, receipt) = pair();
        promise.settle(Err(Code::NotFollowing));
        assert!(matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::Refused(Code::NotFollowing))));
    }

    #[test]
    fn a_saved_request_without_a_result_is_unknown_and_an_unsaved_one_was_not_sent() {
        for (numbered, kept) in [(false, false), (true, false), (false, true), (true, true)] {
            let (promise, receipt) = pair();
            if numbered {
                promise.numbered(Seq(1));
            }
            if kept {
                promise.saved();
            }
            drop(promise);
            match receipt.wait(LONG) {
                Err(ReceiptError::OutcomeUnknown) => assert!(kept, "numbered {numbered}"),
                Err(ReceiptError::NotSent(_)) => assert!(!kept, "numbered {numbered}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
