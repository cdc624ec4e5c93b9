//! recado: notifications that survive the failure of a server.
//!
//! People and programs have a profile, follow topics and send to them. One server, the **primary**, takes
//! every write; the **backups** hold a copy of everything, and when the primary dies they elect another by
//! the bully algorithm. A notification is acknowledged only when a majority of the servers has it on disk,
//! so the next primary has it too, and every client continues from its cursor.
//!
//! This library is the whole implementation: the daemon `recadod` runs it, and programs use it to talk to
//! the daemon ([`client`]). Programs need [`client`], [`id`] and [`config`]; the rest is public for the
//! daemon and for the tests that drive it.
//!
//! # The parts
//!
//! The protocol is **pure**: state machines without socket, file, thread, lock, channel or clock. Each
//! takes `handle(now, input, &mut effects)` and returns its `next_deadline()`. Threads around them feed
//! them and perform their effects. The simulator (`tests/sim`) does the same on virtual time, so it tests
//! the code that ships.
//!
//! ```text
//!                    pure                                     I/O and threads
//!   client::machine   a client's side             client   a blocking Client around it
//!   server::node      one server, composed of:    server   threads and channels around it
//!     replica           election and commit         journal  log, snapshots, meta: files
//!     service           the effect of an operation  net      UDP sockets
//!     delivery          notifications to sessions
//!   server::handshake      handshakes and session keys
//!   server::budget    rate limits; server::cost, the cost of a request
//!   wire              packets and their bytes     durable  files that survive a power cut
//!   entropy           random numbers from a seed  random   the system's, for seeds and keys
//!                                                 sync     threads, channels, sockets, or a test's model of them
//!   hex, fnv, bulk    bytes as digits, as a hash, as one block
//!   fair              eviction from a full table
//! ```
//!
//! # The path of a notification
//!
//! 1. `recado send` gives the text to a [`client`]. Its [machine](client::machine) takes the next number of
//!    this device, and sends SEND in a datagram to the current primary until it is answered.
//! 2. At the primary the listener ([`server`]) takes the datagram from [`net`] and hands it to the handler
//!    of its session, which opens it with the session's key ([`server::handshake`]) and decodes it ([`wire`]).
//! 3. The replica thread asks the [node](server::node) if the session is live and if this is the next
//!    number. If so, the node proposes the operation: [`replica`] gives it an **op**, its position in the
//!    log, and casts it in ENTRIES to the backups while the [`journal`] writes it here.
//! 4. Each backup writes it, fsyncs, and acknowledges the ops that it has matched with this primary. With a
//!    majority of fsyncs the op is **committed**.
//! 5. Every server applies it to its [`service`], in op order: the notification is stored once, in its
//!    topic, however many profiles follow the topic. The primary answers SEND_ACK with the op.
//! 6. [`delivery`] at the primary sends NOTIFICATION to each receiving session that follows the topic, with
//!    the op that precedes it in that session's stream, and retransmits it until the client acknowledges
//!    it.
//! 7. The follower's machine hands it to the application if nothing before it is missing, and moves the
//!    **cursor**: one number, the op up to which this device has seen everything. Cursors go into the log,
//!    one entry a second for all devices.
//!
//! If the primary dies during these steps, the backups stop hearing it and elect another, and the client
//! asks that one. Committed operations are in its log; the client sends the others again under the same
//! number.
//!
//! # Reading order
//!
//! [`id`] (the basic types), [`entry`] and [`config`]; [`wire`], above all [`wire::packet`] and
//! [`wire::seal`]; [`service`]; [`replica`], the core; [`delivery`]; [`client::machine`]; [`server::node`],
//! which composes them, and [`server::handshake`], the handshakes; then the parts with I/O: [`journal`],
//! [`net`], [`server`], [`client`].
//!
//! # Invariants
//!
//! - The pure parts never read a clock, never block, and never iterate a hash map: the same inputs give the
//!   same outputs, byte for byte.
//! - [`replica`] does not know what it replicates; [`service`] does not know that it is replicated.
//! - Nothing pending is stored. The notifications that a device has yet to see follow from its follows and
//!   its cursor.
//! - Nothing is acknowledged, applied or delivered before it is committed.
//! - Only [`journal`] touches a server's data, and only [`durable`] makes the other files that must survive
//!   a crash. Only [`net`] makes a socket, and only `sync` names the sockets of [`net`]. Only
//!   [`wire::codec`] names the encoding. Only `server/clock.rs` reads a clock, and only `server/threads.rs`
//!   starts threads, also for the client.
//! - Bytes from outside give a value or a typed error: never a panic, never an allocation beyond a limit.
//! - Every queue and table has a bound, and its policy when full stands beside it.
//! - Only HELLO and RETRY travel in the clear, and they contain nothing secret. Every other datagram is
//!   sealed, under a key that is bound to the server's boot id and a number that no other datagram under
//!   that key has ([`wire::seal`]). Before a handshake nothing is stored for a sender.
//!
//! The table of allowed imports is in `tests/it/tidy.rs`, and a test enforces it.

#![forbid(unsafe_code)]
// These macros panic when nobody reads the output, and a server outlives the reader of its log.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod config;
pub mod delivery;
mod fair;
pub mod server;
