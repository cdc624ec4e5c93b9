//! `recado man` and `recado completions`: made from the definitions that parse the command line.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Failure;

pub(super) fn man(dir: Option<&Path>) -> Result<(), Failure> {
    match dir {
        Some(dir) => {
            fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
    }
    Ok(())
}

pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "recado", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        man(Some(dir.path())).unwrap();
        for page in ["recado.1", "recado-send.1", "recado-listen.1", "recado-config-init.1"] {
            assert!(dir.path().join(page).exists(), "{page}");
        }
        let page = fs::read_to_string(dir.path().join("recado.1")).unwrap();
        assert!(page.contains("Exit codes") && page.contains("no\\-mouse"), "{page}");
    }
}
