//! Packets, commands and snapshots to bytes and back: the ONE file that names bincode.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Malformed.
    #[error("malformed")]
    Malformed,
}

/// Encodes.
pub fn encode<T: Serialize>(_value: &T) -> Vec<u8> {
    todo!()
}

/// Decodes all of `bytes`.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn decode<T: DeserializeOwned>(_bytes: &[u8]) -> Result<T, DecodeError> {
    todo!()
}
