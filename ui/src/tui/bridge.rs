//! Between the screen and the client: the only file of the screen that talks to [`Client`].
//!
//! | thread | does |
//! |---|---|
//! | recado-link | opens the client, hands it requests, tells how they ended |
//! | recado-stream | takes the stream of notifications; waits while the screen has no room |
//! | recado-ask | asks questions one after the other; each may wait for an answer |
//! | recado-pulse | asks every server how it is, once a second |

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TrySendError, never};
use crossbeam::select;
use recado::client::{
    Ask, Client, ClientError, HistoryRange, Listing, Name, Op, Options, Receipt, ReceiptError, Topic, Trust,
    status,
};

use super::event::{AskId, Link, Opened};
use super::kept::{Kept, Store};
use super::place::Place;
use super::runtime::spawn;

/// Requests and questions that wait. Who asks for more is told so.
const WAITING_MAX: usize = 512;

/// What the client tells and the screen has not taken yet; the threads wait when it is full.
const TOLD_MAX: usize = 1_024;

/// How long a question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to find a server.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// While something is on its way, its receipt is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Between two rounds of STATUS, and how long one waits for the slowest server.
const PULSE_EVERY: Duration = Duration::from_secs(1);
const PULSE_PATIENCE: Duration = Duration::from_millis(600);

/// Notifications of a page of the past.
const PAGE: usize = 200;

/// The end of the client is waited for no longer: it needs half a second to take leave.
const LEAVE: Duration = Duration::from_millis(1_200);

/// What the screen wants of the client.
#[derive(Debug)]
pub(crate) enum Request {
    Open(Name),
    Ask(AskId, Ask),
    /// Write down what the screen remembers; then everything up to the op, if there is one, is taken.
    Keep(Arc<Kept>, Option<Op>),
    Question(Question),
}

/// What is answered by a question to the servers.
#[derive(Debug)]
pub(crate) enum Question {
    History(Place, HistoryRange),
    List(Listing),
    Info(Name),
}

/// With what clients are opened.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// As configured.
    pub(crate) servers: Vec<SocketAddr>,
    /// The client's files.
    pub(crate) state: PathBuf,
    /// Which clusters: nobody is asked while the screen stands.
    pub(crate) trust: Trust,
    pub(crate) store: Store,
}

/// The screen's end of the bridge.
pub(crate) struct Bridge {
    requests: Option<Sender<Request>>,
    pub(crate) told: Receiver<Link>,
    over: Receiver<()>,
}

impl Bridge {
    /// Starts the threads; nothing is opened before it is asked for.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(access: Access) -> std::io::Result<Bridge> {
        let (requests_in, requests) = channel::bounded(WAITING_MAX);
        let (tell, told) = channel::bounded(TOLD_MAX);
        let (over_in, over) = channel::bounded::<()>(0);
        let (found_in, found) = channel::bounded(1);
        let pulse = Pulse { access: access.clone(), tell: tell.clone(), over: over.clone(), found: found_in };
        spawn("recado-pulse", move || pulse.run())?;
        spawn("recado-link", move || {
            // Dropped at the end of this thread: whoever waits for it wakes up.
            let _over = over_in;
            Linking { access, requests, tell, found }.run();
        })?;
        Ok(Bridge { requests: Some(requests_in), told, over })
    }

    /// Hands over a request; what there is no room for comes back.
    pub(crate) fn request(&self, request: Request) -> Result<(), Request> {
        match &self.requests {
            Some(requests) => requests.try_send(request).map_err(|error| match error {
                TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
            }),
            None => Err(request),
        }
    }

    /// Ends the session, and waits a moment until the servers know.
    pub(crate) fn leave(mut self) {
        self.requests = None;
        let deadline = channel::after(LEAVE);
        loop {
            select! {
                // The threads may be waiting for room to tell something.
                recv(self.told) -> told => if told.is_err() { return },
                recv(self.over) -> _ => return,
                recv(deadline) -> _ => return,
            }
        }
    }
}

struct Linking {
    access: Access,
    requests: Receiver<Request>,
    tell: Sender<Link>,
    /// The servers there are, when others answer than before.
    found: Receiver<Vec<SocketAddr>>,
}

/// The screen has gone.
struct Gone;

