//! The examples of the client, run against live servers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, succeeded};

const NAMES: [&str; 3] = ["send", "follow", "exactly_once"];

/// The folder of the examples, beside the daemon. `cargo test --workspace` has built them; a test of this
/// package alone builds them once.
fn examples() -> &'static Path {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let profile = crate::recadod().parent().unwrap();
        let examples = profile.join("examples");
        if !NAMES.iter().all(|name| examples.join(name).exists()) {
            let name = match profile.file_name().and_then(|name| name.to_str()) {
                // As `cargo test` builds what they depend on.
                Some("debug") | None => "test",
                Some(other) => other,
            };
            let build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args([
                    "build",
                    "--package",
                    "recado-client",
                    "--examples",
                    "--profile",
                    name,
                    "--target-dir",
                ])
                .arg(profile.parent().unwrap())
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output();
            succeeded(&build.unwrap());
        }
        examples
    })
}

/// An example that runs until it is dropped, and the lines that it prints.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let out: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in out {
            let tell = tell.clone();
            std::thread::Builder::new()
                .spawn(move || {
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        if tell.send(line).is_err() {
                            return;
                        }
                    }
                })
                .unwrap();
        }
        Running { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn they_send_follow_and_count_exactly_once_through_a_kill_and_a_failover() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let server = cluster.addresses()[0].to_string();
    let state = cluster.dir().join("state");
    let example = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(examples().join(name));
        command.arg(&server).args(arguments).env("RECADO_EXAMPLE_STATE", &state);
        command
    };
    let words = cluster.dir().join("words.txt");
    let counted = || std::fs::read_to_string(&words).unwrap_or_default();
    let sent = |text: &str| succeeded(&example("send", &["alice", "#ops", text]).output().unwrap());
    sent("the channel");

    let follower = Running::start(example("follow", &["bob", "#ops"]));
    assert_eq!(follower.line(), "following #ops");
    let counter = || Running::start(example("exactly_once", &["counter", "#ops", words.to_str().unwrap()]));
    let first = counter();
    assert_eq!(first.line(), "counting the words in #ops: 0 so far");
    let op = sent("one two three");
    assert_eq!(follower.line(), format!("{} alice: one two three", op.trim()));
    assert!(cluster.poll(PATIENCE, || counted() == format!("{} 3\n", op.trim())), "{}", counted());

    // The consumer is killed, and so is the primary; meanwhile two more words are sent.
    drop(first);
    let primary = cluster.wait_primary();
    cluster.kill(primary);
    let op = sent("four five");
    assert_eq!(follower.line(), format!("{} alice: four five", op.trim()));
    let second = counter();
    assert_eq!(second.line(), "counting the words in #ops: 3 so far");
    assert!(cluster.poll(PATIENCE, || counted() == format!("{} 5\n", op.trim())), "{}", counted());
}
