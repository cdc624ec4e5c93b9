//! What `recado doctor` and `recadod doctor` find, each fault with its cause and its cure.
//!
//! [`cluster`] judges what a [survey](recado_client::survey) of the servers has seen, and [`machine`] what
//! the machine gives a program. Both are pure: observations in, [`finding`]s out. [`observe`] is
//! the thin part around them, and [`bounded`] ends observations that may take for ever, such as a look-up of
//! a name or a sync of a disk. [`monitor`] is what the monitor of a machine's servers tells.

#![forbid(unsafe_code)]

pub mod bounded;
pub mod cluster;
pub mod finding;
pub mod machine;
pub mod monitor;
pub mod observe;

pub use finding::{Finding, Report, Severity};
