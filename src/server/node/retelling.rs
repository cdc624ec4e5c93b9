//! Tells of the sessions of a state that was installed: of those that are gone, and of those that were not
//! known before. A state may have 200,000 sessions, so each turn looks at some of them, and nothing is
//! applied before all are told: a shard has a session's keys before anything for its client.

use recado_proto::id::{Op, SessionId};
use recado_service::Service;

use super::Effect;

/// The sessions that one turn looks at: a millisecond or two, beside the 5 ms of what a turn applies.
pub(super) const SESSIONS_PER_TURN: usize = 4_096;

/// How far the sessions of an installed state are told.
#[derive(Debug)]
pub(super) struct Retelling {
    /// The state that was replaced.
    before: Box<Service>,
    /// The session of the state before that was looked at last, and then that of the present one.
    looked_at: Looked,
}

#[derive(Clone, Copy, Debug)]
enum Looked {
    Before(SessionId),
    Present(SessionId),
}

impl Retelling {
    pub(super) fn new(before: Box<Service>) -> Retelling {
        Retelling { before, looked_at: Looked::Before(SessionId(Op::ZERO)) }
    }

    /// Looks at up to `most` sessions, and emits what is to be told. Returns the state before once all are
    /// told. A session is an op of the committed log, so what both states contain is the same.
    pub(super) fn go_on<L>(
        mut self,
        present: &Service,
        most: usize,
        out: &mut Vec<Effect<L>>,
    ) -> Result<Box<Service>, Retelling> {
        for _ in 0..most {
            match self.looked_at {
                Looked::Before(last) => {
                    let next = self.before.sessions_after(last).next().map(|(session, ..)| session);
                    out.extend(next.filter(|gone| !present.has_session(*gone)).map(Effect::SessionGone));
                    self.looked_at = next.map_or(Looked::Present(SessionId(Op::ZERO)), Looked::Before);
                }
                Looked::Present(last) => {
                    let Some((session, device, nonce, aead)) = present.sessions_after(last).next() else {
                        return Ok(self.before);
                    };
                    if !self.before.has_session(session) {
                        out.push(Effect::SessionKnown { session, device, nonce, aead });
                    }
                    self.looked_at = Looked::Present(session);
                }
            }
        }
        Err(self)
    }
}
