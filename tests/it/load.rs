//! Load on a running cluster with the library's client, recorded in the history that the simulator's checkers
//! verify.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::unbounded;
use parking_lot::Mutex;
use recado_client::{Client, Incoming, Options, Receipt, ReceiptError, ReceiveError, Request};
use recado_proto::id::{ChannelName, Moment, Name, Op, Topic};
use recado_proto::packet::Content;
use recado_sys::clock::MachineClock;

use crate::checkers;
use crate::cluster::{Cluster, PATIENCE};
use crate::history::{AskId, ClientEvent, ClientId, Facts, History};

/// The time after which an unanswered request, or an acknowledged notification that has not arrived, counts
/// as failed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(180);

/// The interval at which a listener checks if the run is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The lowest id of a listener.
const FIRST_LISTENER: u8 = 101;

/// Running senders and listeners.
pub(crate) struct Load {
    clock: MachineClock,
    began: Moment,
    history: Arc<Mutex<History>>,
    stop_sending: Arc<AtomicBool>,
    stop_listening: Arc<AtomicBool>,
    /// Each thread returns its client, which must live until its requests are answered.
    sending: Vec<JoinHandle<Client>>,
    /// The arrival times of each sender's acknowledgements.
    acknowledging: Vec<JoinHandle<Vec<Moment>>>,
    listening: Vec<JoinHandle<()>>,
    /// The number of notifications that each listener has received.
    delivered: Vec<Arc<AtomicU64>>,
    acknowledged: Arc<AtomicU64>,
    controls: BTreeMap<ClientId, Arc<ClientControl>>,
}

/// Commands to a client, for its next step.
#[derive(Debug, Default)]
struct ClientControl {
    /// Stop, with all unanswered or unread data, and start again on the same device.
    restart: AtomicBool,
    /// Take no notifications.
    stall: AtomicBool,
}

/// The result of a run.
pub(crate) struct Outcome {
    /// The arrival times of each sender's acknowledgements.
    pub(crate) acks: Vec<Vec<Moment>>,
}

impl Load {
    /// Starts `senders` clients, which send `per_second` in all, alternately to their feeds and to a common
    /// channel, and `listeners` clients, which follow all of it. Every follow is acknowledged when this
    /// returns.
    pub(crate) fn start(cluster: &Cluster, senders: u8, listeners: u8, per_second: u32) -> Load {
        let mut load = Load {
            clock: cluster.clock(),
            began: Moment::default(),
            history: Arc::default(),
            stop_sending: Arc::default(),
            stop_listening: Arc::default(),
            sending: Vec::new(),
            acknowledging: Vec::new(),
            listening: Vec::new(),
            delivered: Vec::new(),
            acknowledged: Arc::default(),
            controls: BTreeMap::new(),
        };
        let mut clients = Vec::new();
        for n in 1..=senders {
            let profile: Name = format!("sender-{n}").parse().unwrap();
            let client = connect(cluster, &profile, false);
            load.introduce(ClientId(n), &profile, &client, false);
            clients.push((ClientId(n), profile, client));
        }
        if let Some((id, _, client)) = clients.first() {
            load.open_channel(*id, client);
        }
        let topics: Vec<Topic> = clients
            .iter()
            .map(|(_, profile, _)| Topic::Feed(profile.clone()))
            .chain([Topic::Channel(channel())])
            .collect();
        for n in 1..=listeners {
            let id = ClientId(FIRST_LISTENER - 1 + n);
            let profile: Name = format!("listener-{n}").parse().unwrap();
            let client = connect(cluster, &profile, true);
            load.introduce(id, &profile, &client, true);
            for (ask, topic) in (1..).map(AskId).zip(&topics) {
                load.note(id, ClientEvent::Followed { ask, topic: topic.clone() });
                let op = client.follow(topic.clone()).unwrap().wait(ANSWER_PATIENCE).unwrap();
                load.note(id, ClientEvent::Acked { ask, op });
            }
            load.listen(id, client, reopening(cluster, &profile, true));
        }
        let period = Duration::from_secs(1) * u32::from(senders) / per_second;
        load.began = cluster.clock().now();
        for (id, profile, client) in clients {
            load.send(id, &profile, client, reopening(cluster, &profile, false), period);
        }
        load
    }

