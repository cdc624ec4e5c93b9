//! The commands of `recadod`.

mod admin;
mod check;
mod doctor;
mod hosts;
mod init;
mod inspect;
mod local_status;
mod log;
mod manual;
mod monitor;
mod serve;
mod supervisor;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use recado::config::file::{ConfigError, LogFormat};
use recado::config::secret::SecretError;
use recado::server::engine::StartError;
use recado::server::node::{SnapshotError, UnreadableEntry};
use recado_log::journal::JournalError;
use recado_proto::id::{DeviceKey, MEMBERS_MAX, Name};
use recado_sys::durable::Exposed;

use self::inspect::Verdict;
use self::log::LogQueue;

/// EX_CONFIG of sysexits.h.
const BAD_CONFIG: u8 = 78;

/// Where a package keeps the configuration of the machine's server.
const CONFIG: &str = "/etc/recado/recado.toml";

/// The help of `doctor` after its options.
const DOCTOR_HELP: &str = "\
Examples:
    recadod doctor                          # with the package's configuration
    recadod doctor server-1/recado.toml
    recadod doctor --json | jq '.findings[] | select(.severity != \"ok\")'

It changes no file, and runs beside the server or before its first start. It
binds the server's ports for a moment, to see whether they are free: a server that
starts just then fails, and systemd starts it again. Run it as the server's user,
or as root.

config   recado.toml is valid
access   owner and permissions of the secret and of the data directory
data     the data directory is this server's, a start accepts it, and what it
         holds; beside a server that runs, without its log and snapshots
disk     free room, against what retention and snapshots may need
fsync    20 syncs of 4 KiB on that disk: each write waits for one on a majority
port     the UDP ports are free, or this server has them
buffer   the receive buffer that the kernel grants, of what recado asks for
files    open files of the server, and how many are allowed
server   the server runs
and of all servers what `recado doctor --help` describes.

The exit code is 0 if there is neither a warning nor a fault, otherwise 1. With
--json: ok, worst, faults, warnings, notes, and findings, each with severity
(ok, note, warning, fault), check, subject, seen, cause, cure and values.";

/// The help of `monitor` after its options.
const MONITOR_HELP: &str = "\
Examples:
    recadod init --dir data --servers 3
    recadod monitor --dir data
    recado status --monitor data        # what the monitor does, also after its end

It starts `serve` for each DIR/server-N with a recado.toml, with DIR/server-N/log
as its log, and prints a line when something happens. One that ends is started
again after 2 s, and each time twice as long, up to 60 s, while it keeps ending;
after a minute of running it is 2 s again. One that is silent for too long is
killed, and started; never two at once, and none that catches up.

A signal stops the servers in order; a second one ends them at once. If the
monitor itself is killed they go on, and the next monitor adopts them.

It never runs `init`. A server whose data directory is gone, though the directory
above it is there, begins as a learner if enough of the others can tell what it
has promised; otherwise the monitor says what is missing, and waits.

Use it, or a process manager such as systemd with `serve`, and not both.";

/// The exit codes, as `--help` prints them.
const EXIT_CODES: &str = "\
Exit codes:
    0  done; for serve: stopped by a signal
    1  failed: a port in use, a disk error, ...; for serve: also ended at once
       by a second signal; for doctor: there is a warning or a fault; for
       inspect and check-config: the data directory is damaged
    2  usage: the command line is wrong
   78  configuration: recado.toml, the cluster's secret, or a data directory
       that belongs to another server or has only files of others in it, that
       other users may access and this one cannot close to them, or that
       another version of recadod wrote; or that is damaged or empty, of the
       only server of a cluster; for serve: also ended at an entry that
       another version logged";

