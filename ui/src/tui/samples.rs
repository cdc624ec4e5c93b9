//! What the tests show and feed: people, notifications, servers.

use std::time::Duration;

use recado::client::{
    Content, Name, NodeId, Notification, Op, Priority, RoleName, ServerStatus, StatusOk, Topic, View,
};

use super::event::Now;

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn content(body: &str) -> Content {
    Content { title: None, priority: Priority::default(), tags: vec![], body: body.to_owned() }
}

/// Stamped a minute after the one before it, from 2026-03-02 09:00 UTC on.
pub(crate) fn notification(op: u64, topic: &Topic, author: &str, body: &str) -> Notification {
    let unix_ms = 1_772_442_000_000 + op * 60_000;
    Notification { op: Op(op), topic: topic.clone(), author: name(author), unix_ms, content: content(body) }
}

/// So many seconds after the start, which was 2026-03-02 12:00 UTC.
pub(crate) fn at(seconds: u64) -> Now {
    Now { since_start: Duration::from_secs(seconds), unix_ms: 1_772_452_800_000 + seconds * 1_000 }
}

pub(crate) fn status(node: u16, role: Option<RoleName>, applied: u64) -> ServerStatus {
    let addr = format!("127.0.0.1:{}", 10_096 + node).parse().unwrap();
    let answer = role.map(|role| StatusOk {
        query: recado::wire::packet::QueryId(1),
        node: NodeId(node),
        role,
        view: View::new(4, NodeId(3)),
        applied: Op(applied),
        durable: Op(applied),
        lag: 0,
        pid: 4_000 + u32::from(node),
        incarnation: recado::id::Incarnation(1),
        uptime_ms: 60_000,
        members: vec![],
        refused: vec![],
    });
    ServerStatus { node: NodeId(node), addr, answer, round_trip: role.map(|_| Duration::from_micros(640)) }
}
