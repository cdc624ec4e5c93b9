//! Command line, defined with clap. The doc comments of commands and options are the texts of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::{Span, SpanRelativeTo};
use recado_client::{
    ChannelName, ClusterKey, Content, EnrolmentCode, Name, NameError, Op, Priority, Role, Topic,
};

use crate::exit;
use crate::tui::settings::When;

/// Send and receive notifications through a recado cluster.
#[derive(Debug, Parser)]
#[command(name = "recado", version, after_help = exit::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
}

/// Options of the screen, which runs without a command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the screen (recado without a command)")]
pub(crate) struct ScreenArgs {
    /// Colours: dark, light, contrast, or a theme of your own
    #[arg(long, value_name = "NAME")]
    pub(crate) theme: Option<String>,
    /// Whether to use colours; overrides NO_COLOR
    #[arg(long, value_name = "WHEN")]
    pub(crate) color: Option<When>,
    /// Use only ASCII characters for symbols
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Do not capture the mouse
    #[arg(long)]
    pub(crate) no_mouse: bool,
}

/// Help heading of the options of every command. It separates them from the command's own options.
const COMMON: &str = "Options of every command";

/// Options of every command.
#[derive(Debug, Default, Args)]
pub(crate) struct Common {
    /// The profile to act as [RECADO_AS]. `claim`, `send`, `follow` and `channel create` claim a name that
    /// nobody has yet; no other command does, but the screen
    #[arg(
        long = "as",
        value_name = "NAME",
        global = true,
        value_parser = profile,
        help_heading = COMMON
    )]
    pub(crate) profile: Option<Name>,
    /// True if the profile was given on the command line, and not by the environment.
    #[arg(skip)]
    pub(crate) typed_profile: bool,
    /// The address of a server, HOST[:PORT]; one is enough, since recado saves the others at the first
    /// connection; repeat the option or separate addresses with commas [RECADO_SERVERS]
    #[arg(
        long = "server",
        value_name = "ADDR",
        global = true,
        value_delimiter = ',',
        help_heading = COMMON
    )]
    pub(crate) servers: Vec<String>,
    /// How long to try, from the start of the command (500ms, 1m30s; default 30s, for status 1s); for listen:
    /// when to stop
    #[arg(
        long,
        value_name = "DURATION",
        global = true,
        value_parser = timeout,
        allow_hyphen_values = true,
        help_heading = COMMON
    )]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON, one object a line (status: one array)
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) json: bool,
    /// Trust an unknown cluster without a prompt, and save its key
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) accept_new: bool,
    /// Connect only to the cluster with this key: 64 hexadecimal digits, as `recadod fingerprint` prints it
    /// [RECADO_CLUSTER_KEY]
    #[arg(long, value_name = "KEY", global = true, help_heading = COMMON)]
    pub(crate) cluster_key: Option<ClusterKey>,
    /// The invitation code, if the cluster requires one for a new name
    #[arg(long, value_name = "CODE", global = true, help_heading = COMMON)]
    pub(crate) invite: Option<EnrolmentCode>,
    /// Never claim a name that nobody has (also: claim = false in the configuration)
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) no_claim: bool,
    /// The configuration file [RECADO_CONFIG]
    #[arg(long, value_name = "FILE", global = true, help_heading = COMMON)]
    pub(crate) config: Option<PathBuf>,
    /// The account of the configuration [RECADO_ACCOUNT]
    #[arg(long, value_name = "NAME", global = true, help_heading = COMMON)]
    pub(crate) account: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a notification; prints its op once a majority of the servers has it on disk
    #[command(after_help = SEND_HELP)]
    Send(Send),
    /// Follow a profile's feed or a channel
    Follow {
        /// @name or '#channel' (in quotes: to a shell, # begins a comment)
        #[arg(value_name = "@NAME|'#CHANNEL'", value_parser = to_follow)]
        topic: Topic,
    },
    /// Stop following a profile's feed or a channel
    Unfollow {
        /// @name or '#channel' (in quotes: to a shell, # begins a comment)
        #[arg(value_name = "@NAME|'#CHANNEL'", value_parser = to_follow)]
        topic: Topic,
    },
    /// Receive notifications as they arrive, first those that are unread
    #[command(after_help = LISTEN_HELP)]
    Listen(Listen),
    /// Show older notifications of a topic, or of everything you follow; marks nothing as read
    #[command(after_help = "The output, also with --json, is described in `recado listen --help`.")]
    History(History),
    /// List the topics that you follow
    Following,
    /// List the profiles that follow you
    Followers,
    /// List all channels
    Channels,
    /// Manage channels with owners and members
    #[command(subcommand, after_help = CHANNEL_HELP)]
    Channel(Channel),
    /// List all profiles
    People,
    /// List the devices of your profile
    Devices,
    /// Manage the machines that may act as your profile
    #[command(subcommand, after_help = DEVICE_HELP)]
    Device(Device),
    /// Export and import this machine's key as a file
    #[command(subcommand, after_help = KEY_HELP)]
    Key(Key),
    /// Show a profile: followers, following, devices, pending
    Info {
        /// The profile; the default is your own
        #[arg(value_parser = whom)]
        name: Option<Name>,
    },
    /// Show your profile, this device and its session
    Whoami,
    /// Claim your name, if nobody has it yet, without sending or following anything
    Claim,
    /// Show the state of the servers
    #[command(after_help = STATUS_HELP)]
    Status,
    /// Manage the trusted clusters
    #[command(subcommand, after_help = CLUSTER_HELP)]
    Cluster(Cluster),
    /// Manage the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run a few bots that send notifications, as a demonstration
    #[command(after_help = DEMO_HELP)]
    Demo(Demo),
    /// Print the manual page, or write all pages to a directory
    Man {
        /// The directory; the pages go to DIR/man1, so that `MANPATH=DIR man recado-send` finds them
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a sample file that explains every setting; never overwrites a file
    Init,
    /// Check every value of the file, also those of the screen and of its theme
    Check,
}