    pub(crate) fn senders(&self) -> Vec<ClientId> {
        self.controls.keys().copied().filter(|id| id.0 < FIRST_LISTENER).collect()
    }

    pub(crate) fn listeners(&self) -> Vec<ClientId> {
        self.controls.keys().copied().filter(|id| id.0 >= FIRST_LISTENER).collect()
    }

    /// Stops the client, with all unanswered or unread data, and starts it again on the same device.
    pub(crate) fn restart(&self, id: ClientId) {
        self.controls[&id].restart.store(true, Ordering::Relaxed);
    }

    /// Makes a listener stop taking notifications, or take them again.
    pub(crate) fn stall(&self, id: ClientId, stalled: bool) {
        self.controls[&id].stall.store(stalled, Ordering::Relaxed);
    }

    /// Returns true if one of the threads has ended. None does so before it is asked to, except by a panic.
    pub(crate) fn has_failed(&self) -> bool {
        self.sending.iter().any(JoinHandle::is_finished)
            || self.acknowledging.iter().any(JoinHandle::is_finished)
            || self.listening.iter().any(JoinHandle::is_finished)
    }

    /// Returns the history, which keeps growing while the load runs.
    pub(crate) fn history(&self) -> Arc<Mutex<History>> {
        Arc::clone(&self.history)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops the senders, waits until every request is answered and every acknowledged notification has
    /// reached every listener, and checks the history: nothing lost, repeated or out of order.
    pub(crate) fn finish(mut self, cluster: &Cluster) -> Outcome {
        self.stop_sending.store(true, Ordering::Relaxed);
        let clients: Vec<Client> = self.sending.drain(..).map(|thread| thread.join().unwrap()).collect();
        let acks: Vec<Vec<Moment>> =
            self.acknowledging.drain(..).map(|thread| thread.join().unwrap()).collect();
        drop(clients);
        let expected = self.acknowledged();
        let seconds = self.clock.now().since(self.began).as_secs_f64();
        let all_there = cluster.poll(ANSWER_PATIENCE, || {
            self.delivered.iter().all(|delivered| delivered.load(Ordering::Relaxed) >= expected)
        });
        self.stop_listening.store(true, Ordering::Relaxed);
        self.listening.drain(..).for_each(|thread| thread.join().unwrap());
        let history = self.history.lock().clone();
        let verdict = checkers::check(&history).and_then(|()| checkers::all_answered(&history));
        let delivered: Vec<u64> = self.delivered.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(verdict, Ok(()), "{expected} acknowledged, {delivered:?} delivered");
        assert!(all_there, "{expected} acknowledged, {delivered:?} delivered within {ANSWER_PATIENCE:?}");
        let total: u64 = delivered.iter().sum();
        eprintln!(
            "{expected} sends acknowledged in {seconds:.1} s, {total} notifications delivered: 0 acknowledged lost, 0 repeated, \
             0 out of order"
        );
        Outcome { acks }
    }

    fn introduce(&self, id: ClientId, profile: &Name, client: &Client, receives: bool) {
        let facts = Facts { profile: profile.clone(), receives };
        let mut history = self.history.lock();
        history.clients.insert(id, facts);
        history.note(id, ClientEvent::Connected { cursor: client.cursor().unwrap_or(Op::ZERO) });
    }

    /// Creates the channel, which exists from the first notification sent to it.
    fn open_channel(&self, id: ClientId, client: &Client) {
        let (ask, topic, text) = (AskId(0), Topic::Channel(channel()), "the first of its channel".to_owned());
        self.note(id, ClientEvent::Sent { ask, topic: topic.clone(), text: text.clone() });
        let op = client.send(Some(topic), plain(text)).unwrap().wait(ANSWER_PATIENCE).unwrap();
        self.note(id, ClientEvent::Acked { ask, op });
    }

    fn note(&self, id: ClientId, happened: ClientEvent) {
        self.history.lock().note(id, happened);
    }

    fn rein(&mut self, id: ClientId) -> Arc<ClientControl> {
        Arc::clone(self.controls.entry(id).or_default())
    }

    fn send(
        &mut self,
        id: ClientId,
        profile: &Name,
        mut client: Client,
        reopen: impl Fn() -> Client + Send + 'static,
        period: Duration,
    ) {
        let (receipts, answers) = unbounded::<(AskId, Receipt)>();
        let (history, stop, reins) =
            (Arc::clone(&self.history), Arc::clone(&self.stop_sending), self.rein(id));
        let feed = Topic::Feed(profile.clone());
        self.sending.push(spawn(format!("send-{}", id.0), move || {
            let ticks = crossbeam::channel::tick(period);
            for number in 1.. {
                ticks.recv().expect("a tick never ends");
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if reins.restart.swap(false, Ordering::Relaxed) {
                    // The receipts of this client end here. Those of the next client go on.
                    drop(client);
                    client = reopen();
                    for recovered in client.recovered() {
                        receipts
                            .send((asked(&recovered.request), recovered.receipt.clone()))
                            .expect(TAKES_THEM_ALL);
                    }
                }
                let to_channel = number % 2 == 0;
                let topic = if to_channel { Topic::Channel(channel()) } else { feed.clone() };
                let (ask, text) = (AskId(number), format!("{}-{number}", id.0));
                history.lock().note(id, ClientEvent::Sent { ask, topic, text: text.clone() });
                let target = to_channel.then(|| Topic::Channel(channel()));
                let receipt = client.send(target, plain(text)).unwrap();
                receipts.send((ask, receipt)).expect(TAKES_THEM_ALL);
            }
            client
        }));
        let (history, acknowledged, clock) =
            (Arc::clone(&self.history), Arc::clone(&self.acknowledged), self.clock);
        self.acknowledging.push(spawn(format!("acks-{}", id.0), move || {
            let mut acks = Vec::new();
            let mut settled: BTreeMap<AskId, Op> = BTreeMap::new();
            for (ask, receipt) in answers {
                let began = clock.now();
                let happened = match receipt.wait(ANSWER_PATIENCE) {
                    Ok(op) => match settled.insert(ask, op) {
                        None => ClientEvent::Acked { ask, op },
                        // The previous run of the client had the answer, and ended before its files recorded
                        // it.
                        Some(before) => {
                            assert_eq!(before, op, "request {ask:?} of {id:?} has two ops");
                            continue;
                        }
                    },
                    Err(ReceiptError::Refused(code)) => panic!("request {ask:?} of {id:?} refused: {code:?}"),
                    // The client has ended. Its next run carries the request on.
                    Err(ReceiptError::OutcomeUnknown) if clock.now().since(began) < ANSWER_PATIENCE => {
                        continue;
                    }
                    Err(ReceiptError::NotSent(_)) => ClientEvent::Forgot { asks: vec![ask] },
                    Err(error) => panic!("request {ask:?} of {id:?} failed: {error}"),
                };
                if matches!(happened, ClientEvent::Acked { .. }) {
                    acks.push(clock.now());
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                history.lock().note(id, happened);
            }
            acks
        }));
    }

    fn listen(&mut self, id: ClientId, mut client: Client, reopen: impl Fn() -> Client + Send + 'static) {
        let delivered = Arc::new(AtomicU64::new(0));
        self.delivered.push(Arc::clone(&delivered));
        let (history, stop, reins) =
            (Arc::clone(&self.history), Arc::clone(&self.stop_listening), self.rein(id));
        self.listening.push(spawn(format!("listen-{}", id.0), move || {
            let ticks = crossbeam::channel::tick(LOOK_EVERY);
            while !stop.load(Ordering::Relaxed) {
                if reins.restart.swap(false, Ordering::Relaxed) {
                    drop(client);
                    client = reopen();
                }
                if reins.stall.load(Ordering::Relaxed) {
                    ticks.recv().expect("a tick never ends");
                    continue;
                }
                let happened = match client.notifications().recv_timeout(LOOK_EVERY) {
                    Ok(Incoming::Notification(notification)) => {
                        client.ack(notification.op).unwrap();
                        delivered.fetch_add(1, Ordering::Relaxed);
                        ClientEvent::Delivered {
                            op: notification.op,
                            author: notification.author.clone(),
                            topic: notification.topic.clone(),
                            text: notification.content.body.to_string(),
                        }
                    }
                    Ok(Incoming::Gap { after, upto }) => ClientEvent::Gap { after, upto },
                    Err(ReceiveError::Timeout) => continue,
                    Err(ReceiveError::Over(error)) => panic!("{id:?}: {error}"),
                };
                history.lock().note(id, happened);
            }
        }));
    }
}

/// The reason why the channel accepts every receipt.
const TAKES_THEM_ALL: &str = "who waits for the answers takes them all";

/// Returns the number of the request, which is in its text.
fn asked(ask: &Request) -> AskId {
    let Request::Send { content, .. } = ask else { panic!("nothing else is asked: {ask:?}") };
    let number = content.body.as_text().rsplit('-').next().and_then(|number| number.parse().ok());
    AskId(number.unwrap_or_else(|| panic!("no request of the load: {content:?}")))
}

/// Returns a function that opens the device again, which works also without a running server.
fn reopening(cluster: &Cluster, profile: &Name, receives: bool) -> impl Fn() -> Client + Send + 'static {
    let options = options(cluster, profile, receives).remembered(cluster.id);
    move || Client::open(options.clone()).unwrap()
}

/// Checks that the cluster serves: a profile listens, another sends to it, and the notification arrives.
pub(crate) fn round_trip(cluster: &Cluster, text: &str) {
    let (listener, sender): (Name, Name) = ("rita".parse().unwrap(), "sam".parse().unwrap());
    let receiving = connect(cluster, &listener, true);
    let sending = connect(cluster, &sender, false);
    let receipt = sending.send(Some(Topic::Inbox(listener)), plain(text.to_owned())).unwrap();
    let op = receipt.wait(PATIENCE).unwrap();
    loop {
        match receiving.notifications().recv_timeout(PATIENCE) {
            Ok(Incoming::Notification(notification)) if notification.op == op => {
                assert_eq!(notification.content.body.as_text(), text);
                assert_eq!(notification.author, sender);
                break receiving.ack(op).unwrap();
            }
            // A notification of an earlier round.
            Ok(Incoming::Notification(_) | Incoming::Gap { .. }) => {}
            Err(error) => panic!("{text:?}, acknowledged as {op}, did not arrive: {error}"),
        }
    }
}

pub(crate) fn connect(cluster: &Cluster, profile: &Name, receives: bool) -> Client {
    Client::connect(options(cluster, profile, receives)).unwrap()
}

fn options(cluster: &Cluster, profile: &Name, receives: bool) -> Options {
    let options = Options::new(profile.clone(), cluster.addresses(), cluster.dir().join("clients"));
    // The sender's window fills up while there is no primary, so a send may wait that long.
    let options = options.timeout(ANSWER_PATIENCE);
    if receives { options } else { options.send_only() }
}

fn channel() -> ChannelName {
    "load".parse().expect("a good name")
}

pub(crate) fn plain(body: String) -> Content {
    Content::of(body)
}

fn spawn<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name).spawn(work).unwrap()
}
