//! The wire protocol and the log's format, pinned byte by byte: `golden/*.hex` has a file for every packet
//! and command. A difference means that old and new programs do not understand each other. `UPDATE_EXPECT=1`
//! rewrites the files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use recado_proto::codec::{decode, decode_packet, encode};
use recado_proto::command::Stamped;
use recado_proto::envelope::{Ack, AckRange, Class, Envelope, Header, open, seal};
use recado_proto::id::{ClusterId, Incarnation, NodeId, Op, SessionId, View};
use recado_proto::packet::{Learn, Packet};
use recado_proto::seal::Key;

use crate::samples;

/// The texts of the golden files by name, with one line for each sample.
type Golden = BTreeMap<String, String>;

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
        assert_eq!(&pinned, text, "{name} is not what golden/{name}.hex has; the format is append only");
    }
}

#[test]
fn packets_have_their_pinned_bytes() {
    let mut golden = Golden::new();
    for packet in samples::packets() {
        let bytes = encode(&packet);
        assert_eq!(decode_packet(&bytes), Ok((packet.clone(), bytes.len())));
        add(&mut golden, snake(samples::packet_kind(&packet)), &bytes);
    }
    let names: Vec<String> = golden.keys().cloned().collect();
    let mut wanted: Vec<String> = samples::PACKETS.iter().map(|kind| snake(kind)).collect();
    wanted.sort();
    assert_eq!(names, wanted, "every packet has a sample");
    expect(&golden);
}

#[test]
fn tags_are_consecutive_in_the_order_of_their_introduction() {
    for packet in samples::packets() {
        let tag = encode(&packet)[0];
        assert_eq!(samples::PACKETS[usize::from(tag)], samples::packet_kind(&packet));
    }
}

#[test]
fn commands_have_their_pinned_bytes() {
    let mut golden = Golden::new();
    for command in samples::commands() {
        let name = format!("command_{}", snake(samples::command_kind(&command)));
        let stamped = Stamped { unix_ms: 1_700_000_000_000, command };
        let bytes = encode(&stamped);
        assert_eq!(decode(&bytes), Ok(stamped));
        add(&mut golden, name, &bytes);
    }
    assert_eq!(golden.len(), samples::COMMANDS.len(), "every command has a sample");
    expect(&golden);
}

#[test]
fn datagrams_have_their_pinned_bytes() {
    let mut golden = Golden::new();
    let key = Key::new([0x5e; 32]);
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
        let packets = [Packet::Keepalive, Packet::Learn(Learn { nonce: 1 })];
        let datagram = seal(&key, &envelope, &header, &packets.each_ref().map(encode));
        let opened = open(&key, &datagram).unwrap();
        assert_eq!((opened.envelope, opened.header, &opened.packets[..]), (envelope, header, &packets[..]));
        add(&mut golden, "datagram".into(), &datagram);
    }
    expect(&golden);
}

#[test]
fn no_golden_file_is_left_of_something_that_is_gone() {
    let mut wanted: Vec<String> = samples::PACKETS.iter().map(|kind| snake(kind)).collect();
    wanted.extend(samples::COMMANDS.iter().map(|kind| format!("command_{}", snake(kind))));
    wanted.push("datagram".into());
    for file in fs::read_dir(directory()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".hex").unwrap_or(&name);
        assert!(wanted.iter().any(|kind| kind == stem), "golden/{name} belongs to nothing");
    }
}
