//! A consumer that handles each notification exactly once, even if it is killed at any moment: it stores the
//! cursor together with the effect, in one step that either happens or does not.
//!
//! Here the effect is a count of words in a file, and the one step is a rename. A program with a database
//! puts both into one transaction.
//!
//! ```text
//! cargo run -p recado-client --example exactly_once -- 127.0.0.1:10097 counter '#ops' words.txt
//! ```
//!
//! The profile's key and the device's state are in `./recado-example` (`RECADO_EXAMPLE_STATE` names another
//! directory). A name that somebody else has claimed, also `recado` on this machine, is refused.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use recado_client::{Client, Code, Incoming, Op, Options, ReceiptError, Topic};

/// What this program stores: the effect, and the cursor up to which it holds.
#[derive(Default)]
struct Stored {
    cursor: Option<Op>,
    words: u64,
}

impl Stored {
    fn read(file: &Path) -> Result<Stored, Box<dyn std::error::Error>> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Stored::default()),
            text => text?,
        };
        let (cursor, words) = text.trim().split_once(' ').ok_or("the file is not one of this program's")?;
        Ok(Stored { cursor: Some(Op(cursor.parse()?)), words: words.parse()? })
    }

    /// Replaces the file in one step: after a crash it has the old content or the new one.
    fn write(&self, file: &Path) -> std::io::Result<()> {
        let next = file.with_extension("next");
        let mut written = fs::File::create(&next)?;
        writeln!(written, "{} {}", self.cursor.unwrap_or_default().0, self.words)?;
        written.sync_all()?;
        fs::rename(&next, file)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exactly_once: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, profile, topic, file] = arguments.as_slice() else {
        return Err("usage: exactly_once SERVER PROFILE TOPIC FILE".into());
    };
    let file = Path::new(file);
    let mut stored = Stored::read(file)?;
    let mut options = Options::new(profile.parse()?, vec![server.parse()?], state());
    // This cursor, and not the one in the device's files, says what was handled.
    if let Some(cursor) = stored.cursor {
        options = options.cursor(cursor);
    }
    let client = Client::connect(options)?;
    match client.follow(Topic::to_follow(topic)?)?.wait(Duration::from_secs(30)) {
        Ok(_) | Err(ReceiptError::Refused(Code::AlreadyFollowing)) => {}
        Err(error) => return Err(error.into()),
    }
    eprintln!("counting the words in {topic}: {} so far", stored.words);
    let notifications = client.notifications();
    loop {
        let incoming = notifications.recv()?;
        if let Incoming::Notification(one) = &incoming {
            stored.words += one.content.body.as_text().split_whitespace().count() as u64;
        }
        stored.cursor = Some(incoming.upto());
        stored.write(file)?;
        // Now the servers may forget that this device needs it.
        client.ack(incoming.upto())?;
    }
}

/// The directory of the device's files.
fn state() -> String {
    std::env::var("RECADO_EXAMPLE_STATE").unwrap_or_else(|_| "recado-example".to_owned())
}
