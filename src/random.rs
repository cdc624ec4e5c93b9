//! The system's randomness: where keys, seeds and lives come from. The pure modules draw from
//! [`entropy`](crate::entropy), which is seeded here.

use std::io;

/// So many bytes, fit for keys.
///
/// # Errors
/// The system gives none.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    #[cfg(test)]
    if let Some(bytes) = crate::sync::model::random() {
        return Ok(bytes);
    }
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("the system gave no random bytes: {error}")))?;
    Ok(bytes)
}
