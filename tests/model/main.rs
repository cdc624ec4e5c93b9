//! Model checking of replication and election: exhaustive exploration within stated bounds.
//!
//! [`protocol`] states the protocol, [`properties`] the properties that must hold. This file has the scopes:
//! the number of servers, elections, crashes, lost disks and commands in a behaviour. Within a scope every
//! behaviour is explored: every order of steps, every message late, twice or never. Beyond the scopes the
//! model proves nothing. docs/PROOF.md lists what it omits entirely.
//!
//! A passing run means little unless errors are found: the tests `a_mistake_...` apply the known errors, each
//! a [`Mutation`], one at a time, and expect a counter-example for each, which they print (`-- --nocapture`).

#![allow(clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod properties;
mod protocol;

use std::collections::BTreeSet;

use properties::*;
use protocol::{Mutation, Scope};
use recado_sys::clock::MachineClock;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

/// Three servers, any of which may lead; without elections, faults or commands.
fn three() -> Scope {
    Scope {
        servers: 3,
        elections: 0,
        rounds: 2,
        crashes: 0,
        wipes: 0,
        commands: 0,
        candidates: vec![0, 1, 2],
        wiped: vec![0, 1, 2],
        crashing: vec![0, 1, 2],
        cut: Vec::new(),
        suspecting: None,
        telling: false,
        settled: false,
        mutation: None,
    }
}

/// Explores every behaviour of the scope. Every `always` property must hold, and every `sometimes` property
/// must be reachable.
fn exhaust(name: &str, scope: Scope) {
    let clock = MachineClock::start();
    let checker =
        scope.clone().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    println!(
        "{name}: {} states, {} steps, {} deep, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        clock.now().0 as f64 / 1e6
    );
    let mut found = checker.discoveries();
    for Property { name, expectation, .. } in scope.properties() {
        match (expectation, found.remove(name)) {
            (Expectation::Sometimes, None) => panic!("it can never be that {name}"),
            (Expectation::Always, Some(path)) => panic!("not always: {name}\n{:#?}", path.into_actions()),
            _ => {}
        }
    }
}

/// Applies a mutation, and expects a shortest behaviour that violates `property`.
fn find(mutation: Mutation, property: &'static str, scope: Scope) {
    let clock = MachineClock::start();
    let scope = Scope { mutation: Some(mutation), ..scope };
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = scope.checker().finish_when(wanted).spawn_bfs().join();
    let path = checker.discoveries().remove(property);
    let path = path.unwrap_or_else(|| {
        panic!("{mutation:?} passes: {} states, always: {property}", checker.unique_state_count())
    });
    println!(
        "{mutation:?}: not always {property} ({} states, {:.1} s)",
        checker.unique_state_count(),
        clock.now().0 as f64 / 1e6
    );
    for action in path.into_actions() {
        println!("    {action:?}");
    }
}

/// Server 3 leads. One server loses its disk while there is an election and a command.
fn disk_lost() -> Scope {
    Scope { elections: 1, wipes: 1, commands: 1, settled: true, ..three() }
}

/// Five servers, of which server 5 leads. Server 2 is a candidate, and only servers 1 and 3 hear it. Server 3
/// does not hear the primary, and server 1 loses its disk.
fn five_cut() -> Scope {
    Scope {
        servers: 5,
        candidates: vec![1],
        wiped: vec![0],
        crashing: vec![2],
        cut: vec![(1, 3), (1, 4), (2, 3), (2, 4)],
        ..disk_lost()
    }
}

/// Server 3 leads, and only server 1 ever suspects it.
fn alone() -> Scope {
    Scope { elections: 1, crashes: 1, commands: 1, suspecting: Some(vec![0]), settled: true, ..three() }
}

#[test]
fn three_servers_elect_and_commit_within_three_elections() {
    exhaust("3 elections, 1 command", Scope { elections: 3, commands: 1, ..three() });
    let two = Scope { elections: 4, commands: 1, candidates: vec![0, 2], ..three() };
    exhaust("4 elections between 2 candidates, 1 command", two);
}

