//! NATS: core messages, or those of a JetStream stream.

use super::{Got, Part, Protocol, line};
use crate::broker::Number;
use crate::failure::Failure;

/// One connection to NATS.
pub(super) struct Nats {
    part: Part,
    /// Makes the subjects of the connection its own, among those of every run.
    id: String,
    /// The replicas of the stream; none for core messages.
    stream: Option<u16>,
    ready: bool,
}

impl Nats {
    pub(super) fn new(part: Part, index: usize, stream: Option<u16>) -> Nats {
        Nats { part, id: format!("{}-{index}", std::process::id()), stream, ready: false }
    }

    /// The request that makes the stream, or this follower's consumer of it.
    fn request(&self, replicas: u16, out: &mut Vec<u8>) {
        let Nats { part, id, .. } = self;
        let (subject, body) = match part {
            Part::Sender { .. } => (
                "$JS.API.STREAM.CREATE.bench",
                format!(
                    r#"{{"name":"bench","subjects":["bench"],"storage":"file","num_replicas":{replicas},"discard":"old","retention":"limits","max_msgs":10000}}"#
                ),
            ),
            Part::Follower(_) => (
                "$JS.API.CONSUMER.CREATE.bench",
                format!(
                    r#"{{"stream_name":"bench","config":{{"deliver_subject":"follow.{id}","deliver_policy":"new","ack_policy":"none"}}}}"#
                ),
            ),
        };
        publish(subject, &format!("made.{id}"), &body, out);
    }
}

impl Protocol for Nats {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        let Nats { part, id, stream, .. } = &*self;
        match (part, stream) {
            (Part::Sender { .. }, None) => {}
            (Part::Follower(_), None) => out.extend(b"SUB bench 1\r\n"),
            (Part::Sender { .. }, Some(_)) => out.extend(format!("SUB acked.{id} 1\r\n").bytes()),
            (Part::Follower(_), Some(_)) => out.extend(format!("SUB follow.{id} 1\r\n").bytes()),
        }
        match stream {
            None => out.extend(b"PING\r\n"),
            Some(replicas) => {
                out.extend(format!("SUB made.{id} 2\r\n").bytes());
                self.request(*replicas, out);
            }
        }
    }

    fn publish(&mut self, body: &str, out: &mut Vec<u8>) {
        match (self.stream, self.part) {
            (Some(_), _) => publish("bench", &format!("acked.{}", self.id), body, out),
            (None, Part::Sender { acknowledged: true }) => {
                publish("bench", "", body, out);
                out.extend(b"PING\r\n");
            }
            (None, _) => publish("bench", "", body, out),
        }
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Got)>, Failure> {
        let Some((head, length)) = line(input) else { return Ok(None) };
        if let Some(error) = head.strip_prefix("-ERR") {
            return Err(Failure::Other(format!("NATS:{error}")));
        }
        let Some(fields) = head.strip_prefix("MSG ") else {
            let got = match head {
                "PONG" if self.ready => Got::Acked,
                "PONG" => {
                    self.ready = true;
                    Got::Ready
                }
                "PING" => {
                    out.extend(b"PONG\r\n");
                    Got::Nothing
                }
                _ => Got::Nothing,
            };
            return Ok(Some((length, got)));
        };
        // MSG subject sid [reply] length
        let size = fields.rsplit(' ').next().and_then(|size| size.parse::<usize>().ok());
        let size = size.ok_or_else(|| Failure::Other(format!("NATS: {head:?} was not expected")))?;
        let Some(body) = input.get(length..length + size).filter(|_| input.len() >= length + size + 2) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(body);
        let got = if fields.starts_with("made.") {
            if text.contains("\"error\"") && !text.contains("already in use") {
                return Err(Failure::Other(format!("JetStream: {text}")));
            }
            self.ready = true;
            Got::Ready
        } else if fields.starts_with("acked.") {
            if text.contains("\"error\"") {
                return Err(Failure::Other(format!("JetStream: {text}")));
            }
            Got::Acked
        } else {
            Got::Message(Number::of(body))
        };
        Ok(Some((length + size + 2, got)))
    }
}

fn publish(subject: &str, reply: &str, body: &str, out: &mut Vec<u8>) {
    out.extend(format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()).bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_it_is_all_there() {
        let mut nats = Nats::new(Part::Follower(0), 3, None);
        let number = Number { sender: 1, index: 7 };
        let message = format!("MSG bench 1 20\r\n{}\r\n", number.body(20));
        let mut out = Vec::new();
        for end in 0..message.len() {
            assert_eq!(nats.take(&message.as_bytes()[..end], &mut out).unwrap(), None, "{end} bytes");
        }
        let whole = nats.take(message.as_bytes(), &mut out).unwrap();
        assert_eq!(whole, Some((message.len(), Got::Message(Some(number)))));
        assert_eq!(nats.take(b"PING\r\n", &mut out).unwrap(), Some((6, Got::Nothing)));
        assert_eq!(out, b"PONG\r\n");
    }

    #[test]
    fn a_stream_that_is_refused_ends_the_run() {
        let mut nats = Nats::new(Part::Sender { acknowledged: true }, 0, Some(3));
        let body = r#"{"error":{"code":500}}"#;
        let answer = format!("MSG made.0 2 {}\r\n{body}\r\n", body.len());
        assert!(nats.take(answer.as_bytes(), &mut Vec::new()).is_err());
        let body = r#"{"stream":"bench","seq":1}"#;
        let answer = format!("MSG acked.0 1 {}\r\n{body}\r\n", body.len());
        let acked = nats.take(answer.as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!(acked, Some((answer.len(), Got::Acked)));
    }
}
