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
        all.extend(inbox.datagrams().map(|(from, bytes, _)| (from, bytes.to_vec())));
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
fn an_oversized_datagram_shows_its_true_length() {
    let (here, there) = (bound(), bound());
    here.send(&[(there.addr(), vec![7; 4000])]);
    let mut inbox = Inbox::new(4);
    there.receive(&mut inbox).unwrap();
    let (_, kept, len) = inbox.datagrams().next().unwrap();
    assert_eq!(len, 4000);
    assert!(kept.len() < 4000 && kept.iter().all(|byte| *byte == 7));
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    let (here, there) = (bound(), bound());
    here.send(&[(there.addr(), Vec::new())]);
    let mut inbox = Inbox::new(4);
    there.receive(&mut inbox).unwrap();
    assert_eq!(inbox.datagrams().map(|(_, bytes, len)| (bytes.len(), len)).collect::<Vec<_>>(), [(0, 0)]);
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
    assert!(matches!(peer.send(b"alive"), SendOutcome::Sent));
    drop(there);
    assert!(matches!(peer.send(b"dead"), SendOutcome::Refused));
}

#[test]
fn a_port_that_is_open_again_gets_the_datagram_after_the_refusal() {
    let there = bound();
    let addr = there.addr();
    let peer = PeerSocket::connect("127.0.0.1".parse().unwrap(), addr).unwrap();
    drop(there);
    assert!(matches!(peer.send(b"dead"), SendOutcome::Refused));
    let there = BoundSocket::bind(addr, Duration::from_secs(5)).unwrap();
    assert!(matches!(peer.send(b"back"), SendOutcome::Sent));
    assert_eq!(receive_all(&there, 1)[0].1, b"back");
}

#[test]
fn two_sockets_never_share_an_address() {
    let first = bound();
    let error = BoundSocket::bind(first.addr(), Duration::from_secs(1)).unwrap_err();
    assert_eq!((error.op, error.addr), (NetOp::Bind, first.addr()));
}
