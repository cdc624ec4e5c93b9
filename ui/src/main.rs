//! `recado`: the terminal client.
fn main() {}
