//! The replicated log: an ordered list of entries that a majority of the servers holds on disk.
//!
//! [`ordered`] has what a server's node knows of its log. [`bully`] is the log by the bully algorithm: it
//! joins `replica`, which decides who leads and what is committed, `links`, which carries packets between
//! the servers as sealed datagrams, and the transfer of snapshots. All of these are pure. [`journal`] stores
//! a server's part: log, snapshots, promises. It alone touches the files in a server's data directory.
//!
//! The crate may not know what an entry or a snapshot means, nor clients, sessions and sockets. It depends on
//! `recado-proto` and `recado-sys` alone; `replica`, `links` and `journal` name nothing of each other
//! (`tests/it/tidy.rs`).
//!
//! Reading order: [`config`], [`ordered`], `replica`, `links`, [`bully`], [`journal`].

#![forbid(unsafe_code)]

pub mod bully;
pub mod config;
pub mod journal;
mod links;
pub mod ordered;
mod replica;
