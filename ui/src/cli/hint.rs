//! Hints for what is mistyped, or is a word of another program: what to write in its place.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use recado_client::Topic;

use super::Cli;
use crate::text::clean_line;

/// Commands of other programs, and the one of recado that does it.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["publish", "pub", "post", "notify", "message", "msg", "say", "push", "write", "mail"],
        "to send, write: recado send TEXT, or: recado send -t '#channel' TEXT",
    ),
    (&["dm", "tell"], "to send to a profile's inbox, write: recado send -t @NAME TEXT"),
    (&["reply", "answer", "respond"], "to answer somebody, write to the inbox: recado send -t @NAME TEXT"),
    (
        &["edit", "change", "amend"],
        "what was sent stays as it is; recado retract OP takes its text away, and recado send TEXT sends another",
    ),
    (
        &["tail", "watch", "receive", "recv", "stream", "monitor", "poll", "pull", "fetch"],
        "to receive, write: recado listen; to look back: recado history",
    ),
    (
        &["sub", "subscribe", "join", "add"],
        "to follow a profile or a channel, write: recado follow @NAME '#CHANNEL'; to receive: recado listen",
    ),
    (&["unsub", "unsubscribe", "leave"], "to stop following, write: recado unfollow @NAME '#CHANNEL'"),
    (
        &["mute", "unmute", "silence"],
        "to receive no more of a topic, write: recado unfollow @NAME '#CHANNEL'; the screen, which is recado without a \
         command, mutes with Ctrl+S",
    ),
    (
        &["login", "signin", "signup", "register", "auth", "user", "account", "password", "passwd"],
        "there are no passwords: the first to use a name owns it. Write: recado claim NAME; or, if it is yours on \
         another machine: recado device add there, and recado device enrol CODE --as NAME here",
    ),
    (
        &["logout", "signout"],
        "a command's session ends with it; to take the name away from a machine, write: recado device remove KEY",
    ),
    (
        &["enrol", "enroll", "pair", "link"],
        "write on a machine that has the name: recado device add; and on the new one: recado device enrol CODE --as NAME",
    ),
    (
        &["invite", "invitation"],
        "to add somebody to a channel, write: recado channel add '#CHANNEL' @NAME; to use an invitation to the cluster: \
         recado --invite CODE claim NAME; an administrator makes one with: recadod admin invite",
    ),
    (
        &["log", "logs", "search", "grep", "find", "show", "cat"],
        "to look back, write: recado history; to search: recado history --text WORD",
    ),
    (
        &["ls", "list", "topics", "rooms", "groups"],
        "write: recado channels, recado people, or recado following",
    ),
    (&["topic"], "a topic is @NAME or '#CHANNEL': recado send -t TOPIC TEXT, recado follow TOPIC"),
    (
        &["group", "team", "room"],
        "a group is a channel with members: recado channel create '#CHANNEL' --private, and then: recado channel add \
         '#CHANNEL' @NAME",
    ),
    (&["users", "profiles", "who", "members"], "write: recado people, or recado channel members '#CHANNEL'"),
    (
        &["mkchannel", "new"],
        "write: recado channel create '#CHANNEL'; what is sent to a channel creates it too, open to everyone",
    ),
    (
        &["rm", "remove", "undo", "unsend"],
        "to take the text of a notification away, write: recado retract OP; besides, there are: recado delete KEY, \
         recado channel delete, recado channel remove, and recado device remove",
    ),
    (&["set", "store", "insert", "upsert", "kv"], "to give a key a value, write: recado put KEY VALUE"),
    (&["inbox", "dms"], "write: recado history --inbox"),
    (&["feed"], "write: recado history --feed, or recado history @NAME"),
    (&["servers", "nodes", "ping", "health", "top", "ps"], "write: recado status"),
    (&["serve", "server", "start", "daemon", "run"], "a server is another program: recadod"),
    (
        &["stop", "kill", "restart", "shutdown"],
        "a server is another program, and a signal stops it: Ctrl-C at run.sh, or systemctl stop recadod",
    ),
    (
        &["setup", "init", "configure", "install"],
        "recado without a command asks for your name and keeps it; recado config init writes a configuration to edit; \
         a cluster is made by: recadod init",
    ),
    (&["tui", "ui", "screen", "chat"], "the full screen is recado without a command"),
    (
        &["web", "gui", "browser", "http", "api"],
        "there is no web page; the full screen is recado without a command, and scripts use --json",
    ),
    (&["version"], "write: recado --version"),
    (&["completion", "complete"], "write: recado completions bash"),
    (&["export", "import"], "write: recado key export, or recado key import"),
];

