//! The daemon, for the tests of other packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the daemon, beside the program under test. `cargo test --workspace` has built it before any test
/// runs. A test of one package alone may not find it, and then builds it once.
pub(crate) fn beside(program: &str) -> &'static Path {
    static DAEMON: OnceLock<PathBuf> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let daemon = Path::new(program).with_file_name("recadod");
        if !daemon.exists() {
            let profile = daemon.parent().expect("in a directory");
            let target = profile.parent().expect("in a directory");
            let profile = match profile.file_name().and_then(|name| name.to_str()) {
                Some("debug") | None => "dev",
                Some(other) => other,
            };
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--package", "recado", "--bin", "recadod", "--profile", profile])
                .arg("--target-dir")
                .arg(target)
                .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
                .status();
            assert!(built.unwrap().success(), "the daemon was not built");
        }
        daemon
    })
}
