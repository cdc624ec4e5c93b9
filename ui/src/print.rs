//! Output of the commands: text lines for people, JSON for programs.
//!
//! Text lines have times in the local time zone and no terminal escapes. JSON has times in RFC 3339 and in
//! ms, and the unchanged text, with every character that a terminal might obey written as `\uXXXX`.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use recado_client::{ConnectionEvent, CopySign, Incoming, Notice, Notification, Op, Priority, Topic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
use serde_json::{Value, json};

use crate::text::{clean_line, is_terminal_control, sanitize};
use crate::tui::settings::When;

/// Prefix of each further line of a text. No such line can be mistaken for another notification.
const CONTINUED: &str = "\n      | ";

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct OutputError(#[from] io::Error);

impl OutputError {
    /// Returns true if the reader has closed its end, as in `recado history | head -1`.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints a line to standard error. Nothing depends on it: if it cannot be written, it is lost.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "recado: {text}");
}

/// Prints a line to standard error if standard output is a terminal. It explains to people what a program
/// sees: that a list is empty, or which topic was shown.
pub(crate) fn aside(text: impl Display) {
    if io::stdout().is_terminal() {
        note(text);
    }
}

/// Returns true if nobody can read standard output any more: the reader of the pipe has ended. A write would
/// show it too; this shows it to a command that has nothing to write yet.
pub(crate) fn is_reader_gone() -> bool {
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    // Without an event to wait for, only errors and hang-ups are reported. A failed poll tells nothing.
    poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

/// Returns true if standard output was closed when the program began (`>&-`). Rust's start-up then opens the
/// null device in its place, for reading and writing; the null device that a shell's `>/dev/null` opens is
/// for writing only. The parents that open it for both are taken for such that close it.
pub(crate) fn is_closed() -> bool {
    let out = io::stdout();
    let is_null = fstat(&out).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
    });
    is_null && fcntl_getfl(&out).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// Writes bytes to standard output unchanged.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Standard output, written line by line. A reader that has closed its end is reported as an error at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
    /// True if what people read has colours.
    colours: bool,
}

impl Out {
    pub(crate) fn new(json: bool, colour: When) -> Out {
        Out {
            json,
            colours: has_colours(colour, io::stdout().is_terminal(), |name| std::env::var(name).ok()),
        }
    }

    /// Returns true if the output is text lines and not JSON.
    pub(crate) fn is_for_people(&self) -> bool {
        !self.json
    }

    /// Returns true if text for people has colours.
    pub(crate) fn has_colours(&self) -> bool {
        self.colours
    }

    /// Prints one value, in the format that the user asked for.
    pub(crate) fn put(&self, value: Value, human: impl FnOnce() -> String) -> Result<(), OutputError> {
        let line = if self.json { line_of(&value) } else { human() };
        raw((line + "\n").as_bytes())
    }

    /// Prints one item of a list, which nobody misses but who reads it.
    ///
    /// # Errors
    /// Standard output cannot be written, or was closed when the program began: then the list is lost, and a
    /// script must not take it for an empty one.
    pub(crate) fn item(&self, value: Value, human: impl FnOnce() -> String) -> Result<(), OutputError> {
        if is_closed() {
            return Err(OutputError(io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error())));
        }
        self.put(value, human)
    }

    /// Prints the result of a request that the servers have acknowledged. The request is done: if the
    /// output cannot be written, this prints a note and does not fail, because a script would repeat the
    /// request after a failure.
    pub(crate) fn done(&self, op: Op, value: Value, human: impl FnOnce() -> String) {
        match self.put(value, human) {
            Err(error) if !error.is_closed() => note(format_args!("done as op {op}, but {error}")),
            Ok(()) | Err(_) => {}
        }
    }

    /// Prints one item of the stream.
    pub(crate) fn incoming(&self, incoming: &Incoming) -> Result<(), OutputError> {
        match incoming {
            Incoming::Notification(notification) => self.notification(notification),
            Incoming::Gap { after, upto } => self
                .put(json!({"kind": "gap", "after": after.0, "upto": upto.0}), || {
                    format!("        -- {} --", gap(*after, *upto))
                }),
        }
    }

    /// Prints one notification.
    pub(crate) fn notification(&self, notification: &Notification) -> Result<(), OutputError> {
        self.item(object(notification), || {
            let text = human(notification, &TimeZone::system());
            if self.colours { coloured(&text, notification.content.priority) } else { text }
        })
    }
}

/// Returns true if the output has colours.
fn has_colours(when: When, to_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_dumb = variable("TERM").is_none_or(|term| term == "dumb");
    let is_unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    match when {
        When::Auto => to_terminal && !is_dumb && !is_unwanted,
        When::Always => true,
        When::Never => false,
    }
}

