//! `recado status --monitor`: what the monitor of this machine's servers does, or did last.

use std::io;
use std::path::Path;
use std::time::Duration;

use recado_doctor::monitor::{MonitorView, ServerView, State};
use recado_proto::id::NodeId;
use serde_json::{Value, json};

use super::{Context, status};
use crate::exit::Failure;
use crate::print::{note, rfc3339, when};
use crate::text::clean_line;

pub(super) fn run(context: &Context, dir: &Path, watch: Option<Duration>) -> Result<(), Failure> {
    status::again(context, watch, |above| once(context, dir, above))
}

fn once(context: &Context, dir: &Path, above: &str) -> Result<(), Failure> {
    let view = MonitorView::read(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Unresolved(format!(
            "no monitor has run in {}: `recadod monitor --dir {}` starts one",
            dir.display(),
            dir.display()
        )),
        _ => {
            Failure::Other(format!("cannot read what the monitor in {} has written: {error}", dir.display()))
        }
    })?;
    let seen = Seen::of(&view);
    context.out.put(object(&view, &seen), || above.to_owned() + &text(&view, &seen))?;
    let stopped = view.servers.iter().all(|server| server.state == State::Stopped);
    if seen.runs {
        return Ok(());
    }
    let why = if stopped {
        "the monitor was stopped, and its servers with it".to_owned()
    } else {
        format!(
            "the monitor does not run: nobody starts a server that dies. `recadod monitor --dir {}` adopts those that \
             run",
            dir.display()
        )
    };
    if context.out.is_for_people() {
        note(&why);
    }
    Err(Failure::Told(Box::new(Failure::Unresolved(why))))
}

/// What runs now of the processes that a view names.
struct Seen {
    runs: bool,
    alive: Vec<bool>,
}

impl Seen {
    fn of(view: &MonitorView) -> Seen {
        let alive = |server: &ServerView| server.process.is_some_and(|process| view.is_alive(process));
        Seen { runs: view.runs(), alive: view.servers.iter().map(alive).collect() }
    }
}

fn object(view: &MonitorView, seen: &Seen) -> Value {
    let server = |(server, alive): (&ServerView, &bool)| {
        json!({
            "id": server.id,
            "state": server.state,
            "alive": alive,
            "pid": server.process.map(|process| process.pid),
            "since": rfc3339(server.since_unix_ms),
            "restarts": server.restarts,
            "hangs": server.hangs,
            "exit": server.exit.as_ref().map(|exit| json!({ "at": rfc3339(exit.unix_ms), "how": exit.how })),
            "reason": server.reason,
            "due": server.due_unix_ms.map(rfc3339),
            "learns": server.learns,
        })
    };
    json!({
        "runs": seen.runs,
        "pid": view.process.pid,
        "since": rfc3339(view.since_unix_ms),
        "servers": view.servers.iter().zip(&seen.alive).map(server).collect::<Vec<_>>(),
    })
}