const DEMO_HELP: &str = "\
Use a cluster for trials: the bots' profiles (@demo.ada and others), their
channels (#demo-ops and others) and their notifications remain. The first bot
also sends to the inbox of the profile that runs the demo.";

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Demo {
    /// Number of bots
    #[arg(long, value_name = "N", default_value = "4", allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) bots: u8,
    /// Number of notifications that each bot sends
    #[arg(long, value_name = "N", default_value = "10", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// Time between two notifications of a bot
    #[arg(long, value_name = "DURATION", default_value = "2s", allow_hyphen_values = true, value_parser = duration)]
    pub(crate) every: Duration,
}

const CLUSTER_HELP: &str = "\
A cluster has a key, and its servers prove that they have it. recado saves the
key at the first connection: on 127.0.0.1 without a prompt; elsewhere it asks
you to compare the key's fingerprint with the one that `recadod fingerprint`
prints on a server. In scripts, where recado cannot ask, --accept-new trusts an
unknown cluster, or --cluster-key (RECADO_CLUSTER_KEY, cluster_key in the
configuration) gives the key to expect.";

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// List the trusted clusters and their addresses
    List,
    /// Forget a cluster and all its addresses; the next connection is its first
    Forget {
        /// HOST[:PORT] of any of its servers, or the cluster's id
        #[arg(value_name = "ADDR|CLUSTER")]
        which: String,
    },
    /// Show the cluster, fingerprint and key at each server address; saves nothing
    Show,
}

const SEND_HELP: &str = "\
The first notification sent to a channel that does not exist creates the
channel. It is open to everyone and cannot be deleted; standard error says so.
If a notification was sent but its op cannot be printed, standard error shows
the op, and the exit code is still 0.

If nobody has your name yet, `send` claims it and says so on standard error.

With - each line of standard input is a notification. Blank lines are skipped.
Many lines are in flight at once; their ops are printed in order. A line that is
refused or cannot be sent is reported with its number and ends the sending;
recado still waits for the lines in flight and prints their ops. The exit code
is that of the first line that failed.";

const STATUS_HELP: &str = "\
ROLE     primary: takes all writes; backup: holds a copy and votes;
         candidate: in an election; isolated: a primary without a majority,
         which acknowledges nothing; learner: has no vote yet
VIEW     ROUND.SERVER: every election has a new round, and only SERVER can be
         primary in it
APPLIED  the last op that the server has applied
DURABLE  the last op on the server's disk
LAG      ops in the server's log that it has not applied: they wait to be
         committed, or to be applied
PID      process id on the server's machine

The exit code is 69 if no server is primary: nothing can be sent or queried. If
no server answers, their addresses are shown all the same.

With --json there are also alive (the server answered), incarnation (how often
it was started), uptime_ms, and refused: how many datagrams the server dropped
since its start, by reason. They come from attackers, other clusters and faulty
networks. A few are normal: Seal and Session after a restart, Repeated from a
network that duplicates packets, QueueFull and Budget under load.";

