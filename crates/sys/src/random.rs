//! The system's random source, for keys, seeds and boot ids. The pure modules draw from
//! [`entropy`](recado_proto::entropy), which is seeded from here.

use std::io;

/// Returns `N` random bytes, fit for keys.
///
/// # Errors
/// The system provides none.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    #[cfg(feature = "model")]
    if let Some(bytes) = crate::sync::model::random() {
        return Ok(bytes);
    }
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("the system gave no random bytes: {error}")))?;
    Ok(bytes)
}
