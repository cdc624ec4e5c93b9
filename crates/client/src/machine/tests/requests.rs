//! Numbered requests: sent again until they are answered, no faster than the servers take them.

use super::*;

#[test]
fn a_request_is_sent_again_until_it_is_answered_and_answered_once() {
    let mut play = Play::new();
    play.connect();
    play.input(say("hello"));
    play.pass(3_000);
    assert!(play.sends().len() > 2);
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.from(3, 1, 3, ack.clone());
    play.from(3, 1, 3, ack);
    let answered = play.events.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
    assert_eq!(answered, 1);
    play.sent.clear();
    play.pass(3_000);
    assert!(play.sends().is_empty());
}

#[test]
fn requests_that_a_datagram_does_not_hold_search_for_longer_datagrams_and_few_do_not() {
    for (requests, searches) in [(3, false), (30, true)] {
        let mut play = Play::new();
        play.connect();
        let (mut effects, text) = (Vec::new(), "x".repeat(128));
        for _ in 0..requests {
            play.machine.handle(play.now, say(&text), &mut effects);
        }
        play.note(effects);
        play.flush();
        let probes = play.sent_to(3, |packet| *packet == ToServer::Ping);
        assert_eq!(probes > 0, searches, "{requests} requests");
    }
}

#[test]
fn a_refusal_that_passes_takes_no_number_and_is_tried_again() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    let busy = Refused::new(Code::Busy, Answers::Request(Seq(5)), 50);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.pass(40);
    assert_eq!(play.sends(), vec![]);
    play.pass(30);
    assert_eq!(play.sends(), vec![(3, 5)]);
    let gone = Refused::new(Code::UnknownProfile, Answers::Request(Seq(5)), 0);
    play.from(3, 1, 3, ToClient::Error(gone));
    assert!(play.events.contains(&Event::Answered { seq: Seq(5), result: Err(Code::UnknownProfile) }));
}

/// The requests that were answered, with their results.
fn answered(play: &Play) -> Vec<(Seq, Result<Op, Code>)> {
    let answer = |event: &Event| match event {
        Event::Answered { seq, result } => Some((*seq, *result)),
        _ => None,
    };
    play.events.iter().filter_map(answer).collect()
}

/// A later version may have codes that this one does not know.
#[test]
fn a_refusal_with_an_unknown_code_passes_if_it_says_when_to_ask_again_and_is_final_otherwise() {
    let code = Code::Unknown(300);
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    play.from(3, 1, 3, ToClient::Error(Refused::new(code, Answers::Request(Seq(5)), 50)));
    play.until(|play| !play.sends().is_empty());
    assert_eq!(play.sends(), vec![(3, 5)]);
    assert_eq!(answered(&play), []);
    play.from(3, 1, 3, ToClient::Error(Refused::new(code, Answers::Request(Seq(5)), 0)));
    assert_eq!(answered(&play), [(Seq(5), Err(code))]);
    play.sent.clear();
    play.pass(3_000);
    assert_eq!(play.sends(), vec![]);
}

/// What a later version sends beside its answers takes nothing away from them.
#[test]
fn an_extension_is_stepped_over_and_the_answer_after_it_is_taken() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let extension = packet::Extension { kind: 300, answers: None, bytes: vec![1, 2] };
    play.from(3, 1, 3, ToClient::Extension(extension));
    play.from(3, 1, 3, ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE }));
    assert_eq!(answered(&play), [(Seq(5), Ok(Op(11)))]);
}

#[test]
fn the_257th_request_without_an_answer_is_not_taken() {
    let mut play = Play::new();
    play.connect();
    for _ in 0..256 {
        assert!(play.machine.has_room());
        play.input(say("x"));
    }
    assert!(!play.events.contains(&Event::NotTaken));
    assert!(!play.machine.has_room());
    play.input(say("x"));
    assert!(play.events.contains(&Event::NotTaken));
}

