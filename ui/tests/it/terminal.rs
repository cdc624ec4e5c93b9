//! A user's terminal: runs `recado` with a home of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, succeeded};

/// A home directory, and the servers that are named in its environment.
pub(crate) struct Terminal {
    home: tempfile::TempDir,
    servers: String,
}

impl Terminal {
    /// An empty home, with the address of the cluster's first server only.
    pub(crate) fn new(cluster: &Cluster) -> Terminal {
        Terminal::knowing(&cluster.addresses()[0].to_string())
    }

    /// An empty home, with the addresses of these servers.
    pub(crate) fn knowing(servers: &str) -> Terminal {
        Terminal { home: tempfile::tempdir().unwrap(), servers: servers.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `recado` with these arguments, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recado"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("RECADO_SERVERS", &self.servers)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        succeeded(&self.run(args))
    }

    /// Runs a command that must succeed, with this standard input, and returns its output.
    pub(crate) fn ok_given(&self, args: &[&str], stdin: &str) -> String {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().expect("piped").write_all(stdin.as_bytes()).unwrap();
        succeeded(&child.wait_with_output().unwrap())
    }

    /// Runs a command that must succeed and print JSON, either an object a line or one value.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        lines(&self.ok(args))
    }

    /// Runs a command that must fail, and returns its exit code and its error message.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} went well");
        (output.status.code().expect("it exits"), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Parses each line as a JSON value. An array yields its elements.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .flat_map(|line| {
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}")) {
                Value::Array(values) => values,
                value => vec![value],
            }
        })
        .collect()
}
