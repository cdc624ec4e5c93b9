//! The stream of a session: pages, what is in flight, and what is sent again.

use super::*;

#[test]
fn each_notification_names_the_one_before_it_in_its_stream() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    assert_eq!(play.pages, vec![(Op(10), 256)]);
    play.page(10, vec![notification(12, 10), notification(20, 10)], false);
    play.applied(31);
    assert_eq!(play.stream(), vec![(10, 12), (12, 20), (20, 31)]);
}

#[test]
fn what_is_applied_while_a_page_is_awaited_comes_once() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.applied(12);
    assert_eq!(play.stream(), vec![]);
    play.page(10, vec![notification(12, 10)], false);
    play.applied(12);
    assert_eq!(play.stream(), vec![(10, 12)]);
}

#[test]
fn a_page_nobody_waits_for_is_ignored() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.page(9, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![]);
    play.page(10, Vec::new(), false);
    play.page(10, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![], "live: what comes now is applied");
}

#[test]
fn a_page_that_does_not_come_is_asked_for_again() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.pass(Duration::from_millis(1_100));
    assert_eq!(play.pages, vec![(Op(10), 256), (Op(10), 256)]);
}

#[test]
fn dropped_applied_notifications_are_asked_for_in_pages() {
    let mut play = Play::new();
    play.live(10, 256);
    play.applied(12);
    play.pages.clear();
    play.input(Input::AppliedDropped);
    assert_eq!(play.pages, vec![(Op(12), 256)]);
    play.applied(30);
    play.page(12, vec![notification(20, 10), notification(30, 10)], false);
    assert_eq!(play.stream(), vec![(10, 12), (12, 20), (20, 30)]);
}

#[test]
fn no_more_is_in_flight_than_the_client_gives_credit_for() {
    let mut play = Play::new();
    play.live(10, 2);
    (11..=20).for_each(|op| play.applied(op));
    assert_eq!(play.stream(), vec![(10, 11), (11, 12)]);
    play.ack(12, &[], 3);
    assert_eq!(play.stream(), vec![(12, 13), (13, 14), (14, 15)]);
    play.ack(15, &[], 0);
    play.pass(Duration::from_secs(5));
    assert_eq!(play.stream(), vec![], "no credit, nothing sent");
    assert_eq!(play.cursors, vec![Op(12), Op(15)]);
}

#[test]
fn a_queue_that_is_full_drops_its_tail_and_pages_later() {
    let mut play = Play::new();
    play.live(0, 1);
    play.pages.clear();
    (1..=1_000).for_each(|op| play.applied(op));
    assert!(play.pages.is_empty(), "there is no room for a page");
    play.ack(300, &[], 1);
    assert_eq!(play.pages, vec![(Op(512), 256)], "it goes on where the queue ended");
}

#[test]
fn small_notifications_share_datagrams_and_large_ones_do_not_crowd_each_other_out() {
    let mut play = Play::new();
    play.heard();
    play.serve(0, 256);
    play.page(0, (1..=8).map(|op| notification(op, 10)).collect(), false);
    assert_eq!(play.sent.len(), 1);
    assert_eq!(play.stream().len(), 8);
    let mut play = Play::new();
    play.heard();
    play.serve(0, 256);
    play.page(0, (1..=8).map(|op| notification(op, 2_000)).collect(), false);
    let pieces = play.sent.iter().flat_map(|(_, opened)| &opened.packets);
    let ids: BTreeSet<u64> = pieces
        .filter_map(|packet| match packet {
            ToClient::Fragment(piece) => Some(piece.first),
            _ => None,
        })
        .collect();
    assert!((1..=4).contains(&ids.len()), "{} large ones in flight", ids.len());
}

#[test]
fn a_large_notification_sent_again_completes_what_arrived_of_it() {
    let mut play = Play::new();
    play.live(0, 1);
    play.sent.clear();
    let notification = notification(1, 5_000);
    play.input(Input::Applied { notification, sessions: [SESSION].into() });
    let once = play.pieces();
    play.pass(Duration::from_millis(250));
    let again = play.pieces();
    assert_eq!((once.len(), again.len()), (5, 5), "nothing was acknowledged");
    let mut reassembler = Reassembler::default();
    let arrived = once.into_iter().skip(1).chain(again.into_iter().take(4));
    let whole = arrived.filter_map(|piece| reassembler.accept(Moment(0), piece).unwrap()).next();
    let Some(ToClient::Delivered(delivered)) = whole else { panic!("{whole:?}") };
    assert_eq!(delivered.item.op(), Op(1));
}

#[test]
fn a_notification_is_large_by_its_encoding_whatever_part_makes_it_so() {
    let mut play = Play::new();
    play.live(0, 1);
    play.sent.clear();
    let mut notification = Arc::unwrap_or_clone(notification(1, 800).notification().unwrap());
    notification.options = OptionalFields(vec![OptionalField { tag: 0, bytes: vec![7; 500] }]);
    let notification = Stored::new(&notification);
    play.input(Input::Applied { notification, sessions: [SESSION].into() });
    let first_of = |pieces: Vec<Fragment>| pieces.iter().map(|piece| piece.first).collect::<Vec<u64>>();
    let once = first_of(play.pieces());
    play.pass(Duration::from_millis(250));
    assert_eq!(once.len(), 2);
    assert_eq!(first_of(play.pieces()), once, "the fragments of both transmissions complete each other");
}

#[test]
fn what_is_lost_is_sent_again_and_what_is_held_is_not() {
    let mut play = Play::new();
    play.live(0, 256);
    (1..=3).for_each(|op| play.applied(op));
    assert_eq!(play.stream().len(), 3);
    play.input(Input::ClientAck(
        SESSION,
        ClientAck { upto: Position::of(Op(0)), held: vec![Op(2), Op(3)], credit: 256 },
    ));
    play.pass(Duration::from_secs(3));
    let again = play.stream();
    assert!(!again.is_empty());
    assert!(again.iter().all(|step| *step == (0, 1)), "{again:?}");
}

