//! recado: notifications that survive the failure of a server.
//!
//! People and programs have a profile, follow topics and send to them. One server, the **primary**, takes
//! every write; the **backups** hold a copy of everything, and when the primary dies they elect another by
//! the bully algorithm. A notification is acknowledged only when a majority of the servers has it on disk,
//! so the next primary has it too, and every client continues from its cursor.
//!
//! This package is what one server runs: the daemon `recadod` and the library behind it. The parts that
//! others need too are crates of their own; programs that talk to a server need [`recado_client`] alone.
//!
//! # The parts
//!
//! The protocol is **pure**: state machines without socket, file, thread, lock, channel or clock. Each takes
//! time, input and randomness as arguments, returns what is to be done, and, if time matters to it, says when
//! it is due (`next_deadline()`). Threads around them feed them and perform their effects. The simulator
//! (`tests/sim`) does the same on virtual time, so it tests the code that ships.
//!
//! ```text
//!                       pure                                        I/O and threads
//!   crates/proto        types, packets, bytes, keys, the link
//!   crates/service      the effect of an operation
//!   crates/log          ordered: a log as a node sees it            journal: log, snapshots, meta
//!                       bully: its engine, composed of
//!                       replica: election and commit, and
//!                       links: sealed datagrams between servers
//!   crates/client       machine: a client's side                    a blocking Client, and a Reader
//!   crates/sys                                                      threads, clocks, UDP, durable files,
//!                                                                   other processes
//!   crates/doctor       what is wrong, from what was seen           observe, for both doctors
//!   src/server          node: one server, over an ordered log       threads and channels around it
//!                       shard: the sessions of one handler
//!                       engine: the choice of its log
//!                       handshake, budget (rates), cost
//!   src/delivery        notifications and answers to sessions
//!   src/fair            eviction from a full table
//!   src/config          settings                                    config::file: recado.toml
//!   src/recadod         monitor/machine: which server is run        the daemon: its commands, its log, the
//!                                                                   monitor of a machine's servers
//! ```
//!
//! A crate depends only on those that its `Cargo.toml` names, and a test (`tests/it/tidy.rs`) holds that
//! list: proto on none; service and sys on proto; log and client on proto and sys; doctor on client, proto
//! and sys; the terminal client (`ui`) on client, doctor and proto; `bench`, which measures, on client, proto
//! and sys. The same test holds what the modules of this package may know: `config` and `fair` none of the
//! others, [`delivery`] these two, [`server`] these three.
//!
//! # The path of a notification
//!
//! 1. `recado send` gives the text to a [`recado_client::Client`]. Its [machine](recado_client::machine)
//!    takes the next number of this device, and sends SEND in a datagram to the current primary until it is
//!    answered.
//! 2. At the primary the listener ([`server`]) takes the datagram from [`recado_sys::net`] and hands it to
//!    the handler of its session, whose [shard](server::shard) opens it with the session's key and decodes
//!    it ([`recado_proto`]).
//! 3. The replica thread asks the [node](server::node) if the session is live and if this is the next
//!    number. If so, the node proposes the operation to its [ordered log](recado_log::ordered):
//!    `recado_log::replica` gives it an **op**, its position in the log, and casts it in ENTRIES to the
//!    backups while [`recado_log::journal`] writes it here.
//! 4. Each backup writes it, fsyncs, and acknowledges the ops that it has matched with this primary. With a
//!    majority of fsyncs the op is **committed**.
//! 5. Every server applies it to its [`recado_service`], in op order: the notification is stored once, in
//!    its topic, however many profiles follow the topic. The primary answers SEND_ACK with the op.
//! 6. [`delivery`] at the primary sends DELIVERED to each receiving session that follows the topic, with
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
//! A value of the store goes the same way: PUT in place of SEND, and its op is the timestamp. A read is a
//! query, which any server answers from what it has applied, if that is as late as the client's token.
//!
//! # Reading order
//!
//! [`recado_proto`], above all its `id`, `entry`, `packet` and `seal`; [`config`]; [`recado_service`];
//! [`recado_log::ordered`]; `recado_log::replica`, the core, and `recado_log::links`, which
//! [`recado_log::bully`] joins; [`delivery`]; [`recado_client::machine`]; [`server::node`], the service over
//! the log; [`server::shard`] with [`server::handshake`]; then the parts with I/O:
//! [`recado_log::journal`], [`recado_sys`], [`server`], [`recado_client`].
//!
//! # Invariants
//!
//! - The pure parts never read a clock, never block, and never iterate a hash map: the same inputs give the
//!   same outputs, byte for byte.
//! - `recado_log::replica` does not know what it replicates; [`recado_service`] does not know that it is
//!   replicated; [`server::node`], between them, does not know how ([`recado_log::ordered`]).
//! - Nothing pending is stored. The notifications that a device has yet to see follow from its follows and
//!   its cursor.
//! - Nothing is acknowledged, applied or delivered before it is committed.
//! - Only [`recado_log::journal`] touches a server's data, and only [`recado_sys::durable`] makes the other
//!   files that must survive a crash. Only [`recado_sys`] makes a socket, reads a clock or starts a thread,
//!   also for the client. Only [`recado_proto::codec`] names the encoding.
//! - Bytes from outside give a value or a typed error: never a panic, never an allocation beyond a limit.
//! - Every queue and table has a bound, and its policy when full stands beside it.
//! - Only HELLO, RETRY and VERSION travel in the clear, and they contain nothing secret. Every other datagram
//!   is sealed, under a key that is bound to the server's boot id and a number that no other datagram under
//!   that key has ([`recado_proto::seal`]). Before a handshake nothing is stored for a sender.

#![forbid(unsafe_code)]
// These macros panic when nobody reads the output, and a server outlives the reader of its log.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod config;
pub mod delivery;
mod fair;
pub mod server;
