//! `recado send`.

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use recado_client::{
    Client, ClientError, Code, Content, HistoryRange, Op, Queries as _, Receipt, ReceiptError, Topic,
};
use serde_json::json;

use super::Context;
use super::channel::explained;
use crate::cli::{Send, send_to, shell_words};
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::print::{aside, note, written};
use crate::trust::{is_somebody_there, is_yes_to};
use crate::waiting;
use crate::wording::{SEND_MOST, not_created, too_large};

/// Largest number of lines of standard input that wait for their acknowledgement.
const UNDER_WAY: usize = 256;
/// Interval at which the receipts are checked while no line arrives.
const REPORT_EVERY: Duration = Duration::from_millis(20);

pub(super) fn run(context: &Context, send: Send) -> Result<(), Failure> {
    let (client, content) = match Source::of(&send, io::stdin().is_terminal())? {
        Source::Lines => return lines(context, &send),
        Source::Whole => {
            // A text may take hours to come, or to type, and is not to be lost then.
            let client = connect_first(context, &send)?;
            tell_typist("type the text; Ctrl-D, at the beginning of a line, ends it");
            let text = context.of_user(|| whole(io::stdin().lock(), send.lossy))??;
            (client, checked(content(&send, text))?)
        }
        Source::Text(text) => {
            let content = checked(content(&send, text))?;
            (connect(context, &send)?, content)
        }
    };
    let receipt = client.send(send.to.clone(), content)?;
    let op = context.wait(&receipt, send.to.as_ref()).map_err(|failure| worded(&client, failure))?;
    let to_terminal = io::stdout().is_terminal();
    context.out.done(op, json!({"op": op.0}), || {
        if to_terminal { sent(send.to.as_ref(), op) } else { op.to_string() }
    });
    if client.has_claimed().is_ok_and(|claimed| claimed) {
        aside(format_args!(
            "op {op} is the notification's number in the servers' log: its id, and its place among all others"
        ));
    }
    note_made_channel(&receipt, &send);
    Ok(())
}

/// What a person is told of a notification that is sent: to whom, because a name in the text sends it to
/// nobody.
fn sent(to: Option<&Topic>, op: Op) -> String {
    format!("sent to {}: op {op}", to.map_or("your followers".to_owned(), written))
}

/// The content, unless it is blank or too large. It is the command line that is wrong then, whichever of its
/// values it is.
fn checked(content: Content) -> Result<Content, Failure> {
    if content.is_blank() {
        let what = "nothing to send: the text has nothing to see, and there is no --title";
        return Err(Failure::Usage(what.to_owned()));
    }
    match too_large(&content) {
        Some(which) => Err(Failure::Usage(which)),
        None => Ok(content),
    }
}

/// Opens the session for texts that are not read yet. What would be wrong with each of them is checked
/// before.
fn connect_first(context: &Context, send: &Send) -> Result<Client, Failure> {
    too_large(&content(send, String::new())).map_or(Ok(()), |which| Err(Failure::Usage(which)))?;
    connect(context, send)
}

/// Tells a person at a terminal that the command reads what is typed.
fn tell_typist(text: &str) {
    if io::stdin().is_terminal() {
        note(text);
    }
}

/// Where the text comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Text(String),
    /// Each line of standard input is one.
    Lines,
    /// All of standard input.
    Whole,
}

impl Source {
    fn of(send: &Send, stdin_is_terminal: bool) -> Result<Source, Failure> {
        let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
        if send.to.is_none()
            && send.literal.is_empty()
            && let Some(what) = meant_for_one(&send.text)
        {
            return Err(Failure::Usage(what));
        }
        let words = [&send.text[..], &send.literal[..]].concat();
        match (&send.message, &words[..]) {
            (Some(text), _) => Ok(Source::Text(text.clone())),
            (None, [one]) if one == "-" => Ok(if send.whole { Source::Whole } else { Source::Lines }),
            (None, []) if send.whole || !stdin_is_terminal => Ok(Source::Whole),
            // A title alone is sent, as it is with an empty text.
            (None, []) if send.title.is_some() => Ok(Source::Text(String::new())),
            (None, []) => wrong(
                "nothing to send: give a text; or - to type a notification a line, --whole to type a longer one \
                 (Ctrl-D ends both)",
            ),
            (None, _) if send.whole => {
                wrong("--whole sends standard input; with it there is no other text than -")
            }
            (None, words) => Ok(Source::Text(words.join(" "))),
        }
    }
}

