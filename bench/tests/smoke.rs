//! Every measurement, for a moment and with few participants, on real servers: its result has its shape, and
//! nothing is lost, repeated or reordered. No figure is asserted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "../../tests/it/daemon.rs"]
mod daemon;

use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Only one cluster runs at a time, so that none is late because of another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recado-bench"));
    command.args(arguments.split_whitespace()).output().unwrap()
}

/// Runs a measurement on servers of its own, and returns its result.
fn measured(arguments: &str) -> Value {
    let _guard = one_at_a_time();
    let daemon = daemon::beside(env!("CARGO_BIN_EXE_recado-bench"));
    let output = bench(&format!("{arguments} --json --recadod {}", daemon.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {}\n{text}\n{said}", output.status);
    let result: Value = serde_json::from_str(&text).unwrap();
    for check in ["lost", "repeated", "reordered"] {
        assert_eq!(result["checks"][check], 0, "{arguments}: {result}");
    }
    assert!(result["operations"].is_u64() && result["operation"].is_string(), "{arguments}: {result}");
    assert!(result["measured_s"].as_f64().unwrap() > 0.0, "{arguments}: {result}");
    for process in result["processes"].as_array().unwrap() {
        assert!(process["name"].is_string() && process["peak_rss_kib"].as_u64().unwrap() > 0, "{process}");
        for figure in ["cpu_s", "cores", "cpu_us_per_operation"] {
            assert!(process[figure].as_f64().unwrap() >= 0.0, "{process}");
        }
    }
    result
}

/// Asserts that a latency has values, in the order of its quantiles.
fn assert_latency(result: &Value, name: &str) {
    let latency = &result["latency_us"][name];
    assert!(latency["count"].as_u64().unwrap() > 0, "{name}: {result}");
    let quantiles = ["p50", "p99", "p99.9", "max"].map(|quantile| latency[quantile].as_u64().unwrap());
    assert!(quantiles[0] > 0 && quantiles.is_sorted(), "{name}: {result}");
}

fn assert_rates(result: &Value, names: &[&str]) {
    let rates = result["per_second"].as_object().unwrap();
    assert_eq!(rates.keys().collect::<Vec<_>>(), names, "{result}");
    assert!(rates.values().all(|rate| rate.as_f64().unwrap() > 0.0), "{result}");
}

/// Measures for a moment, and for longer if the machine was too busy for a single operation in it.
fn measured_shortly(arguments: &str) -> Value {
    let mut results = [0.3, 2.0, 10.0]
        .into_iter()
        .map(|seconds| measured(&format!("{arguments} --seconds {seconds} --warm-up 0.1")));
    results.find(|result| result["operations"] != 0).unwrap_or_else(|| panic!("{arguments}: no operation"))
}

#[test]
fn send_measures_acknowledgements_of_clients_and_machines() {
    for through in ["client", "machines"] {
        let result =
            measured_shortly(&format!("send --servers 1 --devices 2 --in-flight 4 --through {through}"));
        assert_rates(&result, &["sends"]);
        assert_latency(&result, "ack");
        assert_eq!(result["processes"].as_array().unwrap().len(), 2, "one server and the client: {result}");
        assert_eq!(result["parameters"]["through"], through);
    }
}

#[test]
fn fanout_measures_deliveries_to_every_follower() {
    let result = measured_shortly("fanout --followers 20 --window 4");
    assert_rates(&result, &["deliveries", "sends"]);
    assert_latency(&result, "ack");
    assert_latency(&result, "delivery");
    assert_eq!(result["parameters"]["through"], "machines", "more participants than clients by default");
    let names = result["processes"].as_array().unwrap().iter().map(|process| &process["name"]);
    assert!(names.clone().any(|name| name.as_str().unwrap().starts_with("primary")), "{result}");
    assert_eq!(names.count(), 4, "three servers and the client: {result}");
}

#[test]
fn paced_sends_at_its_rate() {
    let result = measured("paced --servers 1 --rate 50 --followers 2 --seconds 0.5 --warm-up 0.1");
    assert_latency(&result, "delivery");
    assert_eq!(result["latency_us"]["ack"]["count"], 25, "every message of the schedule: {result}");
}

#[test]
fn failover_measures_the_pause_of_each_kill() {
    let result = measured(
        "failover --rate 200 --devices 2 --followers 2 --kills 1 --through machines --seconds 2 --warm-up 0.2",
    );
    assert_eq!(result["counts"]["kills"], 1);
    assert_latency(&result, "pause of a kill, senders");
    assert_latency(&result, "pause of a kill, followers");
}

#[test]
fn connect_measures_the_way_to_an_open_session() {
    let result = measured("connect --servers 1 --count 20");
    assert_rates(&result, &["connects"]);
    assert_eq!(result["latency_us"]["session open"]["count"], 20);
}

#[test]
fn sessions_measures_memory_and_the_recovery_from_a_death() {
    for servers in [3, 1] {
        let result = measured(&format!("sessions --servers {servers} --count 20 --follows 3 --idle 0.3"));
        assert_rates(&result, &["connects", "follows"]);
        assert_eq!(result["latency_us"]["until served again"]["count"], 20, "{result}");
        assert!(result["counts"]["resident B/session, primary"].is_u64(), "{result}");
        assert_eq!(result["counts"]["resident B/session, a backup"].is_u64(), servers == 3, "{result}");
        let times = ["50 % served", "99 % served", "all served"];
        let times = times.map(|time| result["times_ms"][time].as_f64().unwrap());
        assert!(times.is_sorted(), "{result}");
        assert_eq!(result["times_ms"]["from the kill to ready"].is_number(), servers == 1, "{result}");
    }
}

#[test]
fn overload_tells_what_was_taken_from_what_was_refused() {
    let result = measured_shortly("overload --servers 1 --devices 4 --in-flight 2");
    assert_latency(&result, "half: ack");
    assert_rates(&result, &["closed loop", "half: offered", "twice: offered", "twice: taken"]);
    for share in ["half: refused", "twice: refused", "twice: held back by clients"] {
        assert!((0.0..=1.0).contains(&result["shares"][share].as_f64().unwrap()), "{share}: {result}");
    }
    assert!(result["counts"]["views begun meanwhile"].is_u64(), "{result}");
    assert!(result["latency_us"]["twice: until refused"]["count"].is_u64(), "{result}");
}

#[test]
fn catchup_reads_what_is_pending_once_and_in_order() {
    let result = measured("catchup --servers 1 --stored 500 --followers 2");
    assert_rates(&result, &["deliveries"]);
    assert_eq!(result["operations"], 1_000);
}

#[test]
fn snapshot_tells_the_latency_inside_snapshots_from_that_outside() {
    let result =
        measured("snapshot --servers 1 --stored 500 --rate 200 --every 1 --seconds 1.5 --warm-up 0.1");
    assert_latency(&result, "ack, outside");
    assert!(result["counts"]["snapshots seen"].is_u64(), "{result}");
    assert!(result["times_ms"]["time in snapshots"].is_number(), "{result}");
}

#[test]
fn a_peer_needs_an_address() {
    let output = bench("send --broker redis");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--server"));
}

#[test]
fn the_table_fits_80_columns_and_says_what_was_lost() {
    let _guard = one_at_a_time();
    let daemon = daemon::beside(env!("CARGO_BIN_EXE_recado-bench"));
    let output = bench(&format!("send --servers 1 --seconds 0.2 --recadod {}", daemon.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("0 lost, 0 repeated, 0 out of order"), "{text}");
    // The first line names the parameters.
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= 80), "{text}");
}
