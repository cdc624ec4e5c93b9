//! The measurements, one file each; those of a steady load share one.

pub(crate) mod catchup;
pub(crate) mod connect;
pub(crate) mod failover;
pub(crate) mod overload;
pub(crate) mod sessions;
pub(crate) mod snapshot;
pub(crate) mod steady;
