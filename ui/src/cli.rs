//! Command line, defined with clap. The doc comments of commands and options are the texts of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp, ToSpan, Zoned};
use recado_client::{
    ChannelName, ClusterKey, Consistency, Content, DisplayName, EnrolmentCode, Name, NameError, Op, Priority,
    Role, Topic,
};

use crate::completion;
use crate::exit;
use crate::tui::settings::When;

const RECADO_EXAMPLES: &str = "\
Examples:
  recado send 'backup done'                  to those who follow you
  recado send -t '#ops' -p 5 'db-2 is down'  to a channel, urgent
  df -h | recado send -t @bob                a command's output, as one text
  recado follow @alice '#ops'                receive what they send from now on
  recado listen                              show it as it arrives
  recado history '#ops' --since yesterday    look back
  recado                                     all of this on a full screen

@NAME is a profile, '#NAME' a channel (in quotes: to a shell, # begins a
comment). An op, such as 4711, is the number of a change in the servers' log:
the id of a notification, and its place among all others.";

/// Send and receive notifications through a recado cluster.
#[derive(Debug, Parser)]
#[command(name = "recado", version, before_help = RECADO_EXAMPLES, after_help = exit::HELP)]
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

/// How late an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// As late as a server happens to be
    Any,
    /// As late as all that this machine has seen
    Session,
    /// As late as all that anybody has been told
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
    /// The profile to act as [RECADO_AS]. `claim`, `send`, `follow` and `channel create` claim a name that
    /// nobody has yet; no other command does, but the screen
    #[arg(
        long = "as",
        value_name = "NAME",
        global = true,
        value_parser = profile,
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
    /// How long to try, from the start of the command (500ms, 1m30s; default 30s, for status 1s, for doctor
    /// 3s); for listen: when to stop
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
    /// Never claim a name that nobody has (also: claim = false in the configuration)
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) no_claim: bool,
    /// How late an answer has to be: what any server has; what this machine has seen, as session; or what
    /// anybody has been told, as linearizable, which needs a primary [default: session]
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
    #[command(before_help = SEND_EXAMPLES, after_help = SEND_HELP)]
    Send(Send),
    /// Take the text of a notification away: one that you sent, or one in a channel that you own
    #[command(after_help = RETRACT_HELP)]
    Retract {
        /// The op that `send`, `listen` and `history` print
        #[arg(value_name = "OP", allow_hyphen_values = true, value_parser = op)]
        op: u64,
    },
    /// Follow profiles' feeds and channels
    #[command(before_help = FOLLOW_EXAMPLES)]
    Follow {
        /// @name or '#channel' (in quotes: to a shell, # begins a comment)
        #[arg(
            required = true,
            value_name = "@NAME|'#CHANNEL'",
            value_parser = to_follow,
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
            value_parser = to_follow,
            add = completion::followed()
        )]
        topics: Vec<Topic>,
    },
    /// Receive notifications as they arrive, first those that are unread
    #[command(before_help = LISTEN_EXAMPLES, after_help = LISTEN_HELP)]
    Listen(Listen),
    /// Show older notifications of a topic, or of everything you follow; marks nothing as read
    #[command(before_help = HISTORY_EXAMPLES, after_help = HISTORY_HELP)]
    History(History),
    /// List the topics that you follow
    Following,
    /// List the profiles that follow you
    Followers,
    /// List all channels, or manage those with owners and members
    #[command(visible_alias = "channels", before_help = CHANNEL_EXAMPLES, after_help = CHANNEL_HELP)]
    Channel {
        // `list` if it is left out.
        #[command(subcommand)]
        command: Option<Channel>,
    },
    /// List all profiles
    People,
    /// List or manage the machines that may act as your profile
    #[command(visible_alias = "devices", before_help = DEVICE_EXAMPLES, after_help = DEVICE_HELP)]
    Device {
        // `list` if it is left out.
        #[command(subcommand)]
        command: Option<Device>,
    },
    /// Export and import this machine's key as a file
    #[command(subcommand, after_help = KEY_HELP)]
    Key(Key),
    /// Show yourself and this device; or a profile, or a channel
    #[command(visible_alias = "whoami")]
    Info {
        /// @name or '#channel'; a name alone is a profile; the default is yourself
        #[arg(value_name = "@NAME|'#CHANNEL'", value_parser = whom, add = completion::topics())]
        whom: Option<Topic>,
    },
    /// Claim your name, if nobody has it yet, without sending or following anything
    Claim,
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
    /// Show the state of the servers
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Show it again every 2 s, or every DURATION, until Ctrl-C
        #[arg(
            short = 'w',
            long,
            value_name = "DURATION",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "2s",
            value_parser = interval
        )]
        watch: Option<Duration>,
    },
    /// Find out what is wrong with the servers, the way to them, or this machine, and what to do
    #[command(before_help = DOCTOR_EXAMPLES, after_help = DOCTOR_HELP)]
    Doctor,
    /// List or manage the trusted clusters
    #[command(after_help = CLUSTER_HELP)]
    Cluster {
        // `list` if it is left out.
        #[command(subcommand)]
        command: Option<Cluster>,
    },
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
    /// Print a shell's completion script; it completes also names of topics and servers
    #[command(before_help = COMPLETIONS_EXAMPLES)]
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
        #[arg(value_name = "ADDR|CLUSTER", add = completion::servers())]
        which: String,
    },
    /// Show the cluster, fingerprint and key at each server address; saves nothing
    Show,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  recado completions bash > ~/.local/share/bash-completion/completions/recado
  recado completions zsh > ~/.zfunc/_recado        (a directory of your fpath)
  recado completions fish > ~/.config/fish/completions/recado.fish