/// The text in the colour of its priority: the highest in red, the next in yellow, low ones dim. Colours of
/// the terminal's own palette, so that they are readable on its background. Each line has its own, because a
/// pager resets them.
fn coloured(text: &str, priority: Priority) -> String {
    let colour = match u8::from(priority) {
        5.. => "1;31",
        4 => "33",
        3 => return text.to_owned(),
        _ => "2",
    };
    let lines: Vec<String> = text.lines().map(|line| format!("\u{1b}[{colour}m{line}\u{1b}[0m")).collect();
    lines.join("\n")
}

/// Formats one line of JSON. It also escapes the characters that serde_json leaves unchanged and a terminal
/// may obey. A program reads the same text, and a terminal does not act on it.
fn line_of(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        if is_terminal_control(c) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

/// Kind of a topic, for JSON and the environment.
pub(crate) fn kind_of(topic: &Topic) -> &'static str {
    match topic {
        Topic::Feed(_) => "feed",
        Topic::Channel(_) => "channel",
        Topic::Inbox(_) => "inbox",
    }
}

/// A topic as users write it.
pub(crate) fn written(topic: &Topic) -> String {
    match topic {
        Topic::Feed(name) | Topic::Inbox(name) => format!("@{name}"),
        Topic::Channel(name) => format!("#{name}"),
    }
}

/// Kind of a notification, for JSON and the environment.
fn kind(notification: &Notification) -> &'static str {
    match notification.notice() {
        None => "notification",
        Some(Notice::Retracted) => "retracted",
        Some(Notice::Retracts(_)) => "retraction",
        Some(Notice::ChannelDeleted) => "channel_deleted",
    }
}

/// The op of the notification that this one retracts.
fn retracts(notification: &Notification) -> Option<Op> {
    match notification.notice() {
        Some(Notice::Retracts(op)) => Some(op),
        Some(Notice::Retracted | Notice::ChannelDeleted) | None => None,
    }
}

/// What a notice says to people, in the place of a text.
pub(crate) fn about_notice(notice: Notice) -> String {
    match notice {
        Notice::Retracted => "(retracted)".to_owned(),
        Notice::Retracts(op) => format!("(retracted op {op})"),
        Notice::ChannelDeleted => "(deleted the channel)".to_owned(),
    }
}

/// JSON object of a notification.
pub(crate) fn object(notification: &Notification) -> Value {
    let content = &notification.content;
    let mut value = json!({
        "kind": kind(notification),
        "op": notification.op.0,
        "topic": written(&notification.topic),
        "topic_kind": kind_of(&notification.topic),
        "author": notification.author.as_str(),
        "time": rfc3339(notification.unix_ms),
        "unix_ms": notification.unix_ms,
        "title": content.title,
        "priority": u8::from(content.priority),
        "tags": content.tags,
        "body": content.body.as_text(),
    });
    if let Some(op) = retracts(notification) {
        value["retracts"] = op.0.into();
    }
    value
}

