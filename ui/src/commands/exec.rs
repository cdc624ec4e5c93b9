//! Runs the command of `recado listen --exec` for a notification, and waits for it.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use recado_client::Notification;

use crate::exit::Failure;
use crate::print::environment;

/// Source of a notification. It decides whether the notification comes again after the command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The stream, which delivers a notification again if it was not taken.
    Stream,
    /// The past that `listen` shows first. Most of it was read before and does not come again.
    Past,
}

/// Runs `command` with the unchanged body on its standard input, and waits for its success. `own` is part
/// of its environment, so that a `recado` in it acts as the profile that listens.
pub(super) fn run(
    command: &str,
    own: &[(&'static str, String)],
    notification: &Notification,
    from: Origin,
) -> Result<(), Failure> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .envs(own.iter().map(|(name, value)| (name, value)))
        .envs(environment(notification))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::Other(format!("cannot run sh: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(notification.content.body.as_bytes()) {
            Ok(()) => {}
            // The command need not read its input.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                return Err(Failure::Other(format!(
                    "the command's standard input cannot be written: {error}"
                )));
            }
        }
    }
    let status =
        child.wait().map_err(|error| Failure::Other(format!("cannot wait for the command: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let op = notification.op;
    let again = match from {
        Origin::Stream => "it counts as unread and comes again with the next `recado listen`".to_owned(),
        Origin::Past => {
            let before = op.0.saturating_sub(1);
            format!(
                "op {op} is from the history: if it was read before, it does not come again by itself; \
                     `--since {before}` shows it"
            )
        }
    };
    Err(Failure::Other(format!("the command failed on op {op} ({status}); {again}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::tests::notification;

    #[test]
    fn a_command_gets_the_text_on_its_input_and_the_rest_in_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        let command = format!(
            "{{ cat; echo \" $RECADO_OP $RECADO_TOPIC $RECADO_TOPIC_KIND $RECADO_AUTHOR $RECADO_TITLE $RECADO_TAGS\"; }} > {}",
            file.display()
        );
        run(&command, &[], &notification("text"), Origin::Stream).unwrap();
        let got = std::fs::read_to_string(file).unwrap();
        assert_eq!(got, "text 17 #ops channel alice Backup disk\nnight\n");
    }

    #[test]
    fn a_recado_in_the_command_acts_as_the_listening_profile() {
        let own = [("RECADO_AS", "bob".to_owned()), ("RECADO_SERVERS", "127.0.0.1:7".to_owned())];
        let command = "test \"$RECADO_AS at $RECADO_SERVERS\" = 'bob at 127.0.0.1:7'";
        run(command, &own, &notification("x"), Origin::Stream).unwrap();
    }

    #[test]
    fn a_title_no_environment_can_hold_is_no_error() {
        let mut notification = notification("x");
        notification.content.title = Some("nul\0 and more".into());
        run("test \"$RECADO_TITLE\" = 'nul and more'", &[], &notification, Origin::Stream).unwrap();
    }

    #[test]
    fn a_failed_command_is_an_error_and_one_that_does_not_read_its_input_is_none() {
        let message = |from| run("exit 3", &[], &notification("x"), from).unwrap_err().to_string();
        let stream = message(Origin::Stream);
        assert!(stream.contains("op 17") && stream.contains("with the next `recado listen`"), "{stream}");
        let past = message(Origin::Past);
        assert!(past.contains("op 17 is from the history") && past.contains("`--since 16`"), "{past}");
        assert!(!past.contains("counts as unread"), "{past}");
        run("true", &[], &notification(&"x".repeat(16 * 1024)), Origin::Stream).unwrap();
    }
}