The script runs `recado` to complete. Names of topics come from the servers,
which it asks as your profile, for half a second at most.";

const FOLLOW_EXAMPLES: &str = "\
Examples:
  recado follow @alice
  recado follow '#ops' '#deploys' @bob";

const CHANNEL_EXAMPLES: &str = "\
Examples:
  recado channel                             list all, as `recado channels`
  recado channel create ops                  with owners: you, for now
  recado channel add ops alice --role owner";

const DEVICE_EXAMPLES: &str = "\
Examples:
  recado device                              list them, as `recado devices`
  recado device add                          on this machine: prints a code
  recado device enrol 7K3Q9-0XWZP            on the new one: uses it";

const HISTORY_EXAMPLES: &str = "\
Examples:
  recado history                             the newest of all that you follow
  recado history '#ops' -n 50
  recado history '#ops' --since 2026-09-01 --before '2026-09-02 12:00'
  recado history @alice --text disk --tag db --priority 4";

const HISTORY_HELP: &str = "\
Your own @name is your inbox, as for `send` and `listen`; --feed shows what you
sent to your followers.

--since and --before take an op, a time before now by the servers' clock (10m,
2h, 3d), today, yesterday, or a date, a time of today or both (2026-09-01,
14:30, '2026-09-01 14:30'), in the local time zone unless one is written
(2026-09-01T14:30Z).

--text, --author, --tag and --priority are looked for here, not by the servers,
in at most 10,000 notifications; standard error says where the search ended.

The output, also with --json, is described in `recado listen --help`.";

const LISTEN_EXAMPLES: &str = "\
Examples:
  recado listen                              until Ctrl-C
  recado listen '#ops' -n 10                 first the newest 10
  recado listen --count 1 --timeout 1m --json
  recado listen --exec 'notify-send \"$RECADO_AUTHOR\" \"$(cat)\"'";

const SEND_EXAMPLES: &str = "\
Examples:
  recado send 'backup done'                  to those who follow you
  recado send -t '#ops' -p 5 --title Disk '/var is full'
  df -h | recado send -t @bob                all of it as one text
  tail -f log | recado send -t '#log' -      each line as a notification";

const SEND_HELP: &str = "\
The op that `send` prints is the notification's id, and its place among all
others: `recado history --since OP` shows what came after it.

Without TEXT, all of standard input is one text, unless it is a terminal. It is
read once the session is open, and may take any time: --timeout does not count
it, nor the time at a question.

The first notification sent to a channel that does not exist creates the
channel. It is open to everyone, and only you can delete it. On a terminal
`send` asks before; elsewhere standard error tells.
If a notification was sent but its op cannot be printed, standard error shows
the op, and the exit code is still 0.

If nobody has your name yet, `send` claims it and says so on standard error.

