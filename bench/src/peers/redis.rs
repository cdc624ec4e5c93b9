//! Redis: PUBLISH and SUBSCRIBE, or SET and WAIT, in RESP 2.

use super::{Got, Part, Protocol, line};
use crate::broker::Number;
use crate::failure::Failure;

/// One connection to Redis.
pub(super) struct Redis {
    part: Part,
    /// The replicas that WAIT waits for; none for PUBLISH.
    wait: Option<u16>,
    ready: bool,
}

/// A reply, as far as it matters here.
enum Reply<'a> {
    Number,
    Error(&'a str),
    Bytes(&'a [u8]),
    Array(Vec<Reply<'a>>),
}

impl Redis {
    pub(super) fn new(part: Part, wait: Option<u16>) -> Redis {
        Redis { part, wait, ready: false }
    }
}

impl Protocol for Redis {
    fn begin(&mut self, out: &mut Vec<u8>) {
        match self.part {
            Part::Sender { .. } => command(out, &["PING"]),
            Part::Follower(_) => command(out, &["SUBSCRIBE", "bench"]),
        }
    }

    fn publish(&mut self, body: &str, out: &mut Vec<u8>) {
        match self.wait {
            None => command(out, &["PUBLISH", "bench", body]),
            Some(replicas) => {
                command(out, &["SET", "bench", body]);
                command(out, &["WAIT", &replicas.to_string(), "0"]);
            }
        }
    }

    fn take(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<(usize, Got)>, Failure> {
        let Some((reply, length)) = reply(input)? else { return Ok(None) };
        let got = match reply {
            Reply::Error(text) => return Err(Failure::Other(format!("Redis: {text}"))),
            // The subscription, or the answer to PING.
            Reply::Array(_) | Reply::Bytes(_) if !self.ready => {
                self.ready = true;
                Got::Ready
            }
            Reply::Array(parts) => match parts.get(2) {
                Some(Reply::Bytes(body)) => Got::Message(Number::of(body)),
                _ => Got::Nothing,
            },
            // The number of subscribers, or of replicas that have it.
            Reply::Number => Got::Acked,
            // The answer to SET.
            Reply::Bytes(_) => Got::Nothing,
        };
        Ok(Some((length, got)))
    }
}

fn command(out: &mut Vec<u8>, parts: &[&str]) {
    out.extend(format!("*{}\r\n", parts.len()).bytes());
    for part in parts {
        out.extend(format!("${}\r\n{part}\r\n", part.len()).bytes());
    }
}

/// The first reply of `input` and its length; none if it is not all there.
fn reply(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Failure> {
    let Some((head, mut at)) = line(input) else { return Ok(None) };
    let bad = || Failure::Other(format!("Redis: {head:?} was not expected"));
    let (kind, rest) = head.split_at_checked(1).ok_or_else(bad)?;
    let reply = match kind {
        "+" => Reply::Bytes(rest.as_bytes()),
        "-" => Reply::Error(rest),
        ":" => Reply::Number,
        "$" => {
            let length: usize = rest.parse().map_err(|_| bad())?;
            let Some(bytes) = input.get(at..at + length) else { return Ok(None) };
            at += length + 2;
            if input.len() < at {
                return Ok(None);
            }
            Reply::Bytes(bytes)
        }
        "*" => {
            let mut parts = Vec::new();
            for _ in 0..rest.parse::<usize>().map_err(|_| bad())?.min(16) {
                let Some((part, length)) = self::reply(input.get(at..).unwrap_or_default())? else {
                    return Ok(None);
                };
                at += length;
                parts.push(part);
            }
            Reply::Array(parts)
        }
        _ => return Err(bad()),
    };
    Ok(Some((reply, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_it_is_all_there() {
        let mut redis = Redis::new(Part::Follower(0), None);
        let (mut input, mut out) = (Vec::new(), Vec::new());
        input.extend(b"*3\r\n$9\r\nsubscribe\r\n$5\r\nbench\r\n:1\r\n");
        assert_eq!(redis.take(&input, &mut out).unwrap(), Some((input.len(), Got::Ready)));
        let number = Number { sender: 1, index: 7 };
        let message = format!("*3\r\n$7\r\nmessage\r\n$5\r\nbench\r\n$20\r\n{}\r\n", number.body(20));
        for end in 0..message.len() {
            assert_eq!(redis.take(&message.as_bytes()[..end], &mut out).unwrap(), None, "{end} bytes");
        }
        let whole = redis.take(message.as_bytes(), &mut out).unwrap();
        assert_eq!(whole, Some((message.len(), Got::Message(Some(number)))));
    }

    #[test]
    fn an_error_ends_the_run() {
        let mut redis = Redis::new(Part::Sender { acknowledged: true }, Some(2));
        assert!(redis.take(b"-ERR no\r\n", &mut Vec::new()).is_err());
    }
}
