//! `recado send`.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use recado::client::{Client, ClientError, Content, Op, Receipt};
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
    check(&content)?;
    let client = context.connect()?;
    let receipt = client.send(send.to.clone(), content)?;
    acknowledged(context, &send, &receipt)
}

/// A notification for each line of standard input, many under way at once, acknowledged in order.
fn lines(context: &Context, send: &Send) -> Result<(), Failure> {
    let client = context.connect()?;
    let mut under_way = VecDeque::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        under_way.push_back(one(&client, send, line)?);
        while under_way.len() >= UNDER_WAY || under_way.front().is_some_and(is_answered) {
            let Some(receipt) = under_way.pop_front() else { break };
            acknowledged(context, send, &receipt)?;
        }
    }
    under_way.iter().try_for_each(|receipt| acknowledged(context, send, receipt))
}

fn one(client: &Client, send: &Send, line: String) -> Result<Receipt, Failure> {
    let content = content(send, line);
    check(&content)?;
    Ok(client.send(send.to.clone(), content)?)
}

fn is_answered(receipt: &Receipt) -> bool {
    receipt.wait(std::time::Duration::ZERO).is_ok()
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
