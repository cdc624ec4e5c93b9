//! End of the program: exit codes for scripts, and one-line error messages for people.

use std::io::{self, Write};
use std::process::ExitCode;

use recado_client::{ClientError, Code, ReceiptError, StoreError, Topic, explain};

use crate::interrupt::die_of;
use crate::print::{OutputError, note, written};

/// What becomes of a request whose command is interrupted before its result is known.
pub(crate) const INTERRUPTED: &str = "interrupted, and the outcome is unknown; it is saved, and the next command as this \
     profile that sends, changes or listens settles it, without sending it twice";

/// The exit codes, as `--help` lists them.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done; also if it is done but its output could not be written
    1  any other error: a file, a command of --exec, --count not reached,
       output that cannot be written; doctor: there is a warning or a fault;
       get and read: the key has no value
    2  usage: a value of the command line, the configuration or standard input
       is wrong, or too long
   69  no server, no name of a server that resolves, no primary, or no place
       for a device; nothing was done
   75  outcome unknown: sent, but not acknowledged in time; the next command
       as this profile that sends, changes or listens settles it, without
       sending it twice
   77  refused: no such name, no right, not followed, over a limit, a cluster
       that is not trusted, servers of another version, ...
   78  a file of this machine is in another version of its format; nothing was
       changed
  130  interrupted (Ctrl-C); 143 terminated. It dies of the signal, and a shell
       shows it so";

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// No name of a server could be resolved.
    #[error("{0}")]
    Unresolved(String),
    /// The client reported an error.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A numbered request was not acknowledged.
    #[error("{}", worded(.error, .topic.as_ref()))]
    Request {
        /// The reason.
        error: ReceiptError,
        /// The topic of the request.
        topic: Option<Topic>,
    },
    /// The servers refused a query about a topic.
    #[error("{}", refusal(*.code, Some(.topic)))]
    Query {
        /// The reason.
        code: Code,
        /// The topic of the query.
        topic: Topic,
    },
    /// A refusal, in words: by the servers, or by the client because the servers would refuse.
    #[error("{0}")]
    Refused(String),
    /// A failure whose messages are printed already. Only its exit code is left to report.
    #[error("{0}")]
    Told(Box<Failure>),
    /// Any other failure, in words.
    #[error("{0}")]
    Other(String),
    /// The signal with this number asked the program to end.
    #[error("ended by signal {0}")]
    Signal(u8),
    /// Standard output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// An I/O error that concerns no named file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    /// Converts the error of a query about `topic`. A refusal keeps the topic, so that the message can name
    /// it.
    pub(crate) fn about(topic: Option<&Topic>) -> impl FnOnce(ClientError) -> Failure + '_ {
        move |error| match (error, topic) {
            (ClientError::Refused(code), Some(topic)) => Failure::Query { code, topic: topic.clone() },
            (error, _) => Failure::Client(error),
        }
    }

    /// Replaces a refusal for a limit by one that names it.
    pub(crate) fn limited(self, which: &str) -> Failure {
        match self {
            Failure::Request { error: ReceiptError::Refused(Code::LimitReached), .. } => {
                Failure::Refused(which.to_owned())
            }
            failure => failure,
        }
    }

    /// Returns true if the servers refused this request or query.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Failure::Request { error: ReceiptError::Refused(_), .. }
                | Failure::Query { .. }
                | Failure::Refused(_)
        )
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Unresolved(_) => 69,
            Failure::Client(error) => code_of(error),
            Failure::Request { error, .. } => match error {
                ReceiptError::Refused(_) => 77,
                ReceiptError::OutcomeUnknown | ReceiptError::Forgotten => 75,
                ReceiptError::NotSent(error) => code_of(error),
            },
            Failure::Query { .. } | Failure::Refused(_) => 77,
            Failure::Told(failure) => failure.code(),
            Failure::Signal(signal) => 128 + signal,
            Failure::Other(_) | Failure::Output(_) | Failure::Io(_) => 1,
        }
    }
}

fn code_of(error: &ClientError) -> u8 {
    match error {
        ClientError::NoServers | ClientError::Blank | ClientError::Selection(_) => 2,
        ClientError::NoPlace { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Unproved { .. }
        | ClientError::PrimaryUnheard { .. }
        | ClientError::Contested { .. }
        | ClientError::NoPrimary(_)
        | ClientError::Behind { .. }
        | ClientError::Timeout(_)
        | ClientError::Full(_) => 69,
        ClientError::OtherVersion { .. }
        | ClientError::ClusterKeyChanged { .. }
        | ClientError::UnknownCluster(_)
        | ClientError::NotThePinnedKey { .. }
        | ClientError::NotYours { .. }
        | ClientError::NobodyHas { .. }
        | ClientError::NotClaimed { .. }
        | ClientError::NoSuchProfile { .. }
        | ClientError::KeyNotAllowed { .. }
        | ClientError::Rejected(_)
        | ClientError::Ended(_)
        | ClientError::Forgotten(_)
        | ClientError::Refused(_)
        | ClientError::TooLarge => 77,
        ClientError::Store(error) => match **error {
            StoreError::NoSlot(_) => 69,
            StoreError::OtherVersion { .. } => 78,
            _ => 1,
        },
        ClientError::Disconnected | ClientError::Socket(_) | ClientError::System(_) => 1,
    }
}

/// Prints the failure, if there is one, and returns the exit code. It is no error if the reader of standard
/// output has closed its end (`recado history | head -1`). Of a signal the process dies without a message:
/// what there is to say is said already.
pub(crate) fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.is_closed() => ExitCode::SUCCESS,
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Signal(signal)) => die_of(signal),
        Err(failure @ Failure::Told(_)) => ExitCode::from(failure.code()),
        Err(failure) => {
            note(&failure);
            ExitCode::from(failure.code())
        }
    }
}

