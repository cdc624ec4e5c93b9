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
use crate::cli::Send;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::print::{aside, note};
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
            let text = context.of_user(|| whole(io::stdin().lock()))??;
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
        if to_terminal { format!("sent: op {op}") } else { op.to_string() }
    });
    if client.has_claimed().is_ok_and(|claimed| claimed) {
        aside(format_args!(
            "op {op} is the notification's number in the servers' log: its id, and its place among all others"
        ));
    }
    note_made_channel(&receipt, &send);
    Ok(())
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
        match (&send.message, &send.text[..]) {
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

/// Reads all of standard input as one text, without the line ends at its end, as a shell's $(...) does. It
/// reads little more than a text may have.
fn whole(input: impl Read) -> Result<String, Failure> {
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
    String::from_utf8(bytes).map_err(|_| {
        Failure::Other(
            "standard input is not UTF-8; convert it first, as with: iconv -f LATIN1 -t UTF-8".to_owned(),
        )
    })
}

/// Opens the session, and makes sure that the channel is there, if it is not to be created: what is sent to a
/// mistyped one would create it.
fn connect(context: &Context, send: &Send) -> Result<Client, Failure> {
    let creates = send.create || (context.config.creates && !send.no_create);
    let client = context.connect_to_claim()?;
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
    context.tell_unsent(&client);
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
    match under_way.run(&read_lines()?, &mut number) {
        Err(Failure::Signal(signal)) => {
            under_way.report_answered();
            under_way.report_alike();
            let left = under_way.receipts.iter().map(|(number, _)| *number);
            note(interrupted(left.clone().min(), left.max(), number));
            Err(Failure::Signal(signal))
        }
        Err(failure) => Err(failure),
        Ok(()) => under_way.failed.map_or(Ok(()), |failure| Err(Failure::Told(Box::new(failure)))),
    }
}

/// What a signal leaves: the lines from `first` to `last` have no result, and nothing after line `read` was
/// sent.
fn interrupted(first: Option<u64>, last: Option<u64>, read: u64) -> String {
    let Some((first, last)) = first.zip(last) else {
        return format!(
            "interrupted: nothing after line {read} of standard input was sent, and no line before it is without result"
        );
    };
    let (which, them) = if first == last {
        (format!("line {first}"), "it is")
    } else {
        (format!("lines {first} to {last}"), "they are")
    };
    format!(
        "interrupted: the outcome of {which} of standard input is unknown; {them} saved, and the next command as this \
         profile settles what is unknown, without sending it twice; nothing after line {read} was sent"
    )
}

/// Reads the lines of standard input in a thread. Nobody joins the thread: it may still wait for a line
/// when everything else is done.
fn read_lines() -> Result<Receiver<Result<String, LineError>>, Failure> {
    let (sender, lines) = mpsc::sync_channel(UNDER_WAY);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input) {
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
    #[error("it is not UTF-8; convert the input first, as with: iconv -f LATIN1 -t UTF-8")]
    NotUtf8,
    #[error("cannot read it: {0}")]
    Unreadable(io::Error),
}

/// Reads one line without its end, or returns `None` at the end of the input. It reads no more of a line
/// that is too long than shows this.
fn next_line(input: &mut impl BufRead) -> Option<Result<String, LineError>> {
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
    Some(String::from_utf8(line).map_err(|_| LineError::NotUtf8))
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
        LineError::TooLong => Failure::Refused(error.to_string()),
        LineError::NotUtf8 | LineError::Unreadable(_) => Failure::Other(error.to_string()),
    })?;
    if line.chars().all(Content::is_blank_char) {
        return Ok(None);
    }
    let content = content(send, line);
    too_large(&content).map_or(Ok(()), |which| Err(Failure::Refused(which)))?;
    Ok(Some(client.send(send.to.clone(), content)?))
}

fn is_answered(receipt: &Receipt) -> bool {
    // A refusal is a result too. It is reported at once, not at the end of the input.
    !matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown))
}

fn content(send: &Send, body: String) -> Content {
    Content {
        title: send.title.clone(),
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
    fn the_whole_input_is_one_text_without_the_line_ends_at_its_end() {
        assert_eq!(whole("one\n\n two\r\n\n".as_bytes()).unwrap(), "one\n\n two");
        let longest = "x".repeat(Content::BODY_MAX);
        assert_eq!(whole(format!("{longest}\n").as_bytes()).unwrap(), longest);
        let failure = whole(format!("{longest}x").as_bytes()).unwrap_err();
        assert!(matches!(&failure, Failure::Usage(_)) && failure.to_string().contains("16384"), "{failure}");
        assert!(whole(io::repeat(b'x')).is_err(), "it has no end");
        assert!(whole(&b"caf\xe9"[..]).unwrap_err().to_string().contains("iconv"));
    }

    #[test]
    fn lines_are_read_as_they_are_sent() {
        let mut input = BufReader::new("one\n\ntwo\r\nlast".as_bytes());
        let lines: Vec<String> = std::iter::from_fn(|| next_line(&mut input)).map(Result::unwrap).collect();
        assert_eq!(lines, ["one", "", "two", "last"]);
        let mut latin = BufReader::new(&b"caf\xe9\n"[..]);
        let error = next_line(&mut latin).unwrap().unwrap_err();
        assert!(error.to_string().contains("iconv"), "{error}");
    }

    #[test]
    fn a_line_of_any_length_is_read_no_further_than_a_text_may_have() {
        let longest = "x".repeat(Content::BODY_MAX);
        for end in ["", "\n", "\r\n"] {
            let text = format!("{longest}{end}");
            assert_eq!(next_line(&mut text.as_bytes()).unwrap().unwrap(), longest, "{end:?}");
            let text = format!("{longest}x{end}");
            assert!(matches!(next_line(&mut text.as_bytes()), Some(Err(LineError::TooLong))), "{end:?}");
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
        assert!(matches!(next_line(&mut input), Some(Err(LineError::TooLong))));
        assert!(input.get_ref().0 < 2 * Content::BODY_MAX, "{}", input.get_ref().0);
    }

    #[test]
    fn an_interruption_accounts_for_every_line_that_was_read() {
        let text = interrupted(Some(229), Some(456), 456);
        assert!(text.contains("lines 229 to 456") && text.contains("nothing after line 456"), "{text}");
        let text = interrupted(Some(3), Some(3), 5);
        assert!(text.contains("line 3 of") && text.contains("nothing after line 5"), "{text}");
        let text = interrupted(None, None, 7);
        assert!(text.contains("nothing after line 7") && !text.contains("unknown"), "{text}");
    }
}
