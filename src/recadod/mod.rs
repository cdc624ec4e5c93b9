//! The commands of `recadod`. Exit codes: 0 done, 1 failed, 2 wrong usage, 78 bad configuration
//! (EX_CONFIG of sysexits.h).

mod check;
mod init;
mod inspect;
mod serve;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recado::config::file::{ConfigError, LogFormat};
use recado::config::secret::SecretError;
use recado::id::MEMBERS_MAX;

const BAD_CONFIG: u8 = 78;

/// One recado server: notifications that outlive it.
#[derive(Debug, Parser)]
#[command(name = "recadod", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the ready-to-run files of a new cluster
    Init(InitArgs),
    /// Run a server until SIGTERM or SIGINT (a second one ends it at once)
    Serve {
        /// The server's recado.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How log lines look; overrides the file
        #[arg(long, value_name = "FORMAT")]
        log: Option<Log>,
    },
    /// Check a recado.toml and what it names, without running anything
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Show what a data directory holds: log, snapshots, view, damage
    Inspect {
        /// The data directory
        dir: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct InitArgs {
    /// A new or empty directory for the cluster's files
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    place: Place,
    /// The port for clients (of the first server, with --servers); peers talk on the one 1000 higher
    #[arg(long, default_value_t = 10097, value_parser = clap::value_parser!(u16).range(1..=64000))]
    port: u16,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// So many servers on this machine, 127.0.0.1, on consecutive ports
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MEMBERS_MAX as i64))]
    servers: Option<u16>,
    /// A server on this IP address; once for each
    #[arg(long, value_name = "IP")]
    host: Vec<IpAddr>,
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

/// Runs the command line. Clap itself exits with 2 on wrong usage.
pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init(args) => {
            let hosts = (args.place.servers, args.place.host.as_slice());
            init::plan(hosts, args.port)
                .and_then(|members| init::run(&args.dir, &members))
                .map(|told| print!("{told}"))
        }
        Command::Serve { config, log } => serve::run(&config, log.map(LogFormat::from)),
        Command::CheckConfig { file } => check::run(&file).map(|told| print!("{told}")),
        Command::Inspect { dir, json } => inspect::run(&dir, json).map(|told| print!("{told}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recadod: {error:#}");
            let config = error.is::<ConfigError>() || error.is::<SecretError>();
            if config { ExitCode::from(BAD_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
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
    fn serve_takes_its_log_format_from_the_line() {
        assert!(parse("recadod serve --config F --log json").is_ok());
        assert!(parse("recadod serve --config F --log xml").is_err());
        assert!(parse("recadod serve").is_err());
    }
}
