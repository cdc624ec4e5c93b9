//! The store: conditions, rights, limits, and what goes with a profile or a channel.

use recado_proto::packet::Body;

use super::*;

fn key(text: &str) -> StoreKey {
    text.parse().unwrap()
}

impl Log {
    fn put_if(
        &mut self,
        session: SessionId,
        at: &str,
        value: &str,
        condition: Condition,
    ) -> Result<Op, Code> {
        self.request(session, Request::Put { key: key(at), value: value.into(), condition })
    }

    fn put(&mut self, session: SessionId, at: &str, value: &str) -> Result<Op, Code> {
        self.put_if(session, at, value, Condition::Always)
    }

    fn delete(&mut self, session: SessionId, of: &str, at: Option<Op>) -> Result<Op, Code> {
        self.request(session, Request::Delete { key: key(of), at })
    }

    /// The text and the timestamp of a key.
    fn get(&self, asker: &str, of: &str) -> Result<Option<(String, Op)>, Code> {
        let value = self.service.value(&name(asker), &key(of))?;
        Ok(value.map(|value| (value.value.to_string(), value.timestamp)))
    }

    fn stored(&self, asker: &str, prefix: &str) -> Vec<String> {
        let items = self.list(asker, Listing::Stored { prefix: prefix.to_owned() }).unwrap();
        items.iter().map(ListItem::key).collect()
    }
}

#[test]
fn a_value_has_the_op_of_its_last_write_and_a_deleted_one_is_gone() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    assert_eq!(log.get("alice", "k"), Ok(None));
    let first = log.put(alice, "k", "one").unwrap();
    assert_eq!(log.get("bobby", "k"), Ok(Some(("one".into(), first))));
    let second = log.put(bobby, "k", "two").unwrap();
    assert!(second > first);
    assert_eq!(log.service.value(&name("alice"), &key("k")).unwrap().unwrap().author, name("bobby"));
    assert_eq!(log.get("alice", "k"), Ok(Some(("two".into(), second))));
    log.delete(alice, "k", None).unwrap();
    assert_eq!(log.get("bobby", "k"), Ok(None));
    assert_eq!(log.delete(alice, "k", None), Err(Code::UnknownKey));
}

#[test]
fn a_write_whose_condition_does_not_hold_changes_nothing_and_tells_the_timestamp() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let told = |log: &Log, result| {
        let request = Request::Put { key: key("k"), value: "x".into(), condition: Condition::Absent };
        log.service.tells(&name("alice"), &request, result)
    };
    for condition in [Condition::Present, Condition::At(Op(1))] {
        let missing = log.put_if(alice, "k", "x", condition);
        assert_eq!(missing, Err(Code::UnknownKey));
        assert_eq!(told(&log, missing), Tells::Timestamp(None));
    }
    let first = log.put_if(alice, "k", "one", Condition::Absent).unwrap();
    let exists = log.put_if(alice, "k", "x", Condition::Absent);
    assert_eq!((exists, told(&log, exists)), (Err(Code::KeyExists), Tells::Timestamp(Some(first))));
    let second = log.put_if(alice, "k", "two", Condition::At(first)).unwrap();
    for stale in [
        log.put_if(alice, "k", "x", Condition::At(first)),
        log.put_if(alice, "k", "x", Condition::At(second.next())),
        log.delete(alice, "k", Some(first)),
    ] {
        assert_eq!((stale, told(&log, stale)), (Err(Code::StaleTimestamp), Tells::Timestamp(Some(second))));
    }
    assert_eq!(log.get("alice", "k"), Ok(Some(("two".into(), second))));
    let third = log.put_if(alice, "k", "three", Condition::Present).unwrap();
    log.delete(alice, "k", Some(third)).unwrap();
    let again = log.put_if(alice, "k", "four", Condition::Absent).unwrap();
    assert_eq!(log.delete(alice, "k", Some(third)), Err(Code::StaleTimestamp), "a later value of the key");
    assert_eq!(log.get("alice", "k"), Ok(Some(("four".into(), again))));
}

