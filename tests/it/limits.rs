//! Checks that the table of all limits agrees with the code.

use std::collections::BTreeMap;
use std::path::Path;

use recado::config::{Limits, Rate, Retention};
use recado_proto::codec::PACKET_MAX;
use recado_proto::id::{ChannelName, MEMBERS_MAX, Name, StoreKey};
use recado_proto::packet::{Content, History, List, StoredValue};
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX};

fn rate(rate: Rate) -> String {
    format!("{}/s, {} at once", rate.per_s, rate.burst)
}

fn hourly(rate: Rate) -> String {
    format!("{}/h, {} at once", rate.per_s, rate.burst / Limits::NAME_COST)
}

/// The limits in the code, by name. The structs are destructured completely, so that a new limit does not
/// compile before it is listed here.
fn coded() -> BTreeMap<&'static str, String> {
    let Limits {
        profiles,
        channels,
        channels_made,
        members,
        channels_owned,
        devices,
        keys,
        enrolment,
        follows,
        unused,
        deleted,
        channels_at_once,
        channel_every,
        invites,
        allowed,
        administered,
        administered_for,
        outstanding,
        session_idle,
        session_pending,
        sessions,
        sessions_served,
        state_bytes,
        record_bytes,
        store_bytes,
        store_bytes_of_one,
        window,
        applied_per_turn,
        session_requests,
        profile_requests,
        network_requests,
        handshakes,
        network_handshakes,
        network_names,
        network_channels,
    } = Limits::default();
    let Retention { count, bytes, age_ms, all_bytes } = Retention::default();
    BTreeMap::from([
        ("profiles", profiles.to_string()),
        ("channels", channels.to_string()),
        ("channels_made", channels_made.to_string()),
        ("members", members.to_string()),
        ("channels_owned", channels_owned.to_string()),
        ("devices", devices.to_string()),
        ("keys", keys.to_string()),
        ("enrolment", format!("{} s", enrolment.as_secs())),
        ("follows", follows.to_string()),
        ("unused", format!("{} s", unused.as_secs())),
        ("deleted", format!("{} s", deleted.as_secs())),
        (
            "channels_at_once",
            format!("{channels_at_once} at once, one more each {} s", channel_every.as_secs()),
        ),
        ("invites", invites.to_string()),
        ("allowed", allowed.to_string()),
        ("administered", format!("{administered}, for {} s at least", administered_for.as_secs())),
        ("outstanding", outstanding.to_string()),
        ("session_idle", format!("{} s", session_idle.as_secs())),
        ("session_pending", format!("{} s", session_pending.as_secs())),
        ("sessions", sessions.to_string()),
        ("sessions_served", sessions_served.to_string()),
        ("state_bytes", format!("{state_bytes} B")),
        ("record_bytes", format!("{record_bytes} B")),
        ("store_bytes", format!("{store_bytes} B")),
        ("store_bytes_of_one", format!("{store_bytes_of_one} B")),
        ("window", window.to_string()),
        ("applied_per_turn", applied_per_turn.to_string()),
        ("session_requests", rate(session_requests)),
        ("profile_requests", rate(profile_requests)),
        ("network_requests", rate(network_requests)),
        ("handshakes", rate(handshakes)),
        ("network_handshakes", rate(network_handshakes)),
        ("network_names", hourly(network_names)),
        ("network_channels", hourly(network_channels)),
        ("retention.count", count.to_string()),
        ("retention.bytes", format!("{bytes} B")),
        ("retention.age_ms", format!("{age_ms} ms")),
        ("retention.all_bytes", format!("{all_bytes} B")),
        ("Name::LEN_MAX", Name::LEN_MAX.to_string()),
        ("ChannelName::LEN_MAX", ChannelName::LEN_MAX.to_string()),
        ("StoreKey::LEN_MAX", StoreKey::LEN_MAX.to_string()),
        ("StoredValue::LEN_MAX", format!("{} B", StoredValue::LEN_MAX)),
        ("Content::BODY_MAX", format!("{} B", Content::BODY_MAX)),
        ("Content::TITLE_MAX", format!("{} B", Content::TITLE_MAX)),
        ("Content::TAGS_MAX", Content::TAGS_MAX.to_string()),
        ("Content::TAG_MAX", format!("{} B", Content::TAG_MAX)),
        ("History::LIMIT_MAX", History::LIMIT_MAX.to_string()),
        ("List::ITEMS_MAX", List::ITEMS_MAX.to_string()),
        ("MEMBERS_MAX", MEMBERS_MAX.to_string()),
        ("DATAGRAM_BASE", format!("{DATAGRAM_BASE} B")),
        ("DATAGRAM_MAX", format!("{DATAGRAM_MAX} B")),
        ("PACKET_MAX", format!("{PACKET_MAX} B")),
    ])
}

#[test]
fn the_table_of_limits_is_what_is_compiled_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, limits) = text.split_once("\n## Limits\n").unwrap();
    let limits = limits.split("\n## ").next().unwrap_or_default();
    let rows = limits.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let written: BTreeMap<&str, String> =
        rows.map(|(name, rest)| (name, rest.split(" | ").next().unwrap_or_default().to_owned())).collect();
    assert_eq!(written, coded());
}
