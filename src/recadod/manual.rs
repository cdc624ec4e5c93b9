//! `recadod man` and `recadod completions`, generated from the definitions that parse the command line.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// Writes a page for each command into `dir`/man8, where `MANPATH=DIR man recadod-serve` finds it.
pub(super) fn write_pages(dir: &Path) -> Result<String> {
    let pages = dir.join("man8");
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    fs::create_dir_all(&pages)
        .and_then(|()| write_page(&command, &pages))
        .with_context(|| format!("cannot write into {}", pages.display()))?;
    Ok(String::new())
}

/// Writes the page of a command, and those of its subcommands.
fn write_page(command: &clap::Command, pages: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_page(subcommand, pages)?;
    }
    Man::new(command.clone()).section("8").generate_to(pages).map(drop)
}

/// The page of `recadod` itself.
pub(super) fn page() -> Result<String> {
    let mut page = Vec::new();
    Man::new(Cli::command()).section("8").render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// A script that completes the command line in this shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "recadod", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command_and_a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path()).unwrap();
        for page in ["recadod.8", "recadod-serve.8", "recadod-init.8", "recadod-admin-invite.8"] {
            assert!(dir.path().join("man8").join(page).exists(), "{page}");
        }
        assert!(page().unwrap().contains("Exit codes"));
        let message = format!("{:#}", write_pages(Path::new("/proc/nope")).unwrap_err());
        assert!(message.contains("/proc/nope"), "{message}");
    }

    #[test]
    fn the_scripts_complete_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(completions(shell).contains("check-config"), "{shell}");
        }
    }
}
