//! The texts of `--help` beside the doc comments, and the definition of the manual pages.

use clap::CommandFactory;

use super::Cli;

pub(super) const RECADO_EXAMPLES: &str = "\
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

pub(super) const DEMO_HELP: &str = "\
Use a cluster for trials: the bots' profiles (@demo.ada and others), their
channels (#demo-ops and others) and their notifications remain. The first bot
also sends to the inbox of the profile that runs the demo.";

pub(super) const CLUSTER_HELP: &str = "\
A cluster has a key, and its servers prove that they have it. recado saves the
key at the first connection: on 127.0.0.1 without a prompt; elsewhere it asks
you to compare the key's fingerprint with the one that `recadod fingerprint`
prints on a server. In scripts, where recado cannot ask, --accept-new trusts an
unknown cluster, or --cluster-key (RECADO_CLUSTER_KEY, cluster_key in the
configuration) gives the key to expect.";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  recado completions bash > ~/.local/share/bash-completion/completions/recado
  recado completions zsh > ~/.zfunc/_recado        (a directory of your fpath)
  recado completions fish > ~/.config/fish/completions/recado.fish

The script runs `recado` to complete. Names of topics come from the servers,
which it asks as your profile, for half a second at most.";

pub(super) const FOLLOW_EXAMPLES: &str = "\
Examples:
  recado follow @alice
  recado follow '#ops' '#deploys' @bob";

pub(super) const CHANNEL_EXAMPLES: &str = "\
Examples:
  recado channel                             list all, as `recado channels`
  recado channel create ops                  with owners: you, for now
  recado channel add ops alice --role owner";

pub(super) const DEVICE_EXAMPLES: &str = "\
Examples:
  recado device                              list them, as `recado devices`
  recado device add                          on this machine: prints a code
  recado device enrol 7K3Q9-0XWZP            on the new one: uses it";

pub(super) const HISTORY_EXAMPLES: &str = "\
Examples:
  recado history                             the newest of all that you follow
  recado history '#ops' -n 50
  recado history '#ops' --since 2026-09-01 --before '2026-09-02 12:00'
  recado history @alice --text disk --tag db --priority 4";

pub(super) const HISTORY_HELP: &str = "\
Your own @name is your inbox, as for `send` and `listen`; --feed shows what you
sent to your followers.

--since and --before take an op, a time before now by the servers' clock (10m,
2h, 3d), today, yesterday, or a date, a time of today or both (2026-09-01,
14:30, '2026-09-01 14:30'), in the local time zone unless one is written
(2026-09-01T14:30Z).

--text, --author, --tag and --priority are looked for here, not by the servers,
in at most 10,000 notifications; standard error says where the search ended.

The output, also with --json, is described in `recado listen --help`.";

pub(super) const LISTEN_EXAMPLES: &str = "\
Examples:
  recado listen                              until Ctrl-C
  recado listen '#ops' -n 10                 first the newest 10
  recado listen --count 1 --timeout 1m --json
  recado listen --exec 'notify-send \"$RECADO_AUTHOR\" \"$(cat)\"'";

pub(super) const SEND_EXAMPLES: &str = "\
Examples:
  recado send 'backup done'                  to those who follow you
  recado send -t '#ops' -p 5 --title Disk '/var is full'
  df -h | recado send -t @bob                all of it as one text
  tail -f log | recado send -t '#log' --lossy -   each line as a notification";

pub(super) const SEND_HELP: &str = "\
The op that `send` prints is the notification's id, and its place among all
others: `recado history --since OP` shows what came after it.

Without TEXT, all of standard input is one text, unless it is a terminal. It is
read once the session is open, and may take any time: --timeout does not count
it, nor the time at a question.

A text of several words that begins or ends with @NAME or #CHANNEL is refused
without --to, since it may be meant for that one alone. After -- it is sent to
your followers as it is: recado send -- thanks to @bob

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
is that of the first line that failed. One that is not UTF-8 ends it too, unless
--lossy is given.

A terminal shows to whom the notification went, and its op; elsewhere the output
is the op alone.";

pub(super) const RETRACT_HELP: &str = "\
The servers then keep the op, author, topic and time of the notification, and
nothing of its text. Everyone who receives the topic gets a notification that
says so, also those who have read the text: they, and programs that they run,
may have kept it. Files that a server wrote before hold it until they are
removed, usually within a few minutes.

Retracting a notification again is no error. What the servers have dropped
cannot be retracted.";