With - each line of standard input is a notification. Blank lines are skipped.
Many lines are in flight at once; their ops are printed in order. A line that is
refused or cannot be sent is reported with its number and ends the sending;
recado still waits for the lines in flight and prints their ops. The exit code
is that of the first line that failed.";

const RETRACT_HELP: &str = "\
The servers then keep the op, author, topic and time of the notification, and
nothing of its text. Everyone who receives the topic gets a notification that
says so, also those who have read the text: they, and programs that they run,
may have kept it. Files that a server wrote before hold it until they are
removed, usually within a few minutes.

Retracting a notification again is no error. What the servers have dropped
cannot be retracted.";

const STATUS_HELP: &str = "\
ROLE     primary: takes all writes; backup: holds a copy and votes;
         candidate: in an election; isolated: a primary without a majority,
         which acknowledges nothing; learner: has no vote yet
VIEW     ROUND.SERVER: every election has a new round, and only SERVER can be
         primary in it
APPLIED  the last op that the server has applied
DURABLE  the last op on the server's disk
LAG      ops in the server's log that it has not applied, and has not either
         a moment later: they wait to be committed, or to be applied. (What is
         new, a backup learns to be committed with the next message.)
PID      process id on the server's machine

The exit code is 69 if no server is primary: nothing can be sent or queried. If
no server answers, their addresses are shown all the same.

With --json there are also alive (the server answered), incarnation (how often
it was started), uptime_ms, and refused: how many datagrams the server dropped
since its start, by reason. They come from attackers, other clusters and faulty
networks. A few are normal: Seal and Session after a restart, Repeated from a
network that duplicates packets, QueueFull and Budget under load.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  recado doctor
  recado --server alpha:10097 doctor
  recado doctor --json";

const DOCTOR_HELP: &str = "\
It takes up to 5 s, needs no profile, changes nothing, and trusts nobody.

name     where each name of a server resolves
udp      ten datagrams to each server, there and back: losses and round trip
path     the longest datagram that arrives there: 1200, 1452 or 8952 bytes
version  the protocol and the program of each server
cluster  the key's fingerprint, and whether it is known here or pinned
members  all servers name the same servers, and have one configuration
view     all servers follow one primary
log      role, applied, durable and lag of each server
clock    how far each server's clock is ahead of this machine's
refused  datagrams that a server found a queue full for, or of another version
access   owner and permissions of the directory with keys and cursors
disk, fsync, files, buffer
         free room and speed of its disk, open files, and the receive buffer
         that the kernel grants, of what recado asks for

Below what is not well there are its cause and its cure. `recadod doctor` sees
the rest, on a server's machine. The exit code is 0 if there is neither a
warning nor a fault, otherwise 1. With --json: ok, worst, faults, warnings,
notes, and findings, each with severity (ok, note, warning, fault), check,
subject, seen, cause, cure and values (what was measured).";

const CHANNEL_HELP: &str = "\
A channel that a notification created is open: it has no owners, anyone can send
to it, follow and read it, and who sent that first notification can delete it. A
channel that `channel create` created belongs to its owners: anyone can follow
and read it (with --private only its members), its writers and owners can send
to it, and its owners can delete it. Those who follow a channel that is deleted
are told. Its name is free again after 30 days.

A channel's name has 1 to 128 of A-Z, a-z, 0-9, - _ . and ~, with a letter or a
digit at both ends. Upper and lower case differ: #Ops and #ops are two channels.
Write '#channel' in quotes: # begins a comment in a shell.";

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// List all channels
    List,
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
        #[arg(value_name = "'#CHANNEL'", value_parser = channel, add = completion::channels())]
        channel: ChannelName,
        /// The profile
        #[arg(value_name = "@NAME", value_parser = profile, add = completion::people())]
        member: Name,
        /// reader: follows and reads; writer: also sends; owner: also changes members
        #[arg(long, default_value = "writer", value_parser = role)]
        role: Role,
    },
    /// Remove a member, or leave; the profile then no longer follows a private channel
    Remove {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel, add = completion::channels())]
        channel: ChannelName,
        /// The profile
        #[arg(value_name = "@NAME", value_parser = profile, add = completion::people())]
        member: Name,
    },
    /// List the members
    Members {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel, add = completion::channels())]
        channel: ChannelName,
    },
    /// Delete a channel and its notifications; its name is free again after 30 days
    Delete {
        /// '#channel'
        #[arg(value_name = "'#CHANNEL'", value_parser = channel, add = completion::channels())]
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
    /// Forget what this machine has stored of your profile, except its key
    #[command(after_help = RESET_HELP)]
    Reset {
        /// The cluster, if this machine has keys for several
        #[arg(long, value_name = "ID")]
        cluster: Option<String>,
        /// Confirm; required if there is something that was not sent
        #[arg(long)]
        yes: bool,
    },
}

