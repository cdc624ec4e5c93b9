//! What recado needs of the operating system: threads and channels, clocks, UDP sockets, files that survive a
//! power cut, random bytes, and what the processor can do.
//!
//! It may know of the protocol nothing but moments, ids and their digits. Every thread, clock, socket and
//! durable file of a server and of a client comes from here, except for the journal's files and the client's
//! locks and cursors; clippy and `tests/it/tidy.rs` refuse others.
//!
//! Reading order: [`clock`], [`cpu`], [`threads`], [`sync`] (channels and locks, or a test's model of them),
//! [`net`], [`durable`], [`random`], [`secret`]; [`process`] and [`local`], for what watches a server;
//! [`machine`], which people read.

#![forbid(unsafe_code)]

pub mod clock;
pub mod cpu;
pub mod durable;
pub mod local;
pub mod machine;
pub mod net;
pub mod process;
pub mod random;
pub mod secret;
pub mod sync;
pub mod threads;
