//! The client: a pure machine, and the blocking [`Client`] that programs use.

pub mod machine;
