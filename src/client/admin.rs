//! What an administrator may do, who has the cluster's secret: come in with the key that is derived
//! from it, and release a name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::error::ClientError;
use super::machine::door::{Door, FromDoor, Identity};
use super::probe::{ASK_EVERY, PATIENCE, bind, seed};
use crate::config::secret::ClusterSecret;
use crate::entropy::Entropy;
use crate::id::{ClusterId, Moment, Name, Op};
use crate::net::Inbox;
use crate::server::MachineClock;
use crate::wire::noise;
use crate::wire::packet::{Admin, Answers, Packet, QueryId};
use crate::wire::seal::ClusterKeys;

/// Takes a name from the keys that have it: their devices are forgotten, their sessions end, and whoever
/// connects with the name next claims it. What it follows and its inbox stay. Returns where it stands in
/// the log. It is asked of all servers until one that is primary answers; if that one dies over it, the
/// next may do it once more.
///
/// # Errors
/// [`ClientError`]: refused (there is no such profile), or no primary answered in time; then it may
/// still happen.
pub fn release(
    servers: &[SocketAddr],
    cluster: ClusterId,
    secret: &ClusterSecret,
    name: Name,
    timeout: Duration,
) -> Result<Op, ClientError> {
    let keys = ClusterKeys::new(secret.as_bytes());
    let identity = Identity {
        cluster,
        cluster_key: noise::public(&keys.cluster_private()),
        private: keys.admin_private(),
    };
    let mut entropy = Entropy::new(seed()?);
    let query = QueryId(entropy.number());
    let question = Packet::Admin(Admin::Release { query, name });
    let socket = bind(servers, PATIENCE)?;
    let clock = MachineClock::start();
    let mut doors: BTreeMap<SocketAddr, Door> =
        servers.iter().map(|server| (*server, Door::default())).collect();
    let mut inbox = Inbox::new(16);
    let mut ask_at = Moment(0);
    while clock.now().since(Moment(0)) < timeout {
        let now = clock.now();
        if now >= ask_at {
            ask_at = now + ASK_EVERY;
            let ask = |(to, door): (&SocketAddr, &mut Door)| {
                let knock = door.knock(now, &identity, &question, &mut entropy);
                (*to, knock.unwrap_or_else(|| door.hello(cluster, &mut entropy)))
            };
            // What is lost is asked again.
            let _ = socket.send(&doors.iter_mut().map(ask).collect::<Vec<_>>());
        }
        socket.receive(&mut inbox)?;
        for (from, bytes, _) in inbox.datagrams() {
            match doors.get_mut(&from).and_then(|door| door.take(now, bytes)) {
                None => {}
                Some(FromDoor::Greeting(_)) => ask_at = now,
                Some(FromDoor::Answer(opened)) => {
                    for packet in opened.packets {
                        match packet {
                            Packet::AdminOk(ok) if ok.query == query => return Ok(ok.op),
                            Packet::Error(refused)
                                if refused.answers == Answers::Query(query) && refused.retry_ms == 0 =>
                            {
                                return Err(ClientError::Refused(refused.code));
                            }
                            // Not the primary, or not now.
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    Err(ClientError::Timeout(timeout))
}
