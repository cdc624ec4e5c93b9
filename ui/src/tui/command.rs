//! Commands after `:` or `/`. One table parses, completes, hints, and is the help.

use std::time::Duration;

use recado_client::{Name, Topic};

use super::conversation::Conversation;
use super::theme;

/// A parsed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Follow(Topic),
    /// Follow a channel and show it.
    Join(Topic),
    Unfollow(Topic),
    Send(Option<Topic>, String),
    Go(Conversation),
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
        "[#channel | @name] text",
        "send there; without a topic, to your followers",
        Argument::Sendable,
    ),
    spec("dm", "@name text", "send to a profile's inbox", Argument::Person),
    spec("join", "#channel", "follow a channel and go there", Argument::Channel),
    spec("leave", "[#channel]", "unfollow a channel; without a name, this one", Argument::JoinedChannel),
    spec("go", "[@name | #channel]", "look at a topic; without a name, at everything", Argument::Sendable),
    spec("channels", "", "the channels there are", Argument::Nothing),
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

/// Returns the text after `:` or `/` if it is a command: the sign alone, or the sign and then a lower-case
/// letter, in one line. `//` and a smiley are ordinary text.
pub(crate) fn typed(text: &str) -> Option<&str> {
    let rest = text.strip_prefix([':', '/'])?;
    let is_command = !text.contains('\n') && rest.chars().next().is_none_or(|c| c.is_ascii_lowercase());
    is_command.then_some(rest)
}

/// Parses a command that was typed at the place `here`.
///
/// # Errors
/// A message that says what is wrong with it.
pub(crate) fn parse(text: &str, here: &Conversation) -> Result<Command, String> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let spec = find(word)?;
    let usage = || match spec.arguments {
        "" => format!(":{} takes no arguments", spec.name),
        arguments => format!("write it as :{} {arguments}", spec.name),
    };
    let nothing = |command| if rest.is_empty() { Ok(command) } else { Err(usage()) };
    let followable = |text: &str| Topic::to_follow(text).map_err(|error| format!("{error}: {}", usage()));
    let one_of = |text: &str| {
        if text.contains(char::is_whitespace) { Err(usage()) } else { followable(text) }
    };
    match spec.name {
        "follow" => Ok(Command::Follow(one_of(rest)?)),
        "unfollow" => Ok(Command::Unfollow(one_of(rest)?)),
        "join" => match one_of(rest)? {
            topic @ Topic::Channel(_) => Ok(Command::Join(topic)),
            Topic::Feed(_) | Topic::Inbox(_) => Err(usage()),
        },
        "leave" => match (rest, here) {
            ("", Conversation::Topic(topic @ Topic::Channel(_))) => Ok(Command::Unfollow(topic.clone())),
            ("", _) => Err(usage()),
            (name, _) => Ok(Command::Unfollow(one_of(name)?)),
        },
        "go" if rest.is_empty() => Ok(Command::Go(Conversation::All)),
        "go" => Ok(Command::Go(Conversation::Topic(one_of(rest)?))),
        "send" => {
            let (first, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let topic = if first.starts_with(['#', '@']) { Topic::to_send(first).ok() } else { None };
            let text = if topic.is_some() { text.trim() } else { rest };
            if text.is_empty() { Err(usage()) } else { Ok(Command::Send(topic, text.to_owned())) }
        }
        "dm" => {
            let (first, text) = rest.split_once(char::is_whitespace).ok_or_else(usage)?;
            let topic = Topic::to_send(first).map_err(|error| format!("{error}: {}", usage()))?;
            match topic {
                Topic::Inbox(_) => Ok(Command::Send(Some(topic), text.trim().to_owned())),
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
        other => Err(format!("there is no command :{other}")),
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
            Err(format!(":{word} may be {} ({})", names.join(" or "), one.help))
        }
        _ => Err(format!(
            "there is no command :{word}; :help lists them. To send it as text, begin with a space"
        )),
    }
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
    let hint = Some(format!(":{} {}  {}", spec.name, spec.arguments, spec.help));
    if rest.contains(' ') || spec.first == Argument::Nothing {
        return Completion { from: 0, choices: Vec::new(), hint };
    }
    let choices = names(spec.first).into_iter().filter(|name| name.starts_with(rest) && name != rest);
    let choices = choices.map(|name| (name, String::new())).collect();
    Completion { from: word.len() + 1, choices, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::name;

    fn here() -> Conversation {
        Conversation::Topic(Topic::to_follow("#ops").unwrap())
    }

    #[test]
    fn a_command_begins_with_its_sign_and_letters() {
        assert_eq!(typed("/follow @bob"), Some("follow @bob"));
        assert_eq!(typed(":"), Some(""));
        for text in ["//comment", ":)", ":D", "hello /you", "", ":two\nlines"] {
            assert_eq!(typed(text), None, "{text}");
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
            ("send #ops two words", Command::Send(Some(ops), "two words".into())),
            ("send just text", Command::Send(None, "just text".into())),
            ("dm @bob hi", Command::Send(Some(inbox), "hi".into())),
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
        assert!(error("folow @bob").contains(":help"));
        assert!(error("follow bob").contains(":follow @name | #channel"));
        assert!(error("dm @bob").contains(":dm @name text"));
        assert!(error("join @bob").contains("#channel"));
        assert!(error("s x").contains("search or since or servers"), "{}", error("s x"));
        assert!(error("quit now").contains("takes no arguments"));
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
        assert!(second.hint.unwrap().contains("@name | #channel"));
        assert!(complete("quit ", names).choices.is_empty());
    }
}
