//! MQTT 3.1.1: QoS 1 where the sender is to know that a message is accepted, else QoS 0.

use super::{Got, Part, Protocol};
use crate::broker::Number;
use crate::failure::Failure;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// The topic, with its length before it.
const TOPIC: &[u8] = b"\x00\x05bench";

/// One connection to an MQTT broker.
pub(super) struct Mqtt {
    part: Part,
    index: usize,
    /// The identifier of the last QoS 1 message.
    packet: u16,
}

impl Mqtt {
    pub(super) fn new(part: Part, index: usize) -> Mqtt {
        Mqtt { part, index, packet: 0 }
    }
}

impl Protocol for Mqtt {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let client = format!("bench-{}", self.index);
        // Protocol MQTT, level 4, a clean session, no keepalive.
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        body.extend([0, u8::try_from(client.len()).unwrap_or_default()]);
        body.extend(client.bytes());
        packet(0x10, &[&body], out);
    }

    fn publish(&mut self, body: &str, out: &mut Vec<u8>) {
        if self.part == (Part::Sender { acknowledged: true }) {
            // Zero is no identifier. There are never as many in flight as there are identifiers.
            self.packet = self.packet.checked_add(1).unwrap_or(1);
            packet(0x32, &[TOPIC, &self.packet.to_be_bytes(), body.as_bytes()], out);
        } else {
            packet(0x30, &[TOPIC, body.as_bytes()], out);
        }
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Got)>, Failure> {
        let Some((first, length, size)) = head(input) else { return Ok(None) };
        let Some(body) = input.get(length..length + size) else { return Ok(None) };
        let got = match (first >> 4, self.part) {
            (CONNACK, _) if body.get(1) != Some(&0) => {
                return Err(Failure::Other(format!("MQTT: the connection was refused: {body:?}")));
            }
            (CONNACK, Part::Follower(_)) => {
                packet(0x82, &[b"\x00\x01", TOPIC, b"\x00"], out);
                Got::Nothing
            }
            (CONNACK, Part::Sender { .. }) | (SUBACK, _) => Got::Ready,
            (PUBACK, _) => Got::Acked,
            (PUBLISH, _) => Got::Message(body.get(TOPIC.len()..).and_then(Number::of)),
            _ => Got::Nothing,
        };
        Ok(Some((length + size, got)))
    }
}

fn packet(first: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(first);
    let mut size: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let low = u8::try_from(size % 128).unwrap_or_default();
        size /= 128;
        out.push(if size > 0 { low | 128 } else { low });
        if size == 0 {
            break;
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The first byte of a packet, the length of its fixed header, and the size of the rest.
fn head(input: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, rest) = input.split_first()?;
    let mut size = 0;
    for (at, byte) in rest.iter().take(4).enumerate() {
        size |= usize::from(byte & 127) << (7 * at);
        if byte & 128 == 0 {
            return Some((*first, at + 2, size));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_reads_as_it_was_written() {
        for size in [0, 127, 128, 16_383, 16_384] {
            let (body, mut out) = (vec![7; size], Vec::new());
            packet(0x30, &[&body], &mut out);
            let (first, length, read) = head(&out).unwrap();
            assert_eq!((first, length + read, read), (0x30, out.len(), size));
        }
    }

    #[test]
    fn a_message_is_taken_once_it_is_all_there() {
        let number = Number { sender: 1, index: 7 };
        let (mut message, mut out) = (Vec::new(), Vec::new());
        Mqtt::new(Part::Sender { acknowledged: false }, 0).publish(&number.body(200), &mut message);
        let mut follower = Mqtt::new(Part::Follower(0), 1);
        for end in 0..message.len() {
            assert_eq!(follower.take(&message[..end], &mut out).unwrap(), None, "{end} bytes");
        }
        let whole = follower.take(&message, &mut out).unwrap();
        assert_eq!(whole, Some((message.len(), Got::Message(Some(number)))));
    }
}
