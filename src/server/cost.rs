//! What a packet of a client costs the replica thread, which every one of them has to itself for a while.
//!
//! The unit is a short SEND: 1.7 us of the service where it was measured. What costs more is paid for by what
//! is walked for it, so that a history of a thousand topics is not a ping. The test
//! `service::tests::what_requests_cost` measures the walks; each constant below says what it gave.
//!
//! Budgets are in this unit ([`Limits::session_requests`](crate::config::Limits)): of the session, its profile
//! and its network. A turn of the replica thread has [`TURN_MAX`] for requests and pages together, so that
//! neither peers nor heartbeats wait for what clients ask or their streams want.

use std::time::Duration;

use crate::wire::packet::{Content, History, Listing};

/// Pages are taken for half of this a turn, then requests and questions until all of it is over; the one that
/// is under way then is ended: 1.6 ms more for a SEND to 10,000 sessions, ten for one to as many as a server serves. A heartbeat goes
/// every 25 ms at the shortest.
pub(super) const TURN_MAX: Duration = Duration::from_millis(2);

/// What the least costs: what walks nothing.
pub(super) const LEAST: u32 = 1;

/// What HISTORY costs somebody who follows so many topics.
pub(super) fn history(history: &History, topics: usize) -> u32 {
    let rows = history.limit.clamp(1, History::LIMIT_MAX) as usize;
    let merged = if history.topic.is_none() { topics } else { 0 };
    units(rows / ROWS + merged / TOPICS)
}

/// What LIST costs somebody who follows so many topics, beside what it passes over.
pub(super) fn list(what: &Listing, topics: usize) -> u32 {
    match what {
        Listing::Following => units(topics / LISTED),
        Listing::Channels
        | Listing::Devices
        | Listing::Keys
        | Listing::Followers
        | Listing::People
        | Listing::Members(_) => units(SHORT_LIST),
    }
}

/// What so many channels cost that a LIST passed over.
pub(super) fn passed_over(channels: usize) -> u32 {
    units(channels / CHANNELS) - LEAST
}

/// What REQUEST_USER_INFO costs somebody who follows so many topics.
pub(super) fn info(topics: usize) -> u32 {
    units(topics / TOPICS)
}

/// What a SEND costs that may be for so many sessions.
pub(super) fn send(content: &Content, sessions: usize) -> u32 {
    units(length(content) / BYTES + sessions / SESSIONS)
}

/// What a page of what is pending costs for somebody who follows so many topics; each is walked twice for it.
pub(super) fn page(topics: usize, limit: u32) -> u32 {
    units(limit as usize / ROWS + topics / TOPICS)
}

fn units(walked: usize) -> u32 {
    u32::try_from(walked).unwrap_or(u32::MAX).saturating_add(LEAST)
}

fn length(content: &Content) -> usize {
    content.body.len() + content.title.as_ref().map_or(0, String::len)
}

/// Notifications of a page for one unit: 0.06 us, without their encoding and sealing.
const ROWS: usize = 16;
/// Topics that are merged: 290 to 340 us for a history or a page of 1,000, 130 us for what INFO counts.
const TOPICS: usize = 5;
/// Topics of the list of what somebody follows, which is sorted as text: 65 us for 1,000.
const LISTED: usize = 25;
/// A page of 200 names, in units: 3.5 us of people or followers, 28 us of channels, 13 us of 16 devices.
const SHORT_LIST: usize = 20;
/// Channels that are passed over: 860 short SENDs for 9,000, where a page of 200 is 16 and a history of 1,000
/// topics 440, on a machine with other work.
const CHANNELS: usize = 10;
/// Bytes of a notification, which are hashed, copied and cast: 15 us for 16 KiB.
const BYTES: usize = 2_048;
/// Sessions that a notification is for: 1.6 ms for 10,000.
const SESSIONS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Op;
    use crate::wire::packet::{HistoryRange, QueryId};

    fn asked(topic: Option<&str>, limit: u32) -> History {
        let topic = topic.map(|name| crate::id::Topic::Channel(name.parse().unwrap()));
        History { query: QueryId(1), topic, range: HistoryRange::Before(Op(9)), limit }
    }

    fn content(bytes: usize) -> Content {
        Content { title: None, priority: Default::default(), tags: Vec::new(), body: "x".repeat(bytes) }
    }

    #[test]
    fn the_least_costs_one_and_what_walks_more_costs_more() {
        assert_eq!((send(&content(100), 0), history(&asked(Some("ops"), 1), 1_000)), (LEAST, LEAST));
        assert!(history(&asked(None, 1), 1_000) >= 200, "a history of 1,000 topics is not a ping");
        assert!(history(&asked(None, 256), 1_000) > history(&asked(None, 1), 1_000));
        let most = history(&asked(None, 256), 1_000);
        assert_eq!(history(&asked(None, u32::MAX), 1_000), most, "no more is given");
        assert_eq!((page(0, 1), page(1_000, 256)), (1, 217), "a page is a history of all that is followed");
        assert!(send(&content(16 * 1_024), 0) > send(&content(100), 0));
        assert!(send(&content(100), 10_000) >= 1_000, "it is for 10,000");
        assert!(list(&Listing::Following, 1_000) > list(&Listing::Following, 0));
        assert_eq!(passed_over(0), 0);
        assert!(passed_over(10_000) > 10 * list(&Listing::Channels, 0), "as many as there may be");
    }
}
