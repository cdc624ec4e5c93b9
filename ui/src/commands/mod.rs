//! Commands, with one file for each command or family of commands.

mod about;
mod channel;
mod cluster;
mod configuration;
mod demo;
mod device;
mod exec;
mod follow;
mod history;
mod key;
mod listen;
mod lists;
mod manual;
mod send;
mod status;

use std::time::Duration;

use recado_client::{
    Client, EnrolmentCode, Listing, Name, Options, Orphaned, ReceiptError, Request, Topic, Trust, explain,
};

use crate::cli::{Command, Common, ConfigCommand};
use crate::config::Config;
use crate::environment::{AS, CLUSTER_KEY, SERVERS};
use crate::exit::Failure;
use crate::print::{self, Out};
use crate::trust;

pub(crate) use lists::counted;

/// Default time-out of a command.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lower bound of a listener's time to connect: opening a session takes a moment.
const CONNECT_LEAST: Duration = Duration::from_secs(1);

/// Number of earlier requests whose acknowledgement is reported one by one. Further ones are counted.
const SETTLED_SHOWN: usize = 3;

/// Runs a command.
pub(crate) fn run(common: &Common, command: Command) -> Result<(), Failure> {
    // These commands need no configuration, and `config init` writes it.
    match &command {
        Command::Config(ConfigCommand::Init) => return configuration::init(common),
        Command::Man { dir } => return manual::man(dir.as_deref()),
        Command::Completions { shell } => return manual::completions(*shell),
        _ => {}
    }
    let config = Config::load(common)?;
    let trust = trust::trust(&config, common.accept_new);
    let typed_profile = common.profile.clone().filter(|_| common.typed_profile);
    let out = Out::new(common.json);
    let context = Context { config, typed_profile, trust, timeout: common.timeout, out };
    match command {
        Command::Send(send) => send::run(&context, send),
        Command::Follow { topic } => follow::follow(&context, topic),
        Command::Unfollow { topic } => follow::unfollow(&context, topic),
        Command::Listen(listen) => listen::run(&context, &listen),
        Command::History(history) => history::run(&context, history),
        Command::Following => lists::run(&context, Listing::Following),
        Command::Followers => lists::run(&context, Listing::Followers),
        Command::Channels => lists::run(&context, Listing::Channels),
        Command::Channel(command) => channel::run(&context, command),
        Command::People => lists::run(&context, Listing::People),
        Command::Devices => lists::run(&context, Listing::Devices),
        Command::Device(command) => device::run(&context, command),
        Command::Key(command) => key::run(&context, command),
        Command::Info { name } => about::info(&context, name),
        Command::Whoami => about::whoami(&context),
        Command::Status => status::run(&context, common.json),
        Command::Cluster(command) => cluster::run(&context, command),
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
    /// The time-out given by the user, if any.
    timeout: Option<Duration>,
    out: Out,
}

impl Context {
    /// The user's time-out, or the default.
    fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// Opens a session that sends and asks, but does not receive.
    fn connect(&self) -> Result<Client, Failure> {
        let options = self.options(self.timeout())?.send_only();
        Ok(self.settled(Client::connect(options)?))
    }

    /// Opens a session of an installation that enrols with `code`.
    fn enrolled(&self, code: EnrolmentCode) -> Result<Client, Failure> {
        let options = self.options(self.timeout())?.send_only().enrol(code);
        Ok(self.settled(Client::connect(options)?))
    }

    /// Opens a session that also receives.
    fn connect_to_receive(&self) -> Result<Client, Failure> {
        // For a listener the time-out says how long to listen, so connecting takes no longer than that
        // either.
        let options = self.options(self.timeout().clamp(CONNECT_LEAST, TIMEOUT))?;
        Ok(self.settled(Client::connect(options)?))
    }

    /// Reports requests that were queued for a cluster which is not known any more. They are not sent, and
    /// they are not deleted either.
    fn tell_unsent(&self, client: &Client) {
        // With a pinned key nothing records which clusters are known.
        if matches!(self.trust, Trust::Pinned(_)) {
            return;
        }
        let left = Orphaned::left(&self.config.state, client.profile(), client.cluster());
        // The command does not fail if these files cannot be read.
        for Orphaned { cluster, requests, dir } in left.unwrap_or_default() {
            print::note(format_args!(
                "{requests} unsent requests for cluster {cluster}, which is no longer known here, remain in {}; \
                 delete it to drop them",
                dir.display()
            ));
        }
    }

    fn options(&self, timeout: Duration) -> Result<Options, Failure> {
        let config = &self.config;
        let options = Options::new(config.profile()?, config.servers.clone(), &config.state);
        let options = match config.invite {
            Some(code) => options.invited(code),
            None => options,
        };
        Ok(options.trust(self.trust.clone()).timeout(timeout))
    }

    /// Environment of a `recado` that `--exec` runs. It acts as the same profile at the same servers,
    /// wherever this process took them from.
    fn environment(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let servers: Vec<String> = self.config.servers.iter().map(ToString::to_string).collect();
        let mut all = vec![(AS, self.config.profile()?.to_string()), (SERVERS, servers.join(","))];
        if let Some(key) = self.config.cluster_key {
            all.push((CLUSTER_KEY, key.to_string()));
        }
        Ok(all)
    }

    /// Waits for requests that earlier commands left with an unknown outcome, and reports their results.
    /// Acknowledgements after the first [`SETTLED_SHOWN`] requests are only counted.
    fn settled(&self, client: Client) -> Client {
        client
            .connection_events()
            .try_iter()
            .filter_map(|event| print::about_device(&event))
            .for_each(print::note);
        let mut acknowledged = 0;
        for (n, recovered) in client.recovered().iter().enumerate() {
            let what = match &recovered.request {
                Request::Send { topic: None, .. } => "send to your followers".to_owned(),
                Request::Send { topic: Some(topic), .. } => format!("send to {}", print::written(topic)),
                Request::Follow { topic, .. } => format!("follow or unfollow of {}", print::written(topic)),
                Request::Keys { .. } => "change of your keys".to_owned(),
                Request::Channel { channel, .. } => format!("change of #{channel}"),
            };
            match recovered.receipt.wait(self.timeout()) {
                Ok(op) if n < SETTLED_SHOWN => {
                    print::note(format_args!("an earlier {what} is acknowledged now: op {op}"));
                }
                Ok(_) => acknowledged += 1,
                Err(ReceiptError::Refused(code)) => {
                    print::note(format_args!("an earlier {what} was refused: {}", explain(code)));
                }
                Err(error @ ReceiptError::Forgotten) => {
                    print::note(format_args!("an earlier {what}: {error}"));
                }
                Err(error) => {
                    // The requests behind it would wait in vain as well. They stay for the next command.
                    print::note(format_args!("an earlier {what}: {error}"));
                    break;
                }
            }
        }
        self.tell_unsent(&client);
        if acknowledged > 0 {
            print::note(format_args!("and {acknowledged} more earlier requests are acknowledged now"));
        }
        client
    }
}

/// Maps `@name` to the topic that a reader means: the inbox for the user's own name, the feed for another
/// one.
fn to_read(topic: Topic, client: &Client) -> Topic {
    match topic {
        Topic::Feed(name) if name == *client.profile() => Topic::Inbox(name),
        other => other,
    }
}
