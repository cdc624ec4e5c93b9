//! `recado put`, `create`, `update`, `delete`, `get`, `read` and `keys`: small values by key.

use std::io::{self, IsTerminal, Read};
use std::net::SocketAddr;

use recado_client::{
    Body, Client, Code, Condition, Got, ListItem, Listing, Op, Queries as _, Receipt, ReceiptError, StoreKey,
    StoredValue,
};
use recado_proto::hex::Hex;
use serde_json::{Value, json};

use super::Context;
use crate::cli::{Deleted, Written};
use crate::exit::Failure;
use crate::print::{self, aside, when};
use crate::text::{clean_line, sanitize};
use crate::wording::{empty, listed};

/// A write that is asked for.
#[derive(Clone, Copy)]
pub(super) enum Write {
    Put,
    Create,
    Update,
}

impl Write {
    fn word(self) -> &'static str {
        match self {
            Write::Put => "PUT_OK",
            Write::Create => "CREATE_OK",
            Write::Update => "UPDATE_OK",
        }
    }

    fn condition(self, at: Option<Op>) -> Condition {
        match (self, at) {
            (_, Some(at)) => Condition::At(at),
            (Write::Put, None) => Condition::Always,
            (Write::Create, None) => Condition::Absent,
            (Write::Update, None) => Condition::Present,
        }
    }
}

/// Writes a value, and prints its timestamp.
pub(super) fn write(
    context: &Context,
    write: Write,
    written: Written,
    at: Option<Op>,
) -> Result<(), Failure> {
    let Written { key, value } = written;
    let client = match write {
        Write::Put | Write::Create => context.connect_to_claim()?,
        Write::Update => context.connect_to_change()?,
    };
    let value = match value.as_str() {
        "-" => context.of_user(|| whole(io::stdin().lock()))??,
        _ => fitting(Body::text(value))?,
    };
    let shown = clean_line(&value.as_text());
    let receipt = client.put(key.clone(), value, write.condition(at))?;
    let op = wait(context, &receipt, &key)?;
    let server = server(&client);
    context.out.done(op, json!({"key": key.as_str(), "timestamp": op.0, "server": server}), || {
        format!("{} key: {key} value: {shown} timestamp: {op}{}", write.word(), at_server(server))
    });
    Ok(())
}

/// Takes a value away.
pub(super) fn delete(context: &Context, deleted: Deleted) -> Result<(), Failure> {
    let Deleted { key, at } = deleted;
    let client = context.connect_to_change()?;
    let receipt = client.delete(key.clone(), at.map(Op))?;
    let op = wait(context, &receipt, &key)?;
    let server = server(&client);
    context.out.done(op, json!({"key": key.as_str(), "op": op.0, "server": server}), || {
        format!("DELETE_OK key: {key} op: {op}{}", at_server(server))
    });
    Ok(())
}

/// Prints a value alone, or, with `as_line`, a line that tells its timestamp too. Of a key that has none it
/// prints `null`, and fails as grep does where it finds nothing.
pub(super) fn get(context: &Context, key: StoreKey, as_line: bool) -> Result<(), Failure> {
    let reader = context.reader()?;
    let got = context.ask(|| reader.get(key.clone()))?.map_err(Failure::about(key.owner().as_ref()))?;
    let server = reader.answered_by();
    let missing = got.value.is_none();
    match &got.value {
        Some(value) if !as_line && context.out.is_for_people() => print::raw(&alone(value))?,
        value => context.out.item(object(&key, &got, server), || match value {
            Some(value) => {
                let shown = clean_line(&value.value.as_text());
                let timestamp = value.timestamp;
                format!("READ_OK key: {key} value: {shown} timestamp: {timestamp}{}", at_server(server))
            }
            None => "null".to_owned(),
        })?,
    }
    context.note_age(&reader);
    match missing {
        true => Err(Failure::Told(Box::new(Failure::Other(format!("{key} has no value"))))),
        false => Ok(()),
    }
}

/// Lists the keys that begin with a text.
pub(super) fn keys(context: &Context, prefix: String) -> Result<(), Failure> {
    let reader = context.reader()?;
    let what = Listing::Stored { prefix };
    let items = context.list(&reader, what.clone())?;
    if items.is_empty() {
        aside(empty(&what, ""));
    }
    for item in items {
        let ListItem::Stored { key, timestamp, bytes, author } = &item else { continue };
        let value = json!({
            "key": key.as_str(),
            "timestamp": timestamp.0,
            "bytes": bytes,
            "author": author.as_str(),
        });
        context.out.item(value, || listed(&item, None, when))?;
    }
    context.note_age(&reader);
    Ok(())
}

/// A value as `get` prints it: to a terminal without what would act on it, and with a line end; elsewhere the
/// bytes, and a text with a line end if it has none.
fn alone(StoredValue { value, .. }: &StoredValue) -> Vec<u8> {
    let mut bytes = match io::stdout().is_terminal() {
        true => sanitize(&value.as_text()).into_bytes(),
        false => value.as_bytes().to_vec(),
    };
    if !bytes.ends_with(b"\n") && (value.is_text() || io::stdout().is_terminal()) {
        bytes.push(b'\n');
    }
    bytes
}