#[test]
fn a_key_of_a_profile_is_its_own_to_write_and_anyone_s_to_read() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    let op = log.put(alice, "@alice/k", "mine").unwrap();
    assert_eq!(log.get("bobby", "@alice/k"), Ok(Some(("mine".into(), op))));
    assert_eq!(log.put(bobby, "@alice/k", "x"), Err(Code::NotAllowed));
    assert_eq!(log.delete(bobby, "@alice/k", None), Err(Code::NotAllowed));
    assert_eq!(log.put(bobby, "@alicf/k", "x"), Err(Code::UnknownProfile));
    assert_eq!(log.stored("bobby", "@"), ["@alice/k"]);
}

#[test]
fn a_key_of_a_channel_follows_the_roles_in_it_and_makes_no_channel() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    assert_eq!(log.put(alice, "#ops/k", "x"), Err(Code::UnknownChannel));
    log.channel(alice, "team", create(true)).unwrap();
    log.channel(alice, "wide", create(false)).unwrap();
    log.send(alice, channel("ops")).unwrap();
    for at in ["#ops/k", "#team/k", "#wide/k", "#teal/k"] {
        assert_eq!(log.put(alice, at, "x").is_ok(), at != "#teal/k", "{at}");
    }
    assert_eq!(log.get("bobby", "#team/k"), Err(Code::NotAllowed));
    assert_eq!(log.put(bobby, "#team/k", "x"), Err(Code::NotAllowed));
    assert_eq!(log.put(bobby, "#wide/k", "x"), Err(Code::NotAllowed));
    assert_eq!(log.stored("bobby", ""), ["#ops/k", "#wide/k"]);
    log.put(bobby, "#ops/k", "anyone's").unwrap();
    log.channel(alice, "team", add("bobby", Role::Reader)).unwrap();
    assert!(log.get("bobby", "#team/k").unwrap().is_some());
    assert_eq!(
        log.put_if(bobby, "#team/k", "x", Condition::Absent),
        Err(Code::NotAllowed),
        "of rights first"
    );
    log.channel(alice, "team", add("bobby", Role::Writer)).unwrap();
    log.put(bobby, "#team/k", "x").unwrap();
    let refused = log.put_if(bobby, "#team/k", "x", Condition::Absent);
    log.channel(alice, "team", remove("bobby")).unwrap();
    let request = Request::Put { key: key("#team/k"), value: "x".into(), condition: Condition::Absent };
    let tells = log.service.tells(&name("bobby"), &request, refused);
    assert_eq!(tells, Tells::Nothing, "who may not read it any more is told no timestamp");
}

#[test]
fn the_values_of_a_profile_or_a_channel_go_with_it() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    log.channel(alice, "team", create(true)).unwrap();
    log.send(alice, channel("ops")).unwrap();
    for at in ["#team/k", "#ops/k", "@alice/k", "open"] {
        log.put(alice, at, "x").unwrap();
    }
    log.channel(alice, "team", ChannelChange::Delete).unwrap();
    assert_eq!(log.get("alice", "#team/k"), Err(Code::ChannelDeleted));
    assert_eq!(log.stored("bobby", ""), ["#ops/k", "@alice/k", "open"]);
    log.administer(AdminChange::RemoveProfile { name: name("alice") }).unwrap();
    assert_eq!(log.stored("bobby", ""), ["#ops/k", "open"], "what is open to anyone is not hers");
    log.administer(AdminChange::RemoveChannel { channel: channel_name("ops") }).unwrap();
    assert_eq!(log.stored("bobby", ""), ["open"]);
    log.delete(bobby, "open", None).unwrap();
    assert_eq!(log.service.index, Index::of(&log.service.state), "nothing counts any more");
    assert!(log.service.index.stored.is_empty());
}

#[test]
fn an_open_channel_with_a_value_does_not_expire() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.send(alice, channel("ops")).unwrap();
    log.put(alice, "#ops/k", "x").unwrap();
    log.spend(40, &[alice]);
    assert_eq!(log.stored("alice", "#ops/"), ["#ops/k"]);
    log.delete(alice, "#ops/k", None).unwrap();
    log.spend(1, &[alice]);
    assert_eq!(log.put(alice, "#ops/k", "x"), Err(Code::UnknownChannel));
}

