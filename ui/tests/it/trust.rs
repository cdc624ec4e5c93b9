//! Tests of the trust in clusters, with real servers: at the first meeting, after the cluster was replaced,
//! and with a pinned key. Cases that need an address other than loopback are unit tests of `trust`.

use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, beside_other_clusters, succeeded};
use crate::terminal::Terminal;
use crate::tmux::Tmux;

const REFUSED: i32 = 77;

/// Value of one line of `recadod fingerprint` for server 1.
fn told(cluster: &Cluster, what: &str) -> String {
    let config = home(cluster).join("server-1/recado.toml");
    let output = Command::new(crate::recadod()).args(["fingerprint", "--config"]).arg(config).output();
    let text = succeeded(&output.unwrap());
    let line = text.lines().find_map(|line| line.strip_prefix(what)).expect("it is told");
    line.trim().to_owned()
}

fn home(cluster: &Cluster) -> std::path::PathBuf {
    cluster.dir().join("cluster")
}

/// Standard error of a command that must succeed.
fn notes(terminal: &Terminal, args: &[&str]) -> String {
    let output = terminal.run(args);
    succeeded(&output);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_first_command_on_loopback_reports_the_new_cluster_and_no_later_one_does() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let first = notes(&terminal, &["status"]);
    assert_eq!(first.lines().count(), 1, "{first}");
    assert!(first.contains(&told(&cluster, "fingerprint")), "{first}");
    terminal.ok(&["--as=alice", "claim"]);
    assert_eq!(notes(&terminal, &["--as=alice", "whoami"]), "");
    assert_eq!(notes(&terminal, &["status"]), "");
    // Another name of the same address leads to the known key.
    let port = cluster.addresses()[0].port();
    assert_eq!(notes(&terminal, &["--server", &format!("localhost:{port}"), "status"]), "");

    let list = terminal.json(&["cluster", "list", "--json"]);
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["key"], told(&cluster, "key"));
    assert_eq!(list[0]["addresses"][0], cluster.addresses()[0].to_string());
}

#[test]
fn two_first_commands_at_once_both_go_well_and_remember_one_cluster() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let commands: Vec<_> =
        ["--as=alice", "--as=bob"].iter().map(|who| terminal.start(&[who, "claim"])).collect();
    for command in commands {
        succeeded(&command.wait_with_output().unwrap());
    }
    assert_eq!(terminal.json(&["cluster", "list", "--json"]).len(), 1);
}

#[test]
fn a_cluster_made_anew_is_refused_loudly_until_the_old_one_is_forgotten() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "claim"]);
    let old = told(&cluster, "fingerprint");
    let address = cluster.addresses()[0];

    cluster.kill_all();
    std::fs::remove_dir_all(home(&cluster)).unwrap();
    init(&home(&cluster), address.port());
    cluster.start_all();
    let new = told(&cluster, "fingerprint");
    assert_ne!(old, new);

    let cure = format!("recado cluster forget {address}");
    for command in [["--as=alice", "whoami"].as_slice(), &["status"], &["--accept-new", "status"]] {
        let (code, message) = terminal.fails(command);
        assert_eq!(code, REFUSED, "{command:?}: {message}");
        for part in [&cure, &old, &new, "IS NOT THE ONE IT WAS"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let shown = terminal.ok(&["cluster", "show"]);
    assert!(shown.contains(&new) && shown.contains("NOT THE ONE KNOWN"), "{shown}");

    // The refusal names this command. Its first word is `recado` itself.
    let words: Vec<&str> = cure.split(' ').skip(1).collect();
    terminal.ok(&words);
    assert!(notes(&terminal, &["--as=alice", "claim"]).contains(&new));
    let (code, nothing) = terminal.fails(&["cluster", "forget", "127.0.0.9:1"]);
    assert!(code == 1 && nothing.contains("cluster list"), "{code}: {nothing}");
}

#[test]
fn an_open_screen_says_that_the_cluster_was_made_anew() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let mut cluster = Cluster::ready(1);
    let address = cluster.addresses()[0];
    // The window uses this handle only to wait.
    let watch = Cluster::init(1);
    let alice = tmux.window(&watch, "alice", &address.to_string());
    alice.enter("clear; recado --as alice");
    alice.wait_for("connected");

    // So does an open `recado listen`.
    let bob = tmux.window(&watch, "bob", &address.to_string());
    bob.enter("clear; recado --as bob claim; recado --as bob listen");
    bob.wait_for("you follow nothing yet");

    cluster.kill_all();
    std::fs::remove_dir_all(home(&cluster)).unwrap();
    init(&home(&cluster), address.port());
    cluster.start_all();
    bob.wait_for("IS NOT THE ONE IT WAS");
    alice.wait_for("IS NOT THE ONE IT WAS");
    alice.wait_for(&format!("recado cluster forget {address}"));
}

#[test]
fn a_pinned_key_is_the_only_one_talked_to_and_nothing_is_remembered() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let (key, other) = (told(&cluster, "key"), "ab".repeat(32));
    let (code, message) = terminal.fails(&["--cluster-key", &other, "--as=alice", "whoami"]);
    assert!(code == REFUSED && message.contains(&key) && message.contains(&other), "{code}: {message}");
    terminal.ok(&["--cluster-key", &key, "--as=alice", "claim"]);
    assert_eq!(notes(&terminal, &["--cluster-key", &key, "--as=alice", "whoami"]), "");
    assert_eq!(terminal.ok(&["cluster", "list"]), "");

    let config = terminal.path("config.toml");
    std::fs::write(&config, format!("cluster_key = \"{other}\"\n")).unwrap();
    let file = config.display().to_string();
    assert_eq!(terminal.fails(&["--config", &file, "status"]).0, REFUSED);
    terminal.ok(&["--config", &file, "--cluster-key", &key, "status"]);
}

/// Runs `recadod init` for one server with this port.
fn init(dir: &Path, port: u16) {
    let port = port.to_string();
    let output = Command::new(crate::recadod())
        .args(["init", "--servers", "1", "--port", &port, "--dir"])
        .arg(dir)
        .output();
    succeeded(&output.unwrap());
}