/// What is wrong with a text that begins or ends with a topic, but is sent to none: it may be meant for that
/// one alone, and would go to all followers.
fn meant_for_one(words: &[String]) -> Option<String> {
    let is_topic = |word: &&String| Topic::to_send(word).is_ok();
    let (topic, rest) = match words {
        [first, rest @ ..] if is_topic(&first) => (first, rest),
        [rest @ .., last] if is_topic(&last) => (last, rest),
        _ => return None,
    };
    Some(format!(
        "without -t this goes to all your followers; did you mean: {}\nTo send it to them as it is, write: recado send -- {}",
        send_to(topic, rest),
        shell_words(words)
    ))
}

/// Reads all of standard input as one text, without the line ends at its end, as a shell's $(...) does. It
/// reads little more than a text may have.
fn whole(input: impl Read, lossy: bool) -> Result<String, Failure> {
    // Line ends at the end do not count, but there may be no number of them.
    let most = 2 * Content::BODY_MAX as u64;
    let mut bytes = Vec::new();
    input.take(most).read_to_end(&mut bytes)?;
    while bytes.pop_if(|last| matches!(last, b'\n' | b'\r')).is_some() {}
    if bytes.len() > Content::BODY_MAX {
        return Err(Failure::Usage(format!(
            "standard input is too large for one text, whose limit is {} bytes; with - each line is a notification",
            Content::BODY_MAX
        )));
    }
    text_of(bytes, lossy).ok_or_else(|| Failure::Usage(format!("standard input {NOT_UTF_8}")))
}

/// The text that these bytes are; none if they are not UTF-8, unless what is not is to be replaced.
fn text_of(bytes: Vec<u8>, lossy: bool) -> Option<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if lossy => Some(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Err(_) => None,
    }
}

/// What follows the name of an input that is no text.
const NOT_UTF_8: &str = "is not UTF-8; send it with --lossy, which replaces what is not, or convert it first, as with: iconv \
     -f LATIN1 -t UTF-8";

/// Opens the session, and makes sure that the channel is there, if it is not to be created: what is sent to a
/// mistyped one would create it.
fn connect(context: &Context, send: &Send) -> Result<Client, Failure> {
    let creates = send.create || (context.config.creates && !send.no_create);
    let client = context.connect_to_claim()?;
    context.tell_unsent(&client);
    let Some(topic @ Topic::Channel(channel)) = &send.to else { return Ok(client) };
    if send.create || (creates && !is_somebody_there()) || is_there(context, &client, topic)? {
        return Ok(client);
    }
    let prompt = format!(
        "There is no channel #{channel}. Sending creates it: open to everyone, and only you can delete it.\n\
         Create #{channel}? [y/N] "
    );
    let is_wanted = creates && context.of_user(|| is_yes_to(&prompt))?;
    match (creates, is_wanted) {
        (true, true) => Ok(client),
        (true, false) => Err(Failure::Refused(format!("nothing was sent, and #{channel} was not created"))),
        (false, _) => Err(Failure::Refused(not_created(channel))),
    }
}

/// Returns false if there is no such channel. One that the user may not read, or that was deleted, is there.
fn is_there(context: &Context, client: &Client, topic: &Topic) -> Result<bool, Failure> {
    let newest = HistoryRange::Before(Op(u64::MAX));
    match context.ask(|| client.history(Some(topic.clone()), newest, 1))? {
        Ok(_) => Ok(true),
        Err(ClientError::Refused(code)) => Ok(code != Code::UnknownChannel),
        Err(error) => Err(error.into()),
    }
}

/// Explains a refusal for a missing right or a full table.
fn worded(client: &Client, failure: Failure) -> Failure {
    explained(client, failure.limited(SEND_MOST), "a writer")
}

/// Prints a note if the notification made its channel, whose name may be mistyped.
fn note_made_channel(receipt: &Receipt, send: &Send) {
    if let Some(topic) = send.to.as_ref().filter(|_| receipt.made_channel()) {
        note(format_args!(
            "created {topic}: there was no such channel; anyone can follow it and send to it now"
        ));
    }
}