/// The same of words after `recado channel` and the other families of commands.
const WITHIN: &[(&str, &[&str], &str)] = &[
    (
        "device",
        &["new", "create", "pair", "link", "invite", "code"],
        "write: recado device add; it prints the code with which a new machine comes in",
    ),
    ("device", &["join", "accept", "register", "claim"], "write: recado device enrol CODE"),
    ("device", &["delete", "rm", "revoke", "forget"], "write: recado device remove KEY"),
    ("channel", &["new", "make", "open"], "write: recado channel create '#CHANNEL'"),
    ("channel", &["invite"], "write: recado channel add '#CHANNEL' @NAME"),
    ("channel", &["kick", "ban"], "write: recado channel remove '#CHANNEL' @NAME"),
    ("channel", &["rm", "drop"], "write: recado channel delete '#CHANNEL'"),
    ("channel", &["join", "follow", "subscribe"], "write: recado follow '#CHANNEL'"),
    (
        "channel",
        &["leave", "unfollow", "unsubscribe"],
        "write: recado unfollow '#CHANNEL'; a member leaves with: recado channel remove '#CHANNEL' @NAME",
    ),
    ("channel", &["info", "show"], "write: recado info '#CHANNEL'"),
    ("key", &["new", "create", "generate"], "a key is made where a name is claimed: recado claim NAME"),
    ("key", &["show", "print"], "write: recado key export -; recado info shows which key it is"),
    (
        "cluster",
        &["add", "trust"],
        "a cluster is trusted at the first connection: recado --server ADDR people",
    ),
    ("cluster", &["remove", "rm", "delete"], "write: recado cluster forget ADDR"),
    (
        "config",
        &["show", "edit", "path", "get", "set"],
        "recado config check prints the path of the file; edit it there",
    ),
];

/// Options of `send` in other programs.
const TO: &[&str] = &["-c", "-u", "-r", "--channel", "--room", "--user", "--recipient", "--profile"];

/// The error of a wrong command line, with the cure where it is known better here than by clap. `words` are
/// those after the name of the program.
pub(crate) fn with_hint(mut error: clap::Error, words: &[String]) -> clap::Error {
    let hints = match error.kind() {
        ErrorKind::InvalidSubcommand => for_command(&context(&error, ContextKind::InvalidSubcommand), words),
        ErrorKind::UnknownArgument => {
            for_option(&context(&error, ContextKind::InvalidArg), words).into_iter().collect()
        }
        ErrorKind::ArgumentConflict if context(&error, ContextKind::InvalidArg).starts_with("--to ") => {
            let each = "send it to each: for topic in '#ops' @bob; do recado send -t \"$topic\" TEXT; done";
            vec![each.to_owned()]
        }
        // What a shell leaves of `recado follow #ops` and `recado send --to #ops text`.
        ErrorKind::MissingRequiredArgument | ErrorKind::InvalidValue => {
            let missing = context(&error, ContextKind::InvalidArg);
            let has_value = !context(&error, ContextKind::InvalidValue).is_empty();
            match (missing.contains("#CHANNEL") || missing.contains("<TOPIC>")) && !has_value {
                true => vec!["write a channel in quotes, '#ops': to a shell, # begins a comment".to_owned()],
                false => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    if !hints.is_empty() {
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::Suggested);
        let hints = hints.into_iter().map(Into::into).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(hints));
    }
    error
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    }
}

/// What may be meant by a word that is no command.
fn for_command(typed: &str, words: &[String]) -> Vec<String> {
    let at = words.iter().position(|word| word == typed).unwrap_or(words.len());
    let (before, after) = (&words[..at], words.get(at + 1..).unwrap_or_default());
    let all = Cli::command();
    let family = before.last().and_then(|word| all.find_subcommand(word)).filter(|one| one.has_subcommands());
    if let Some(family) = family {
        return within(family, typed);
    }
    let rest: Vec<String> = after.iter().take_while(|word| !word.starts_with('-')).cloned().collect();
    if Topic::to_send(typed).is_ok() {
        return vec![format!("to send to {typed}, write: {}", send_to(typed, &rest))];
    }
    if let Some((_, hint)) = ELSEWHERE.iter().find(|(words, _)| words.contains(&typed)) {
        return vec![(*hint).to_owned()];
    }
    if let Some(close) = closest(typed, &all) {
        return vec![format!("write: recado {close}")];
    }
    let text = [&[typed.to_owned()], &rest[..]].concat().join(" ");
    vec![
        format!("to send it to your followers, write: recado send {}", quoted(&text)),
        format!("the commands are {}", names(&all).join(", ")),
    ]
}

