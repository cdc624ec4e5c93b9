//! The blocking client of `recado-client`, as programs use it: two threads each, and files on a disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use recado_client::{
    Client, ClusterIdentity, Content, Incoming, Name, Options, Receipt, ReceiptError, ReceiveError, Topic,
    Trust,
};
use recado_proto::id::Moment;
use recado_sys::clock::MachineClock;
use recado_sys::threads::{Thread, spawn_named};

use crate::broker::{Broker, Number, Observed};
use crate::failure::Failure;
use crate::interrupt;

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval at which a follower's thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the threads have to report; the first failure ends the run.
type Report = Result<(Moment, Observed), Failure>;

#[derive(Debug)]
struct SendingClient {
    client: Client,
    receipts: Sender<(Number, Receipt)>,
}

/// Blocking clients, of which each follower and each sender has a thread that waits.
#[derive(Debug)]
pub(crate) struct Clients {
    topic: Topic,
    senders: Vec<SendingClient>,
    reports: Receiver<Report>,
    stop: Arc<AtomicBool>,
    threads: Vec<Thread>,
}

/// Where the clients connect to, and where they keep their files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) addresses: &'a [std::net::SocketAddr],
    pub(crate) identity: ClusterIdentity,
    pub(crate) state: &'a Path,
}

impl Place<'_> {
    fn connect(self, profile: &Name, receives: bool) -> Result<Client, Failure> {
        let options = Options::new(profile.clone(), self.addresses.to_vec(), self.state)
            .trust(Trust::Pinned(self.identity.key))
            .timeout(PATIENCE);
        Ok(Client::connect(if receives { options } else { options.send_only() })?)
    }
}

impl Clients {
    /// Connects the senders, opens the topic, and lets the followers follow it.
    pub(crate) fn connect(
        clock: MachineClock,
        place: Place<'_>,
        topic: &Topic,
        senders: &[Name],
        followers: &[Name],
    ) -> Result<Clients, Failure> {
        let (report, reports) = channel();
        let mut clients = Clients {
            topic: topic.clone(),
            senders: Vec::new(),
            reports,
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for profile in senders {
            let client = place.connect(profile, false)?;
            let opened = client.send(Some(topic.clone()), Content::of("opens the channel"))?;
            opened.wait(PATIENCE).map_err(of_receipt)?;
            let (receipts, waiting) = channel();
            let report = report.clone();
            clients.thread(move || wait_for_answers(clock, &waiting, &report))?;
            clients.senders.push(SendingClient { client, receipts });
        }
        for (follower, profile) in followers.iter().enumerate() {
            let client = place.connect(profile, true)?;
            client.follow(topic.clone())?.wait(PATIENCE).map_err(of_receipt)?;
            let (report, stop) = (report.clone(), Arc::clone(&clients.stop));
            clients.thread(move || listen(clock, follower, &client, &stop, &report))?;
        }
        Ok(clients)
    }

    fn thread(&mut self, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        self.threads.push(spawn_named("bench", work).map_err(Failure::io("a thread"))?);
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without senders of receipts their threads end.
        self.senders.clear();
        self.threads.drain(..).for_each(Thread::join);
    }
}

impl Broker for Clients {
    fn send(&mut self, number: Number, size: usize) -> Result<bool, Failure> {
        let Some(sender) = self.senders.get(usize::from(number.sender)) else { return Ok(false) };
        let receipt = sender.client.send(Some(self.topic.clone()), Content::of(number.body(size)))?;
        // Its thread has ended only if it has reported a failure.
        let _ = sender.receipts.send((number, receipt));
        Ok(true)
    }

    fn turn(&mut self, wait: Duration, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        interrupt::check()?;
        match self.reports.recv_timeout(wait) {
            Ok(report) => observed.push(report?),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while let Ok(report) = self.reports.try_recv() {
            observed.push(report?);
        }
        Ok(())
    }

    fn acknowledges(&self) -> bool {
        true
    }
}

/// Waits for the receipts in the order of their requests, which is the order of their answers.
fn wait_for_answers(clock: MachineClock, receipts: &Receiver<(Number, Receipt)>, report: &Sender<Report>) {
    for (number, receipt) in receipts {
        let answer = receipt.wait(PATIENCE).map_err(of_receipt);
        let failed = answer.is_err();
        let told = report.send(answer.map(|_| (clock.now(), Observed::Acked(number))));
        if failed || told.is_err() {
            return;
        }
    }
}

fn listen(clock: MachineClock, follower: usize, client: &Client, stop: &AtomicBool, report: &Sender<Report>) {
    let notifications = client.notifications();
    while !stop.load(Ordering::Relaxed) {
        let incoming = match notifications.recv_timeout(LOOK_EVERY) {
            Ok(incoming) => incoming,
            Err(ReceiveError::Timeout) => continue,
            Err(ReceiveError::Over(error)) => return drop(report.send(Err(error.into()))),
        };
        if let Err(error) = client.ack(incoming.upto()) {
            return drop(report.send(Err(error.into())));
        }
        let Incoming::Notification(notification) = incoming else { continue };
        if let Some(number) = Number::of(notification.content.body.as_bytes())
            && report.send(Ok((clock.now(), Observed::Delivered { follower, number }))).is_err()
        {
            return;
        }
    }
}

fn of_receipt(error: ReceiptError) -> Failure {
    match error {
        ReceiptError::Refused(code) => Failure::Refused(code),
        ReceiptError::OutcomeUnknown => Failure::Late("an answer".into()),
        ReceiptError::Forgotten | ReceiptError::NotSent(_) => Failure::Other(error.to_string()),
    }
}
