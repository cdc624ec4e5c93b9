//! `recado send`.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use recado::client::{Client, ClientError, Content, Receipt, ReceiptError};
use serde_json::json;

use super::Context;
use crate::cli::Send;
use crate::exit::{self, Failure};

/// Lines of standard input that are on their way at once.
const UNDER_WAY: usize = 256;
/// While no line comes, it is looked so often which are answered.
const TELL_EVERY: Duration = Duration::from_millis(20);

pub(super) fn run(context: &Context, send: Send) -> Result<(), Failure> {
    if send.text == ["-"] {
        return lines(context, &send);
    }
    let content = content(&send, send.text.join(" "));
    if content.body.trim().is_empty() && content.title.is_none() {
        return Err(Failure::Usage("nothing to send: the text is empty, and there is no --title".to_owned()));
    }
    check(&content)?;
    let client = context.connect()?;
    let receipt = client.send(send.to.clone(), content)?;
    let op = exit::wait(&receipt, context.timeout(), send.to.as_ref())?;
    Ok(context.out.put(json!({"op": op.0}), || op.to_string())?)
}

/// A notification for each line of standard input, many under way at once, acknowledged in order. A
/// line that fails ends the sending, after those that are on their way have their answers.
fn lines(context: &Context, send: &Send) -> Result<(), Failure> {
    let client = context.connect()?;
    let mut under_way = UnderWay { context, send, receipts: VecDeque::new(), failed: None };
    let lines = read_lines()?;
    let mut number = 0_u64;
    loop {
        match lines.recv_timeout(TELL_EVERY) {
            Err(RecvTimeoutError::Disconnected) => break,
            // The next line may be long in coming; who waits at the other end wants to know now.
            Err(RecvTimeoutError::Timeout) => {}
            Ok(line) => {
                number += 1;
                match one(&client, send, line) {
                    Ok(None) => {}
                    Ok(Some(receipt)) => under_way.receipts.push_back((number, receipt)),
                    Err(failure) => {
                        under_way.settle_all()?;
                        under_way.fail(number, failure);
                    }
                }
            }
        }
        under_way.settle()?;
        if under_way.failed.is_some() {
            under_way.settle_all()?;
            eprintln!("recado: nothing after line {number} was sent");
            break;
        }
    }
    under_way.settle_all()?;
    under_way.failed.map_or(Ok(()), |failure| Err(Failure::Told(Box::new(failure))))
}

/// The lines of standard input, as they come. Their thread is joined by nobody: it may be waiting for a
/// line when everything else is done.
fn read_lines() -> io::Result<Receiver<io::Result<String>>> {
    let (sender, lines) = mpsc::sync_channel(UNDER_WAY);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // Nobody listens any more: a line has failed.
        let _ = io::stdin().lock().lines().try_for_each(|line| sender.send(line));
    })?;
    Ok(lines)
}

/// The lines that are sent and not told of yet.
struct UnderWay<'a> {
    context: &'a Context,
    send: &'a Send,
    /// With the lines' numbers, ascending.
    receipts: VecDeque<(u64, Receipt)>,
    /// Of the first line that failed.
    failed: Option<Failure>,
}

impl UnderWay<'_> {
    /// Tells of those that are answered, and waits while there are too many.
    fn settle(&mut self) -> Result<(), Failure> {
        while self.receipts.len() >= UNDER_WAY
            || self.receipts.front().is_some_and(|(_, receipt)| is_answered(receipt))
        {
            let Some((number, receipt)) = self.receipts.pop_front() else { break };
            self.tell(number, &receipt)?;
        }
        Ok(())
    }

    fn settle_all(&mut self) -> Result<(), Failure> {
        while let Some((number, receipt)) = self.receipts.pop_front() {
            self.tell(number, &receipt)?;
        }
        Ok(())
    }

    /// Waits for the answer of a line and prints its op.
    fn tell(&mut self, number: u64, receipt: &Receipt) -> Result<(), Failure> {
        // Where one line has waited in vain, those behind it have waited as long.
        let unknown =
            matches!(self.failed, Some(Failure::Request { error: ReceiptError::OutcomeUnknown, .. }));
        let timeout = if unknown { Duration::ZERO } else { self.context.timeout() };
        match exit::wait(receipt, timeout, self.send.to.as_ref()) {
            Ok(op) => Ok(self.context.out.put(json!({"op": op.0}), || op.to_string())?),
            Err(failure) => {
                self.fail(number, failure);
                Ok(())
            }
        }
    }

    fn fail(&mut self, number: u64, failure: Failure) {
        eprintln!("recado: line {number} of standard input: {failure}");
        self.failed.get_or_insert(failure);
    }
}

/// Sends a line; a blank one is passed over.
fn one(client: &Client, send: &Send, line: io::Result<String>) -> Result<Option<Receipt>, Failure> {
    let line = line.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Failure::Other("the line is not UTF-8".to_owned()),
        _ => error.into(),
    })?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    let content = content(send, line);
    check(&content)?;
    Ok(Some(client.send(send.to.clone(), content)?))
}

fn is_answered(receipt: &Receipt) -> bool {
    // A refusal is an answer too: not to be told of it before the input's end would be too late.
    !matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown))
}

/// Too large is known before anybody is asked.
fn check(content: &Content) -> Result<(), Failure> {
    if content.within_limits() { Ok(()) } else { Err(ClientError::TooLarge.into()) }
}

fn content(send: &Send, body: String) -> Content {
    Content { title: send.title.clone(), priority: send.priority, tags: send.tags.clone(), body }
}
