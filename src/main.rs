//! `recadod`: one recado server.
fn main() {}
