//! Words that the commands and the screen share: lists, changes of channels, and reasons of refusals.

use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{
    Access, Age, ChannelChange, ChannelName, ClusterId, Content, DeviceKey, EnrolmentCode, Info, ListItem,
    Listing, Name, ProfileInfo, Role,
};

use crate::print::written;
use crate::servers::LOCAL;
use crate::text::clean_line;

/// Formats a number with a noun, in the plural unless the number is 1.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// One item of a list as a line. `own` is the key of this machine, and `when` formats a time.
pub(crate) fn listed(item: &ListItem, own: Option<DeviceKey>, when: impl Fn(u64) -> String) -> String {
    match item {
        ListItem::Following { topic, .. } => written(topic),
        ListItem::Profile { name, .. } => format!("@{name}"),
        ListItem::Displayed { name, display, .. } => format!("@{name:<32} {}", clean_line(display.as_str())),
        ListItem::Channel { name, followers, access, .. } => {
            format!("#{name:<32} {:<8} {}", access_in_words(*access), counted(*followers, "follower"))
        }
        ListItem::Member { name, role } => format!("@{name:<32} {}", role_in_words(*role)),
        ListItem::Key { key, slots, last_seen_ms } => {
            let mark = if own == Some(*key) { "  (this machine)" } else { "" };
            let seen = if slots.is_empty() { "never".to_owned() } else { when(*last_seen_ms) };
            format!("{key}  {:<10}  seen {seen}{mark}", counted(slots.len() as u64, "device"))
        }
        ListItem::Device { device, cursor, session, last_seen_ms } => {
            let state = if session.is_some() { "connected" } else { "idle" };
            let (device, seen) = (device.to_string(), when(*last_seen_ms));
            format!("{device:<18} {state:<9}  read up to op {cursor}  seen {seen}")
        }
        ListItem::Stored { key, timestamp, bytes, author } => {
            format!("{key:<32} {timestamp:>8}  {:<12} by @{author}", counted(*bytes, "byte"))
        }
    }
}

/// The name of a profile, with its display name beside it.
pub(crate) fn named(ProfileInfo { info, display, .. }: &ProfileInfo) -> String {
    let display = display.as_ref().map(|name| format!("  {}", clean_line(name.as_str())));
    format!("@{}{}", info.profile, display.unwrap_or_default())
}

/// Description of a profile, in lines.
pub(crate) fn described(info: &Info) -> [String; 4] {
    [
        format!("followers  {}", info.followers),
        format!("following  {}", info.following),
        format!("devices    {}, {} connected", info.devices, info.sessions),
        format!("pending    {}", counted(info.pending, "notification")),
    ]
}

/// An age below this is nothing to tell: a primary was heard as often as it says something, or is about to
/// change.
const AGE_TOLD: Duration = Duration::from_secs(1);

/// How old an answer may be; none if that is nothing to tell.
pub(crate) fn age(age: Age) -> Option<String> {
    let since = match age {
        Age::Heard(since) if since < AGE_TOLD => return None,
        Age::Heard(since) => format!("for {} s", since.as_secs()),
        Age::Unknown => "since it started".to_owned(),
    };
    Some(format!(
        "this may be old: the server that answered has heard no primary {since}, and lacks what was acknowledged since"
    ))
}

/// What an empty list means. `follow` is how a topic is followed here.
pub(crate) fn empty(listing: &Listing, follow: &str) -> String {
    match listing {
        Listing::Following => format!("you follow nothing yet; run: {follow} @NAME"),
        Listing::Followers => "nobody follows you yet".to_owned(),
        Listing::Channels => {
            "there is no channel yet; the first notification sent to one creates it".to_owned()
        }
        Listing::Members(channel) => {
            format!("#{channel} is open: it has no members, and anyone can send to it and read it")
        }
        Listing::Stored { .. } => "there is no such key".to_owned(),
        Listing::People | Listing::Devices | Listing::Keys => "there is nothing yet".to_owned(),
    }
}

pub(crate) fn access_in_words(access: Access) -> &'static str {
    match access {
        Access::Open => "open",
        Access::Owned => "owned",
        Access::Private => "private",
    }
}

pub(crate) fn role_in_words(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Owner => "owner",
    }
}

/// What a change of a channel did.
pub(crate) fn changed(channel: &ChannelName, change: &ChannelChange) -> String {
    match change {
        ChannelChange::Create { private: true } => {
            format!("#{channel} is yours; only its members can follow and read it")
        }
        ChannelChange::Create { private: false } => format!("#{channel} is yours; anyone can read it"),
        ChannelChange::Add { member, role } => format!("@{member} is {} of #{channel}", role_in_words(*role)),
        ChannelChange::Remove { member } => format!("@{member} is no longer a member of #{channel}"),
        ChannelChange::Delete => format!("#{channel} is deleted"),
    }
}

/// Limits that a change of a channel can reach.
pub(crate) fn limits_of(change: &ChannelChange) -> &'static str {
    match change {
        ChannelChange::Create { .. } => {
            "no further channel can be made: you own or have made as many as one profile may, or the cluster has as many \
             as it may (limits `channels_owned`, `channels_made`, `channels`)"
        }
        ChannelChange::Add { .. } | ChannelChange::Remove { .. } | ChannelChange::Delete => {
            "the channel has as many members as it may, or the new owner owns as many channels as one profile may (limits \
             `members`, `channels_owned`)"
        }
    }
}

