//! recado: notifications that outlive the server.

pub mod client;
pub mod config;
pub mod delivery;
pub mod entry;
pub mod id;
pub mod journal;
pub mod net;
pub mod replica;
pub mod server;
pub mod service;
pub mod wire;
