//! Tests that each command does what its help says, in a cluster of three.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, succeeded};
use crate::terminal::{Terminal, lines};

/// Exit codes, as `recado --help` lists them.
const WRONG_USAGE: i32 = 2;
const UNREACHABLE: i32 = 69;
const OUTCOME_UNKNOWN: i32 = 75;
const REFUSED: i32 = 77;

#[test]
fn two_people_follow_send_listen_and_look_back() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");

    assert!(terminal.ok(&[alice, "claim"]).contains("alice"));
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
fn a_private_channel_is_for_its_members_and_a_removed_one_gets_no_more() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (alice, bob, carol) = ("--as=alice", "--as=bob", "--as=carol");
    terminal.ok(&[bob, "claim"]);
    terminal.ok(&[carol, "claim"]);
    terminal.ok(&[alice, "channel", "create", "#war-room", "--private"]);
    terminal.ok(&[alice, "channel", "add", "#war-room", "@bob", "--role", "reader"]);
    assert!(terminal.ok(&[bob, "channel", "members", "#war-room"]).contains("reader"));
    terminal.ok(&[bob, "follow", "#war-room"]);
    terminal.ok(&[alice, "send", "--to", "#war-room", "for members"]);
    for refused in [
        vec![carol, "follow", "#war-room"],
        vec![carol, "history", "#war-room"],
        vec![carol, "channel", "members", "#war-room"],
        vec![bob, "send", "--to", "#war-room", "readers read"],
        vec![bob, "channel", "add", "#war-room", "@carol"],
    ] {
        assert_eq!(terminal.fails(&refused).0, REFUSED, "{refused:?}");
    }
    assert!(!terminal.ok(&[carol, "channels"]).contains("war-room"));
    let heard = terminal.json(&[bob, "listen", "--json", "--count", "1", "--timeout", "20s"]);
    assert_eq!(texts(&heard, "body"), ["for members"]);
    terminal.ok(&[alice, "channel", "remove", "#war-room", "@bob"]);
    terminal.ok(&[alice, "send", "--to", "#war-room", "without bob"]);
    terminal.ok(&[alice, "send", "--to", "@bob", "you are out"]);
    let heard = terminal.json(&[bob, "listen", "--json", "--count", "1", "--timeout", "20s"]);
    assert_eq!(texts(&heard, "body"), ["you are out"]);
    assert_eq!(terminal.fails(&[alice, "channel", "delete", "#war-room"]).0, WRONG_USAGE);
    terminal.ok(&[alice, "channel", "delete", "#war-room", "--yes"]);
    assert!(!terminal.ok(&[alice, "channels"]).contains("war-room"));
}

#[test]
fn a_second_machine_comes_in_by_a_code_and_is_revoked() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let (home, laptop) = (Terminal::new(&cluster), Terminal::new(&cluster));
    let alice = "--as=alice";
    home.ok(&[alice, "claim"]);
    let (code, message) = laptop.fails(&[alice, "whoami"]);
    assert_eq!(code, REFUSED, "the name is taken");
    assert!(message.contains("device add") && message.contains("device enrol CODE"), "{message}");
    let code = home.json(&[alice, "device", "add", "--json"])[0]["code"].as_str().unwrap().to_owned();
    assert_eq!(laptop.fails(&[alice, "device", "enrol", "00000-00000"]).0, REFUSED);
    let (refused, message) = laptop.fails(&["--as=alize", "device", "enrol", &code]);
    let (address, id) = (cluster.addresses()[0].to_string(), cluster.id.to_string());
    assert_eq!(refused, REFUSED, "{message}");
    assert!(message.contains("@alize") && message.contains(&address) && message.contains(&id), "{message}");
    laptop.ok(&[alice, "device", "enrol", &code.to_lowercase()]);
    laptop.ok(&[alice, "send", "from the laptop"]);
    let keys = home.json(&[alice, "device", "list", "--json"]);
    assert_eq!(keys.len(), 2);
    let key = |this| keys.iter().find(|key| key["this"] == this).unwrap()["key"].as_str().unwrap();
    assert_eq!(home.fails(&[alice, "device", "remove", key(true)]).0, WRONG_USAGE, "not without --yes");
    home.ok(&[alice, "device", "remove", &key(false)[..12]]);
    let (code, message) = laptop.fails(&[alice, "send", "not any more"]);
    assert_eq!(code, REFUSED);
    assert!(message.contains("If it was removed") && message.contains("device enrol CODE"), "{message}");
    assert_eq!(home.fails(&[alice, "device", "remove", key(true), "--yes"]).0, REFUSED, "the last one");
    // The message says so: nothing has to be deleted.
    let code = home.json(&[alice, "device", "add", "--json"])[0]["code"].as_str().unwrap().to_owned();
    laptop.ok(&[alice, "device", "enrol", &code]);
    laptop.ok(&[alice, "send", "in again"]);
}