pub(super) const PUT_EXAMPLES: &str = "\
Examples:
  recado put on-call @bob                    of a key that is open to everyone
  recado put @alice/backup 'done at 04:10'   of one that only @alice writes
  recado put '#ops/window' closed --if 4711  if nobody changed it since
  cat motd.txt | recado put motd -           what a file has, as it is";

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  recado get on-call
  recado get motd > motd.txt
  recado get lock --consistency linearizable   # exit code 1: it is free";

pub(super) const UPDATE_EXAMPLES: &str = "\
Examples:
  recado update on-call @carol               if it has a value
  recado update counter 8 --if 4711          if nobody changed it since";

pub(super) const STORE_HELP: &str = "\
A timestamp is the op of the write: a later value of a key has a higher one. A
command that is refused for what the key has (exit code 77) tells its timestamp.
`get`, `read` and `keys` are answered by any server that has all that this
machine has seen or written; no answer is older than an earlier one.

@NAME/... belongs to that profile: it alone writes it, and everyone reads it.
'#CHANNEL/...' belongs to the channel: who may read the channel reads it, and
who may send to it writes it. Any other key is open to everyone. The values of a
profile or channel that is removed are removed too.";

pub(super) const STATUS_HELP: &str = "\
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

The exit code is 69 if no server is primary: nothing can be sent, while servers
that answer can be read. If no server answers, their addresses are shown all the
same.

With --json there are also alive (the server answered), incarnation (how often
it was started), uptime_ms, and refused: how many datagrams the server dropped
since its start, by reason. They come from attackers, other clusters and faulty
networks. A few are normal: Seal and Session after a restart, Repeated from a
network that duplicates packets, QueueFull and Budget under load.

With --monitor DIR it reads what the monitor in DIR has last written, also after
the end of that monitor, and looks which of its processes run. The exit code is
69 if the monitor does not run: nobody starts a server that dies. With --json:
one object, with runs, pid, since and servers, each with id, state (starts, runs,
catches_up, killed, stops, waits, stopped), alive, pid, since, restarts, hangs,
exit (at, how), reason, due and learns.";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  recado doctor
  recado --server alpha:10097 doctor
  recado doctor --json";

pub(super) const DOCTOR_HELP: &str = "\
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

pub(super) const CHANNEL_HELP: &str = "\
A channel that a notification created is open: it has no owners, anyone can send
to it, follow and read it, and who sent that first notification can delete it. A
channel that `channel create` created belongs to its owners: anyone can follow
and read it (with --private only its members), its writers and owners can send
to it, and its owners can delete it. Those who follow a channel that is deleted
are told. Its name is free again after 30 days.

A channel's name has 1 to 128 of A-Z, a-z, 0-9, - _ . and ~, with a letter or a
digit at both ends. Upper and lower case differ: #Ops and #ops are two channels.
Write '#channel' in quotes: # begins a comment in a shell.";

pub(super) const DEVICE_HELP: &str = "\
A name belongs to the key that was created on the machine that first used it. To
use the name on another machine too, run `recado device add` on the first one
and within ten minutes `recado device enrol CODE` on the other.

If the only machine with the key is lost, an administrator of the servers can
release the name (`recadod admin release @NAME`), and then you claim it again
(`recado claim NAME`). What was sent to it stays.";

pub(super) const RESET_HELP: &str = "\
For a device whose files cannot be used, or which the servers no longer know. It
contacts no server. The next command continues where the servers remember that
this device has read, or as a new device if they do not know it. Your name stays
yours: the key is kept.

What was not sent is dropped, and named first; without --yes nothing is done
then. A request whose answer was not read may have been done all the same.
`recado devices` lists the devices; one that is in use cannot be reset.";

pub(super) const KEY_HELP: &str = "\
Anyone who has the file can act as you. Use one key on one machine at a time:
two machines with one key end each other's sessions, and one may receive the
answers meant for the other. For a second machine use `recado device add`.";

pub(super) const LISTEN_HELP: &str = "\
A notification that was shown is read: it does not come again on this device.
Ctrl-C ends the command, and so does the end of the program that reads its
output. Commands that run as one profile at the same time are
separate devices, each with its own cursor: one may show what another has shown.

--since or --last (not both) first shows older notifications and what is unread
before them, which marks nothing as read, and then new ones. With 7 unread ones
`listen -n 2` shows 7. A time such as 10m
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

    #[test]
    fn every_help_fits_a_terminal_of_80_columns() {
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
            let parsed = <Cli as clap::Parser>::try_parse_from(&words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}