const CHANNEL_HELP: &str = "\
A channel that a notification created is open: it has no owners, anyone can send
to it, follow and read it, and nobody can delete it. A channel that `channel
create` created belongs to its owners: anyone can follow and read it (with
--private only its members), and its writers and owners can send to it. The name
of a deleted channel is free again after 30 days.

A channel's name has 1 to 128 of A-Z, a-z, 0-9, - _ . and ~, with a letter or a
digit at both ends. Upper and lower case differ: #Ops and #ops are two channels.
Write '#channel' in quotes: # begins a comment in a shell.";

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// Create a channel that you own
    Create {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel)]
        channel: ChannelName,
        /// Only members can follow and read it
        #[arg(long)]
        private: bool,
    },
    /// Add a member, or change a member's role
    Add {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel)]
        channel: ChannelName,
        /// The profile
        #[arg(value_name = "@NAME", value_parser = profile)]
        member: Name,
        /// reader: follows and reads; writer: also sends; owner: also changes members
        #[arg(long, default_value = "writer", value_parser = role)]
        role: Role,
    },
    /// Remove a member, or leave; the profile then no longer follows a private channel
    Remove {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel)]
        channel: ChannelName,
        /// The profile
        #[arg(value_name = "@NAME", value_parser = profile)]
        member: Name,
    },
    /// List the members
    Members {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel)]
        channel: ChannelName,
    },
    /// Delete a channel and its notifications; its name is free again after 30 days
    Delete {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel)]
        channel: ChannelName,
        /// Confirm; without it nothing is deleted
        #[arg(long)]
        yes: bool,
    },
}

const DEVICE_HELP: &str = "\
A name belongs to the key that was created on the machine that first used it. To
use the name on another machine too, run `recado device add` on the first one
and within ten minutes `recado device enrol CODE` on the other.";

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Print a one-time code for a new machine
    Add,
    /// Add this machine to the profile, with the code that `device add` printed
    Enrol {
        /// The code, as in 7K3Q9-0XWZP
        #[arg(value_name = "CODE")]
        code: EnrolmentCode,
    },
    /// List the keys of your profile and their devices; marks this machine's key
    List,
    /// Revoke a key; its devices are removed and their sessions end
    Remove {
        /// The key as `device list` shows it, or its first digits
        #[arg(value_name = "KEY")]
        key: String,
        /// Confirm; required for this machine's key
        #[arg(long)]
        yes: bool,
    },
}

const KEY_HELP: &str = "\
Anyone who has the file can act as you. Use one key on one machine at a time:
two machines with one key end each other's sessions, and one may receive the
answers meant for the other. For a second machine use `recado device add`.";

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Write the key to a file (0600), or to standard output
    Export {
        /// The file, which must not exist yet
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The cluster, if this machine has keys for several
        #[arg(long, value_name = "ID")]
        cluster: Option<String>,
    },
    /// Read the key from a file; this machine continues as the one that exported it
    Import {
        /// The file that `key export` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Overwrite another key of the same profile
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// '#channel', or @name for that profile's inbox; the default is your followers
    #[arg(long, value_name = "TOPIC", value_parser = to_send)]
    pub(crate) to: Option<Topic>,
    /// The title, at most 1,024 bytes
    #[arg(long, value_parser = title)]
    pub(crate) title: Option<String>,
    /// The priority, 1 (lowest) to 5 (highest)
    #[arg(long, default_value = "3", allow_hyphen_values = true, value_parser = priority)]
    pub(crate) priority: Priority,
    /// A tag, at most 64 bytes; at most 16 tags
    #[arg(long = "tag", value_name = "TAG", value_parser = tag)]
    pub(crate) tags: Vec<String>,
    /// The text, words joined by spaces; or - to send each line of standard input
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
}

const LISTEN_HELP: &str = "\
A notification that was shown is read: it does not come again on this device.
Ctrl-C ends the command, and so does the end of the program that reads its
output. Commands that run as one profile at the same time are
separate devices, each with its own cursor: one may show what another has shown.

--since or --last (not both) first shows older notifications and what is unread
before them, which marks nothing as read, and then new ones. A time such as 10m
counts back from the servers' clock. --count and --timeout end the command. With
a TOPIC, notifications of other topics are skipped; `recado history` still shows
them.

The exit code is 77 if you do not follow a TOPIC. The second and later lines of
a text begin with |, and terminal control characters are removed.

With --json each line has kind (notification or gap). A notification has op,
topic, topic_kind (feed, channel or inbox, because @name can be two of them),
author, time, unix_ms, title, priority, tags and body.

