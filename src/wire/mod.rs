//! What travels: packets as plain data, how they become bytes, and the link that carries them.
//!
//! Reading order: [`packet`], [`command`], [`codec`], [`check`], [`seal`] (the keys), [`envelope`],
//! [`fragment`], [`link`]; [`noise`] and [`handshake`] (how a client comes to its keys).
//!
//! Invariant: all of it is pure; nothing here knows a socket, a clock or a thread. Bytes from the
//! network give a packet or a typed error, never a panic and never an allocation beyond a limit.

pub mod check;
pub mod codec;
pub mod command;
pub mod envelope;
pub mod fragment;
pub mod handshake;
pub mod link;
pub mod noise;
pub mod packet;
pub mod seal;

pub use codec::DecodeError;
pub use envelope::{Class, Envelope, Header};
pub use link::Link;
pub use packet::Packet;

/// Longest UDP payload, so that IP never fragments it (RFC 8085 section 3.2; DESIGN.md section 3).
pub const DATAGRAM_MAX: usize = 1200;
