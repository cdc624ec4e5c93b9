//! Measures the pause of a disturbance: the largest gap between two acknowledgements that one sender sees,
//! from the disturbance to the moment when every server is READY again. It is printed; n counts senders times
//! disturbances.

use std::time::Duration;

use recado_proto::id::{Moment, NodeId};

use crate::cluster::{Cluster, PATIENCE, primary_of};
use crate::load::Outcome;

/// The time from just before a disturbance to the READY after it.
pub(crate) type Window = (Moment, Moment);

pub(crate) fn another_primary(cluster: &Cluster, than: NodeId) {
    cluster.wait_until("another primary", PATIENCE, |statuses| {
        primary_of(statuses).is_some_and(|primary| primary.node != than)
    });
}

pub(crate) fn report(what: &str, windows: &[Window], outcome: &Outcome) {
    let mut pauses: Vec<Duration> = windows
        .iter()
        .flat_map(|window| outcome.acks.iter().filter_map(|acks| largest_gap(acks, *window)))
        .collect();
    pauses.sort_unstable();
    let at = |share: f64| {
        let index = ((pauses.len() as f64 * share).ceil() as usize).saturating_sub(1);
        pauses.get(index).map_or(f64::NAN, |pause| pause.as_secs_f64() * 1000.0)
    };
    eprintln!(
        "{what}: pause between two acks of one sender: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms, n = {} \
         ({} disturbances)",
        at(0.5),
        at(0.99),
        at(1.0),
        pauses.len(),
        windows.len()
    );
}

/// Returns the largest gap between two consecutive acknowledgements that overlaps the window.
fn largest_gap(acks: &[Moment], (began, ended): Window) -> Option<Duration> {
    acks.windows(2)
        .filter(|pair| pair[1] >= began && pair[0] <= ended)
        .map(|pair| pair[1].since(pair[0]))
        .max()
}

#[test]
fn the_largest_gap_is_looked_for_in_the_window_alone() {
    let acks = [0, 100, 110, 200, 210, 900].map(Moment);
    assert_eq!(largest_gap(&acks, (Moment(105), Moment(205))), Some(Duration::from_micros(90)));
    assert_eq!(largest_gap(&acks, (Moment(1000), Moment(1100))), None);
}
