//! `recado man` and `recado completions`, generated from the definitions that parse the command line.

use std::fs;
use std::path::Path;

use clap_complete::Shell;

use crate::cli;
use crate::completion;
use crate::exit::Failure;
use crate::print::raw;

pub(super) fn man(dir: Option<&Path>) -> Result<(), Failure> {
    match dir {
        // `MANPATH=DIR man recado-send` looks in this directory.
        Some(dir) => {
            let pages = dir.join("man1");
            fs::create_dir_all(&pages)
                .and_then(|()| clap_mangen::generate_to(cli::for_manual(), &pages))
                .map_err(|error| Failure::Other(format!("cannot write into {}: {error}", pages.display())))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(cli::for_manual()).render(&mut page)?;
            Ok(raw(&page)?)
        }
    }
}

pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    Ok(raw(&completion::script(shell)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let message = man(Some(Path::new("/proc/nope"))).unwrap_err().to_string();
        assert!(message.contains("/proc/nope"), "{message}");
    }

    #[test]
    fn there_is_a_page_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        man(Some(dir.path())).unwrap();
        for page in ["recado.1", "recado-send.1", "recado-listen.1", "recado-config-init.1"] {
            assert!(dir.path().join("man1").join(page).exists(), "{page}");
        }
        let page = fs::read_to_string(dir.path().join("man1/recado.1")).unwrap();
        assert!(page.contains("Exit codes") && page.contains("no\\-mouse"), "{page}");
        assert!(page.contains("Examples:"), "{page}");
    }
}