/// The limit that a notification reaches which would make a channel.
pub(crate) const SEND_MOST: &str = "no further channel can be made: you have made as many as one profile may, or the cluster has as many as it may (limits \
     `channels_made`, `channels`)";

/// The limit that a further follow reaches.
pub(crate) const FOLLOW_MOST: &str =
    "you follow as many topics as one profile may (limit `follows`); unfollow one first";

/// The limit that a further key of the profile reaches.
pub(crate) const KEYS_MOST: &str =
    "the profile has as many keys as it may (limit `keys`); remove one first: recado device remove KEY";

/// Why a right is missing: the role that the request needs, and the owners who can grant it.
pub(crate) fn no_right(channel: &ChannelName, role: &str, members: &[ListItem]) -> String {
    let owners = members.iter().filter_map(|item| match item {
        ListItem::Member { name, role: Role::Owner } => Some(format!("@{name}")),
        _ => None,
    });
    match owners.collect::<Vec<_>>() {
        owners if owners.is_empty() => format!(
            "#{channel} is open, so it has no owners: anyone can send to it and read it, nobody can change it, and only \
             who sent its first notification can delete it"
        ),
        owners => format!("you must be {role} of #{channel} to do this; its owners: {}", owners.join(", ")),
    }
}

/// Why a session was not opened for a name that may not be claimed.
pub(crate) fn not_claimed(profile: &Name, cluster: ClusterId) -> String {
    format!(
        "@{profile} is no profile of this machine in cluster {cluster}, and --no-claim, or claim = false in the \
         configuration, forbids to claim it"
    )
}

/// Why nothing was sent to a channel that may not be created.
pub(crate) fn not_created(channel: &ChannelName) -> String {
    format!(
        "there is no channel #{channel}, and --no-create, or create = false in the configuration, forbids to create it; \
         `recado channels` lists all, and --create creates it"
    )
}

/// A name that was claimed. It may be mistyped.
pub(crate) fn claimed(profile: &Name) -> String {
    format!("claimed @{profile}: nobody had it")
}

/// Names the part that is over its limit, with its size and the limit.
pub(crate) fn too_large(content: &Content) -> Option<String> {
    let over = |what: &str, has: usize, most: usize, unit: &str| {
        (has > most).then(|| format!("{what} is too large: it has {has} {unit}, and the limit is {most}"))
    };
    let title = content.title.as_deref().unwrap_or_default();
    over("the text", content.body.len(), Content::BODY_MAX, "bytes")
        .or_else(|| over("the title", title.len(), Content::TITLE_MAX, "bytes"))
        .or_else(|| over("the number of tags", content.tags.len(), Content::TAGS_MAX, "tags"))
        .or_else(|| {
            let tags = content.tags.iter().zip(1..);
            tags.map(|(tag, n)| over(&format!("tag {n}"), tag.len(), Content::TAG_MAX, "bytes"))
                .find_map(|it| it)
        })
}

/// Command to run on the new machine. It names the servers unless they are the default ones, because a new
/// machine knows no others.
pub(crate) fn enrolling(code: &EnrolmentCode, profile: &Name, servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let servers = if servers == LOCAL { String::new() } else { format!(" --server {}", servers.join(",")) };
    format!("recado device enrol {code} --as {profile}{servers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_missing_right_names_the_owners_or_that_there_are_none() {
        let channel: ChannelName = "ops".parse().unwrap();
        let member = |name: &str, role| ListItem::Member { name: name.parse().unwrap(), role };
        let members = [member("alice", Role::Owner), member("bob", Role::Writer)];
        let message = no_right(&channel, "a writer", &members);
        assert!(message.contains("a writer of #ops") && message.contains("@alice"), "{message}");
        assert!(!message.contains("@bob"), "{message}");
        assert!(no_right(&channel, "an owner", &[]).contains("no owners"));
    }

    #[test]
    fn what_is_too_large_is_named_with_its_size_and_limit() {
        let good = Content {
            title: Some("x".repeat(1_024)),
            priority: Default::default(),
            tags: vec!["x".repeat(64); 16],
            body: "x".repeat(16 * 1024).into(),
            extra: Vec::new(),
        };
        assert_eq!(too_large(&good), None);
        assert!(good.within_limits());
        for (content, words) in [
            (Content { body: "x".repeat(16_385).into(), ..good.clone() }, ["the text", "16385", "16384"]),
            (Content { title: Some("é".repeat(513)), ..good.clone() }, ["the title", "1026", "1024"]),
            (Content { tags: vec!["x".into(); 17], ..good.clone() }, ["tags", "17", "16"]),
            (Content { tags: vec!["x".into(), "x".repeat(65)], ..good.clone() }, ["tag 2", "65", "64"]),
        ] {
            assert!(!content.within_limits());
            let message = too_large(&content).unwrap();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    #[test]
    fn the_enrolment_command_names_the_servers_unless_they_are_the_default_ones() {
        let (code, profile) = ("7K3Q9-01WZP".parse().unwrap(), "ian".parse().unwrap());
        let command = |servers: &[&str]| {
            let servers: Vec<SocketAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
            enrolling(&code, &profile, &servers)
        };
        assert_eq!(command(&LOCAL), "recado device enrol 7K3Q9-01WZP --as ian");
        assert_eq!(
            command(&["192.0.2.1:10097", "192.0.2.2:10097"]),
            "recado device enrol 7K3Q9-01WZP --as ian --server 192.0.2.1:10097,192.0.2.2:10097"
        );
    }
}
