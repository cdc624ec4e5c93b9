//! Commands, with one file for each command or family of commands.

mod about;
mod channel;
mod cluster;
mod configuration;
mod demo;
mod device;
mod doctor;
mod exec;
mod follow;
mod history;
mod key;
mod listen;
mod lists;
mod manual;
mod monitor;
mod retract;
mod send;
mod status;
mod store;

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{
    Client, ClientError, Consistency, EnrolmentCode, ListItem, Listing, Name, Op, Options, Orphaned, Queries,
    Reader, Receipt, ReceiptError, Request, Topic, Trust, explain,
};

use crate::cli::{Channel, Cluster, Command, Common, ConfigCommand, Device};
use crate::config::Config;
use crate::environment::{AS, CLUSTER_KEY, SERVERS};
use crate::exit::{self, Failure};
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::text::clean_line;
use crate::timer::Timer;
use crate::trust;
use crate::tui::settings::When;
use crate::waiting::{self, Waiting, asked, asking};
use crate::wording;

/// Default time-out of a command.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lower bound of the time for a query, however late in the time-out it is asked.
const QUERY_LEAST: Duration = Duration::from_secs(1);

/// Number of earlier requests whose acknowledgement is reported one by one. Further ones are counted.
const SETTLED_SHOWN: usize = 3;

/// Runs a command.
pub(crate) fn run(common: &Common, command: Command) -> Result<(), Failure> {
    let timer = Timer::start();
    // These commands need no configuration, and `config init` writes it.
    match &command {
        Command::Config(ConfigCommand::Init) => return configuration::init(common),
        Command::Config(ConfigCommand::Check) => return configuration::check(common),
        Command::Man { .. } | Command::Completions { .. } if common.json => {
            return Err(Failure::Usage("this command has no JSON".to_owned()));
        }
        Command::Man { dir } => return manual::man(dir.as_deref()),
        Command::Completions { shell } => return manual::completions(*shell),
        _ => {}
    }
    let mut config = Config::load(common)?;
    if let Command::Claim { name } = &command {
        // A claim that is asked for is none of a mistyped name, which the configuration is to prevent.
        config.claims = !common.no_claim;
        config.profile = about::to_claim(common, name.as_ref())?.or(config.profile);
    }
    let trust = trust::trust(&config, common.accept_new);
    let typed_profile = common.profile.clone().filter(|_| common.typed_profile);
    let out = Out::new(common.json, common.color.unwrap_or(When::Auto));
    let (timeout, interrupt) = (common.timeout, OnceCell::new());
    let consistency = common.consistency.map_or_else(Consistency::default, Consistency::from);
    let context = Context { config, typed_profile, trust, timer, timeout, consistency, out, interrupt };
    match command {
        Command::Send(send) => send::run(&context, send),
        Command::Retract { op } => retract::run(&context, Op(op)),
        Command::Follow { topics } => follow::follow(&context, topics),
        Command::Unfollow { topics } => follow::unfollow(&context, topics),
        Command::Listen(listen) => listen::run(&context, &listen),
        Command::History(history) => history::run(&context, history),
        Command::Following => lists::run(&context, Listing::Following),
        Command::Followers => lists::run(&context, Listing::Followers),
        Command::Channel { command } => channel::run(&context, command.unwrap_or(Channel::List)),
        Command::People => lists::run(&context, Listing::People),
        Command::Device { command } => device::run(&context, command.unwrap_or(Device::List)),
        Command::Key(command) => key::run(&context, command),
        Command::Info { whom } => about::info(&context, whom),
        Command::Claim { name } => about::claim(&context, name),
        Command::Rename { display, .. } => about::rename(&context, display),
        Command::Put { written, at } => store::write(&context, store::Write::Put, written, at.map(Op)),
        Command::Create(written) => store::write(&context, store::Write::Create, written, None),
        Command::Update { written, at } => store::write(&context, store::Write::Update, written, at.map(Op)),
        Command::Delete(deleted) => store::delete(&context, deleted),
        Command::Get { key } => store::get(&context, key, false),
        Command::Read { key } => store::get(&context, key, true),
        Command::Keys { prefix } => store::keys(&context, prefix),
        Command::Status { watch, monitor: None } => status::run(&context, watch),
        Command::Status { watch, monitor: Some(dir) } => monitor::run(&context, &dir, watch),
        Command::Doctor => doctor::run(&context),
        Command::Cluster { command } => cluster::run(&context, command.unwrap_or(Cluster::List)),
        Command::Demo(demo) => demo::run(&context, demo),
        Command::Config(_) | Command::Man { .. } | Command::Completions { .. } => Ok(()),
    }
}