/// Prints what the command line asked for instead of a command (the help, the version) or what is wrong with
/// it, and returns the exit code.
pub(crate) fn end_instead(instead: &clap::Error) -> ExitCode {
    let printed = instead.print().and_then(|()| io::stdout().flush());
    match printed {
        // The message of a wrong command line goes to standard error. Its exit code counts in any case.
        _ if instead.use_stderr() => ExitCode::from(2),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(Err(Failure::Output(error.into()))),
    }
}

fn worded(error: &ReceiptError, topic: Option<&Topic>) -> String {
    match error {
        ReceiptError::Refused(code) => refusal(*code, topic),
        ReceiptError::OutcomeUnknown => {
            "outcome unknown: no server acknowledged it in time; it is saved, and the next command as this \
             profile that sends, changes or listens settles it, without sending it twice"
                .to_owned()
        }
        ReceiptError::Forgotten | ReceiptError::NotSent(_) => error.to_string(),
    }
}

/// The reason of a refusal, in words that name the topic.
pub(crate) fn refusal(code: Code, topic: Option<&Topic>) -> String {
    match (code, topic) {
        (Code::UnknownProfile, Some(topic)) => {
            format!("there is no profile @{}; `recado people` lists all profiles", topic.name())
        }
        (Code::UnknownChannel, Some(topic)) => {
            format!(
                "there is no channel #{}; the first notification sent to it creates it, and `recado channels` \
                 lists all channels",
                topic.name()
            )
        }
        (Code::NotFollowing, Some(topic)) => {
            let topic = written(topic);
            format!("you do not follow {topic}; run: recado follow '{topic}'")
        }
        (Code::ChannelDeleted, Some(topic)) => {
            format!("#{} was deleted; its name is free again 30 days later", topic.name())
        }
        // Only a user who may not read the channel gets here: everybody may read an owned channel that is
        // not private.
        (Code::NotAllowed, Some(topic @ Topic::Channel(_))) => {
            format!(
                "{topic} is private, and you are not one of its members; an owner can add you with: \
                 recado channel add '{topic}' @YOU"
            )
        }
        (Code::NotMember, Some(topic)) => format!("@{} is not a member of the channel", topic.name()),
        _ => explain(code).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_exit_code_distinguishes_refused_unknown_and_unreachable() {
        let request = |error| Failure::Request { error, topic: None }.code();
        assert_eq!(request(ReceiptError::Refused(Code::NotYours)), 77);
        assert_eq!(request(ReceiptError::OutcomeUnknown), 75);
        assert_eq!(Failure::from(ClientError::NoPrimary(Duration::ZERO)).code(), 69);
        let server = ([127, 0, 0, 1], 1).into();
        assert_eq!(Failure::from(ClientError::OtherVersion { server, version: 2 }).code(), 77);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        let later = StoreError::OtherVersion { path: "key".into(), found: 2, reads: 1 };
        assert_eq!(Failure::from(ClientError::from(later)).code(), 78);
        assert_eq!(Failure::Signal(2).code(), 130);
    }

    #[test]
    fn an_error_about_a_deleted_channel_does_not_say_that_a_send_creates_it() {
        let topic = Topic::to_follow("#ops").unwrap();
        let message = |code| refusal(code, Some(&topic));
        assert_eq!(message(Code::ChannelDeleted), "#ops was deleted; its name is free again 30 days later");
        assert!(message(Code::UnknownChannel).contains("creates it"));
    }

    #[test]
    fn an_error_about_a_private_channel_names_no_command_that_only_its_readers_may_run() {
        let message = refusal(Code::NotAllowed, Some(&Topic::to_follow("#secret").unwrap()));
        assert!(message.contains("private") && !message.contains("channel members"), "{message}");
    }

    #[test]
    fn an_error_about_an_unknown_profile_names_it() {
        let topic = Topic::to_follow("@bob").unwrap();
        let failure =
            Failure::Request { error: ReceiptError::Refused(Code::UnknownProfile), topic: Some(topic) };
        assert!(failure.to_string().contains("no profile @bob"));
    }
}