#[test]
fn more_commands_at_once_than_devices_wait_for_one() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "claim"]);
    let many: Vec<_> = (0..24).map(|n| terminal.start(&["--as=alice", "send", &format!("q{n}")])).collect();
    for one in many {
        succeeded(&one.wait_with_output().unwrap());
    }
    assert_eq!(terminal.json(&["--as=alice", "history", "--feed", "--json", "--last", "50"]).len(), 24);
}

#[test]
fn a_request_that_cannot_be_saved_is_not_sent_and_the_error_names_the_file() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let alice = "--as=alice";
    terminal.ok(&[alice, "send", "one"]);
    let state = terminal.path(".local/state/recado").join(cluster.id.to_string()).join("alice");
    // A torn end makes the next turn write the file whole, and a directory in the place of the temporary file
    // makes that fail, as a full disk would.
    let outbox = state.join("slot-0/outbox");
    let torn = [std::fs::read(&outbox).unwrap(), b"torn".to_vec()].concat();
    std::fs::write(&outbox, torn).unwrap();
    let aside = outbox.with_extension("tmp");
    std::fs::create_dir(&aside).unwrap();
    for args in [&[alice, "send", "two"][..], &[alice, "follow", "#ops"]] {
        let (code, message) = terminal.fails(args);
        assert_eq!(code, 1, "{message}");
        assert!(message.contains("not sent") && message.contains("slot-0/outbox"), "{message}");
    }
    std::fs::remove_dir(&aside).unwrap();
    let past = terminal.json(&[alice, "history", "--feed", "--json"]);
    assert_eq!(texts(&past, "body"), ["one"]);
    assert!(!terminal.ok(&[alice, "following"]).contains("#ops"));
}

#[test]
fn requests_for_a_cluster_that_is_no_longer_known_are_reported() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let old = terminal.path(".local/state/recado/000000000000feed/alice");
    std::fs::create_dir_all(old.join("slot-0")).unwrap();
    std::fs::write(old.join("key"), "").unwrap();
    // Two requests to follow #ops.
    let outbox = "72656361646f4f42010000005100000000000000d2a00a7fd09fdf58250000004e0c2ec50000000000000000070000000001\
                  0000000102090000000101010001036f7073090000000102020001036f7073";
    let bytes = (0..outbox.len()).step_by(2).map(|at| u8::from_str_radix(&outbox[at..at + 2], 16).unwrap());
    std::fs::write(old.join("slot-0/outbox"), bytes.collect::<Vec<_>>()).unwrap();
    let told = |args: &[&str]| String::from_utf8(terminal.run(args).stderr).unwrap();
    assert!(!told(&["--as=alice", "claim"]).contains("feed"), "not with every command");
    let output = told(&["--as=alice", "send", "x"]);
    assert!(output.contains("2 requests never went to cluster 000000000000feed"), "{output}");
    assert!(output.contains("follow or unfollow of #ops, and 1 more"), "{output}");
    let cure = "recado --as alice device reset --cluster 000000000000feed";
    assert!(output.contains(cure), "{output}");
}

#[test]
fn a_cluster_is_found_again_when_the_server_that_was_named_is_dead() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "with all"]);
    cluster.kill(cluster.nodes()[0]);
    terminal.ok(&["--as=alice", "send", "without the one that is named"]);
    assert_eq!(terminal.json(&["status", "--json"]).len(), 3);
}

