//! EXTENSION, which adds packets to the first version of the protocol.

use serde::{Deserialize, Serialize};

use super::store::may_be_value;
use super::{Answers, Body, Condition, DisplayName, Query};
use crate::codec;
use crate::fnv::fnv1a;
use crate::id::{Op, Seq, StoreKey};

/// EXTENSION: a packet of a kind that the first programs of this version did not have. Clients send those of
/// an [`ExtensionRequest`], and QUERYs of a kind that those programs do not know; no other kind is defined,
/// and each direction has kinds of its own.
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
    /// PUT: gives a key of the store a value.
    Put {
        /// The key.
        key: StoreKey,
        /// The value; at most [`StoredValue::LEN_MAX`](super::StoredValue::LEN_MAX) bytes.
        value: Body,
        /// What has to be so before.
        condition: Condition,
    },
    /// DELETE: takes the value of a key away.
    Delete {
        /// The key.
        key: StoreKey,
        /// The timestamp that its value has to have; none: any.
        at: Option<Op>,
    },
}

impl Extension {
    /// The kind of RETRACT. The content that follows the nonce is the op.
    pub const RETRACT: u16 = 1;
    /// The kind of DISPLAY. The content that follows the nonce is the name, if there is one.
    pub const DISPLAY: u16 = 2;
    /// The kind of PUT. The content that follows the nonce is the key, the value and the condition.
    pub const PUT: u16 = 3;
    /// The kind of DELETE. The content that follows the nonce is the key and the timestamp, if there is one.
    pub const DELETE: u16 = 4;
    /// The kind of a QUERY that the first programs do not know. The content is the QUERY.
    pub const QUERY: u16 = 5;

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
            ExtensionRequest::Put { key, value, condition } => {
                codec::encode_onto(&(key, value, condition), &mut bytes);
                Extension::PUT
            }
            ExtensionRequest::Delete { key, at } => {
                codec::encode_onto(&(key, at), &mut bytes);
                Extension::DELETE
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
            Extension::PUT => {
                let (key, value, condition) = codec::decode(content).ok()?;
                may_be_value(&value).then_some(ExtensionRequest::Put { key, value, condition })
            }
            Extension::DELETE => {
                let (key, at) = codec::decode(content).ok()?;
                Some(ExtensionRequest::Delete { key, at })
            }
            _ => None,
        }
    }

    /// The EXTENSION with this query.
    pub(super) fn of_query(query: &Query) -> Extension {
        let (answers, bytes) = (Some(Answers::Query(query.id)), codec::encode(query));
        Extension { kind: Extension::QUERY, answers, bytes }
    }

    /// The query that it is, if its content is one within the bounds.
    pub fn query(&self) -> Option<Query> {
        let query: Query = (self.kind == Extension::QUERY).then(|| codec::decode(&self.bytes).ok())??;
        (self.answers == Some(Answers::Query(query.id)) && query.is_bounded()).then_some(query)
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
    use crate::packet::{List, Listing, QueryId, QueryKind, StoredValue, ToServer};

    fn put(value: &str, condition: Condition) -> ExtensionRequest {
        ExtensionRequest::Put { key: "k".parse().unwrap(), value: value.into(), condition }
    }

    #[test]
    fn a_value_longer_than_a_body_or_called_text_without_being_it_is_no_put() {
        let longest = "x".repeat(StoredValue::LEN_MAX);
        let request =
            |value: &str| Extension::of_request(Seq(1), 2, &put(value, Condition::Always)).request();
        assert!(request(&longest).is_some());
        assert_eq!(request(&format!("{longest}x")), None);
        let mut no_text = Extension::of_request(Seq(1), 2, &put("x", Condition::Always));
        *no_text.bytes.iter_mut().rev().nth(1).unwrap() = 0xff;
        assert_eq!(no_text.request(), None);
    }

    #[test]
    fn a_query_that_the_first_programs_do_not_know_travels_in_an_extension_and_others_as_they_are() {
        let get = Query::new(QueryId(300), QueryKind::Get { key: "k".parse().unwrap() });
        let what = |prefix: &str| Listing::Stored { prefix: prefix.into() };
        let list = |what| Query::new(QueryId(5), QueryKind::List(List { what, after: None }));
        for query in [get.clone(), list(what("")), list(what(&"p".repeat(256)))] {
            let ToServer::Extension(extension) = ToServer::query(query.clone()) else { panic!("{query:?}") };
            assert_eq!(extension.answers, Some(Answers::Query(query.id)));
            assert_eq!(extension.query(), Some(query));
        }
        assert!(matches!(ToServer::query(list(Listing::People)), ToServer::Query(_)));
        let Query { id, .. } = get;
        let extension = Extension::of_query(&get);
        assert_eq!(
            Extension { answers: Some(Answers::Query(QueryId(id.0 + 1))), ..extension.clone() }.query(),
            None
        );
        assert_eq!(Extension { kind: Extension::PUT, ..extension }.query(), None);
        assert_eq!(Extension::of_query(&list(what(&"p".repeat(257)))).query(), None);
    }

    #[test]
    fn a_request_survives_its_extension_and_what_is_cut_or_longer_is_none() {
        let name = Some("Alice B.".parse().unwrap());
        let requests = [
            ExtensionRequest::Retract { op: Op(300) },
            ExtensionRequest::Display { name },
            ExtensionRequest::Display { name: None },
            put("value", Condition::Absent),
            put("", Condition::At(Op(70_000))),
            ExtensionRequest::Delete { key: "@alice/k".parse().unwrap(), at: Some(Op(7)) },
            ExtensionRequest::Delete { key: "k".parse().unwrap(), at: None },
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
