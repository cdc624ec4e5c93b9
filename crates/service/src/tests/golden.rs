//! The state, pinned byte by byte in `golden/state.hex`: it is what a snapshot holds. A difference means that
//! programs do not read each other's snapshots, which only another format allows. `UPDATE_EXPECT=1` rewrites
//! the file; `tests/it/golden.rs` of the server has the snapshot around it.

use std::fs;
use std::path::Path;

use recado_proto::hex::Hex;
use recado_proto::packet::{Body, OptionalField};

use super::super::state::*;
use super::*;

fn hash(byte: u8) -> CodeHash {
    CodeHash([byte; 32])
}

fn notification(op: u64, topic: Topic, content: Content, options: OptionalFields) -> Stored {
    let (author, unix_ms) = (name("bob"), 0x0102_0304);
    Stored::new(&Notification { op: Op(op), topic, author, unix_ms, content, options })
}

/// A topic that has everything, and an empty one. Each place has its own numbers, so that none can be taken
/// for another.
fn topic_states(topic: Topic, first: u64) -> [TopicState; 2] {
    let full = Content {
        title: Some("Título".into()),
        priority: Priority::try_from(5).unwrap(),
        tags: vec!["disk".into(), "sda".into()],
        body: "nearly full".into(),
        extra: vec![("click".into(), vec![1, 2]), ("icon".into(), vec![])],
    };
    let plain = Content::of(Body::binary(vec![0xff, 0]));
    let options = OptionalFields(vec![OptionalField { tag: OptionalFields::EXPIRES, bytes: vec![3] }]);
    let retained = [
        notification(first + 2, topic.clone(), full, options),
        notification(first + 3, topic, plain, OptionalFields::NONE),
    ];
    let holds = TopicState {
        followers: [(name("carol"), Op(first)), (name("dave"), Op(first + 1))].into_iter().collect(),
        retained: retained.into_iter().collect(),
        bytes: 0x0203_0405,
        trimmed_upto: Op(first - 1),
        last_op: Op(first + 3),
    };
    [holds, TopicState::default()]
}

fn topics() -> Topics {
    let by_name = |[one, other]: [TopicState; 2]| [(name("alice"), one), (name("bob"), other)];
    let channels = topic_states(channel("ops"), 2_000);
    let members = [("alice", Role::Owner), ("bob", Role::Writer), ("carol", Role::Reader)];
    let members = members.into_iter().map(|(member, role)| (name(member), role)).collect();
    let owned = Owned { private: true, members, created_ms: 71, deleted: false };
    let members = Default::default();
    let deleted = Owned { private: false, members, created_ms: 72, deleted: true };
    Topics {
        feeds: by_name(topic_states(feed("alice"), 1_000)).into_iter().collect(),
        channels: ["ops", "open"].map(channel_name).into_iter().zip(channels).collect(),
        inboxes: by_name(topic_states(inbox("alice"), 3_000)).into_iter().collect(),
        owned: [(channel_name("ops"), owned), (channel_name("gone"), deleted)].into_iter().collect(),
        makers: [(channel_name("ops"), name("alice"))].into_iter().collect(),
    }
}

fn profiles() -> [Profile; 3] {
    let used = Profile {
        claimed_op: Op(11),
        keys: vec![DeviceKey([0xa1; 32]), DeviceKey([0xa2; 32])],
        follows: [(feed("bob"), Op(12)), (channel("ops"), Op(13))].into_iter().collect(),
        sent: [Sent { op: Op(14), to: name("bob") }, Sent { op: Op(15), to: name("carol") }]
            .into_iter()
            .collect(),
        owns: 16,
        enrolment: Some(Enrolment { code: hash(0xe1), until_ms: 17, wrong: 18 }),
        claimed_ms: 19,
        usage: Usage::Used,
        channels_paid_ms: 20,
        display: Some("Alice B.".parse().unwrap()),
    };
    let claimed = Profile {
        claimed_op: Op(21),
        keys: Vec::new(),
        follows: Default::default(),
        sent: Default::default(),
        owns: 0,
        enrolment: None,
        claimed_ms: 22,
        usage: Usage::Claimed,
        channels_paid_ms: 23,
        display: None,
    };
    let entered = Profile { usage: Usage::Entered, ..claimed.clone() };
    [used, claimed, entered]
}

fn devices() -> [Device; 2] {
    let outcomes = [Ok(Op(31)), Err(Code::NotAllowed), Err(Code::Unknown(300))];
    let busy = Device {
        profile: name("alice"),
        created_op: Op(32),
        cursor: Op(33),
        last_seq: Seq(34),
        results: (0x35..).zip(outcomes).map(|(digest, result)| Outcome { digest, result }).collect(),
        session: Some(SessionId(Op(36))),
        pending: Some(SessionId(Op(37))),
        recent_nonces: [38, u64::MAX].into_iter().collect(),
        receives: true,
        last_seen_ms: 39,
    };
    let new = Device {
        profile: name("bob"),
        created_op: Op(41),
        cursor: Op(42),
        last_seq: Seq(0),
        results: Default::default(),
        session: None,
        pending: None,
        recent_nonces: Default::default(),
        receives: false,
        last_seen_ms: 43,
    };
    [busy, new]
}

/// At least one record of every kind, with every optional field set and unset. No field is left to a default,
/// so that a new one does not compile before it is here.
fn state() -> State {
    let session = |receives, nonce| Session {
        device: device(0xa1, 3),
        receives,
        nonce,
        aead: Aead::ChaCha20Poly1305,
        opened_ms: 53,
    };
    let invites = [
        (hash(0x61), Invite { uses: 62, until_ms: 63, name: Some(name("erin")) }),
        (hash(0x64), Invite { uses: 65, until_ms: 66, name: None }),
    ];
    let results = [Ok(Op(82)), Err(Code::UnknownProfile)];
    let values = [("#ops/k", Body::text("on"), "alice", 91), ("k", Body::binary(vec![0xff, 0]), "bob", 92)];
    let values = values.map(|(key, value, author, timestamp)| {
        let (value, timestamp, author) = (Arc::new(value), Op(timestamp), name(author));
        (key.parse().unwrap(), Value { value, timestamp, author })
    });
    let administered = results.map(|result| Administered { query: QueryId(81), at_ms: 83, result });
    State {
        applied: Op(4_000),
        clock_ms: 0x0102_0304_0506,
        profiles: ["alice", "bob", "carol"].map(name).into_iter().zip(profiles()).collect(),
        devices: [device(0xa1, 3), device(0xa2, 0)].into_iter().zip(devices()).collect(),
        sessions: [(SessionId(Op(36)), session(true, 51)), (SessionId(Op(37)), session(false, 52))]
            .into_iter()
            .collect(),
        topics: topics(),
        dated_ms: 5,
        admitted: Admitted {
            invites: invites.into_iter().collect(),
            keys: [DeviceKey([0x67; 32])].into_iter().collect(),
        },
        administered: administered.into_iter().collect(),
        values: values.into_iter().collect(),
    }
}

#[test]
fn a_state_has_its_pinned_bytes() {
    let bytes = codec::encode(&state());
    let decoded = codec::decode_snapshot_in_pieces(bytes.len() as u64, |piece| {
        piece.extend_from_slice(&bytes);
        Ok::<_, ()>(())
    });
    assert_eq!(decoded, Ok(state()));
    let text = format!("{}\n", Hex(&bytes));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden/state.hex");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(pinned, text, "the state has other bytes: another format needs another number");
}