#[test]
fn a_key_moves_to_another_machine_as_a_file() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let (old, new) = (Terminal::new(&cluster), Terminal::new(&cluster));
    let alice = "--as=alice";
    old.ok(&[alice, "claim"]);
    let file = old.path("alice.key");
    let file = file.to_str().unwrap();
    old.ok(&[alice, "key", "export", file]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (code, message) = old.fails(&[alice, "key", "export", file]);
    assert!(code == 1 && message.contains("another name, or delete it"), "no file is overwritten: {message}");
    new.fails(&[alice, "claim"]);
    assert!(new.fails(&["key", "import", file]).1.contains("--force"), "it made a key of its own");
    let (code, message) = new.fails(&["--as=ned", "key", "import", file, "--force"]);
    assert!(
        code == WRONG_USAGE && message.contains("@alice") && message.contains("@ned"),
        "{code}: {message}"
    );
    let warned = |mode| {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let output = new.run(&["key", "import", file, "--force"]);
        succeeded(&output);
        String::from_utf8_lossy(&output.stderr).contains(&format!("chmod go= {file}"))
    };
    assert!(!warned(0o600) && warned(0o640));
    new.ok(&[alice, "send", "from the new machine"]);

    // Through a pipe, as with ssh.
    let (pipe, key) = (Terminal::new(&cluster), old.ok(&[alice, "key", "export", "-"]));
    assert_eq!(key, std::fs::read_to_string(file).unwrap());
    pipe.ok_given(&["key", "import", "-"], &key);
    pipe.ok(&[alice, "send", "from the machine behind the pipe"]);
    assert!(!pipe.path("-").exists());
    let (code, message) = pipe.fails(&["key", "import", "-"]);
    assert!(code == WRONG_USAGE && message.contains("standard input"), "{code}: {message}");
}

#[test]
fn a_look_back_never_moves_the_cursor() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "claim"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "one"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "two"]);
    let listen = |how: &[&str]| {
        let args = [&["--as=bob", "listen", "--json", "--timeout", "20s"], how].concat();
        texts(&terminal.json(&args), "body").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listen(&["--last", "1", "--count", "2"]), ["one", "two"], "unread ones come in their order");
    assert_eq!(listen(&["--since", "1h", "--count", "2"]), ["one", "two"]);
    assert_eq!(listen(&["--count", "1"]), ["one"]);
    assert_eq!(listen(&["--count", "1"]), ["two"]);
}

#[test]
fn a_notification_a_line_from_stdin_and_a_command_for_each_that_comes() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "claim"]);
    let output = terminal.ok_given(&["--as=alice", "send", "--to", "@bob", "-"], "first\nsecond\nthird\n");
    assert_eq!(output.lines().count(), 3, "an op for each: {output}");

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
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "claim"]);
    let listener = terminal.start(&["--as=bob", "listen", "--json", "--count", "2", "--timeout", "30s"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "before"]);
    let primary = cluster.wait_primary();
    cluster.kill(primary);
    // The configured server may be the dead one, so this terminal is given all of them.
    let terminal_of_three = Terminal::knowing(&listed(&cluster));
    terminal_of_three.ok(&["--as=carol", "send", "--to", "@bob", "after"]);
    let heard = lines(&succeeded(&listener.wait_with_output().unwrap()));
    assert_eq!(texts(&heard, "body"), ["before", "after"]);
}

#[test]
fn status_shows_every_server_with_its_place() {
    let _shared = beside_other_clusters();
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
        // The command fails while there is no primary, and shows the servers all the same.
        let shown = String::from_utf8(terminal.run(&["status", "--json"]).stdout).unwrap();
        lines(&shown).iter().filter(|server| server["alive"] == true).count()
    };
    assert!(cluster.poll(PATIENCE, || alive(&terminal) == 2));

    let survivor = cluster.nodes().into_iter().find(|node| *node != primary).unwrap();
    let others = cluster.nodes().into_iter().filter(|node| ![primary, survivor].contains(node));
    others.for_each(|node| cluster.kill(node));
    let terminal = Terminal::knowing(&cluster.member(survivor).client.to_string());
    let told = |args: &[&str]| String::from_utf8_lossy(&terminal.run(args).stderr).into_owned();
    assert!(cluster.poll(PATIENCE, || told(&["status"]).contains("only 1 of 3 servers answer")));
    assert_eq!(told(&["status", "--json"]), "", "programs see the roles");
    assert_eq!(terminal.fails(&["status"]).0, UNREACHABLE, "monitors see the exit code");
}

#[test]
fn a_refusal_names_the_topic_and_has_its_exit_code() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    for refused in [
        ["--as=alice", "follow", "@nobody"].as_slice(),
        &["--as=alice", "follow", "#nobody"],
        &["--as=alice", "send", "--to", "@nobody", "text"],
        &["--as=alice", "info", "@nobody"],
        &["--as=alice", "listen", "#nobody", "--timeout", "5s"],
    ] {
        let (code, message) = terminal.fails(refused);
        assert!(code == REFUSED && message.contains("nobody"), "{refused:?}: {code}, {message}");
    }
    for wrong in [["--as=alice", "send"].as_slice(), &["--as=Not A Name", "whoami"], &["whoami"]] {
        assert_eq!(terminal.fails(wrong).0, WRONG_USAGE, "{wrong:?}");
    }
}