impl Linking {
    fn run(&self) {
        let mut profile = None;
        loop {
            let next = match profile.take() {
                Some(profile) => profile,
                None => match self.requests.recv() {
                    Ok(Request::Open(profile)) => profile,
                    Ok(other) => {
                        self.decline(other);
                        continue;
                    }
                    Err(_) => return,
                },
            };
            let served = match self.open(&next) {
                Ok(Some(client)) => self.serve(&Arc::new(client)),
                Ok(None) => Ok(None),
                Err(Gone) => return,
            };
            match served {
                Ok(again) => profile = again,
                Err(Gone) => return,
            }
        }
    }

    fn tell(&self, link: Link) -> Result<(), Gone> {
        self.tell.send(link).map_err(|_| Gone)
    }

    /// There is no client: nothing can be done, nor kept.
    fn decline(&self, request: Request) {
        let why = "there is no session".to_owned();
        let link = match request {
            Request::Open(_) | Request::Keep(..) => return,
            Request::Ask(id, _) => Link::NotTaken(id, why),
            Request::Question(question) => unanswered(question, why),
        };
        let _ = self.tell.send(link);
    }

    /// A client, whether a server answers or the cluster is known from before; tried until then.
    fn open(&self, profile: &Name) -> Result<Option<Client>, Gone> {
        loop {
            let known = self.access.store.known(&self.access.servers);
            let mut servers = self.access.servers.clone();
            servers.extend(known.iter().flat_map(|known| known.servers.iter().copied()));
            servers.sort_unstable();
            servers.dedup();
            let options = Options::new(profile.clone(), servers, &self.access.state)
                .trust(self.access.trust.clone())
                .timeout(PATIENCE);
            let opened = match known {
                Some(known) => Client::open(options.remembered(known.cluster)),
                None => Client::open(options.timeout(TRY_EVERY)),
            };
            match opened {
                Ok(client) => return Ok(Some(client)),
                Err(error @ ClientError::Unreachable { .. }) => {
                    self.tell(Link::NoServer(error.to_string()))?;
                    match self.requests.recv_timeout(TRY_EVERY) {
                        Ok(request) => self.decline(request),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Err(Gone),
                    }
                }
                Err(error) => {
                    self.tell(Link::Ended(error.to_string()))?;
                    return Ok(None);
                }
            }
        }
    }

    /// Until the session ends, or the screen; the next profile to open, if it was asked for.
    fn serve(&self, client: &Arc<Client>) -> Result<Option<Name>, Gone> {
        let mut receipts: Vec<(AskId, Receipt)> = Vec::new();
        let mut carried = Vec::new();
        for (number, one) in (1..).zip(client.carried()) {
            receipts.push((AskId(number), one.receipt.clone()));
            carried.push((AskId(number), one.ask.clone()));
        }
        let (cluster, profile) = (client.cluster(), client.profile().clone());
        let kept = self.access.store.read(cluster, &profile, client.device().slot);
        self.tell(Link::Opened(Box::new(Opened { profile, cluster, carried, kept })))?;
        let questions = self.start_threads(client).map_err(|_| Gone)?;
        let events = client.connection_events();
        let mut over = false;
        loop {
            let idle = never();
            let look = if receipts.is_empty() { idle } else { channel::after(LOOK_EVERY) };
            select! {
                recv(self.requests) -> request => match request.map_err(|_| Gone)? {
                    Request::Open(profile) if over => return Ok(Some(profile)),
                    Request::Open(_) => {}
                    request if over => self.decline(request),
                    Request::Ask(id, ask) => match client.ask(ask) {
                        Ok(receipt) => receipts.push((id, receipt)),
                        Err(error) => self.tell(Link::NotTaken(id, error.to_string()))?,
                    },
                    Request::Keep(kept, upto) => self.keep(client, &kept, upto)?,
                    Request::Question(question) => {
                        if let Err(error) = questions.try_send(question) {
                            let why = "too many questions wait for an answer".to_owned();
                            self.tell(unanswered(error.into_inner(), why))?;
                        }
                    }
                },
                recv(events) -> event => match event {
                    Ok(event) => self.tell(Link::Connection(event))?,
                    Err(_) => over = true,
                },
                recv(self.found) -> found => if let Ok(servers) = found {
                    // Not to be remembered is no reason to stop; the next change tries again.
                    let _ = self.access.store.know(&self.access.servers, client.cluster(), &servers);
                },
                recv(look) -> _ => {}
            }
            self.settle(&mut receipts)?;
            if over {
                // Only the screen's end, or another name, goes on from here.
                match self.requests.recv().map_err(|_| Gone)? {
                    Request::Open(profile) => return Ok(Some(profile)),
                    request => self.decline(request),
                }
            }
        }
    }