With --exec nothing is shown: CMD runs (sh -c) for each notification. It gets
the unchanged text on standard input, and in its environment RECADO_OP,
RECADO_TOPIC, RECADO_TOPIC_KIND, RECADO_AUTHOR, RECADO_TITLE, RECADO_PRIORITY,
RECADO_TAGS (a tag a line), RECADO_TIME and RECADO_UNIX_MS. RECADO_AS, RECADO_SERVERS and, if a
key is pinned, RECADO_CLUSTER_KEY have the values of this command, so that a
`recado send` in CMD acts as the same profile. The notification is read only
when CMD has succeeded: after a crash, or a CMD that fails, which ends the
command, the notification comes again (at least once).";

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Show only these of the topics that you follow; your own @name is your inbox
    #[arg(value_name = "TOPIC", value_parser = to_follow)]
    pub(crate) topics: Vec<Topic>,
    /// First show what came after this op, or within this time before now (10m, 2h, 3d)
    #[arg(long, value_name = "OP|DURATION", allow_hyphen_values = true, value_parser = since)]
    pub(crate) since: Option<Since>,
    /// First show the newest N
    #[arg(long, value_name = "N", conflicts_with = "since", allow_hyphen_values = true, value_parser = number)]
    pub(crate) last: Option<usize>,
    /// End after N notifications
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number)]
    pub(crate) count: Option<usize>,
    /// Run CMD for each notification
    #[arg(long, value_name = "CMD", conflicts_with = "json", value_parser = shell_command)]
    pub(crate) exec: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// @name (that profile's feed) or '#channel'; the default is everything you follow
    #[arg(value_parser = to_follow)]
    pub(crate) topic: Option<Topic>,
    /// Show your own inbox, and what you sent to other inboxes
    #[arg(long, conflicts_with = "topic")]
    pub(crate) inbox: bool,
    /// Show what came after this op, or within this time before now (10m, 2h, 3d)
    #[arg(long, value_name = "OP|DURATION", allow_hyphen_values = true, value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Show what came before this op
    #[arg(long, value_name = "OP", conflicts_with = "since", allow_hyphen_values = true, value_parser = op)]
    pub(crate) before: Option<u64>,
    /// Show at most N: the newest, or with --since the oldest; default 20, with --since all
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number)]
    pub(crate) last: Option<usize>,
}

/// Beginning of the past to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// After this op.
    Op(Op),
    /// This long before now.
    Ago(Duration),
}

/// Parses a profile name, with or without its @.
pub(crate) fn profile(text: &str) -> Result<Name, String> {
    text.strip_prefix('@')
        .unwrap_or(text)
        .parse()
        .map_err(|error: recado_client::NameError| error.to_string())
}

/// Parses the profile that `info` describes. The error for a channel names the command to use instead.
fn whom(text: &str) -> Result<Name, String> {
    match text.strip_prefix('#') {
        Some(_) => Err(format!("`info` shows profiles; for a channel run: recado channel members '{text}'")),
        None => profile(text),
    }
}

/// Parses a channel name, with or without its #.
fn channel(text: &str) -> Result<ChannelName, String> {
    if let Some(name) = text.strip_prefix('@') {
        return Err(format!("this is a profile; a channel is written '#{name}' or {name}"));
    }
    text.strip_prefix('#')
        .unwrap_or(text)
        .parse()
        .map_err(|error: recado_client::NameError| error.to_string())
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "reader" => Ok(Role::Reader),
        "writer" => Ok(Role::Writer),
        "owner" => Ok(Role::Owner),
        other => Err(format!("a role is reader, writer or owner, not {other:?}")),
    }
}

fn to_follow(text: &str) -> Result<Topic, String> {
    Topic::to_follow(text).map_err(not_a_topic)
}

fn to_send(text: &str) -> Result<Topic, String> {
    Topic::to_send(text).map_err(not_a_topic)
}

/// The error for a text that names no topic. A name alone may mean either kind.
fn not_a_topic(error: NameError) -> String {
    match error {
        NameError::Sigil(name) => format!("write @{name} for the profile, or '#{name}' for the channel"),
        error => error.to_string(),
    }
}

fn priority(text: &str) -> Result<Priority, String> {
    let wrong = || "a priority is a number from 1 to 5".to_owned();
    let number: u8 = text.parse().map_err(|_| wrong())?;
    Priority::try_from(number).map_err(|_| wrong())
}

