//! Tests of one-shot commands: texts from standard input, channels that are not there, several topics, the
//! search of the past, completion, and what a person at a terminal is told.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, succeeded};
use crate::terminal::Terminal;
use crate::tmux::Tmux;

const REFUSED: i32 = 77;
const UNKNOWN: i32 = 75;

fn bodies(values: &[Value]) -> Vec<&str> {
    values.iter().map(|value| value["body"].as_str().unwrap()).collect()
}

#[test]
fn standard_input_is_one_text_without_a_text_and_with_whole() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let alice = "--as=alice";
    let op = terminal.ok_given(&[alice, "send", "-t", "#ops", "-p", "5"], "two\n  lines\n\n");
    assert!(op.trim().parse::<u64>().is_ok(), "a program reads the op alone: {op}");
    terminal.ok_given(&[alice, "send", "-t", "#ops", "--whole", "-"], "all\nof it\n");
    terminal.ok(&[alice, "send", "-t", "#ops", "-m", "-5 degrees"]);
    let past = terminal.json(&[alice, "history", "#ops", "--json"]);
    assert_eq!(bodies(&past), ["two\n  lines", "all\nof it", "-5 degrees"]);
    assert_eq!(past[0]["priority"], 5);
    let (code, message) = terminal.fails(&[alice, "send", "-t", "#ops"]);
    assert!(code == 2 && message.contains("nothing to send"), "{message}");
}

#[test]
fn a_text_that_comes_later_than_the_time_out_is_sent() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "claim"]);
    let mut slow = terminal.command(&["--as=alice", "send", "-t", "#ops", "--timeout", "3s"]);
    let mut slow = slow.stdin(Stdio::piped()).spawn().unwrap();
    let has_ended = |slow: &mut Child| slow.try_wait().unwrap().is_some();
    assert!(!cluster.poll(Duration::from_secs(4), || has_ended(&mut slow)), "it reads on");
    slow.stdin.take().expect("piped").write_all(b"built after a while\n").unwrap();
    succeeded(&slow.wait_with_output().unwrap());
    assert_eq!(bodies(&terminal.json(&["--as=alice", "history", "#ops", "--json"])), ["built after a while"]);
}

#[test]
fn a_channel_is_not_created_where_that_is_forbidden() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let alice = "--as=alice";
    let config = terminal.path("config.toml");
    std::fs::write(&config, "create = false\n").unwrap();
    let config = format!("--config={}", config.display());
    for forbidden in [&["send", "--no-create", "-t", "#osp", "x"][..], &[&config, "send", "-t", "#osp", "x"]]
    {
        let (code, message) = terminal.fails(&[&[alice], forbidden].concat());
        assert!(code == REFUSED && message.contains("no channel #osp"), "{message}");
    }
    let mut lines = terminal.command(&[alice, "send", "--no-create", "-t", "#osp", "-"]);
    let mut lines = lines.stdin(Stdio::piped()).spawn().unwrap();
    // The command may have ended before it reads.
    let _ = lines.stdin.take().expect("piped").write_all(b"one\n");
    assert_eq!(lines.wait().unwrap().code(), Some(REFUSED));
    assert_eq!(terminal.ok(&[alice, "channels"]), "");
    terminal.ok(&[alice, &config, "send", "--create", "-t", "#ops", "x"]);
    terminal.ok(&[alice, &config, "send", "-t", "#ops", "it is there"]);
    assert!(terminal.ok(&[alice, "channel"]).contains("#ops"));
}

#[test]
fn several_topics_are_followed_though_one_of_them_is_refused() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "-t", "#ops", "x"]);
    let bob = "--as=bob";
    assert_eq!(terminal.ok(&[bob, "follow", "@alice", "#ops"]).lines().count(), 2);
    terminal.ok(&["--as=alice", "send", "-t", "#more", "x"]);
    let (code, message) = terminal.fails(&[bob, "follow", "@nobody", "#more", "#nowhere"]);
    assert!(code == REFUSED && message.contains("@nobody") && message.contains("#nowhere"), "{message}");
    let following = terminal.ok(&[bob, "following"]);
    assert!(["@alice", "#ops", "#more"].iter().all(|topic| following.contains(topic)), "{following}");
    terminal.ok(&[bob, "unfollow", "@alice", "#ops", "#more"]);
    assert_eq!(terminal.ok(&[bob, "following"]).matches('#').count(), 0);
}

