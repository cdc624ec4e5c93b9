//! Sends one notification and waits until the servers hold it for good.
//!
//! ```text
//! cargo run -p recado-client --example send -- 127.0.0.1:10097 backup-robot '#ops' 'backup done in 41 s'
//! ```
//!
//! The profile's key and the device's state are in `./recado-example` (`RECADO_EXAMPLE_STATE` names another
//! directory). A name that somebody else has claimed, also `recado` on this machine, is refused.

use std::process::ExitCode;
use std::time::Duration;

use recado_client::{Client, Content, Options, Topic};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("send: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, profile, topic, body] = arguments.as_slice() else {
        return Err("usage: send SERVER PROFILE TOPIC TEXT".into());
    };
    // Any one server is enough: it names the primary and the others. A name that nobody has is claimed.
    let servers = vec![server.parse()?];
    let options = Options::new(profile.parse()?, servers, state()).send_only();
    let client = Client::connect(options)?;
    let content = Content::of(body.clone());
    // `send` returns at once. The receipt has the op once a majority of the servers have it on disk. If this
    // process dies before, its next run settles the request under the same number.
    let receipt = client.send(Some(Topic::to_send(topic)?), content)?;
    println!("{}", receipt.wait(Duration::from_secs(30))?);
    client.disconnect();
    Ok(())
}

/// The directory of the device's files, which hold its key, its numbers and what is unanswered.
fn state() -> String {
    std::env::var("RECADO_EXAMPLE_STATE").unwrap_or_else(|_| "recado-example".to_owned())
}