#[test]
fn a_name_of_another_installation_is_refused_with_both_cures() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    Terminal::new(&cluster).ok(&["--as=alice", "claim"]);
    let elsewhere = Terminal::new(&cluster);
    let (code, message) = elsewhere.fails(&["--as=alice", "send", "in her name"]);
    assert_eq!(code, REFUSED, "{message}");
    let key =
        message.split_whitespace().find(|word| word.contains("/recado/")).unwrap().trim_end_matches('.');
    assert!(std::path::Path::new(key).starts_with(elsewhere.path(".local/state/recado")), "{message}");
    assert!(std::fs::exists(key).unwrap(), "{message}");
    assert!(
        message.contains("@alice") && message.contains("device enrol") && message.contains("take another"),
        "{message}"
    );
    assert!(!message.contains("session has ended"), "{message}");
}

#[test]
fn a_line_that_fails_is_named_at_once_ends_the_sending_and_earlier_ops_are_printed() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let sender = |to| {
        let mut command = terminal.command(&["--as=alice", "send", "--to", to, "-"]);
        command.stdin(std::process::Stdio::piped()).spawn().unwrap()
    };

    // Standard input is never closed, so the command has to end by itself.
    let mut refused = sender("@nobody");
    let mut stdin = refused.stdin.take().expect("piped");
    writeln!(stdin, "to nobody").unwrap();
    let output = refused.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REFUSED), "{told}");
    assert!(told.contains("line 1 of standard input") && told.contains("@nobody"), "{told}");
    assert!(output.stdout.is_empty());
    drop(stdin);

    let mut too_large = sender("#ops");
    let mut stdin = too_large.stdin.take().expect("piped");
    writeln!(stdin, "first\n\n{}\nlast", "x".repeat(20_000)).unwrap();
    drop(stdin);
    let output = too_large.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("line 3 of standard input"), "{told}");
    let ops = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(ops.lines().count(), 1, "{ops}");
    let past = terminal.json(&["--as=alice", "history", "#ops", "--json"]);
    assert_eq!((past.len(), past[0]["op"].as_u64()), (1, Some(number(&ops))));
}

#[test]
fn what_is_sent_is_done_even_if_its_op_cannot_be_printed() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str]| terminal.command(args).stdout(full()).output().unwrap();
    let sent = run(&["--as=alice", "send", "--to", "#ops", "once"]);
    let output = String::from_utf8_lossy(&sent.stderr).into_owned();
    assert_eq!(sent.status.code(), Some(0), "{output}");
    let past = terminal.json(&["--as=alice", "history", "#ops", "--json"]);
    assert_eq!(past.len(), 1);
    assert!(
        output.contains(&format!("done as op {}", past[0]["op"])) && output.contains("standard output"),
        "{output}"
    );
    let read = run(&["--as=alice", "history", "#ops"]);
    let output = String::from_utf8_lossy(&read.stderr).into_owned();
    assert!(read.status.code() == Some(1) && output.contains("cannot write to standard output"), "{output}");
}

#[test]
fn messages_name_a_channel_as_new_private_open_or_deleted() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let (alice, bob) = ("--as=alice", "--as=bob");
    let says = |args: &[&str]| String::from_utf8_lossy(&terminal.run(args).stderr).into_owned();
    assert!(says(&[alice, "send", "--to", "#open", "x"]).contains("created #open"));
    assert_eq!(says(&[alice, "send", "--to", "#open", "x"]), "", "it is there");
    assert!(says(&[alice, "channel", "delete", "#open"]).contains("--yes"), "who made it may delete it");
    terminal.ok(&[bob, "claim"]);
    let told = says(&[bob, "channel", "delete", "#open", "--yes"]);
    assert!(told.contains("#open") && !told.contains("--yes"), "{told}");

    terminal.ok(&[alice, "channel", "create", "#team"]);
    assert!(says(&[alice, "channel", "add", "#team", "@zed"]).contains("no profile @zed"));
    let told = says(&[bob, "send", "--to", "#team", "x"]);
    assert!(told.contains("a writer of #team") && told.contains("@alice"), "{told}");
    terminal.ok(&[alice, "channel", "create", "#secret", "--private"]);
    let told = says(&[bob, "follow", "#secret"]);
    assert!(told.contains("private") && !told.contains("channel members"), "{told}");

    terminal.ok(&[alice, "channel", "delete", "#team", "--yes"]);
    for args in [
        [alice, "send", "--to", "#team", "x"].as_slice(),
        &[alice, "channel", "create", "#team"],
        &[bob, "follow", "#team"],
    ] {
        let (code, told) = terminal.fails(args);
        assert!(code == REFUSED && told.contains("#team was deleted"), "{args:?}: {told}");
    }
}