#[test]
fn the_past_is_searched_by_range_text_author_tag_and_priority() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let send = |who: &str, args: &[&str]| {
        terminal.ok(&[&[who, "send", "-t", "#ops"], args].concat()).trim().to_owned()
    };
    let first = send("--as=alice", &["disk full", "--tag", "db", "-p", "4"]);
    let second = send("--as=bob", &["Disk replaced"]);
    let third = send("--as=alice", &["all is well", "--title", "About the DISK", "-p", "1"]);
    let found = |args: &[&str]| {
        let past = terminal.json(&[&["--as=bob", "history", "#ops", "--json"], args].concat());
        past.iter().map(|one| one["op"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["--text", "disk"]), [&*first, &second, &third]);
    assert_eq!(found(&["--text", "disk", "--author", "alice"]), [&*first, &third]);
    assert_eq!(found(&["--text", "disk", "-n", "1"]), [&*third]);
    assert_eq!(found(&["--tag", "db"]), [&*first]);
    assert_eq!(found(&["-p", "3"]), [&*first, &second]);
    assert_eq!(found(&["--since", &first, "--before", &third]), [&*second]);
    assert_eq!(found(&["--before", &third, "-n", "1"]), [&*second]);
    assert_eq!(found(&["--since", "1h", "--before", "now"]).len(), 3);
    assert_eq!(found(&["--since", "yesterday", "-n", "1"]), [&*first], "the oldest");
    assert!(found(&["--before", "yesterday"]).is_empty() && found(&["--since", "2100-01-01"]).is_empty());
}

#[test]
fn ones_own_name_is_the_inbox_for_every_command_that_reads() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "to my followers"]);
    terminal.ok(&["--as=bob", "send", "-t", "@alice", "to alice"]);
    let read = |args: &[&str]| {
        let past = terminal.json(&[&["--as=alice", "--json"], args].concat());
        bodies(&past).join(", ")
    };
    assert_eq!(read(&["history", "@alice"]), "to alice");
    assert_eq!(read(&["history", "--inbox"]), "to alice");
    assert_eq!(read(&["history", "--feed"]), "to my followers");
    assert_eq!(read(&["listen", "@alice", "--count", "1", "--timeout", "20s"]), "to alice");
}

#[test]
fn a_topic_that_is_not_there_is_not_recommended_to_a_listener() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "-t", "#ops", "x"]);
    let bob = "--as=bob";
    terminal.ok(&[bob, "claim"]);
    for (topic, told) in [("#nope", "there is no channel #nope"), ("@nobody", "there is no profile @nobody")]
    {
        let (code, message) = terminal.fails(&[bob, "listen", topic]);
        assert!(code == REFUSED && message.contains(told), "{message}");
        assert!(!message.contains("recado follow"), "{message}");
    }
    let (code, message) = terminal.fails(&[bob, "listen", "#ops"]);
    assert!(code == REFUSED && message.contains("run: recado follow '#ops'"), "{message}");
}

#[test]
fn info_shows_oneself_a_profile_or_a_channel() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let alice = "--as=alice";
    terminal.ok(&[alice, "channel", "create", "ops"]);
    terminal.ok(&["--as=bob", "follow", "#ops", "@alice"]);
    let own = &terminal.json(&[alice, "info", "--json"])[0];
    assert!(own["followers"] == 1 && own["device"].is_string() && own["files"].is_string(), "{own}");
    assert_eq!(terminal.json(&[alice, "whoami", "--json"])[0]["profile"], "alice");
    assert_eq!(terminal.json(&[alice, "info", "bob", "--json"])[0]["following"], 2);
    let channel = &terminal.json(&["--as=bob", "info", "#ops", "--json"])[0];
    assert_eq!((&channel["access"], &channel["followers"]), (&"owned".into(), &1.into()), "{channel}");
    assert_eq!(channel["members"][0]["role"], "owner", "{channel}");
    let (code, message) = terminal.fails(&[alice, "info", "#nope"]);
    assert!(code == REFUSED && message.contains("no channel #nope"), "{message}");
    let machine = &terminal.json(&[alice, "devices", "--json"])[0];
    assert_eq!(machine["this"], true);
    assert!(machine["devices"].as_array().is_some_and(|devices| !devices.is_empty()), "{machine}");
}

