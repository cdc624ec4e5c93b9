//! Fuzz targets for packets and fragments, as they are inside the seal: they come from peers and clients that
//! hold a key and may still be hostile.

use std::fmt::Debug;

use bolero::check;
use recado_proto::codec::{PACKET_MAX, decode_packet, encode};
use recado_proto::fragment::{PARTIAL_MAX, Reassembler, split};
use recado_proto::id::{Moment, Seq};
use recado_proto::packet::{Content, Fragment, OptionalFields, Packet, Send, ToClient, ToPeer, ToServer};

use crate::samples;
use crate::script::Script;

/// A corrupted packet decodes to a packet that encodes to the same bytes, or is refused.
#[test]
fn a_packet_reads_as_it_is_written_or_not_at_all() {
    let samples = samples::encoded();
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let mut bytes = script.pick(&samples).clone();
        script.corrupt(&mut bytes);
        reads_as_written(&bytes);
        reads_as_written(script.bytes(input.len()));
    });
}

fn reads_as_written(bytes: &[u8]) {
    fn of<P: Packet + Debug + PartialEq>(bytes: &[u8]) {
        if let Ok((packet, length)) = decode_packet::<P>(bytes) {
            assert!(length <= bytes.len());
            let again = encode(&packet);
            assert_eq!(decode_packet(&again), Ok((packet, again.len())));
        }
    }
    of::<ToServer>(bytes);
    of::<ToClient>(bytes);
    of::<ToPeer>(bytes);
}

/// Fragments of a packet give that packet or none, and no more packets wait for fragments than allowed. A
/// packet whose fragments all arrive is reassembled, whatever arrives between them.
#[test]
fn pieces_give_what_was_cut_and_never_more_wait_than_may() {
    let body = "recado ".repeat(1_000);
    let content = Content::of(body);
    let send = Send {
        seq: Seq(1),
        answered_below: Seq(1),
        topic: None,
        content,
        nonce: 1,
        options: OptionalFields::NONE,
    };
    let whole = encode(&ToServer::Send(send));
    let genuine = split(1_000, &whole);
    assert!(genuine.len() > 3);
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let mut reassembler = Reassembler::default();
        let mut now = Moment(0);
        let mut came = 0;
        let mut put_together = 0;
        while !script.is_over() {
            // A genuine fragment in its turn, any genuine fragment, or an arbitrary one.
            let piece = match script.number::<1>() % 4 {
                0 if came < genuine.len() => {
                    came += 1;
                    genuine[came - 1].clone()
                }
                0 | 1 => script.pick(&genuine).clone(),
                _ => {
                    let mut piece = script.pick(&genuine).clone();
                    piece.first = script.number::<1>();
                    piece.offset = script.number::<2>() as u32;
                    piece.total = script.number::<4>() as u32 % (PACKET_MAX as u32 + 2);
                    let length = script.below(1_300);
                    piece.bytes = vec![piece.first as u8; length];
                    piece
                }
            };
            now.0 += script.number::<2>() * 100;
            let of_genuine = genuine[0].first == piece.first;
            if let Ok(Some(packet)) = reassembler.accept::<ToServer>(now, piece)
                && of_genuine
            {
                assert_eq!(encode(&packet), whole, "nobody sent this");
                put_together += 1;
            }
            assert!(reassembler.waiting() <= PARTIAL_MAX);
        }
        // All fragments once more, without a pause: at the latest the packet is reassembled here.
        let put_together_now = genuine
            .iter()
            .filter(|piece| {
                matches!(reassembler.accept::<ToServer>(now, Fragment::clone(piece)), Ok(Some(_)))
            })
            .count();
        assert!(put_together + put_together_now > 0);
    });
}