#[test]
fn a_server_that_refuses_all_requests_gets_one_until_it_accepts_it() {
    let mut play = Play::new();
    play.connect();
    (0..20).for_each(|_| play.input(say("x")));
    for seq in 5..25 {
        let busy = Refused::new(Code::NoQuorum, Answers::Request(Seq(seq)), 50);
        play.from(3, 1, 3, ToClient::Error(busy));
    }
    play.sent.clear();
    play.pass(65);
    assert_eq!(play.sends(), vec![(3, 5)]);
    for seq in 5..24 {
        play.from(
            3,
            1,
            3,
            ToClient::SendAck(SendAck { seq: Seq(seq), op: Op(11), data: OptionalFields::NONE }),
        );
        let gone: Vec<u64> = play.sends().into_iter().map(|(_, seq)| seq).collect();
        assert_eq!(gone, (5..=(2 * seq - 3).min(24)).collect::<Vec<_>>(), "two more for each answer");
    }
}

/// A budget of one request each `every`, and of `burst` at once.
struct Budget {
    every: Duration,
    burst: u32,
    /// The time at which it is whole again.
    whole: Moment,
}

impl Budget {
    /// Takes one, or tells the time until there is one.
    fn take(&mut self, now: Moment) -> Result<(), Duration> {
        let whole = self.whole.max(now);
        let wait = whole.since(now).saturating_sub(self.every * (self.burst - 1));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.whole = whole + self.every;
        Ok(())
    }
}

/// The primary answers as much as the budget allows and refuses the rest, until every request asked before is
/// answered. Returns how often it was asked, and how long that took.
fn play_budget(play: &mut Play, mut budget: Budget) -> (usize, Duration) {
    let (began, mut asked) = (play.now, 0);
    while !play.machine.outbox.is_empty() || !play.machine.queries.is_empty() {
        assert!(asked < 10_000 && play.now.since(began) < Duration::from_secs(60), "asked {asked} times");
        for (to, packet) in std::mem::take(&mut play.sent) {
            let (answers, answer) = match packet {
                ToServer::Send(Send { seq, .. }) => (
                    Answers::Request(seq),
                    ToClient::SendAck(SendAck { seq, op: Op(11), data: OptionalFields::NONE }),
                ),
                ToServer::Query(packet::Query { id, kind: QueryKind::List(_), .. }) => {
                    (Answers::Query(id), empty_page(id.0))
                }
                ToServer::Keepalive(_) if to == 3 => {
                    let _ = budget.take(play.now);
                    continue;
                }
                _ => continue,
            };
            asked += 1;
            let answer = budget.take(play.now).map_or_else(
                |wait| {
                    let retry_ms = (wait.as_millis() as u32).max(1);
                    ToClient::Error(Refused::new(Code::Busy, answers, retry_ms))
                },
                |()| answer,
            );
            play.from(3, 1, 3, answer);
        }
        play.pass(1);
    }
    (asked, play.now.since(began))
}

#[test]
fn what_waits_goes_on_at_the_rate_of_the_budget_and_is_seldom_refused() {
    let query = |id| Input::Query(QueryId(id), Query::List { what: Listing::People, after: None });
    let inputs: [fn(u64) -> Input; 2] = [|_| say("x"), query];
    for input in inputs {
        for per_s in [20, 200] {
            let mut play = Play::new();
            play.connect();
            (0..64).for_each(|number| play.input(input(number)));
            let budget = Budget { every: Duration::from_secs(1) / per_s, burst: 4, whole: Moment(0) };
            let (asked, took) = play_budget(&mut play, budget);
            assert!(took <= Duration::from_secs(60 * 3 / 2) / per_s, "{took:?} at {per_s} a second");
            assert!(asked <= 4 * 64, "asked {asked} times for 64 answers at {per_s} a second");
        }
    }
}

