//! What must hold after every single event, whatever goes wrong.

use std::collections::BTreeMap;

use recado::config::{Limits, PlantedBug};
use recado::entry::{Entry, EntryKind};
use recado::id::{NodeId, Op, View};
use recado::server::node::Node;
use recado::service::{Applied, Service, State};
use recado::wire::codec;
use recado::wire::command::{Command, Stamped};
use recado::wire::envelope::Opened;
use recado::wire::packet::{Packet, Reply, RoleName};

use crate::server::Server;

/// What has been seen so far, to hold the next event against.
#[derive(Default)]
pub struct Invariants {
    /// The one log: every entry that any server applied.
    ledger: BTreeMap<Op, Entry>,
    /// The state at every op at which a server has stood.
    states: BTreeMap<Op, State>,
    primaries: BTreeMap<View, NodeId>,
    /// The highest promise each server has told anyone.
    told: BTreeMap<NodeId, View>,
    marks: BTreeMap<NodeId, Marks>,
}

#[derive(Clone, Copy, Default)]
struct Marks {
    life: u32,
    view: View,
    commit: Op,
    applied: Op,
}

impl Invariants {
    /// The last op that any server applied.
    pub fn last(&self) -> Op {
        self.ledger.keys().next_back().copied().unwrap_or(Op::ZERO)
    }

    /// Every notification of the one log, as an apply that has nothing but the log gives them.
    ///
    /// # Errors
    /// The log that was seen has a hole.
    pub fn notifications(&self, limits: Limits, planted: PlantedBug) -> Result<Vec<(Op, String)>, String> {
        let mut service = Service::new(State::default(), limits, planted);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for (op, entry) in &self.ledger {
            if *op != service.applied().next() {
                return Err(format!("nobody was seen to apply what is before op {op}"));
            }
            let stamped = match entry.kind {
                EntryKind::ViewStart => None,
                EntryKind::Command => codec::decode::<Stamped>(&entry.payload).ok(),
            };
            service.apply(*op, stamped.as_ref(), &mut out);
            all.extend(out.drain(..).filter_map(|applied| match applied {
                Applied::Notified { notification, .. } => Some((*op, notification.content.body.clone())),
                _ => None,
            }));
        }
        Ok(all)
    }

    /// After a server took a step.
    ///
    /// # Errors
    /// What does not hold.
    pub fn after_step(&mut self, server: &Server) -> Result<(), String> {
        let Some(process) = server.process.as_ref().or(server.dead.as_ref()) else { return Ok(()) };
        let (id, node) = (server.id, &process.node);
        self.one_primary_a_view(id, node)?;
        let before =
            self.marks.get(&id).copied().filter(|marks| marks.life == process.life).unwrap_or_default();
        let now = Marks {
            life: process.life,
            view: node.promised(),
            commit: node.commit(),
            applied: node.applied(),
        };
        if now.commit < before.commit || now.applied < before.applied || now.view < before.view {
            return Err(format!(
                "{id} went back: commit {} to {}, applied {} to {}, view {} to {}",
                before.commit, now.commit, before.applied, now.applied, before.view, now.view
            ));
        }
        if now.applied > now.commit {
            return Err(format!("{id} applied {} beyond its commit {}", now.applied, now.commit));
        }
        self.marks.insert(id, now);
        if now.applied > before.applied {
            self.equal_content(id, &process.log, before.applied, now.applied)?;
            self.equal_state(id, node)?;
        }
        Ok(())
    }

    /// After a process has started.
    ///
    /// # Errors
    /// What it forgot.
    pub fn after_start(&mut self, server: &Server) -> Result<(), String> {
        let Some(process) = &server.process else { return Ok(()) };
        // A learner has no promise: it says so, and votes for nothing.
        if process.node.role() == RoleName::Learner {
            return Ok(());
        }
        let told = self.told.get(&server.id).copied().unwrap_or_default();
        let promised = process.node.promised();
        if promised < told {
            return Err(format!("{} promised {told} and remembers {promised}", server.id));
        }
        Ok(())
    }

    /// The directory of a server was put back: it takes back promises, as the fault model says.
    pub fn set_back(&mut self, server: NodeId) {
        self.told.remove(&server);
    }

    /// When a server receives a datagram of another: what was told counts from here on.
    pub fn told(&mut self, opened: &Opened) {
        let Some(from) = opened.envelope.node else { return };
        for packet in &opened.packets {
            if let Packet::Reply(Reply::Promise(promise)) = packet {
                let told = self.told.entry(from).or_default();
                *told = (*told).max(promise.view);
            }
        }
    }

    /// When a client got an acknowledgement: the op is the request, and a majority holds it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn acknowledged<'a>(
        &self,
        op: Op,
        quorum: usize,
        servers: impl Iterator<Item = &'a Server>,
    ) -> Result<(), String> {
        let Some(entry) = self.ledger.get(&op) else {
            return Err(format!("op {op} was acknowledged, and no server has applied it"));
        };
        let request = entry.kind == EntryKind::Command
            && codec::decode::<Stamped>(&entry.payload)
                .is_ok_and(|stamped| matches!(stamped.command, Command::Request { .. }));
        if !request {
            return Err(format!("op {op} was acknowledged, and is no request"));
        }
        let holders: Vec<NodeId> = servers
            .filter(|server| server.held_upto >= op || server.held.contains(&(op, entry.view)))
            .map(|server| server.id)
            .collect();
        if holders.len() < quorum {
            return Err(format!(
                "op {op} of view {} was acknowledged, durable only on {holders:?}",
                entry.view
            ));
        }
        Ok(())
    }

    fn one_primary_a_view(&mut self, id: NodeId, node: &Node) -> Result<(), String> {
        if node.role() != RoleName::Primary {
            return Ok(());
        }
        let view = node.promised();
        if view.primary() != Some(id) {
            return Err(format!("{id} is primary in view {view}"));
        }
        match *self.primaries.entry(view).or_insert(id) {
            first if first == id => Ok(()),
            first => Err(format!("{id} and {first} are both primary in view {view}")),
        }
    }

    fn equal_content(
        &mut self,
        id: NodeId,
        log: &BTreeMap<Op, Entry>,
        after: Op,
        upto: Op,
    ) -> Result<(), String> {
        for (op, entry) in log.range(after.next()..=upto) {
            let known = self.ledger.entry(*op).or_insert_with(|| entry.clone());
            if known != entry {
                return Err(format!(
                    "{id} applied another op {op}: of view {} with {} bytes, elsewhere of view {} with {} bytes",
                    entry.view,
                    entry.payload.len(),
                    known.view,
                    known.payload.len()
                ));
            }
        }
        Ok(())
    }

    fn equal_state(&mut self, id: NodeId, node: &Node) -> Result<(), String> {
        let (op, state) = (node.applied(), node.service().state());
        match self.states.get(&op) {
            Some(known) if *known != state => Err(format!("{id} has another state at op {op}")),
            Some(_) => Ok(()),
            None => {
                self.states.insert(op, state);
                Ok(())
            }
        }
    }
}