/// Run and administer a server of a recado cluster.
#[derive(Debug, Parser)]
#[command(name = "recadod", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the files of a new cluster, ready to run
    Init(InitArgs),
    /// Run a server until SIGTERM, SIGINT or SIGHUP (a second one ends it at once)
    Serve {
        #[command(flatten)]
        config: ConfigFile,
        /// The format of log lines; overrides recado.toml
        #[arg(long, value_name = "FORMAT")]
        log: Option<Log>,
    },
    /// Run the servers of a directory until SIGTERM, SIGINT or SIGHUP, and start those again that die or hang
    #[command(after_help = MONITOR_HELP)]
    Monitor {
        /// The directory with the servers' directories, server-N, as init made it
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How long a server may be silent before it is killed, in s; four of its slowest fsyncs, if that is
        /// longer
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = monitor::HANG.as_secs(),
            value_parser = clap::value_parser!(u64).range(3..=3600)
        )]
        hang_after: u64,
    },
    /// Check a recado.toml, its secret and its data directory, without running the server. The exit code is 1
    /// if the server would start and its data is damaged
    CheckConfig {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Examine this server's machine and the cluster: what is wrong, why, and what to do
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        #[command(flatten)]
        config: ConfigFile,
        /// The data directory, if it is not the one that recado.toml names
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make the changes that only an administrator with the cluster's secret may make
    Admin {
        #[command(subcommand)]
        command: Admin,
    },
    /// Print the fingerprint and the key by which clients know the cluster
    Fingerprint {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Print the manual page of recadod, or write the pages of all its commands into DIR/man8
    Man {
        /// The directory; man finds the pages with MANPATH=DIR
        dir: Option<PathBuf>,
    },
    /// Print a script that completes recadod's command line
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show what a data directory holds: log, snapshots, view, damage. The exit code is 1 if it is damaged
    Inspect {
        /// The data directory
        dir: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Admin {
    /// Take a name from its keys, for instance a lost one: the next device that uses the name owns it. Its
    /// follows and its inbox remain; the servers log the change
    Release {
        /// The name
        #[arg(value_name = "@NAME", value_parser = admin::name)]
        name: Name,
        /// The recado.toml of any server of the cluster, with the secret beside it
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Remove a profile (@NAME) or a channel ('#CHANNEL') and its notifications. Its name is free afterwards;
    /// a private channel's in 30 days, or when it is removed again. What a profile sent to others remains;
    /// the servers log the change
    Remove {
        /// The profile or the channel
        #[arg(value_name = "@NAME|#CHANNEL", value_parser = admin::named)]
        what: admin::Named,
        /// The recado.toml of any server of the cluster, with the secret beside it
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Print an invitation code for a new name, if recado.toml has new_names = "invite"
    Invite {
        /// How many names can be claimed with the code
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long the code is valid: a number with s, m, h or d
        #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = admin::lasting)]
        lasts: Duration,
        /// Make the code valid for this name only
        #[arg(long, value_name = "@NAME", value_parser = admin::name)]
        name: Option<Name>,
        /// The recado.toml of any server of the cluster, with the secret beside it
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Allow a key to claim names, if recado.toml has new_names = "keys". Each name has its own key on each
    /// machine, so that each name needs its own `allow`
    Allow {
        /// The key, as `recado` prints it when the servers refuse it
        key: DeviceKey,
        /// The recado.toml of any server of the cluster, with the secret beside it
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Forbid a key to claim more names; it keeps those it has
    Disallow {
        /// The key
        key: DeviceKey,
        /// The recado.toml of any server of the cluster, with the secret beside it
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
}

/// The configuration file, which is given as an argument or as an option.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The server's recado.toml; without it /etc/recado/recado.toml
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(self) -> PathBuf {
        self.file.or(self.config).unwrap_or_else(|| CONFIG.into())
    }
}

#[derive(Debug, Args)]
struct InitArgs {
    /// A new or empty directory for the cluster's files
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    place: Place,
    /// The port for clients (with --servers, of the first server); the port for the other servers is 1000
    /// higher
    #[arg(long, default_value_t = 10097, value_parser = clap::value_parser!(u16).range(1..=64000))]
    port: u16,
    /// Where each machine will keep its server's data, as recado.toml is to name it: with the package,
    /// /var/lib/recado/data. Without it the data stay beside recado.toml
    #[arg(long, value_name = "DIR", requires = "host")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// N servers on this machine, 127.0.0.1, on consecutive ports
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MEMBERS_MAX as i64))]
    servers: Option<u16>,
    /// A server at this address, or at the address that this name has now; repeat the option for each server
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Log {
    Text,
    Json,
}

impl From<Log> for LogFormat {
    fn from(log: Log) -> LogFormat {
        match log {
            Log::Text => LogFormat::Text,
            Log::Json => LogFormat::Json,
        }
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // The message of a wrong command line goes to standard error, and its exit code counts in any case.
        Err(wrong) if wrong.use_stderr() => {
            let _ = wrong.print();
            if let Some(hint) = hint(&wrong) {
                let _ = writeln!(io::stderr(), "\n  tip: {hint}");
            }
            return ExitCode::from(2);
        }
        // The help and the version, which are no failure if they can be printed.
        Err(help) => {
            return end(match help.print().and_then(|()| io::stdout().flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                printed => printed.context("standard output cannot be written"),
            });
        }
    };
    let done = match cli.command {
        Command::Init(args) => hosts::resolve(&args.place.host).and_then(|(hosts, told)| {
            let members = init::plan((args.place.servers, &hosts), args.port)?;
            Ok(told + &init::run(&args.dir, &members, args.data.as_deref())?)
        }),
        Command::Serve { config, log } => match LogQueue::start() {
            Ok(queue) => return serve::run(&config.path(), log.map(LogFormat::from), &queue),
            Err(error) => Err(Error::new(error).context("cannot start the log thread")),
        },
        Command::Monitor { dir, hang_after } => match LogQueue::start_on(io::stdout) {
            Ok(told) => {
                let done = monitor::run(&dir, Duration::from_secs(hang_after), &told);
                told.flush();
                done.map(|()| String::new())
            }
            Err(error) => Err(Error::new(error).context("cannot start the log thread")),
        },
        Command::CheckConfig { config } => return verdict(check::run(&config.path())),
        Command::Doctor { config, data, json } => return doctor::run(&config.path(), data.as_deref(), json),
        Command::Admin { command } => admin::run(command),
        Command::Fingerprint { config } => check::fingerprint(&config.path()),
        Command::Man { dir: Some(dir) } => manual::write_pages(&dir),
        Command::Man { dir: None } => manual::page(),
        Command::Completions { shell } => Ok(manual::completions(shell)),
        Command::Inspect { dir, json } => return verdict(inspect::run(&dir, json)),
    };
    end(done.and_then(|text| print(&mut io::stdout().lock(), &text)))
}

/// Prints what was found of a data directory, and returns the exit code: a failure if it is damaged.
fn verdict(found: Result<(String, Verdict)>) -> ExitCode {
    let (text, verdict) = match found {
        Ok((text, verdict)) => (Ok(text), verdict),
        Err(error) => (Err(error), Verdict::Whole),
    };
    let code = end(text.and_then(|text| print(&mut io::stdout().lock(), &text)));
    // The text says what is damaged.
    if verdict == Verdict::Damaged { ExitCode::FAILURE } else { code }
}

/// The command that was meant, if the one that was typed is none of this program's and one of `recado`'s.
fn hint(wrong: &clap::Error) -> Option<String> {
    if wrong.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(typed)) = wrong.get(ContextKind::InvalidSubcommand) else { return None };
    match typed.as_str() {
        "config" | "check" => Some(
            "`recadod check-config` checks recado.toml; `recado config check` a client's config.toml".into(),
        ),
        "status" | "send" | "listen" | "follow" | "history" | "cluster" | "channel" | "device" => {
            Some(format!("`{typed}` is a command of the client: recado {typed}"))
        }
        _ => None,
    }
}

/// Prints the failure, if there is one, and returns the exit code.
fn end(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr cannot be written either, the exit code remains.
            let _ = writeln!(io::stderr(), "recadod: {}", message(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Prints the result. A reader that has closed its end (`recadod inspect DIR | head -1`) has read enough.
fn print(out: &mut impl Write, text: &str) -> Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the command has succeeded, but standard output cannot be written"),
    }
}

/// The error and its causes. A parser's message ends with a line end of its own, which is removed.
fn message(error: &anyhow::Error) -> String {
    format!("{error:#}").trim_end().to_owned()
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let config =
        error.is::<ConfigError>() || error.is::<SecretError>() || error.chain().any(is_wrong_directory);
    if config { BAD_CONFIG } else { 1 }
}

/// Returns true if this program must not run on the data directory as it is.
fn is_wrong_directory(cause: &(dyn std::error::Error + 'static)) -> bool {
    let other_format =
        |start: &StartError| matches!(start, StartError::Snapshot(SnapshotError::OtherFormat { .. }));
    cause.downcast_ref().is_some_and(JournalError::is_wrong_directory)
        || cause.downcast_ref().is_some_and(other_format)
        || cause.is::<UnreadableEntry>()
        || cause.is::<Exposed>()
}

#[cfg(test)]
mod tests {
    use recado::server::ServerError;

    use super::*;

    fn parse(line: &str) -> std::result::Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn init_takes_a_number_of_servers_or_their_hosts_but_not_both() {
        assert!(parse("recadod init --dir D --servers 3").is_ok());
        assert!(parse("recadod init --dir D --host 127.0.0.2 --host 127.0.0.3").is_ok());
        assert!(parse("recadod init --dir D").is_err());
        assert!(parse("recadod init --dir D --servers 3 --host 127.0.0.2").is_err());
        assert!(parse("recadod init --dir D --servers 0").is_err());
        assert!(parse("recadod init --dir D --servers 3 --port 65000").is_err());
    }

    #[test]
    fn the_configuration_is_taken_as_an_argument_or_as_an_option_and_not_as_both() {
        for command in ["serve", "check-config", "doctor", "fingerprint"] {
            let path = |rest: &str| {
                let cli = parse(&format!("recadod {command}{rest}")).map_err(|error| error.kind())?;
                Ok::<_, ErrorKind>(match cli.command {
                    Command::Serve { config, .. }
                    | Command::CheckConfig { config }
                    | Command::Doctor { config, .. }
                    | Command::Fingerprint { config } => config.path(),
                    other => panic!("{other:?}"),
                })
            };
            assert_eq!(path(""), Ok(CONFIG.into()), "{command}");
            assert_eq!(path(" a.toml"), Ok("a.toml".into()), "{command}");
            assert_eq!(path(" --config a.toml"), Ok("a.toml".into()), "{command}");
            assert_eq!(path(" a.toml --config b.toml"), Err(ErrorKind::ArgumentConflict), "{command}");
        }
    }

    #[test]
    fn a_command_of_the_other_program_is_told_apart() {
        let told = |line: &str| hint(&parse(line).unwrap_err());
        assert!(told("recadod config check").unwrap().contains("recadod check-config"));
        assert!(told("recadod status").unwrap().contains("recado status"));
        assert_eq!((told("recadod unheard-of"), told("recadod serve --unheard-of")), (None, None));
    }

    #[test]
    fn help_lists_every_exit_code_and_fits_80_columns() {
        use clap::CommandFactory;
        let help = Cli::command().term_width(80).render_help().to_string();
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        for code in ["    0  ", "    1  ", "    2  ", &format!("   {BAD_CONFIG}  ")] {
            assert!(help.contains(code), "{code:?}: {help}");
        }
    }

    #[test]
    fn standard_output_that_is_closed_or_full_is_no_panic_and_only_the_full_one_is_an_error() {
        struct Out(io::ErrorKind);
        impl Write for Out {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(print(&mut Out(io::ErrorKind::BrokenPipe), "text").is_ok());
        let error = print(&mut Out(io::ErrorKind::StorageFull), "text").unwrap_err();
        assert!(
            message(&error).contains("has succeeded") && message(&error).contains("standard output"),
            "{error:#}"
        );
        assert_eq!(exit_code(&error), 1);
    }

    #[test]
    fn what_another_version_has_written_ends_a_server_with_its_own_code_and_names_the_cure() {
        let (op, cause) = (recado_proto::id::Op(7), recado_proto::DecodeError::Malformed);
        let (entry, snapshot) = (UnreadableEntry { op, cause }, SnapshotError::OtherFormat { op, found: 9 });
        let path = || PathBuf::from("data");
        for error in [
            ServerError::Unreadable { path: path(), source: entry },
            ServerError::Start { path: path(), source: snapshot.into() },
        ] {
            let error = Error::new(error);
            assert!(message(&error).contains("op 7") && message(&error).contains("run the"), "{error:#}");
            assert_eq!(exit_code(&error), BAD_CONFIG);
        }
        let source = SnapshotError::Foreign(op).into();
        assert_eq!(exit_code(&Error::new(ServerError::Start { path: path(), source })), 1);
    }

    #[test]
    fn serve_takes_its_log_format_from_the_line() {
        assert!(parse("recadod serve --config F --log json").is_ok());
        assert!(parse("recadod serve --config F --log xml").is_err());
        assert!(parse("recadod serve").is_ok(), "with the configuration of the package");
    }
}
