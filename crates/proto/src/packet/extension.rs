//! EXTENSION, which adds packets to the first version of the protocol.

use serde::{Deserialize, Serialize};

use super::{Answers, DisplayName};
use crate::codec;
use crate::fnv::fnv1a;
use crate::id::{Op, Seq};

/// EXTENSION: a packet of a kind that the first programs of this version did not have. Clients send those of
/// an [`ExtensionRequest`]; no other kind is defined, and each direction has kinds of its own.
///
/// A packet has no length on the wire, so a receiver can step over one that it does not know only if its
/// frame is known. This is the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The kind.
    pub kind: u16,
    /// The request or the query that the packet is: a server that does not know the kind refuses it with
    /// Unsupported. Without one, and always to clients and between servers, a receiver that does not know the
    /// kind steps over it.
    pub answers: Option<Answers>,
    /// The content. That of a request begins with its nonce, as 8 bytes.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

/// A numbered request that travels in an EXTENSION. A server that does not know its kind refuses it with
/// Unsupported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtensionRequest {
    /// RETRACT: takes the text of a notification away.
    Retract {
        /// The notification's op.
        op: Op,
    },
    /// DISPLAY: gives the profile a display name, or takes it away.
    Display {
        /// The display name; none: the profile has none.
        name: Option<DisplayName>,
    },
}

impl Extension {
    /// The kind of RETRACT. The content that follows the nonce is the op.
    pub const RETRACT: u16 = 1;
    /// The kind of DISPLAY. The content that follows the nonce is the name, if there is one.
    pub const DISPLAY: u16 = 2;

    /// The EXTENSION with this request.
    pub fn of_request(seq: Seq, nonce: u64, request: &ExtensionRequest) -> Extension {
        let mut bytes = nonce.to_le_bytes().to_vec();
        let kind = match request {
            ExtensionRequest::Retract { op } => {
                codec::encode_onto(op, &mut bytes);
                Extension::RETRACT
            }
            ExtensionRequest::Display { name } => {
                codec::encode_onto(name, &mut bytes);
                Extension::DISPLAY
            }
        };
        Extension { kind, answers: Some(Answers::Request(seq)), bytes }
    }

    /// The request that it is, if this version has its kind and its content is one of that kind.
    pub fn request(&self) -> Option<ExtensionRequest> {
        let (_, content) = self.bytes.split_first_chunk::<8>()?;
        match self.kind {
            Extension::RETRACT => Some(ExtensionRequest::Retract { op: codec::decode(content).ok()? }),
            Extension::DISPLAY => Some(ExtensionRequest::Display { name: codec::decode(content).ok()? }),
            _ => None,
        }
    }

    /// A hash of the kind and the content, by which a server tells a request from another one under the same
    /// number, and finds it under another number, as
    /// [`Request::digest`](crate::command::Request::digest) does.
    pub fn digest(&self) -> u64 {
        fnv1a(self.kind.to_le_bytes().into_iter().chain(self.bytes.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_extension_and_what_is_cut_or_longer_is_none() {
        let name = Some("Alice B.".parse().unwrap());
        let requests = [
            ExtensionRequest::Retract { op: Op(300) },
            ExtensionRequest::Display { name },
            ExtensionRequest::Display { name: None },
        ];
        for request in requests {
            let extension = Extension::of_request(Seq(7), 9, &request);
            assert_eq!(extension.request(), Some(request.clone()));
            assert_eq!(extension.digest(), Extension::of_request(Seq(8), 9, &request).digest());
            assert_ne!(extension.digest(), Extension::of_request(Seq(7), 10, &request).digest());
            let bytes = extension.bytes.clone();
            let with = |bytes| Extension { bytes, ..extension.clone() }.request();
            assert_eq!(with(bytes[..bytes.len() - 1].to_vec()), None);
            assert_eq!(with([&bytes[..], &[0]].concat()), None);
            assert_eq!(Extension { kind: 300, ..extension.clone() }.request(), None);
        }
    }
}