/// State that every command uses.
struct Context {
    config: Config,
    /// The profile given on the command line, not by the environment.
    typed_profile: Option<Name>,
    /// Clusters to talk to.
    trust: Trust,
    /// The time since the command began.
    timer: Timer,
    /// The time-out given by the user, if any.
    timeout: Option<Duration>,
    /// How late the answers to queries have to be.
    consistency: Consistency,
    out: Out,
    /// Signals, once the command has asked something that may be outstanding when one comes.
    interrupt: OnceCell<Interrupt>,
}

/// A request, with the beginning of the text that it sends.
fn described(request: &Request) -> String {
    let what = in_words(request);
    match request {
        Request::Send { content, .. } => {
            let text = content.body.as_text();
            let line = clean_line(content.title.as_deref().unwrap_or(&text));
            let start: String = line.chars().take(60).collect();
            let rest = if start.len() < line.len() { "..." } else { "" };
            format!("{what}: {start:?}{rest}")
        }
        _ => what,
    }
}

fn in_words(request: &Request) -> String {
    match request {
        Request::Send { topic: None, .. } => "send to your followers".to_owned(),
        Request::Send { topic: Some(topic), .. } => format!("send to {}", print::written(topic)),
        Request::Follow { topic, .. } => format!("follow or unfollow of {}", print::written(topic)),
        Request::Keys { .. } => "change of your keys".to_owned(),
        Request::Channel { channel, .. } => format!("change of #{channel}"),
        Request::Retract { op } => format!("retraction of op {op}"),
        Request::Display { .. } => "change of your display name".to_owned(),
        Request::Put { key, .. } => format!("write of {key}"),
        Request::Delete { key, .. } => format!("deletion of {key}"),
    }
}

impl Context {
    /// The rest of the user's time-out, or of the default. It begins with the command, so connecting and
    /// waiting take no longer than that together. The time in which the user was waited for does not count.
    fn left(&self) -> Duration {
        self.timer.left(self.timeout.unwrap_or(TIMEOUT).saturating_add(asked()))
    }

