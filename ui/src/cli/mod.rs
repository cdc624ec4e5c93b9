//! Command line, defined with clap. The doc comments of commands and options are the texts of `--help`, with
//! those of `help` before and after them; `values` parses the values, and `hint` words what is wrong.

mod help;
mod hint;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recado_client::{
    ChannelName, ClusterKey, Consistency, DisplayName, EnrolmentCode, Name, Priority, Role, StoreKey, Topic,
};

pub(crate) use self::help::for_manual;
pub(crate) use self::hint::{send_to, shell_words, with_hint};
pub(crate) use self::values::{Point, duration, profile};
use crate::completion;
use crate::exit;
use crate::tui::settings::When;

/// Send and receive notifications through a recado cluster.
#[derive(Debug, Parser)]
#[command(name = "recado", version, before_help = help::RECADO_EXAMPLES, after_help = exit::HELP)]
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
    /// Use only ASCII characters for symbols
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Do not capture the mouse
    #[arg(long)]
    pub(crate) no_mouse: bool,
}

/// Help heading of the options of every command. It separates them from the command's own options.
const COMMON: &str = "Options of every command";

/// How new what is read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// What the server that answers has, however old
    Any,
    /// At least what this machine has seen or sent before
    Session,
    /// At least what anybody has been told; needs a primary
    Linearizable,
}

impl From<Level> for Consistency {
    fn from(level: Level) -> Consistency {
        match level {
            Level::Any => Consistency::Any,
            Level::Session => Consistency::Session,
            Level::Linearizable => Consistency::Linearizable,
        }
    }
}

