//! The replicated log: an ordered list of entries that a majority of the servers holds on disk.
//!
//! [`replica`] decides who leads and what is committed; it is pure. [`journal`] stores a server's part: log,
//! snapshots, promises. It alone touches the files in a server's data directory.
//!
//! The crate may not know what an entry or a snapshot means, nor clients, sessions and sockets. It depends on
//! `recado-proto` and `recado-sys` alone; `replica` names nothing of `journal`, and `journal` nothing of the
//! others (`tests/it/tidy.rs`).
//!
//! [`links`] carries packets between the servers as sealed datagrams; it is pure, and knows neither of the two.
//!
//! Reading order: [`config`], [`replica`], [`links`], [`journal`].

#![forbid(unsafe_code)]

pub mod config;
pub mod journal;
pub mod links;
pub mod replica;
