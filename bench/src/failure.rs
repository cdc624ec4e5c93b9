//! Why a measurement ended without a result, and the exit codes.

use std::io;

use recado_client::{ClientError, Code, explain};

/// The exit codes, as `--help` lists them. They are those of `recado`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  measured, and nothing was lost, repeated or reordered
    1  any other error; also if something was lost, repeated or reordered
    2  usage: the command line is wrong
   69  no server, no primary, or no answer in time
   77  refused by the servers
  130  interrupted (Ctrl-C); 143 terminated";

/// The reason why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that does not exist.
    #[error("{0}")]
    Usage(String),
    /// The client reported an error.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The servers refused something for good.
    #[error("refused: {}", explain(*.0))]
    Refused(Code),
    /// Something that the measurement waits for did not happen.
    #[error("{0}: not in time")]
    Late(String),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// The signal with this number asked the program to end.
    #[error("ended by signal {0}")]
    Signal(u8),
    /// Any other failure, in words.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Names what was tried when the system refused.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
        move |source| Failure::Io { what: what.into(), source: source.into() }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Client(
                ClientError::Unreachable { .. }
                | ClientError::Unproved { .. }
                | ClientError::NoPrimary(_)
                | ClientError::Timeout(_)
                | ClientError::Full(_),
            )
            | Failure::Late(_) => 69,
            Failure::Refused(_) | Failure::Client(ClientError::Rejected(_) | ClientError::Refused(_)) => 77,
            Failure::Signal(signal) => 128_u8.saturating_add(*signal),
            Failure::Client(_) | Failure::Io { .. } | Failure::Other(_) => 1,
        }
    }
}
