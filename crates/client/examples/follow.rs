//! Follows a topic and prints what comes, through any failure of a server.
//!
//! ```text
//! cargo run -p recado-client --example follow -- 127.0.0.1:10097 watcher '#ops'
//! ```
//!
//! The profile's key and the device's state are in `./recado-example` (`RECADO_EXAMPLE_STATE` names another
//! directory). A name that somebody else has claimed, also `recado` on this machine, is refused.

use std::process::ExitCode;
use std::time::Duration;

use recado_client::{Client, Code, Incoming, Options, ReceiptError, Topic};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("follow: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, profile, topic] = arguments.as_slice() else {
        return Err("usage: follow SERVER PROFILE TOPIC".into());
    };
    let client = Client::connect(Options::new(profile.parse()?, vec![server.parse()?], state()))?;
    match client.follow(Topic::to_follow(topic)?)?.wait(Duration::from_secs(30)) {
        // An earlier run has followed it, and this one goes on where that one ended.
        Ok(_) | Err(ReceiptError::Refused(Code::AlreadyFollowing)) => eprintln!("following {topic}"),
        Err(error) => return Err(error.into()),
    }
    let notifications = client.notifications();
    loop {
        let incoming = notifications.recv()?;
        match &incoming {
            Incoming::Notification(one) => println!("{} {}: {}", one.op, one.author, one.content.body),
            Incoming::Gap { after, upto } => println!("dropped by retention: {after} to {upto}"),
        }
        // The cursor moves here. A crash before this line delivers the notification again.
        client.ack(incoming.upto())?;
    }
}

/// The directory of the device's files: its key and its cursor.
fn state() -> String {
    std::env::var("RECADO_EXAMPLE_STATE").unwrap_or_else(|_| "recado-example".to_owned())
}