/// Sends a notification for each line of standard input. Up to [`UNDER_WAY`] lines wait for their
/// acknowledgement at a time, and their ops are printed in order. A line that fails ends the sending, once
/// all earlier lines are answered. A signal ends it at once, and the lines without a result are told.
fn lines(context: &Context, send: &Send) -> Result<(), Failure> {
    let client = &connect_first(context, send)?;
    let interrupt = context.interrupt()?;
    tell_typist("type a notification a line; Ctrl-D ends");
    let (receipts, alike) = (VecDeque::new(), None);
    let mut under_way = UnderWay { context, client, interrupt, send, receipts, alike, failed: None };
    let mut number = 0_u64;
    match under_way.run(&read_lines(send.lossy)?, &mut number) {
        Err(Failure::Signal(signal)) => {
            under_way.report_answered();
            under_way.report_alike();
            let left = under_way.receipts.iter().map(|(number, _)| *number);
            let unknown = left.clone().min().zip(left.max());
            note(interrupted(unknown, number, under_way.failed.is_none()));
            Err(Failure::Signal(signal))
        }
        Err(failure) => Err(failure),
        Ok(()) => under_way.failed.map_or(Ok(()), |failure| Err(Failure::Told(Box::new(failure)))),
    }
}

/// What a signal leaves of standard input, of which `read` lines were taken: the lines that are sent for
/// certain, those of which it is `unknown`, and those that are not sent. Unless `all_well`, lines before
/// those have failed, and that is told already.
fn interrupted(unknown: Option<(u64, u64)>, read: u64, all_well: bool) -> String {
    let lines = |first, last| match first == last {
        true => format!("line {first}"),
        false => format!("lines {first} to {last}"),
    };
    let answered = unknown.map_or(read, |(first, _)| first - 1);
    let mut parts = Vec::new();
    match answered {
        0 => {}
        _ if all_well => parts.push(format!("sent: {}", lines(1, answered))),
        _ => parts.push(format!("as told above: {}", lines(1, answered))),
    }
    if let Some((first, last)) = unknown {
        parts.push(format!(
            "unknown: {}, kept here, and the next command as this profile that sends, changes or listens sends what has not arrived, and nothing twice",
            lines(first, last)
        ));
    }
    parts.push(match read {
        0 => "not sent: all of standard input".to_owned(),
        read => format!("not sent: what comes after line {read}"),
    });
    format!("interrupted. Of the lines of standard input, {}", parts.join("; "))
}

/// Reads the lines of standard input in a thread. Nobody joins the thread: it may still wait for a line
/// when everything else is done.
fn read_lines(lossy: bool) -> Result<Receiver<Result<String, LineError>>, Failure> {
    let (sender, lines) = mpsc::sync_channel(UNDER_WAY);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input, lossy) {
            let wrong = line.is_err();
            // The receiver is gone because a line has failed.
            if sender.send(line).is_err() || wrong {
                break;
            }
        }
    })?;
    Ok(lines)
}

/// Reason why a line cannot be the body of a notification.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("it has more than {} bytes, the limit of a text", Content::BODY_MAX)]
    TooLong,
    #[error("it {NOT_UTF_8}")]
    NotUtf8,
    #[error("cannot read it: {0}")]
    Unreadable(io::Error),
}

/// Reads one line without its end, or returns `None` at the end of the input. It reads no more of a line
/// that is too long than shows this.
fn next_line(input: &mut impl BufRead, lossy: bool) -> Option<Result<String, LineError>> {
    let most = Content::BODY_MAX + "\r\n".len();
    let mut line = Vec::new();
    match input.take(most as u64).read_until(b'\n', &mut line) {
        Err(error) => return Some(Err(LineError::Unreadable(error))),
        Ok(0) => return None,
        Ok(_) => {}
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    }
    if line.len() > Content::BODY_MAX {
        return Some(Err(LineError::TooLong));
    }
    Some(text_of(line, lossy).ok_or(LineError::NotUtf8))
}

/// Lines that are sent, and whose results are not printed yet.
struct UnderWay<'a> {
    context: &'a Context,
    client: &'a Client,
    interrupt: &'a Interrupt,
    send: &'a Send,
    /// Receipts with the numbers of their lines, ascending.
    receipts: VecDeque<(u64, Receipt)>,
    /// Consecutive lines that failed for the same reason, which is printed once.
    alike: Option<FailedRange>,
    /// Failure of the first line that failed.
    failed: Option<Failure>,
}

