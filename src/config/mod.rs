//! Configuration: every setting with its unit, default, limits and reason.
//!
//! A [`Config`] is the configuration of one server. [`Timing`] has the protocol's timers (DESIGN.md section
//! 6), and [`Limits`] the bounds of every table and queue of the pure modules. [`mod@file`] reads and writes
//! them as `recado.toml`, [`secret`] the file beside it.

pub mod file;

use std::time::Duration;

pub use recado_log::config::{Cluster, Member, Preempt, Timing, TimingError};
pub use recado_proto::planted::{Planted, PlantedBug};
pub use recado_service::limits::{Limits, Rate, Retention};
pub use recado_sys::secret;

use recado_proto::id::Admission;

/// The configuration of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster and this server's place in it.
    pub cluster: Cluster,
    /// The protocol's timers.
    pub timing: Timing,
    /// The policy when a server with a higher id is back.
    pub preempt: Preempt,
    /// Bounds of tables and windows.
    pub limits: Limits,
    /// The retention of topics.
    pub retention: Retention,
    /// The rule for claiming a name that nobody has.
    pub admission: Admission,
    /// The longest time between two snapshots, if anything is new.
    pub snapshot_every: Duration,
    /// The size of the log since the last snapshot, in bytes, at which another one is written.
    pub snapshot_bytes: u64,
    /// For the simulator only.
    pub planted: PlantedBug,
}

impl Config {
    /// The configuration that `recadod init` writes for this cluster: every setting at its default.
    pub fn default_for(cluster: Cluster) -> Config {
        Config {
            cluster,
            timing: Timing::DEFAULT,
            preempt: Preempt::Graceful,
            limits: Limits::default(),
            retention: Retention::default(),
            admission: Admission::default(),
            snapshot_every: Duration::from_secs(60),
            snapshot_bytes: 64 * 1024 * 1024,
            planted: PlantedBug::default(),
        }
    }

    /// The part of the configuration that the log needs.
    pub fn log(&self) -> recado_log::config::Config {
        let Config { cluster, timing, preempt, planted, .. } = self;
        let cluster = cluster.clone();
        recado_log::config::Config { cluster, timing: *timing, preempt: *preempt, planted: *planted }
    }
}
