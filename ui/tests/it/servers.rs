//! Tests of finding a cluster by the servers that a user names.

use crate::cluster::{Cluster, beside_other_clusters};
use crate::terminal::Terminal;

#[test]
fn a_dead_server_that_was_only_heard_of_leads_to_the_others() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let terminal = Terminal::knowing(&addresses[1]);
    terminal.ok(&["--as=alice", "send", "by the second"]);
    let list = terminal.json(&["cluster", "list", "--json"]);
    assert_eq!(list[0]["members"].as_array().unwrap().len(), 3, "{list:?}");
    assert!(terminal.ok(&["cluster", "list"]).contains(&addresses[2]));
    let third = cluster.nodes()[2];
    cluster.kill(third);
    let server = format!("--server={}", addresses[2]);
    terminal.ok(&[&server, "--as=alice", "send", "by the third, which is dead"]);
    assert_eq!(terminal.json(&[&server, "--as=alice", "history", "--feed", "--json"]).len(), 2);

    // What is known of a cluster of which no server answers is shown, and the command fails.
    cluster.kill_all();
    let output = terminal.run(&["status", "--json"]);
    let shown = crate::terminal::lines(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((output.status.code(), shown.len()), (Some(69), 3), "{shown:?}");
    assert!(shown.iter().all(|server| server["alive"] == false && server["address"].is_string()));
}

#[test]
fn a_name_that_is_no_address_is_reported_and_the_others_are_used() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let good = cluster.addresses()[0].to_string();
    let terminal = Terminal::knowing(&format!("127.0.0.1:x,{good}"));
    let output = terminal.run(&["status"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("127.0.0.1:x"), "{told}");
    assert_eq!(terminal.fails(&["--server", "127.0.0.1:x", "status"]).0, 2);
}