const RESET_HELP: &str = "\
For a device whose files cannot be used, or which the servers no longer know. It
contacts no server. The next command continues where the servers remember that
this device has read, or as a new device if they do not know it. Your name stays
yours: the key is kept.

What was not sent is dropped, and named first; without --yes nothing is done
then. A request whose answer was not read may have been done all the same.
`recado devices` lists the devices; one that is in use cannot be reset.";

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
    #[arg(
        short = 't',
        long,
        alias = "topic",
        value_name = "TOPIC",
        value_parser = to_send,
        add = completion::topics()
    )]
    pub(crate) to: Option<Topic>,
    /// The title, at most 1,024 bytes
    #[arg(long, value_parser = title)]
    pub(crate) title: Option<String>,
    /// The priority, 1 (lowest) to 5 (highest)
    #[arg(short = 'p', long, default_value = "3", allow_hyphen_values = true, value_parser = priority)]
    pub(crate) priority: Priority,
    /// A tag, at most 64 bytes; at most 16 tags
    #[arg(long = "tag", alias = "tags", value_name = "TAG", value_parser = tag)]
    pub(crate) tags: Vec<String>,
    /// The text, as TEXT, also if it begins with a hyphen
    #[arg(
        short = 'm',
        long,
        alias = "body",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with_all = ["text", "whole"]
    )]
    pub(crate) message: Option<String>,
    /// Send all of standard input as one text
    #[arg(long)]
    pub(crate) whole: bool,
    /// Create the channel, if there is none, without a question
    #[arg(long, conflicts_with = "no_create")]
    pub(crate) create: bool,
    /// Send nothing if there is no such channel (also: create = false in the configuration)
    #[arg(long)]
    pub(crate) no_create: bool,
    /// The text, words joined by spaces; - sends each line of standard input
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

With --json each line has kind: notification, gap, or a notification without a
text: retracted (its text was), retraction (retracts is the op of one that was),
channel_deleted. All but a gap have op, topic, topic_kind (feed, channel or
inbox, because @name can be two of them), author, time, unix_ms, title,
priority, tags and body.

With --exec nothing is shown: CMD runs (sh -c) for each notification. It gets
the unchanged text on standard input, and in its environment RECADO_KIND (as
with --json), RECADO_RETRACTS, RECADO_OP, RECADO_TOPIC, RECADO_TOPIC_KIND,
RECADO_AUTHOR, RECADO_TITLE, RECADO_PRIORITY, RECADO_TAGS (a tag a line),
RECADO_TIME and RECADO_UNIX_MS. RECADO_AS, RECADO_SERVERS and, if a
key is pinned, RECADO_CLUSTER_KEY have the values of this command, so that a
`recado send` in CMD acts as the same profile. The notification is read only
when CMD has succeeded: after a crash, or a CMD that fails, which ends the
command, the notification comes again (at least once).";

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Show only these of the topics that you follow; your own @name is your inbox
    #[arg(value_name = "TOPIC", value_parser = to_follow, add = completion::followed())]
    pub(crate) topics: Vec<Topic>,
    /// First show what came after this: an op, a time ago (10m, 2h, 3d), a date or a time
    #[arg(long, value_name = "OP|TIME", allow_hyphen_values = true, value_parser = point)]
    pub(crate) since: Option<Point>,
    /// First show the newest N
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        conflicts_with = "since",
        allow_hyphen_values = true,
        value_parser = number
    )]
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
    /// @name (that profile's feed; your own is your inbox) or '#channel'; the default is everything you
    /// follow
    #[arg(value_parser = to_follow, add = completion::topics())]
    pub(crate) topic: Option<Topic>,
    /// Show your own inbox, and what you sent to other inboxes
    #[arg(long, conflicts_with = "topic")]
    pub(crate) inbox: bool,
    /// Show your own feed: what you sent to your followers
    #[arg(long, conflicts_with_all = ["topic", "inbox"])]
    pub(crate) feed: bool,
    /// Show what came after this: an op, a time ago (10m, 2h, 3d), a date or a time
    #[arg(long, value_name = "OP|TIME", allow_hyphen_values = true, value_parser = point)]
    pub(crate) since: Option<Point>,
    /// Show what came before this: an op, a time ago, a date or a time
    #[arg(
        long,
        visible_alias = "until",
        value_name = "OP|TIME",
        allow_hyphen_values = true,
        value_parser = point
    )]
    pub(crate) before: Option<Point>,
    /// Show at most N: the newest, or with --since the oldest; default 20, with --since all
    #[arg(
        short = 'n',
        long,
        aliases = ["limit", "count"],
        value_name = "N",
        allow_hyphen_values = true,
        value_parser = number
    )]
    pub(crate) last: Option<usize>,
    /// Show only what has this in its text or title, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// Show only what this profile has sent
    #[arg(long, value_name = "@NAME", value_parser = profile, add = completion::people())]
    pub(crate) author: Option<Name>,
    /// Show only what has this tag; several: what has them all
    #[arg(long = "tag", alias = "tags", value_name = "TAG", value_parser = tag)]
    pub(crate) tags: Vec<String>,
    /// Show only this priority and higher ones
    #[arg(short = 'p', long, value_name = "1-5", allow_hyphen_values = true, value_parser = priority)]
    pub(crate) priority: Option<Priority>,
}