#[test]
fn a_shell_is_given_names_of_topics_servers_profiles_and_accounts() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "-t", "#ops", "x"]);
    terminal.ok(&["--as=alice", "send", "-t", "#deploys", "x"]);
    terminal.ok(&["--as=bob", "follow", "#ops"]);
    let config = terminal.path("config.toml");
    std::fs::write(&config, "[accounts.work]\nprofile = \"bob\"\n").unwrap();
    let tab = |words: &[&str]| {
        let output = completes(&terminal, words).env("RECADO_CONFIG", &config).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        succeeded(&output)
    };
    // The servers may be late: then the person presses Tab again.
    let offers = |words: &[&str], expected: &str| {
        let mut offered = String::new();
        let met = cluster.poll(PATIENCE, || {
            offered = tab(words);
            offered == expected
        });
        assert!(met, "{words:?}: {offered}");
    };
    offers(&["--as", "bob", "follow", "#"], "'#deploys'\n'#ops'");
    offers(&["--as=bob", "send", "-t", "@a"], "@alice");
    offers(&["--account", "work", "unfollow", "#"], "'#ops'");
    // A name that does not resolve is as if it were not there.
    let with_lost = format!("--server=nowhere.invalid,{}", cluster.addresses()[0]);
    offers(&[&with_lost, "--as=bob", "send", "-t", "@a"], "@alice");
    // Bash gives the word without the quote before it, and closes the quote by itself.
    let quoted = |word: &str| {
        let mut command = completes(&terminal, &["--as", "bob", "follow", "#o"]);
        succeeded(&command.env("RECADO_COMPLETE_WORD", word).output().unwrap())
    };
    for (word, offered) in [("\"#o", "#ops"), ("'#o", "#ops"), ("#o", "'#ops'")] {
        assert!(cluster.poll(PATIENCE, || quoted(word) == offered), "{word}: {}", quoted(word));
    }
    assert_eq!(tab(&["--account", "w"]), "work");
    assert_eq!(tab(&["--as", ""]).lines().collect::<Vec<_>>(), ["alice", "bob"]);
    let servers = tab(&["--server", "127"]);
    assert!(cluster.addresses().iter().all(|addr| servers.contains(&addr.to_string())), "{servers}");
    assert!(!servers.lines().any(|server| server == "127"), "{servers}");
    assert!(tab(&["chan"]).contains("channel"));
    // Without a server there is nothing to offer, and nothing to say.
    let alone = completes(&Terminal::knowing("127.0.0.1:9"), &["--as=bob", "follow", "#"]).output().unwrap();
    assert!(alone.status.success() && alone.stdout.is_empty() && alone.stderr.is_empty(), "{alone:?}");
}

