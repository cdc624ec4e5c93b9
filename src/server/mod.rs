//! Threads and channels around the pure parts.

pub mod node;
