//! The places of a server for sessions: whose gives way, and what it is told.

use super::*;

/// A delivery with few places, and clients in several networks.
struct Crowd {
    now: Moment,
    delivery: Delivery,
    out: Vec<Effect>,
}

const PLACES: u64 = 8;

impl Crowd {
    fn new() -> Crowd {
        let mut config = config();
        config.limits.sessions_served = PLACES as usize;
        let delivery = Delivery::new(&config, Incarnation(1), [1; 32]);
        let mut crowd = Crowd { now: Moment(1_000_000), delivery, out: Vec::new() };
        crowd.input(Input::Announce(coordinator(1)));
        crowd
    }

    fn input(&mut self, input: Input) {
        self.out.clear();
        self.delivery.handle(self.now, input, &mut self.out);
        self.delivery.flush(self.now, &mut self.out);
    }

    /// A datagram of a session from a network; its client answers if it is challenged.
    fn hear(&mut self, session: u64, network: u8, number: u64) {
        let (session, from) = (SessionId(Op(session)), ([10, 0, network, session as u8], 4_000).into());
        self.input(Input::DatagramReceived { session, from, number, ack: None, length: LONG, keys: keys() });
        // The answer to a displaced session may precede the challenge.
        let challenge = self.packets().into_iter().find_map(|packet| match packet {
            ToClient::PathChallenge(token) => Some(token),
            _ => None,
        });
        if let Some(token) = challenge {
            self.input(Input::PathResponse { session, from, token });
        }
    }

    fn serve(&mut self, session: u64, network: u8) {
        self.hear(session, network, 1);
        let session = SessionId(Op(session));
        self.input(Input::Serve { session, cursor: Op(5), credit: Some(8) });
        assert!(self.serves(session.0.0));
    }

    fn packets(&self) -> Vec<ToClient> {
        let datagram = |effect: &Effect| match effect {
            Effect::Datagram { bytes, .. } => Some(envelope::open(&mut keys(), bytes).unwrap().packets),
            _ => None,
        };
        self.out.iter().filter_map(datagram).flatten().collect()
    }

    /// Returns true if a client was sent Busy.
    fn turned_away(&self) -> bool {
        let told =
            |packet: &ToClient| matches!(packet, ToClient::Error(refused) if refused.code == Code::Busy);
        self.packets().iter().any(told)
    }

    fn refused(&self) -> bool {
        self.out.contains(&Effect::Refused(RefusedDatagram::QueueFull))
    }

    fn knows(&self, session: u64) -> bool {
        self.delivery.sessions.contains_key(&SessionId(Op(session)))
    }

    fn serves(&self, session: u64) -> bool {
        self.delivery.sessions.get(&SessionId(Op(session))).is_some_and(Session::is_served)
    }
}

#[test]
fn a_network_that_takes_every_place_shuts_nobody_else_out() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(1);
    crowd.hear(100, 2, 1);
    assert!(!crowd.refused() && crowd.knows(100), "a newcomer of another network gets in");
    crowd.serve(100, 2);
    // The flood continues, with old and new sessions, and the newcomer stays.
    for session in 1..=3 * PLACES {
        crowd.hear(session, 1, 2);
        assert!(crowd.serves(100), "session {session} has pushed it out");
    }
    assert_eq!(crowd.delivery.sessions.len(), PLACES as usize);
    // Other networks get their share, down to an even one.
    for network in 3..PLACES as u8 {
        crowd.serve(100 + u64::from(network), network);
    }
    assert!((3..PLACES).all(|network| crowd.serves(100 + network)) && crowd.serves(100));
}

#[test]
fn one_that_lost_its_place_is_told_then_and_when_it_speaks_again() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(2);
    (2..=PLACES).for_each(|session| crowd.hear(session, 1, 2));
    crowd.hear(100, 2, 1);
    assert!(!crowd.knows(1), "the one silent longest");
    // That ERROR may be lost: it is sent again once the client has sent for a second without resuming.
    crowd.input(Input::SessionEnded { session: SessionId(Op(100)), packets: Vec::new() });
    crowd.hear(1, 1, 3);
    assert!(crowd.knows(1) && !crowd.turned_away(), "it may be about to resume");
    crowd.now = crowd.now + Duration::from_secs(1);
    crowd.hear(1, 1, 4);
    assert!(crowd.turned_away());
    crowd.hear(1, 1, 5);
    assert!(!crowd.turned_away(), "once a second");
    crowd.input(Input::Serve { session: SessionId(Op(1)), cursor: Op(5), credit: Some(8) });
    crowd.now = crowd.now + Duration::from_secs(5);
    crowd.hear(1, 1, 6);
    assert!(!crowd.turned_away(), "it is served");
}

#[test]
fn a_session_that_a_new_primary_has_known_for_long_is_not_turned_away_when_it_resumes() {
    let mut crowd = Crowd::new();
    // Another server is primary; the client sends its keepalive to this one too.
    crowd.input(Input::Announce(Coordinator { view: View::new(2, NodeId(9)), ..coordinator(1) }));
    crowd.hear(1, 1, 1);
    crowd.now = crowd.now + Duration::from_secs(3);
    crowd.input(Input::Announce(Coordinator { view: View::new(3, ME), ..coordinator(1) }));
    crowd.hear(1, 1, 2);
    assert!(!crowd.turned_away(), "its RESUME is on its way to the node");
}

#[test]
fn a_session_that_loses_its_place_is_told_so() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(1);
    let from = ([10, 0, 2, 1], 4_000).into();
    let session = SessionId(Op(100));
    crowd.input(Input::DatagramReceived { session, from, number: 1, ack: None, length: LONG, keys: keys() });
    assert!(crowd.turned_away());
}

#[test]
fn a_newcomer_of_the_same_network_waits_while_all_are_served_and_here() {
    let mut crowd = Crowd::new();
    (1..=PLACES).for_each(|session| crowd.serve(session, 1));
    crowd.now = crowd.now + Duration::from_secs(1);
    crowd.hear(100, 1, 1);
    assert!(crowd.refused() && !crowd.knows(100));
    crowd.now = crowd.now + AWAY_AFTER;
    crowd.hear(100, 1, 2);
    assert!(crowd.knows(100), "all the others are away");
    assert_eq!(crowd.delivery.sessions.len(), PLACES as usize);
}

#[test]
fn addresses_that_nobody_answered_at_are_one_network_together() {
    let mut crowd = Crowd::new();
    crowd.serve(1, 1);
    crowd.now = crowd.now + Duration::from_secs(1);
    for session in 100..100 + 4 * PLACES {
        let (id, from) = (SessionId(Op(session)), ([10, 0, session as u8, 1], 4_000).into());
        crowd.input(Input::DatagramReceived {
            session: id,
            from,
            number: 1,
            ack: None,
            length: LONG,
            keys: keys(),
        });
        assert!(crowd.serves(1), "pushed out by {session}");
    }
    assert_eq!(crowd.delivery.sessions.len(), PLACES as usize);
    crowd.serve(2, 2);
    assert!(crowd.serves(1) && crowd.serves(2));
}