/// What the script for bash runs when Tab is pressed after these words.
fn completes(terminal: &Terminal, words: &[&str]) -> Command {
    let mut command = terminal.command(&[&["--", "recado"], words].concat());
    command.env("RECADO_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("_CLAP_IFS", "\n");
    command
}

#[test]
fn a_completion_does_not_settle_what_a_command_left() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=bob", "claim"]);
    let mut lines = terminal.command(&["--as=alice", "send", "--create", "-t", "#ops", "--timeout=2s", "-"]);
    let mut lines = lines.stdin(Stdio::piped()).spawn().unwrap();
    lines.stdin.as_mut().expect("piped").write_all(b"one\n").unwrap();
    let sent = || terminal.run(&["--as=bob", "history", "#ops"]).stdout;
    assert!(cluster.poll(PATIENCE, || !sent().is_empty()));
    cluster.kill_all();
    lines.stdin.take().expect("piped").write_all(b"two\n").unwrap();
    assert_eq!(lines.wait().unwrap().code(), Some(UNKNOWN));
    cluster.start_all();
    let offered = || succeeded(&completes(&terminal, &["--as=alice", "send", "-t", "@"]).output().unwrap());
    assert!(cluster.poll(PATIENCE, || offered().contains("@bob")), "{}", offered());
    let told = String::from_utf8_lossy(&terminal.run(&["--as=alice", "claim"]).stderr).into_owned();
    assert!(told.contains("an earlier send to #ops is acknowledged now"), "{told}");
}

#[test]
fn a_signal_while_nothing_answers_ends_the_command_with_a_message() {
    let _shared = beside_other_clusters();
    // It is never started, and only waits.
    let cluster = Cluster::init(1);
    let terminal = Terminal::knowing("127.0.0.1:9");
    for args in [&["--as=alice", "send", "x"][..], &["--as=alice", "history"], &["--as=alice", "listen"]] {
        let child = terminal.start(args);
        assert!(cluster.poll(PATIENCE, || catches_interrupts(child.id())), "{args:?}");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(2), "{args:?}: {told}");
        assert!(told.contains("interrupted") && told.contains("127.0.0.1:9"), "{args:?}: {told}");
    }
}

/// Returns true if the process has a handler for SIGINT, signal 2.
fn catches_interrupts(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|caught| caught & 0b10 != 0)
}

#[test]
fn a_person_is_told_what_is_waited_for_and_asked_before_a_channel_is_created() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(1);
    let server = cluster.addresses()[0].to_string();
    let window = tmux.window(&cluster, "person", &server);
    window.enter("recado --as alice history --server 127.0.0.1:9");
    window.wait_for("no answer yet of 127.0.0.1:9");
    window.press("C-c");
    window.wait_for("no answer of 127.0.0.1:9; nothing was asked");

    window.enter("clear; recado --as alice send -t '#osp' hello");
    window.wait_for("Create #osp? [y/N]");
    window.enter("n");
    window.wait_for("nothing was sent, and #osp was not created");
    window.enter("clear; recado --as alice channels");
    window.wait_for("there is no channel yet");
    window.enter("clear; recado --as alice send -t '#ops' -p 5 hello");
    window.wait_for("Create #ops? [y/N]");
    window.enter("y");
    window.wait_for("sent to #ops: op ");
    window.enter("clear; recado --as alice send -t '#osp' --whole");
    window.wait_for("Create #osp? [y/N]");
    window.enter("n");
    window.wait_for("#osp was not created");
    window.enter("clear; recado --as alice send -t '#oops' hello");
    window.wait_for("Create #oops? [y/N]");
    window.press("C-c");
    window.wait_for("nothing was sent");
    window.enter("echo ENDED $?");
    window.wait_for("ENDED 130");
    window.enter("clear; recado --as alice send --whole");
    window.wait_for("type the text");
    window.press("C-c");
    window.wait_for("nothing was sent");
    window.enter("clear; recado --as alice send --title alone");
    window.wait_for("sent to your followers: op ");
    // The time at a prompt is the person's, and not the command's.
    window.enter("clear; recado --as alice send --timeout 5s -t '#late' hello");
    window.wait_for("Create #late? [y/N]");
    assert!(!cluster.poll(Duration::from_secs(6), || window.screen().contains("recado:")), "it waits");
    window.enter("y");
    window.wait_for("sent to #late: op ");
    window.enter("clear; recado --as alice history '#ops' --before 1; recado --as alice history '@alice'");
    window.wait_for("no notifications in #ops in this range");
    window.wait_for("@alice is you, so this is your inbox");
    window.enter("clear; recado --as alice history '#ops'");
    window.wait_for("hello  (priority 5)");
    let coloured = window.coloured_screen();
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31m"), "{coloured:?}");

    window.enter("clear; recado status --watch=200ms");
    window.wait_for("every 0.2 s");
    window.wait_for("primary");
    window.press("C-c");
    window.enter("echo ENDED $?");
    window.wait_for("ENDED 130");

    window.enter("clear; recado status --watch=200ms --server 127.0.0.1:9");
    window.wait_until("a state", |screen| screen.contains("ADDRESS") && !screen.contains("ENDED"));
    let is_blank = || !window.screen().contains("ADDRESS");
    assert!(!cluster.poll(Duration::from_secs(3), is_blank), "the last state stays until the next one");
}