    /// The user's time-out, or the default, for the result of each of many lines: they may come for hours.
    fn timeout_of_each(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// Finds the servers, of which any may answer queries. It opens no session, claims no name, and needs no
    /// right to write.
    fn reader(&self) -> Result<Reader, Failure> {
        let timeout = self.left();
        let servers = addresses(self.config.servers()?);
        let waiting = Waiting {
            tells: &format!(
                "no answer yet of {servers}; recado goes on trying, for {} s in all",
                timeout.as_secs_f64().ceil()
            ),
            state: &format!("no answer of {servers}; nothing was asked"),
        };
        let options = self.options()?.timeout(timeout);
        let mut reader = waiting.on(self.interrupt()?, || Reader::open(options))??;
        reader.set_timeout(self.left().max(QUERY_LEAST));
        Ok(reader.consistency(self.consistency))
    }

    /// Tells how old what was read may be, unless a primary has answered, or might have a moment ago.
    fn note_age(&self, reader: &Reader) {
        if let Some(told) = reader.age().and_then(wording::age) {
            print::note(told);
        }
    }

    /// Opens a session that changes something of a profile that is there. It claims no name.
    fn connect_to_change(&self) -> Result<Client, Failure> {
        self.connect(self.options()?.no_claim().send_only())
    }

    /// Opens a session that claims the name if nobody has it, unless the user forbids it. The name may be
    /// mistyped, so a claim is told.
    fn connect_to_claim(&self) -> Result<Client, Failure> {
        let options = self.options()?.send_only();
        let options = if self.config.claims { options } else { options.no_claim() };
        let client = self.connect(options).map_err(|failure| match failure {
            Failure::Client(ClientError::NotClaimed { profile, cluster }) => {
                Failure::Refused(wording::not_claimed(&profile, cluster))
            }
            failure => failure,
        })?;
        // The command does not fail if the servers do not answer; what follows will show it.
        if client.has_claimed().is_ok_and(|claimed| claimed) {
            print::note(wording::claimed(client.profile()));
        }
        Ok(client)
    }

    /// Opens a session of an installation that enrols with `code`.
    fn connect_to_enrol(&self, code: EnrolmentCode) -> Result<Client, Failure> {
        self.connect(self.options()?.send_only().enrol(code))
    }

    /// Opens a session that also receives. It claims no name.
    fn connect_to_receive(&self) -> Result<Client, Failure> {
        self.connect(self.options()?.no_claim())
    }

    fn connect(&self, options: Options) -> Result<Client, Failure> {
        let timeout = self.left();
        let servers = addresses(self.config.servers()?);
        let waiting = Waiting {
            tells: &format!(
                "no primary found yet by {servers}; recado goes on trying, for {} s in all",
                timeout.as_secs_f64().ceil()
            ),
            state: &format!("no session was opened with {servers}; nothing was sent or asked"),
        };
        let others = options.clone();
        let client = waiting.on(self.interrupt()?, || Client::connect(options.timeout(timeout)))?;
        let client = client.map_err(|error| self.whose(error))?;
        let mut client = self.settled(client)?;
        self.settle_neighbours(&client, &others)?;
        client.set_timeout(self.left().max(QUERY_LEAST));
        Ok(client)
    }

    /// Settles what commands have left that ran beside others, each as a device of its own.
    fn settle_neighbours(&self, client: &Client, options: &Options) -> Result<(), Failure> {
        while client.has_unsettled_neighbour() && !self.left().is_zero() {
            let options = options.clone().send_only().no_claim().timeout(self.left());
            // The command does not fail if they cannot be settled now: they stay for the next one.
            let Ok(neighbour) = Client::connect(options) else { break };
            drop(self.settled(neighbour)?);
        }
        Ok(())
    }

    /// The error of a session that was refused for the name, which the servers refuse alike if somebody else
    /// has it and if nobody has it any more. A reader is told which.
    fn whose(&self, error: ClientError) -> ClientError {
        if !matches!(error, ClientError::NotYours { .. }) {
            return error;
        }
        let reader = self.options().map(|options| Reader::open(options.timeout(QUERY_LEAST)));
        match reader.map(|reader| reader.and_then(|reader| reader.info(None))) {
            Ok(Err(nobody @ ClientError::NobodyHas { .. })) => nobody,
            _ => error,
        }
    }

    /// Asks a query, which blocks until its answer or its time-out. A signal ends the program, and the user
    /// is told.
    fn ask<T>(
        &self,
        query: impl FnOnce() -> Result<T, ClientError>,
    ) -> Result<Result<T, ClientError>, Failure> {
        let waiting = Waiting {
            tells: "waiting for an answer of the servers",
            state: "a query had no answer yet; nothing was changed by it",
        };
        Ok(waiting.on(self.interrupt()?, query)?)
    }

    /// Waits for what the user answers or types, before anything is sent. A signal ends the program, and the
    /// user is told.
    fn of_user<T>(&self, wait: impl FnOnce() -> T) -> Result<T, Failure> {
        let waiting = Waiting { tells: "waiting for standard input", state: "nothing was sent" };
        Ok(waiting.on(self.interrupt()?, || asking(wait))?)
    }

    /// A list of the servers.
    fn list(&self, client: &impl Queries, what: Listing) -> Result<Vec<ListItem>, Failure> {
        Ok(self.ask(|| client.list(what))??)
    }

    /// The signals that ask the command to end, from the first call on.
    fn interrupt(&self) -> Result<&Interrupt, Failure> {
        if self.interrupt.get().is_none() {
            // Nobody else sets it: a command has one thread.
            let _ = self.interrupt.set(Interrupt::watch()?);
        }
        self.interrupt.get().ok_or_else(|| Failure::Other("signals cannot be taken".to_owned()))
    }

    /// Waits for the result of a request, as long as the time-out allows. A signal ends the wait, and the
    /// user is told what becomes of the request.
    fn wait(&self, receipt: &Receipt, topic: Option<&Topic>) -> Result<Op, Failure> {
        let result = waiting::for_receipt(receipt, self.left(), topic, self.interrupt()?);
        if let Err(Failure::Signal(_)) = result {
            print::note(exit::INTERRUPTED);
        }
        result
    }

    /// Tells a person how to keep the name that was typed, as `name` or with --as, for the commands that
    /// follow.
    fn tell_how_to_keep(&self, name: Option<&Name>) {
        let typed = name.or(self.typed_profile.as_ref());
        typed.and_then(|typed| self.config.how_to_keep(typed)).iter().for_each(print::aside);
    }

    /// Reports requests that were queued for a cluster which is not known any more. They are not sent, and
    /// they are not deleted either. `send` and `listen` report them, where a person looks for what was sent,
    /// and not every command.
    fn tell_unsent(&self, client: &Client) {
        // With a pinned key nothing records which clusters are known.
        if matches!(self.trust, Trust::Pinned(_)) {
            return;
        }
        let left = Orphaned::left(&self.config.state, client.profile(), client.cluster());
        // The command does not fail if these files cannot be read.
        left.unwrap_or_default().iter().map(|left| unsent(left, client.profile())).for_each(print::note);
    }

    fn options(&self) -> Result<Options, Failure> {
        let config = &self.config;
        let options = Options::new(config.profile()?, config.servers()?.to_vec(), &config.state);
        let options = match config.invite {
            Some(code) => options.invited(code),
            None => options,
        };
        Ok(options.trust(self.trust.clone()))
    }

    /// Environment of a `recado` that `--exec` runs. It acts as the same profile at the same servers,
    /// wherever this process took them from.
    fn environment(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let servers: Vec<String> = self.config.servers()?.iter().map(ToString::to_string).collect();
        let mut all = vec![(AS, self.config.profile()?.to_string()), (SERVERS, servers.join(","))];
        if let Some(key) = self.config.cluster_key {
            all.push((CLUSTER_KEY, key.to_string()));
        }
        Ok(all)
    }

    /// Waits for requests that earlier commands left with an unknown outcome, and reports their results.
    /// Acknowledgements after the first [`SETTLED_SHOWN`] requests are only counted.
    fn settled(&self, client: Client) -> Result<Client, Failure> {
        client
            .connection_events()
            .try_iter()
            .filter_map(|event| print::about_device(&event))
            .for_each(print::note);
        let mut acknowledged = 0;
        for (n, recovered) in client.recovered().iter().enumerate() {
            let what = in_words(&recovered.request);
            match waiting::for_receipt(&recovered.receipt, self.left(), None, self.interrupt()?) {
                Ok(op) if n < SETTLED_SHOWN => {
                    print::note(format_args!("an earlier {what} is acknowledged now: op {op}"));
                }
                Ok(_) => acknowledged += 1,
                Err(Failure::Request { error: ReceiptError::Refused(code), .. }) => {
                    print::note(format_args!("an earlier {what} was refused: {}", explain(code)));
                }
                Err(Failure::Request { error: error @ ReceiptError::Forgotten, .. }) => {
                    print::note(format_args!("an earlier {what}: {error}"));
                }
                Err(failure @ Failure::Signal(_)) => {
                    print::note(format_args!("{}; it is an earlier {what}", exit::INTERRUPTED));
                    return Err(failure);
                }
                Err(error) => {
                    // The requests behind it would wait in vain as well. They stay for the next command.
                    print::note(format_args!("an earlier {what}: {error}"));
                    break;
                }
            }
        }
        if acknowledged > 0 {
            let more = wording::counted(acknowledged, "more earlier request");
            let are = if acknowledged == 1 { "is" } else { "are" };
            print::note(format_args!("and {more} {are} acknowledged now"));
        }
        Ok(client)
    }
}

/// What is left of a cluster that is not known any more, and how to drop it.
fn unsent(left: &Orphaned, profile: &Name) -> String {
    let Orphaned { cluster, requests, .. } = left;
    let (first, more) =
        (requests.first().map(described).unwrap_or_default(), requests.len().saturating_sub(1));
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!(
        "{} never went to cluster {cluster}, which is no longer known here: {first}{more}. To see all and drop {}, run: \
         recado --as {profile} device reset --cluster {cluster}",
        wording::counted(requests.len() as u64, "request"),
        if requests.len() == 1 { "it" } else { "them" },
    )
}

/// Addresses, separated by commas.
fn addresses(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Maps `@name` to the topic that a reader means: the inbox for the user's own name, which a person is told,
/// and the feed for another one.
fn to_read(topic: Topic, me: &Name) -> Topic {
    match topic {
        Topic::Feed(name) if name == *me => {
            print::aside(format_args!(
                "@{name} is you, so this is your inbox; what you sent to your followers: recado history --feed"
            ));
            Topic::Inbox(name)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use recado_client::{ClusterId, Content};

    use super::*;

    #[test]
    fn what_is_left_of_a_forgotten_cluster_is_told_with_its_beginning_and_the_command_that_drops_it() {
        let send = |text: &str| Request::Send {
            topic: Some(Topic::to_send("#ops").unwrap()),
            content: Content::of(text),
        };
        let left = |requests| Orphaned { cluster: ClusterId(7), requests, dir: "/state".into() };
        let alice = "alice".parse().unwrap();
        let one = unsent(&left(vec![send("disk\u{1b}[31m full")]), &alice);
        assert!(one.starts_with("1 request never went to cluster 0000000000000007"), "{one}");
        assert!(one.contains("send to #ops: \"disk full\". To see all and drop it"), "{one}");
        assert!(one.ends_with("recado --as alice device reset --cluster 0000000000000007"), "{one}");
        let two = unsent(&left(vec![send("one"), send("two")]), &alice);
        assert!(two.starts_with("2 requests never") && two.contains("\"one\", and 1 more."), "{two}");
    }
}
