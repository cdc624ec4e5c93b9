//! `recado follow` and `recado unfollow`. Both succeed if the requested state holds already, because
//! scripts repeat them.

use recado_client::{Code, Op, ReceiptError, Topic};
use serde_json::json;

use super::Context;
use crate::exit::Failure;
use crate::print::{note, written};
use crate::wording::FOLLOW_MOST;

pub(super) fn follow(context: &Context, topics: Vec<Topic>) -> Result<(), Failure> {
    let client = context.connect_to_claim()?;
    each(topics, |topic| {
        let result = context
            .wait(&client.follow(topic.clone())?, Some(topic))
            .map_err(|failure| failure.limited(FOLLOW_MOST));
        report(context, topic, result, Code::AlreadyFollowing, ("following", "already following"))
    })
}

pub(super) fn unfollow(context: &Context, topics: Vec<Topic>) -> Result<(), Failure> {
    let client = context.connect_to_change()?;
    each(topics, |topic| {
        let result = context.wait(&client.unfollow(topic.clone())?, Some(topic));
        report(context, topic, result, Code::NotFollowing, ("no longer following", "was not following"))
    })
}

/// Does it for each topic. One that is refused does not keep the others from it; the first refusal is the
/// failure of the command, and each is told. Another failure, such as a time-out, ends the command.
fn each(topics: Vec<Topic>, mut one: impl FnMut(&Topic) -> Result<(), Failure>) -> Result<(), Failure> {
    let (mut failed, is_one) = (None, topics.len() == 1);
    for topic in topics {
        match one(&topic) {
            Ok(()) => {}
            Err(failure) if failure.is_refusal() && !is_one => {
                note(&failure);
                failed.get_or_insert(Failure::Told(Box::new(failure)));
            }
            Err(failure) => return Err(failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn report(
    context: &Context,
    topic: &Topic,
    result: Result<Op, Failure>,
    holds_already: Code,
    (now, already): (&str, &str),
) -> Result<(), Failure> {
    let (op, word) = match result {
        Ok(op) => (Some(op.0), now),
        Err(Failure::Request { error: ReceiptError::Refused(code), .. }) if code == holds_already => {
            (None, already)
        }
        Err(failure) => return Err(failure),
    };
    let topic = written(topic);
    let value = json!({"topic": topic, "op": op});
    match op {
        Some(op) => context.out.done(Op(op), value, || format!("{word} {topic}")),
        None => context.out.put(value, || format!("{word} {topic}"))?,
    }
    Ok(())
}
