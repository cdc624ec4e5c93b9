//! Torture tests: real servers and sockets, with faults of machine, network and disk drawn from a seed. The
//! checkers of the simulator verify the results. The seed determines the faults; the servers' reactions also
//! depend on the machine.
//!
//! The long runs are ignored tests, which `.ci/nightly` runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "../sim/checkers.rs"]
#[allow(dead_code, unreachable_pub, clippy::type_complexity, reason = "shared with the simulator")]
mod checkers;
#[path = "../it/cluster.rs"]
#[allow(dead_code, reason = "shared with the other tests of real servers")]
mod cluster;
mod disk;
mod full;
#[path = "../sim/history.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the simulator")]
mod history;
mod killed;
#[path = "../shim/src/ledger.rs"]
#[allow(dead_code, reason = "shared with the shim, which writes what is read here")]
mod ledger;
#[path = "../it/load.rs"]
#[allow(dead_code, reason = "shared with the other tests of real servers")]
mod load;
mod measures;
mod network;
#[path = "../it/pauses.rs"]
#[allow(dead_code, reason = "shared with the other tests of real servers")]
mod pauses;
#[path = "../it/relay.rs"]
#[allow(dead_code, reason = "shared with the other tests of real servers")]
mod relay;
#[path = "../sim/rng.rs"]
#[allow(dead_code, reason = "shared with the simulator")]
mod rng;
mod run;
mod schedule;
#[path = "../it/status_client.rs"]
mod status_client;

use cluster::lock_out_other_clusters;
use ledger::DiskFaults;
use rng::Rng;
use run::{Counts, TortureRun};

/// The daemon under test.
fn recadod() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_recadod"))
}

/// Returns a number from the environment.
fn number(variable: &str, unless_set: u64) -> u64 {
    std::env::var(variable).map_or(unless_set, |text| text.parse().expect("a number"))
}

fn play(seed: u64, servers: u16, deals: u32) -> Counts {
    eprintln!(
        "the same again: TORTURE_SEED={seed} TORTURE_SERVERS={servers} TORTURE_DEALS={deals} TORTURE_KILLS=1 \
         cargo test -p recado --test torture long -- --ignored --nocapture"
    );
    let left_out = std::env::var("TORTURE_LEAVE_OUT").unwrap_or_default();
    let mut scene = TortureRun::new(seed, servers);
    let mut rng = Rng::seeded(seed);
    for _ in 0..deals {
        let mut steps = schedule::draw_schedule(&mut rng);
        for word in left_out.split_whitespace() {
            println!("LEFT OUT by TORTURE_LEAVE_OUT: {word}");
            steps.retain(|step| !step.fault.mentions(word));
        }
        scene.play(&steps);
    }
    let done = scene.finish();
    eprintln!("seed {seed}: {done:?}");
    done
}

#[test]
fn nothing_is_lost_repeated_or_reordered_through_a_deal_of_every_fault() {
    let _alone = lock_out_other_clusters();
    let done = play(1, 3, 1);
    assert!(done.lost.sectors > 0, "power cuts that take nothing show nothing: {done:?}");
}

/// Runs until TORTURE_KILLS servers were killed, each round with the next seed.
#[test]
#[ignore = "takes as long as TORTURE_KILLS says"]
fn nothing_is_lost_repeated_or_reordered_through_a_long_run() {
    let _alone = lock_out_other_clusters();
    let mut random = [0; 4];
    getrandom::fill(&mut random).unwrap();
    let first = number("TORTURE_SEED", u32::from_le_bytes(random).into());
    let wanted = number("TORTURE_KILLS", 100);
    let servers = number("TORTURE_SERVERS", 3) as u16;
    let deals = number("TORTURE_DEALS", 3) as u32;
    let mut all = Counts::default();
    let mut seed = first;
    while all.kills < wanted {
        let done = play(seed, servers, deals);
        all.kills += done.kills;
        all.power_cuts += done.power_cuts;
        all.lost.sectors += done.lost.sectors;
        all.lost.names += done.lost.names;
        all.acknowledged += done.acknowledged;
        seed += 1;
    }
    println!(
        "torture: {} servers killed, {} power cuts ({} sectors and {} names lost), seeds {first} to {}, {} sends \
         acknowledged: 0 lost, 0 repeated, 0 out of order",
        all.kills,
        all.power_cuts,
        all.lost.sectors,
        all.lost.names,
        seed - 1,
        all.acknowledged
    );
}

/// Shows that the checkers and the shim find violations: no protocol keeps its promises on such disks.
#[test]
#[ignore = "half a minute; it shows that this test can fail"]
fn disks_that_lie_about_their_syncs_are_found_out() {
    let _alone = lock_out_other_clusters();
    let lying = || {
        let mut scene = TortureRun::new(1, 3);
        scene.all_disks(DiskFaults { lies: true, sync_ms: 0, ..DiskFaults::default() });
        scene.kill_all_under_load(5);
        scene.finish();
    };
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(lying));
    assert!(found.is_err(), "servers whose disks lied about every sync lost nothing in five power cuts");
}
