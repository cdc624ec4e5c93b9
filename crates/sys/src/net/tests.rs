//! Tests on 127.0.0.1 with free ports. Loopback UDP with buffers of this size loses no traffic this small.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;

fn bound() -> BoundSocket {
    BoundSocket::bind("127.0.0.1:0".parse().unwrap(), Duration::from_secs(5)).unwrap()
}

fn receive_all(socket: &BoundSocket, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut inbox = Inbox::new(32);
    let mut all = Vec::new();
    while all.len() < wanted {
        socket.receive(&mut inbox).unwrap();
        assert!(!inbox.is_empty(), "{} of {wanted} datagrams came", all.len());
        all.extend(inbox.datagrams().map(|(from, bytes)| (from, bytes.to_vec())));
    }
    all
}

#[test]
fn a_batch_arrives_whole_and_in_order() {
    let (here, there) = (bound(), bound());
    let batch: Vec<_> = (0..200u32).map(|n| (there.addr(), n.to_be_bytes().to_vec())).collect();
    let report = here.send(&batch);
    assert_eq!((report.sent, report.failed), (200, 0));
    let got = receive_all(&there, 200);
    assert!(got.iter().all(|(from, _)| *from == here.addr()));
    assert_eq!(
        got.into_iter().map(|(_, b)| b).collect::<Vec<_>>(),
        batch.into_iter().map(|(_, b)| b).collect::<Vec<_>>()
    );
}

#[test]
fn one_bad_address_does_not_stop_the_rest_of_a_batch() {
    let (here, there) = (bound(), bound());
    let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let batch = [(there.addr(), vec![1]), (nowhere, vec![2]), (there.addr(), vec![3])];
    let report = here.send(&batch);
    assert_eq!((report.sent, report.failed), (2, 1));
    assert!(report.last_error.is_some());
    let got: BTreeSet<Vec<u8>> = receive_all(&there, 2).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(got, BTreeSet::from([vec![1], vec![3]]));
}

#[test]
fn a_long_datagram_arrives_whole() {
    let (here, there) = (bound(), bound());
    here.send(&[(there.addr(), vec![7; 60_000])]);
    assert_eq!(receive_all(&there, 1)[0].1, [7; 60_000]);
}

/// What the system joins on the way is handed out as it was sent, whatever stands before and after.
#[test]
fn datagrams_of_all_sizes_and_addresses_keep_their_bounds_and_their_order() {
    let (here, one, other) = (bound(), bound(), bound());
    let sizes = [1200, 1200, 1200, 700, 1200, 1200, 0, 1200, 1200, 1, 1, 1, 900, 1200, 1200, 0, 0, 300];
    let batch: Vec<_> = (0..600u32)
        .map(|n| {
            let to = if n / 50 % 3 == 2 { &other } else { &one };
            let size = sizes[n as usize % sizes.len()];
            (to.addr(), n.to_be_bytes().into_iter().cycle().take(size).collect::<Vec<u8>>())
        })
        .collect();
    for batch in batch.chunks(150) {
        let report = here.send(batch);
        assert_eq!((report.sent, report.failed), (150, 0));
        for there in [&one, &other] {
            let sent: Vec<_> = batch.iter().filter(|(to, _)| *to == there.addr()).map(|(_, b)| b).collect();
            let got = receive_all(there, sent.len());
            assert!(got.iter().map(|(_, bytes)| bytes).eq(sent));
        }
    }
}

#[test]
fn what_the_system_joins_comes_in_one_slot() {
    let (here, there) = (bound(), bound());
    if here.joins() == 1 {
        println!("left out: this system joins no datagrams");
        return;
    }
    let report = here.send(&vec![(there.addr(), vec![7; 1200]); 20]);
    assert_eq!((report.sent, report.failed), (20, 0));
    let mut inbox = Inbox::new(1);
    there.receive(&mut inbox).unwrap();
    assert_eq!(inbox.datagrams().count(), 20);
}

