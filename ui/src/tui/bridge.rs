//! Bridge between the screen and the client: the only file of the screen that talks to [`Client`].
//!
//! | thread | does |
//! |---|---|
//! | recado-link | opens the client, passes requests to it, reports results; opens the next after a lapse |
//! | recado-stream | receives the stream of notifications; waits while the queue to the screen is full |
//! | recado-ask | sends the servers one query after the other, waiting for each answer |
//! | recado-pulse | queries the state of every server: often while it is shown, seldom otherwise |
//!
//! recado-link runs as long as the screen, the others as long as one client.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TrySendError};
use crossbeam::select;
use recado_client::{
    Client, ClientError, Code, ConnectionEvent, EnrolmentCode, HistoryRange, Listing, Name, NodeId, Op,
    Options, Queries as _, Receipt, ReceiptError, Request, ServerStatus, Topic, Trust, status,
};

use super::clock::Clock;
use super::conversation::Conversation;
use super::event::{Link, Opened, RequestId};
use super::runtime::{is_nobody, spawn};
use super::saved_state::{Removed, SavedState, Store};
use super::suspend_detector::SuspendDetector;
use crate::exit::Failure;
use crate::trust::another_cluster;
use crate::wording::KEYS_MOST;

/// Size of the queues of requests and of queries. A request beyond it is declined.
const WAITING_MAX: usize = 512;

/// Size of the queue of reports to the screen. When it is full, the threads wait.
const LINKS_MAX: usize = 1_024;

/// Time to wait for the answer to a query.
const PATIENCE: Duration = Duration::from_secs(5);

/// Interval between two attempts to find a server.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Interval at which receipts are checked while any request is unanswered.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Interval at which the thread wakes up while no request is unanswered.
const IDLE: Duration = Duration::from_secs(1);

/// Interval between two rounds of STATUS, while their results are shown and otherwise, and the time to wait
/// for the slowest server.
const PULSE_WATCHED: Duration = Duration::from_secs(1);
const PULSE_CALM: Duration = Duration::from_secs(5);
const PULSE_PATIENCE: Duration = Duration::from_millis(600);

/// Number of notifications in a page of the past.
const PAGE: usize = 200;

/// Limit of the wait for the end of the client. A client needs half a second to close its session. One that
/// is still being opened without a server needs a second before that, so that its requests reach the disk.
const LEAVE: Duration = Duration::from_millis(2_000);

/// A request of the screen to the client.
#[derive(Debug)]
pub(crate) enum ClientCommand {
    Open(Name, Option<EnrolmentCode>),
    Request(RequestId, Box<Request>),
    /// Save the state of the screen. Then take everything of the stream up to the op, if there is one.
    Keep(Arc<SavedState>, Option<Op>),
    Query(Query),
    /// Query the servers often (true) because the user looks at their state, or seldom (false).
    Watch(bool),
}

/// A query that the servers answer.
#[derive(Debug)]
pub(crate) enum Query {
    History(Conversation, HistoryRange),
    List(Listing),
    Info(Name),
    /// Draw a code with which a new machine joins the profile.
    Enrol,
    /// Ask if this client has claimed its name.
    Claimed,
}

/// Parameters with which clients are opened.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Addresses of the servers, as configured.
    pub(crate) servers: Vec<SocketAddr>,
    /// Directory of the client's files.
    pub(crate) state: PathBuf,
    /// Clusters to trust. The user is not asked while the screen is shown.
    pub(crate) trust: Trust,
    /// False if no name may be claimed.
    pub(crate) claims: bool,
    pub(crate) store: Store,
}

/// The screen's end of the bridge. The threads end when the sender of requests is dropped.
pub(crate) struct Bridge {
    requests: Option<Sender<ClientCommand>>,
    pub(crate) links: Receiver<Link>,
    over: Receiver<()>,
}

impl Bridge {
    /// Starts the thread of the link. No client is opened before [`ClientCommand::Open`].
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub(crate) fn start(access: Access, clock: Clock) -> std::io::Result<Bridge> {
        let (requests_in, requests) = channel::bounded(WAITING_MAX);
        let (links_in, links) = channel::bounded(LINKS_MAX);
        let (over_in, over) = channel::bounded::<()>(0);
        let watched = Arc::default();
        spawn("recado-link", move || {
            // The end of this thread drops the sender, which wakes up the thread that waits in
            // [`Bridge::leave`].
            let _over = over_in;
            let mut linking = Linking {
                access,
                clock,
                requests,
                links: links_in,
                watched,
                unsent: Vec::new(),
                recovered: 0,
            };
            let Err(Gone) = linking.run();
        })?;
        Ok(Bridge { requests: Some(requests_in), links, over })
    }

