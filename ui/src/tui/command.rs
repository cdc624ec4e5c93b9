//! Commands after `/`. One table parses, completes, hints, and is the help.

use std::time::Duration;

use recado_client::{ChannelChange, ChannelName, Listing, Name, Priority, Role, Topic};

use super::conversation::Conversation;
use super::event::written;
use super::options::{self, Fields};
use super::theme;

/// A parsed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Follow(Topic),
    /// Follow a channel and show it.
    Join(Topic),
    Unfollow(Topic),
    Send(Option<Topic>, Fields, String),
    /// Set the title of the next text, or remove it.
    Title(Option<String>),
    Priority(Priority),
    /// Add tags to the next text. None: remove them all.
    Tags(Vec<String>),
    Go(Conversation),
    /// Look at the user's own inbox.
    Inbox,
    /// Read the past of a topic as `recado history` does.
    History(Option<Topic>),
    /// Show a list.
    List(Listing),
    Channel(ChannelName, ChannelChange),
    /// Draw a code for a new machine.
    DeviceAdd,
    /// Revoke the key that begins so.
    DeviceRemove(String),
    Channels,
    People,
    Info(Name),
    Mute(Option<Topic>),
    Search(String),
    Since(Duration),
    Theme(String),
    Connect,
    Servers,
    Clear,
    Help,
    Quit,
}

/// Kind of name that an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Nothing,
    /// A feed or a channel that is not followed yet.
    Followable,
    /// A feed or a channel that is followed.
    Followed,
    /// A topic to which a notification can be sent.
    Sendable,
    Person,
    Channel,
    JoinedChannel,
    Theme,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Any text, without completion.
    Free,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Its arguments, as help writes them.
    pub(crate) arguments: &'static str,
    pub(crate) help: &'static str,
    /// Kind of its first argument.
    pub(crate) first: Argument,
}

const fn spec(name: &'static str, arguments: &'static str, help: &'static str, first: Argument) -> Spec {
    Spec { name, arguments, help, first }
}

/// The table of all commands.
pub(crate) const TABLE: &[Spec] = &[
    spec("follow", "@name | #channel", "follow a profile's feed or a channel", Argument::Followable),
    spec("unfollow", "@name | #channel", "stop following", Argument::Followed),
    spec(
        "send",
        "[#channel | @name] [--title T] [--priority N] [--tag T] text",
        "send there; without a topic, to your followers",
        Argument::Sendable,
    ),
    spec("dm", "@name text", "send to a profile's inbox", Argument::Person),
    spec("title", "[words]", "title of the text that you send next; without words, none", Argument::Free),
    spec(
        "priority",
        "1-5",
        "priority of the text that you send next",
        Argument::Words(&["1", "2", "3", "4", "5"]),
    ),
    spec("tag", "[tag ...]", "tags of the text that you send next; without a tag, none", Argument::Free),
    spec("join", "#channel", "follow a channel and go there", Argument::Channel),
    spec("leave", "[#channel]", "unfollow a channel; without a name, this one", Argument::JoinedChannel),
    spec("go", "[@name | #channel]", "look at a topic; without a name, at everything", Argument::Sendable),
    spec("inbox", "", "what was sent to you", Argument::Nothing),
    spec(
        "history",
        "[@name | #channel]",
        "read the past of a topic; your own @name is your inbox",
        Argument::Sendable,
    ),
    spec("channels", "", "the channels there are", Argument::Nothing),
    spec(
        "channel",
        "create | add | remove | members | delete #channel ...",
        "channels with owners: create #c [--private], add #c @name [--role reader | writer | owner], remove #c @name",
        Argument::Words(&["create", "add", "remove", "members", "delete"]),
    ),
    spec("following", "", "what you follow", Argument::Nothing),
    spec("followers", "", "who follows you", Argument::Nothing),
    spec("devices", "", "your devices", Argument::Nothing),
    spec(
        "device",
        "add | list | remove KEY",
        "the machines that may act as you: a code for a new one, their keys, revoke one",
        Argument::Words(&["add", "list", "remove"]),
    ),
    spec("people", "", "the profiles there are", Argument::Nothing),
    spec("info", "@name", "about a profile", Argument::Person),
    spec("mute", "[@name | #channel]", "mute or unmute; without a name, this topic", Argument::Followed),
    spec("search", "words", "search here, upwards", Argument::Free),
    spec("since", "2h | 3d | 1h30m", "go back so far", Argument::Free),
    spec("theme", "NAME", "change the colours", Argument::Theme),
    spec("connect", "", "try again when there is no session", Argument::Nothing),
    spec("servers", "", "how the servers are", Argument::Nothing),
    spec("clear", "", "drop what was refused from the screen", Argument::Nothing),
    spec("help", "", "all keys and commands", Argument::Nothing),
    spec("quit", "", "leave", Argument::Nothing),
];