#[test]
fn a_number_that_another_request_has_is_an_answer_too() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let refused = |code, seq| ToClient::Error(Refused::new(code, Answers::Request(Seq(seq)), 40));
    for _ in 0..4 {
        play.from(3, 1, 3, refused(Code::Busy, 5));
        while play.machine.backoff.waits(play.now) {
            play.pass(1);
        }
    }
    play.from(3, 1, 3, refused(Code::NumberTaken, 5));
    play.from(3, 1, 3, refused(Code::Busy, 6));
    play.sent.clear();
    play.pass(55);
    assert_eq!(play.sends(), vec![(3, 6)], "it waits no longer than it is told");
}

#[test]
fn a_primary_that_sent_retry_ms_is_not_searched_for_before_it_has_passed() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let busy = Refused::new(Code::Busy, Answers::Request(Seq(5)), 800);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.pass(790);
    assert!(!play.events.contains(&Event::Searching));
    play.pass(800);
    assert!(play.events.contains(&Event::Searching), "then it owes an answer");
}

#[test]
fn a_server_that_accepts_fewer_requests_at_once_gets_no_more() {
    let mut play = Play::new();
    play.connect();
    (0..20).for_each(|_| play.input(say("x")));
    for seq in 13..25 {
        let far = Refused::new(Code::TooFarAhead, Answers::Request(Seq(seq)), 50);
        play.from(3, 1, 3, ToClient::Error(far));
    }
    play.sent.clear();
    play.pass(2_000);
    assert!(play.sends().iter().all(|(_, seq)| *seq < 13), "{:?}", play.sends());
}

/// A client whose link to the primary has room for one byte.
fn almost_full() -> Play {
    let mut play = Play::new();
    play.connect();
    play.pass(400);
    let room = |play: &Play| play.machine.servers.room(address(3));
    let before = room(&play);
    play.input(say(&"x".repeat(400)));
    let overhead = before - room(&play) - 400;
    while room(&play) > 1 {
        let left = room(&play) - 1;
        let length = if left <= 1_000 { left } else { 500 };
        play.input(say(&"x".repeat(length - overhead)));
    }
    assert_eq!(room(&play), 1);
    play.sent.clear();
    play
}

#[test]
fn a_link_takes_a_request_as_long_as_a_byte_of_its_window_is_free_and_then_none_before_an_ack() {
    let mut play = almost_full();
    play.input(say("fits"));
    play.input(say("waits"));
    assert_eq!(play.sends().len(), 1);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    assert_eq!(play.sends().len(), 2);
}

#[test]
fn a_request_that_is_refused_goes_again_on_time_with_a_byte_of_room() {
    let mut play = almost_full();
    // The word that asks to wait acknowledges nothing.
    play.servers_by_id.get_mut(&3).unwrap().heard.clear();
    let busy = Refused::new(Code::Busy, Answers::Request(Seq(5)), 40);
    play.from(3, 1, 3, ToClient::Error(busy));
    let waited = play.until(|play| !play.sends().is_empty());
    assert!(about(40).contains(&waited), "{waited:?}");
}

#[test]
fn a_request_that_is_lost_goes_again_after_the_time_out_of_the_link() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    // As long as nobody knows how long a round trip is.
    assert_eq!(play.until(|play| play.sends().len() == 2), Duration::from_millis(200));
    let waited = play.until(|play| play.sends().len() == 3);
    assert!(waited > Duration::from_millis(200) && waited <= Duration::from_secs(1), "{waited:?}");
    // What is answered after 10 ms is lost after three times as long.
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.pass(10);
    play.from(3, 1, 3, ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE }));
    play.input(say("two"));
    assert_eq!(play.until(|play| play.sends().len() == 3), Duration::from_millis(30));
}

#[test]
fn the_oldest_request_that_is_too_far_ahead_is_resent_after_retry_ms() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    let far = Refused::new(Code::TooFarAhead, Answers::Request(Seq(5)), 50);
    play.from(3, 1, 3, ToClient::Error(far));
    assert_eq!(play.until(|play| !play.sends().is_empty()), Duration::from_millis(50));
}
