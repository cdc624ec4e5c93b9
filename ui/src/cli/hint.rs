//! Hints for what is mistyped, or is a word of another program: what to write in its place.

use clap::error::{ContextKind, ContextValue, ErrorKind};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory, Parser};

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("recado").chain(line.iter().copied()))
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
}