    /// Hands over a request. The error returns it if the queue has no room.
    pub(crate) fn request(&self, request: ClientCommand) -> Result<(), ClientCommand> {
        match &self.requests {
            Some(requests) => requests.try_send(request).map_err(|error| match error {
                TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
            }),
            None => Err(request),
        }
    }

    /// Ends the session, and waits up to [`LEAVE`] for the end of the thread.
    pub(crate) fn leave(mut self) {
        self.requests = None;
        let deadline = channel::after(LEAVE);
        loop {
            select! {
                // The threads may be waiting for room in the queue of reports.
                recv(self.links) -> link => if link.is_err() { return },
                recv(self.over) -> _ => return,
                recv(deadline) -> _ => return,
            }
        }
    }
}

struct Linking {
    access: Access,
    clock: Clock,
    requests: Receiver<ClientCommand>,
    links: Sender<Link>,
    /// True while the user looks at the state of the servers.
    watched: Arc<AtomicBool>,
    /// Requests that an ended client had not accepted. The next client of the profile gets them first.
    unsent: Vec<Request>,
    /// Number of requests carried over into all clients so far.
    recovered: u64,
}

/// The screen has ended.
struct Gone;

/// A request that a client has accepted.
struct Outstanding {
    id: RequestId,
    request: Request,
    receipt: Receipt,
}

impl Linking {
    /// Opens and serves clients until the screen has ended.
    fn run(&mut self) -> Result<Infallible, Gone> {
        let (mut profile, mut invite) = self.wait_for_profile()?;
        loop {
            let ended = match self.open(&profile, invite)? {
                Ok(client) => self.serve(client)?,
                Err(error) => Some(error),
            };
            let Some(error) = ended else { continue };
            self.report(Link::Ended(Box::new(error)))?;
            let before = profile;
            (profile, invite) = self.wait_for_profile()?;
            if profile != before {
                self.unsent.clear();
            }
        }
    }

    fn report(&self, link: Link) -> Result<(), Gone> {
        self.links.send(link).map_err(|_| Gone)
    }

