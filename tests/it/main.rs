//! One binary for everything that is tested from outside.

mod allocation;
mod golden;
mod malformed;
mod roundtrip;
mod samples;
