//! `recado listen`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::time::Duration;

use recado_client::{
    Client, Code, ConnectionEvent, HistoryRange, Incoming, ListItem, Listing, Op, Queries as _, ReceiveError,
    Topic,
};

use super::exec::{self, Origin};
use super::{Context, history, to_read};
use crate::cli::Listen;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::print::{about_device, gap, is_closed, is_reader_gone, note};
use crate::trust::another_cluster;
use crate::wording::counted;

/// Interval at which signals, the time-out and the connection's events are checked while nothing arrives.
const LOOK: Duration = Duration::from_millis(100);

/// Time without a primary after which a note is printed. A shorter pause is an election.
const TELL_SEARCH: Duration = Duration::from_secs(5);

pub(super) fn run(context: &Context, listen: &Listen) -> Result<(), Failure> {
    // What is shown counts as read, so it must be shown somewhere. With --exec nothing is shown.
    if listen.exec.is_none() && is_closed() {
        return Err(Failure::Other(
            "standard output is closed, so nothing can be shown, and nothing counts as read".to_owned(),
        ));
    }
    let client = context.connect_to_receive()?;
    context.tell_unsent(&client);
    let interrupt = context.interrupt()?.clone();
    let topics = followed(context, &client, &listen.topics)?;
    if topics.is_empty() && context.out.is_for_people() && io::stderr().is_terminal() {
        // The hint is left out if the query fails; listening goes on.
        let following = context.list(&client, Listing::Following).ok();
        following.and_then(|following| nothing_followed(&following)).iter().for_each(note);
    }
    let mut listener = Listener {
        context,
        listen,
        interrupt,
        topics,
        left: listen.count,
        shown: BTreeSet::new(),
        searching: None,
        told: Told::Nothing,
    };
    match listener.run(&client)? {
        End::Enough => Ok(()),
        End::TimedOut => match listener.left {
            None => Ok(()),
            Some(left) => Err(Failure::Other(format!(
                "the time-out has passed, and {} of --count did not come",
                counted(left as u64, "notification")
            ))),
        },
        End::ReaderGone => Err(Failure::Output(io::Error::from(io::ErrorKind::BrokenPipe).into())),
        End::Signal(number) => Err(Failure::Signal(number)),
    }
}

/// Reason why listening ended.
enum End {
    Enough,
    TimedOut,
    /// The reader of standard output has ended.
    ReaderGone,
    Signal(u8),
}

struct Listener<'a> {
    context: &'a Context,
    listen: &'a Listen,
    interrupt: Interrupt,
    /// Topics to show. Empty means all.
    topics: BTreeSet<Topic>,
    /// Number of notifications that are left to show. None shows all.
    left: Option<usize>,
    /// Ops that were shown as the past. They are not shown again when the stream delivers them.
    shown: BTreeSet<Op>,
    /// Time, since the command began, from which on there has been no primary, or at which the servers were
    /// asked why.
    searching: Option<Duration>,
    /// What was printed about the search.
    told: Told,
}

/// What was printed about a search for the primary. A later one tells more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Search,
    Another,
}

