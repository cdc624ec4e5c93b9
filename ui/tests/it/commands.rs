//! Each command does what its help says, in a cluster of three.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, alone, succeeded};
use crate::terminal::{Terminal, lines};

/// EX_TEMPFAIL of sysexits.h: the outcome is unknown.
const OUTCOME_UNKNOWN: i32 = 75;

#[test]
fn two_people_follow_send_listen_and_look_back() {
    let _alone = alone();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");

    // Names are claimed by using them.
    assert!(terminal.ok(&[alice, "whoami"]).contains("alice"));
    terminal.ok(&[alice, "send", "--to", "#ops", "a channel is made by its first notification"]);
    terminal.ok(&[bob, "follow", "@alice"]);
    terminal.ok(&[bob, "follow", "#ops"]);
    let op: u64 = number(&terminal.ok(&[alice, "send", "hello", "followers"]));
    terminal.ok(&[
        alice,
        "send",
        "--to",
        "#ops",
        "--title",
        "Disk",
        "--priority",
        "5",
        "--tag",
        "sda",
        "nearly full",
    ]);
    terminal.ok(&[alice, "send", "--to", "@bob", "just for you"]);

    let heard = terminal.json(&[bob, "listen", "--json", "--count", "3", "--timeout", "20s"]);
    assert_eq!(texts(&heard, "body"), ["hello followers", "nearly full", "just for you"], "{heard:?}");
    assert_eq!(heard[0]["op"].as_u64(), Some(op));
    assert!(heard.iter().all(|one| one["author"].as_str().is_some_and(|author| author.contains("alice"))));
    assert_eq!(heard[1]["title"], "Disk");
    assert_eq!(heard[1]["priority"], 5);
    assert_eq!(heard[1]["tags"][0], "sda");

    let past = terminal.json(&[bob, "history", "@alice", "--json"]);
    assert_eq!(texts(&past, "body"), ["hello followers"]);
    let text = |args: &[&str]| terminal.ok(args);
    assert!(text(&[bob, "history", "#ops"]).contains("nearly full"));
    assert!(text(&[bob, "following"]).contains("@alice") && text(&[bob, "following"]).contains("#ops"));
    assert!(text(&[alice, "followers"]).contains("bob"));
    assert!(text(&[alice, "channels"]).contains("#ops"));
    assert!(text(&[alice, "people"]).contains("alice") && text(&[alice, "people"]).contains("bob"));
    assert!(!text(&[bob, "devices"]).trim().is_empty());
    assert!(text(&[bob, "info", "@alice"]).contains("alice"));

    terminal.ok(&[bob, "unfollow", "@alice"]);
    assert!(!text(&[bob, "following"]).contains("@alice"));
}

#[test]
fn a_look_back_never_moves_the_cursor() {
    let _alone = alone();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "whoami"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "one"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "two"]);
    let listen = |how: &[&str]| {
        let args = [&["--as=bob", "listen", "--json", "--timeout", "20s"], how].concat();
        texts(&terminal.json(&args), "body").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listen(&["--last", "1", "--count", "1"]), ["two"]);
    assert_eq!(listen(&["--since", "1h", "--count", "2"]), ["one", "two"]);
    assert_eq!(listen(&["--count", "1"]), ["one"]);
    assert_eq!(listen(&["--count", "1"]), ["two"]);
}

#[test]
fn a_notification_a_line_from_stdin_and_a_command_for_each_that_comes() {
    let _alone = alone();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "whoami"]);
    let told = terminal.ok_given(&["--as=alice", "send", "--to", "@bob", "-"], "first\nsecond\nthird\n");
    assert_eq!(told.lines().count(), 3, "an op for each: {told}");

    let file = terminal.path("heard");
    let exec = format!("cat >> {}", file.display());
    terminal.ok(&["--as=bob", "listen", "--count", "3", "--timeout", "20s", "--exec", &exec]);
    let heard = std::fs::read_to_string(file).unwrap();
    for text in ["first", "second", "third"] {
        assert!(heard.contains(text), "{heard}");
    }
}

#[test]
fn a_listener_that_is_waiting_gets_what_is_sent_across_a_failover() {
    let _alone = alone();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "whoami"]);
    let listener = terminal.start(&["--as=bob", "listen", "--json", "--count", "2", "--timeout", "30s"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "before"]);
    let primary = cluster.wait_primary();
    cluster.kill(primary);
    // The configured server may be the dead one: the others are known by name.
    let terminal_of_three = Terminal::knowing(&listed(&cluster));
    terminal_of_three.ok(&["--as=carol", "send", "--to", "@bob", "after"]);
    let heard = lines(&succeeded(&listener.wait_with_output().unwrap()));
    assert_eq!(texts(&heard, "body"), ["before", "after"]);
}

#[test]
fn status_shows_every_server_with_its_place() {
    let _alone = alone();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let servers = terminal.json(&["status", "--json"]);
    assert_eq!(servers.len(), 3);
    let keys = ["id", "role", "view", "applied", "durable", "lag", "address", "pid", "alive"];
    for server in &servers {
        let has: BTreeSet<&str> = server.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys.iter().all(|key| has.contains(key)), "{has:?}");
        assert_eq!(server["alive"], true);
    }
    let primaries: Vec<&Value> = servers.iter().filter(|server| server["role"] == "primary").collect();
    assert_eq!(primaries.len(), 1, "{servers:?}");
    let primary = cluster.wait_primary();
    assert_eq!(primaries[0]["pid"].as_u64(), Some(u64::from(cluster.pid(primary))));

    cluster.kill(primary);
    let alive = |terminal: &Terminal| {
        let servers = terminal.json(&["status", "--json"]);
        servers.iter().filter(|server| server["alive"] == true).count()
    };
    assert!(cluster.poll(PATIENCE, || alive(&terminal) == 2));
}

#[test]
fn exit_codes_and_messages_tell_what_went_wrong() {
    let _alone = alone();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (code, told) = terminal.fails(&["--as=alice", "follow", "@nobody"]);
    assert!(code != OUTCOME_UNKNOWN && told.contains("nobody"), "{code}: {told}");
    let (code, told) = terminal.fails(&["--as=alice", "send", "--to", "@nobody", "text"]);
    assert!(code != OUTCOME_UNKNOWN && told.contains("nobody"), "{code}: {told}");
    assert_eq!(terminal.fails(&["--as=alice", "send"]).0, 2, "wrong usage");
    assert_eq!(terminal.fails(&["--as=Not A Name", "whoami"]).0, 2, "wrong usage");

    // A majority is gone: what was sent may be logged or not.
    let primary = cluster.wait_primary();
    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != primary).collect();
    let known = Terminal::knowing(&cluster.member(primary).client.to_string());
    known.ok(&["--as=dora", "whoami"]);
    others.into_iter().for_each(|node| cluster.kill(node));
    let (code, told) = known.fails(&["--as=dora", "send", "--timeout", "2s", "text"]);
    assert_ne!(code, 0, "{told}");

    cluster.kill_all();
    let (code, told) = known.fails(&["--as=dora", "whoami"]);
    assert!(code != 0 && told.contains(&cluster.member(primary).client.to_string()), "{code}: {told}");
}

/// The only number of a line such as "op 17" or "17".
fn number(text: &str) -> u64 {
    let digits: String =
        text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn texts<'a>(values: &'a [Value], key: &str) -> Vec<&'a str> {
    values.iter().map(|value| value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))).collect()
}

/// All servers, as the environment names them.
fn listed(cluster: &Cluster) -> String {
    cluster.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