fn title(text: &str) -> Result<String, String> {
    at_most("a title", text, Content::TITLE_MAX)
}

fn tag(text: &str) -> Result<String, String> {
    if text.chars().all(Content::is_blank_char) {
        return Err("a tag must have something to see".to_owned());
    }
    at_most("a tag", text, Content::TAG_MAX)
}

fn at_most(what: &str, text: &str, most: usize) -> Result<String, String> {
    match text.len() {
        len if len > most => Err(format!("{what} has at most {most} bytes, and this one has {len}")),
        _ => Ok(text.to_owned()),
    }
}

/// Parses the command of `--exec`. A blank one would do nothing and succeed, which marks everything as read.
fn shell_command(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("there is no command; to mark everything as read, write --exec true".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Parses an op as the commands print it.
fn op(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("an op is a number such as `recado send` prints, not {text:?}"))
}

/// Parses a number of notifications.
fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("a number of notifications is 0 or more, not {text:?}"))
}

/// Parses a duration as users write it. A bare number is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let wrong = |_| format!("{text:?} is not a duration; write it as 500ms, 30s, 10m, 2h or 3d");
    let span: Span = text.parse().map_err(wrong)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    Duration::try_from(duration).map_err(|_| format!("{text:?} is negative; a duration must not be"))
}

/// Parses a time-out. It must be above zero, because every command waits for a server.
fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a time-out must be above 0".to_owned()),
        timeout => Ok(timeout),
    }
}

