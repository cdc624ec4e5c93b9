//! recado: notifications that outlive the server.
//!
//! People and programs have a profile, follow topics and send to them. One server, the **primary**,
//! takes every write; the **backups** hold a copy of everything, and when the primary dies they elect
//! another by the bully algorithm. A notification that was acknowledged is on the disks of a majority
//! by then, so the next primary has it, and every client goes on where it stood.
//!
//! This library is all of it: what the daemon `recadod` runs, and what programs use to talk to it
//! ([`client`]). Programs need [`client`], [`id`] and [`config`]; the rest is public for the daemon and
//! for the tests that drive it.
//!
//! # The parts
//!
//! The protocol is **pure**: state machines without socket, file, thread, lock, channel or clock. Each
//! takes `handle(now, input, &mut effects)` and says its `next_deadline()`. Around them stand threads
//! that feed them and perform their effects. The simulator (`tests/sim`) does the same on virtual time,
//! so what it breaks is the code that ships.
//!
//! ```text
//!                    pure                                     the world
//!   client::machine   a client's side             client   a blocking Client around it
//!   server::node      one server, composed of:    server   threads and channels around it
//!     replica           who leads, what counts    journal  log, snapshots, meta: files
//!     service           what an operation does    net      UDP sockets
//!     delivery          who gets what, when
//!   server::door      who is listened to, and the keys
//!   server::budget    how much of it, from whom; server::cost, what a request costs
//!   wire              packets and their bytes     durable  files that a power cut leaves whole
//!   entropy           random numbers from a seed  random   the system's, for seeds and keys
//!                                                 sync     threads, channels, sockets, or a test's model of them
//!   hex, fnv, bulk    bytes as digits, as a hash, in one piece
//!   fair              who gives way in a full table
//! ```
//!
//! # The life of a notification
//!
//! 1. `recado send` gives the text to a [`client`]. Its [machine](client::machine) takes the next number
//!    of this device, and sends SEND in a datagram until it is answered, to whoever is primary by then.
//! 2. At the primary the listener ([`server`]) takes the datagram from [`net`] and hands it to the handler
//!    of its session, which opens it with the session's key ([`server::door`]) and decodes it ([`wire`]).
//! 3. The replica thread asks the [node](server::node): is the session live, is this the next number? Then
//!    it is proposed: [`replica`] gives it an **op**, its place in the one log, and casts it in ENTRIES to
//!    the backups while the [`journal`] writes it here.
//! 4. Each backup writes it, fsyncs, and acknowledges what it has matched with this primary. With a
//!    majority of fsyncs the op is **committed**.
//! 5. Every server applies it to its [`service`], in op order: the notification is stored once, in its
//!    topic, however many follow it. The primary answers SEND_ACK with the op.
//! 6. [`delivery`] at the primary sends NOTIFICATION to each receiving session that follows the topic,
//!    naming the op before it in that session's stream, and again until the client acknowledges it.
//! 7. The follower's machine hands it to the application if nothing before it is missing, and moves the
//!    **cursor**: one number, everything up to which this device has seen. Cursors go into the log, one
//!    entry a second for all devices.
//!
//! If the primary dies anywhere in between, the backups stop hearing it, elect another, and the client
//! asks that one. What was committed is there; what was not is sent again under the same number.
//!
//! # Reading order
//!
//! [`id`] (the words everything is said in), [`entry`] and [`config`]; [`wire`], above all
//! [`wire::packet`] and [`wire::seal`]; [`service`]; [`replica`], the heart; [`delivery`];
//! [`client::machine`]; [`server::node`], which puts them together, and [`server::door`], who gets in; then
//! the world: [`journal`], [`net`], [`server`], [`client`].
//!
//! # Invariants, mostly about what is absent
//!
//! - The pure parts never read a clock, never block, and never iterate a hash map: the same inputs give
//!   the same outputs, byte for byte.
//! - [`replica`] does not know what it replicates; [`service`] does not know that it is replicated.
//! - Nothing pending is stored. What a device has yet to see follows from what it follows and its cursor.
//! - Nothing is acknowledged, applied or delivered before it is committed.
//! - Only [`journal`] touches a server's data, and only [`durable`] makes the other files that must last; only
//!   [`net`] makes a socket, and is named for it by `sync` alone; only [`wire::codec`] names the encoding; only `server/clock.rs` reads a clock, and
//!   only `server/threads.rs` starts threads, also for the client.
//! - Bytes from outside give a value or a typed error: never a panic, never an allocation beyond a limit.
//! - Every queue and table has a bound, and what happens when it is full stands beside it.
//! - Nothing travels in the clear but HELLO and RETRY, which tell nothing secret: every other datagram is
//!   sealed, by a key that no other life of a server had, under a number that no other datagram has
//!   ([`wire::seal`]); before a handshake nothing is stored for anybody.
//!
//! Who may import whom is a table in `tests/it/tidy.rs`, and a test.

#![forbid(unsafe_code)]
// They panic where nobody reads, and a server outlives the reader of its log.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod bulk;
pub mod client;
pub mod config;
pub mod delivery;
pub mod durable;
pub mod entropy;
pub mod entry;
mod fair;
mod fnv;
mod hex;
pub mod id;
pub mod journal;
pub mod net;
pub mod random;
pub mod replica;
pub mod server;
pub mod service;
mod sync;
pub mod wire;