/// A point in the past, from or up to which notifications are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// This op.
    Op(Op),
    /// This long before now, by the servers' clock.
    Ago(Duration),
    /// This time, in ms since 1970.
    At(u64),
}

/// Parses a profile name, with or without its @.
pub(crate) fn profile(text: &str) -> Result<Name, String> {
    text.strip_prefix('@')
        .unwrap_or(text)
        .parse()
        .map_err(|error: recado_client::NameError| error.to_string())
}

/// Parses what `info` describes: a channel with its #, or a profile with or without its @.
fn whom(text: &str) -> Result<Topic, String> {
    match text.strip_prefix('#') {
        Some(_) => channel(text).map(Topic::Channel),
        None => profile(text).map(Topic::Feed),
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

/// Parses an op.
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

/// Parses an interval. Zero would never end.
fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < INTERVAL_LEAST => {
            Err(format!("an interval has at least {} ms", INTERVAL_LEAST.as_millis()))
        }
        interval => Ok(interval),
    }
}

/// The shortest interval of `status --watch`: each round is a handshake with every server.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);

fn point(text: &str) -> Result<Point, String> {
    if let Ok(op) = text.parse() {
        return Ok(Point::Op(Op(op)));
    }
    if let Ok(ago) = duration(text) {
        return Ok(Point::Ago(ago));
    }
    match date(text, &Zoned::now()).map(|time| u64::try_from(time.as_millisecond())) {
        Some(Ok(unix_ms)) => Ok(Point::At(unix_ms)),
        Some(Err(_)) => Err(format!("{text:?} is before 1970")),
        None => Err(format!(
            "{text:?} is neither an op, as `recado send` prints it, nor a time ago such as 10m, 2h or 3d, nor a date or \
             time such as yesterday, 2026-09-01, 14:30 or '2026-09-01 14:30'"
        )),
    }
}

/// Parses a date or a time as users write it: in the time zone of `now` unless it has one of its own.
fn date(text: &str, now: &Zoned) -> Option<Timestamp> {
    let in_zone = |time: DateTime, zone: &TimeZone| time.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    let zone = now.time_zone();
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return in_zone(now.date().into(), zone),
        "yesterday" => return in_zone(now.date().checked_sub(1.day()).ok()?.into(), zone),
        _ => {}
    }
    let with_zone = text.parse::<Timestamp>().ok();
    with_zone
        .or_else(|| text.parse::<DateTime>().ok().and_then(|time| in_zone(time, zone)))
        .or_else(|| text.parse::<Time>().ok().and_then(|time| in_zone(now.date().to_datetime(time), zone)))
}

