//! Parsers of the values on the command line. Each error says what the value should be.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp, ToSpan, Zoned};
use recado_client::{ChannelName, Content, Name, NameError, NameKind, Op, Priority, Role, StoreKey, Topic};

/// A point in the past, from or up to which notifications are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// This op.
    Op(Op),
    /// This long before now, by the servers' clock.
    Ago(Duration),
    /// This time, in ms since 1970.
    At(u64),
}

/// Parses a profile name, with or without its @.
pub(crate) fn profile(text: &str) -> Result<Name, String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    name.parse().map_err(|error| not_a_name(name, &error))
}

/// Parses what `info` describes: a channel with its #, or a profile with or without its @.
pub(super) fn whom(text: &str) -> Result<Topic, String> {
    if let Ok(number) = text.parse() {
        return Err(format!("{}; a profile of this name is written @{number}", to_see(number)));
    }
    match text.strip_prefix('#') {
        Some(_) => channel(text).map(Topic::Channel),
        None => profile(text).map(Topic::Feed),
    }
}

/// Parses the topic whose past is shown.
pub(super) fn to_look_back(text: &str) -> Result<Topic, String> {
    match text.parse() {
        Ok(number) => Err(to_see(number)),
        Err(_) => to_follow(text),
    }
}

/// What to write in place of an op where a topic is expected.
fn to_see(op: u64) -> String {
    let next = op.saturating_add(1);
    format!("{op} is an op; to see that notification, write: recado history --before {next} --last 1")
}

/// The error for a text that is no name, with what is meant if that can be told.
fn not_a_name(name: &str, error: &NameError) -> String {
    match error {
        NameError::Character(NameKind::Profile, ..) if name.to_lowercase().parse::<Name>().is_ok() => {
            format!("{error}: write {}", name.to_lowercase())
        }
        NameError::Character(_, _, letter) if !letter.is_ascii() && letter.is_alphabetic() => {
            format!("{error}: of letters, a name has only those without accents")
        }
        error => error.to_string(),
    }
}

/// Parses a channel name, with or without its #.
pub(super) fn channel(text: &str) -> Result<ChannelName, String> {
    if let Some(name) = text.strip_prefix('@') {
        return Err(format!("this is a profile; a channel is written '#{name}' or {name}"));
    }
    let name = text.strip_prefix('#').unwrap_or(text);
    name.parse().map_err(|error| not_a_name(name, &error))
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    match text {
        "reader" => Ok(Role::Reader),
        "writer" => Ok(Role::Writer),
        "owner" => Ok(Role::Owner),
        other => Err(format!("a role is reader, writer or owner, not {other:?}")),
    }
}

pub(super) fn to_follow(text: &str) -> Result<Topic, String> {
    Topic::to_follow(text).map_err(|error| not_a_topic(text, error))
}

pub(super) fn to_send(text: &str) -> Result<Topic, String> {
    Topic::to_send(text).map_err(|error| not_a_topic(text, error))
}

/// The error for a text that names no topic. A name alone may mean either kind.
fn not_a_topic(text: &str, error: NameError) -> String {
    let unescaped = text.strip_prefix('\\').filter(|rest| Topic::to_follow(rest).is_ok());
    match (error, unescaped) {
        (_, Some(topic)) => format!("in quotes a # needs no backslash: write '{topic}'"),
        (NameError::Sigil(_), None) if text.is_empty() => {
            "it is empty; a topic is @NAME or '#CHANNEL', in quotes: to a shell, # begins a comment"
                .to_owned()
        }
        (NameError::Sigil(name), None) if name.parse::<ChannelName>().is_ok() => {
            format!("write @{name} for the profile, or '#{name}' for the channel")
        }
        (error, None) => not_a_name(text.get(1..).unwrap_or_default(), &error),
    }
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    let wrong = || "a priority is a number from 1 to 5".to_owned();
    let number: u8 = text.parse().map_err(|_| wrong())?;
    Priority::try_from(number).map_err(|_| wrong())
}

pub(super) fn title(text: &str) -> Result<String, String> {
    at_most("a title", text, Content::TITLE_MAX)
}

pub(super) fn tag(text: &str) -> Result<String, String> {
    if text.chars().all(Content::is_blank_char) {
        return Err("a tag must have something to see".to_owned());
    }
    at_most("a tag", text, Content::TAG_MAX)
}

fn at_most(what: &str, text: &str, most: usize) -> Result<String, String> {
    match text.len() {
        len if len > most => Err(format!("{what} has at most {most} bytes, and this one has {len}")),
        _ => Ok(text.to_owned()),
    }
}

/// Parses the command of `--exec`. A blank one would do nothing and succeed, which marks everything as read.
pub(super) fn shell_command(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("there is no command; to mark everything as read, write --exec true".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Parses a key of the store.
pub(super) fn key(text: &str) -> Result<StoreKey, String> {
    text.parse().map_err(|error: NameError| error.to_string())
}

/// Parses an op.
pub(super) fn op(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("an op is a number such as `recado send` prints, not {text:?}"))
}

/// Parses a number of notifications.
pub(super) fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("a number of notifications is 0 or more, not {text:?}"))
}

/// Parses a duration as users write it. A bare number is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let wrong = |_| format!("{text:?} is not a duration; write it as 500ms, 30s, 10m, 2h or 3d");
    let span: Span = text.parse().map_err(wrong)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    Duration::try_from(duration).map_err(|_| format!("{text:?} is negative; a duration must not be"))
}

