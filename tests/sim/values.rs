//! The store, checked against a model: each write in the log did what its condition says, each read has the
//! value that the key had at the op of its answer, and both are linearizable: what was asked after an answer
//! comes after it in the log.

use std::collections::BTreeMap;

use recado_proto::id::{Op, StoreKey, Topic};
use recado_proto::packet::{Code, Condition, QueryId};

use crate::history::{AskId, ClientEvent, ClientId, History, StoreDeed};

/// Runs all checks. The log must have been read to its end.
///
/// # Errors
/// The first violation.
pub fn check(history: &History) -> Result<(), String> {
    let model = Model::read(history)?;
    reads_are_of_the_log(history, &model)?;
    writes_follow_what_was_answered(history, &model)
}

/// A write that was done.
struct Written<'a> {
    key: &'a StoreKey,
    value: Option<&'a str>,
}

/// All values that the keys ever had.
#[derive(Default)]
struct Model<'a> {
    /// Of each key, what it had from each op on, ascending.
    versions: BTreeMap<&'a StoreKey, Vec<(Op, Option<&'a str>)>>,
    written: BTreeMap<Op, Written<'a>>,
}

impl<'a> Model<'a> {
    fn read(history: &'a History) -> Result<Model<'a>, String> {
        let mut model = Model::default();
        for (op, deed) in &history.values {
            match deed {
                StoreDeed::Wrote { key, condition, value, result } => {
                    let now = model.at(key, *op).map(|(timestamp, _)| timestamp);
                    let holds = match condition {
                        Condition::Always => true,
                        Condition::Absent => now.is_none(),
                        Condition::Present => now.is_some(),
                        Condition::At(at) => now == Some(*at),
                    };
                    let refused =
                        matches!(result, Err(Code::KeyExists | Code::UnknownKey | Code::StaleTimestamp));
                    if (result.is_ok() && !holds) || (refused && holds) {
                        return Err(format!(
                            "op {op} on {key} if {condition:?}: {result:?}, where it had {now:?}"
                        ));
                    }
                    if result.is_ok() {
                        let value = value.as_deref();
                        model.versions.entry(key).or_default().push((*op, value));
                        model.written.insert(*op, Written { key, value });
                    }
                }
                StoreDeed::Gone(topic) => model.end(*op, topic),
            }
        }
        Ok(model)
    }

    /// The keys of a profile or a channel lose their values.
    fn end(&mut self, op: Op, topic: &Topic) {
        let of_topic = |key: &&StoreKey| key.owner().as_ref() == Some(topic);
        for (_, versions) in self.versions.iter_mut().filter(|(key, _)| of_topic(key)) {
            versions.push((op, None));
        }
    }

    /// The timestamp and the value of a key once this op is applied.
    fn at(&self, key: &StoreKey, op: Op) -> Option<(Op, &'a str)> {
        let versions = self.versions.get(key)?;
        let (timestamp, value) = versions.iter().rev().find(|(since, _)| *since <= op)?;
        Some((*timestamp, (*value)?))
    }
}

/// Checks that each read has what its key had at the op of the answer, and that the reads of a session are of
/// no older state than its client was told of before it asked.
fn reads_are_of_the_log(history: &History, model: &Model<'_>) -> Result<(), String> {
    let mut told: BTreeMap<ClientId, Op> = BTreeMap::new();
    let mut asked: BTreeMap<(ClientId, QueryId), Op> = BTreeMap::new();
    for (client, happened) in &history.events {
        let told = told.entry(*client).or_default();
        match happened {
            ClientEvent::Acked { op, .. } => *told = (*told).max(*op),
            ClientEvent::AskedValue { query } => {
                asked.insert((*client, *query), *told);
            }
            ClientEvent::Got { query, key, value, applied } => {
                let here = format!("client {} read {value:?} of {key} at op {applied}", client.0);
                let had = model.at(key, *applied);
                if value.as_ref().map(|(text, timestamp)| (*timestamp, text.as_str())) != had {
                    return Err(format!("{here}, where it had {had:?}"));
                }
                // That of a reader is checked when it is answered.
                let Some(query) = query else { continue };
                let Some(floor) = asked.remove(&(*client, *query)) else {
                    return Err(format!("{here}, and never asked"));
                };
                if *applied < floor {
                    return Err(format!("{here}, and knew of {floor}"));
                }
                *told = (*told).max(*applied);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks that each acknowledged write is in the log, with its key and value, after everything that anybody
/// was told before it was asked.
fn writes_follow_what_was_answered(history: &History, model: &Model<'_>) -> Result<(), String> {
    let mut answered = Op::ZERO;
    let mut asked: BTreeMap<(ClientId, AskId), (&StoreKey, Option<&str>, Op)> = BTreeMap::new();
    for (client, happened) in &history.events {
        match happened {
            ClientEvent::Wrote { ask, key, value, .. } => {
                asked.insert((*client, *ask), (key, value.as_deref(), answered));
            }
            ClientEvent::Acked { ask, op } => {
                if let Some((key, value, floor)) = asked.remove(&(*client, *ask)) {
                    let here = format!("client {}: the write of {value:?} to {key} has op {op}", client.0);
                    if *op <= floor {
                        return Err(format!("{here}, and {floor} was answered before it was asked"));
                    }
                    let in_log = model.written.get(op).map(|written| (written.key, written.value));
                    if in_log != Some((key, value)) {
                        return Err(format!("{here}, where the log has {in_log:?}"));
                    }
                }
                answered = answered.max(*op);
            }
            ClientEvent::Got { value: Some((_, timestamp)), .. } => answered = answered.max(*timestamp),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::AskId;

    fn key() -> StoreKey {
        "k".parse().unwrap()
    }

    fn deed(condition: Condition, value: Option<&str>, result: Result<(), Code>) -> StoreDeed {
        StoreDeed::Wrote { key: key(), condition, value: value.map(str::to_owned), result }
    }

    fn put(value: &str) -> StoreDeed {
        deed(Condition::Always, Some(value), Ok(()))
    }

    fn delete() -> StoreDeed {
        deed(Condition::Present, None, Ok(()))
    }

    fn wrote(ask: u32, value: Option<&str>) -> ClientEvent {
        let value = value.map(str::to_owned);
        ClientEvent::Wrote { ask: AskId(ask), key: key(), value }
    }

    fn acked(ask: u32, op: u64) -> ClientEvent {
        ClientEvent::Acked { ask: AskId(ask), op: Op(op) }
    }

    fn got(query: Option<u64>, value: Option<(&str, u64)>, applied: u64) -> ClientEvent {
        let value = value.map(|(text, op)| (text.to_owned(), Op(op)));
        ClientEvent::Got { query: query.map(QueryId), key: key(), value, applied: Op(applied) }
    }

    fn asked(query: u64) -> ClientEvent {
        ClientEvent::AskedValue { query: QueryId(query) }
    }

    fn verdict(log: Vec<(u64, StoreDeed)>, events: Vec<(u8, ClientEvent)>) -> Result<(), String> {
        let values = log.into_iter().map(|(op, deed)| (Op(op), deed)).collect();
        let events = events.into_iter().map(|(client, event)| (ClientId(client), event)).collect();
        check(&History { values, events, ..History::default() })
    }

    #[test]
    fn what_the_log_says_is_right() {
        let log = vec![
            (2, put("a")),
            (4, deed(Condition::Absent, Some("x"), Err(Code::KeyExists))),
            (5, deed(Condition::At(Op(2)), Some("b"), Ok(()))),
            (7, deed(Condition::At(Op(2)), Some("x"), Err(Code::StaleTimestamp))),
            (8, deed(Condition::Always, Some("x"), Err(Code::NotAllowed))),
            (9, delete()),
            (10, deed(Condition::Present, None, Err(Code::UnknownKey))),
        ];
        let events = vec![
            (1, wrote(1, Some("a"))),
            (1, acked(1, 2)),
            (1, asked(1)),
            (2, got(None, None, 1)),
            (1, got(Some(1), Some(("a", 2)), 3)),
            (2, wrote(1, None)),
            (2, acked(1, 9)),
            (1, got(None, Some(("b", 5)), 8)),
            (1, got(None, None, 12)),
        ];
        assert_eq!(verdict(log, events), Ok(()));
    }

    #[test]
    fn a_write_against_its_condition_and_a_refusal_without_cause_are_found() {
        for (condition, result) in [
            (Condition::Absent, Ok(())),
            (Condition::At(Op(1)), Ok(())),
            (Condition::At(Op(2)), Err(Code::StaleTimestamp)),
            (Condition::Present, Err(Code::UnknownKey)),
        ] {
            let found = verdict(vec![(2, put("a")), (3, deed(condition, Some("b"), result))], vec![]);
            assert!(found.unwrap_err().contains("op 3 on k"), "{condition:?}");
        }
        assert!(verdict(vec![(2, put("a")), (3, delete()), (4, delete())], vec![]).is_err());
    }

    #[test]
    fn a_read_of_another_state_than_that_of_its_op_is_found() {
        let log = || vec![(2, put("a")), (4, put("b")), (6, delete())];
        for (value, applied) in
            [(Some(("a", 2)), 4), (Some(("b", 4)), 3), (Some(("a", 4)), 4), (Some(("b", 4)), 6), (None, 5)]
        {
            let found = verdict(log(), vec![(1, got(None, value, applied))]);
            assert!(found.unwrap_err().contains("where it had"), "{value:?} at {applied}");
        }
    }

    #[test]
    fn a_read_that_goes_back_or_does_not_have_its_own_write_is_found() {
        let log = || vec![(2, put("a")), (4, put("b"))];
        let own = vec![
            (1, wrote(1, Some("b"))),
            (1, acked(1, 4)),
            (1, asked(1)),
            (1, got(Some(1), Some(("a", 2)), 3)),
        ];
        assert!(verdict(log(), own).unwrap_err().contains("knew of 4"));
        let back = vec![
            (1, asked(1)),
            (1, got(Some(1), Some(("b", 4)), 5)),
            (1, asked(2)),
            (1, got(Some(2), Some(("b", 4)), 4)),
        ];
        assert!(verdict(log(), back).unwrap_err().contains("knew of 5"));
        assert!(verdict(log(), vec![(1, got(Some(7), None, 1))]).unwrap_err().contains("never asked"));
    }

    #[test]
    fn a_write_that_comes_before_what_was_answered_when_it_was_asked_is_found() {
        let log = || vec![(2, put("a")), (4, put("b"))];
        let ordered = |first: u64, then: u64| {
            let values = [(2, "a"), (4, "b")];
            let of = |op: u64| values.iter().find(|(at, _)| *at == op).map(|(_, text)| *text);
            vec![(1, wrote(1, of(first))), (1, acked(1, first)), (2, wrote(1, of(then))), (2, acked(1, then))]
        };
        assert_eq!(verdict(log(), ordered(2, 4)), Ok(()));
        assert!(verdict(log(), ordered(4, 2)).unwrap_err().contains("answered before it was asked"));
    }

    #[test]
    fn an_acknowledged_write_that_the_log_has_not_or_has_otherwise_is_found() {
        let write = |value| vec![(1, wrote(1, value)), (1, acked(1, 2))];
        assert!(verdict(vec![], write(Some("a"))).is_err());
        assert!(verdict(vec![(2, put("b"))], write(Some("a"))).is_err());
        assert!(verdict(vec![(2, put("a"))], write(None)).is_err());
    }

    #[test]
    fn the_values_of_a_channel_that_is_gone_are_gone() {
        let of_channel: StoreKey = "#ops/k".parse().unwrap();
        let wrote = StoreDeed::Wrote {
            key: of_channel.clone(),
            condition: Condition::Always,
            value: Some("a".into()),
            result: Ok(()),
        };
        let log = || vec![(2, wrote.clone()), (3, StoreDeed::Gone(of_channel.owner().unwrap()))];
        let read = |value: Option<(&str, u64)>| {
            let value = value.map(|(text, op)| (text.to_owned(), Op(op)));
            (1, ClientEvent::Got { query: None, key: of_channel.clone(), value, applied: Op(4) })
        };
        assert_eq!(verdict(log(), vec![read(None)]), Ok(()));
        assert!(verdict(log(), vec![read(Some(("a", 2)))]).is_err());
    }
}
