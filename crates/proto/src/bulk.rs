//! Serializes bytes as one block, for `#[serde(with = "crate::bulk")]`. By default serde handles a list of
//! bytes one element at a time, and reserves memory for as many as the list claims. The encoding is the same.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

pub(crate) fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes.as_ref())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_bytes(Bytes).map(T::from)
}

/// Reads texts with bytes beside each, the bytes of each as one block; for
/// `#[serde(deserialize_with = "crate::bulk::pairs")]`.
pub(crate) fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Vec<u8>)>, D::Error> {
    #[derive(Deserialize)]
    struct Block(#[serde(deserialize_with = "crate::bulk::deserialize")] Vec<u8>);

    let pairs = Vec::<(String, Block)>::deserialize(deserializer)?;
    Ok(pairs.into_iter().map(|(text, Block(bytes))| (text, bytes)).collect())
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}
