//! `recado status`: shows the state of each server. Needs no profile.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::time::Duration;

use recado_client::{ClientError, NodeId, RoleName, ServerStatus, Status, status};
use serde_json::{Value, json};

use super::{Context, addresses};
use crate::exit::Failure;
use crate::print::note;
use crate::waiting::{Waiting, pause};

/// Default time to wait for the servers. A running server answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Time after which a server that has ops which it has not applied is asked again. A backup learns with the
/// next message of the primary, a heartbeat at the latest, that what it has is committed.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(super) fn run(context: &Context, watch: Option<Duration>) -> Result<(), Failure> {
    again(context, watch, |above| once(context, above))
}

/// Shows something once, or again and again, until a signal.
pub(super) fn again(
    context: &Context,
    watch: Option<Duration>,
    once: impl Fn(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(interval) = watch else { return once("") };
    // Clears what is shown of the round before.
    let above = match io::stdout().is_terminal() {
        true => {
            format!("\u{1b}[H\u{1b}[2Jrecado status, every {} s; Ctrl-C ends it\n\n", interval.as_secs_f32())
        }
        false => String::new(),
    };
    loop {
        match once(&above) {
            Ok(()) | Err(Failure::Told(_)) => {}
            // The servers may be back in the next round.
            Err(failure @ Failure::Client(ClientError::Unreachable { .. })) => note(failure),
            Err(failure) => return Err(failure),
        }
        if let Some(signal) = pause(context.interrupt()?, interval) {
            return Err(Failure::Signal(signal));
        }
    }
}

/// Asks the servers, and then shows at once `above`, for people, and their state.
fn once(context: &Context, above: &str) -> Result<(), Failure> {
    let timeout = context.timeout.unwrap_or(TIMEOUT);
    let servers = match ask(context, timeout)? {
        Ok(servers) => servers,
        Err(ClientError::Unreachable { servers, waited }) => {
            // Where the servers are is known all the same: as they were named, and from earlier sessions.
            let all = servers.iter().map(|addr| fields(None, *addr, None)).collect();
            let lines = servers.iter().map(|addr| silent(&addr.to_string())).collect();
            show(context, above, all, lines)?;
            return Err(ClientError::Unreachable { servers, waited }.into());
        }
        Err(error) => return Err(error.into()),
    };
    let servers = match servers.iter().any(|server| lag(server) > 0) {
        true => match pause(context.interrupt()?, LOOK_AGAIN) {
            Some(signal) => return Err(Failure::Signal(signal)),
            None => still_lagging(servers, &ask(context, timeout)?.unwrap_or_default()),
        },
        false => servers,
    };
    show(context, above, servers.iter().map(object).collect(), servers.iter().map(line).collect())?;
    let Some(news) = no_primary(&servers) else { return Ok(()) };
    // JSON shows the roles, from which a program sees it.
    if context.out.is_for_people() {
        note(news);
    }
    Err(Failure::Told(Box::new(ClientError::NoPrimary(timeout).into())))
}

fn ask(context: &Context, timeout: Duration) -> Result<Result<Vec<ServerStatus>, ClientError>, Failure> {
    let servers = context.config.servers()?;
    let at = addresses(servers);
    let waiting = Waiting {
        tells: &format!("waiting for the servers at {at}"),
        state: &format!("the servers at {at} had not all answered"),
    };
    Ok(waiting.on(context.interrupt()?, || status(servers, timeout, &context.trust))?)
}

fn lag(server: &ServerStatus) -> u64 {
    server.answer.as_ref().map_or(0, |status| status.lag)
}

/// The servers with those ops as lag that each had at first and has not applied since.
fn still_lagging(mut servers: Vec<ServerStatus>, again: &[ServerStatus]) -> Vec<ServerStatus> {
    for server in &mut servers {
        let later =
            again.iter().find(|later| later.node == server.node).and_then(|later| later.answer.as_ref());
        if let (Some(first), Some(later)) = (&mut server.answer, later) {
            let lag = (first.applied.0 + first.lag).saturating_sub(later.applied.0);
            *first = Status { lag: lag.min(later.lag), ..later.clone() };
        }
    }
    servers
}

fn show(context: &Context, above: &str, all: Vec<Value>, lines: Vec<String>) -> Result<(), Failure> {
    let head = format!(
        "{:<10} {:<10} {:>8} {:>9} {:>9} {:>6}  {:<21} {:>8}",
        "SERVER", "ROLE", "VIEW", "APPLIED", "DURABLE", "LAG", "ADDRESS", "PID"
    );
    let lines: Vec<String> = std::iter::once(head).chain(lines).collect();
    Ok(context.out.put(Value::from(all), || above.to_owned() + &lines.join("\n"))?)
}

/// Explains why nothing can be acknowledged: none of the servers that answer is primary, or too few can vote.
/// Returns `None` if something can be.
fn no_primary(servers: &[ServerStatus]) -> Option<String> {
    let answers: Vec<_> = servers.iter().filter_map(|server| server.answer.as_ref()).collect();
    let learners = answers.iter().filter(|status| status.role == RoleName::Learner).count();
    let (all, majority) = (servers.len(), servers.len() / 2 + 1);
    if all - learners < majority {
        return Some(format!(
            "nothing can be sent: {learners} of {all} servers have lost their promises and cannot vote, and {majority} that \
             vote are needed; `recado doctor` says what to do"
        ));
    }
    if answers.iter().any(|status| status.role == RoleName::Primary) {
        return None;
    }
    // A backup has a primary: the one that its view names. If it is one that does not answer here, the fault
    // lies between it and this machine.
    let followed = answers.iter().filter(|status| status.role == RoleName::Backup);
    let named = followed.max_by_key(|status| status.view).and_then(|status| status.view.primary());
    if let Some(unheard) = servers.iter().find(|server| named == Some(server.node) && server.answer.is_none())
        && answers.len() > servers.len() / 2
    {
        return Some(format!(
            "the other servers follow {} ({}) as primary, and it does not answer this machine, so nothing can be sent from \
             here, while the other servers answer queries: if it has not just died, something between it and this machine drops UDP datagrams",
            unheard.node, unheard.addr
        ));
    }
    let answered = answers.len();
    let why = if answered < majority {
        format!("only {answered} of {all} servers answer, and an election needs {majority}")
    } else {
        "an election takes a moment; if it elects none, do the servers reach each other?".to_owned()
    };
    Some(format!(
        "there is no primary now, so nothing can be sent, while servers that answer can be read: {why}"
    ))
}

fn object(server: &ServerStatus) -> Value {
    fields(Some(server.node), server.addr, server.answer.as_ref())
}

fn fields(node: Option<NodeId>, addr: SocketAddr, answer: Option<&Status>) -> Value {
    let refused = answer.map(|status| {
        let reasons = status.refused.iter().map(|(reason, count)| (format!("{reason:?}"), json!(count)));
        Value::Object(reasons.collect())
    });
    json!({
        "id": node.map(|node| node.0),
        "role": answer.map(|status| status.role.as_str()),
        "view": answer.map(|status| status.view.to_string()),
        "applied": answer.map(|status| status.applied.0),
        "durable": answer.map(|status| status.durable.0),
        "lag": answer.map(|status| status.lag),
        "address": addr.to_string(),
        "pid": answer.map(|status| status.pid),
        "alive": answer.is_some(),
        "incarnation": answer.map(|status| status.incarnation.0),
        "uptime_ms": answer.map(|status| status.uptime_ms),
        "refused": refused,
    })
}

fn line(server: &ServerStatus) -> String {
    let node = server.node.to_string();
    let addr = server.addr.to_string();
    match &server.answer {
        Some(status) => format!(
            "{node:<10} {:<10} {:>8} {:>9} {:>9} {:>6}  {addr:<21} {:>8}",
            status.role.as_str(),
            status.view.to_string(),
            status.applied.0,
            status.durable.0,
            status.lag,
            status.pid
        ),
        None => without_answer(&node, &addr),
    }
}

/// The line of a server of which only the address is known.
fn silent(addr: &str) -> String {
    without_answer("-", addr)
}

fn without_answer(node: &str, addr: &str) -> String {
    format!(
        "{node:<10} {:<10} {:>8} {:>9} {:>9} {:>6}  {addr:<21} {:>8}",
        "no answer", "-", "-", "-", "-", "-"
    )
}

#[cfg(test)]
mod tests {
    use recado_client::{Op, View};
    use recado_proto::id::Incarnation;

    use super::*;

    fn server(id: u16, role: Option<RoleName>, primary: u16) -> ServerStatus {
        let view = View::new(3, NodeId(primary));
        let answer = role.map(|role| Status {
            node: NodeId(id),
            role,
            view,
            applied: Op(1),
            durable: Op(1),
            lag: 0,
            pid: 1,
            incarnation: Incarnation(1),
            uptime_ms: 1,
            members: Vec::new(),
            refused: Vec::new(),
        });
        ServerStatus {
            node: NodeId(id),
            addr: ([127, 0, 0, 1], 10_096 + id).into(),
            answer,
            round_trip: None,
        }
    }

    #[test]
    fn status_without_a_primary_explains_why() {
        use RoleName::{Backup, Candidate, Isolated, Learner, Primary};
        let told = |roles: [Option<RoleName>; 3], primary| {
            let servers: Vec<_> = (1..).zip(roles).map(|(id, role)| server(id, role, primary)).collect();
            no_primary(&servers)
        };
        assert_eq!(told([Some(Backup), Some(Primary), None], 2), None);
        assert!(told([Some(Isolated), None, None], 1).unwrap().contains("only 1 of 3 servers answer"));
        assert!(told([Some(Candidate), Some(Candidate), None], 3).unwrap().contains("election"));
        for roles in [[Learner, Learner, Candidate], [Learner, Learner, Primary]] {
            let few = told(roles.map(Some), 3).unwrap();
            assert!(few.contains("2 of 3 servers have lost their promises"), "{few}");
        }
        assert_eq!(told([Learner, Backup, Primary].map(Some), 3), None);
        let unheard = told([Some(Backup), Some(Backup), None], 3).unwrap();
        assert!(unheard.contains("127.0.0.1:10099") && unheard.contains("this machine"), "{unheard}");
        assert!(!unheard.contains("there is no primary"), "{unheard}");
    }

    #[test]
    fn lag_is_what_a_server_has_not_applied_a_moment_later_either() {
        let with = |applied, lag| {
            let mut one = server(1, Some(RoleName::Backup), 3);
            let answer = one.answer.as_mut().unwrap();
            (answer.applied, answer.lag) = (Op(applied), lag);
            vec![one]
        };
        let lag_of = |first, again: &[ServerStatus]| lag(&still_lagging(first, again)[0]);
        assert_eq!(lag_of(with(7, 1), &with(8, 0)), 0, "it was the last heartbeat's");
        assert_eq!(lag_of(with(7, 1), &with(8, 3)), 0, "what came since is no lag yet");
        assert_eq!(lag_of(with(7, 9), &with(8, 8)), 8);
        assert_eq!(lag_of(with(7, 1), &with(7, 1)), 1);
        assert_eq!(lag_of(with(7, 9), &with(7, 0)), 0, "its log was cut");
        assert_eq!(lag_of(with(7, 1), &[]), 1, "it does not answer again");
    }

    #[test]
    fn a_server_that_is_gone_has_the_same_keys() {
        let gone = ServerStatus {
            node: NodeId(2),
            addr: "127.0.0.1:10098".parse().unwrap(),
            answer: None,
            round_trip: None,
        };
        let value = object(&gone);
        for key in ["id", "role", "view", "applied", "durable", "lag", "address", "pid", "alive"] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!((&value["id"], &value["alive"], &value["role"]), (&json!(2), &json!(false), &Value::Null));
        assert!(line(&gone).contains("no answer"));
    }
}