#[test]
fn a_command_run_for_a_notification_acts_as_the_listening_profile() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "claim"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "x"]);
    let exec = "echo $RECADO_AS at $RECADO_SERVERS";
    let listen = ["--as=bob", "listen", "--count", "1", "--timeout", "20s", "--exec", exec];
    let output = succeeded(&terminal.command(&listen).env("RECADO_AS", "alice").output().unwrap());
    assert_eq!(output.trim(), format!("bob at {}", cluster.addresses()[0]));
}

#[test]
fn json_and_exec_distinguish_feed_channel_and_inbox() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "--to", "#ops", "made"]);
    for topic in ["@alice", "#ops"] {
        terminal.ok(&["--as=bob", "follow", topic]);
    }
    terminal.ok(&["--as=alice", "send", "a feed"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "an inbox"]);
    terminal.ok(&["--as=alice", "send", "--to", "#ops", "a channel"]);
    let kinds = ["feed", "inbox", "channel"];
    let past = terminal.json(&["--as=bob", "listen", "--json", "--last", "3", "--count", "3"]);
    assert_eq!(texts(&past, "topic_kind"), kinds);
    let exec = "echo $RECADO_TOPIC_KIND";
    let output = terminal.ok(&["--as=bob", "listen", "--count", "3", "--timeout", "20s", "--exec", exec]);
    assert_eq!(output.lines().collect::<Vec<_>>(), kinds);
}

#[test]
fn a_command_without_servers_does_nothing_and_exits_as_unreachable() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=dora", "claim"]);
    let primary = cluster.wait_primary();
    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != primary).collect();
    others.into_iter().for_each(|node| cluster.kill(node));
    let alone = Terminal::knowing(&cluster.member(primary).client.to_string());
    let (code, message) = alone.fails(&["--as=dora", "send", "--timeout", "2s", "text"]);
    assert_eq!(code, UNREACHABLE, "{message}");
    cluster.kill_all();
    let (code, message) = alone.fails(&["--as=dora", "whoami", "--timeout", "1s"]);
    assert!(
        code == UNREACHABLE && message.contains(&cluster.member(primary).client.to_string()),
        "{code}: {message}"
    );
}

#[test]
fn a_send_whose_majority_died_under_it_ends_with_an_unknown_outcome_and_is_settled_later() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::knowing(&listed(&cluster));
    terminal.ok(&["--as=dora", "claim"]);
    terminal.ok(&["--as=eve", "claim"]);
    let mut sender = terminal
        .command(&["--as=dora", "send", "--timeout", "2s", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = sender.stdin.take().expect("piped");
    writeln!(stdin, "first").unwrap();
    let history = || {
        let past = terminal.json(&["--as=eve", "history", "@dora", "--json"]);
        texts(&past, "body").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(cluster.poll(PATIENCE, || history() == ["first"]), "the first line arrives");

    let primary = cluster.wait_primary();
    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != primary).collect();
    others.iter().for_each(|node| cluster.kill(*node));
    writeln!(stdin, "second\nthird").unwrap();
    drop(stdin);
    let output = sender.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("lines 2 to 3") && told.matches("outcome unknown").count() == 1, "{told}");
    assert_eq!(output.status.code(), Some(OUTCOME_UNKNOWN), "{told}");

    others.iter().for_each(|node| cluster.start(*node));
    cluster.wait_ready();
    let settled = terminal.run(&["--as=dora", "send", "fourth"]);
    let told = String::from_utf8_lossy(&settled.stderr);
    assert!(settled.status.success() && told.matches("is acknowledged now").count() == 2, "{told}");
    let all = ["first", "second", "third", "fourth"];
    assert!(cluster.poll(PATIENCE, || history() == all), "{:?} {told}", history());
}

/// The first number of a line such as "op 17" or "17".
fn number(text: &str) -> u64 {
    let digits: String =
        text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn texts<'a>(values: &'a [Value], key: &str) -> Vec<&'a str> {
    values.iter().map(|value| value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))).collect()
}

/// Addresses of all servers, as in RECADO_SERVERS.
fn listed(cluster: &Cluster) -> String {
    cluster.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