    /// First the file: what is counted as taken does not come again.
    fn keep(&self, client: &Client, kept: &Kept, upto: Option<Op>) -> Result<(), Gone> {
        let (cluster, slot) = (client.cluster(), client.device().slot);
        // Counts that cannot be written are lost with this program; the notifications are not.
        let _ = self.access.store.write(cluster, client.profile(), slot, kept);
        match upto.map(|op| client.taken(op)) {
            Some(Err(error)) => self.tell(Link::Ended(error.to_string())),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn settle(&self, receipts: &mut Vec<(AskId, Receipt)>) -> Result<(), Gone> {
        let mut told = Ok(());
        receipts.retain(|(id, receipt)| match receipt.wait(Duration::ZERO) {
            Err(ReceiptError::OutcomeUnknown) => true,
            result => {
                if self.tell(Link::Settled(*id, result)).is_err() {
                    told = Err(Gone);
                }
                false
            }
        });
        told
    }

    /// The thread of the stream and the one of the questions; both end with the client.
    fn start_threads(&self, client: &Arc<Client>) -> std::io::Result<Sender<Question>> {
        let (notifications, tell) = (client.notifications(), self.tell.clone());
        spawn("recado-stream", move || {
            loop {
                let told = match notifications.recv() {
                    Ok(incoming) => tell.send(Link::Incoming(incoming)),
                    Err(error) => {
                        let _ = tell.send(Link::Ended(error.to_string()));
                        return;
                    }
                };
                if told.is_err() {
                    return;
                }
            }
        })?;
        let (questions_in, questions) = channel::bounded::<Question>(WAITING_MAX);
        let (client, tell) = (Arc::downgrade(client), self.tell.clone());
        spawn("recado-ask", move || {
            for question in questions {
                let Some(client) = client.upgrade() else { return };
                if tell.send(answer(&client, question)).is_err() {
                    return;
                }
            }
        })?;
        Ok(questions_in)
    }
}

fn answer(client: &Client, question: Question) -> Link {
    let words = |error: ClientError| error.to_string();
    match question {
        Question::History(place, range) => {
            let past = client.history(place.topic().cloned(), range, PAGE).map_err(|error| match &place {
                Place::Topic(topic @ (Topic::Feed(_) | Topic::Channel(_))) => {
                    format!("{}: {error}", super::event::written(topic))
                }
                Place::Topic(Topic::Inbox(_)) | Place::All => error.to_string(),
            });
            Link::Past(place, range, past)
        }
        Question::List(what) => Link::List(what.clone(), client.list(what).map_err(words)),
        Question::Info(name) => {
            let info = client.info(Some(name.clone())).map_err(words);
            Link::Info(name, info)
        }
    }
}

fn unanswered(question: Question, why: String) -> Link {
    match question {
        Question::History(place, range) => Link::Past(place, range, Err(why)),
        Question::List(what) => Link::List(what, Err(why)),
        Question::Info(name) => Link::Info(name, Err(why)),
    }
}

/// Asks the servers how they are, those too that only others name.
struct Pulse {
    access: Access,
    tell: Sender<Link>,
    over: Receiver<()>,
    found: Sender<Vec<SocketAddr>>,
}

impl Pulse {
    fn run(self) {
        let mut servers = self.access.servers.clone();
        if let Some(known) = self.access.store.known(&self.access.servers) {
            servers.extend(known.servers);
        }
        let mut told = Vec::new();
        loop {
            let answers = status(&servers, PULSE_PATIENCE, &self.access.trust).unwrap_or_default();
            let found: Vec<SocketAddr> = answers.iter().map(|server| server.addr).collect();
            servers.extend(&found);
            servers.sort_unstable();
            servers.dedup();
            // While nobody takes it, the next round tries again.
            if !found.is_empty() && found != told && self.found.try_send(found.clone()).is_ok() {
                told = found;
            }
            if self.tell.send(Link::Pulse(answers)).is_err() {
                return;
            }
            match self.over.recv_timeout(PULSE_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
