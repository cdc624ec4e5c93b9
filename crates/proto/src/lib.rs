//! The protocol: its types, packets as plain data, their encoding and sealing, and the link that carries
//! them.
//!
//! Reading order: [`id`], [`entry`], [`members`]; [`packet`], [`command`], [`codec`]; [`seal`] (the keys),
//! [`envelope`], [`fragment`], [`link`]; [`noise`], [`handshake`] (the agreement of a client's keys) and
//! [`version`].
//! [`entropy`] draws random numbers from a seed; [`hex`], [`fnv`], `bulk` and `open_enum` are small tools;
//! [`planted`] names the mistakes that the tests must find.
//!
//! It may not know what servers and clients do with a packet, and depends on no other crate of recado.
//!
//! Invariant: all of it is pure, without socket, clock or thread. Bytes from the network give a packet or a
//! typed error, never a panic and never an allocation beyond a limit.

#![forbid(unsafe_code)]

mod bulk;
pub mod codec;
pub mod command;
pub mod entropy;
pub mod entry;
pub mod envelope;
pub mod fnv;
pub mod fragment;
pub mod handshake;
pub mod hex;
pub mod id;
pub mod link;
pub mod members;
pub mod noise;
mod open_enum;
pub mod packet;
pub mod planted;
pub mod seal;
pub mod version;

pub use codec::DecodeError;
pub use envelope::{Class, Envelope, Header};
pub use link::Link;

/// The longest UDP payload (RFC 8085 section 3.2; DESIGN.md section 3). With the headers of UDP and IP it
/// fits the smallest MTU of IPv6, 1,280 bytes. The sockets set no don't-fragment option, so on an IPv4 path
/// with a smaller MTU IP may fragment it.
pub const DATAGRAM_MAX: usize = 1200;
