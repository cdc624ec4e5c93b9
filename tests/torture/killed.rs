//! Tests with clients as separate processes, which are killed (SIGKILL) at any moment and restarted on their
//! files: nothing acknowledged is lost, and nothing is repeated or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{tick, unbounded};
use parking_lot::Mutex;
use recado_client::{Client, Incoming, Options, Receipt, ReceiptError, ReceiveError, Request};
use recado_proto::id::{ClusterId, Name, Op, Topic};

use crate::checkers;
use crate::cluster::{Cluster, lock_out_other_clusters};
use crate::history::{AskId, ClientEvent, ClientId, Facts, History};
use crate::load::{connect, plain};
use crate::rng::Rng;
use crate::run::HEALED;

/// The test function that runs as a client.
const CLIENT: &str = "killed::a_client_in_a_process_of_its_own";
const SENDERS: [ClientId; 2] = [ClientId(1), ClientId(2)];
const LISTENER: ClientId = ClientId(101);
/// The interval at which a listener checks if its parent still runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The number of times that each client is killed.
const ROUNDS: u64 = 4;

fn profile(id: ClientId) -> Name {
    format!("client-{}", id.0).parse().unwrap()
}

/// The events that the processes have reported.
#[derive(Default)]
struct Reports {
    history: History,
    /// The requests of each sender: made, answered, and carried over from an earlier run.
    asked: BTreeMap<ClientId, BTreeSet<u32>>,
    answered: BTreeMap<ClientId, BTreeMap<u32, Op>>,
    carried: BTreeMap<ClientId, BTreeSet<u32>>,
    carried_in_all: usize,
    delivered: usize,
    /// The cursor of the listener's application.
    cursor: Option<Op>,
    failed: Option<String>,
}

impl Reports {
    fn line(&mut self, id: ClientId, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.clone().map_while(|word| word.parse().ok()).collect();
        let ask = numbers.first().map(|number| AskId(*number as u32));
        match (kind, ask, numbers.as_slice()) {
            ("sent", Some(ask), _) => {
                let (topic, text) = (Topic::Feed(profile(id)), format!("{}-{}", id.0, ask.0));
                self.asked.entry(id).or_default().insert(ask.0);
                self.history.note(id, ClientEvent::Sent { ask, topic, text });
            }
            ("carried", Some(ask), _) => {
                self.carried.entry(id).or_default().insert(ask.0);
                self.carried_in_all += 1;
            }
            ("up", ..) => self.forgot(id),
            ("acked", Some(ask), [_, op]) => {
                match self.answered.entry(id).or_default().insert(ask.0, Op(*op)) {
                    None => self.history.note(id, ClientEvent::Acked { ask, op: Op(*op) }),
                    // An earlier run reported it, and was killed before its files recorded it.
                    Some(before) if before == Op(*op) => {}
                    Some(before) => {
                        self.failed = Some(format!("{id:?} {ask:?} has two ops, {before} and {op}"))
                    }
                }
            }
            ("got", _, [op, author]) => {
                let author = profile(ClientId(*author as u8));
                let (topic, text) =
                    (Topic::Feed(author.clone()), words.nth(2).unwrap_or_default().to_owned());
                self.history.note(id, ClientEvent::Delivered { op: Op(*op), author, topic, text });
                self.cursor = Some(Op(*op));
                self.delivered += 1;
            }
            ("gap", _, [after, upto]) => {
                self.history.note(id, ClientEvent::Gap { after: Op(*after), upto: Op(*upto) });
                self.cursor = Some(Op(*upto));
            }
            _ => self.failed = Some(format!("{id:?} says {line:?}")),
        }
    }

    /// Handles the start of a run that has listed the requests it carries on. Earlier requests that are
    /// neither answered nor carried had not reached the files; or their answer was recorded there but not
    /// reported.
    fn forgot(&mut self, id: ClientId) {
        let (Some(asked), Some(answered)) = (self.asked.get_mut(&id), self.answered.get_mut(&id)) else {
            return;
        };
        let carried = self.carried.remove(&id).unwrap_or_default();
        let gone = |ask: &u32| !answered.contains_key(ask) && !carried.contains(ask);
        let asks: Vec<u32> = asked.iter().copied().filter(gone).collect();
        asked.retain(|ask| !asks.contains(ask));
        self.history.note(id, ClientEvent::Forgot { asks: asks.into_iter().map(AskId).collect() });
    }

    fn acknowledged(&self) -> usize {
        self.answered.values().map(BTreeMap::len).sum()
    }
}

/// One run of a client.
struct ClientProcess {
    process: Child,
    hears: JoinHandle<()>,
}

struct Clients<'a> {
    cluster: &'a Cluster,
    heard: Arc<Mutex<Reports>>,
    processes: BTreeMap<ClientId, ClientProcess>,
}