/// Commands of other programs, and the one of recado that does it.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["publish", "pub", "post", "notify", "message", "msg", "say", "push", "write", "mail"],
        "to send, write: recado send TEXT, or: recado send -t '#channel' TEXT",
    ),
    (&["dm", "tell"], "to send to a profile's inbox, write: recado send -t @NAME TEXT"),
    (
        &["tail", "watch", "read", "receive", "recv", "stream", "monitor", "get", "poll"],
        "to receive, write: recado listen; to look back: recado history",
    ),
    (
        &["sub", "subscribe", "join", "add"],
        "to follow a profile or a channel, write: recado follow @NAME '#CHANNEL'; to receive: recado listen",
    ),
    (&["unsub", "unsubscribe", "leave"], "to stop following, write: recado unfollow @NAME '#CHANNEL'"),
    (
        &["login", "signin", "signup", "register", "auth", "user", "account"],
        "there are no passwords: the first to use a name owns it. Write: recado --as NAME claim; or, if it is yours on \
         another machine: recado device add there, and recado device enrol CODE here",
    ),
    (
        &["logout", "signout"],
        "a command's session ends with it; to take the name away from a machine, write: recado device remove KEY",
    ),
    (
        &["log", "logs", "search", "grep", "find", "show", "cat"],
        "to look back, write: recado history; to search: recado history --text WORD",
    ),
    (
        &["ls", "list", "topics", "rooms", "groups"],
        "write: recado channels, recado people, or recado following",
    ),
    (&["users", "profiles", "who", "members"], "write: recado people, or recado channel members '#CHANNEL'"),
    (
        &["create", "mkchannel", "new"],
        "write: recado channel create '#CHANNEL'; what is sent to a channel creates it too, open to everyone",
    ),
    (
        &["delete", "rm", "remove"],
        "write: recado channel delete, recado channel remove, or recado device remove",
    ),
    (&["inbox", "dms"], "write: recado history --inbox"),
    (&["feed"], "write: recado history --feed, or recado history @NAME"),
    (&["servers", "nodes", "ping", "health", "top", "ps"], "write: recado status"),
    (&["serve", "server", "start", "daemon", "run"], "a server is another program: recadod"),
    (&["tui", "ui", "screen", "chat"], "the full screen is recado without a command"),
    (&["version"], "write: recado --version"),
    (&["completion", "complete"], "write: recado completions bash"),
    (&["export", "import"], "write: recado key export, or recado key import"),
];

/// The error of a wrong command line, with the cure where it is known better here than by clap.
pub(crate) fn with_hint(mut error: clap::Error) -> clap::Error {
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let hint = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let typed = text(&error, ContextKind::InvalidSubcommand);
            ELSEWHERE.iter().find(|(words, _)| words.contains(&typed.as_str())).map(|(_, hint)| *hint)
        }
        // What a shell leaves of `recado follow #ops` and `recado send --to #ops text`.
        ErrorKind::MissingRequiredArgument | ErrorKind::InvalidValue => {
            let missing = text(&error, ContextKind::InvalidArg);
            let has_value = !text(&error, ContextKind::InvalidValue).is_empty();
            ((missing.contains("#CHANNEL") || missing.contains("<TOPIC>")) && !has_value)
                .then_some("write a channel in quotes, '#ops': to a shell, # begins a comment")
        }
        _ => None,
    };
    if let Some(hint) = hint {
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::Suggested);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.to_owned().into()]));
    }
    error
}