fn since(text: &str) -> Result<Since, String> {
    match (text.parse(), duration(text)) {
        (Ok(op), _) => Ok(Since::Op(Op(op))),
        (Err(_), Ok(ago)) => Ok(Since::Ago(ago)),
        (Err(_), Err(_)) => Err(format!(
            "{text:?} is neither an op, as `recado send` prints it, nor a time such as 10m, 2h or 3d"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("recado").chain(line.iter().copied()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_fits_a_terminal_of_80_columns() {
        use clap::CommandFactory;
        fn check(command: &mut clap::Command) {
            for line in command
                .render_help()
                .to_string()
                .lines()
                .chain(command.render_long_help().to_string().lines())
            {
                assert!(line.chars().count() <= 80, "{}: {line:?}", command.get_name());
            }
            for command in command.get_subcommands_mut() {
                check(command);
            }
        }
        let mut command = Cli::command().term_width(80);
        command.build();
        check(&mut command);
    }

    #[test]
    fn a_send_has_topic_title_priority_tags_and_words() {
        let line =
            ["send", "--to", "#ops", "--title", "T", "--priority", "5", "--tag", "a", "--tag", "b", "x", "y"];
        let Some(Command::Send(send)) = parse(&line).unwrap().command else { panic!("no send") };
        assert_eq!(send.to, Some(Topic::to_send("#ops").unwrap()));
        assert_eq!((send.title.as_deref(), u8::from(send.priority)), (Some("T"), 5));
        assert_eq!((send.tags, send.text), (vec!["a".into(), "b".into()], vec!["x".into(), "y".into()]));
    }

    #[test]
    fn the_default_role_of_a_member_is_writer() {
        let added = |line: &[&str]| match parse(line).unwrap().command {
            Some(Command::Channel(Channel::Add { role, .. })) => role,
            other => panic!("{other:?}"),
        };
        assert_eq!(added(&["channel", "add", "#ops", "@bob"]), Role::Writer);
        assert_eq!(added(&["channel", "add", "#ops", "@bob", "--role", "owner"]), Role::Owner);
        assert!(parse(&["channel", "add", "#ops", "@bob", "--role", "boss"]).is_err());
    }

    #[test]
    fn the_name_of_a_channel_keeps_its_case_and_may_be_long() {
        let created = |line: &[&str]| match parse(line).unwrap().command {
            Some(Command::Channel(Channel::Create { channel, .. })) => channel.to_string(),
            other => panic!("{other:?}"),
        };
        let longest = "A-_.~z09".repeat(16);
        assert_eq!(created(&["channel", "create", "#Ops~1"]), "Ops~1");
        assert_eq!(created(&["channel", "create", &longest]), longest);
        let message = parse(&["channel", "create", &format!("#{longest}x")]).unwrap_err().to_string();
        assert!(message.contains("a channel's name has 1 to 128 characters"), "{message}");
        let message = parse(&["follow", "#two words"]).unwrap_err().to_string();
        assert!(message.contains("'-', '_', '.' and '~'"), "{message}");
    }

    #[test]
    fn a_hyphen_reads_standard_input() {
        let Some(Command::Send(send)) = parse(&["send", "--to", "@bob", "-"]).unwrap().command else {
            panic!("no send")
        };
        assert_eq!(send.text, ["-"]);
        assert!(matches!(send.to, Some(Topic::Inbox(_))));
    }

    #[test]
    fn options_of_all_commands_stand_before_or_after_them() {
        let cli =
            parse(&["--as", "@alice", "follow", "@bob", "--json", "--timeout", "5", "--server", "a:1,b:2"]);
        let common = cli.unwrap().common;
        assert_eq!(common.profile.unwrap().as_str(), "alice");
        assert!(common.json);
        assert_eq!(common.timeout, Some(Duration::from_secs(5)));
        assert_eq!(common.servers, ["a:1", "b:2"]);
    }

    #[test]
    fn since_is_an_op_or_a_duration() {
        assert_eq!(since("17"), Ok(Since::Op(Op(17))));
        assert_eq!(since("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        assert_eq!(since("2d"), Ok(Since::Ago(Duration::from_secs(2 * 24 * 3600))));
        assert!(since("soon").is_err());
        assert!(duration("-5s").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn no_command_takes_a_time_out_of_zero() {
        use clap::CommandFactory;
        let commands = Cli::command();
        for command in commands.get_subcommands().map(clap::Command::get_name) {
            let rest: &[&str] = match command {
                "send" => &["text"],
                "follow" | "unfollow" => &["@bob"],
                "channel" => &["members", "#ops"],
                "cluster" => &["show"],
                "device" => &["list"],
                "key" => &["export"],
                "config" => &["init"],
                "completions" => &["bash"],
                _ => &[],
            };
            for (timeout, good) in [("0", false), ("0s", false), ("1ms", true)] {
                let line = [&[command, "--timeout", timeout], rest].concat();
                assert_eq!(parse(&line).is_ok(), good, "{line:?}");
            }
        }
        let message = parse(&["status", "--timeout", "0"]).unwrap_err().to_string();
        assert!(message.contains("above 0"), "{message}");
    }

    #[test]
    fn a_wrong_name_or_priority_is_a_usage_error() {
        assert!(parse(&["follow", "ops"]).is_err());
        assert!(parse(&["follow", "@A"]).is_err());
        assert!(parse(&["send", "--priority", "6", "x"]).is_err());
        assert!(parse(&["send"]).is_err());
        assert!(parse(&["send", "--tag", "", "x"]).is_err());
        assert!(parse(&["listen", "--since", "1", "--last", "1"]).is_err());
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_should_be() {
        let nine = "x".repeat(Content::TITLE_MAX + 1);
        let table: &[(&[&str], &[&str])] = &[
            (&["history", "--before", "foo"], &["an op is a number", "\"foo\""]),
            (&["history", "--last", "-1"], &["a number of notifications", "\"-1\""]),
            (&["listen", "--count", "-1"], &["a number of notifications", "\"-1\""]),
            (&["listen", "--last", "many"], &["a number of notifications", "\"many\""]),
            (&["listen", "--since", "soon"], &["neither an op", "10m"]),
            (&["listen", "--since", "-5m"], &["neither an op", "\"-5m\""]),
            (&["status", "--timeout", "-5s"], &["negative"]),
            (&["send", "--priority", "-1", "x"], &["a priority is a number from 1 to 5"]),
            (&["send", "--priority", "9", "x"], &["a priority is a number from 1 to 5"]),
            (&["send", "--tag", "\u{200b}", "x"], &["a tag must have something to see"]),
            (&["send", "--title", &nine, "x"], &["1024", "1025"]),
            (&["listen", "--exec", " "], &["there is no command"]),
            (&["demo", "--bots", "-1"], &["-1 is not in 1..=8"]),
            (&["follow", "ops"], &["@ops for the profile", "'#ops' for the channel"]),
            (&["channel", "create", "@ops"], &["'#ops' or ops"]),
        ];
        for (line, words) in table {
            let error = parse(line).unwrap_err();
            let message = error.to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{line:?}: {message}");
            assert!(!message.contains("tip:") && !message.contains("invalid digit"), "{line:?}: {message}");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn info_about_a_channel_is_an_error_that_names_the_command_for_it() {
        let message = parse(&["info", "#ops"]).unwrap_err().to_string();
        assert!(message.contains("recado channel members '#ops'"), "{message}");
        assert!(parse(&["info", "@bob"]).is_ok());
    }
}