impl Clients<'_> {
    /// Starts the client: its first run, or a later one.
    fn begin(&mut self, id: ClientId) {
        let (first, cursor) = {
            let heard = self.heard.lock();
            let last = heard.history.of(id).filter_map(|happened| match happened {
                ClientEvent::Sent { ask, .. } => Some(ask.0),
                _ => None,
            });
            (last.max().unwrap_or(0) + 1, heard.cursor)
        };
        let servers: Vec<String> = self.cluster.addresses().iter().map(ToString::to_string).collect();
        let mut program = Command::new(std::env::current_exe().unwrap());
        program
            .args(["--exact", CLIENT, "--ignored", "--nocapture"])
            .env("TORTURE_CLIENT", id.0.to_string())
            .env("TORTURE_CLIENT_STATE", self.cluster.dir().join("clients"))
            .env("TORTURE_CLIENT_SERVERS", servers.join(","))
            .env("TORTURE_CLIENT_CLUSTER", self.cluster.id.0.to_string())
            .env("TORTURE_CLIENT_FIRST", first.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let (LISTENER, Some(cursor)) = (id, cursor) {
            program.env("TORTURE_CLIENT_CURSOR", cursor.0.to_string());
        }
        let mut process = program.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let heard = Arc::clone(&self.heard);
        let hears = Builder::new().name(format!("hears-{}", id.0)).spawn(move || {
            // Everything that was written before the end is in the pipe. A line that is cut off is ignored.
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if let Some(said) = line.strip_prefix("| ").and_then(|said| said.strip_suffix(" .")) {
                    heard.lock().line(id, said);
                }
            }
        });
        self.processes.insert(id, ClientProcess { process, hears: hears.unwrap() });
    }

    /// Kills the client (SIGKILL). All that it reported is recorded when this returns.
    fn kill(&mut self, id: ClientId) {
        let mut life = self.processes.remove(&id).expect("it runs");
        life.process.kill().unwrap();
        life.process.wait().unwrap();
        life.hears.join().unwrap();
    }

    /// Waits until `done` holds for the reports.
    fn until(&mut self, what: &str, done: impl Fn(&Reports) -> bool) {
        let came = self.cluster.poll(HEALED, || {
            let heard = self.heard.lock();
            assert_eq!(heard.failed, None);
            done(&heard)
        });
        assert!(came, "{what}: not within {HEALED:?}");
    }

    /// Waits until this client has made `more` progress.
    fn under_way(&mut self, id: ClientId, more: usize) {
        let done = move |heard: &Reports| match id {
            LISTENER => heard.delivered,
            sender => heard.answered.get(&sender).map_or(0, BTreeMap::len),
        };
        let before = done(&self.heard.lock());
        self.until("a client gets on", move |heard| done(heard) >= before + more);
    }
}

#[test]
fn clients_killed_in_the_middle_lose_repeat_and_reorder_nothing() {
    let _alone = lock_out_other_clusters();
    let seed = crate::number("TORTURE_SEED", 1);
    let mut rng = Rng::seeded(seed);
    let mut cluster = Cluster::init(3);
    cluster.keep_on_failure();
    cluster.start_all();
    cluster.wait_ready_within(HEALED);
    let heard: Arc<Mutex<Reports>> = Arc::default();
    {
        let mut heard = heard.lock();
        for id in SENDERS {
            drop(connect(&cluster, &profile(id), false));
            heard.history.clients.insert(id, Facts { profile: profile(id), receives: false });
            heard.answered.insert(id, BTreeMap::new());
        }
        let listener = connect(&cluster, &profile(LISTENER), true);
        heard.history.clients.insert(LISTENER, Facts { profile: profile(LISTENER), receives: true });
        let cursor = listener.cursor().unwrap_or(Op::ZERO);
        heard.history.note(LISTENER, ClientEvent::Connected { cursor });
        for (ask, id) in (1..).map(AskId).zip(SENDERS) {
            let topic = Topic::Feed(profile(id));
            heard.history.note(LISTENER, ClientEvent::Followed { ask, topic: topic.clone() });
            let op = listener.follow(topic).unwrap().wait(HEALED).unwrap();
            heard.history.note(LISTENER, ClientEvent::Acked { ask, op });
        }
    }
    let all = [SENDERS[0], SENDERS[1], LISTENER];
    for round in 0..ROUNDS {
        let mut clients =
            Clients { cluster: &cluster, heard: Arc::clone(&heard), processes: BTreeMap::new() };
        all.iter().for_each(|id| clients.begin(*id));
        for id in all {
            clients.under_way(id, rng.range(20, 60) as usize);
            clients.kill(id);
            clients.begin(id);
        }
        all.iter().for_each(|id| clients.under_way(*id, 20));
        let mut lives = std::mem::take(&mut clients.processes);
        drop(clients);
        // Some requests are left unanswered by the primary's death, and others have reached no server.
        let primary = cluster.wait_primary();
        cluster.kill(primary);
        cluster.poll(Duration::from_millis(rng.below(60)), || false);
        let mut clients =
            Clients { cluster: &cluster, heard: Arc::clone(&heard), processes: std::mem::take(&mut lives) };
        all.iter().for_each(|id| clients.kill(*id));
        drop(clients);
        cluster.start(primary);
        eprintln!("seed {seed}, round {round}: {} acknowledged", heard.lock().acknowledged());
    }
    cluster.wait_ready_within(HEALED);

    let mut clients = Clients { cluster: &cluster, heard: Arc::clone(&heard), processes: BTreeMap::new() };
    all.iter().for_each(|id| clients.begin(*id));
    all.iter().for_each(|id| clients.under_way(*id, 20));
    for id in SENDERS {
        let mut life = clients.processes.remove(&id).expect("it runs");
        drop(life.process.stdin.take());
        assert!(life.process.wait().unwrap().success(), "{id:?} has answers to all that it asked");
        life.hears.join().unwrap();
    }
    clients.until("all is delivered", |heard| heard.delivered >= heard.acknowledged());
    clients.kill(LISTENER);
    let heard = heard.lock();
    let verdict = checkers::check(&heard.history).and_then(|()| checkers::all_answered(&heard.history));
    assert_eq!(verdict, Ok(()), "seed {seed}");
    let (acknowledged, carried) = (heard.acknowledged(), heard.carried_in_all);
    println!(
        "seed {seed}: clients killed {} times, {acknowledged} acknowledged, {} delivered, {carried} requests carried \
         over: 0 lost, 0 repeated, 0 out of order",
        ROUNDS * 6,
        heard.delivered
    );
    assert!(carried > 0, "no kill came in the middle of a send");
}

