//! Behaviours of the delivery: alone, played by hand, and against real client machines through a
//! path that loses, repeats and reorders datagrams, on virtual time.

mod answers;
mod hand;
mod path;
