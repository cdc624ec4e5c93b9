//! Tests of what takes something away: retraction, deletion of channels, reset of a device; and of display
//! names.

use serde_json::{Value, json};

use crate::cluster::{Cluster, beside_other_clusters};
use crate::terminal::Terminal;

/// Exit codes, as `recado --help` lists them.
const WRONG_USAGE: i32 = 2;
const REFUSED: i32 = 77;

fn op(printed: &[Value]) -> u64 {
    printed[0]["op"].as_u64().unwrap()
}

fn kinds(printed: &[Value]) -> Vec<&str> {
    printed.iter().map(|line| line["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_retracted_text_is_shown_to_nobody_any_more_and_who_has_read_it_is_told() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");
    let sent = op(&terminal.json(&[alice, "send", "--to", "#ops", "--json", "the password is 1234"]));
    terminal.ok(&[bob, "follow", "#ops"]);
    let second = op(&terminal.json(&[alice, "send", "--to", "#ops", "--json", "--title", "T", "it is 5678"]));
    let heard = terminal.json(&[bob, "listen", "--json", "--count", "1", "--timeout", "20s"]);
    assert_eq!(heard[0]["body"], "it is 5678");

    let (code, message) = terminal.fails(&[bob, "retract", &second.to_string()]);
    assert_eq!(code, REFUSED);
    assert!(message.contains("not yours"), "{message}");
    let (code, message) = terminal.fails(&[alice, "retract", "999999"]);
    assert_eq!(code, REFUSED);
    assert!(message.contains("no notification of this op"), "{message}");

    let retraction = terminal.json(&[alice, "retract", &second.to_string(), "--json"]);
    assert_eq!(retraction[0]["retracted"], second);
    terminal.ok(&[alice, "retract", &sent.to_string()]);
    terminal.ok(&[alice, "retract", &sent.to_string()]);
    let heard = terminal.json(&[bob, "listen", "--json", "--count", "2", "--timeout", "20s"]);
    assert_eq!(kinds(&heard), ["retraction", "retraction"], "{heard:?}");
    assert_eq!((&heard[0]["op"], &heard[0]["retracts"]), (&json!(op(&retraction)), &json!(second)));

    let past = terminal.ok(&[bob, "history", "#ops"]);
    assert!(past.contains("(retracted)") && past.contains(&format!("(retracted op {sent})")), "{past}");
    let past = terminal.json(&[alice, "history", "#ops", "--json"]);
    assert_eq!(kinds(&past), ["retracted", "retracted", "retraction", "retraction"], "{past:?}");
    assert!(past.iter().all(|line| line["body"] == "" && line["title"] == Value::Null), "{past:?}");
}

#[test]
fn who_made_an_open_channel_deletes_it_and_its_followers_are_told() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");
    terminal.ok(&[alice, "send", "--to", "#ops", "first"]);
    terminal.ok(&[bob, "follow", "#ops"]);
    terminal.ok(&[bob, "send", "--to", "#ops", "second"]);
    let (code, message) = terminal.fails(&[bob, "channel", "delete", "#ops", "--yes"]);
    assert_eq!(code, REFUSED);
    assert!(message.contains("only who sent its first notification"), "{message}");
    assert_eq!(terminal.fails(&[alice, "channel", "delete", "#ops"]).0, WRONG_USAGE);
    terminal.ok(&[alice, "channel", "delete", "#ops", "--yes"]);
    let heard = terminal.json(&[bob, "listen", "--json", "--count", "1", "--timeout", "20s"]);
    assert_eq!((kinds(&heard), &heard[0]["topic"]), (vec!["channel_deleted"], &json!("#ops")));
    assert_eq!(terminal.fails(&[alice, "send", "--to", "#ops", "late"]).0, REFUSED);
    assert!(!terminal.ok(&[alice, "channels"]).contains("#ops"));
    terminal.ok(&[bob, "unfollow", "#ops"]);
}

#[test]
fn a_display_name_is_shown_beside_the_name() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");
    terminal.ok(&[alice, "claim"]);
    terminal.ok(&[bob, "claim"]);
    assert!(terminal.ok(&[alice, "rename", "Alice B."]).contains("Alice B."));
    assert!(terminal.ok(&[bob, "info", "@alice"]).starts_with("@alice  Alice B.\n"));
    let people = terminal.json(&[bob, "people", "--json"]);
    let shown: Vec<_> = people.iter().map(|one| (&one["profile"], &one["display"])).collect();
    assert_eq!(shown, [(&json!("alice"), &json!("Alice B.")), (&json!("bob"), &Value::Null)]);
    assert_eq!(terminal.json(&[bob, "info", "@alice", "--json"])[0]["display"], "Alice B.");
    for wrong in ["", " Alice", "a\nb", &"x".repeat(65)] {
        assert_eq!(terminal.fails(&[alice, "rename", wrong]).0, WRONG_USAGE, "{wrong:?}");
    }
    terminal.ok(&[alice, "rename", "--clear"]);
    assert_eq!(terminal.json(&[bob, "info", "@alice", "--json"])[0]["display"], Value::Null);
}

#[test]
fn a_device_whose_files_are_damaged_is_reset_and_keeps_its_name() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");
    terminal.ok(&[bob, "claim"]);
    terminal.ok(&[alice, "follow", "@bob"]);
    terminal.ok(&[bob, "send", "one"]);
    terminal.ok(&[alice, "listen", "--count", "1", "--timeout", "20s"]);
    let files = terminal.json(&[alice, "whoami", "--json"])[0]["files"].as_str().unwrap().to_owned();
    std::fs::write(format!("{files}/slot-0/outbox"), "no outbox").unwrap();
    let (_, message) = terminal.fails(&[alice, "send", "two"]);
    assert!(message.contains("recado device reset"), "{message}");
    assert_eq!(terminal.fails(&[alice, "device", "reset"]).0, WRONG_USAGE, "nobody knows what it holds");
    let reset = terminal.json(&[alice, "device", "reset", "--yes", "--json"]);
    assert_eq!((&reset[0]["profile"], &reset[0]["devices"]), (&json!("alice"), &json!(1)));
    let sent = terminal.run(&[alice, "send", "three"]);
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success() && !said.contains("claimed"), "the name was hers before: {said}");
    terminal.ok(&[bob, "send", "four"]);
    let heard = terminal.json(&[alice, "listen", "--json", "--count", "1", "--timeout", "20s"]);
    assert_eq!(heard[0]["body"], "four", "it goes on where the servers remember");
    assert!(terminal.ok(&[alice, "device", "reset"]).contains("reset"), "there is nothing to drop");
}
