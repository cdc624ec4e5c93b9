//! `recadod doctor` beside real servers: each fault is made, and the doctor names it.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use recado_proto::id::NodeId;
use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, lock_out_other_clusters};

/// Runs the doctor of this server, and returns its findings.
fn doctor(cluster: &Cluster, node: NodeId) -> Vec<Value> {
    let output = Command::new(crate::recadod())
        .args(["doctor", "--json", "--config"])
        .arg(cluster.config(node))
        .output();
    let output = output.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(if report["ok"] == true { 0 } else { 1 }), "{report:#}");
    report["findings"].as_array().unwrap().clone()
}

fn finding<'a>(findings: &'a [Value], check: &str, subject: &str) -> &'a Value {
    findings
        .iter()
        .find(|one| one["check"] == check && one["subject"].as_str().unwrap().contains(subject))
        .unwrap_or_else(|| panic!("no {check} of {subject}: {findings:#?}"))
}

/// Warnings and faults, without those of a disk that is slow or in memory, as a test's may be.
fn bad(findings: &[Value]) -> Vec<&Value> {
    let is_bad = |one: &&Value| one["severity"] == "warning" || one["severity"] == "fault";
    let of_the_disk = |one: &&Value| one["check"] == "disk" || one["check"] == "fsync";
    findings.iter().filter(is_bad).filter(|one| !of_the_disk(one)).collect()
}

#[test]
fn beside_servers_that_run_there_is_nothing_to_find_and_a_changed_file_is_told() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::ready(3);
    let node = cluster.nodes()[0];
    let mut last = Vec::new();
    let is_well = cluster.poll(PATIENCE, || {
        last = doctor(&cluster, node);
        bad(&last).is_empty()
    });
    assert!(is_well, "{:#?}", bad(&last));
    let pid = cluster.pid(node);
    assert_eq!(finding(&last, "server", "")["values"]["pid"], pid);
    assert_eq!(finding(&last, "port", "clients")["seen"], "the server has it");
    assert!(finding(&last, "cluster", "")["seen"].as_str().unwrap().contains("as pinned"));

    cluster.edit(node, |text| text.replace("preset = \"default\"", "preset = \"wan\""));
    let findings = doctor(&cluster, node);
    let told = bad(&findings).into_iter().find(|one| one["check"] == "members");
    let told = told.unwrap_or_else(|| panic!("{findings:#?}"));
    assert!(told["cause"].as_str().unwrap().contains("since the server has started"), "{told}");
}

#[test]
fn before_a_start_files_ports_and_permissions_are_examined() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::init(3);
    let node = cluster.nodes()[0];
    let findings = doctor(&cluster, node);
    assert_eq!(finding(&findings, "server", "")["severity"], "note");
    assert_eq!(finding(&findings, "port", "peers")["seen"], "free");
    assert_eq!(finding(&findings, "data", "")["severity"], "ok");

    let thief = UdpSocket::bind(cluster.member(node).peer).unwrap();
    let secret = cluster.config(node).with_file_name("cluster.secret");
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let findings = doctor(&cluster, node);
    let port = finding(&findings, "port", "peers");
    assert!(port["severity"] == "fault" && port["cause"].as_str().unwrap().contains("another program"));
    let access = finding(&findings, "access", "cluster.secret");
    assert!(access["cure"].as_str().unwrap().starts_with("run: chmod 600"), "{access}");
    assert_eq!(access["severity"], "fault");
    drop(thief);
}

#[test]
fn a_server_that_runs_on_an_old_copy_of_its_data_is_found_by_what_the_others_tell() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let [old, other, _] = cluster.nodes()[..] else { panic!("three servers") };
    cluster.terminate(old);
    let (data, copy) = (cluster.data(old), cluster.dir().join("copy"));
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    cluster.start(old);
    cluster.wait_ready();
    cluster.terminate(old);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&copy, &data).unwrap();
    cluster.start(old);
    for machine in [old, other] {
        let mut last = Vec::new();
        let is_told = cluster.poll(PATIENCE, || {
            last = doctor(&cluster, machine);
            let of_it = |one: &&&Value| one["check"] == "members" && one["severity"] == "fault";
            bad(&last).iter().find(of_it).is_some_and(|told| {
                let text = |key: &str| told[key].as_str().unwrap();
                text("subject").contains(&old.to_string())
                    && text("cause").contains("an old data directory was put back")
                    && !text("cure").contains("UDP")
            })
        });
        assert!(is_told, "on {machine}'s machine: {:#?}", bad(&last));
        assert!(bad(&last).iter().all(|one| one["check"] != "view"), "{:#?}", bad(&last));
    }
}

#[test]
fn a_server_with_another_secret_is_named_by_the_logs_and_by_the_doctor_on_any_server() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::init(3);
    let [odd, other, _] = cluster.nodes()[..] else { panic!("three servers") };
    let secret = cluster.config(odd).with_file_name("cluster.secret");
    let text = fs::read_to_string(&secret).unwrap();
    let changed = if text.starts_with('0') { '1' } else { '0' };
    fs::write(&secret, format!("{changed}{}", &text[1..])).unwrap();
    cluster.start_all();
    for node in cluster.nodes() {
        let is_told = || cluster.log(node).contains("it has another cluster.secret");
        assert!(cluster.poll(PATIENCE, is_told), "{node}: {}", cluster.log(node));
    }
    for machine in [odd, other] {
        let mut last = Vec::new();
        let is_told = cluster.poll(PATIENCE, || {
            last = doctor(&cluster, machine);
            let of_it = |one: &&&Value| one["check"] == "cluster" && one["severity"] == "fault";
            bad(&last).iter().find(of_it).is_some_and(|told| {
                told["subject"].as_str().unwrap().contains(&odd.to_string())
                    && told["cure"].as_str().unwrap().contains("copy cluster.secret")
            })
        });
        assert!(is_told, "on {machine}'s machine: {:#?}", bad(&last));
    }
}

#[test]
fn a_server_that_hears_no_majority_says_so_with_the_servers_that_it_does_not_hear() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(3);
    let [alone, second, third] = cluster.nodes()[..] else { panic!("three servers") };
    cluster.start(alone);
    let told = |cluster: &Cluster| {
        let log = cluster.log(alone);
        let line = log.lines().find(|line| line.contains("NOTHING CAN BE ACKNOWLEDGED")).map(str::to_owned);
        line.filter(|line| line.contains("WARN"))
    };
    assert!(cluster.poll(PATIENCE, || told(&cluster).is_some()), "{}", cluster.log(alone));
    let line = told(&cluster).unwrap();
    assert!([second, third].iter().all(|node| line.contains(&node.to_string())), "{line}");
    cluster.start(second);
    let is_over = || cluster.log(alone).contains("there is a primary with a majority again");
    assert!(cluster.poll(PATIENCE, is_over), "{}", cluster.log(alone));
}
