//! The replicated log: an ordered list of entries that a majority of the servers holds on disk.
//!
//! [`replica`] decides who leads and what is committed; it is pure. [`journal`] stores a server's part: log,
//! snapshots, promises. Neither knows what an entry means.
//!
//! [`links`] carries packets between the servers as sealed datagrams; it is pure, and knows neither of the two.
//!
//! Reading order: [`config`], [`replica`], [`links`], [`journal`].

#![forbid(unsafe_code)]

pub mod config;
pub mod journal;
pub mod links;
pub mod replica;
