//! Tests of `recado doctor`: each fault is made, and the doctor names it.

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, Port, lock_out_other_clusters, primary_of};
use crate::terminal::Terminal;

/// Runs the doctor, and returns its exit code and its findings.
fn doctor(terminal: &Terminal) -> (Option<i32>, Vec<Value>) {
    let output = terminal.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().clone();
    assert_eq!(report["ok"], output.status.success(), "{report:#}");
    (output.status.code(), findings)
}

/// The finding of a check about a subject that contains `subject`.
fn finding<'a>(findings: &'a [Value], check: &str, subject: &str) -> &'a Value {
    findings
        .iter()
        .find(|one| one["check"] == check && one["subject"].as_str().unwrap().contains(subject))
        .unwrap_or_else(|| panic!("no {check} of {subject}: {findings:#?}"))
}

/// Repeats the doctor until it finds nothing: a busy machine may lose a datagram.
fn well(cluster: &Cluster, terminal: &Terminal) -> Vec<Value> {
    let mut last = Vec::new();
    let is_well = cluster.poll(PATIENCE, || {
        let (code, findings) = doctor(terminal);
        last = findings;
        code == Some(0)
    });
    assert!(is_well, "{last:#?}");
    last
}

#[test]
fn a_doctor_with_nothing_to_find_ends_with_0_measures_every_server_and_writes_nothing() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let findings = well(&cluster, &terminal);
    for address in cluster.addresses() {
        let address = address.to_string();
        for check in ["udp", "path", "version", "log", "clock"] {
            assert_ne!(finding(&findings, check, &address)["severity"], "fault");
        }
        assert_eq!(finding(&findings, "path", &address)["values"]["carried_bytes"], 8952);
        let ahead = finding(&findings, "clock", &address)["values"]["ahead_ms"].as_i64().unwrap();
        assert!(ahead.abs() < 1_000, "one machine has one clock: {ahead} ms");
        let release = &finding(&findings, "version", &address)["values"]["release"];
        assert_eq!(release, env!("CARGO_PKG_VERSION"));
    }
    assert!(finding(&findings, "view", "all")["seen"].as_str().unwrap().contains("is primary"));
    // The cluster is not trusted by it.
    assert_eq!(finding(&findings, "cluster", "")["severity"], "note");
    assert!(!terminal.path(".local").exists());

    // The probes of the path are no datagrams of another version.
    let (_, findings) = doctor(&terminal);
    assert!(findings.iter().all(|one| one["check"] != "refused"), "{findings:#?}");
    let text = String::from_utf8(terminal.run(&["doctor"]).stdout).unwrap();
    assert!(text.contains("checks: ") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_doctor_tells_the_dead_server_the_bad_name_and_the_configuration_that_differs() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::init(3);
    cluster.disable_preemption();
    let [first, second, third] = cluster.nodes()[..] else { panic!("three") };
    cluster.edit(second, |text| text.replace("new_names = \"open\"", "new_names = \"keys\""));
    cluster.start_all();
    cluster.wait_ready();
    let address = cluster.addresses()[0].to_string();
    let terminal = Terminal::knowing(&format!("nowhere.invalid,{address}"));
    let (code, findings) = doctor(&terminal);
    assert_eq!(code, Some(1), "{findings:#?}");
    let name = finding(&findings, "name", "nowhere.invalid");
    assert_eq!(name["severity"], "warning");
    assert_eq!(finding(&findings, "name", &address)["values"]["addresses"][0], address);
    let members = finding(&findings, "members", "all");
    assert_eq!(members["severity"], "warning", "{members}");
    assert!(members["cause"].as_str().unwrap().contains("new_names"), "{members}");

    // The backup that is killed is the one beside the servers that follow the primary.
    let primary = cluster.wait_ready();
    let dead = [third, first].into_iter().find(|node| *node != primary).unwrap();
    let gone = cluster.member(dead).client.to_string();
    cluster.kill(dead);
    let (code, findings) = doctor(&terminal);
    let silent = finding(&findings, "udp", &gone);
    assert_eq!((code, &silent["severity"]), (Some(1), &"fault".into()));
    assert!(silent["cause"].as_str().unwrap().contains("does not run"), "{silent}");

    // Without any server there is still a report.
    cluster.kill_all();
    let (code, findings) = doctor(&terminal);
    assert_eq!(code, Some(1));
    assert_eq!(finding(&findings, "udp", &address)["severity"], "fault");
}

