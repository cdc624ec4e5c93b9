//! `recado retract`: takes the text of a notification away.

use recado_client::{Code, Op, ReceiptError};
use serde_json::json;

use super::Context;
use crate::exit::Failure;

pub(super) fn run(context: &Context, retracted: Op) -> Result<(), Failure> {
    let client = context.connect_to_change()?;
    let op = context.wait(&client.retract(retracted)?, None).map_err(|failure| match failure {
        Failure::Request { error: ReceiptError::Refused(Code::NotAllowed), .. } => Failure::Refused(format!(
            "op {retracted} is not yours: its author can retract it, and in a channel with owners each of them"
        )),
        failure => failure,
    })?;
    let value = json!({"retracted": retracted.0, "op": op.0});
    context.out.done(op, value, || format!("op {retracted} is retracted; those who have read it are told"));
    Ok(())
}
