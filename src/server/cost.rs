//! Cost of clients' packets: the time for which each one occupies the replica thread, which handles one at a
//! time.
//!
//! The unit is a short SEND: 1.7 us of the service where it was measured. A packet that walks more data
//! costs more, so that a history of a thousand topics does not cost what a ping costs. The test
//! `what_requests_cost` of `recado-service` measures the walks; each constant below states what it measured.
//!
//! The budgets of a session, its profile and its network are in this unit
//! ([`Limits::session_requests`](crate::config::Limits)). A turn of the replica thread has [`TURN_MAX`] for
//! requests and pages together, so that neither peers nor heartbeats wait for clients' requests or their
//! streams' pages.

use std::time::Duration;

use recado_proto::command::Command;
use recado_proto::packet::{Content, Extension, History, Listing};
use recado_service::TRIM_MOST;

/// Time per turn for pages and requests. Pages are taken for half of it, then requests and queries until
/// all of it is used. The one in progress then is finished, which takes 1.6 ms more for a SEND to 10,000
/// sessions, and ten for one to as many sessions as a server serves. The shortest interval between
/// heartbeats is 25 ms.
pub const TURN_MAX: Duration = Duration::from_millis(2);

/// Cost of a packet that walks nothing; the lowest cost.
pub(super) const LEAST: u32 = 1;

/// Cost of a page of history, for a profile that follows `topics` topics.
pub(super) fn history(history: &History, topics: usize) -> u32 {
    let rows = history.limit.clamp(1, History::LIMIT_MAX) as usize;
    let merged = if history.topic.is_none() { topics } else { 0 };
    units(rows / DECODED + merged / TOPICS)
}

/// Cost of a page of a list, for a profile that follows `topics` topics, without the channels that it passes
/// over.
pub(super) fn list(what: &Listing, topics: usize) -> u32 {
    match what {
        Listing::Following => units(topics / LISTED),
        Listing::Channels
        | Listing::Devices
        | Listing::Keys
        | Listing::Followers
        | Listing::People
        | Listing::Stored { .. }
        | Listing::Members(_) => units(SHORT_LIST),
    }
}

/// Cost of the notifications that a selection left out.
pub(super) fn left_out(notifications: usize) -> u32 {
    units(notifications / DECODED) - LEAST
}

/// Cost of the channels that a list of channels or of keys passed over.
pub(super) fn passed_over(channels: usize) -> u32 {
    units(channels / CHANNELS) - LEAST
}

/// Cost of the information about a profile, for a profile that follows `topics` topics.
pub(super) fn info(topics: usize) -> u32 {
    units(topics / TOPICS)
}

/// Cost of a request that comes as an EXTENSION, without the topics that a RETRACT searches.
pub(super) fn extension(extension: &Extension) -> u32 {
    units(extension.bytes.len() / BYTES)
}

/// Cost of the topics in which a RETRACT looked for its notification.
pub(super) fn searched(topics: usize) -> u32 {
    units(topics / SEARCHED) - LEAST
}

/// Cost of the bytes of a value that is read.
pub(super) fn value(bytes: usize) -> u32 {
    units(bytes / BYTES) - LEAST
}

/// Cost of a SEND that may go to `sessions` sessions.
pub(super) fn send(content: &Content, sessions: usize) -> u32 {
    units(length(content) / BYTES + sessions / SESSIONS)
}

/// Cost of a page of pending notifications for a profile that follows `topics` topics; each topic is walked
/// twice.
pub(super) fn page(topics: usize, limit: u32) -> u32 {
    units(limit as usize / ROWS + topics / TOPICS)
}

/// How many more entries would take as long to apply as one with this command does beyond its own time. An
/// entry takes some 10 us.
pub(super) fn beyond_an_entry(command: &Command) -> u32 {
    let more = match command {
        Command::Cursors(cursors) => cursors.len() / CURSORS,
        Command::SessionsClose(sessions) => sessions.len() / CLOSED,
        Command::Trim { .. } => TRIM_MOST / TRIMMED,
        _ => 0,
    };
    u32::try_from(more).unwrap_or(u32::MAX)
}

/// Cursors that take as long as an entry.
const CURSORS: usize = 10;
/// Sessions of which the end takes as long as an entry.
const CLOSED: usize = 2;
/// Notifications of which the trim takes as long as an entry.
const TRIMMED: usize = 20;

fn units(walked: usize) -> u32 {
    u32::try_from(walked).unwrap_or(u32::MAX).saturating_add(LEAST)
}

fn length(content: &Content) -> usize {
    let title = content.title.as_ref().map_or(0, String::len);
    title + content.tags.iter().map(String::len).sum::<usize>() + content.body.len() + content.extra_len()
}

/// Notifications of a page per unit: 0.06 us each, without their encoding and sealing.
const ROWS: usize = 16;
/// Notifications of a history per unit: they are decoded, 0.7 us each for 200 bytes.
const DECODED: usize = 2;
/// Topics merged per unit: 290 to 340 us for a history or a page of 1,000, 130 us for what the information
/// about a profile counts.
const TOPICS: usize = 5;
/// Topics per unit in the list of followed topics, which is sorted as text: 65 us for 1,000.
const LISTED: usize = 25;
/// Units of a page of 200 names: 3.5 us for people or followers, 28 us for channels, 13 us for 16 devices.
const SHORT_LIST: usize = 20;
/// Channels passed over per unit: 860 short SENDs for 9,000, where a page of 200 is 16 and a history of 1,000
/// topics 440, on a machine with other work.
const CHANNELS: usize = 10;
/// Topics searched for a notification per unit: 78 short SENDs for 10,000 that do not reach its op; more
/// where they do.
const SEARCHED: usize = 50;
/// Bytes of a notification or a value per unit, which are hashed, copied and cast: 15 us for 16 KiB.
const BYTES: usize = 2_048;
/// Receiving sessions of a notification per unit: 1.6 ms for 10,000, if they have to be found anew.
const SESSIONS: usize = 10;

#[cfg(test)]
mod tests {
    use recado_proto::id::Op;
    use recado_proto::packet::HistoryRange;

    use super::*;

    fn asked(topic: Option<&str>, limit: u32) -> History {
        let topic = topic.map(|name| recado_proto::id::Topic::Channel(name.parse().unwrap()));
        History { topic, range: HistoryRange::Before(Op(9)), limit }
    }

    fn content(bytes: usize) -> Content {
        Content::of("x".repeat(bytes))
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
