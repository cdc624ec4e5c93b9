//! Terminal setup. One place sets the terminal up and restores it, whatever ends the program.

use std::io::{self, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{SetCursorStyle, Show};
use crossterm::event::{
    DisableBracketedPaste, DisableFocusChange, DisableMouseCapture, EnableBracketedPaste, EnableFocusChange,
    EnableMouseCapture,
};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

/// True while the terminal has to be restored. A panic on one thread and the end on another both use it.
static SET_UP: AtomicBool = AtomicBool::new(false);

/// The terminal while the screen uses it. Dropping this restores it.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Sets the terminal up, and installs a panic hook that restores it.
    ///
    /// # Errors
    /// The terminal cannot be set up. It is restored.
    pub(crate) fn enter(mouse: bool) -> io::Result<Screen> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Other threads that would draw wait for this lock until the process ends.
            let _out = io::stdout().lock();
            // The terminal is restored first, because the panic's message would be lost with the alternate
            // screen.
            put_back();
            before(panic);
            // A panic on any thread aborts the process: the other threads would go on without it, on a
            // restored terminal.
            std::process::abort();
        }));
        set_up(mouse)?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                put_back();
                Err(error)
            }
        }
    }
}

/// Restores the terminal and stops the process as Ctrl+Z does, if `stop` is true. Sets the terminal up
/// again once the process continues.
///
/// # Errors
/// The terminal cannot be set up again.
pub(crate) fn pause(
    terminal: &mut Terminal<CrosstermBackend<Stdout>>,
    mouse: bool,
    stop: bool,
) -> io::Result<()> {
    if stop {
        put_back();
        signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP)?;
    }
    set_up(mouse)?;
    terminal.clear()
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_back();
    }
}

fn set_up(mouse: bool) -> io::Result<()> {
    SET_UP.store(true, Ordering::SeqCst);
    let set_up = || {
        enable_raw_mode()?;
        let mut out = io::stdout();
        queue!(out, EnterAlternateScreen, EnableBracketedPaste, EnableFocusChange)?;
        if mouse {
            queue!(out, EnableMouseCapture)?;
        }
        out.flush()
    };
    let done: io::Result<()> = set_up();
    if done.is_err() {
        put_back();
    }
    done
}

/// Restores the terminal, at most once for each setup. Any thread may call it.
pub(crate) fn put_back() {
    if SET_UP.swap(false, Ordering::SeqCst) {
        // An error here cannot be shown, because there is no terminal to show it on.
        let _ = execute!(
            io::stdout(),
            DisableMouseCapture,
            DisableFocusChange,
            DisableBracketedPaste,
            SetCursorStyle::DefaultUserShape,
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}
