//! Encoding and decoding of arbitrary packets gives the same packets.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use recado_proto::codec::{decode_packet, encode};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{ChannelName, Name, Op, Priority, Seq, Topic, View};
use recado_proto::packet::*;

use crate::samples::Samples;

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9][a-z0-9_.-]{0,30}[a-z0-9]".prop_map(|text| text.parse().unwrap())
}

fn channel() -> impl Strategy<Value = ChannelName> {
    "[A-Za-z0-9]([-_.~A-Za-z0-9]{0,126}[A-Za-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn topic() -> impl Strategy<Value = Topic> {
    prop_oneof![
        name().prop_map(Topic::Feed),
        channel().prop_map(Topic::Channel),
        name().prop_map(Topic::Inbox),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let tags = prop::collection::vec("\\PC{0,8}", 0..=16);
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let extra = prop::collection::btree_map("[a-z]{1,32}", bytes(900), 0..=4);
    let body = prop_oneof!["\\PC{0,2000}".prop_map(Body::from), bytes(2_000).prop_map(Body::binary)];
    (prop::option::of("\\PC{0,60}"), 1..=5_u8, tags, body, extra).prop_map(
        |(title, priority, tags, body, extra)| Content {
            title,
            priority: Priority::try_from(priority).unwrap(),
            tags,
            body,
            extra: extra.into_iter().collect(),
        },
    )
}

fn notification() -> impl Strategy<Value = Arc<Notification>> {
    (any::<u64>(), topic(), name(), any::<u64>(), content()).prop_map(
        |(op, topic, author, unix_ms, content)| {
            Arc::new(Notification {
                op: Op(op),
                topic,
                author,
                unix_ms,
                content,
                options: OptionalFields::NONE,
            })
        },
    )
}

fn entries() -> impl Strategy<Value = ToPeer> {
    let payloads = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 0..8);
    (payloads, 0..u64::MAX - 100, any::<u64>(), any::<Option<u64>>()).prop_map(
        |(payloads, prev, view, fetch)| {
            let view = View(view);
            let entries = (prev + 1..).zip(payloads).map(|(op, payload)| Entry {
                op: Op(op),
                view,
                kind: EntryKind::from((op % 5) as u16),
                payload: payload.into(),
            });
            ToPeer::Entries(Entries {
                view,
                fetch: fetch.map(QueryId),
                prev_op: Op(prev),
                prev_view: view,
                commit: Op(prev / 2),
                entries: entries.collect(),
                members_op: Op::ZERO,
            })
        },
    )
}

fn history_page() -> impl Strategy<Value = ToClient> {
    let page = prop::collection::btree_map(any::<u64>(), notification(), 0..5);
    (any::<u64>(), page, any::<bool>(), any::<u64>()).prop_map(|(query, page, more, applied)| {
        let notifications = page.into_iter().map(|(op, notification)| {
            Arc::new(Notification { op: Op(op), ..Notification::clone(&notification) })
        });
        let page =
            HistoryPage { notifications: notifications.collect(), more, trimmed_upto: Op(applied / 3) };
        ToClient::Answer(Answer {
            id: QueryId(query),
            applied: Position::of(Op(applied)),
            kind: AnswerKind::History(page),
            options: OptionalFields::NONE,
        })
    })
}

fn to_server() -> impl Strategy<Value = ToServer> {
    prop_oneof![
        (any::<u64>(), any::<u64>(), prop::option::of(topic()), content()).prop_map(
            |(seq, below, topic, content)| ToServer::Send(Send {
                seq: Seq(seq),
                answered_below: Seq(below),
                topic,
                content,
                nonce: seq,
                options: OptionalFields::NONE,
            })
        ),
        (any::<u64>(), prop::collection::vec(any::<u64>(), 0..=64), any::<u32>()).prop_map(
            |(upto, held, credit)| ToServer::ClientAck(ClientAck {
                upto: Position::of(Op(upto)),
                held: held.into_iter().map(Op).collect(),
                credit
            })
        ),
    ]
}

fn to_client() -> impl Strategy<Value = ToClient> {
    prop_oneof![
        (any::<u64>(), notification()).prop_map(|(prev, notification)| ToClient::Delivered(Delivered {
            prev: Op(prev),
            item: Item::Notification(notification)
        })),
        history_page(),
    ]
}

fn run<S: Strategy>(seed: u8, strategy: &S, check: impl Fn(S::Value)) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
        .run(strategy, |value| {
            check(value);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

fn comes_back<P: Packet + Clone + Debug + PartialEq>(packet: &P) {
    let bytes = encode(packet);
    assert_eq!(decode_packet(&bytes), Ok((packet.clone(), bytes.len())));
}

#[test]
fn packets_with_text_lists_and_payloads_come_back() {
    run(1, &to_server(), |packet| comes_back(&packet));
    run(2, &to_client(), |packet| comes_back(&packet));
    run(3, &entries(), |packet| comes_back(&packet));
}

/// A packet that the decoder reads from random bytes after a tag encodes to the same packet. The kinds that
/// hold little else than numbers are reached this way.
#[test]
fn whatever_is_decoded_from_noise_comes_back() {
    fn of<P: Packet + Samples + Clone + Debug + PartialEq>() {
        for tag in 0..P::KINDS.len() as u8 {
            run(tag, &prop::collection::vec(0..=4_u8, 0..80), |noise| {
                let bytes: Vec<u8> = std::iter::once(tag).chain(noise).collect();
                if let Ok((packet, _)) = decode_packet::<P>(&bytes) {
                    comes_back(&packet);
                }
            });
        }
    }
    of::<ToServer>();
    of::<ToClient>();
    of::<ToPeer>();
}
