//! Terminals in tmux: a shell each, whose screen is read as tmux draws it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, PATIENCE};

/// Prompt of the shell when it waits for a command.
const PROMPT: &str = "READY>";

/// A tmux server with its own windows. Dropping this ends it.
pub(crate) struct Tmux {
    socket: String,
    home: tempfile::TempDir,
}

impl Tmux {
    /// Starts a tmux server. Prints a message and returns `None` if tmux is missing.
    pub(crate) fn start() -> Option<Tmux> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            eprintln!("LEFT OUT: there is no tmux here; apt-get install tmux to run this test");
            return None;
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let socket = format!("recado-{:x}", u64::from_le_bytes(random));
        Some(Tmux { socket, home: tempfile::tempdir().unwrap() })
    }

    fn run(&self, args: &[&str]) -> String {
        let output =
            Command::new("tmux").args(["-L", &self.socket, "-f", "/dev/null"]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Home directory of the shell with this name.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Opens a window with a shell that has its own home. A `recado` in it knows these servers.
    pub(crate) fn window<'a>(&'a self, cluster: &'a Cluster, name: &'a str, servers: &str) -> Window<'a> {
        let home = self.home(name);
        std::fs::create_dir_all(&home).unwrap();
        let bin = PathBuf::from(env!("CARGO_BIN_EXE_recado"));
        let path = format!(
            "PATH={}:{}",
            bin.parent().expect("in a directory").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let home = format!("HOME={}", home.display());
        let (servers, prompt) = (format!("RECADO_SERVERS={servers}"), format!("PS1={PROMPT} "));
        self.run(
            &["new-session", "-d", "-s", name, "-x", "100", "-y", "30"]
                .into_iter()
                .chain(["env", "-i", "TERM=screen-256color", "LANG=C.UTF-8"])
                .chain([path.as_str(), &home, &servers, &prompt, "sh", "-i"])
                .collect::<Vec<_>>(),
        );
        let window = Window { tmux: self, cluster, name };
        window.wait_for(PROMPT);
        window
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}

/// A window of tmux.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    tmux: &'a Tmux,
    cluster: &'a Cluster,
    name: &'a str,
}

impl Window<'_> {
    pub(crate) fn type_in(&self, text: &str) {
        self.tmux.run(&["send-keys", "-t", self.name, "-l", text]);
    }

    /// Presses a key, by its name in tmux.
    pub(crate) fn press(&self, key: &str) {
        self.tmux.run(&["send-keys", "-t", self.name, key]);
    }

    pub(crate) fn enter(&self, text: &str) {
        self.type_in(text);
        self.press("Enter");
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux.run(&["resize-window", "-t", self.name, "-x", &width, "-y", &height]);
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux.run(&["capture-pane", "-p", "-t", self.name])
    }

    /// The screen with its colours, as escape sequences.
    pub(crate) fn coloured_screen(&self) -> String {
        self.tmux.run(&["capture-pane", "-e", "-p", "-t", self.name])
    }

    /// Evaluates a format of tmux for this terminal.
    pub(crate) fn asks(&self, format: &str) -> String {
        self.tmux.run(&["display-message", "-p", "-t", self.name, format]).trim().to_owned()
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let met = self.cluster.poll(PATIENCE, || {
            screen = self.screen();
            condition(&screen)
        });
        assert!(met, "{}: {what}: not within {PATIENCE:?}; it shows\n{screen}", self.name);
        screen
    }

    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Process id of the innermost program that runs in the shell.
    pub(crate) fn child(&self) -> u32 {
        let child = |of: u32| -> Option<u32> {
            let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
            Some(children.split_whitespace().next()?.parse().unwrap())
        };
        let shell = self.asks("#{pane_pid}").parse().unwrap();
        std::iter::successors(child(shell), |of| child(*of)).last().expect("a program runs")
    }

    /// Settings of the terminal, as `stty` prints them in its shell.
    pub(crate) fn settings(&self) -> String {
        self.enter("clear; stty -g; echo DONE");
        let screen = self.wait_until("settings", |screen| screen.contains("\nDONE"));
        screen.lines().find(|line| line.matches(':').count() > 10).expect("stty says them").trim().to_owned()
    }

    /// Text that a program reads when `text` is pasted: with marks around it if bracketed paste is on.
    fn pasted(&self, text: &str) -> String {
        self.enter("clear; read LINE; echo \"GOT $LINE\" | cat -v");
        self.wait_until("an empty screen", |screen| screen.trim().is_empty());
        self.tmux.run(&["set-buffer", text]);
        self.tmux.run(&["paste-buffer", "-p", "-t", self.name]);
        self.press("C-j");
        let screen = self.wait_for("GOT ");
        screen.lines().find_map(|line| line.strip_prefix("GOT ")).unwrap_or_default().to_owned()
    }

    /// Asserts that the shell runs again, on a terminal in the state of `before`.
    pub(crate) fn assert_sane(&self, before: &str) {
        assert_eq!(self.settings(), before, "{}: stty", self.name);
        let flags = "alternate #{alternate_on} mouse #{mouse_any_flag} cursor #{cursor_flag}";
        assert_eq!(self.asks(flags), "alternate 0 mouse 0 cursor 1", "{}", self.name);
        assert_eq!(self.pasted("as it was"), "as it was", "{}: bracketed paste", self.name);
    }
}
