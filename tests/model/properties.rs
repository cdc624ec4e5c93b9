//! The properties that always hold, and those that must be reachable, so that the first do not hold
//! vacuously.

use recado_proto::id::View;
use stateright::Property;

use crate::protocol::{Role, Scope, State};

pub const COMMITTED_ONCE: &str = "what is committed at an op is never another entry";
pub const COMMITTED_KEPT: &str = "what is committed is in the log of every later primary";
pub const COMMITTED_HELD: &str = "what is committed is on a majority of the disks, but for those lost";
pub const OPENED_ONCE: &str = "a view is opened once, by the server in it";
pub const PROMISE_KEPT: &str = "a server remembers every promise it told, unless it lost its disk";
pub const UNDISTURBED: &str = "who is alone in its suspicion changes no view";

pub fn all(scope: &Scope) -> Vec<Property<Scope>> {
    let mut all = vec![
        Property::always(COMMITTED_ONCE, |_: &Scope, state: &State| !state.history.changed),
        Property::always(COMMITTED_KEPT, committed_kept),
        Property::always(COMMITTED_HELD, committed_held),
        Property::always(OPENED_ONCE, |_: &Scope, state: &State| !state.history.reopened),
        Property::always(PROMISE_KEPT, promise_kept),
    ];
    if scope.suspecting.is_some() {
        all.push(Property::always(UNDISTURBED, |_: &Scope, state: &State| {
            state.network.prepares.is_empty()
                && state.servers.iter().all(|server| server.promised.round() <= 1)
        }));
        all.push(Property::sometimes("somebody suspects", |_: &Scope, state: &State| {
            state.servers.iter().any(|server| server.suspects)
        }));
    } else {
        all.push(Property::sometimes("an elected view is active", |scope: &Scope, state: &State| {
            let settled = usize::from(scope.settled);
            state.network.casts.iter().filter(|cast| cast.commit >= cast.start).count() > settled
        }));
    }
    if scope.commands > 0 {
        all.push(Property::sometimes("a command is committed", |_: &Scope, state: &State| {
            state.history.committed.iter().any(|(entry, _)| entry.command > 0)
        }));
    }
    if scope.elections > 1 && !scope.settled {
        all.push(Property::sometimes(
            "an older view's entry is committed by a later view",
            |_: &Scope, state: &State| state.history.committed.iter().any(|(entry, view)| entry.view < *view),
        ));
    }
    if scope.wipes > 0 {
        all.push(Property::sometimes(
            "a server that lost its disk votes again",
            |_: &Scope, state: &State| {
                state.servers.iter().any(|server| server.incarnation > 0 && server.votes())
            },
        ));
    }
    all
}

fn committed_kept(_: &Scope, state: &State) -> bool {
    state.servers.iter().all(|server| match server.role {
        Role::Primary(_) => state
            .history
            .committed
            .iter()
            .enumerate()
            .all(|(at, (entry, view))| *view > server.promised || server.log.get(at) == Some(entry)),
        _ => true,
    })
}

fn committed_held(scope: &Scope, state: &State) -> bool {
    let quorum = scope.servers / 2 + 1;
    state.history.committed.iter().enumerate().all(|(at, (entry, _))| {
        let holders = state.servers.iter().filter(|server| server.disk.log.get(at) == Some(entry)).count();
        holders + usize::from(state.history.wipes) >= quorum
    })
}

fn promise_kept(_: &Scope, state: &State) -> bool {
    let kept = |view: View, from: usize, life: u8| {
        let server = &state.servers[from];
        server.incarnation != life || server.promised >= view
    };
    state.network.promises.iter().all(|promise| kept(promise.view, promise.from, promise.incarnation))
}