/// Returns the text after `/` if it is a command: the sign alone, or the sign and then a lower-case
/// letter, in any number of lines, so that no line end makes a private text a public one. `//` is ordinary
/// text, and so is a smiley.
pub(crate) fn typed(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('/')?;
    rest.chars().next().is_none_or(|c| c.is_ascii_lowercase()).then_some(rest)
}

/// Returns true if a text begins with the word of a command, behind blanks or empty lines.
pub(crate) fn begins_with_command(text: &str) -> bool {
    let word = typed(text.trim_start()).and_then(|rest| rest.split_whitespace().next());
    word.is_some_and(|word| find(word).is_ok())
}

/// The commands that take a text of several lines.
const TAKE_LINES: [&str; 2] = ["send", "dm"];

/// Parses a command that was typed at the place `here`. Line ends around it do not count.
///
/// # Errors
/// A message that says what is wrong with it.
pub(crate) fn parse(text: &str, here: &Conversation) -> Result<Command, String> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let spec = find(word)?;
    if rest.contains('\n') && !TAKE_LINES.contains(&spec.name) {
        let lines = text.lines().count();
        return Err(format!(
            "/{} takes one line, and this has {lines}: it is not run and stays here",
            spec.name
        ));
    }
    let usage = || match spec.arguments {
        "" => format!("/{} takes no arguments", spec.name),
        arguments => format!("write it as /{} {arguments}", spec.name),
    };
    let nothing = |command| if rest.is_empty() { Ok(command) } else { Err(usage()) };
    let followable = |text: &str| Topic::to_follow(text).map_err(|error| format!("{error}: {}", usage()));
    let one_of = |text: &str| {
        if text.contains(char::is_whitespace) { Err(usage()) } else { followable(text) }
    };
    match spec.name {
        "follow" => Ok(Command::Follow(one_of(rest)?)),
        "unfollow" => Ok(Command::Unfollow(one_of(rest)?)),
        "join" => match Topic::to_follow(rest) {
            Ok(topic @ Topic::Channel(_)) => Ok(Command::Join(topic)),
            Ok(Topic::Feed(name)) => Err(format!("@{name} is a profile: /follow @{name} follows it")),
            Ok(Topic::Inbox(_)) | Err(_) => match Topic::to_follow(&format!("#{rest}")) {
                Ok(topic) => Err(format!("a channel's name begins with #: /join {}", written(&topic))),
                Err(_) => Err(usage()),
            },
        },
        "leave" => match (rest, here) {
            ("", Conversation::Topic(topic @ Topic::Channel(_))) => Ok(Command::Unfollow(topic.clone())),
            ("", _) => Err(usage()),
            (name, _) => Ok(Command::Unfollow(one_of(name)?)),
        },
        "go" if rest.is_empty() => Ok(Command::Go(Conversation::All)),
        "go" => Ok(Command::Go(Conversation::Topic(one_of(rest)?))),
        "send" => {
            let (topic, fields, text) = options::parse(rest)?;
            if text.is_empty() && fields.title.is_none() {
                return Err(usage());
            }
            Ok(Command::Send(topic, fields, text))
        }
        "title" => Ok(Command::Title((!rest.is_empty()).then(|| rest.to_owned()))),
        "priority" => options::priority(rest).map(Command::Priority),
        "tag" => Ok(Command::Tags(rest.split_whitespace().map(str::to_owned).collect())),
        "inbox" => nothing(Command::Inbox),
        "history" if rest.is_empty() => Ok(Command::History(None)),
        "history" => Ok(Command::History(Some(one_of(rest)?))),
        "following" => nothing(Command::List(Listing::Following)),
        "followers" => nothing(Command::List(Listing::Followers)),
        "devices" => nothing(Command::List(Listing::Devices)),
        "device" => device(rest, usage),
        "channel" => channel(rest, here, usage),
        "dm" => {
            let (first, text) = rest.split_once(char::is_whitespace).ok_or_else(usage)?;
            let topic = Topic::to_send(first).map_err(|error| format!("{error}: {}", usage()))?;
            match topic {
                Topic::Inbox(_) => Ok(Command::Send(Some(topic), Fields::default(), text.trim().to_owned())),
                Topic::Feed(_) | Topic::Channel(_) => Err(usage()),
            }
        }
        "info" => match one_of(rest)? {
            Topic::Feed(name) => Ok(Command::Info(name)),
            Topic::Channel(_) | Topic::Inbox(_) => Err(usage()),
        },
        "mute" if rest.is_empty() => Ok(Command::Mute(None)),
        "mute" => Ok(Command::Mute(Some(one_of(rest)?))),
        "search" if rest.is_empty() => Err(usage()),
        "search" => Ok(Command::Search(rest.to_owned())),
        "since" => crate::cli::duration(rest).map(Command::Since),
        "theme" if rest.is_empty() => Err(format!("{}: {}", usage(), theme::NAMES.join(", "))),
        "theme" => Ok(Command::Theme(rest.to_owned())),
        "channels" => nothing(Command::Channels),
        "people" => nothing(Command::People),
        "connect" => nothing(Command::Connect),
        "servers" => nothing(Command::Servers),
        "clear" => nothing(Command::Clear),
        "help" => nothing(Command::Help),
        "quit" => nothing(Command::Quit),
        other => Err(format!("there is no command /{other}")),
    }
}

