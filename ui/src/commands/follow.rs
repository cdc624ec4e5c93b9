//! `recado follow` and `recado unfollow`. Both succeed if the requested state holds already, because
//! scripts repeat them.

use recado_client::{Code, Op, ReceiptError, Topic};
use serde_json::json;

use super::Context;
use crate::exit::Failure;
use crate::print::written;

pub(super) fn follow(context: &Context, topic: Topic) -> Result<(), Failure> {
    let client = context.connect_to_claim()?;
    let most = "you follow as many topics as one profile may (limit `follows`); unfollow one first";
    let result =
        context.wait(&client.follow(topic.clone())?, Some(&topic)).map_err(|failure| failure.limited(most));
    report(context, &topic, result, Code::AlreadyFollowing, ("following", "already following"))
}

pub(super) fn unfollow(context: &Context, topic: Topic) -> Result<(), Failure> {
    let client = context.connect_to_change()?;
    let result = context.wait(&client.unfollow(topic.clone())?, Some(&topic));
    report(context, &topic, result, Code::NotFollowing, ("no longer following", "was not following"))
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