/// Writes a report as a line with markers on both sides, so that it is recognised among other output, and a
/// line cut off by a kill is not.
fn say(what: &str) {
    let line = format!("\n| {what} .\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

#[test]
#[ignore = "is run by the test above as a process of its own"]
fn a_client_in_a_process_of_its_own() {
    let told = |name: &str| std::env::var(format!("TORTURE_CLIENT{name}")).ok();
    let Some(id) = told("").map(|id| ClientId(id.parse().unwrap())) else { return };
    let servers = told("_SERVERS").unwrap().split(',').map(|server| server.parse().unwrap()).collect();
    let cluster = ClusterId(told("_CLUSTER").unwrap().parse().unwrap());
    let options =
        Options::new(profile(id), servers, told("_STATE").unwrap()).timeout(HEALED).remembered(cluster);
    if id == LISTENER {
        let cursor = told("_CURSOR").map(|op| Op(op.parse().unwrap()));
        listen(Client::open(cursor.map_or(options.clone(), |cursor| options.cursor(cursor))).unwrap());
    } else {
        send(id, Client::open(options.send_only()).unwrap(), told("_FIRST").unwrap().parse().unwrap());
    }
}

/// Returns a flag that is set when the parent has closed this process's standard input.
fn ends_with_its_parent() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let waits = Builder::new().name("stdin".into()).spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        ends.store(true, Ordering::Relaxed);
    });
    // The thread ends with the process.
    drop(waits.unwrap());
    over
}

/// Sends in bursts until the parent closes standard input, then waits for the unanswered requests.
fn send(id: ClientId, client: Client, first: u32) {
    let over = ends_with_its_parent();
    let (receipts, answers) = unbounded::<(u32, Receipt)>();
    for carried in client.recovered() {
        let Request::Send { content, .. } = &carried.request else { panic!("{:?}", carried.request) };
        let number = content.body.as_text().rsplit('-').next().unwrap().parse().unwrap();
        say(&format!("carried {number}"));
        receipts.send((number, carried.receipt.clone())).unwrap();
    }
    say("up");
    let acks = Builder::new().name("acks".into()).spawn(move || {
        for (number, receipt) in answers {
            match receipt.wait(HEALED) {
                Ok(op) => say(&format!("acked {number} {}", op.0)),
                Err(error @ ReceiptError::Refused(_)) => say(&format!("refused {number} {error}")),
                Err(error) => say(&format!("failed {number} {error}")),
            }
        }
    });
    let ticks = tick(Duration::from_millis(20));
    for number in first.. {
        if number % 8 == 0 {
            ticks.recv().unwrap();
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
        say(&format!("sent {number}"));
        let receipt = client.send(None, plain(format!("{}-{number}", id.0))).unwrap();
        receipts.send((number, receipt)).unwrap();
    }
    drop(receipts);
    acks.unwrap().join().unwrap();
}

/// Reports each notification, and then acknowledges it, until the process is killed or its parent has ended.
fn listen(client: Client) {
    let over = ends_with_its_parent();
    while !over.load(Ordering::Relaxed) {
        match client.notifications().recv_timeout(LOOK_EVERY) {
            Ok(Incoming::Notification(it)) => {
                let author = it.author.as_str().rsplit('-').next().unwrap_or_default();
                say(&format!("got {} {author} {}", it.op.0, it.content.body));
                client.ack(it.op).unwrap();
            }
            Ok(Incoming::Gap { after, upto }) => say(&format!("gap {} {}", after.0, upto.0)),
            Err(ReceiveError::Timeout) => {}
            Err(ReceiveError::Over(error)) => panic!("{error}"),
        }
    }
}
