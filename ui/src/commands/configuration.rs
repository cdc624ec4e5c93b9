//! `recado config`.

use serde_json::json;

use crate::cli::Common;
use crate::config;
use crate::exit::Failure;
use crate::print::Out;
use crate::tui::settings::When;

/// Checks the configuration file, and prints its path.
pub(super) fn check(common: &Common) -> Result<(), Failure> {
    let path = config::check(common)?;
    let value = json!({"file": path.display().to_string(), "good": true});
    Ok(Out::new(common.json, When::Never).put(value, || format!("{} is good", path.display()))?)
}

/// Writes the sample to the path of the configuration file, with the profile that was typed, and prints the
/// path.
pub(super) fn init(common: &Common) -> Result<(), Failure> {
    let path = config::path(common)?;
    config::write_sample(&path, common.profile.as_ref().filter(|_| common.typed_profile))?;
    let value = json!({"file": path.display().to_string()});
    Ok(Out::new(common.json, When::Never).put(value, || path.display().to_string())?)
}