/// Parses a time-out. It must be above zero, because every command waits for a server.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a time-out must be above 0".to_owned()),
        timeout => Ok(timeout),
    }
}

/// Parses an interval. Zero would never end.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < INTERVAL_LEAST => {
            Err(format!("an interval has at least {} ms", INTERVAL_LEAST.as_millis()))
        }
        interval => Ok(interval),
    }
}

/// The shortest interval of `status --watch`: each round is a handshake with every server.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);

pub(super) fn point(text: &str) -> Result<Point, String> {
    if let Ok(op) = text.parse() {
        return Ok(Point::Op(Op(op)));
    }
    if let Ok(ago) = duration(text) {
        return Ok(Point::Ago(ago));
    }
    match date(text, &Zoned::now()).map(|time| u64::try_from(time.as_millisecond())) {
        Some(Ok(unix_ms)) => Ok(Point::At(unix_ms)),
        Some(Err(_)) => Err(format!("{text:?} is before 1970")),
        None => Err(format!(
            "{text:?} is neither an op, as `recado send` prints it, nor a time ago such as 10m, 2h or 3d, nor a date or \
             time such as yesterday, 2026-09-01, 14:30 or '2026-09-01 14:30'"
        )),
    }
}

/// Parses a date or a time as users write it: in the time zone of `now` unless it has one of its own.
fn date(text: &str, now: &Zoned) -> Option<Timestamp> {
    let in_zone = |time: DateTime, zone: &TimeZone| time.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    let zone = now.time_zone();
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return in_zone(now.date().into(), zone),
        "yesterday" => return in_zone(now.date().checked_sub(1.day()).ok()?.into(), zone),
        _ => {}
    }
    let with_zone = text.parse::<Timestamp>().ok();
    with_zone
        .or_else(|| text.parse::<DateTime>().ok().and_then(|time| in_zone(time, zone)))
        .or_else(|| text.parse::<Time>().ok().and_then(|time| in_zone(now.date().to_datetime(time), zone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_told_with_the_one_that_is_meant() {
        for (error, words) in [
            (profile("Alice").unwrap_err(), "write alice"),
            (profile("@Alice").unwrap_err(), "write alice"),
            (to_send("@Alice").unwrap_err(), "write alice"),
            (to_follow("#Büro").unwrap_err(), "without accents"),
            (to_follow("@josé").unwrap_err(), "without accents"),
            (channel("Büro").unwrap_err(), "A-Z, a-z"),
            (to_send("\\#ops").unwrap_err(), "write '#ops'"),
            (to_send("").unwrap_err(), "it is empty; a topic is @NAME or '#CHANNEL'"),
            (to_send("two words").unwrap_err(), "neither a profile (@name) nor a channel (#name)"),
            (to_follow("ops").unwrap_err(), "@ops for the profile, or '#ops' for the channel"),
        ] {
            assert!(error.contains(words), "{error}");
        }
        assert!(!profile("a b").unwrap_err().contains("write"), "nobody knows what is meant");
    }

    #[test]
    fn an_op_in_the_place_of_a_topic_is_told_with_the_command_that_shows_it() {
        for error in [to_look_back("23").unwrap_err(), whom("23").unwrap_err()] {
            assert!(error.contains("recado history --before 24 --last 1"), "{error}");
        }
        assert_eq!(whom("@23"), Ok(Topic::Feed("23".parse().unwrap())));
        assert!(to_look_back("#23").is_ok());
    }

    #[test]
    fn a_point_in_the_past_is_an_op_a_time_ago_or_a_date() {
        assert_eq!(point("17"), Ok(Point::Op(Op(17))));
        assert_eq!(point("10m"), Ok(Point::Ago(Duration::from_secs(600))));
        assert_eq!(point("2d"), Ok(Point::Ago(Duration::from_secs(2 * 24 * 3600))));
        assert_eq!(point("1970-01-01T00:00:01Z"), Ok(Point::At(1000)));
        assert!(matches!(point("yesterday"), Ok(Point::At(_))));
        assert_eq!(point("1970-01-01T02:00:01+02:00"), Ok(Point::At(1000)), "as `date -Is` prints it");
        assert!(point("soon").is_err() && point("1960-01-01").is_err() && point("2026-13-01").is_err());
        assert!(duration("-5s").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn a_date_is_in_the_readers_time_zone_unless_it_has_one() {
        let now: Zoned = "2026-09-02T15:00:00+02:00[Europe/Paris]".parse().unwrap();
        let at = |text| date(text, &now).map(|time| time.to_string());
        assert_eq!(at("2026-09-01").unwrap(), "2026-08-31T22:00:00Z");
        assert_eq!(at("2026-09-01 14:30").unwrap(), "2026-09-01T12:30:00Z");
        assert_eq!(at("2026-09-01T14:30").unwrap(), "2026-09-01T12:30:00Z");
        assert_eq!(at("2026-09-01T14:30:00Z").unwrap(), "2026-09-01T14:30:00Z");
        assert_eq!(at("14:30").unwrap(), "2026-09-02T12:30:00Z");
        assert_eq!(at("today").unwrap(), "2026-09-01T22:00:00Z");
        assert_eq!(at("yesterday").unwrap(), "2026-08-31T22:00:00Z");
        assert_eq!(at("monday-ish"), None);
    }
}