/// Range of lines that failed, without another result in between.
struct FailedRange {
    first: u64,
    last: u64,
    why: String,
}

impl UnderWay<'_> {
    /// Sends the lines until they end, one fails, or a signal comes. `number` is that of the last line that
    /// was taken.
    ///
    /// # Errors
    /// [`Failure::Signal`] alone.
    fn run(&mut self, lines: &Receiver<Result<String, LineError>>, number: &mut u64) -> Result<(), Failure> {
        loop {
            if let Some(signal) = self.interrupt.arrived() {
                return Err(Failure::Signal(signal));
            }
            match lines.recv_timeout(REPORT_EVERY) {
                Err(RecvTimeoutError::Disconnected) => break,
                // The next line may take long to arrive, and the reader of the output needs the known ops
                // without delay.
                Err(RecvTimeoutError::Timeout) => {}
                Ok(line) => {
                    *number += 1;
                    match one(self.client, self.send, line) {
                        Ok(None) => {}
                        Ok(Some(receipt)) => self.receipts.push_back((*number, receipt)),
                        Err(failure) => {
                            self.report_all()?;
                            self.fail(*number, failure);
                        }
                    }
                }
            }
            self.report_answered();
            while self.receipts.len() >= UNDER_WAY {
                self.report_first()?;
            }
            if self.failed.is_some() {
                self.report_all()?;
                note(format_args!("nothing after line {number} was sent"));
                return Ok(());
            }
        }
        self.report_all()
    }

    /// Prints the results that are known, as far as they follow each other.
    fn report_answered(&mut self) {
        while let Some((number, receipt)) = self.receipts.pop_front_if(|(_, receipt)| is_answered(receipt)) {
            let result = receipt.wait(Duration::ZERO);
            let topic = self.send.to.clone();
            self.record(number, &receipt, result.map_err(|error| Failure::Request { error, topic }));
        }
    }

    fn report_all(&mut self) -> Result<(), Failure> {
        while !self.receipts.is_empty() {
            self.report_first()?;
        }
        self.report_alike();
        Ok(())
    }

    /// Waits for the result of the first line, and prints its op.
    ///
    /// # Errors
    /// [`Failure::Signal`] alone; the line is still under way.
    fn report_first(&mut self) -> Result<(), Failure> {
        let Some((number, receipt)) = self.receipts.front() else { return Ok(()) };
        // After one line has timed out, the lines behind it have waited as long.
        let unknown =
            matches!(self.failed, Some(Failure::Request { error: ReceiptError::OutcomeUnknown, .. }));
        let timeout = if unknown { Duration::ZERO } else { self.context.timeout_of_each() };
        match waiting::for_receipt(receipt, timeout, self.send.to.as_ref(), self.interrupt) {
            Err(failure @ Failure::Signal(_)) => Err(failure),
            result => {
                let (number, receipt) = (*number, receipt.clone());
                self.receipts.pop_front();
                self.record(number, &receipt, result);
                Ok(())
            }
        }
    }

    fn record(&mut self, number: u64, receipt: &Receipt, result: Result<Op, Failure>) {
        match result {
            Ok(op) => {
                self.report_alike();
                self.context.out.done(op, json!({"op": op.0}), || op.to_string());
                note_made_channel(receipt, self.send);
            }
            Err(failure) => self.fail(number, worded(self.client, failure)),
        }
    }

    fn fail(&mut self, number: u64, failure: Failure) {
        let why = failure.to_string();
        match &mut self.alike {
            Some(alike) if alike.why == why => alike.last = number,
            _ => {
                self.report_alike();
                self.alike = Some(FailedRange { first: number, last: number, why });
            }
        }
        self.failed.get_or_insert(failure);
    }

    fn report_alike(&mut self) {
        match self.alike.take() {
            None => {}
            Some(FailedRange { first, last, why }) if first == last => {
                note(format_args!("line {first} of standard input: {why}"));
            }
            Some(FailedRange { first, last, why }) => {
                note(format_args!("lines {first} to {last} of standard input, each: {why}"));
            }
        }
    }
}