    /// Waits for [`ClientCommand::Open`] while there is no client.
    fn wait_for_profile(&self) -> Result<(Name, Option<EnrolmentCode>), Gone> {
        let mut servers = Servers::of(&self.access);
        // A screen with a profile sends the request at once, so the first wait is short.
        let mut wait = LOOK_EVERY;
        loop {
            match self.requests.recv_timeout(wait) {
                Ok(ClientCommand::Open(profile, invite)) => return Ok((profile, invite)),
                Ok(other) => self.decline(other)?,
                Err(RecvTimeoutError::Timeout) => {
                    let answers = status(&servers.addresses(), PULSE_PATIENCE, &self.access.trust);
                    self.report_pulse(servers.heard(answers))?;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            }
            wait = pulse_every(&self.watched);
        }
    }

    /// Reports a round of STATUS, if there was one.
    fn report_pulse(&self, answers: Option<Vec<ServerStatus>>) -> Result<(), Gone> {
        answers.map_or(Ok(()), |answers| self.report(Link::Pulse(answers)))
    }

    /// Declines a request, because there is no client that could carry it out or store it.
    fn decline(&self, request: ClientCommand) -> Result<(), Gone> {
        let why = "there is no session".to_owned();
        match request {
            ClientCommand::Watch(watched) => self.watched.store(watched, Ordering::Relaxed),
            ClientCommand::Open(..) | ClientCommand::Keep(..) => {}
            ClientCommand::Request(id, _) => self.report(Link::NotTaken(id, why))?,
            ClientCommand::Query(query) => self.report(unanswered(query, why))?,
        }
        Ok(())
    }

    /// Opens a client, as soon as a server answers, or at once if the cluster is known from before. Any
    /// other error than a missing server ends the attempts.
    fn open(
        &self,
        profile: &Name,
        invite: Option<EnrolmentCode>,
    ) -> Result<Result<Client, ClientError>, Gone> {
        loop {
            let known = self.access.store.known(&self.access.servers);
            let options =
                Options::new(profile.clone(), Servers::of(&self.access).addresses(), &self.access.state)
                    .trust(self.access.trust.clone())
                    .timeout(PATIENCE);
            let options = if self.access.claims { options } else { options.no_claim() };
            let options = match invite {
                Some(code) => options.invited(code),
                None => options,
            };
            let opened = match known {
                Some(known) => Client::open(options.remembered(known.cluster)),
                None => Client::open(options.timeout(TRY_EVERY)),
            };
            match opened {
                Err(error) if is_nobody(&error) => {
                    self.report(Link::NoServer(error.to_string()))?;
                    // A session that was not opened in time says nothing about the servers. They are asked,
                    // and the time that this takes is part of the wait.
                    let mut servers = Servers::of(&self.access);
                    let answers = status(&servers.addresses(), TRY_EVERY, &self.access.trust);
                    let silent = answers.is_err();
                    self.report_pulse(servers.heard(answers))?;
                    match self.requests.recv_timeout(if silent { Duration::ZERO } else { TRY_EVERY }) {
                        Ok(request) => self.decline(request)?,
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Err(Gone),
                    }
                }
                opened => return Ok(opened),
            }
        }
    }

    /// Serves a client until its session ends. Returns the reason, or `None` if the next one is to be
    /// opened at once.
    fn serve(&mut self, client: Client) -> Result<Option<ClientError>, Gone> {
        let client = Arc::new(client);
        let mut outstanding = self.introduce(&client)?;
        let threads = self.start_threads(&client).map_err(|_| Gone)?;
        let events = client.connection_events();
        let mut absence = SuspendDetector::new(self.clock.now());
        let (mut late, mut told) = (Vec::new(), None);
        loop {
            let wait = if outstanding.is_empty() { IDLE } else { LOOK_EVERY };
            let mut over = false;
            select! {
                recv(self.requests) -> request => match request.map_err(|_| Gone)? {
                    ClientCommand::Open(..) => {}
                    ClientCommand::Watch(watched) => {
                        self.watched.store(watched, Ordering::Relaxed);
                        threads.look_at_servers();
                    }
                    ClientCommand::Request(id, request) => match client.request(Request::clone(&request)) {
                        Ok(receipt) => outstanding.push(Outstanding { id, request: *request, receipt }),
                        Err(error @ (ClientError::TooLarge | ClientError::Full(_))) => {
                            self.report(Link::NotTaken(id, error.to_string()))?;
                        }
                        // The client has ended, and the event that says so has not been handled yet.
                        Err(_) => late.push(*request),
                    },
                    ClientCommand::Keep(saved, upto) => self.keep(&client, &saved, upto)?,
                    ClientCommand::Query(query) => {
                        if let Err(error) = threads.queries.try_send(query) {
                            let why = "too many queries wait for an answer".to_owned();
                            self.report(unanswered(error.into_inner(), why))?;
                        }
                    }
                },
                recv(events) -> event => match event {
                    Ok(event) => {
                        absence.event(&event);
                        if matches!(event, ConnectionEvent::Connected { .. }) {
                            // The queue of a session that has just been opened has room.
                            let _ = threads.queries.try_send(Query::Claimed);
                        }
                        self.report(Link::Connection(event))?;
                        threads.look_at_servers();
                    }
                    Err(_) => over = true,
                },
                default(wait) => {}
            }
            absence.looked(self.clock.now());
            if let Some(removed) = Removed::of(client.device_dir()).filter(|removed| told != Some(*removed)) {
                told = Some(removed);
                self.report(Link::Removed(removed))?;
            }
            self.settle(&mut outstanding)?;
            if over {
                // The device is free for the next client only when every owner of this one is gone.
                let ended = match threads.join() {
                    // An administrator needs the key to allow it.
                    ClientError::Ended(Code::KeyNotAllowed) => {
                        let (profile, key) = (client.profile().clone(), client.device().key);
                        ClientError::KeyNotAllowed { profile, key }
                    }
                    ended => ended,
                };
                // This keeps the order in which the requests were made.
                self.settle(&mut outstanding)?;
                self.unsent.append(&mut late);
                drop(client);
                let lapsed = matches!(ended, ClientError::Ended(Code::SessionOver | Code::Fenced))
                    && absence.explains_an_end(self.clock.now());
                return Ok((!lapsed).then_some(ended));
            }
        }
    }

    /// Reports the client to the screen, with the requests that it carries over.
    fn introduce(&mut self, client: &Client) -> Result<Vec<Outstanding>, Gone> {
        let mut left: Vec<_> =
            client.recovered().iter().map(|one| (one.request.clone(), one.receipt.clone())).collect();
        for request in std::mem::take(&mut self.unsent) {
            match client.request(request.clone()) {
                Ok(receipt) => left.push((request, receipt)),
                // The client has ended already. The next one gets the request.
                Err(_) => self.unsent.push(request),
            }
        }
        let mut outstanding = Vec::new();
        for (request, receipt) in left {
            self.recovered += 1;
            outstanding.push(Outstanding { id: RequestId::Recovered(self.recovered), request, receipt });
        }
        let (cluster, profile, device) = (client.cluster(), client.profile().clone(), client.device());
        let saved = self.access.store.read(cluster, &profile, device.slot);
        let recovered = outstanding.iter().map(|one| (one.id, one.request.clone())).collect();
        let files = client.device_dir().to_owned();
        self.report(Link::Opened(Box::new(Opened { profile, device, cluster, recovered, files, saved })))?;
        Ok(outstanding)
    }

    /// Saves the state of the screen first, and then takes the stream, because taken notifications do not
    /// come again.
    fn keep(&self, client: &Client, saved: &SavedState, upto: Option<Op>) -> Result<(), Gone> {
        let (cluster, slot) = (client.cluster(), client.device().slot);
        // If the file cannot be written, the counts are lost at the end of this program; the notifications
        // are not.
        let _ = self.access.store.write(cluster, client.profile(), slot, saved);
        match upto.map(|op| client.ack(op)) {
            Some(Err(error)) => self.report(Link::Trouble(error.to_string())),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn settle(&mut self, outstanding: &mut Vec<Outstanding>) -> Result<(), Gone> {
        for one in std::mem::take(outstanding) {
            match one.receipt.wait(Duration::ZERO) {
                Err(ReceiptError::OutcomeUnknown) => outstanding.push(one),
                Err(ReceiptError::NotSent(_)) => self.unsent.push(one.request),
                Err(ReceiptError::Refused(code)) => self.report(Link::Settled(one.id, Err(code)))?,
                Err(ReceiptError::Forgotten) => {
                    self.report(Link::Settled(one.id, Err(Code::NumberForgotten)))?;
                }
                Ok(op) => {
                    self.report(Link::Settled(one.id, Ok(op)))?;
                    if let Request::Send { topic: Some(topic), .. } = one.request
                        && one.receipt.made_channel()
                    {
                        self.report(Link::MadeChannel(topic))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts the threads that run as long as the client.
    fn start_threads(&self, client: &Arc<Client>) -> std::io::Result<Threads> {
        let (notifications, links) = (client.notifications(), self.links.clone());
        let stream = spawn("recado-stream", move || {
            loop {
                let sent = match notifications.recv() {
                    Ok(incoming) => links.send(Link::Incoming(incoming)),
                    Err(error) => return error,
                };
                if sent.is_err() {
                    return ClientError::Disconnected;
                }
            }
        })?;
        let (queries_in, queries) = channel::bounded(WAITING_MAX);
        let (asking, links) = (Arc::downgrade(client), self.links.clone());
        let ask = spawn("recado-ask", move || {
            for query in queries {
                let link = match asking.upgrade() {
                    Some(client) => answer(&client, query),
                    None => unanswered(query, "the session has ended".to_owned()),
                };
                if links.send(link).is_err() {
                    return;
                }
            }
        })?;
        let (look_in, look) = channel::bounded(1);
        let pulse = Pulse {
            client: Arc::downgrade(client),
            access: self.access.clone(),
            links: self.links.clone(),
            look,
            watched: self.watched.clone(),
        };
        let pulse = spawn("recado-pulse", move || pulse.run())?;
        Ok(Threads { queries: queries_in, look: look_in, stream, ask, pulse })
    }
}

/// Threads of one client.
struct Threads {
    queries: Sender<Query>,
    look: Sender<()>,
    stream: JoinHandle<ClientError>,
    ask: JoinHandle<()>,
    pulse: JoinHandle<()>,
}

impl Threads {
    /// Starts a round of STATUS now, before the interval is over.
    fn look_at_servers(&self) {
        // A full queue means that a round is about to start.
        let _ = self.look.try_send(());
    }

    /// Waits for the end of all threads after the client has ended. Returns the reason why it has.
    fn join(self) -> ClientError {
        drop((self.queries, self.look));
        // A panic of one of them ends the program.
        let _ = (self.ask.join(), self.pulse.join());
        self.stream.join().unwrap_or(ClientError::Disconnected)
    }
}

fn answer(client: &Client, query: Query) -> Link {
    let words = |error: ClientError| error.to_string();
    // The commands say why in the same words.
    let about = |topic: Option<Topic>| move |error| Failure::about(topic.as_ref())(error).to_string();
    match query {
        Query::History(place, range) => {
            let topic = place.topic().cloned();
            let past = client.history(topic.clone(), range, PAGE).map_err(about(topic));
            Link::Past(place, range, past)
        }
        Query::List(what) => {
            let topic = match &what {
                Listing::Members(channel) => Some(Topic::Channel(channel.clone())),
                _ => None,
            };
            Link::List(what.clone(), client.list(what).map_err(about(topic)))
        }
        Query::Info(name) => {
            let about = about(Some(Topic::Feed(name.clone())));
            Link::Info(client.info(Some(name)).map_err(about))
        }
        // The code is shown once it is valid. Without an acknowledgement in time, the user asks for another.
        Query::Enrol => {
            let code = client.enrol().map_err(words).and_then(|(code, receipt)| {
                receipt
                    .wait(PATIENCE)
                    .map(|_| code)
                    .map_err(|error| Failure::Request { error, topic: None }.limited(KEYS_MOST).to_string())
            });
            Link::Enrolled(code)
        }
        // Without an answer nothing is said. The claim is done all the same.
        Query::Claimed => Link::Claimed(client.has_claimed().unwrap_or(false)),
    }
}

fn unanswered(query: Query, why: String) -> Link {
    match query {
        Query::History(place, range) => Link::Past(place, range, Err(why)),
        Query::List(what) => Link::List(what, Err(why)),
        Query::Info(_) => Link::Info(Err(why)),
        Query::Enrol => Link::Enrolled(Err(why)),
        Query::Claimed => Link::Claimed(false),
    }
}

/// Known servers of the cluster.
struct Servers {
    /// Addresses from the configuration and from the state files.
    first: Vec<SocketAddr>,
    members: BTreeMap<NodeId, SocketAddr>,
}

impl Servers {
    fn of(access: &Access) -> Servers {
        let mut first = access.servers.clone();
        first.extend(access.store.known(&access.servers).into_iter().flat_map(|known| known.servers));
        first.sort_unstable();
        first.dedup();
        Servers { first, members: BTreeMap::new() }
    }

    /// Addresses to query.
    fn addresses(&self) -> Vec<SocketAddr> {
        if self.members.is_empty() { self.first.clone() } else { self.members.values().copied().collect() }
    }

    /// Takes the answers of a round, and updates the known servers. An empty list means that no server
    /// answered. `None` means that the round says nothing about them, as when its client has ended.
    fn heard(&mut self, answers: Result<Vec<ServerStatus>, ClientError>) -> Option<Vec<ServerStatus>> {
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) if is_nobody(&error) => Vec::new(),
            Err(_) => return None,
        };
        self.members = answers.iter().map(|server| (server.node, server.addr)).collect();
        Some(answers)
    }
}

/// Interval between two rounds of STATUS.
fn pulse_every(watched: &AtomicBool) -> Duration {
    if watched.load(Ordering::Relaxed) { PULSE_WATCHED } else { PULSE_CALM }
}

/// Thread that queries the state of the servers, through the session.
struct Pulse {
    client: Weak<Client>,
    access: Access,
    links: Sender<Link>,
    /// A message starts a round at once. The channel closes with the client.
    look: Receiver<()>,
    watched: Arc<AtomicBool>,
}

impl Pulse {
    fn run(self) {
        let mut servers = Servers::of(&self.access);
        let mut known = Vec::new();
        while let Some(client) = self.client.upgrade() {
            let answers = servers.heard(client.status(&servers.addresses(), PULSE_PATIENCE));
            // The client has ended: the servers have not stopped answering.
            let Some(answers) = answers else { return };
            let found: Vec<SocketAddr> = answers.iter().map(|server| server.addr).collect();
            if !found.is_empty() && found != known {
                // A failed write does not end the thread; the next round tries again.
                let saved = self.access.store.know(&self.access.servers, client.cluster(), &found);
                known = saved.map(|()| found).unwrap_or_default();
            }
            drop(client);
            if answers.is_empty()
                && let Some(error) = another_cluster(&servers.first, &self.access.trust)
                && self.links.send(Link::Other(error.to_string())).is_err()
            {
                return;
            }
            if self.links.send(Link::Pulse(answers)).is_err() {
                return;
            }
            match self.look.recv_timeout(pulse_every(&self.watched)) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_client_is_no_silence_of_the_servers() {
        let server = "127.0.0.1:7".parse().unwrap();
        let mut servers = Servers { first: vec![server], members: BTreeMap::from([(NodeId(1), server)]) };
        for ended in [ClientError::Disconnected, ClientError::Ended(Code::NotYours)] {
            assert_eq!(servers.heard(Err(ended)), None);
        }
        assert_eq!(servers.members.len(), 1);
        let nobody = ClientError::Unreachable { servers: vec![server], waited: PATIENCE };
        assert_eq!(servers.heard(Err(nobody)), Some(vec![]));
    }
}