fn within(family: &clap::Command, typed: &str) -> Vec<String> {
    let name = family.get_name();
    if let Some((.., hint)) = WITHIN.iter().find(|(of, words, _)| *of == name && words.contains(&typed)) {
        return vec![(*hint).to_owned()];
    }
    if let Some(close) = closest(typed, family) {
        return vec![format!("write: recado {name} {close}")];
    }
    let mut hints = vec![format!("the commands of recado {name} are {}", names(family).join(", "))];
    let channel = format!("#{}", typed.trim_start_matches('#'));
    if name == "channel" && Topic::to_follow(&channel).is_ok() {
        hints.insert(0, format!("about {channel}, write: recado info '{channel}'"));
    }
    hints
}

/// What may be meant by an option that the command does not have.
fn for_option(typed: &str, words: &[String]) -> Option<String> {
    let all = Cli::command();
    let command = words.iter().find_map(|word| all.find_subcommand(word));
    match command.map(clap::Command::get_name) {
        None if matches!(typed, "-v" | "-version") => Some("write: recado --version".to_owned()),
        // The command is left out.
        None => {
            let send = all.find_subcommand("send")?;
            has_option(send, typed).then(|| format!("write: recado send {}", shell_words(words)))
        }
        Some("send") if TO.contains(&typed) => {
            Some("write the channel or the profile after -t: recado send -t '#ops' TEXT".to_owned())
        }
        Some("send") if matches!(typed, "-s" | "--subject") => Some("write: --title TITLE".to_owned()),
        Some("send") if matches!(typed, "-f" | "--file") => {
            Some("to send what a file has, write: recado send < FILE".to_owned())
        }
        Some("history") if matches!(typed, "-f" | "--follow") => {
            Some("to see also what comes, write: recado listen -n 20".to_owned())
        }
        Some(_) => None,
    }
}

fn has_option(command: &clap::Command, typed: &str) -> bool {
    command.get_arguments().any(|argument| match typed.strip_prefix("--") {
        Some(long) => argument.get_long_and_visible_aliases().is_some_and(|all| all.contains(&long)),
        None => argument.get_short().is_some_and(|short| typed == format!("-{short}")),
    })
}

/// The names of the commands of `family`.
fn names(family: &clap::Command) -> Vec<&str> {
    family.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help").collect()
}

/// The command whose name differs from `typed` by a slip: one letter of four to six, two of more.
fn closest<'a>(typed: &str, family: &'a clap::Command) -> Option<&'a str> {
    let slips = match typed.chars().count() {
        ..=3 => return None,
        4..=6 => 1,
        7..=16 => 2,
        _ => return None,
    };
    let all = family.get_subcommands().flat_map(|one| one.get_name_and_visible_aliases());
    all.map(|name| (distance(typed, name), name)).filter(|(far, _)| *far <= slips).min().map(|(_, name)| name)
}

/// Number of letters to insert, leave out, replace or swap with their neighbour to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// The command that sends these words to a topic.
pub(crate) fn send_to(topic: &str, words: &[String]) -> String {
    let text = if words.is_empty() { "TEXT".to_owned() } else { shell_words(words) };
    format!("recado send -t {} {text}", quoted(topic))
}

/// These words as a shell takes them, as far as a message has room for them.
pub(crate) fn shell_words(words: &[String]) -> String {
    let is_plain = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_./:=+,%-".contains(c))
    };
    let words: Vec<String> =
        words.iter().map(|word| if is_plain(word) { word.clone() } else { quoted(word) }).collect();
    let all = words.join(" ");
    if all.chars().count() > SHOWN_MAX { "TEXT".to_owned() } else { all }
}

