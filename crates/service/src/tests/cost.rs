//! The cost of queries and requests in the largest state.

use super::*;

/// Prints the cost on the replica thread of each kind of query and request, in the largest state that the
/// limits let one profile make. The charges in `src/server/cost.rs` are based on it.
#[test]
#[ignore = "measures, and takes a minute"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn what_requests_cost() {
    use std::time::Instant;

    let limits = Limits {
        channels_made: 10_000,
        channels_owned: 10_000,
        channels_at_once: u32::MAX,
        ..Limits::default()
    };
    let mut log = Log::with(limits);
    let wide = |n: u32, slot| {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        DeviceId { key: DeviceKey(key), slot }
    };
    let asker = log.open("asker", 1);
    let idle = log.open("idle", 2);
    for n in 0..9_000 {
        log.channel(asker, &format!("private{n}"), ChannelChange::Create { private: true }).unwrap();
    }
    for n in 0..1_000 {
        for _ in 0..20 {
            log.send(asker, channel(&format!("open{n}"))).unwrap();
        }
        log.follow(asker, channel(&format!("open{n}"))).unwrap();
    }
    for n in 0..20_000 {
        let follower = log.enter(&format!("follower{n}"), wide(n, 0), 7, true);
        if n < 10_000 {
            log.follow(follower, feed("idle")).unwrap();
        }
    }
    for slot in 1..16 {
        log.enter("asker", device(1, slot), u64::from(slot), true);
    }
    // The least of ten rounds, because other load on the machine only adds time; also relative to the first.
    let mut unit = None;
    let mut measure = |what: &str, times: u32, work: &mut dyn FnMut(&mut Log)| {
        let times = times / 10;
        let mut round = || {
            let began = Instant::now();
            for _ in 0..times {
                work(&mut log);
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        };
        let least = (0..10).map(|_| round()).fold(f64::INFINITY, f64::min);
        eprintln!("{what:45} {least:>9.2} us {:>8.1}", least / *unit.get_or_insert(least));
    };
    let mut send = |bytes: usize| {
        let body = "x".repeat(bytes);
        measure(&format!("send {bytes} B to an inbox"), 1_000, &mut |log| {
            log.request(asker, Request::Send { topic: inbox("asker"), content: content(&body) }).unwrap();
        });
    };
    [10, 1_024, 16 * 1_024].into_iter().for_each(&mut send);
    let history = |topic, range, limit| History { topic, range, limit };
    let (who, bare) = (name("asker"), name("idle"));
    measure("a keepalive: the session's view", 20_000, &mut |log| drop(log.service.session(asker)));
    for limit in [1, 256] {
        let one = history(Some(channel("open1")), HistoryRange::Before(Op(u64::MAX)), limit);
        measure(&format!("history of a topic, {limit}"), 2_000, &mut |log| {
            drop(log.service.history(&who, &one, History::BYTES_MAX))
        });
        let all = history(None, HistoryRange::Before(Op(u64::MAX)), limit);
        measure(&format!("history of 1,000 topics, {limit}"), 200, &mut |log| {
            drop(log.service.history(&who, &all, History::BYTES_MAX))
        });
        let all = history(None, HistoryRange::SinceMs(1), limit);
        measure(&format!("the same since a time, {limit}"), 200, &mut |log| {
            drop(log.service.history(&who, &all, History::BYTES_MAX))
        });
        measure(&format!("history of nothing, {limit}"), 2_000, &mut |log| {
            drop(log.service.history(&bare, &all, History::BYTES_MAX))
        });
        measure(&format!("a page of 1,000 topics, {limit}"), 200, &mut |log| {
            drop(log.service.page(asker, Op::ZERO, limit as usize, 256 * 1024));
        });
    }
    let lists = [
        ("following, 1,000", Listing::Following),
        ("devices, 16", Listing::Devices),
        ("keys", Listing::Keys),
        ("followers, none", Listing::Followers),
        ("people, 200 of 20,002", Listing::People),
        ("channels, 200", Listing::Channels),
    ];
    for (what, listing) in lists {
        let list = List { what: listing, after: None };
        measure(&format!("list of {what}"), 200, &mut |log| drop(log.service.list(&who, &list, true)));
    }
    let list = List { what: Listing::Channels, after: Some("pa".into()) };
    measure("list of channels, 9,000 hidden from the asker", 100, &mut |log| {
        let (answer, passed_over) = log.service.list(&bare, &list, true).unwrap();
        assert_eq!((answer.items.len(), passed_over), (0, 9_000));
    });
    let list = List { what: Listing::Followers, after: None };
    measure("list of followers, 200 of 10,000", 200, &mut |log| drop(log.service.list(&bare, &list, true)));
    measure("search of 10,000 channels for a notification", 100, &mut |log| {
        let (found, searched) = log.service.topic_of(&who, Op(1));
        assert!(found.is_none() && searched >= 10_000);
    });
    measure("info, 1,000 topics", 200, &mut |log| drop(log.service.info(&who)));
    measure("info, no topics", 2_000, &mut |log| drop(log.service.info(&bare)));
    measure("send to 10,000 sessions", 50, &mut |log| assert!(log.send(idle, feed("idle")).is_ok()));
    measure("follow and unfollow", 1_000, &mut |log| {
        log.follow(idle, feed("asker")).unwrap();
        log.unfollow(idle, feed("asker")).unwrap();
    });
}
