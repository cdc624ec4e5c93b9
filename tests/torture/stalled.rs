//! Whoever reads a server's log may stop reading it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use recado::id::NodeId;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::cluster::{Cluster, alone};
use crate::load::round_trip;
use crate::pauses::another_primary;

/// The end that a server writes to; full already, and never read. The other end must live as long.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    // One page, the least the system has.
    let size = fcntl_setpipe_size(&writer, 4096).unwrap();
    File::from(writer.try_clone().unwrap()).write_all(&vec![b'.'; size]).unwrap();
    (reader, writer)
}

#[test]
fn readers_of_stderr_that_stall_stop_nobody() {
    let _alone = alone();
    let mut cluster = Cluster::init(3);
    let mut readers = Vec::new();
    let mut start = |cluster: &mut Cluster, node: NodeId| {
        let (reader, writer) = full_pipe();
        cluster.start_logging_to(node, writer);
        readers.push(reader);
    };
    for node in cluster.nodes() {
        start(&mut cluster, node);
    }
    let first = cluster.wait_ready();
    round_trip(&cluster, "with nobody who reads what the servers log");
    cluster.kill(first);
    another_primary(&cluster, first);
    start(&mut cluster, first);
    cluster.wait_ready();
    round_trip(&cluster, "after an election that nobody read of");
    for node in cluster.nodes() {
        // In order, and in time: it panics otherwise.
        cluster.terminate(node);
    }
}