/// The system refuses it as it refuses joined datagrams.
#[test]
fn a_datagram_to_port_zero_fails_and_others_are_joined_all_the_same() {
    let here = bound();
    let before = here.joins();
    let report = here.send(&[("127.0.0.1:0".parse().unwrap(), vec![1; 90])]);
    assert_eq!((report.sent, report.failed, here.joins()), (0, 1, before));
}

#[test]
fn an_inbox_that_is_too_small_leaves_the_rest_for_the_next_receive() {
    let (here, there) = (bound(), bound());
    let other = bound();
    for n in 0..10 {
        // By turns, so that the system joins none of them.
        let from = if n % 2 == 0 { &here } else { &other };
        from.send(&[(there.addr(), vec![n; 10])]);
    }
    let mut inbox = Inbox::new(4);
    for expected in [4, 4, 2, 0] {
        there.take(&mut inbox).unwrap();
        assert_eq!(inbox.datagrams().count(), expected);
    }
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    let (here, there) = (bound(), bound());
    here.send(&[(there.addr(), Vec::new())]);
    let mut inbox = Inbox::new(4);
    there.receive(&mut inbox).unwrap();
    assert_eq!(inbox.datagrams().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [0]);
}

#[test]
fn silence_gives_an_empty_inbox_after_the_patience() {
    let socket = BoundSocket::bind("127.0.0.1:0".parse().unwrap(), Duration::ZERO).unwrap();
    let mut inbox = Inbox::new(4);
    socket.receive(&mut inbox).unwrap();
    assert!(inbox.is_empty());
}

#[test]
fn a_closed_port_refuses_at_the_first_datagram_and_an_open_one_does_not() {
    let there = bound();
    let peer = PeerSocket::connect("127.0.0.1".parse().unwrap(), there.addr()).unwrap();
    let report = peer.send(vec![b"alive".to_vec()]);
    assert!((report.sent, report.failed, report.refused) == (1, 0, false));
    drop(there);
    assert!(peer.send(vec![b"dead".to_vec()]).refused);
}

#[test]
fn a_port_that_is_open_again_gets_the_datagrams_after_the_refusal() {
    for count in [1, 3] {
        let there = bound();
        let addr = there.addr();
        let peer = PeerSocket::connect("127.0.0.1".parse().unwrap(), addr).unwrap();
        drop(there);
        assert!(peer.send(vec![b"dead".to_vec()]).refused);
        let there = BoundSocket::bind(addr, Duration::from_secs(5)).unwrap();
        let report = peer.send(vec![b"back".to_vec(); count]);
        assert!((report.sent, report.failed, report.refused) == (count, 0, false));
        assert!(receive_all(&there, count).iter().all(|(_, bytes)| bytes == b"back"));
    }
}

/// The refusal of the first of them is known only after it was sent, and the kernel tells it at the next.
#[test]
fn a_refusal_in_the_middle_of_a_batch_costs_none_of_its_datagrams() {
    let there = bound();
    let peer = PeerSocket::connect("127.0.0.1".parse().unwrap(), there.addr()).unwrap();
    drop(there);
    // Of different sizes, so that the system joins none of them.
    let report = peer.send((1..=3).map(|size| vec![0; size]).collect());
    assert!(report.refused);
    assert_eq!(report.failed, 0, "{:?}", report.last_error);
}

#[test]
fn a_datagram_that_is_too_long_for_the_system_is_lost_like_a_probe_and_others_are_not() {
    let there = bound();
    let peer = PeerSocket::connect("127.0.0.1".parse().unwrap(), there.addr()).unwrap();
    // One byte more than an IPv4 packet holds. The kernel tells that again at the next.
    let report = peer.send(vec![vec![1; 65_508], vec![2; 1_200]]);
    assert_eq!((report.sent, report.failed, report.refused), (1, 0, false));
    assert_eq!(receive_all(&there, 1)[0].1, [2; 1_200]);
}

#[test]
fn two_sockets_never_share_an_address() {
    let first = bound();
    let error = BoundSocket::bind(first.addr(), Duration::from_secs(1)).unwrap_err();
    assert_eq!((error.op, error.addr), (NetOp::Bind, first.addr()));
}
