//! What a packet of a client costs the replica thread, which every one of them has to itself for a while.
//!
//! The unit is a short SEND: 1.7 us of the service where it was measured. What costs more is paid for by what
//! is walked for it, so that a history of a thousand topics is not a ping. The test
//! `service::tests::what_requests_cost` measures the walks; each constant below says what it gave, and
//! charges no less; the one that was not measured says so.
//!
//! Budgets are in this unit ([`Limits::session_requests`](crate::config::Limits)): of the session, its profile
//! and its network. A turn of the replica thread has [`TURN_MAX`] for requests and pages together, so that
//! neither peers nor heartbeats wait for what clients ask or their streams want.

use std::time::Duration;

use crate::wire::packet::{Content, History, Listing, Packet};

/// Pages are taken for half of this a turn, then requests and questions until all of it is over; the one that
/// is under way then is ended: 1.6 ms more for a SEND to 10,000 sessions, ten for one to as many as a server serves. A heartbeat goes
/// every 25 ms at the shortest.
pub(super) const TURN_MAX: Duration = Duration::from_millis(2);

/// How much there is to be walked for somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Topics that the asker follows.
    pub(super) topics: usize,
    /// Channels in all: those that the asker may not see are passed over.
    pub(super) channels: usize,
    /// Sessions that a notification may be for.
    pub(super) sessions: usize,
}

/// What a packet costs.
pub(super) fn of(packet: &Packet, reach: Reach) -> u32 {
    let Reach { topics, channels, sessions } = reach;
    let walked = match packet {
        Packet::History(history) => {
            let rows = history.limit.clamp(1, History::LIMIT_MAX) as usize;
            rows / ROWS + if history.topic.is_none() { topics / TOPICS } else { 0 }
        }
        Packet::List(list) => match &list.what {
            Listing::Following => topics / LISTED,
            Listing::Channels => SHORT_LIST + channels / CHANNELS,
            Listing::Devices | Listing::Keys | Listing::Followers | Listing::People | Listing::Members(_) => {
                SHORT_LIST
            }
        },
        Packet::RequestUserInfo(_) => topics / TOPICS,
        Packet::Send(send) => length(&send.content) / BYTES + sessions / SESSIONS,
        _ => 0,
    };
    u32::try_from(walked).unwrap_or(u32::MAX).saturating_add(1)
}

/// What a page of what is pending costs for somebody who follows so many topics; each is walked twice for it.
pub(super) fn page(topics: usize, limit: u32) -> u32 {
    let walked = limit as usize / ROWS + topics / TOPICS;
    u32::try_from(walked).unwrap_or(u32::MAX).saturating_add(1)
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
/// Channels that are passed over: not measured, as much as a topic's name is to be compared.
const CHANNELS: usize = 20;
/// Bytes of a notification, which are hashed, copied and cast: 15 us for 16 KiB.
const BYTES: usize = 2_048;
/// Sessions that a notification is for: 1.6 ms for 10,000.
const SESSIONS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Op, Seq};
    use crate::wire::packet::{HistoryRange, List, QueryId, Send};

    const FAR: Reach = Reach { topics: 1_000, channels: 10_000, sessions: 10_000 };

    fn history(topic: Option<&str>, limit: u32) -> Packet {
        let topic = topic.map(|name| crate::id::Topic::Channel(name.parse().unwrap()));
        Packet::History(History { query: QueryId(1), topic, range: HistoryRange::Before(Op(9)), limit })
    }

    fn send(bytes: usize) -> Packet {
        let body = "x".repeat(bytes);
        let content = Content { title: None, priority: Default::default(), tags: Vec::new(), body };
        Packet::Send(Send { seq: Seq(1), answered_below: Seq(1), topic: None, content, nonce: 0 })
    }

    #[test]
    fn the_least_costs_one_and_what_walks_more_costs_more() {
        assert_eq!(of(&Packet::Keepalive, FAR), 1);
        assert_eq!(of(&send(100), Reach::default()), 1);
        assert_eq!(of(&history(Some("ops"), 1), FAR), 1);
        assert!(of(&history(None, 1), FAR) >= 200, "a history of 1,000 topics is not a ping");
        assert!(of(&history(None, 256), FAR) > of(&history(None, 1), FAR));
        assert!(of(&history(None, u32::MAX), FAR) == of(&history(None, 256), FAR), "no more is given");
        assert_eq!((page(0, 1), page(1_000, 256)), (1, 217), "a page is a history of all that is followed");
        assert!(of(&send(16 * 1_024), FAR) > of(&send(100), FAR));
        assert!(of(&send(100), FAR) >= 1_000, "it is for 10,000");
        let channels = Packet::List(List { query: QueryId(1), what: Listing::Channels, after: None });
        assert!(of(&channels, FAR) > of(&channels, Reach::default()));
    }
}
