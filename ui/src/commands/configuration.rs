//! `recado config`.

use crate::cli::Common;
use crate::config;
use crate::exit::Failure;

/// Writes the sample where the configuration belongs, and says where that is.
pub(super) fn init(common: &Common) -> Result<(), Failure> {
    let path = config::path(common)?;
    config::write_sample(&path)?;
    println!("{}", path.display());
    Ok(())
}