/// Parses `/device`, with the words of `recado device`.
fn device(rest: &str, usage: impl Fn() -> String) -> Result<Command, String> {
    match rest.split_whitespace().collect::<Vec<_>>()[..] {
        ["add"] => Ok(Command::DeviceAdd),
        ["list"] => Ok(Command::List(Listing::Keys)),
        ["remove", key] => Ok(Command::DeviceRemove(key.to_ascii_lowercase())),
        ["enrol", ..] => {
            Err("this machine belongs to you already; on a new one run: recado device enrol CODE".to_owned())
        }
        _ => Err(usage()),
    }
}

/// Parses `/channel`, with the words and options of `recado channel`.
fn channel(rest: &str, here: &Conversation, usage: impl Fn() -> String) -> Result<Command, String> {
    let channel =
        |word: &str| match Topic::to_follow(word).map_err(|error| format!("{error}: {}", usage()))? {
            Topic::Channel(name) => Ok(name),
            Topic::Feed(_) | Topic::Inbox(_) => Err(usage()),
        };
    let member = |word: &str| match Topic::to_follow(word).map_err(|error| format!("{error}: {}", usage()))? {
        Topic::Feed(name) => Ok(name),
        Topic::Channel(_) | Topic::Inbox(_) => Err(usage()),
    };
    let role = |word: &str| match word {
        "reader" => Ok(Role::Reader),
        "writer" => Ok(Role::Writer),
        "owner" => Ok(Role::Owner),
        other => Err(format!("{other:?} is no role: reader, writer or owner")),
    };
    let rest = rest.replace("--role=", "--role ");
    match rest.split_whitespace().collect::<Vec<_>>()[..] {
        ["create", name] => Ok(Command::Channel(channel(name)?, ChannelChange::Create { private: false })),
        ["create", name, "--private"] | ["create", "--private", name] => {
            Ok(Command::Channel(channel(name)?, ChannelChange::Create { private: true }))
        }
        ["add", name, who] => Ok(Command::Channel(
            channel(name)?,
            ChannelChange::Add { member: member(who)?, role: Role::Writer },
        )),
        ["add", name, who, "--role", of] | ["add", "--role", of, name, who] => {
            Ok(Command::Channel(channel(name)?, ChannelChange::Add { member: member(who)?, role: role(of)? }))
        }
        ["remove", name, who] => {
            Ok(Command::Channel(channel(name)?, ChannelChange::Remove { member: member(who)? }))
        }
        ["members", name] => Ok(Command::List(Listing::Members(channel(name)?))),
        ["members"] => match here {
            Conversation::Topic(Topic::Channel(name)) => Ok(Command::List(Listing::Members(name.clone()))),
            Conversation::Topic(_) | Conversation::All => Err(usage()),
        },
        ["delete", name] => Ok(Command::Channel(channel(name)?, ChannelChange::Delete)),
        _ => Err(usage()),
    }
}