/// Options of every command.
#[derive(Debug, Default, Args)]
pub(crate) struct Common {
    /// The profile to act as [RECADO_AS]. `claim`, `send`, `follow`, `put`, `create` and `channel create`
    /// claim a name that nobody has yet; no other command does, but the screen
    #[arg(
        long = "as",
        value_name = "NAME",
        global = true,
        value_parser = values::profile,
        add = completion::profiles(),
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
        add = completion::servers(),
        help_heading = COMMON
    )]
    pub(crate) servers: Vec<String>,
    /// True if the servers were given on the command line, and not by the environment.
    #[arg(skip)]
    pub(crate) typed_servers: bool,
    /// How long to try, from the start of the command (500ms, 1m30s; default 30s, for status 1s, for doctor
    /// 3s); for listen: when to stop
    #[arg(
        long,
        value_name = "DURATION",
        global = true,
        value_parser = values::timeout,
        allow_hyphen_values = true,
        help_heading = COMMON
    )]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON, one object a line (status: one array)
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) json: bool,
    /// Whether to use colours; overrides NO_COLOR. Commands colour a notification of another priority than 3
    #[arg(long, value_name = "WHEN", global = true, help_heading = COMMON)]
    pub(crate) color: Option<When>,
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
    /// Never claim a name that nobody has (also: claim = false in the configuration, except for `claim`)
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) no_claim: bool,
    /// How new what is read has to be: any (what the server that answers has), session (all that this machine
    /// has seen or sent), or linearizable (all that anybody was told; needs a primary) [default: session]
    #[arg(long, value_name = "LEVEL", global = true, help_heading = COMMON)]
    pub(crate) consistency: Option<Level>,
    /// The configuration file [RECADO_CONFIG]
    #[arg(long, value_name = "FILE", global = true, help_heading = COMMON)]
    pub(crate) config: Option<PathBuf>,
    /// The account of the configuration [RECADO_ACCOUNT]
    #[arg(long, value_name = "NAME", global = true, add = completion::accounts(), help_heading = COMMON)]
    pub(crate) account: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a notification; prints its op once a majority of the servers has it on disk
    #[command(before_help = help::SEND_EXAMPLES, after_help = help::SEND_HELP)]
    Send(Send),
    /// Take the text of a notification away: one that you sent, or one in a channel that you own
    #[command(after_help = help::RETRACT_HELP)]
    Retract {
        /// The op that `send`, `listen` and `history` print
        #[arg(value_name = "OP", allow_hyphen_values = true, value_parser = values::op)]
        op: u64,
    },
    /// Follow profiles' feeds and channels
    #[command(before_help = help::FOLLOW_EXAMPLES)]
    Follow {
        /// @name or '#channel' (in quotes: to a shell, # begins a comment)
        #[arg(
            required = true,
            value_name = "@NAME|'#CHANNEL'",
            value_parser = values::to_follow,
            add = completion::topics()
        )]
        topics: Vec<Topic>,
    },
    /// Stop following profiles' feeds and channels
    Unfollow {
        /// @name or '#channel' (in quotes: to a shell, # begins a comment)
        #[arg(
            required = true,
            value_name = "@NAME|'#CHANNEL'",
            value_parser = values::to_follow,
            add = completion::followed()
        )]
        topics: Vec<Topic>,
    },
    /// Receive notifications as they arrive, first those that are unread
    #[command(before_help = help::LISTEN_EXAMPLES, after_help = help::LISTEN_HELP)]
    Listen(Listen),
    /// Show older notifications of a topic, or of everything you follow; marks nothing as read
    #[command(before_help = help::HISTORY_EXAMPLES, after_help = help::HISTORY_HELP)]
    History(History),
    /// List the topics that you follow
    Following,
    /// List the profiles that follow you
    Followers,
    /// List all channels, or manage those with owners and members
    #[command(visible_alias = "channels", before_help = help::CHANNEL_EXAMPLES, after_help = help::CHANNEL_HELP)]
    Channel {
        // `list` if it is left out.
        #[command(subcommand)]
        command: Option<Channel>,
    },
    /// List all profiles
    People,
    /// List or manage the machines that may act as your profile
    #[command(visible_alias = "devices", before_help = help::DEVICE_EXAMPLES, after_help = help::DEVICE_HELP)]
    Device {
        // `list` if it is left out.
        #[command(subcommand)]
        command: Option<Device>,
    },
    /// Export and import this machine's key as a file
    #[command(subcommand, after_help = help::KEY_HELP)]
    Key(Key),
    /// Show yourself and this device; or a profile, or a channel
    #[command(visible_alias = "whoami")]
    Info {
        /// @name or '#channel'; a name alone is a profile; the default is yourself
        #[arg(value_name = "@NAME|'#CHANNEL'", value_parser = values::whom, add = completion::topics())]
        whom: Option<Topic>,
    },
    /// Claim your name, if nobody has it yet, without sending or following anything
    Claim {
        /// The name; the default is the one of --as
        #[arg(value_name = "NAME", value_parser = values::profile)]
        name: Option<Name>,
    },
    /// Set the display name that stands beside your name in `info` and `people`
    #[command(group(clap::ArgGroup::new("what").required(true)))]
    Rename {
        /// The display name: one line of at most 64 bytes. Your @name stays as it is
        #[arg(value_name = "DISPLAY NAME", group = "what")]
        display: Option<DisplayName>,
        /// Have no display name
        #[arg(long, group = "what")]
        clear: bool,
    },
    /// Give a key a value; prints its timestamp once a majority of the servers has it on disk
    #[command(before_help = help::PUT_EXAMPLES, after_help = help::STORE_HELP)]
    Put {
        #[command(flatten)]
        written: Written,
        /// Only if the value has this timestamp: the one that `put` and `read` print
        #[arg(long = "if", value_name = "TIMESTAMP", value_parser = values::op)]
        at: Option<u64>,
    },
    /// Print the value of a key, or null (exit code 1) if it has none
    #[command(before_help = help::GET_EXAMPLES)]
    Get {
        /// The key
        #[arg(value_name = "KEY", value_parser = values::key, add = completion::keys())]
        key: StoreKey,
    },
    /// Give a key a value, if it has none
    Create(Written),
    /// As `get`, in a line with the value's timestamp and the server that answered
    Read {
        /// The key
        #[arg(value_name = "KEY", value_parser = values::key, add = completion::keys())]
        key: StoreKey,
    },
    /// Give a key another value, if it has one
    #[command(before_help = help::UPDATE_EXAMPLES)]
    Update {
        #[command(flatten)]
        written: Written,
        /// Only if the value has this timestamp: the one that `put` and `read` print
        #[arg(long = "if", value_name = "TIMESTAMP", value_parser = values::op)]
        at: Option<u64>,
    },
    /// Take the value of a key away
    Delete(Deleted),
    /// List the keys that have a value
    Keys {
        /// Only those that begin with this
        #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Show the state of the servers
    #[command(after_help = help::STATUS_HELP)]
    Status {
        /// Show it again every 2 s, or every DURATION, until Ctrl-C
        #[arg(
            short = 'w',
            long,
            value_name = "DURATION",
            num_args = 0..=1,
            default_missing_value = "2s",
            value_parser = values::interval
        )]
        watch: Option<Duration>,
        /// Show instead what the monitor of the servers in DIR (`recadod monitor --dir DIR`) does; it asks no
        /// server
        #[arg(long, value_name = "DIR")]
        monitor: Option<PathBuf>,
    },
    /// Find out what is wrong with the servers, the way to them, or this machine, and what to do
    #[command(before_help = help::DOCTOR_EXAMPLES, after_help = help::DOCTOR_HELP)]
    Doctor,
    /// List or manage the trusted clusters
    #[command(after_help = help::CLUSTER_HELP)]
    Cluster {
        // `list` if it is left out.
        #[command(subcommand)]
        command: Option<Cluster>,
    },
    /// Manage the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run a few bots that send notifications, as a demonstration
    #[command(after_help = help::DEMO_HELP)]
    Demo(Demo),
    /// Print the manual page, or write all pages to a directory
    Man {
        /// The directory; the pages go to DIR/man1, so that `MANPATH=DIR man recado-send` finds them
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print a shell's completion script; it completes also names of topics and servers
    #[command(before_help = help::COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A key and its new value.
#[derive(Debug, Args)]
pub(crate) struct Written {
    /// The key: 1 to 256 visible characters of ASCII, no spaces. Yours alone: @YOU/...; of a channel:
    /// '#CHANNEL/...'; any other is open to everyone
    #[arg(value_name = "KEY", value_parser = values::key, add = completion::keys())]
    pub(crate) key: StoreKey,
    /// The value, at most 16 KiB; - is all of standard input, as it is
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) value: String,
}