/// Environment variables that describe a notification to a program run for it: everything except the body.
/// The title and each tag are one line, without characters that a terminal obeys. The tags are a line each,
/// because a tag may have any other separator in it.
pub(crate) fn environment(notification: &Notification) -> [(&'static str, String); 11] {
    let content = &notification.content;
    let tags: Vec<String> = content.tags.iter().map(|tag| clean_line(tag)).collect();
    [
        ("RECADO_KIND", kind(notification).to_owned()),
        ("RECADO_RETRACTS", retracts(notification).map(|op| op.to_string()).unwrap_or_default()),
        ("RECADO_OP", notification.op.to_string()),
        ("RECADO_TOPIC", written(&notification.topic)),
        ("RECADO_TOPIC_KIND", kind_of(&notification.topic).to_owned()),
        ("RECADO_AUTHOR", notification.author.to_string()),
        ("RECADO_TITLE", content.title.as_deref().map(clean_line).unwrap_or_default()),
        ("RECADO_PRIORITY", u8::from(content.priority).to_string()),
        ("RECADO_TAGS", tags.join("\n")),
        ("RECADO_TIME", rfc3339(notification.unix_ms).unwrap_or_default()),
        ("RECADO_UNIX_MS", notification.unix_ms.to_string()),
    ]
}

/// Formats a notification for people: op, time, author, topic, content. Further lines of the body begin
/// with [`CONTINUED`].
fn human(notification: &Notification, zone: &TimeZone) -> String {
    let content = &notification.content;
    let place = match &notification.topic {
        Topic::Feed(_) => String::new(),
        Topic::Channel(name) => format!(" #{name}"),
        Topic::Inbox(name) => format!(" to @{name}"),
    };
    let mut line = format!(
        "{:>6}  {}  @{}{place}: ",
        notification.op.0,
        local(notification.unix_ms, zone),
        notification.author
    );
    if let Some(notice) = notification.notice() {
        line.push_str(&about_notice(notice));
        return line;
    }
    if let Some(title) = &content.title {
        line.push_str(&format!("[{}] ", clean_line(title)));
    }
    line.push_str(&sanitize(&content.body.as_text()).trim_end().replace('\n', CONTINUED));
    if u8::from(content.priority) != 3 {
        line.push_str(&format!("  (priority {})", u8::from(content.priority)));
    }
    if !content.tags.is_empty() {
        let tags: Vec<String> = content.tags.iter().map(|tag| clean_line(tag)).collect();
        line.push_str(&format!("  {{{}}}", tags.join(", ")));
    }
    line
}

/// Describes an event that concerns this device or what the servers remember of it. Returns `None` for all
/// other events.
pub(crate) fn about_device(event: &ConnectionEvent) -> Option<String> {
    let copies = "if that machine is still in use, give it a device of its own: run `recado device add` here, and \
                  there, once its state directory is deleted, `recado device enrol CODE`";
    match event {
        ConnectionEvent::SetBack { from, to } => Some(format!(
            "this device had read up to op {from}, which the servers do not have: they were restored from an older \
             copy, or its cursor was wrong; the device continues after op {to}, the cursor that they have"
        )),
        ConnectionEvent::Copied(CopySign::Numbers { given, last }) => Some(format!(
            "this device has sent from another copy of its files ({} requests, {} known here): a key was \
             moved, a machine cloned, or files were restored; {copies}",
            last.0, given.0
        )),
        ConnectionEvent::Copied(CopySign::Cursor { here, read }) => Some(format!(
            "this device has read up to op {read} from another copy of its files, and these files stand at op {here}: the \
             notifications between them come again; {copies}"
        )),
        ConnectionEvent::ServersSetBack { answered, last } => Some(format!(
            "the servers have lost what they had acknowledged: they know {} requests of this device, and had \
             answered {}; they were restored from an older copy: ask their administrator",
            last.0, answered.0
        )),
        ConnectionEvent::Renumbered { requests } => Some(format!(
            "{requests} unanswered requests had numbers that another copy of this device has used; they are sent under \
             new ones"
        )),
        ConnectionEvent::Connected { .. }
        | ConnectionEvent::Searching
        | ConnectionEvent::PrimaryChanged { .. }
        | ConnectionEvent::PrimaryFound { .. }
        | ConnectionEvent::Ended(_) => None,
    }
}

/// Describes notifications that retention dropped before this device read them.
pub(crate) fn gap(after: Op, upto: Op) -> String {
    format!("older notifications between op {after} and {upto} were dropped before you read them")
}

/// A time in `zone`, to the second.
pub(crate) fn local(unix_ms: u64, zone: &TimeZone) -> String {
    match timestamp(unix_ms) {
        Some(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => format!("{unix_ms} ms"),
    }
}

/// A time in the local time zone.
pub(crate) fn when(unix_ms: u64) -> String {
    local(unix_ms, &TimeZone::system())
}

/// A time in UTC, for programs. `None` beyond the year 9999.
pub(crate) fn rfc3339(unix_ms: u64) -> Option<String> {
    timestamp(unix_ms).map(|time| format!("{time:.3}"))
}

fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use recado_client::Content;

    use super::*;
    use crate::text::tests::hostile;
    use proptest::prelude::*;

    pub(crate) fn notification(body: &str) -> Notification {
        Notification {
            op: Op(17),
            topic: Topic::to_send("#ops").unwrap(),
            author: "alice".parse().unwrap(),
            unix_ms: 1_790_000_000_123,
            content: Content {
                title: Some("Bac\u{1b}[31mkup".into()),
                priority: Priority::try_from(5).unwrap(),
                tags: vec!["disk".into(), "nig\u{7}ht".into()],
                body: body.into(),
                extra: Vec::new(),
            },
            options: recado_proto::packet::OptionalFields::NONE,
        }
    }

    #[test]
    fn people_see_one_clean_line_and_further_ones_marked() {
        assert_eq!(
            human(&notification("done\u{1b}]0;x\u{7}\nin 41 s\n"), &TimeZone::UTC),
            "    17  2026-09-21 14:13:20  @alice #ops: [Backup] done\n      | in 41 s  (priority 5)  {disk, night}"
        );
    }

    #[test]
    fn a_terminal_sees_the_priority_as_a_colour_and_nothing_else_does() {
        let of = |priority| coloured("a\nb", Priority::try_from(priority).unwrap());
        assert_eq!(of(3), "a\nb");
        assert_eq!(of(5), "\u{1b}[1;31ma\u{1b}[0m\n\u{1b}[1;31mb\u{1b}[0m");
        assert!(of(4) != of(5) && of(1).contains("[2m"));
        let set = |name: &'static str| {
            move |asked: &str| match asked {
                "TERM" => Some(if name == "dumb" { "dumb" } else { "xterm" }.to_owned()),
                asked => (asked == name).then(|| "1".to_owned()),
            }
        };
        assert!(has_colours(When::Auto, true, set("")));
        assert!(!has_colours(When::Auto, false, set("")), "no terminal");
        assert!(
            !has_colours(When::Auto, true, set("NO_COLOR")) && !has_colours(When::Auto, true, set("dumb"))
        );
        assert!(
            has_colours(When::Always, false, set("NO_COLOR")) && !has_colours(When::Never, true, set(""))
        );
    }

    #[test]
    fn programs_get_one_line_with_the_text_as_it_is() {
        let line = line_of(&object(&notification("a\n\u{1b}\u{9b}2J\u{7f}\u{202e}")));
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["body"], "a\n\u{1b}\u{9b}2J\u{7f}\u{202e}");
        assert_eq!(value["time"], "2026-09-21T14:13:20.123Z");
        assert_eq!((&value["op"], &value["unix_ms"]), (&json!(17), &json!(1_790_000_000_123u64)));
        assert_eq!((&value["topic"], &value["topic_kind"]), (&json!("#ops"), &json!("channel")));
    }

    proptest! {
        #[test]
        fn no_text_can_pass_for_another_notification_or_reach_the_terminal(
            body in hostile(),
            title in hostile(),
            tag in hostile(),
        ) {
            let mut notification = notification(&body);
            notification.content.title = Some(title);
            notification.content.tags = vec![tag];
            let shown = human(&notification, &TimeZone::UTC);
            let mut lines = shown.split('\n');
            prop_assert!(lines.next().is_some_and(|first| first.starts_with("    17  2026-09-21 14:13:20  @alice")));
            prop_assert!(lines.all(|line| line.starts_with("      | ")), "{}", shown);
            prop_assert!(!shown.chars().any(|c| is_terminal_control(c) && !matches!(c, '\n' | '\t')), "{:?}", shown);

            let line = line_of(&object(&notification));
            prop_assert!(!line.chars().any(is_terminal_control), "{:?}", line);
            let value: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(value["body"].as_str(), Some(body.as_str()));

            for (name, value) in environment(&notification) {
                prop_assert!(!value.chars().any(is_terminal_control), "{} {:?}", name, value);
            }
        }
    }

    #[test]
    fn the_feed_and_the_inbox_of_one_profile_are_printed_differently() {
        let alice = Topic::to_follow("@alice").unwrap();
        for (topic, kind) in [(alice, "feed"), (Topic::to_send("@alice").unwrap(), "inbox")] {
            let notification = Notification { topic, ..notification("x") };
            assert_eq!(object(&notification)["topic"], "@alice");
            assert_eq!(object(&notification)["topic_kind"], kind);
            let environment = environment(&notification);
            assert!(environment.contains(&("RECADO_TOPIC", "@alice".into())));
            assert!(environment.contains(&("RECADO_TOPIC_KIND", kind.into())));
        }
    }

    #[test]
    fn a_notice_is_of_its_own_kind_and_people_read_what_it_says() {
        for (notice, kind, words) in [
            (Notice::Retracted, "retracted", "(retracted)"),
            (Notice::Retracts(Op(9)), "retraction", "(retracted op 9)"),
            (Notice::ChannelDeleted, "channel_deleted", "(deleted the channel)"),
        ] {
            let content = Content::of("");
            let notification = Notification { options: notice.options(), content, ..notification("") };
            let value = object(&notification);
            assert_eq!(value["kind"], kind);
            assert_eq!(value.get("retracts"), (kind == "retraction").then_some(&json!(9)));
            assert!(environment(&notification).contains(&("RECADO_KIND", kind.into())));
            assert!(human(&notification, &TimeZone::UTC).ends_with(&format!("@alice #ops: {words}")));
        }
        assert_eq!(object(&notification("x"))["kind"], "notification");
    }

    #[test]
    fn tags_with_commas_are_told_apart() {
        let mut notification = notification("x");
        notification.content.tags = vec!["a,b".into(), "c\nd".into()];
        assert!(environment(&notification).contains(&("RECADO_TAGS", "a,b\nc d".into())));
    }

    #[test]
    fn a_time_beyond_the_calendar_is_no_panic() {
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(local(u64::MAX, &TimeZone::UTC), format!("{} ms", u64::MAX));
    }
}