#[test]
fn a_value_beyond_the_part_of_the_store_or_of_its_author_is_refused_and_a_smaller_one_is_not() {
    let limits = Limits { store_bytes: 1_050, store_bytes_of_one: 550, ..Limits::default() };
    let mut log = Log::with(limits);
    let (alice, bobby, carol) = (log.open("alice", 1), log.open("bobby", 2), log.open("carol", 3));
    let long = "x".repeat(400);
    log.put(alice, "a", &long).unwrap();
    assert_eq!(log.put(alice, "b", &long), Err(Code::LimitReached), "of one profile");
    log.put(alice, "a", &long).unwrap();
    log.put(bobby, "b", &long).unwrap();
    assert_eq!(log.put(carol, "c", &long), Err(Code::LimitReached), "of all");
    log.put(carol, "c", "short").unwrap();
    log.put(carol, "a", &long).unwrap();
    log.put(alice, "d", "short").unwrap();
    assert_eq!(log.service.index, Index::of(&log.service.state), "it counts for who wrote it last");
    assert!(log.service.index.counted.values <= 1_050);
    let too_large = Body::text("x".repeat(StoredValue::LEN_MAX + 1));
    let request = Request::Put { key: key("e"), value: too_large, condition: Condition::Always };
    assert_eq!(log.request(alice, request), Err(Code::TooLarge));
}

#[test]
fn a_full_store_takes_no_room_from_records_and_drops_the_oldest_notifications() {
    let mut log = Log::new();
    log.open("alice", 1);
    let (weight, records) = (log.service.weight(), log.service.records());
    let mut log = Log::with(Limits { state_bytes: weight + 600, record_bytes: records, ..Limits::default() });
    let alice = log.open("alice", 1);
    let sent: Vec<Op> = (0..20).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    log.put(alice, "k", &"x".repeat(400)).unwrap();
    assert!(log.service.weight() <= weight + 600 && log.service.records() == records);
    let held = log.history("alice", Some(feed("alice")), HistoryRange::Before(Op(u64::MAX))).unwrap();
    assert!(held.len() < 2 && held.iter().all(|op| sent[18..].contains(op)), "{held:?}");
}

#[test]
fn keys_are_listed_page_by_page_from_a_beginning_on_and_hidden_ones_are_passed_over_at_once() {
    let mut log = Log::new();
    let (alice, _) = (log.open("alice", 1), log.open("bobby", 2));
    log.channel(alice, "a", create(true)).unwrap();
    log.channel(alice, "b", create(false)).unwrap();
    for n in 0..250 {
        log.put(alice, &format!("#a/{n:03}"), "x").unwrap();
        log.put(alice, &format!("#b/{n:03}"), "four").unwrap();
        log.put(alice, &format!("k{n:03}"), "x").unwrap();
    }
    let page = |asker: &str, prefix: &str, after: Option<&str>| {
        let what = Listing::Stored { prefix: prefix.to_owned() };
        let query = List { what, after: after.map(str::to_owned) };
        let (page, passed_over) = log.service.list(&name(asker), &query, false).unwrap();
        (page.items.iter().map(ListItem::key).collect::<Vec<_>>(), page.more, passed_over)
    };
    let (first, more, passed_over) = page("bobby", "#", None);
    assert_eq!((first.len(), more, passed_over), (200, true, 1));
    assert_eq!((first[0].as_str(), first[199].as_str()), ("#b/000", "#b/199"));
    let (rest, more, _) = page("bobby", "#", Some("#b/199"));
    assert_eq!((rest.len(), more), (50, false));
    assert_eq!(page("alice", "#", None).0[0], "#a/000");
    assert_eq!(page("bobby", "k24", None).0.len(), 10);
    assert_eq!(page("bobby", "k24", Some("k248")).0, ["k249"]);
    assert_eq!(page("bobby", "k24", Some("a")).0.len(), 10, "before the beginning there is nothing to skip");
    assert_eq!(page("bobby", "zz", None), (vec![], false, 0));
    let item = log.list("alice", Listing::Stored { prefix: "#b/00".into() }).unwrap().remove(0);
    assert!(matches!(item, ListItem::Stored { bytes: 4, author, .. } if author == name("alice")));
}