/// A key to take the value of away.
#[derive(Debug, Args)]
pub(crate) struct Deleted {
    /// The key
    #[arg(value_name = "KEY", value_parser = values::key, add = completion::keys())]
    pub(crate) key: StoreKey,
    /// Only if the value has this timestamp: the one that `put` and `read` print
    #[arg(long = "if", value_name = "TIMESTAMP", value_parser = values::op)]
    pub(crate) at: Option<u64>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a sample file that explains every setting, with the name of --as; never overwrites a file
    Init,
    /// Check every value of the file, also those of the screen and of its theme
    Check,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Demo {
    /// Number of bots
    #[arg(long, value_name = "N", default_value = "4", allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) bots: u8,
    /// Number of notifications that each bot sends
    #[arg(long, value_name = "N", default_value = "10", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// Time between two notifications of a bot
    #[arg(long, value_name = "DURATION", default_value = "2s", allow_hyphen_values = true, value_parser = values::duration)]
    pub(crate) every: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// List the trusted clusters and their addresses
    List,
    /// Forget a cluster and all its addresses; the next connection is its first
    Forget {
        /// HOST[:PORT] of any of its servers, or the cluster's id
        #[arg(value_name = "ADDR|CLUSTER", add = completion::servers())]
        which: String,
    },
    /// Show the cluster, fingerprint and key at each server address; saves nothing
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// List all channels
    List,
    /// Create a channel that you own
    Create {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = values::channel)]
        channel: ChannelName,
        /// Only members can follow and read it
        #[arg(long)]
        private: bool,
    },
    /// Add a member, or change a member's role
    Add {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = values::channel, add = completion::channels())]
        channel: ChannelName,
        /// The profile
        #[arg(value_name = "@NAME", value_parser = values::profile, add = completion::people())]
        member: Name,
        /// reader: follows and reads; writer: also sends; owner: also changes members
        #[arg(long, default_value = "writer", value_parser = values::role)]
        role: Role,
    },
    /// Remove a member, or leave; the profile then no longer follows a private channel
    Remove {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = values::channel, add = completion::channels())]
        channel: ChannelName,
        /// The profile
        #[arg(value_name = "@NAME", value_parser = values::profile, add = completion::people())]
        member: Name,
    },
    /// List the members
    Members {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = values::channel, add = completion::channels())]
        channel: ChannelName,
    },
    /// Delete a channel and its notifications; its name is free again after 30 days
    Delete {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = values::channel, add = completion::channels())]
        channel: ChannelName,
        /// Confirm; without it nothing is deleted
        #[arg(long)]
        yes: bool,
    },
}

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
    /// Forget what this machine has stored of your profile, except its key
    #[command(after_help = help::RESET_HELP)]
    Reset {
        /// The cluster, if this machine has keys for several
        #[arg(long, value_name = "ID")]
        cluster: Option<String>,
        /// Confirm; required if there is something that was not sent
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Write the key to a file (0600), or to standard output
    Export {
        /// The file, which must not exist yet; - or nothing for standard output
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The cluster, if this machine has keys for several
        #[arg(long, value_name = "ID")]
        cluster: Option<String>,
    },
    /// Read the key from a file; this machine continues as the one that exported it
    Import {
        /// The file that `key export` wrote; - for standard input
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
    #[arg(
        short = 't',
        long,
        alias = "topic",
        value_name = "TOPIC",
        value_parser = values::to_send,
        add = completion::topics()
    )]
    pub(crate) to: Option<Topic>,
    /// The title, at most 1,024 bytes
    #[arg(long, value_parser = values::title)]
    pub(crate) title: Option<String>,
    /// The priority, 1 (lowest) to 5 (highest)
    #[arg(short = 'p', long, default_value = "3", allow_hyphen_values = true, value_parser = values::priority)]
    pub(crate) priority: Priority,
    /// A tag, at most 64 bytes; at most 16 tags
    #[arg(long = "tag", alias = "tags", value_name = "TAG", value_parser = values::tag)]
    pub(crate) tags: Vec<String>,
    /// The text, as TEXT, also if it begins with a hyphen
    #[arg(
        short = 'm',
        long,
        alias = "body",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with_all = ["text", "literal", "whole"]
    )]
    pub(crate) message: Option<String>,
    /// Send all of standard input as one text
    #[arg(long)]
    pub(crate) whole: bool,
    /// Replace what is not UTF-8 in standard input by U+FFFD; without this it ends the command
    #[arg(long)]
    pub(crate) lossy: bool,
    /// Create the channel, if there is none, without a question
    #[arg(long, conflicts_with = "no_create")]
    pub(crate) create: bool,
    /// Send nothing if there is no such channel (also: create = false in the configuration)
    #[arg(long)]
    pub(crate) no_create: bool,
    /// The text, words joined by spaces; - sends each line of standard input
    pub(crate) text: Vec<String>,
    /// The text, also if it begins with a hyphen, or begins or ends with a @name or a #channel
    #[arg(last = true, value_name = "TEXT")]
    pub(crate) literal: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Show only these of the topics that you follow; your own @name is your inbox
    #[arg(value_name = "TOPIC", value_parser = values::to_follow, add = completion::followed())]
    pub(crate) topics: Vec<Topic>,
    /// First show what came after this: an op, a time ago (10m, 2h, 3d), a date or a time
    #[arg(long, value_name = "OP|TIME", allow_hyphen_values = true, value_parser = values::point)]
    pub(crate) since: Option<Point>,
    /// First show the newest N, and before them all that is unread, however much that is
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        conflicts_with = "since",
        allow_hyphen_values = true,
        value_parser = values::number
    )]
    pub(crate) last: Option<usize>,
    /// End after N notifications
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = values::number)]
    pub(crate) count: Option<usize>,
    /// Run CMD for each notification
    #[arg(long, value_name = "CMD", conflicts_with = "json", value_parser = values::shell_command)]
    pub(crate) exec: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// @name (that profile's feed; your own is your inbox) or '#channel'; the default is everything you
    /// follow
    #[arg(value_parser = values::to_look_back, add = completion::topics())]
    pub(crate) topic: Option<Topic>,
    /// Show your own inbox, and what you sent to other inboxes
    #[arg(long, conflicts_with = "topic")]
    pub(crate) inbox: bool,
    /// Show your own feed: what you sent to your followers
    #[arg(long, conflicts_with_all = ["topic", "inbox"])]
    pub(crate) feed: bool,
    /// Show what came after this: an op, a time ago (10m, 2h, 3d), a date or a time
    #[arg(long, value_name = "OP|TIME", allow_hyphen_values = true, value_parser = values::point)]
    pub(crate) since: Option<Point>,
    /// Show what came before this: an op, a time ago, a date or a time
    #[arg(
        long,
        visible_alias = "until",
        value_name = "OP|TIME",
        allow_hyphen_values = true,
        value_parser = values::point
    )]
    pub(crate) before: Option<Point>,
    /// Show at most N: the newest, or with --since the oldest; default 20, with --since all
    #[arg(
        short = 'n',
        long,
        aliases = ["limit", "count"],
        value_name = "N",
        allow_hyphen_values = true,
        value_parser = values::number
    )]
    pub(crate) last: Option<usize>,
    /// Show only what has this in its text or title, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// Show only what this profile has sent
    #[arg(long, value_name = "@NAME", value_parser = values::profile, add = completion::people())]
    pub(crate) author: Option<Name>,
    /// Show only what has this tag; several: what has them all
    #[arg(long = "tag", alias = "tags", value_name = "TAG", value_parser = values::tag)]
    pub(crate) tags: Vec<String>,
    /// Show only this priority and higher ones
    #[arg(short = 'p', long, value_name = "1-5", allow_hyphen_values = true, value_parser = values::priority)]
    pub(crate) priority: Option<Priority>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use recado_client::Content;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("recado").chain(line.iter().copied()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
            Some(Command::Channel { command: Some(Channel::Add { role, .. }) }) => role,
            other => panic!("{other:?}"),
        };
        assert_eq!(added(&["channel", "add", "#ops", "@bob"]), Role::Writer);
        assert_eq!(added(&["channel", "add", "#ops", "@bob", "--role", "owner"]), Role::Owner);
        assert!(parse(&["channel", "add", "#ops", "@bob", "--role", "boss"]).is_err());
    }

    #[test]
    fn the_name_of_a_channel_keeps_its_case_and_may_be_long() {
        let created = |line: &[&str]| match parse(line).unwrap().command {
            Some(Command::Channel { command: Some(Channel::Create { channel, .. }) }) => channel.to_string(),
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
    fn the_lists_are_where_their_commands_are() {
        let command = |line: &[&str]| parse(line).unwrap().command.unwrap();
        assert!(matches!(command(&["channels"]), Command::Channel { command: None }));
        assert!(matches!(command(&["channel", "list"]), Command::Channel { command: Some(Channel::List) }));
        assert!(matches!(command(&["devices"]), Command::Device { command: None }));
        assert!(matches!(command(&["whoami"]), Command::Info { whom: None }));
        assert!(matches!(command(&["info", "#ops"]), Command::Info { whom: Some(Topic::Channel(_)) }));
        assert!(matches!(command(&["info", "bob"]), Command::Info { whom: Some(Topic::Feed(_)) }));
        assert!(matches!(
            command(&["history", "--limit", "5"]),
            Command::History(History { last: Some(5), .. })
        ));
        assert!(matches!(command(&["claim", "@bob"]), Command::Claim { name: Some(_) }));
    }

    #[test]
    fn an_interval_stands_after_watch_with_or_without_an_equals_sign() {
        let watch = |line: &[&str]| match parse(line).unwrap().command {
            Some(Command::Status { watch, .. }) => watch,
            other => panic!("{other:?}"),
        };
        let second = Some(Duration::from_secs(1));
        for line in [
            &["status", "-w", "1s"][..],
            &["status", "-w1s"],
            &["status", "-w=1s"],
            &["status", "--watch", "1s"],
            &["status", "--watch=1s"],
        ] {
            assert_eq!(watch(line), second, "{line:?}");
        }
        assert_eq!(watch(&["status", "--watch", "--json"]), Some(Duration::from_secs(2)));
        assert_eq!(watch(&["status"]), None);
    }

    #[test]
    fn no_command_takes_a_time_out_of_zero() {
        let commands = Cli::command();
        for command in commands.get_subcommands().map(clap::Command::get_name) {
            let rest: &[&str] = match command {
                "send" => &["text"],
                "retract" => &["7"],
                "put" | "create" | "update" => &["key", "value"],
                "get" | "read" | "delete" => &["key"],
                "rename" => &["Alice B."],
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
        assert!(parse(&["send", "--tag", "", "x"]).is_err());
        assert!(parse(&["listen", "--since", "1", "--last", "1"]).is_err());
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_should_be() {
        let nine = "x".repeat(Content::TITLE_MAX + 1);
        let table: &[(&[&str], &[&str])] = &[
            (&["history", "--before", "foo"], &["neither an op", "\"foo\"", "yesterday"]),
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
}
