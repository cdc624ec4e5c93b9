//! The environment of a daemon: a reader of its log that stalls, a terminal that closes, a umask that lets
//! others read, a supervisor.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recado_client::{Client, Options};
use recado_proto::id::NodeId;
use recado_proto::packet::Content;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;

use crate::cluster::{Cluster, PATIENCE, after, beside_other_clusters, full_pipe, primary_of, succeeded};

fn send(client: &Client, body: &str) {
    let content = Content::of(body);
    client.send(None, content).unwrap().wait(PATIENCE).unwrap();
}

#[test]
fn servers_whose_log_nobody_reads_acknowledge_fail_over_and_end() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(3);
    cluster.disable_preemption();
    let mut readers = Vec::new();
    for node in cluster.nodes() {
        let (reader, stalled) = full_pipe();
        cluster.start_after("export RUST_LOG=trace", node, stalled);
        readers.push((node, reader));
    }
    let first = cluster.wait_ready();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), cluster.dir().join("state"));
    let client = Client::connect(options).unwrap();
    send(&client, "to the first");

    cluster.kill(first);
    cluster.wait_until("another primary", PATIENCE, |statuses| primary_of(statuses).is_some());
    send(&client, "to the second");

    // A server that cannot start logs the reason if it can, and ends in any case.
    let (_reader, stalled) = full_pipe();
    let damaged = cluster.config(first).with_file_name("cluster.secret");
    fs::write(damaged, "none").unwrap();
    cluster.start_logging_to(first, stalled);
    assert_eq!(cluster.exit(first).code(), Some(78));

    // The waiting lines arrive once the pipe is read.
    let second = cluster.wait_primary();
    let (_, mut reader) = readers.remove(readers.iter().position(|(node, _)| *node == second).unwrap());
    fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
    let mut log = Vec::new();
    let read = cluster.poll(PATIENCE, || {
        // It reads everything available and then fails with WouldBlock.
        let _ = reader.read_to_end(&mut log);
        String::from_utf8_lossy(&log).contains("Primary")
    });
    assert!(read, "{}", String::from_utf8_lossy(&log).trim_start_matches('x'));

    let backup = NodeId(6 - first.0 - second.0);
    for node in [backup, second] {
        let took = cluster.terminate(node);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[test]
fn a_terminal_that_closes_ends_a_server_in_order_unless_it_is_to_outlive_it() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(1);
    let node = cluster.nodes()[0];
    let log = fs::File::create(cluster.dir().join("terminal.log")).unwrap();
    cluster.start_heeding_hangup(node, log);
    cluster.wait_ready();
    cluster.end_by(Signal::HUP, node);
    let log = fs::read_to_string(cluster.dir().join("terminal.log")).unwrap();
    assert!(log.contains("stopped"), "{log}");

    let log = fs::File::create(cluster.dir().join("nohup.log")).unwrap();
    cluster.start_after("trap '' HUP", node, log);
    cluster.wait_ready();
    cluster.signal(node, Signal::HUP);
    let served = cluster.status(node).map(|status| status.applied);
    assert!(served.is_some(), "it goes on");
    cluster.terminate(node);
}

#[test]
fn a_supervisor_is_told_that_the_server_is_ready_alive_and_stopping() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(1);
    let node = cluster.nodes()[0];
    let at = cluster.dir().join("notify");
    let supervisor = UnixDatagram::bind(&at).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = |what: &str| loop {
        let mut message = [0; 4_096];
        let length = supervisor.recv(&mut message).unwrap_or_else(|error| panic!("no {what}: {error}"));
        if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == what) {
            break;
        }
    };
    // The server looks eight times in this time, and its turns may be a second apart.
    let environment = format!("export NOTIFY_SOCKET='{}' WATCHDOG_USEC=8000000", at.display());
    let log = fs::File::create(cluster.dir().join("supervised.log")).unwrap();
    cluster.start_after(&environment, node, log);
    told("READY=1");
    told("WATCHDOG=1");
    told("WATCHDOG=1");
    cluster.signal(node, Signal::TERM);
    told("STOPPING=1");
    assert!(cluster.exit(node).success());
}

#[test]
fn a_supervisor_that_takes_nothing_stops_no_server() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(1);
    let node = cluster.nodes()[0];
    let at = cluster.dir().join("notify");
    let _unread = UnixDatagram::bind(&at).unwrap();
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"x", &at).is_ok() {}
    let environment = format!("export NOTIFY_SOCKET='{}' WATCHDOG_USEC=80000", at.display());
    let log = fs::File::create(cluster.dir().join("supervised.log")).unwrap();
    cluster.start_after(&environment, node, log);
    cluster.wait_ready();
    cluster.signal(node, Signal::TERM);
    assert!(cluster.exit(node).success());
}

#[test]
fn a_limit_of_the_size_of_files_is_an_error_that_is_told_and_no_sudden_end() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(1);
    let node = cluster.nodes()[0];
    let path = cluster.dir().join("limited.log");
    cluster.start_after("ulimit -f 16", node, fs::File::create(&path).unwrap());
    let status = cluster.exit(node);
    let log = fs::read_to_string(path).unwrap();
    assert!(status.code().is_some() && log.contains("recadod: "), "{status} {log}");
}

/// Returns every path below `root`, with the permissions of group and others.
fn reachable(root: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let meta = fs::metadata(&path).unwrap();
        if meta.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((path, meta.permissions().mode() & 0o077));
    }
    found.retain(|(_, others)| *others != 0);
    found
}

#[test]
fn what_servers_and_clients_keep_is_their_owners_alone_whatever_the_umask() {
    let _shared = beside_other_clusters();
    for umask in ["umask 000", "umask 022"] {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("cluster");
        let mut init = after(umask, crate::recadod());
        let port = crate::cluster::free_ports(&["127.0.0.1"], 1).to_string();
        succeeded(
            &init.args(["init", "--servers", "1", "--port", &port, "--dir"]).arg(&home).output().unwrap(),
        );
        let mut cluster = Cluster::of(dir, vec![home.join("server-1")]);
        let node = cluster.nodes()[0];
        let log = fs::File::create(cluster.dir().join("log")).unwrap();
        cluster.start_after(umask, node, log.try_clone().unwrap());
        cluster.wait_ready();
        assert_eq!(reachable(&home), [], "{umask}");

        // The permissions that an earlier version, or a copy without permissions, leaves.
        cluster.terminate(node);
        let data = home.join("server-1/data");
        for file in fs::read_dir(&data).unwrap() {
            fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        cluster.start_after(umask, node, log);
        cluster.wait_ready();
        assert_eq!(reachable(&home), [], "{umask}");
        let output = fs::read_to_string(cluster.dir().join("log")).unwrap();
        assert_eq!(output.matches("other users had access to the data").count(), 1, "{output}");

        let state = cluster.dir().join("state");
        let options = Options::new("alice".parse().unwrap(), cluster.addresses(), &state);
        let client = Client::connect(options).unwrap();
        send(&client, "kept");
        drop(client);
        assert_eq!(reachable(&state), [], "{umask}");
    }
}
