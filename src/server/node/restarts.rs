//! Restarts of other servers. A server that has started again does not know where clients are, and could not
//! announce a new view to them. So the primary tells its clients, who send KEEPALIVE to every server. A new
//! primary tells of those that it has heard of as a backup, too: the former one may have died before it did.

use std::time::Duration;

use recado_proto::id::Moment;

/// The least interval between two tellings: a server that starts again and again must not make a load of it.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is to be told of restarts.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// When the last one was told.
    told: Option<Moment>,
    /// True if there was one since.
    waits: bool,
}

impl Restarts {
    /// Another server has started again.
    pub(super) fn on_started(&mut self) {
        self.waits = true;
    }

    /// Returns true if clients are to be told now, which counts as done.
    pub(super) fn take(&mut self, now: Moment, serves: bool) -> bool {
        let due = serves && self.waits && self.told.is_none_or(|at| now.since(at) >= TELL_EVERY);
        if due {
            (self.told, self.waits) = (Some(now), false);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_restart_is_told_while_this_server_serves_but_not_more_often_than_every_ten_seconds() {
        let mut restarts = Restarts::default();
        let at = |s: u64| Moment(s * 1_000_000);
        assert!(!restarts.take(at(1), true), "there was none");
        restarts.on_started();
        assert!(!restarts.take(at(1), false));
        assert!(restarts.take(at(2), true));
        restarts.on_started();
        restarts.on_started();
        assert!(!restarts.take(at(11), true));
        assert!(restarts.take(at(12), true));
        assert!(!restarts.take(at(99), true), "told once");
    }
}