/// Finds the command with this name, or the only one whose name begins with it.
fn find(word: &str) -> Result<&'static Spec, String> {
    if let Some(spec) = TABLE.iter().find(|spec| spec.name == word) {
        return Ok(spec);
    }
    let mut begins = TABLE.iter().filter(|spec| !word.is_empty() && spec.name.starts_with(word));
    match (begins.next(), begins.next()) {
        (Some(spec), None) => Ok(spec),
        (Some(one), Some(_)) => {
            let names: Vec<&str> =
                TABLE.iter().map(|spec| spec.name).filter(|name| name.starts_with(word)).collect();
            Err(format!("/{word} may be {} ({})", names.join(" or "), one.help))
        }
        _ => Err(match elsewhere(word) {
            Some(here) => format!("there is no command /{word}; {here}"),
            None => format!(
                "there is no command /{word}; /help lists them. To send it as text, begin with a space"
            ),
        }),
    }
}

/// A message with the commands of the screen in place of those of the shell, where the screen has them: they
/// have the same words.
pub(crate) fn in_commands_of_here(text: &str) -> String {
    const SHELL: &str = "recado ";
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(SHELL) {
        out.push_str(before);
        let begins_here = before.is_empty() || before.ends_with(['`', ' ']);
        let end = after.find(['`', ';', ',']).unwrap_or(after.len());
        let command = after.get(..end).unwrap_or_default().replace('\'', "");
        let is_spelled_out = TABLE.iter().any(|spec| command.split(' ').next() == Some(spec.name));
        let example = command.replace("NAME", "name").replace("@YOU", "@you");
        if begins_here && is_spelled_out && parse(&example, &Conversation::All).is_ok() {
            out.push('/');
            out.push_str(&command);
            rest = after.get(end..).unwrap_or_default();
        } else {
            out.push_str(SHELL);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// What does here what a command of other programs does there.
fn elsewhere(word: &str) -> Option<&'static str> {
    Some(match word {
        "msg" | "query" | "tell" | "w" | "whisper" => "/dm @name text sends to a profile's inbox",
        "reply" | "r" => "Ctrl+T at a notification writes to its author; /dm @name text does too",
        "subscribe" | "sub" | "add" => "/follow @name or /follow #channel does it",
        "unsubscribe" | "unsub" | "part" => "/unfollow @name or /unfollow #channel does it",
        "delete" | "del" | "retract" => {
            "`recado retract OP` in a shell takes a text back; /channel delete #name deletes a channel"
        }
        "nick" | "name" | "login" | "register" => {
            "a screen has one name; in a shell, `recado --as NAME` opens one for another, and `recado rename` sets the \
             display name beside it"
        }
        "who" | "names" | "users" | "list" => "/people lists the profiles, /channels the channels",
        "whois" => "/info @name is about a profile",
        "exit" | "bye" | "disconnect" => "/quit leaves",
        _ => return None,
    })
}

/// Completions for the word that is being typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Byte offset of that word in the typed text.
    pub(crate) from: usize,
    /// Candidates, each with its explanation.
    pub(crate) choices: Vec<(String, String)>,
    /// Syntax of the command, once the command is known.
    pub(crate) hint: Option<String>,
}

/// Completes `text`, which is without its sign. `names` returns the names that an argument may take.
pub(crate) fn complete(text: &str, names: impl Fn(Argument) -> Vec<String>) -> Completion {
    let Some((word, rest)) = text.split_once(' ') else {
        let choices = TABLE.iter().filter(|spec| spec.name.starts_with(text));
        let choices = choices.map(|spec| (spec.name.to_owned(), spec.help.to_owned())).collect();
        return Completion { from: 0, choices, hint: None };
    };
    let Ok(spec) = find(word) else { return Completion::default() };
    let hint = Some(format!("/{} {}  {}", spec.name, spec.arguments, spec.help));
    let rest = rest.trim_start_matches(' ');
    if rest.contains(' ') || spec.first == Argument::Nothing {
        return Completion { from: 0, choices: Vec::new(), hint };
    }
    let choices = names(spec.first).into_iter().filter(|name| name.starts_with(rest) && name != rest);
    let choices = choices.map(|name| (name, String::new())).collect();
    Completion { from: text.len() - rest.len(), choices, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::name;

    fn here() -> Conversation {
        Conversation::Topic(Topic::to_follow("#ops").unwrap())
    }

    #[test]
    fn a_command_begins_with_a_slash_and_letters() {
        assert_eq!(typed("/follow @bob"), Some("follow @bob"));
        assert_eq!(typed("/"), Some(""));
        assert_eq!(typed("/two\nlines"), Some("two\nlines"));
        for text in ["//comment", ":)", ":p", ":quit", "hello /you", ""] {
            assert_eq!(typed(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_has_any_number_of_lines_and_every_other_command_one() {
        let to = |topic: Option<&str>, text: &str| {
            let topic = topic.map(|topic| Topic::to_send(topic).unwrap());
            Ok(Command::Send(topic, Fields::default(), text.to_owned()))
        };
        assert_eq!(parse("dm @bob one\n", &here()), to(Some("@bob"), "one"));
        assert_eq!(parse("dm @bob one\ntwo\n\n", &here()), to(Some("@bob"), "one\ntwo"));
        assert_eq!(parse("dm\n@bob\none", &here()), to(Some("@bob"), "one"));
        assert_eq!(parse("send #ops one\n  two\n", &here()), to(Some("#ops"), "one\n  two"));
        assert_eq!(parse("send one\ntwo", &here()), to(None, "one\ntwo"));
        assert_eq!(parse("go #ops\n", &here()), Ok(Command::Go(here())));
        for spec in TABLE.iter().filter(|spec| !TAKE_LINES.contains(&spec.name)) {
            let error = parse(&format!("{} @bob\nx", spec.name), &here()).unwrap_err();
            assert!(error.contains("takes one line"), "{error}");
        }
    }

    #[test]
    fn every_command_of_the_table_is_understood() {
        let ops = Topic::to_follow("#ops").unwrap();
        let inbox = Topic::to_send("@bob").unwrap();
        for (text, command) in [
            ("follow #ops", Command::Follow(ops.clone())),
            ("unf @bob", Command::Unfollow(Topic::to_follow("@bob").unwrap())),
            ("join #ops", Command::Join(ops.clone())),
            ("leave", Command::Unfollow(ops.clone())),
            ("go", Command::Go(Conversation::All)),
            ("send #ops two words", Command::Send(Some(ops), Fields::default(), "two words".into())),
            ("send just text", Command::Send(None, Fields::default(), "just text".into())),
            ("dm @bob hi", Command::Send(Some(inbox), Fields::default(), "hi".into())),
            ("title A b", Command::Title(Some("A b".into()))),
            ("priority 5", Command::Priority(5.try_into().unwrap())),
            ("tag a b", Command::Tags(vec!["a".into(), "b".into()])),
            ("inbox", Command::Inbox),
            ("history", Command::History(None)),
            ("followers", Command::List(Listing::Followers)),
            ("channel members", Command::List(Listing::Members("ops".parse().unwrap()))),
            (
                "channel create #new --private",
                Command::Channel("new".parse().unwrap(), ChannelChange::Create { private: true }),
            ),
            (
                "channel add #new @bob --role owner",
                Command::Channel(
                    "new".parse().unwrap(),
                    ChannelChange::Add { member: name("bob"), role: Role::Owner },
                ),
            ),
            ("channel delete #new", Command::Channel("new".parse().unwrap(), ChannelChange::Delete)),
            ("device add", Command::DeviceAdd),
            ("device remove AB12", Command::DeviceRemove("ab12".into())),
            ("info @bob", Command::Info(name("bob"))),
            ("mute", Command::Mute(None)),
            ("search a b", Command::Search("a b".into())),
            ("since 2h", Command::Since(Duration::from_secs(7_200))),
            ("theme light", Command::Theme("light".into())),
            ("channels", Command::Channels),
            ("people", Command::People),
            ("connect", Command::Connect),
            ("servers", Command::Servers),
            ("clear", Command::Clear),
            ("help", Command::Help),
            ("q", Command::Quit),
        ] {
            assert_eq!(parse(text, &here()), Ok(command), "{text}");
        }
        for spec in TABLE {
            let error = parse(&format!("{} ", spec.name), &Conversation::All).err();
            assert!(error.is_none_or(|error| !error.contains("there is no command")), "{}", spec.name);
        }
    }

    #[test]
    fn an_error_about_a_command_shows_its_syntax() {
        let error = |text: &str| parse(text, &here()).unwrap_err();
        assert!(error("folow @bob").contains("/help"));
        assert!(error("follow bob").contains("/follow @name | #channel"));
        assert!(error("dm @bob").contains("/dm @name text"));
        assert!(error("join @bob").contains("/follow @bob"));
        assert!(error("join ops").contains("/join #ops"));
        for (word, told) in [
            ("msg @bob hi", "/dm @name text"),
            ("subscribe #ops", "/follow"),
            ("unsubscribe #ops", "/unfollow"),
            ("reply hi", "Ctrl+T"),
            ("delete 5", "/channel delete"),
            ("nick bob", "--as"),
            ("login bob", "--as"),
            ("who", "/people"),
        ] {
            assert!(error(word).contains(told), "{word}: {}", error(word));
        }
        assert!(error("s x").contains("send or search or since or servers"), "{}", error("s x"));
        assert!(error("channel add #new @bob --role boss").contains("reader, writer or owner"));
        assert!(error("device enrol 7K3Q9-01WZP").contains("recado device enrol CODE"));
        assert!(error("quit now").contains("takes no arguments"));
    }

    #[test]
    fn a_message_names_the_commands_of_the_screen_where_it_has_them() {
        for (shell, here) in [
            ("no profile @x; `recado people` lists all", "no profile @x; `/people` lists all"),
            (
                "you do not follow #ops; run: recado follow '#ops'",
                "you do not follow #ops; run: /follow #ops",
            ),
            ("add you with: recado channel add '#ops' @YOU", "add you with: /channel add #ops @YOU"),
            ("`recado device reset` forgets", "`recado device reset` forgets"),
            (
                "`recado device add` and `recado device enrol CODE`",
                "`/device add` and `recado device enrol CODE`",
            ),
            ("the next `recado` as @me; recado listen", "the next `recado` as @me; recado listen"),
        ] {
            assert_eq!(in_commands_of_here(shell), here);
        }
    }

    #[test]
    fn names_and_arguments_complete() {
        let names = |argument| match argument {
            Argument::Followable => vec!["@bob".to_owned(), "#ops".to_owned()],
            _ => vec![],
        };
        let first = complete("fo", names);
        assert_eq!((first.from, first.choices[0].0.as_str()), (0, "follow"));
        let second = complete("follow @", names);
        assert_eq!(second.choices, [("@bob".to_owned(), String::new())]);
        assert_eq!(second.from, 7);
        let spaced = complete("follow   @", names);
        assert_eq!((spaced.from, spaced.choices.len()), (9, 1));
        assert!(second.hint.unwrap().contains("@name | #channel"));
        assert!(complete("quit ", names).choices.is_empty());
    }
}
