//! Tests of the store: what people and scripts see of `put`, `get` and the others.

use serde_json::{Value, json};

use crate::cluster::{Cluster, beside_other_clusters};
use crate::terminal::Terminal;

/// Exit codes, as `recado --help` lists them.
const NO_VALUE: i32 = 1;
const WRONG_USAGE: i32 = 2;
const REFUSED: i32 = 77;

const ALICE: &str = "--as=alice";
const BOB: &str = "--as=bob";

/// The number after `timestamp: `.
fn timestamp(line: &str) -> String {
    line.split("timestamp: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_value_is_written_read_changed_by_its_timestamp_and_deleted() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let put = terminal.ok(&[ALICE, "put", "on-call", "bob\u{1b}[31m"]);
    assert!(put.starts_with("PUT_OK key: on-call value: bob timestamp: "), "{put}");
    assert!(put.contains(" at server 127.0.0.1:"), "{put}");
    let first = timestamp(&put);
    assert_eq!(terminal.ok(&[ALICE, "get", "on-call"]), "bob\u{1b}[31m\n", "a program gets the bytes");
    let read = terminal.ok(&[ALICE, "read", "on-call"]);
    assert!(
        read.starts_with(&format!("READ_OK key: on-call value: bob timestamp: {first} at server ")),
        "{read}"
    );

    terminal.ok(&[BOB, "claim"]);
    let second = timestamp(&terminal.ok(&[BOB, "update", "on-call", "carol", "--if", &first]));
    let (code, message) = terminal.fails(&[ALICE, "update", "on-call", "dave", "--if", &first]);
    assert_eq!(code, REFUSED);
    assert!(message.contains(&format!("its timestamp is {second}")), "{message}");
    assert_eq!(terminal.ok(&[ALICE, "get", "on-call"]), "carol\n");
    let (code, message) = terminal.fails(&[ALICE, "create", "on-call", "dave"]);
    assert_eq!((code, message.contains("has a value already")), (REFUSED, true), "{message}");

    let got = &terminal.json(&[BOB, "get", "on-call", "--json"])[0];
    assert_eq!((&got["value"], &got["author"]), (&json!("carol"), &json!("bob")));
    assert_eq!(got["timestamp"].to_string(), second);
    assert_eq!(terminal.fails(&[ALICE, "delete", "on-call", "--if", &first]).0, REFUSED);
    assert!(
        terminal
            .ok(&[ALICE, "delete", "on-call", "--if", &second])
            .starts_with("DELETE_OK key: on-call op: ")
    );

    let null = terminal.run(&[ALICE, "get", "on-call"]);
    assert_eq!((null.status.code(), null.stdout.as_slice()), (Some(NO_VALUE), &b"null\n"[..]));
    assert!(null.stderr.is_empty(), "{null:?}");
    let null = terminal.run(&[ALICE, "read", "on-call", "--json"]);
    assert_eq!(null.status.code(), Some(NO_VALUE));
    let null: Value = serde_json::from_slice(&null.stdout).unwrap();
    assert_eq!((&null["value"], &null["timestamp"]), (&Value::Null, &Value::Null));
    for command in [&["update", "on-call", "x"][..], &["delete", "on-call"]] {
        let (code, message) = terminal.fails(&[&[ALICE], command].concat());
        assert_eq!((code, message.contains("on-call has no value")), (REFUSED, true), "{message}");
    }
    assert!(
        terminal.ok(&[ALICE, "create", "on-call", "erin"]).starts_with("CREATE_OK key: on-call value: erin")
    );
}

#[test]
fn a_key_of_a_profile_or_a_private_channel_is_changed_and_read_by_whom_it_belongs_to() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&[BOB, "claim"]);
    terminal.ok(&[ALICE, "channel", "create", "#team", "--private"]);
    for key in ["@alice/k", "#team/k", "open"] {
        terminal.ok(&[ALICE, "put", key, "v"]);
    }
    assert_eq!(terminal.ok(&[BOB, "get", "@alice/k"]), "v\n");
    let (code, message) = terminal.fails(&[BOB, "put", "@alice/k", "x"]);
    assert_eq!((code, message.contains("@alice, who alone changes it")), (REFUSED, true), "{message}");
    let (code, message) = terminal.fails(&[BOB, "get", "#team/k"]);
    assert_eq!((code, message.contains("#team is private")), (REFUSED, true), "{message}");
    let (code, message) = terminal.fails(&[BOB, "put", "#nowhere/k", "x"]);
    assert_eq!((code, message.contains("no channel #nowhere")), (REFUSED, true), "{message}");
    let (code, message) = terminal.fails(&[BOB, "put", "#team", "x"]);
    assert_eq!((code, message.contains("#CHANNEL/REST")), (WRONG_USAGE, true), "{message}");

    let keys = |who: &str, prefix: &[&str]| {
        let items = terminal.json(&[&[who, "keys", "--json"], prefix].concat());
        items.iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(ALICE, &[]), ["#team/k", "@alice/k", "open"]);
    assert_eq!(keys(BOB, &[]), ["@alice/k", "open"]);
    assert_eq!(keys(BOB, &["@"]), ["@alice/k"]);
    let line = terminal.ok(&[BOB, "keys", "open"]);
    assert!(line.starts_with("open ") && line.ends_with(" 1 byte       by @alice\n"), "{line:?}");
}

#[test]
fn standard_input_is_a_value_as_it_is_up_to_16_kib() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let text = "two\nlines\n";
    terminal.ok_given(&[ALICE, "put", "k", "-"], text);
    assert_eq!(terminal.ok(&[ALICE, "get", "k"]), text);
    let long = "x".repeat(16 * 1024);
    terminal.ok_given(&[ALICE, "put", "k", "-"], &long);
    assert_eq!(terminal.ok(&[ALICE, "get", "k"]), long + "\n");
    let (code, message) = terminal.fails(&[ALICE, "put", "k", &"x".repeat(16 * 1024 + 1)]);
    assert_eq!((code, message.contains("at most 16384 bytes")), (WRONG_USAGE, true), "{message}");
}
