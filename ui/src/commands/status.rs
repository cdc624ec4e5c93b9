//! `recado status`: shows the state of each server. Needs no profile.

use std::time::Duration;

use recado_client::{ClientError, RoleName, ServerStatus, status};
use serde_json::{Value, json};

use super::Context;
use crate::exit::Failure;
use crate::print::note;

/// Default time to wait for the servers. A running server answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn run(context: &Context, as_json: bool) -> Result<(), Failure> {
    let timeout = context.timeout.unwrap_or(TIMEOUT);
    let servers = status(&context.config.servers, timeout, &context.trust)?;
    let all: Vec<Value> = servers.iter().map(object).collect();
    let head = format!(
        "{:<10} {:<10} {:>8} {:>9} {:>9} {:>6}  {:<21} {:>8}",
        "SERVER", "ROLE", "VIEW", "APPLIED", "DURABLE", "LAG", "ADDRESS", "PID"
    );
    let lines: Vec<String> = std::iter::once(head).chain(servers.iter().map(line)).collect();
    context.out.put(Value::from(all), || lines.join("\n"))?;

    let roles: Vec<_> =
        servers.iter().map(|server| server.answer.as_ref().map(|status| status.role)).collect();
    let Some(news) = no_primary(&roles) else { return Ok(()) };
    // JSON shows the roles, from which a program sees it.
    if !as_json {
        note(news);
    }
    Err(Failure::Told(Box::new(ClientError::NoPrimary(timeout).into())))
}

/// Explains why none of the servers is primary, or returns `None` if one is.
fn no_primary(roles: &[Option<RoleName>]) -> Option<String> {
    if roles.contains(&Some(RoleName::Primary)) {
        return None;
    }
    let (answered, all) = (roles.iter().flatten().count(), roles.len());
    let why = if answered <= all / 2 {
        format!("only {answered} of {all} servers answer, and an election needs {}", all / 2 + 1)
    } else {
        "an election takes a moment; if it elects none, do the servers reach each other?".to_owned()
    };
    Some(format!("there is no primary now, so nothing can be sent or queried: {why}"))
}

fn object(server: &ServerStatus) -> Value {
    let answer = server.answer.as_ref();
    let refused = answer.map(|status| {
        let reasons = status.refused.iter().map(|(reason, count)| (format!("{reason:?}"), json!(count)));
        Value::Object(reasons.collect())
    });
    json!({
        "id": server.node.0,
        "role": answer.map(|status| status.role.as_str()),
        "view": answer.map(|status| status.view.to_string()),
        "applied": answer.map(|status| status.applied.0),
        "durable": answer.map(|status| status.durable.0),
        "lag": answer.map(|status| status.lag),
        "address": server.addr.to_string(),
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
        None => format!(
            "{node:<10} {:<10} {:>8} {:>9} {:>9} {:>6}  {addr:<21} {:>8}",
            "no answer", "-", "-", "-", "-", "-"
        ),
    }
}

#[cfg(test)]
mod tests {
    use recado_client::NodeId;

    use super::*;

    #[test]
    fn status_without_a_primary_explains_why() {
        let (primary, backup, isolated) =
            (Some(RoleName::Primary), Some(RoleName::Backup), Some(RoleName::Isolated));
        assert_eq!(no_primary(&[backup, primary, None]), None);
        assert!(no_primary(&[isolated, None, None]).unwrap().contains("only 1 of 3 servers answer"));
        assert!(no_primary(&[backup, backup, None]).unwrap().contains("election"));
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
