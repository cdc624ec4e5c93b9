//! `recado send`.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use recado::client::{Client, ClientError, Content, Op, Receipt, ReceiptError};
use serde_json::json;

use super::Context;
use crate::cli::Send;
use crate::exit::{self, Failure};

/// Lines of standard input that are on their way at once.
const UNDER_WAY: usize = 256;

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
    acknowledged(context, &send, &receipt)
}

/// A notification for each line of standard input, many under way at once, acknowledged in order. A
/// line that cannot be sent ends it, after those before it are acknowledged.
fn lines(context: &Context, send: &Send) -> Result<(), Failure> {
    let client = context.connect()?;
    let mut under_way = VecDeque::new();
    let mut ended = Ok(());
    for (number, line) in (1_u64..).zip(io::stdin().lock().lines()) {
        match one(&client, send, line) {
            Ok(None) => continue,
            Ok(Some(receipt)) => under_way.push_back(receipt),
            Err(failure) => {
                ended = Err((number, failure));
                break;
            }
        }
        while under_way.len() >= UNDER_WAY || under_way.front().is_some_and(is_answered) {
            let Some(receipt) = under_way.pop_front() else { break };
            acknowledged(context, send, &receipt)?;
        }
    }
    under_way.iter().try_for_each(|receipt| acknowledged(context, send, receipt))?;
    ended.map_err(|(number, failure)| {
        eprintln!(
            "recado: ended at line {number} of standard input: neither it nor what follows it was sent"
        );
        failure
    })
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
    !matches!(receipt.wait(std::time::Duration::ZERO), Err(ReceiptError::OutcomeUnknown))
}

fn acknowledged(context: &Context, send: &Send, receipt: &Receipt) -> Result<(), Failure> {
    let op: Op = exit::wait(receipt, context.timeout(), send.to.as_ref())?;
    Ok(context.out.put(json!({"op": op.0}), || op.to_string())?)
}

/// Too large is known before anybody is asked.
fn check(content: &Content) -> Result<(), Failure> {
    if content.within_limits() { Ok(()) } else { Err(ClientError::TooLarge.into()) }
}

fn content(send: &Send, body: String) -> Content {
    Content { title: send.title.clone(), priority: send.priority, tags: send.tags.clone(), body }
}