/// A value in JSON: bytes that are no text in hexadecimal.
fn object(key: &StoreKey, got: &Got, server: Option<SocketAddr>) -> Value {
    let value = got.value.as_ref();
    let text = value.map(|of| &of.value).filter(|value| value.is_text()).map(|text| text.to_string());
    let mut object = json!({
        "key": key.as_str(),
        "value": text,
        "timestamp": value.map(|of| of.timestamp.0),
        "author": value.map(|of| of.author.as_str()),
        "applied_op": got.applied.0,
        "server": server.map(|server| server.to_string()),
    });
    if let Some(binary) = value.map(|of| &of.value).filter(|value| !value.is_text()) {
        object["hex"] = Hex(binary.as_bytes()).to_string().into();
    }
    object
}

fn server(client: &Client) -> Option<SocketAddr> {
    client.connection().map(|connection| connection.primary)
}

fn at_server(server: Option<SocketAddr>) -> String {
    server.map(|server| format!(" at server {server}")).unwrap_or_default()
}

/// Waits for a write, and tells what the key has if that is why it was refused.
fn wait(context: &Context, receipt: &Receipt, key: &StoreKey) -> Result<Op, Failure> {
    context.wait(receipt, key.owner().as_ref()).map_err(|failure| match failure {
        Failure::Request { error: ReceiptError::Refused(code), topic } => {
            match refusal(code, key, receipt.timestamp()) {
                Some(why) => Failure::Refused(why),
                None => Failure::Request { error: ReceiptError::Refused(code), topic },
            }
        }
        failure => failure,
    })
}

/// Why a write was refused, where the key or the store is the reason.
fn refusal(code: Code, key: &StoreKey, timestamp: Option<Op>) -> Option<String> {
    let now = timestamp.map(|op| format!("; its timestamp is {op}")).unwrap_or_default();
    let a_notification = key.as_str().parse::<u64>().is_ok();
    Some(match code {
        Code::KeyExists => format!("{key} has a value already{now}"),
        Code::UnknownKey if a_notification => {
            format!("{key} has no value; to take the text of a notification away, write: recado retract {key}")
        }
        Code::UnknownKey => format!("{key} has no value"),
        Code::StaleTimestamp => format!("{key} was changed since{now}"),
        Code::NotAllowed => match key.owner()? {
            recado_client::Topic::Channel(channel) => {
                format!("{key} belongs to #{channel}, whose writers and owners change it")
            }
            topic => format!("{key} belongs to {topic}, who alone changes it"),
        },
        Code::LimitReached => {
            "the store is full (64 MiB), or what you have written in it has its most (8 MiB): delete keys, which \
             `recado keys` lists"
                .to_owned()
        }
        _ => return None,
    })
}

/// Reads all of standard input as one value, as it is. It reads little more than a value may have.
fn whole(input: impl Read) -> Result<Body, Failure> {
    let mut bytes = Vec::new();
    input.take(StoredValue::LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    let value = String::from_utf8(bytes).map_or_else(|no| Body::binary(no.into_bytes()), Body::text);
    fitting(value)
}

fn fitting(value: Body) -> Result<Body, Failure> {
    match value.len() > StoredValue::LEN_MAX {
        true => Err(Failure::Usage(format!("a value has at most {} bytes", StoredValue::LEN_MAX))),
        false => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> StoreKey {
        text.parse().unwrap()
    }

    #[test]
    fn standard_input_is_one_value_as_it_is_up_to_the_limit() {
        assert_eq!(whole(&b"a\nb\n"[..]).unwrap(), Body::text("a\nb\n"));
        assert_eq!(whole(&[0xff, 0][..]).unwrap(), Body::binary(vec![0xff, 0]));
        assert!(whole(&vec![b'x'; StoredValue::LEN_MAX][..]).is_ok());
        assert!(matches!(whole(io::repeat(b'x')), Err(Failure::Usage(_))), "more is not read");
    }

    #[test]
    fn a_refused_write_tells_what_the_key_has() {
        let told = |code, of: &str, timestamp| refusal(code, &key(of), timestamp).unwrap();
        assert_eq!(told(Code::KeyExists, "k", Some(Op(7))), "k has a value already; its timestamp is 7");
        assert_eq!(told(Code::StaleTimestamp, "k", Some(Op(7))), "k was changed since; its timestamp is 7");
        assert_eq!(told(Code::UnknownKey, "k", None), "k has no value");
        assert!(told(Code::UnknownKey, "7", None).contains("recado retract 7"), "an op may be meant");
        assert!(told(Code::NotAllowed, "@bob/k", None).contains("@bob, who alone"));
        assert!(told(Code::NotAllowed, "#ops/k", None).contains("#ops, whose writers"));
        assert_eq!(refusal(Code::NotAllowed, &key("k"), None), None);
    }

    #[test]
    fn json_has_a_text_as_it_is_and_other_bytes_in_hexadecimal() {
        let of = |value: Option<Body>| {
            let value = value.map(|value| StoredValue {
                value: value.into(),
                timestamp: Op(5),
                author: "bob".parse().unwrap(),
            });
            object(&key("k"), &Got { value, applied: Op(9) }, None)
        };
        let text = of(Some(Body::text("a\u{1b}")));
        assert_eq!(
            (&text["value"], &text["timestamp"], text.get("hex")),
            (&json!("a\u{1b}"), &json!(5), None)
        );
        let bytes = of(Some(Body::binary(vec![0xff, 0])));
        assert_eq!((&bytes["value"], &bytes["hex"]), (&json!(null), &json!("ff00")));
        let none = of(None);
        assert_eq!(
            (&none["value"], &none["timestamp"], &none["applied_op"]),
            (&json!(null), &json!(null), &json!(9))
        );
    }
}
