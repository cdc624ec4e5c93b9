//! The stream of a session: its pages, and the cursor of its device.

use super::*;

#[test]
fn a_page_has_as_many_bytes_as_requested_and_at_least_one_notification() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    let sent: Vec<Op> = (0..3).map(|_| log.send(alice, inbox("bob")).unwrap()).collect();
    let one = log.service.state.topics.get(&inbox("bob")).unwrap().bytes as usize / 3;
    let cursor = log.service.session(bob).unwrap().cursor;
    for (bytes, fit) in [(0, 1), (2 * one - 1, 1), (2 * one, 2), (3 * one - 1, 2), (3 * one, 3)] {
        let page = log.service.page(bob, cursor, 10, bytes);
        let told = (ops(&page.notifications), page.more);
        assert_eq!(told, (sent[..fit].to_vec(), fit < 3), "{bytes} bytes");
    }
}

#[test]
fn the_next_page_reports_a_loss_whatever_follows_it_and_nothing_of_other_topics_is_skipped() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    let kept = log.send(alice, inbox("bob")).unwrap();
    let lost = log.send(alice, feed("alice")).unwrap();
    log.apply(Command::Trim { topic: feed("alice"), upto: lost });
    let page = |log: &Log, after| {
        let page = log.service.page(bob, after, 10, 1 << 20);
        (page.gap, ops(&page.notifications), page.more)
    };
    assert_eq!(page(&log, kept.prev()), (None, vec![kept], true));
    assert_eq!(page(&log, kept), (Some(lost), vec![], false));
    let next = log.send(alice, inbox("bob")).unwrap();
    assert_eq!(page(&log, kept.prev()), (None, vec![kept], true));
    assert_eq!(page(&log, kept), (Some(lost), vec![next], false));
}

#[test]
fn a_page_from_the_beginning_of_the_log_reports_no_loss_where_there_was_none() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    assert_eq!(log.service.page(alice, Op::ZERO, 10, 1 << 20), Page::default());
}

#[test]
fn a_cursor_moves_forward_within_the_log_and_stays_where_it_was_for_any_other() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let born = log.service.session(session).unwrap().cursor;
    log.send(session, inbox("alice")).unwrap();
    log.apply(Command::Cursors(vec![(session, Op(1 << 40))]));
    assert_eq!(log.service.session(session).unwrap().cursor, born, "beyond the end is nowhere");
    let end = log.service.applied();
    log.apply(Command::Cursors(vec![(session, end)]));
    log.apply(Command::Cursors(vec![(session, born)]));
    assert_eq!(log.service.session(session).unwrap().cursor, end);
}

#[test]
fn a_cursor_moves_to_the_last_op_of_the_log_and_not_to_the_one_after_it() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    // The command that moves it is the last op itself.
    let last = log.service.applied().next();
    log.apply(Command::Cursors(vec![(session, last)]));
    assert_eq!(log.service.session(session).unwrap().cursor, last);
    let beyond = last.next().next();
    log.apply(Command::Cursors(vec![(session, beyond)]));
    assert_eq!(log.service.session(session).unwrap().cursor, last);
}

#[test]
fn a_page_holds_as_many_notifications_as_it_is_asked_for_and_says_whether_more_follow() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    let before = log.service.applied();
    let sent: Vec<Op> = (0..3).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let page = log.service.page(bob, before, 2, 1 << 20);
    assert_eq!((ops(&page.notifications), page.more), (sent[..2].to_vec(), true));
    let page = log.service.page(bob, before, 3, 1 << 20);
    assert_eq!((ops(&page.notifications), page.more), (sent, false));
}
