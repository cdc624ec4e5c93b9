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
