//! Tests of which commands claim a name, and of what a command needs that only reads.

use std::process::Command;

use crate::cluster::{Cluster, beside_other_clusters, succeeded};
use crate::terminal::Terminal;

const REFUSED: i32 = 77;

/// Standard error of a command that must succeed.
fn notes(terminal: &Terminal, args: &[&str]) -> String {
    let output = terminal.run(args);
    succeeded(&output);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn only_some_commands_claim_a_name_and_they_say_so_unless_that_is_forbidden() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["status"]);
    assert_eq!(notes(&terminal, &["--as=bob", "claim"]), "recado: claimed @bob: nobody had it\n");
    assert!(notes(&terminal, &["--as=alice", "follow", "@bob"]).contains("claimed @alice: nobody had it"));
    for again in [&["--as=alice", "send", "x"][..], &["--as=alice", "claim"], &["--as=bob", "history"]] {
        assert!(!notes(&terminal, again).contains("claimed"), "{again:?}");
    }

    // A mistyped name, with every command that does not claim one, and with those that may not.
    let config = terminal.path("config.toml");
    std::fs::write(&config, "claim = false\n").unwrap();
    let config = format!("--config={}", config.display());
    for args in [
        &["history", "@bob"][..],
        &["whoami"],
        &["info", "@bob"],
        &["following"],
        &["people"],
        &["listen", "--timeout", "5s"],
        &["unfollow", "@bob"],
        &["channel", "members", "#ops"],
        &["channel", "add", "#ops", "@bob"],
        &["device", "list"],
        &["device", "add"],
        &["send", "--no-claim", "x"],
        &["follow", "--no-claim", "@bob"],
        &["claim", "--no-claim"],
        &[&config, "send", "x"],
    ] {
        let (code, message) = terminal.fails(&[&["--as=alcie"], args].concat());
        assert!(code == REFUSED && message.contains("@alcie"), "{args:?}: {code}, {message}");
    }
    assert!(!terminal.ok(&["--as=alice", "people"]).contains("alcie"));
    assert!(!terminal.path(".local/state/recado").join(cluster.id.to_string()).join("alcie").exists());

    // A claim that is asked for is no slip, whatever the configuration says; the name may stand after it.
    assert!(notes(&terminal, &[&config, "claim", "carol"]).contains("claimed @carol: nobody had it"));
    let (code, message) = terminal.fails(&["--as=alice", "claim", "carol"]);
    assert!(code == 2 && message.contains("two names"), "{message}");

    // A key that was made here and never became the profile's claims nothing either.
    let elsewhere = Terminal::new(&cluster);
    assert_eq!(elsewhere.fails(&["--as=alice", "send", "x"]).0, REFUSED);
    let (code, message) = elsewhere.fails(&["--as=alice", "history"]);
    assert!(code == REFUSED && message.contains("belongs to other machines"), "{message}");
    // A machine that is in already needs no code, and keeps the one that it is given for another.
    let code =
        terminal.json(&["--as=alice", "device", "add", "--json"])[0]["code"].as_str().unwrap().to_owned();
    let told = terminal.ok(&["--as=alice", "device", "enrol", &code]);
    assert!(told.contains("already") && told.contains("not used"), "{told}");
    elsewhere.ok(&["--as=alice", "device", "enrol", &code]);
    elsewhere.ok(&["--as=alice", "history"]);
}

#[test]
fn a_home_that_cannot_be_written_can_be_read() {
    let _shared = beside_other_clusters();
    let may_mount =
        Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|output| output.status.success());
    if !may_mount {
        eprintln!(
            "skipped: a read-only mount needs `unshare -rm`; the store's tests show that a reader writes nothing"
        );
        return;
    }
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "kept"]);
    let read_only = |args: &[&str]| {
        let recado = terminal.command(args);
        let mount =
            "mount --bind \"$HOME\" \"$HOME\" && mount -o remount,bind,ro \"$HOME\" && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", mount]).arg(recado.get_program()).args(recado.get_args());
        command.env_clear().envs(recado.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    };
    for args in [
        &["--as=alice", "history", "--feed"][..],
        &["--as=alice", "whoami"],
        &["--as=alice", "people"],
        &["status"],
        &["cluster", "list"],
    ] {
        let output = read_only(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(succeeded(&read_only(&["--as=alice", "history", "--feed"])).contains("kept"));
    let refused = read_only(&["--as=alice", "send", "x"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("Read-only file system"), "{message}");
}

#[test]
fn a_name_that_an_administrator_released_is_told_to_be_nobodys_with_the_command_that_claims_it() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "send", "x"]);
    let config = cluster.config(cluster.nodes()[0]);
    let released =
        Command::new(crate::recadod()).args(["admin", "release", "@bob", "--config"]).arg(config).output();
    succeeded(&released.unwrap());
    let nobody = "nobody has @bob now";
    let (code, message) = terminal.fails(&["--as=bob", "history"]);
    assert!(code == REFUSED && message.contains(nobody), "{message}");
    assert!(message.contains("recado --as bob claim") && !message.contains("somebody else"), "{message}");
    let (code, message) = terminal.fails(&["--as=bob", "claim"]);
    assert!(code == REFUSED && message.contains("recado device reset"), "{message}");
    terminal.ok(&["--as=bob", "device", "reset", "--yes"]);
    let (code, message) = terminal.fails(&["--as=bob", "listen"]);
    assert!(code == REFUSED && message.contains(nobody), "{message}");
    terminal.ok(&["--as=bob", "claim"]);
    terminal.ok(&["--as=bob", "history"]);

    // Who lost the only machine with the key is told who can help.
    let (code, message) = Terminal::new(&cluster).fails(&["--as=bob", "send", "x"]);
    assert!(code == REFUSED && message.contains("recadod admin release @bob"), "{message}");
}

#[test]
fn who_has_no_name_here_is_told_how_to_have_one_and_how_to_keep_it() {
    let terminal = Terminal::knowing("127.0.0.1:9");
    let (code, message) = terminal.fails(&["send", "hello"]);
    assert!(code == 2 && message.contains("Run `recado`") && message.contains("--as NAME"), "{message}");
    let file = terminal.ok(&["--as=bob", "config", "init"]);
    assert!(std::fs::read_to_string(file.trim()).unwrap().contains("\nprofile = \"bob\"\n"));

    let mut command = terminal.command(&["whoami"]);
    let output = command.env("HOME", "here").output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && message.contains("HOME is \"here\""), "{message}");
}
