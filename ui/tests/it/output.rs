//! Tests of what a command does when its output has no reader, or a signal ends it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters};
use crate::terminal::Terminal;

#[test]
fn a_listener_without_a_reader_ends_and_counts_nothing_as_read() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let terminal = Terminal::new(&cluster);
    let bob = "--as=bob";
    terminal.ok(&[bob, "claim"]);
    terminal.ok(&["--as=alice", "send", "--to", "@bob", "one"]);

    let listen = terminal.command(&[bob, "listen", "--timeout", "20s"]);
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(listen.get_program()).args(listen.get_args());
    closed.env_clear().envs(listen.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = closed.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && message.contains("closed"), "{message}");
    assert_eq!(terminal.fails(&[bob, "listen", "--exec", " "]).0, 2);

    // Lists are lost, too. What has been done is done, and a null device is no closed output.
    let closed = |args: &[&str]| {
        let command = terminal.command(args);
        let mut closed = Command::new("sh");
        closed.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(command.get_program()).args(args);
        closed.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = closed.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for list in [&[bob, "history", "--inbox"][..], &[bob, "people"], &[bob, "devices"]] {
        let (code, message) = closed(list);
        assert!(code == Some(1) && message.contains("standard output"), "{list:?}: {code:?}, {message}");
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert!(terminal.command(list).stdout(null).status().unwrap().success(), "{list:?}");
    }
    assert_eq!(closed(&[bob, "follow", "@alice"]).0, Some(0));

    // As `listen | head -1`.
    let mut listener = terminal.start(&[bob, "listen"]);
    let mut head = BufReader::new(listener.stdout.take().expect("piped"));
    let mut line = String::new();
    head.read_line(&mut line).unwrap();
    assert!(line.contains("one"), "nothing was read before: {line}");
    drop(head);
    let mut exit = None;
    let ended = cluster.poll(PATIENCE, || {
        exit = listener.try_wait().unwrap();
        exit.is_some()
    });
    if !ended {
        listener.kill().unwrap();
    }
    assert!(exit.is_some_and(|exit| exit.success()), "it waits for the next notification");
}

#[test]
fn a_help_that_cannot_be_printed_is_a_failure() {
    let terminal = Terminal::knowing("127.0.0.1:9");
    for args in [&["--help"][..], &["--version"], &["send", "--help"], &["man"], &["completions", "bash"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = terminal.command(args).stdout(full).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && message.contains("standard output"),
            "{args:?}: {message}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = terminal.command(args).stdout(writer).output().unwrap();
        assert!(output.status.success(), "{args:?}: as of `| head -1`");
        terminal.ok(args);
    }
    for args in [&["--help"][..], &["--version"], &["init", "--help"], &["man"], &["completions", "bash"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(crate::recadod()).args(args).stdout(full).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && message.contains("standard output"),
            "{args:?}: {message}"
        );
    }
    let wrong = Command::new(crate::recadod()).arg("serf").output().unwrap();
    assert!(wrong.status.code() == Some(2) && wrong.stdout.is_empty() && !wrong.stderr.is_empty());
}

#[test]
fn a_sender_that_is_interrupted_accounts_for_its_lines() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let servers: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let terminal = Terminal::knowing(&servers.join(","));
    terminal.ok(&["--as=dora", "claim"]);
    let mut sender = terminal.command(&["--as=dora", "send", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (sender.stdin.take().expect("piped"), sender.stdout.take().expect("piped"));
    let mut ops = BufReader::new(stdout);
    writeln!(stdin, "first").unwrap();
    let mut op = String::new();
    ops.read_line(&mut op).unwrap();
    assert!(op.trim().parse::<u64>().is_ok(), "{op}");

    let primary = cluster.wait_primary();
    cluster.nodes().into_iter().filter(|node| *node != primary).for_each(|node| cluster.kill(node));
    // More lines than may be under way, so the command waits for the first of them when the signal comes.
    for n in 2..=300 {
        writeln!(stdin, "line {n}").unwrap();
    }
    // A second command shows that the first one has kept its lines: the outbox has the last that it took.
    let outbox = terminal.path(".local/state/recado").join(cluster.id.to_string()).join("dora/slot-0/outbox");
    let last = b"line 257";
    let kept =
        || std::fs::read(&outbox).is_ok_and(|bytes| bytes.windows(last.len()).any(|part| part == last));
    assert!(cluster.poll(PATIENCE, kept), "256 lines are under way");
    kill_process(Pid::from_child(&sender), Signal::INT).unwrap();
    let output = sender.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), Some(2), "{told}");
    assert!(told.contains("sent: line 1;") && told.contains("unknown: lines 2 to 257,"), "{told}");
    assert!(told.contains("not sent: what comes after line 257"), "{told}");
}