/// A text in quotes, as far as a message has room for it.
fn quoted(text: &str) -> String {
    match clean_line(text) {
        text if text.chars().count() > SHOWN_MAX => "TEXT".to_owned(),
        text => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Most characters of what was typed that a hint repeats.
const SHOWN_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("recado").chain(line.iter().copied()))
    }

    /// The message of a wrong line.
    fn told(line: &[&str]) -> String {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let error = with_hint(parse(line).unwrap_err(), &words);
        assert_eq!(error.exit_code(), 2, "{line:?}");
        error.to_string()
    }

    #[test]
    fn the_word_of_another_program_gets_the_command_of_this_one() {
        for (line, word) in [
            (&["publish", "#ops", "x"][..], "recado send"),
            (&["tail"], "recado listen"),
            (&["pull"], "recado listen"),
            (&["sub", "#ops"], "recado follow"),
            (&["login"], "recado claim NAME"),
            (&["password"], "no passwords"),
            (&["reply", "7", "yes"], "recado send -t @NAME TEXT"),
            (&["edit", "7"], "recado retract OP"),
            (&["unsend", "7"], "recado retract OP"),
            (&["set", "k", "v"], "recado put KEY VALUE"),
            (&["mute", "#ops"], "recado unfollow"),
            (&["invite"], "--invite CODE"),
            (&["group", "new"], "recado channel create"),
            (&["topic"], "recado follow TOPIC"),
            (&["web"], "recado without a command"),
            (&["register"], "recado claim NAME"),
            (&["version"], "recado --version"),
            (&["-v"], "recado --version"),
            (&["stop"], "recadod"),
            (&["setup"], "recado config init"),
            (&["enrol", "7K3Q9-0XWZP"], "recado device enrol CODE"),
            (&["device", "new"], "recado device add"),
            (&["--as", "alice", "device", "pair"], "recado device add"),
            (&["devices", "pair"], "recado device add"),
            (&["channel", "join", "#ops"], "recado follow"),
            (&["channel", "ops"], "recado info '#ops'"),
            (&["key", "zzzz"], "export, import"),
            (&["send", "-c", "ops", "x"], "recado send -t '#ops'"),
            (&["send", "--channel", "ops", "x"], "recado send -t '#ops'"),
            (&["send", "-t", "#ops", "-t", "@bob", "x"], "for topic in"),
        ] {
            let message = told(line);
            assert!(message.contains(word), "{line:?}: {message}");
        }
        let all = Cli::command();
        for (words, _) in ELSEWHERE {
            words.iter().for_each(|word| assert!(all.find_subcommand(word).is_none(), "{word} is a command"));
        }
        for (family, words, _) in WITHIN {
            let family = all.find_subcommand(family).unwrap();
            words
                .iter()
                .for_each(|word| assert!(family.find_subcommand(word).is_none(), "{word} is a command"));
        }
    }

    #[test]
    fn a_text_without_a_command_gets_the_one_that_sends_it() {
        for (line, command) in [
            (&["hello"][..], "recado send 'hello'\n"),
            (&["the", "disk", "is", "full", "--json"], "recado send 'the disk is full'\n"),
            (&["it's late"], "recado send 'it'\\''s late'\n"),
            (&["@bob", "hi"], "recado send -t '@bob' hi\n"),
            (&["#ops", "db is down", "now"], "recado send -t '#ops' 'db is down' now\n"),
            (&["@bob"], "recado send -t '@bob' TEXT\n"),
            (&["-t", "@bob", "hi"], "recado send -t '@bob' hi\n"),
            (&["--title", "Disk", "hi"], "recado send --title Disk hi\n"),
        ] {
            let message = told(line);
            assert!(message.contains(command) && !message.contains("similar"), "{line:?}: {message}");
        }
        let message = told(&[&"long ".repeat(100), "text"]);
        assert!(message.contains("recado send TEXT"), "{message}");
    }

    #[test]
    fn a_slip_gets_the_command_and_no_other_word_does() {
        for (typed, command) in [
            ("folow", "follow"),
            ("sned", "send"),
            ("lsiten", "listen"),
            ("histroy", "history"),
            ("chanels", "channels"),
        ] {
            let message = told(&[typed]);
            assert!(message.contains(&format!("write: recado {command}\n")), "{message}");
        }
        assert!(told(&["device", "lits"]).contains("write: recado device list\n"));
        // `hello` is two letters from `help`, and nobody who writes it means that.
        for typed in ["hello", "hey", "urgent", "ops"] {
            let message = told(&[typed]);
            assert!(message.contains("the commands are send, retract, follow"), "{message}");
        }
    }

    #[test]
    fn what_a_shell_leaves_of_a_channel_without_quotes_is_explained() {
        for line in [&["follow"][..], &["send", "--to"], &["send", "-t"], &["channel", "create"]] {
            let message = told(line);
            assert!(message.contains("'#ops'") && message.contains("comment"), "{line:?}: {message}");
        }
        assert!(!told(&["follow", "ops"]).contains("comment"));
    }
}
