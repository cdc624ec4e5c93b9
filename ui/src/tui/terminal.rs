//! The terminal, set up and put back in one place, whatever ends the program.

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

/// Whether there is anything to put back. A panic on one thread and the end on another meet here.
static SET_UP: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; put back when this is dropped.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set up; what was done is undone.
    pub(crate) fn enter(mouse: bool) -> io::Result<Screen> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Whoever else would draw now waits, until the end.
            let _out = io::stdout().lock();
            // First the terminal: what the panic says would be lost with the screen it is written on.
            put_back();
            before(panic);
            // On whatever thread it was: the others would go on without it, on a terminal that is not theirs.
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

/// Gives the terminal back and stops the process, as Ctrl+Z does, if it is not stopped already; takes the
/// terminal again when the process goes on.
///
/// # Errors
/// The terminal cannot be taken again.
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

/// Puts the terminal back as it was; at most once for each setting up, from whatever thread.
pub(crate) fn put_back() {
    if SET_UP.swap(false, Ordering::SeqCst) {
        // What fails here has no terminal to be told on.
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
