//! The engine of a server that is alone in its cluster, whose journal the tests play.

use recado_proto::id::ClusterId;

use super::*;
use crate::config::{Cluster, Member, Preempt, Timing};
use crate::journal::Meta;

const ME: NodeId = NodeId(1);

/// A log without peers, and its clock.
struct Alone {
    log: Bully,
    now: Moment,
    /// The committed entries, each once.
    taken: Vec<Committed>,
}

impl Alone {
    fn new(recovered: Recovered) -> Result<Alone, Hole> {
        let addr = ([127, 0, 0, 1], 1).into();
        let members = vec![Member { id: ME, client: addr, peer: addr }];
        let cluster = Cluster { id: ClusterId(7), me: ME, members };
        let planted = Default::default();
        let config = Config { cluster, timing: Timing::DEFAULT, preempt: Preempt::Graceful, planted };
        let identity = BootIdentity { id: BootId([1; 16]), keys: ClusterKeys::new(&[2; 32]), seed: 3 };
        let now = Moment(1_000_000);
        Ok(Alone { log: Bully::new(&config, identity, recovered, now)?, now, taken: Vec::new() })
    }

    /// Polls all events and lets the journal do its tasks, until nothing more happens. Returns the events for
    /// a node.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let mut written = None;
            while let Some(event) = self.log.poll(self.now) {
                match event {
                    Event::Effect(Effect::Journal { number, .. }) => written = Some(number),
                    Event::Effect(_) => {}
                    Event::Committed(upto) => {
                        let applied = |taken: &[Committed]| taken.last().map_or(Op::ZERO, |last| last.op);
                        while let Some(next) = self.log.take(applied(&self.taken)) {
                            self.taken.push(next);
                        }
                        assert_eq!(applied(&self.taken), upto);
                    }
                    event => events.push(event),
                }
            }
            let Some(number) = written else { return events };
            self.log.handle(self.now, Input::Journaled(number));
        }
    }

    /// Advances to the next deadline.
    fn turn(&mut self) -> Vec<Event> {
        self.now = self.log.next_deadline();
        self.log.advance(self.now);
        let mut events = self.events();
        self.log.flush(self.now);
        events.append(&mut self.events());
        events
    }

    /// Advances until it takes proposals.
    fn lead(&mut self) -> Vec<Event> {
        let mut events = self.events();
        for _ in 0..1_000 {
            if self.log.status().accepts {
                return events;
            }
            events.append(&mut self.turn());
        }
        panic!("it does not lead");
    }
}

fn recovered(entries: Vec<Entry>) -> Recovered {
    let meta = Meta { incarnation: Incarnation(1), ..Meta::new(ClusterId(7), ME, [ME]) };
    Recovered { meta, snapshot: None, entries, commit: Op::ZERO, lost: None }
}

fn entry(op: u64) -> Entry {
    Entry { op: Op(op), view: View::new(1, ME), kind: EntryKind::Command, payload: vec![op as u8].into() }
}

#[test]
fn a_ticket_comes_back_with_the_op_of_its_proposal_and_with_no_other() {
    let mut alone = Alone::new(recovered(vec![entry(1)])).unwrap();
    let events = alone.lead();
    assert_eq!(events, [Event::Active(alone.log.status().active)]);
    let committed = |op, payload, ticket| Committed { op: Op(op), payload, ticket };
    // A command of an earlier boot, and the engine's own entry.
    let before = [committed(1, vec![1].into(), None), committed(2, Arc::default(), None)];
    assert_eq!(std::mem::take(&mut alone.taken)[..], before);
    alone.taken.push(before[1].clone());

    let payloads = [vec![3_u8], vec![4, 4]].map(Arc::<[u8]>::from);
    let tickets = payloads.clone().map(|payload| alone.log.propose(payload).unwrap());
    assert!(tickets[0] < tickets[1]);
    assert_eq!((alone.log.status().commit, alone.log.status().last), (Op(2), Op(4)), "not before a flush");
    let [payload, other] = payloads;
    assert_eq!(alone.turn(), []);
    let expected = [committed(3, payload, Some(tickets[0])), committed(4, other, Some(tickets[1]))];
    assert_eq!(alone.taken[1..], expected);
}

#[test]
fn a_log_that_stops_takes_no_more_proposals_and_says_so() {
    let mut alone = Alone::new(recovered(Vec::new())).unwrap();
    assert_eq!(alone.log.propose(vec![1].into()), None, "it does not lead yet");
    alone.lead();
    alone.log.stop();
    assert_eq!(alone.events(), [Event::Stopped]);
    assert_eq!((alone.log.propose(vec![1].into()), alone.log.status().accepts), (None, false));
}

#[test]
fn a_hole_in_what_the_journal_recovered_is_refused() {
    assert_eq!(Alone::new(recovered(vec![entry(1), entry(3)])).err(), Some(Hole(Op(2))));
    assert_eq!(Alone::new(recovered(vec![entry(2)])).err(), Some(Hole(Op(1))));
}