/// Sends a line. A blank one is skipped.
fn one(client: &Client, send: &Send, line: Result<String, LineError>) -> Result<Option<Receipt>, Failure> {
    let line = line.map_err(|error| match error {
        LineError::TooLong | LineError::NotUtf8 => Failure::Usage(error.to_string()),
        LineError::Unreadable(_) => Failure::Other(error.to_string()),
    })?;
    if line.chars().all(Content::is_blank_char) {
        return Ok(None);
    }
    let content = content(send, line);
    too_large(&content).map_or(Ok(()), |which| Err(Failure::Usage(which)))?;
    Ok(Some(client.send(send.to.clone(), content)?))
}

fn is_answered(receipt: &Receipt) -> bool {
    // A refusal is a result too. It is reported at once, not at the end of the input.
    !matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown))
}

fn content(send: &Send, body: String) -> Content {
    Content {
        // A script that has no title gives an empty one.
        title: send.title.clone().filter(|title| !title.chars().all(Content::is_blank_char)),
        priority: send.priority,
        tags: send.tags.clone(),
        body: body.into(),
        extra: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn typed(line: &[&str]) -> Send {
        use clap::Parser;
        let cli = crate::cli::Cli::try_parse_from(["recado", "send"].iter().chain(line)).unwrap();
        let Some(crate::cli::Command::Send(send)) = cli.command else { panic!("no send") };
        send
    }

    #[test]
    fn the_text_is_typed_or_each_line_or_all_of_standard_input() {
        let text = |text: &str| Source::Text(text.to_owned());
        let of = |line: &[&str], is_terminal| Source::of(&typed(line), is_terminal).ok();
        assert_eq!(of(&["two", "words"], true), Some(text("two words")));
        assert_eq!(of(&["-m", "-5 degrees"], false), Some(text("-5 degrees")));
        assert_eq!(of(&["-"], false), Some(Source::Lines));
        assert_eq!(of(&["--whole", "-"], false), Some(Source::Whole));
        assert_eq!(of(&["--whole"], true), Some(Source::Whole));
        assert_eq!(of(&[], false), Some(Source::Whole));
        assert_eq!(of(&[], true), None, "nobody waits for a text that nobody knows of");
        assert_eq!(of(&["--whole", "text"], false), None);
        assert_eq!(of(&["--title", "alone"], true), Some(text("")));
        assert_eq!(of(&["--title", "with a text"], false), Some(Source::Whole));
    }

    #[test]
    fn a_text_that_may_be_meant_for_one_is_not_sent_to_all_unless_it_follows_two_hyphens() {
        for (line, meant) in [
            (&["@carol", "secret"][..], "recado send -t '@carol' secret\n"),
            (&["#ops", "disk", "full"], "recado send -t '#ops' disk full\n"),
            (&["hello", "@bob"], "recado send -t '@bob' hello\n"),
            (&["@bob"], "recado send -t '@bob' TEXT\n"),
            (&["@bob", "it's $HOME"], "recado send -t '@bob' 'it'\\''s $HOME'\n"),
            (&["@bob", "-"], "recado send -t '@bob' -\n"),
        ] {
            let failure = Source::of(&typed(line), false).unwrap_err();
            assert!(matches!(&failure, Failure::Usage(what) if what.contains(meant)), "{line:?}: {failure}");
            assert!(failure.to_string().contains("recado send -- "), "{line:?}: {failure}");
        }
        let text = |line: &[&str]| match Source::of(&typed(line), false).unwrap() {
            Source::Text(text) => text,
            other => panic!("{line:?}: {other:?}"),
        };
        assert_eq!(text(&["--", "@carol", "secret"]), "@carol secret");
        assert_eq!(text(&["thanks", "--", "@bob"]), "thanks @bob");
        assert_eq!(text(&["-t", "#ops", "@bob", "look"]), "@bob look", "it goes where it is told to");
        assert_eq!(text(&["ask @bob about", "#1:", "it is done"]), "ask @bob about #1: it is done");
        assert_eq!(text(&["-m", "@carol"]), "@carol");
    }

    #[test]
    fn a_person_is_told_to_whom_a_notification_went() {
        assert_eq!(sent(None, Op(101)), "sent to your followers: op 101");
        assert_eq!(sent(Some(&Topic::to_send("#ops").unwrap()), Op(102)), "sent to #ops: op 102");
        assert_eq!(sent(Some(&Topic::to_send("@bob").unwrap()), Op(103)), "sent to @bob: op 103");
    }

    #[test]
    fn an_empty_title_is_none() {
        for (line, title) in [(&["--title", "", "x"][..], None), (&["--title", "T", "x"], Some("T"))] {
            assert_eq!(content(&typed(line), "x".to_owned()).title.as_deref(), title);
        }
    }

    #[test]
    fn the_whole_input_is_one_text_without_the_line_ends_at_its_end() {
        let whole = |input: &[u8]| super::whole(input, false);
        assert_eq!(whole("one\n\n two\r\n\n".as_bytes()).unwrap(), "one\n\n two");
        let longest = "x".repeat(Content::BODY_MAX);
        assert_eq!(whole(format!("{longest}\n").as_bytes()).unwrap(), longest);
        let failure = whole(format!("{longest}x").as_bytes()).unwrap_err();
        assert!(matches!(&failure, Failure::Usage(_)) && failure.to_string().contains("16384"), "{failure}");
        assert!(super::whole(io::repeat(b'x'), false).is_err(), "it has no end");
        let failure = whole(b"caf\xe9").unwrap_err();
        assert!(matches!(&failure, Failure::Usage(what) if what.contains("--lossy")), "{failure}");
        assert_eq!(super::whole(&b"caf\xe9\n"[..], true).unwrap(), "caf\u{fffd}");
    }

    #[test]
    fn lines_are_read_as_they_are_sent() {
        let mut input = BufReader::new("one\n\ntwo\r\nlast".as_bytes());
        let lines: Vec<String> =
            std::iter::from_fn(|| next_line(&mut input, false)).map(Result::unwrap).collect();
        assert_eq!(lines, ["one", "", "two", "last"]);
        let mut latin = BufReader::new(&b"caf\xe9\n"[..]);
        let error = next_line(&mut latin, false).unwrap().unwrap_err();
        assert!(error.to_string().contains("iconv") && error.to_string().contains("--lossy"), "{error}");
        let mut latin = BufReader::new(&b"caf\xe9\nnext\n"[..]);
        let lines: Vec<String> =
            std::iter::from_fn(|| next_line(&mut latin, true)).map(Result::unwrap).collect();
        assert_eq!(lines, ["caf\u{fffd}", "next"]);
    }

    #[test]
    fn a_line_of_any_length_is_read_no_further_than_a_text_may_have() {
        let longest = "x".repeat(Content::BODY_MAX);
        for end in ["", "\n", "\r\n"] {
            let text = format!("{longest}{end}");
            assert_eq!(next_line(&mut text.as_bytes(), false).unwrap().unwrap(), longest, "{end:?}");
            let text = format!("{longest}x{end}");
            assert!(
                matches!(next_line(&mut text.as_bytes(), false), Some(Err(LineError::TooLong))),
                "{end:?}"
            );
        }
        /// A reader without an end that counts its bytes.
        struct Endless(usize);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b'x');
                self.0 += buffer.len();
                Ok(buffer.len())
            }
        }
        let mut input = BufReader::new(Endless(0));
        assert!(matches!(next_line(&mut input, false), Some(Err(LineError::TooLong))));
        assert!(input.get_ref().0 < 2 * Content::BODY_MAX, "{}", input.get_ref().0);
    }

    #[test]
    fn an_interruption_accounts_for_every_line_that_was_read() {
        for (unknown, read, all_well, parts) in [
            (
                Some((229, 456)),
                456,
                true,
                &[
                    "sent: lines 1 to 228;",
                    "unknown: lines 229 to 456,",
                    "not sent: what comes after line 456",
                ][..],
            ),
            (
                Some((2, 2)),
                5,
                true,
                &["sent: line 1;", "unknown: line 2,", "not sent: what comes after line 5"],
            ),
            (
                Some((1, 3)),
                3,
                true,
                &["standard input, unknown: lines 1 to 3,", "not sent: what comes after line 3"],
            ),
            (None, 7, true, &["sent: lines 1 to 7;", "not sent: what comes after line 7"]),
            (None, 0, true, &["standard input, not sent: all of standard input"]),
            (Some((5, 6)), 6, false, &["as told above: lines 1 to 4;", "unknown: lines 5 to 6,"]),
        ] {
            let text = interrupted(unknown, read, all_well);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(text.contains("unknown"), unknown.is_some(), "{text}");
        }
    }
}