fn text(view: &MonitorView, seen: &Seen) -> String {
    let mut lines = vec![
        match seen.runs {
            true => format!("monitor: runs, pid {}, since {}", view.process.pid, when(view.since_unix_ms)),
            false => format!("monitor: DOES NOT RUN (it was pid {})", view.process.pid),
        },
        format!(
            "{:<10} {:<10} {:>8}  {:<19} {:>8} {:>5}  LAST EXIT",
            "SERVER", "STATE", "PID", "SINCE", "RESTARTS", "HANGS"
        ),
    ];
    for (server, alive) in view.servers.iter().zip(&seen.alive) {
        // What a monitor that is gone wrote may have changed since.
        let state = match (server.process, alive) {
            (Some(_), false) => "ended",
            (Some(_), true) if !seen.runs => "alone",
            _ => server.state.as_str(),
        };
        let pid = server.process.map_or("-".to_owned(), |process| process.pid.to_string());
        let exit = server
            .exit
            .as_ref()
            .map_or("-".to_owned(), |exit| format!("{} at {}", clean_line(&exit.how), when(exit.unix_ms)));
        lines.push(format!(
            "{:<10} {state:<10} {pid:>8}  {:<19} {:>8} {:>5}  {exit}",
            NodeId(server.id).to_string(),
            when(server.since_unix_ms),
            server.restarts,
            server.hangs
        ));
        let due = server.due_unix_ms.filter(|_| seen.runs && server.state == State::Waits);
        lines.extend(due.map(|due| format!("           next look at {}", when(due))));
        lines.extend(server.reason.as_ref().map(|reason| format!("           {}", clean_line(reason))));
        if server.learns && server.state != State::Waits {
            lines.push(
                "           its data were lost; it learns from the others, and has no vote yet".to_owned(),
            );
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use recado_doctor::monitor::{Exit, Running};

    use super::*;

    /// The view of this process as a monitor of three servers: one is this process, one waits, one has ended.
    fn view() -> MonitorView {
        let server = |id, state, process, reason: Option<&str>| ServerView {
            id,
            state,
            since_unix_ms: 1_800_000_000_000,
            process,
            restarts: 3,
            hangs: 1,
            exit: Some(Exit { unix_ms: 1_800_000_000_000, how: "signal 9".into() }),
            reason: reason.map(ToOwned::to_owned),
            due_unix_ms: (state == State::Waits).then_some(1_800_000_060_000),
            learns: id == 1,
            mount: None,
        };
        let mut view = MonitorView::own(1_800_000_000_000, Vec::new()).unwrap();
        let other = Running { started: view.process.started + 1, ..view.process };
        view.servers = vec![
            server(1, State::CatchesUp, Some(view.process), None),
            server(2, State::Waits, None, Some("mount its disk\u{1b}[31m")),
            server(3, State::Runs, Some(other), None),
        ];
        view
    }

    fn line<'a>(text: &'a str, server: &str) -> Vec<&'a str> {
        text.lines().find(|line| line.starts_with(server)).unwrap().split_whitespace().collect()
    }

    #[test]
    fn what_a_monitor_does_is_shown_with_what_it_waits_for() {
        let view = view();
        let seen = Seen::of(&view);
        let shown = text(&view, &seen);
        assert!(shown.starts_with(&format!("monitor: runs, pid {}", view.process.pid)), "{shown}");
        assert_eq!(line(&shown, "server-1")[1..3], ["catches", "up"]);
        assert!(line(&shown, "server-2").starts_with(&["server-2", "waits", "-"]), "{shown}");
        assert_eq!(line(&shown, "server-3")[1], "ended", "its number is another process's");
        assert!(shown.contains("next look at") && shown.contains("mount its disk"), "{shown}");
        assert!(shown.contains("no vote yet") && !shown.contains('\u{1b}'), "{shown}");
        let json = object(&view, &seen);
        assert_eq!((&json["runs"], &json["pid"]), (&json!(true), &json!(view.process.pid)));
        let servers = json["servers"].as_array().unwrap();
        assert_eq!(
            [0, 1, 2].map(|n| servers[n]["alive"].clone()),
            [true, false, false].map(|yes| json!(yes))
        );
        assert_eq!((&servers[0]["state"], &servers[0]["learns"]), (&json!("catches_up"), &json!(true)));
        assert_eq!(servers[1]["exit"]["how"], "signal 9");
        assert_eq!(servers[1]["due"], "2027-01-15T08:01:00.000Z");
    }

    #[test]
    fn a_monitor_that_is_gone_is_told_and_so_are_the_servers_that_it_has_left() {
        let mut view = view();
        view.process.started += 1;
        let seen = Seen::of(&view);
        let shown = text(&view, &seen);
        assert!(shown.starts_with("monitor: DOES NOT RUN"), "{shown}");
        assert_eq!((line(&shown, "server-1")[1], line(&shown, "server-3")[1]), ("alone", "ended"));
        assert!(!shown.contains("next look"), "nobody looks: {shown}");
        assert_eq!(object(&view, &seen)["runs"], false);
    }
}