/// The definition of the command line for manual pages, which have no place for what precedes a help: the
/// examples are at the end.
pub(crate) fn for_manual() -> clap::Command {
    fn moved(command: clap::Command) -> clap::Command {
        let examples = command.get_before_help().map(ToString::to_string);
        let rest = command.get_after_help().map(ToString::to_string);
        let command = match (examples, rest) {
            (Some(examples), rest) => {
                let both = [rest.unwrap_or_default(), examples].join("\n\n");
                command.after_help(both.trim_start().to_owned())
            }
            (None, _) => command,
        };
        command.mut_subcommands(moved)
    }
    moved(Cli::command())
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
    fn a_point_in_the_past_is_an_op_a_time_ago_or_a_date() {
        assert_eq!(point("17"), Ok(Point::Op(Op(17))));
        assert_eq!(point("10m"), Ok(Point::Ago(Duration::from_secs(600))));
        assert_eq!(point("2d"), Ok(Point::Ago(Duration::from_secs(2 * 24 * 3600))));
        assert_eq!(point("1970-01-01T00:00:01Z"), Ok(Point::At(1000)));
        assert!(matches!(point("yesterday"), Ok(Point::At(_))));
        assert!(point("soon").is_err() && point("1960-01-01").is_err() && point("2026-13-01").is_err());
        assert!(duration("-5s").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn a_date_is_in_the_readers_time_zone_unless_it_has_one() {
        let now: Zoned = "2026-09-02T15:00:00+02:00[Europe/Paris]".parse().unwrap();
        let at = |text| date(text, &now).map(|time| time.to_string());
        assert_eq!(at("2026-09-01").unwrap(), "2026-08-31T22:00:00Z");
        assert_eq!(at("2026-09-01 14:30").unwrap(), "2026-09-01T12:30:00Z");
        assert_eq!(at("2026-09-01T14:30").unwrap(), "2026-09-01T12:30:00Z");
        assert_eq!(at("2026-09-01T14:30:00Z").unwrap(), "2026-09-01T14:30:00Z");
        assert_eq!(at("14:30").unwrap(), "2026-09-02T12:30:00Z");
        assert_eq!(at("today").unwrap(), "2026-09-01T22:00:00Z");
        assert_eq!(at("yesterday").unwrap(), "2026-08-31T22:00:00Z");
        assert_eq!(at("monday-ish"), None);
    }

    #[test]
    fn every_help_begins_with_examples_that_are_commands() {
        let examples = |command: &clap::Command| {
            let help = command.get_before_help().map(ToString::to_string)?;
            assert!(help.starts_with("Examples:\n"), "{help}");
            let lines = help.lines().skip(1).take_while(|line| line.starts_with("  "));
            Some(lines.map(str::to_owned).collect::<Vec<_>>())
        };
        let mut all = examples(&Cli::command()).expect("the first help of all");
        all.extend(Cli::command().get_subcommands().filter_map(examples).flatten());
        assert!(all.len() > 20, "{all:?}");
        for line in all {
            // What a shell makes of it, as far as these examples need one.
            let line =
                line.rsplit('|').next().unwrap().split("  ").find(|part| !part.is_empty()).unwrap().trim();
            let (mut words, mut quote, mut open) = (vec![String::new()], '\'', false);
            for c in line.chars() {
                match c {
                    '\'' | '"' if open && c == quote => open = false,
                    '\'' | '"' if !open => (quote, open) = (c, true),
                    ' ' if !open => words.push(String::new()),
                    '>' if !open => break,
                    c => words.last_mut().unwrap().push(c),
                }
            }
            words.retain(|word| !word.is_empty());
            let parsed = Cli::try_parse_from(&words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn the_word_of_another_program_gets_the_command_of_this_one() {
        for (line, word) in [
            (&["publish", "#ops", "x"][..], "recado send"),
            (&["tail"], "recado listen"),
            (&["sub", "#ops"], "recado follow"),
            (&["login"], "claim"),
        ] {
            let error = with_hint(parse(line).unwrap_err());
            let message = error.to_string();
            assert!(message.contains(word) && error.exit_code() == 2, "{line:?}: {message}");
        }
        for (words, _) in ELSEWHERE {
            for word in *words {
                let known = Cli::command().get_subcommands().any(|command| {
                    command.get_name() == *word || command.get_all_aliases().any(|alias| alias == *word)
                });
                assert!(!known, "{word} is a command");
            }
        }
    }

    #[test]
    fn what_a_shell_leaves_of_a_channel_without_quotes_is_explained() {
        for line in [&["follow"][..], &["send", "--to"], &["send", "-t"], &["channel", "create"]] {
            let message = with_hint(parse(line).unwrap_err()).to_string();
            assert!(message.contains("'#ops'") && message.contains("comment"), "{line:?}: {message}");
        }
        let message = with_hint(parse(&["follow", "ops"]).unwrap_err()).to_string();
        assert!(!message.contains("comment"), "{message}");
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
        assert!(matches!(command(&["status", "-w"]), Command::Status { watch: Some(Duration { .. }) }));
    }

    #[test]
    fn no_command_takes_a_time_out_of_zero() {
        use clap::CommandFactory;
        let commands = Cli::command();
        for command in commands.get_subcommands().map(clap::Command::get_name) {
            let rest: &[&str] = match command {
                "send" => &["text"],
                "retract" => &["7"],
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