#[test]
fn a_primary_that_the_others_hear_and_this_machine_does_not_is_no_dead_one() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::init(3);
    let third = cluster.nodes()[2];
    // What goes to this port is dropped, as by a firewall.
    let firewall = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dropped = firewall.local_addr().unwrap();
    let real: Vec<_> = cluster.nodes().iter().map(|node| (*node, cluster.member(*node))).collect();
    cluster.redirect(|_, port| match port {
        Port::Client(node) if node == third => dropped,
        Port::Client(of) => real.iter().find(|(node, _)| *node == of).unwrap().1.client,
        Port::Peer(of) => real.iter().find(|(node, _)| *node == of).unwrap().1.peer,
    });
    cluster.start_all();
    cluster.wait_until("server 3 leads", PATIENCE, |statuses| {
        primary_of(statuses).is_some_and(|status| status.node == third)
            && statuses.iter().all(Option::is_some)
    });
    cluster.wait_ready();
    let terminal = Terminal::knowing(&cluster.addresses()[0].to_string());
    let (code, findings) = doctor(&terminal);
    let silent = finding(&findings, "udp", &dropped.to_string());
    assert_eq!((code, &silent["severity"]), (Some(1), &"fault".into()));
    assert!(silent["cause"].as_str().unwrap().contains("so it runs"), "{silent}");
    assert_eq!(finding(&findings, "view", "all")["severity"], "fault");
}

#[test]
fn no_request_fails_during_an_upgrade_that_goes_on_when_the_doctor_finds_nothing() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    terminal.ok(&["--as=alice", "send", "before"]);
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(1));
    let mut pipe = terminal.command(&["--as=carol", "send", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut lines, ops) = (pipe.stdin.take().unwrap(), BufReader::new(pipe.stdout.take().unwrap()));
    let told = std::thread::scope(|scope| {
        // New commands, each of which looks for the primary, and one that goes on through all restarts.
        let commands = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                terminal.ok(&["--as=alice", "send", "during"]);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ticks = crossbeam::channel::tick(Duration::from_millis(20));
        let (over, sent) = (&over, &sent);
        let piped = scope.spawn(move || {
            let mut count = 0_usize;
            while !over.load(Ordering::Relaxed) {
                ticks.recv().unwrap();
                lines.write_all(b"during\n").unwrap();
                count += 1;
            }
            count
        });
        let upgrade = std::panic::AssertUnwindSafe(|| {
            let primary = cluster.wait_ready();
            let backups_first: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != primary).collect();
            for node in backups_first.into_iter().chain([primary]) {
                let before = sent.load(Ordering::Relaxed);
                cluster.terminate(node);
                cluster.start(node);
                well(&cluster, &terminal);
                let moved = cluster.poll(PATIENCE, || sent.load(Ordering::Relaxed) > before);
                assert!(moved, "nothing was sent while {node} was upgraded");
            }
        });
        // The senders must end also when the upgrade fails.
        let upgraded = std::panic::catch_unwind(upgrade);
        over.store(true, Ordering::Relaxed);
        commands.join().unwrap();
        let piped = piped.join().unwrap();
        upgraded.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        piped
    });
    let acknowledged = ops.lines().map(Result::unwrap).count();
    assert!(pipe.wait().unwrap().success());
    assert_eq!(acknowledged, told, "each line has its op");
    let kept = terminal.json(&["--as=alice", "history", "--feed", "-n", "100000", "--json"]);
    assert_eq!(kept.len() as u64, sent.load(Ordering::Relaxed), "each is there once");
    eprintln!("{acknowledged} lines and {} commands, and none failed", kept.len());
}