impl Listener<'_> {
    fn run(&mut self, client: &Client) -> Result<End, Failure> {
        let topics: Vec<Topic> = self.topics.iter().cloned().collect();
        let (since, last) = (self.listen.since, self.listen.last);
        let past = history::before_listening(self.context, client, &topics, since, last)?;
        for notification in past {
            if let Some(end) = self.end(self.context.timer.elapsed()) {
                return Ok(end);
            }
            self.show(&Incoming::Notification(notification.clone()), Origin::Past)?;
            self.shown.insert(notification.op);
        }
        let notifications = client.notifications();
        loop {
            if let Some(end) = self.end(self.context.timer.elapsed()) {
                return Ok(end);
            }
            self.tell_connection(client, self.context.timer.elapsed());
            match notifications.recv_timeout(LOOK) {
                Ok(incoming) => {
                    if self.wants(&incoming) {
                        self.show(&incoming, Origin::Stream)?;
                    }
                    // The notification is taken only after it was shown: after a crash before this line it
                    // comes again.
                    client.ack(incoming.upto())?;
                }
                Err(ReceiveError::Timeout) => {}
                Err(ReceiveError::Over(error)) => return Err(error.into()),
            }
        }
    }

    /// Returns why listening ends, at `now` since the command began.
    fn end(&self, now: Duration) -> Option<End> {
        match self.interrupt.arrived() {
            Some(signal) => Some(End::Signal(signal)),
            None if self.left == Some(0) => Some(End::Enough),
            None if self.context.timeout.is_some_and(|timeout| now >= timeout) => Some(End::TimedOut),
            None if self.listen.exec.is_none() && is_reader_gone() => Some(End::ReaderGone),
            None => None,
        }
    }

    fn wants(&mut self, incoming: &Incoming) -> bool {
        match incoming {
            Incoming::Notification(notification) => {
                !self.shown.remove(&notification.op)
                    && (self.topics.is_empty() || self.topics.contains(&notification.topic))
            }
            Incoming::Gap { .. } => true,
        }
    }

    fn show(&mut self, incoming: &Incoming, from: Origin) -> Result<(), Failure> {
        match (&self.listen.exec, incoming) {
            (Some(command), Incoming::Notification(notification)) => {
                let done = exec::run(command, &self.context.environment()?, notification, from);
                done.map_err(|failure| match self.interrupt.arrived() {
                    // Ctrl-C has ended the command, too.
                    Some(signal) => {
                        note(&failure);
                        Failure::Signal(signal)
                    }
                    None => failure,
                })?;
            }
            (Some(_), Incoming::Gap { after, upto }) => note(gap(*after, *upto)),
            (None, incoming) => self.context.out.incoming(incoming)?,
        }
        if let (Some(left), Incoming::Notification(_)) = (&mut self.left, incoming) {
            *left = left.saturating_sub(1);
        }
        Ok(())
    }

    /// Prints the connection's events. They are for people, so they go to standard error and not into the
    /// output that programs read.
    fn tell_connection(&mut self, client: &Client, now: Duration) {
        for event in client.connection_events().try_iter() {
            match event {
                ConnectionEvent::Searching if self.searching.is_some() => {}
                ConnectionEvent::Searching => (self.searching, self.told) = (Some(now), Told::Nothing),
                ConnectionEvent::Connected { .. } | ConnectionEvent::Ended(_) => self.searching = None,
                ConnectionEvent::PrimaryChanged { view, addr, pause } => {
                    self.searching = None;
                    let node = view.primary().map_or("a server".to_owned(), |node| node.to_string());
                    note(format_args!(
                        "{node} ({addr}) is primary now; the pause was {} ms",
                        pause.as_millis()
                    ));
                }
                ConnectionEvent::SetBack { .. }
                | ConnectionEvent::Copied(_)
                | ConnectionEvent::ServersSetBack { .. }
                | ConnectionEvent::Renumbered { .. } => about_device(&event).iter().for_each(note),
                ConnectionEvent::PrimaryFound { addr, pause } => {
                    self.searching = None;
                    note(format_args!("{addr} answers again; the pause was {} ms", pause.as_millis()));
                }
            }
        }
        if self.searching.is_some_and(|since| now.saturating_sub(since) >= TELL_SEARCH) {
            self.tell_search(now);
        }
    }

    /// Says once that there is no primary, or, whenever that turns out, that another cluster is in its place.
    fn tell_search(&mut self, now: Duration) {
        self.searching = Some(now);
        let servers = self.context.config.servers().unwrap_or_default();
        let (what, text) = match another_cluster(servers, &self.context.trust) {
            Some(error) => (Told::Another, error.to_string()),
            None => (
                Told::Search,
                format!(
                    "no primary for {} s; still trying. Does a majority of the servers run? See: recado status",
                    TELL_SEARCH.as_secs()
                ),
            ),
        };
        if self.told < what {
            self.told = what;
            note(text);
        }
    }
}

/// Hint for a user who follows nothing and therefore receives only the inbox.
fn nothing_followed(following: &[ListItem]) -> Option<&'static str> {
    let is_followed = |item: &ListItem| {
        matches!(item, ListItem::Following { topic: Topic::Feed(_) | Topic::Channel(_), .. })
    };
    (!following.iter().any(is_followed)).then_some(
        "you follow nothing yet, so only your inbox comes; to follow somebody, run: recado follow @NAME",
    )
}

/// Returns the requested topics. Fails if one of them is not followed, because the stream does not carry
/// it, or does not exist. The inbox needs no following.
fn followed(context: &Context, client: &Client, topics: &[Topic]) -> Result<BTreeSet<Topic>, Failure> {
    let topics: BTreeSet<Topic> =
        topics.iter().map(|topic| to_read(topic.clone(), client.profile())).collect();
    if topics.is_empty() {
        return Ok(topics);
    }
    let following = context.list(client, Listing::Following)?;
    for topic in &topics {
        let is_followed =
            following.iter().any(|item| matches!(item, ListItem::Following { topic: t, .. } if t == topic));
        if !is_followed && !matches!(topic, Topic::Inbox(_)) {
            // Nobody can follow what is not there or is not for them; this says so.
            let newest = HistoryRange::Before(Op(u64::MAX));
            let there = context.ask(|| client.history(Some(topic.clone()), newest, 1))?;
            there.map_err(Failure::about(Some(topic)))?;
            return Err(Failure::Query { code: Code::NotFollowing, topic: topic.clone() });
        }
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_follows_nothing_gets_a_hint_that_only_the_inbox_comes() {
        let following = |topic| ListItem::Following { topic, since: Op(1) };
        let inbox = following(Topic::Inbox("bob".parse().unwrap()));
        assert!(nothing_followed(&[]).unwrap().contains("recado follow"));
        assert!(nothing_followed(std::slice::from_ref(&inbox)).is_some());
        assert_eq!(nothing_followed(&[inbox, following(Topic::to_follow("#ops").unwrap())]), None);
    }
}