#[test]
fn the_oldest_is_sent_again_now_and_then_to_a_client_that_says_nothing() {
    let mut play = Play::new();
    play.live(0, 256);
    (1..=3).for_each(|op| play.applied(op));
    play.heard();
    play.stream();
    play.input(Input::ClientAck(
        SESSION,
        ClientAck { upto: Position::of(Op(0)), held: vec![Op(1), Op(2), Op(3)], credit: 256 },
    ));
    play.pass(Duration::from_secs(1));
    let again = play.stream();
    assert!(!again.is_empty(), "its answer replaces an ack that was lost");
    assert!(again.iter().all(|step| *step == (0, 1)), "{again:?}");
}

#[test]
fn a_gap_is_told_in_the_stream() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    let page = Page { gap: Some(Op(40)), notifications: vec![notification(41, 10)], more: false };
    play.input(Input::Page { session: SESSION, after: Op(10), page });
    assert_eq!(play.stream(), vec![(10, 40), (40, 41)]);
}

#[test]
fn a_page_that_has_no_room_with_its_gap_is_asked_for_again_from_where_it_was_cut() {
    let mut play = Play::new();
    play.live(0, 1);
    (1..=512).for_each(|op| play.applied(op));
    play.applied(513);
    play.pages.clear();
    play.ack(200, &[], 1);
    assert_eq!(play.pages, vec![(Op(512), 200)], "as many as there are places");
    let notifications = (601..=800).map(|op| notification(op, 10)).collect();
    let page = Page { gap: Some(Op(600)), notifications, more: false };
    play.input(Input::Page { session: SESSION, after: Op(512), page });
    // The gap took a place too, so the last notification has none; the next applied one does not follow the
    // tail.
    play.pages.clear();
    play.sent.clear();
    play.ack(798, &[], 256);
    play.applied(801);
    assert_eq!(play.pages, vec![(Op(799), 256)]);
    play.page(799, vec![notification(800, 10), notification(801, 10)], false);
    assert_eq!(play.stream(), vec![(798, 799), (799, 800), (800, 801)]);
}

#[test]
fn a_page_that_costs_too_much_now_is_asked_for_again_when_it_can_be_had() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    assert_eq!(play.pages, vec![(Op(10), 256)]);
    play.input(Input::PageLater { session: SESSION, after: Op(10), wait: Duration::from_millis(40) });
    play.pass(Duration::from_millis(39));
    assert_eq!(play.pages.len(), 1);
    play.pass(Duration::from_millis(2));
    assert_eq!(play.pages, vec![(Op(10), 256); 2]);
    play.page(10, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![(10, 12)]);
}

#[test]
fn an_ack_from_beyond_the_queue_moves_the_stream_there() {
    let mut play = Play::new();
    play.heard();
    play.serve(10, 256);
    play.ack(50, &[], 256);
    play.page(10, vec![notification(12, 10)], false);
    assert_eq!(play.stream(), vec![]);
    assert_eq!(play.pages.last(), Some(&(Op(50), 256)));
    play.ack(20, &[], 256);
    assert_eq!(play.cursors, vec![Op(50)], "an old ack moves nothing back");
}

#[test]
fn a_silent_client_costs_no_queue_and_goes_on_at_its_cursor_when_it_is_back() {
    let mut play = Play::new();
    play.live(0, 256);
    play.applied(1);
    play.pass(Duration::from_secs(90));
    play.applied(2);
    play.stream();
    play.pages.clear();
    play.heard();
    assert_eq!(play.pages, vec![(Op(0), 256)]);
    play.page(0, vec![notification(1, 10), notification(2, 10)], false);
    assert_eq!(play.stream(), vec![(0, 1), (1, 2)]);
}

#[test]
fn a_server_that_is_no_primary_streams_nothing() {
    let mut play = Play::new();
    play.live(0, 256);
    play.input(Input::Silence);
    play.applied(1);
    play.pass(Duration::from_secs(5));
    assert_eq!(play.stream(), vec![]);
}

#[test]
fn what_may_no_longer_be_read_is_not_sent_from_the_queue() {
    let mut play = Play::new();
    play.live(5, 1);
    play.applied(7);
    play.applied(8);
    play.applied(9);
    assert_eq!(play.stream(), [(5, 7)], "the others wait for credit");
    play.pages.clear();
    play.input(Input::Withdrawn(vec![SESSION]));
    assert_eq!(play.pages.iter().map(|(after, _)| *after).collect::<Vec<_>>(), [Op(5)]);
    play.page(5, vec![notification(7, 10), notification(9, 10)], false);
    play.ack(7, &[], 10);
    assert!(play.stream().contains(&(7, 9)), "and what follows is joined to what it may read");
    play.pass(Duration::from_secs(20));
    assert!(play.stream().iter().all(|(_, op)| *op != 8));
}

#[test]
fn a_text_that_was_retracted_is_not_sent_from_the_queue() {
    let mut play = Play::new();
    play.live(5, 1);
    (7..=9).for_each(|op| play.applied(op));
    assert_eq!(play.stream(), [(5, 7)], "the others wait for credit");
    play.pages.clear();
    let retracted = |op| Input::Retracted { op: Op(op), sessions: vec![SESSION] };
    play.input(retracted(6));
    assert_eq!(play.pages, [], "it is not there");
    play.input(retracted(8));
    assert_eq!(play.pages.iter().map(|(after, _)| *after).collect::<Vec<_>>(), [Op(5)]);
}
