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

/// The longest UDP payload on a path of which nothing is known (BASE_PLPMTU of RFC 8899; DESIGN.md section
/// 3). With the headers of UDP and IP it fits the smallest MTU of IPv6, 1,280 bytes.
pub const DATAGRAM_BASE: usize = 1200;
/// The longest UDP payload that a receiver takes (MAX_PLPMTU of RFC 8899): that of a jumbo frame of 9,000
/// bytes, less the headers of IPv6 and UDP.
pub const DATAGRAM_MAX: usize = 8952;
