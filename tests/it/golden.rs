//! The wire protocol, the log's format and that of snapshots, pinned byte by byte: `golden/*.hex` has a file
//! for every packet and command, and one of a snapshot. A difference means that old and new programs do not
//! understand each other. `UPDATE_EXPECT=1` rewrites the files.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::PathBuf;

use recado::server::node::Image;
use recado_proto::codec::{Undecoded, decode, decode_packet, decode_snapshot_in_pieces, encode};
use recado_proto::command::{Command, Stamped};
use recado_proto::envelope::{Ack, AckRange, Class, Envelope, Header, open, seal};
use recado_proto::id::{ClusterId, Epoch, Incarnation, NodeId, Op, Seq, SessionId, View};
use recado_proto::members::{Member, Members};
use recado_proto::packet::{OptionalFields, Packet, SendAck, ToClient, ToPeer, ToServer};
use recado_proto::seal::Key;
use serde::de::DeserializeOwned;

use crate::samples::Samples;

/// The texts of the golden files by name, with one line for each sample.
type Golden = BTreeMap<String, String>;

fn decode_whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecoded<()>> {
    decode_snapshot_in_pieces(bytes.len() as u64, |piece| {
        piece.extend_from_slice(bytes);
        Ok(())
    })
}

fn add(golden: &mut Golden, name: String, bytes: &[u8]) {
    let text = golden.entry(name).or_default();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text.push('\n');
}

fn snake(kind: &str) -> String {
    let mut text = String::new();
    for letter in kind.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden")
}

/// Compares the samples with the files, or rewrites the files.
fn expect(golden: &Golden) {
    for (name, text) in golden {
        let path = directory().join(format!("{name}.hex"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, text).unwrap();
        }
        let pinned = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            &pinned, text,
            "{name} is not what golden/{name}.hex has: another format needs another version"
        );
    }
}

/// The names of the golden files of a set.
fn files<S: Samples>() -> Vec<String> {
    S::KINDS.iter().map(|kind| format!("{}{}", S::PREFIX, snake(kind))).collect()
}

fn pin<P: Packet + Samples + Clone + Debug + PartialEq>() {
    let mut golden = Golden::new();
    for packet in P::samples() {
        let bytes = encode(&packet);
        assert_eq!(decode_packet(&bytes), Ok((packet.clone(), bytes.len())));
        assert_eq!(P::KINDS[usize::from(bytes[0])], packet.kind(), "tags are consecutive");
        add(&mut golden, format!("{}{}", P::PREFIX, snake(packet.kind())), &bytes);
    }
    let names: Vec<String> = golden.keys().cloned().collect();
    let mut wanted = files::<P>();
    wanted.sort();
    assert_eq!(names, wanted, "every packet has a sample");
    expect(&golden);
}

#[test]
fn packets_have_their_pinned_bytes() {
    pin::<ToServer>();
    pin::<ToClient>();
    pin::<ToPeer>();
}

#[test]
fn commands_have_their_pinned_bytes() {
    let mut golden = Golden::new();
    for command in Command::samples() {
        let name = format!("{}{}", Command::PREFIX, snake(command.kind()));
        let stamped = Stamped { unix_ms: 1_700_000_000_000, command };
        let bytes = encode(&stamped);
        assert_eq!(decode(&bytes), Ok(stamped));
        add(&mut golden, name, &bytes);
    }
    assert_eq!(golden.len(), Command::KINDS.len(), "every command has a sample");
    expect(&golden);
}

#[test]
fn datagrams_have_their_pinned_bytes() {
    let mut golden = Golden::new();
    let mut keys = Key::new([0x5e; 32]).into();
    for (class, node, ack) in [
        (Class::Handshake, None, None),
        (
            Class::Client,
            Some(NodeId(2)),
            Some(Ack { largest: 300, first: 63, further: vec![AckRange { gap: 1, length: 99 }] }),
        ),
        (Class::Peer, Some(NodeId(3)), Some(Ack { largest: 1, first: 0, further: Vec::new() })),
    ] {
        let envelope = Envelope {
            class,
            cluster: ClusterId(0x0102_0304_0506_0708),
            session: SessionId(Op(0x1112)),
            node,
            incarnation: Incarnation(0x21),
            number: 0x3132,
        };
        let header = Header { ack, view: View::new(7, NodeId(3)) };
        let ack = SendAck { seq: Seq(4), op: Op(300), data: OptionalFields::NONE };
        let packets = [ToClient::PathChallenge(1), ToClient::SendAck(ack)];
        let datagram = seal(&mut keys, &envelope, &header, &packets.each_ref().map(encode));
        let opened = open(&mut keys, &datagram).unwrap();
        assert_eq!((opened.envelope, opened.header, &opened.packets[..]), (envelope, header, &packets[..]));
        add(&mut golden, "datagram".into(), &datagram);
    }
    expect(&golden);
}

/// The state in it has a record of every kind, each optional field both set and unset.
#[test]
fn a_snapshot_has_its_pinned_bytes() {
    let state = include_str!("../../crates/service/src/tests/golden/state.hex").trim_end();
    let digits = state.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let state: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let member = |id: u16, client: &str, peer: &str| Member {
        id: NodeId(id),
        client: client.parse().unwrap(),
        peer: peer.parse().unwrap(),
        joined: Incarnation(u64::from(id) + 0x20),
        role: 0,
    };
    let list = vec![
        member(2, "192.0.2.1:10097", "192.0.2.1:11097"),
        member(3, "[2001:db8::1]:10098", "[2001:db8::1]:11098"),
    ];
    let image = Image {
        format: Image::FORMAT,
        cluster: ClusterId(0x0102_0304_0506_0708),
        members_op: Op(300),
        members: Members { list, tie_holder: NodeId(3), epoch: Epoch(0x1112_1314) },
        op: Op(4_000),
        view: View::new(7, NodeId(3)),
        state: decode_whole(&state).unwrap(),
    };
    let bytes = encode(&image);
    assert_eq!(decode_whole(&bytes), Ok(image));
    let mut golden = Golden::new();
    add(&mut golden, "snapshot".into(), &bytes);
    expect(&golden);
}

#[test]
fn no_golden_file_is_left_of_something_that_is_gone() {
    let mut wanted = vec!["datagram".to_owned(), "snapshot".to_owned()];
    wanted.extend(files::<ToServer>());
    wanted.extend(files::<ToClient>());
    wanted.extend(files::<ToPeer>());
    wanted.extend(files::<Command>());
    for file in fs::read_dir(directory()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".hex").unwrap_or(&name);
        assert!(wanted.iter().any(|kind| kind == stem), "golden/{name} belongs to nothing");
    }
}