#[test]
fn a_signal_ends_the_loop_of_a_shell_too() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(1);
    let window = tmux.window(&cluster, "loop", &cluster.addresses()[0].to_string());
    window.enter("recado --as alice claim");
    window.wait_for("@alice is yours");
    for (command, ready) in [
        ("listen", "you follow nothing yet"),
        ("status --watch=10s", "every 10 s"),
        ("send -t \"#q\" x", "Create #q? [y/N]"),
        ("send -", "type a notification a line"),
    ] {
        window.enter(&format!(
            "clear; bash -c 'while :; do recado --as alice {command}; printf \"%s\\n\" AG\"\"AIN; done'"
        ));
        window.wait_for(ready);
        window.press("C-c");
        window.wait_until("the shell", |screen| screen.trim_end().ends_with("READY>"));
        // Typed by itself: the shell drops the rest of a line whose first command died of the signal.
        window.enter("echo \"ENDED $?\"");
        window.wait_for("ENDED 130");
        assert!(!window.screen().contains("AGAIN"), "{command}: {}", window.screen());
    }
}

#[test]
fn standard_input_that_is_wrong_is_usage_as_a_text_and_as_lines_and_a_lossy_one_is_sent() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "claim"]);
    let given = |args: &[&str], bytes: &[u8]| {
        let mut child = terminal.command(&[&["--as=alice", "send"], args].concat());
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        // The command may have ended before it has read all.
        let _ = child.stdin.take().expect("piped").write_all(bytes);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (long, latin) = ([b'x'; 20_000], b"caf\xe9\nnext\n");
    for args in [&[][..], &["-"]] {
        assert_eq!(given(args, &long).0, Some(2), "{args:?}");
        let (code, told) = given(args, latin);
        assert!(code == Some(2) && told.contains("--lossy"), "{args:?}: {told}");
    }
    assert_eq!(given(&["--lossy"], latin).0, Some(0));
    assert_eq!(given(&["-", "--lossy"], latin).0, Some(0));
    let past = terminal.json(&["--as=alice", "history", "--feed", "--json"]);
    assert_eq!(bodies(&past), ["caf\u{fffd}\nnext", "caf\u{fffd}", "next"]);
}

#[test]
fn a_text_that_may_be_meant_for_one_goes_to_nobody() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "claim"]);
    let (code, message) = terminal.fails(&["--as=alice", "send", "@carol", "secret"]);
    assert!(code == 2 && message.contains("did you mean: recado send -t '@carol' secret"), "{message}");
    let op = terminal.ok(&["--as=alice", "send", "--", "@carol", "is great"]);
    assert!(op.trim().parse::<u64>().is_ok(), "a program reads the op alone: {op}");
    let past = terminal.json(&["--as=alice", "history", "--feed", "--json"]);
    assert_eq!(bodies(&past), ["@carol is great"]);
}

#[test]
fn a_range_that_holds_nothing_for_certain_is_explained_also_to_a_program() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "claim"]);
    for (range, told) in [
        (&["--since", "1790000000"][..], "there is no op 1790000000 yet"),
        (&["--since", "2100-01-01"], "--since is in the future"),
        (&["--since", "5", "--before", "3"], "nothing lies between"),
    ] {
        let output = terminal.run(&[&["--as=alice", "history", "--json"], range].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && message.contains(told), "{range:?}: {message}");
    }
}