#[test]
fn three_servers_lose_nothing_by_a_crash() {
    exhaust("2 elections, 1 crash, 1 command", Scope { elections: 2, crashes: 1, commands: 1, ..three() });
    exhaust("2 elections, 2 crashes", Scope { elections: 2, crashes: 2, ..three() });
}

#[test]
fn a_server_that_lost_its_disk_breaks_no_promise() {
    exhaust("1 disk lost, 1 election, 1 command", disk_lost());
    exhaust("1 disk lost, 1 crash, 1 election", Scope { crashes: 1, commands: 0, ..disk_lost() });
    exhaust("5 servers, 4 links cut, 1 disk lost, 1 election, 1 command", five_cut());
}

#[test]
fn a_server_alone_in_its_suspicion_disturbs_nobody() {
    exhaust("1 of 3 suspects", alone());
    let two = Scope { servers: 5, suspecting: Some(vec![0, 1]), candidates: vec![0, 1], ..alone() };
    exhaust("2 of 5 suspect", two);
}

#[test]
fn a_mistake_in_an_election_is_found() {
    find(Mutation::PromiseNotDurable, COMMITTED_KEPT, Scope { elections: 2, crashes: 1, ..three() });
    find(Mutation::KeepOwnLog, COMMITTED_KEPT, Scope { elections: 2, ..three() });
    find(Mutation::LongestLogWins, COMMITTED_KEPT, Scope { elections: 3, commands: 1, ..three() });
    find(Mutation::RestartAsPrimary, OPENED_ONCE, Scope { elections: 1, crashes: 1, ..three() });
    find(Mutation::NoProbe, UNDISTURBED, alone());
}

#[test]
fn a_mistake_in_what_counts_is_found() {
    let figure_eight = Scope { elections: 4, candidates: vec![0, 2], ..three() };
    find(Mutation::CommitOlderView, COMMITTED_ONCE, figure_eight);
    find(Mutation::AckUnmatched, COMMITTED_HELD, Scope { elections: 2, ..three() });
    find(Mutation::AckOnReceipt, COMMITTED_KEPT, Scope { elections: 2, crashes: 1, ..three() });
}

#[test]
fn a_mistake_with_a_lost_disk_is_found() {
    find(Mutation::NoCrashVector, COMMITTED_KEPT, disk_lost());
    find(Mutation::LearnerVotesAtOnce, COMMITTED_KEPT, disk_lost());
    find(Mutation::LearnerTrustsOldHeartbeat, COMMITTED_KEPT, disk_lost());
    find(Mutation::IncarnationsNotSent, COMMITTED_KEPT, five_cut());
    find(Mutation::IncarnationsNotDurable, COMMITTED_KEPT, Scope { crashes: 1, ..five_cut() });
}

/// Each takes minutes and at most 400 MiB: `cargo test --test model -- --ignored --nocapture --test-threads
/// 1`.
#[test]
#[ignore = "minutes"]
fn three_servers_at_length() {
    exhaust("1 disk lost, 2 elections from the start", Scope { elections: 2, wipes: 1, ..three() });
    let told = Scope { elections: 2, crashes: 1, commands: 1, telling: true, ..three() };
    exhaust("2 elections, 1 crash, 1 command, backups know the commit", told);
    exhaust("1 disk lost, 1 crash, 1 election, 1 command", Scope { crashes: 1, ..disk_lost() });
}

#[test]
#[ignore = "minutes"]
fn five_servers_at_length() {
    let five = |scope: Scope| Scope {
        servers: 5,
        candidates: vec![0, 4],
        wiped: vec![0],
        crashing: vec![2],
        ..scope
    };
    exhaust("5 servers, 4 links cut, 1 disk lost, 1 crash", Scope { crashes: 1, commands: 0, ..five_cut() });
    exhaust("5 servers, 2 elections", five(Scope { elections: 2, ..three() }));
    exhaust(
        "5 servers, 1 election against a primary, 1 crash",
        five(Scope { crashes: 1, elections: 1, settled: true, ..three() }),
    );
}
