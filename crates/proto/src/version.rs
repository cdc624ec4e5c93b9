//! VERSION: the answer of a server to a datagram of the handshake that is of another version of the protocol.
//! It tells a client which of the two is to be updated.
//!
//! ```text
//! magic u16 | zero u8 | class Handshake u8 | echo u64 | version u8
//! ```
//!
//! This layout, the first four bytes of every datagram, and the place of the echo in a HELLO are the same in
//! all versions, since programs of two versions have nothing else in common (as RFC 8999 for QUIC). No
//! version is zero, and a datagram of version zero is never answered, so that two servers cannot be made to
//! answer each other.
//!
//! No program speaks version [`PROBE`]. A datagram of the handshake in it asks for nothing but this answer,
//! so it shows that the path carries datagrams of its length, to a server of which nothing is known but the
//! address (RFC 9000, section 15, reserves versions for the same use).
//!
//! VERSION is not authenticated: an attacker that sees the HELLO can forge one. A client believes it only if
//! no server gives a valid answer in the time that it has.

use super::envelope::{Class, MAGIC, OUTER_LEN, VERSION};
use super::seal::TAG_LEN;

/// The version of a probe of the path. It is no program's.
pub const PROBE: u8 = 255;
/// The bytes of a VERSION.
const VERSION_LEN: usize = 2 + 1 + 1 + 8 + 1;
/// The place of the echo in a HELLO.
const ECHO_AT: usize = OUTER_LEN + 1;

/// The first four bytes of a datagram of the handshake in this version.
fn begin(version: u8) -> [u8; 4] {
    let [first, second] = MAGIC.to_be_bytes();
    [first, second, version, Class::Handshake.to_byte()]
}

/// Makes the answer to a datagram, shorter than that; none unless it is of the handshake in another version.
pub fn answer(datagram: &[u8]) -> Option<Vec<u8>> {
    let version = *datagram.get(2)?;
    if version == 0 || version == VERSION || !datagram.starts_with(&begin(version)) {
        return None;
    }
    let echo = datagram.get(ECHO_AT..ECHO_AT + 8)?;
    Some([&begin(0), echo, &[VERSION]].concat())
}

/// Makes a probe of the path: a datagram of `length` bytes, but of as many as the shortest datagram at least,
/// which a server answers with its VERSION and this echo.
pub fn probe(echo: u64, length: usize) -> Vec<u8> {
    let mut datagram = begin(PROBE).to_vec();
    datagram.resize(ECHO_AT, 0);
    datagram.extend_from_slice(&echo.to_be_bytes());
    datagram.resize(length.max(OUTER_LEN + TAG_LEN), 0);
    datagram
}

/// Reads the answer to a [`probe`]: the echo, and the version that the server speaks, this program's or
/// another. None if the datagram is nothing of the kind.
pub fn probed(datagram: &[u8]) -> Option<(u64, u8)> {
    let datagram: &[u8; VERSION_LEN] = datagram.try_into().ok()?;
    let (echo, rest) = datagram.strip_prefix(&begin(0))?.split_first_chunk()?;
    let version = *rest.first().filter(|version| **version != 0)?;
    Some((u64::from_be_bytes(*echo), version))
}

/// Reads a VERSION: the echo of the HELLO that it answers, and the version that the server speaks, which is
/// another than this program's. None if the datagram is nothing of the kind.
pub fn read(datagram: &[u8]) -> Option<(u64, u8)> {
    probed(datagram).filter(|(_, version)| *version != VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DATAGRAM_BASE;
    use crate::envelope::Envelope;
    use crate::handshake;
    use crate::id::{ClusterId, Incarnation, SessionId};

    /// A HELLO that names `version`.
    fn hello(version: u8) -> Vec<u8> {
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: ClusterId(7),
            session: SessionId::default(),
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let mut hello = handshake::hello(&envelope, 0x0102_0304_0506_0708);
        hello[2] = version;
        hello
    }

    #[test]
    fn a_hello_of_another_version_is_answered_in_fewer_bytes_with_its_echo() {
        for version in [2, 255] {
            let answer = answer(&hello(version)).unwrap();
            assert_eq!(answer, [0x72, 0x65, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, VERSION]);
            assert!(answer.len() < ECHO_AT + 8);
        }
    }

    #[test]
    fn nothing_but_a_handshake_of_another_version_is_answered() {
        assert_eq!(answer(&hello(VERSION)), None);
        assert_eq!(answer(&hello(0)), None, "it may be an answer itself");
        let (mut session, mut stranger) = (hello(2), hello(2));
        (session[3], stranger[0]) = (1, 0);
        assert_eq!((answer(&session), answer(&stranger)), (None, None));
        for length in 0..ECHO_AT + 8 {
            assert_eq!(answer(&hello(2)[..length]), None, "{length} bytes");
        }
        assert!(answer(&[&hello(2)[..], &[0; DATAGRAM_BASE]].concat()).is_some(), "it may be longer");
        let answer_of_another = [&begin(0)[..], &[7; 8], &[2]].concat();
        assert_eq!(answer(&answer_of_another), None);
    }

    #[test]
    fn a_probe_has_the_length_that_it_tries_and_its_answer_names_the_version() {
        for length in [DATAGRAM_BASE, crate::DATAGRAM_MAX] {
            let probe = probe(9, length);
            assert_eq!(probe.len(), length);
            let answer = answer(&probe).unwrap();
            assert_eq!((probed(&answer), read(&answer)), (Some((9, VERSION)), None));
        }
        assert!(answer(&probe(9, 0)).is_some_and(|answer| answer.len() < probe(9, 0).len()));
        assert_eq!(probed(&[&begin(0)[..], &[9; 8], &[0]].concat()), None);
        assert_ne!(PROBE, VERSION);
    }

    #[test]
    fn an_answer_names_the_echo_and_another_version() {
        let of = |version: u8| [&begin(0)[..], &9_u64.to_be_bytes(), &[version]].concat();
        assert_eq!(read(&of(2)), Some((9, 2)));
        assert_eq!((read(&of(VERSION)), read(&of(0))), (None, None));
        let mut changed = of(2);
        changed[3] = 1;
        assert_eq!(read(&changed), None);
        assert_eq!((read(&of(2)[1..]), read(&[&of(2)[..], &[0]].concat())), (None, None));
    }
}
