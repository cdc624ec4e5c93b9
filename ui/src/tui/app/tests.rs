//! Tests of the state: events go in, effects and drawn screens come out.

use recado_client::{ClientError, Code, DeviceKey, FollowChange, HistoryRange, Listing, Op, Request, Topic};

use super::{App, Conversation, Effect, Event, Focus, Link, Popup};

mod doubts;
mod drafts;
mod elsewhere;
mod long_texts;
mod prose;
mod requests;

use crate::tui::event::RequestId;
use crate::tui::samples::{
    app, at, came, connected, content, enter, let_in, link, name, notification, opened, past, press, text,
    type_in,
};
use crate::tui::saved_state::Removed;
use crate::tui::settings::Desktop;
use crate::tui::theme::Theme;

fn topic(text: &str) -> Topic {
    Topic::to_follow(text).unwrap()
}

fn place(text: &str) -> Conversation {
    Conversation::Topic(topic(text))
}

fn request(effects: &[Effect]) -> Option<&Request> {
    effects.iter().find_map(|effect| match effect {
        Effect::Request(_, request) => Some(request),
        _ => None,
    })
}

fn send(topic: Option<Topic>, body: &str) -> Request {
    Request::Send { topic, content: content(body) }
}

fn shows(app: &mut App, what: &str) -> bool {
    text(app, 100, 30).contains(what)
}

fn shows_at(app: &mut App, (width, height): (u16, u16), what: &str) -> bool {
    text(app, width, height).contains(what)
}

#[test]
fn a_first_run_asks_for_a_name_until_there_is_a_free_one() {
    let mut app = app(None);
    assert_eq!(app.begin_effects(), [Effect::Watch(true)]);
    assert_eq!(enter(&mut app, "A B"), []);
    assert!(shows(&mut app, "Welcome"));
    // The help stands over it, and gives it back.
    press(&mut app, "F1");
    assert!(shows(&mut app, "Help") && !shows(&mut app, "Welcome"));
    press(&mut app, "Esc");
    assert!(shows(&mut app, "Welcome") && shows(&mut app, "A B"));
    press(&mut app, "F1");
    type_in(&mut app, "c");
    assert!(shows(&mut app, "A Bc"), "{}", text(&mut app, 100, 30));
    press(&mut app, "Ctrl+u");
    assert_eq!(enter(&mut app, "bob"), [Effect::Watch(false)]);
    assert!(
        shows(&mut app, "Be @bob?") && shows(&mut app, "If nobody has the name @bob yet, it becomes yours")
    );
    assert!(!shows(&mut app, "from now on"), "it is kept once a session is open");
    // A mistyped name is mended, and not claimed.
    assert_eq!(press(&mut app, "n"), [Effect::Watch(true)]);
    assert_eq!(enter(&mut app, "_"), []);
    assert!(shows(&mut app, "Welcome"), "a name does not end so");
    press(&mut app, "Backspace");
    press(&mut app, "Enter");
    assert_eq!(press(&mut app, "Enter"), [Effect::Open(name("bob"), None)]);
    link(&mut app, 1, opened(vec![]));
    link(&mut app, 1, Link::Ended(Box::new(ClientError::Ended(Code::NotYours))));
    let screen = text(&mut app, 100, 30).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        screen.contains("@alice belongs to another key here. If it is your name: `recado device add`"),
        "{screen}"
    );
    assert!(
        screen.contains("`recado device enrol CODE --as alice`. Otherwise take another name"),
        "{screen}"
    );
    assert!(!shows(&mut app, "Feeds"), "the places of the name go with it\n{}", text(&mut app, 100, 30));
    assert_eq!(enter(&mut app, "alice"), [Effect::Watch(false)]);
    assert_eq!(press(&mut app, "y"), [Effect::Open(name("alice"), None)]);
    link(&mut app, 2, opened(vec![]));
    let effects = link(&mut app, 2, let_in());
    assert!(effects.contains(&Effect::KeepProfile(name("alice"))), "{effects:?}");
    assert!(effects.contains(&Effect::List(Listing::Following)));
    assert!(!link(&mut app, 3, let_in()).contains(&Effect::KeepProfile(name("alice"))), "once");
}

#[test]
fn a_configured_name_of_another_key_tells_where_another_one_is_set() {
    let mut app = app(Some("alice"));
    app.config_path = "/home/alice/.config/recado/config.toml".to_owned();
    link(&mut app, 1, opened(vec![]));
    link(&mut app, 1, Link::Ended(Box::new(ClientError::Ended(Code::NotYours))));
    let screen = text(&mut app, 59, 30);
    let told = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("`recado device add` on a machine that has it"), "{screen}");
    assert!(told.contains("another name: `profile` in /home/alice/.config/recado/config.toml"), "{screen}");
}

#[test]
fn a_name_that_was_claimed_is_told_and_where_none_may_be_the_reason_is() {
    let mut app = app(Some("alcie"));
    app.begin_effects();
    link(&mut app, 1, opened(vec![]));
    link(&mut app, 1, let_in());
    link(&mut app, 1, Link::Claimed(false));
    assert!(!shows(&mut app, "claimed"));
    link(&mut app, 1, Link::Claimed(true));
    assert!(shows(&mut app, "claimed @alice: nobody had it"), "{}", text(&mut app, 100, 30));

    let mut app = crate::tui::samples::app(None);
    app.may_claim = false;
    assert!(enter(&mut app, "alcie").contains(&Effect::Open(name("alcie"), None)), "there is nothing to ask");
    let refused = || ClientError::NotClaimed { profile: name("alcie"), cluster: recado_client::ClusterId(7) };
    ended(&mut app, 2, refused());
    assert!(shows(&mut app, "Welcome") && shows(&mut app, "@alcie is no profile of this machine"));
    let mut app = crate::tui::samples::app(Some("alcie"));
    ended(&mut app, 2, refused());
    let screen = text(&mut app, 100, 30).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(screen.contains("claim = false in the configuration, forbids to claim it"), "{screen}");
}

fn ended(app: &mut App, second: u64, error: ClientError) -> Vec<Effect> {
    link(app, second, Link::Ended(Box::new(error)))
}

#[test]
fn a_new_name_that_needs_an_invitation_prompts_for_a_code_until_one_is_right() {
    for configured in [None, Some("alice")] {
        let mut app = app(configured);
        if configured.is_none() {
            enter(&mut app, "alice");
            press(&mut app, "Enter");
        }
        app.begin_effects();
        link(&mut app, 1, opened(vec![]));
        ended(&mut app, 1, ClientError::Ended(Code::InviteNeeded));
        assert!(shows(&mut app, "Invitation for @alice") && shows(&mut app, "code"));
        // An invalid code is not sent to a server.
        assert_eq!(enter(&mut app, "letmein"), []);
        assert!(shows(&mut app, "ten letters and digits"));
        press(&mut app, "Ctrl+u");
        assert_eq!(enter(&mut app, "7k3q9 o1wzp"), [Effect::Open(name("alice"), "7K3Q9-01WZP".parse().ok())]);
        assert!(!shows(&mut app, "Invitation"));
        link(&mut app, 2, opened(vec![]));
        ended(&mut app, 2, ClientError::Ended(Code::WrongInvite));
        let told = "7K3Q9-01WZP is mistyped, used up, expired, or for another name";
        assert!(shows(&mut app, told), "{}", text(&mut app, 100, 30));
        assert!(shows_at(&mut app, (40, 12), "or for another name"), "{}", text(&mut app, 40, 12));
        assert_eq!(enter(&mut app, "11111-22222"), [Effect::Open(name("alice"), "11111-22222".parse().ok())]);
        link(&mut app, 3, opened(vec![]));
        let effects = link(&mut app, 3, let_in());
        assert_eq!(effects.contains(&Effect::KeepProfile(name("alice"))), configured.is_none());
        assert!(!shows(&mut app, "a new session"), "it is the first");
        assert!(!shows(&mut app, "no session") && !shows(&mut app, "Invitation"));
    }
}

#[test]
fn a_user_without_a_code_can_connect_again_or_take_another_name_at_first() {
    let mut known = app(Some("alice"));
    known.begin_effects();
    link(&mut known, 1, opened(vec![]));
    ended(&mut known, 1, ClientError::Ended(Code::InviteNeeded));
    for key in ["F2", "Ctrl+p", "Tab", "F1 F2 F1", "F1 Ctrl+p Esc"] {
        key.split(' ').for_each(|key| drop(press(&mut known, key)));
        assert!(shows(&mut known, "Invitation for @alice"), "{key}");
    }
    assert_eq!(press(&mut known, "Esc"), []);
    assert!(shows(&mut known, "no session; /connect tries again"));
    assert!(shows(&mut known, "a new name needs an invitation code"), "{}", text(&mut known, 100, 30));
    assert_eq!(enter(&mut known, "/connect"), [Effect::Open(name("alice"), None)]);

    let mut first = app(None);
    enter(&mut first, "alice");
    press(&mut first, "Enter");
    link(&mut first, 1, opened(vec![]));
    ended(&mut first, 1, ClientError::Ended(Code::InviteNeeded));
    assert_eq!(press(&mut first, "Esc"), [Effect::Watch(true)]);
    assert!(shows(&mut first, "Welcome") && first.profile.is_none());
    enter(&mut first, "bob");
    assert_eq!(press(&mut first, "Enter"), [Effect::Open(name("bob"), None)]);
}

#[test]
fn a_key_that_must_be_allowed_is_shown_and_a_yes_connects_again() {
    let mut app = app(Some("alice"));
    app.begin_effects();
    let key: DeviceKey = "ab".repeat(32).parse().unwrap();
    let refused = || ClientError::KeyNotAllowed { profile: name("alice"), key };
    link(&mut app, 1, opened(vec![]));
    ended(&mut app, 1, refused());
    let command = format!("recadod admin allow {} --config FILE", key.in_full());
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("Not allowed yet") && screen.contains("recadod admin allow"), "{screen}");
    assert!(screen.contains(&key.in_full()), "{screen}");
    press(&mut app, "Tab");
    assert_eq!(press(&mut app, "Enter"), [Effect::Copy(command)]);
    // The key stays in the banner, however small the screen is.
    let banner: String = text(&mut app, 40, 12).split_whitespace().collect();
    assert!(banner.contains(&key.in_full()) && banner.contains("/connecttriesagain"), "{banner}");
    assert_eq!(enter(&mut app, "/connect"), [Effect::Open(name("alice"), None)]);
    link(&mut app, 2, opened(vec![]));
    ended(&mut app, 2, refused());
    assert_eq!(press(&mut app, "y"), [Effect::Open(name("alice"), None)]);
    assert!(!shows(&mut app, "no session"), "it is looked for");
    link(&mut app, 3, opened(vec![]));
    link(&mut app, 3, let_in());
    assert!(!shows(&mut app, "a new session"), "it is the first");
}

#[test]
fn a_text_goes_where_the_prompt_says() {
    let mut app = connected();
    for (here, target) in [
        (Conversation::All, None),
        (place("@alice"), None),
        (place("#ops"), Some(topic("#ops"))),
        (place("@bob"), Some(Topic::Inbox(name("bob")))),
    ] {
        app.go(here.clone());
        assert_eq!(request(&enter(&mut app, "hi")), Some(&send(target, "hi")), "{here:?}");
    }
    let inbox = Conversation::Topic(Topic::Inbox(name("alice")));
    app.go(inbox.clone());
    assert_eq!(request(&enter(&mut app, "hi")), None);
    assert!(shows(&mut app, "to whom?") && app.compose.text() == "hi");
    past(&mut app, inbox, vec![notification(5, &Topic::Inbox(name("alice")), "carol", "x")], false);
    assert_eq!(request(&press(&mut app, "Enter")), Some(&send(Some(Topic::Inbox(name("carol"))), "hi")));
}

#[test]
fn a_notification_to_an_inbox_shows_its_recipient_before_and_after_it_is_sent() {
    let mut app = connected();
    app.go(place("@bob"));
    assert!(shows(&mut app, "to @bob's inbox \u{276f} write here"), "{}", text(&mut app, 100, 30));
    enter(&mut app, "a private word");
    assert!(shows(&mut app, "to @bob  a private word  sending"), "{}", text(&mut app, 100, 30));
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("sent to @bob's inbox") && !screen.contains("a private word"), "{screen}");
    app.go(Conversation::All);
    assert!(shows(&mut app, "to @bob \u{2713}  a private word"), "{}", text(&mut app, 100, 30));
}

#[test]
fn a_notice_reports_what_was_sent_elsewhere_and_replaces_no_error() {
    let mut app = connected();
    app.go(place("#ops"));
    enter(&mut app, "/send one");
    assert!(shows(&mut app, "on its way to your followers"));
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert!(shows(&mut app, "sent to your followers"));
    enter(&mut app, "/send #zoo two");
    enter(&mut app, "/folow");
    link(&mut app, 2, Link::Settled(RequestId::Here(2), Ok(Op(51))));
    assert!(shows(&mut app, "there is no command"));
    enter(&mut app, "here");
    link(&mut app, 20, Link::Settled(RequestId::Here(3), Ok(Op(52))));
    assert!(!shows(&mut app, "sent to"), "it stands there");
}

#[test]
fn what_is_sent_is_marked_until_it_is_acknowledged_or_refused() {
    let mut app = connected();
    link(&mut app, 1, Link::Connection(recado_client::ConnectionEvent::Searching));
    enter(&mut app, "one");
    enter(&mut app, "two");
    assert!(shows(&mut app, "one  queued") && shows(&mut app, "2 to send"));
    link(&mut app, 2, let_in());
    assert!(shows(&mut app, "one  sending"));
    link(&mut app, 2, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert!(shows(&mut app, "@alice \u{2713}  one"), "{}", text(&mut app, 100, 30));
    // An echo of the notification, if one arrives, is the same notification.
    came(&mut app, 2, notification(50, &topic("@alice"), "alice", "one"));
    assert_eq!(text(&mut app, 100, 30).matches("one").count(), 1);
    link(&mut app, 3, Link::Settled(RequestId::Here(2), Err(Code::LimitReached)));
    assert!(shows(&mut app, "refused: a limit is reached"));
    assert!(!shows(&mut app, "to send"));
    enter(&mut app, "/clear");
    assert!(!shows(&mut app, "refused"));
}

#[test]
fn before_any_server_was_met_a_text_stays_in_the_line() {
    let mut app = app(Some("alice"));
    assert_eq!(request(&enter(&mut app, "early")), None);
    assert_eq!(app.compose.text(), "early");
    assert!(shows(&mut app, "connecting: before a server has answered"));
    link(&mut app, 1, opened(vec![]));
    assert!(!shows(&mut app, "before a server has answered"), "it is no longer so");
    assert_eq!(request(&press(&mut app, "Enter")), Some(&send(None, "early")));
    assert!(app.compose.is_empty());
}

#[test]
fn of_a_cluster_known_from_before_a_text_is_queued_from_the_start() {
    let mut app = app(Some("alice"));
    app.remembered = true;
    assert_eq!(request(&enter(&mut app, "early")), Some(&send(None, "early")));
    assert!(shows(&mut app, "early  queued") && shows(&mut app, "1 to send"));
    link(&mut app, 1, opened(vec![(RequestId::Recovered(1), send(None, "of before"))]));
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("2 to send"), "{screen}");
    assert!(screen.find("of before  queued") < screen.find("early  queued"), "{screen}");
    link(&mut app, 2, let_in());
    link(&mut app, 2, Link::Settled(RequestId::Recovered(1), Ok(Op(50))));
    link(&mut app, 2, Link::Settled(RequestId::Here(1), Ok(Op(51))));
    assert!(shows(&mut app, "early") && !shows(&mut app, "to send"));
}

#[test]
fn a_cluster_that_cannot_be_opened_after_all_takes_nothing() {
    let mut app = app(Some("alice"));
    app.remembered = true;
    link(&mut app, 1, Link::NoServer("no server answered".to_owned()));
    assert_eq!(request(&enter(&mut app, "early")), None);
    assert_eq!(app.compose.text(), "early");
}

#[test]
fn no_more_is_taken_than_the_disk_keeps() {
    let mut app = connected();
    for _ in 0..crate::tui::outbox::UNANSWERED_MAX {
        assert!(request(&enter(&mut app, "x")).is_some());
    }
    assert_eq!(request(&enter(&mut app, "too much")), None);
    assert_eq!(app.compose.text(), "too much");
}

#[test]
fn what_comes_elsewhere_is_unread_until_it_is_looked_at() {
    let mut app = connected();
    app.go(place("@bob"));
    came(&mut app, 1, notification(10, &topic("#ops"), "carol", "x"));
    came(&mut app, 1, notification(11, &topic("@bob"), "bob", "y"));
    assert_eq!((app.places.unread(&place("#ops")), app.places.unread(&place("@bob"))), (1, 0));
    press(&mut app, "Alt+Right");
    assert_eq!(app.here, place("#ops"));
    past(&mut app, place("#ops"), vec![notification(10, &topic("#ops"), "carol", "x")], false);
    assert_eq!(app.places.unread(&place("#ops")), 0);
    // Without the window's focus nobody sees the notification.
    app.update(at(2), Event::Focus(false));
    came(&mut app, 3, notification(12, &topic("#ops"), "carol", "z"));
    assert_eq!(app.places.unread(&place("#ops")), 1);
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("new since you looked"), "{screen}");
    app.update(at(4), Event::Focus(true));
    assert_eq!(app.places.unread(&place("#ops")), 0);
}

#[test]
fn a_key_clears_the_counts_of_what_is_shown_and_of_nothing_else() {
    let unread = |app: &App| ["#ops", "@bob"].map(|name| app.places.unread(&place(name)));
    let of = |op: u64| match op % 2 {
        0 => notification(op, &topic("#ops"), "carol", "x"),
        _ => notification(op, &topic("@bob"), "bob", "y"),
    };
    for key in ["x", "Tab", "End", "Right", "PgDn", "Enter"] {
        let mut app = connected();
        past(&mut app, Conversation::All, vec![], false);
        text(&mut app, 100, 30);
        (10..14).for_each(|op| drop(came(&mut app, 300, of(op))));
        assert_eq!(unread(&app), [2, 2], "nobody looked");
        press(&mut app, key);
        assert_eq!(unread(&app), [0, 0], "{key}");
        assert!(!shows(&mut app, "unread"));
    }
    // More than the screen shows, what a popup hides, and what is looked back from, is not seen.
    let mut app = connected();
    past(&mut app, Conversation::All, vec![], false);
    text(&mut app, 100, 30);
    (10..110).for_each(|op| drop(came(&mut app, 300, notification(op, &topic("#ops"), "carol", "x"))));
    came(&mut app, 300, of(111));
    press(&mut app, "F1");
    assert_eq!(unread(&app), [100, 1], "{}", text(&mut app, 100, 30));
    press(&mut app, "Esc");
    assert_eq!(unread(&app), [100, 0]);
    press(&mut app, "PgUp");
    (112..114).for_each(|op| drop(came(&mut app, 301, of(op))));
    press(&mut app, "PgUp");
    assert_eq!(unread(&app), [101, 1]);
    // A text that is sent shows the newest.
    app.go(place("#ops"));
    past(
        &mut app,
        place("#ops"),
        (1..110).map(|op| notification(op, &topic("#ops"), "carol", "x")).collect(),
        false,
    );
    app.update(at(302), Event::Tick);
    press(&mut app, "PgUp");
    came(&mut app, 302, notification(120, &topic("#ops"), "carol", "x"));
    assert_eq!(unread(&app)[0], 1);
    enter(&mut app, "here");
    assert_eq!(unread(&app)[0], 0);
}

#[test]
fn what_is_urgent_rings_unless_it_is_seen_or_muted_or_ones_own() {
    let mut app = connected();
    app.settings.desktop = Desktop::Osc9;
    let urgent = |op, author: &str| {
        let mut one = notification(op, &topic("#ops"), author, "x");
        one.content.priority = 5.try_into().unwrap();
        one
    };
    assert_eq!(came(&mut app, 1, urgent(10, "carol")), [], "seen");
    app.update(at(2), Event::Focus(false));
    let effects = came(&mut app, 3, urgent(11, "carol"));
    assert!(effects.contains(&Effect::Bell), "{effects:?}");
    assert!(effects.contains(&Effect::Desktop("@carol #ops".to_owned(), "x".to_owned())));
    assert_eq!(came(&mut app, 3, urgent(11, "carol")), [], "again after a crash");
    assert_eq!(came(&mut app, 3, urgent(12, "alice")), []);
    assert_eq!(came(&mut app, 3, notification(13, &topic("#ops"), "carol", "x")), [], "not urgent");
    enter(&mut app, "/mute #ops");
    app.update(at(4), Event::Focus(false));
    assert_eq!(came(&mut app, 5, urgent(14, "carol")), []);
}

#[test]
fn what_came_is_written_down_before_the_servers_run_out_of_credit() {
    let mut app = connected();
    app.update(at(2), Event::Tick);
    let kept = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Keep(_, upto) => Some(*upto),
            _ => None,
        })
    };
    for op in 10..10 + super::KEEP_EVERY as u64 - 1 {
        assert_eq!(kept(&came(&mut app, 2, notification(op, &topic("#ops"), "bob", "x"))), None);
    }
    let last = 10 + super::KEEP_EVERY as u64 - 1;
    assert_eq!(
        kept(&came(&mut app, 2, notification(last, &topic("#ops"), "bob", "x"))),
        Some(Some(Op(last)))
    );
    assert_eq!(kept(&came(&mut app, 3, notification(500, &topic("#ops"), "bob", "x"))), None);
    assert_eq!(kept(&app.update(at(4), Event::Tick)), Some(Some(Op(500))));
    assert_eq!(kept(&app.update(at(9), Event::Tick)), None, "nothing new");
}

#[test]
fn scrolling_back_fetches_older_ones_once_and_joins_them() {
    let mut app = connected();
    text(&mut app, 80, 24);
    let page = |ops: std::ops::Range<u64>| {
        ops.map(|op| notification(op, &topic("#ops"), "bob", &format!("number {op}"))).collect::<Vec<_>>()
    };
    let effects = past(&mut app, Conversation::All, page(100..160), true);
    assert_eq!(effects, [], "enough above the window");
    press(&mut app, "Tab");
    let effects = press(&mut app, "Home");
    assert_eq!(effects, [Effect::History(Conversation::All, HistoryRange::Before(Op(100)))]);
    assert_eq!(press(&mut app, "Home"), [], "it is on its way");
    past(&mut app, Conversation::All, page(40..100), false);
    press(&mut app, "Home");
    assert!(shows(&mut app, "number 40"));
    assert_eq!(app.log(&Conversation::All).unwrap().len(), 120);
    press(&mut app, "End");
    assert!(shows(&mut app, "number 159"));
}

#[test]
fn a_time_is_gone_back_to_even_if_that_takes_several_pages() {
    let mut app = connected();
    text(&mut app, 80, 24);
    let page = |ops: std::ops::Range<u64>| {
        ops.map(|op| notification(op, &topic("#ops"), "bob", &format!("number {op}"))).collect::<Vec<_>>()
    };
    past(&mut app, Conversation::All, page(100..160), true);
    // The time is one second past 12:00, which would be number 180. Number 50 is one second too old.
    let effects = enter(&mut app, "/since 130m");
    assert_eq!(effects, [Effect::History(Conversation::All, HistoryRange::Before(Op(100)))]);
    let effects = past(&mut app, Conversation::All, page(80..100), true);
    assert_eq!(effects, [Effect::History(Conversation::All, HistoryRange::Before(Op(80)))]);
    past(&mut app, Conversation::All, page(40..80), true);
    let screen = text(&mut app, 100, 30);
    assert_eq!(app.selected().map(|one| one.op), Some(Op(51)), "{screen}");
    assert!(screen.contains("number 51"), "{screen}");
}

#[test]
fn a_search_goes_up_from_the_newest_and_back() {
    let mut app = connected();
    let page = (1..60)
        .map(|op| notification(op, &topic("#ops"), "bob", if op % 20 == 0 { "a NEEDLE" } else { "hay" }));
    past(&mut app, Conversation::All, page.collect(), false);
    press(&mut app, "Ctrl+r");
    type_in(&mut app, "needle");
    assert!(shows(&mut app, "SEARCH: 1 of 2"), "{}", text(&mut app, 100, 30));
    press(&mut app, "Enter");
    assert_eq!(app.selected().unwrap().op, Op(40));
    press(&mut app, "Ctrl+r");
    assert_eq!(app.selected().unwrap().op, Op(20));
    assert!(shows(&mut app, "SEARCH: 2 of 2"));
    press(&mut app, "Ctrl+r");
    assert!(shows(&mut app, "nothing more above; on from the newest") && shows(&mut app, "SEARCH: 1 of 2"));
    press(&mut app, "Ctrl+n");
    assert!(shows(&mut app, "nothing more below; on from the oldest") && shows(&mut app, "SEARCH: 2 of 2"));
    press(&mut app, "Ctrl+n");
    assert_eq!(app.selected().unwrap().op, Op(40));
    // What comes, and what is fetched, counts as well.
    came(&mut app, 1, notification(60, &topic("#ops"), "bob", "another Needle"));
    assert!(shows(&mut app, "SEARCH: 2 of 3"), "{}", text(&mut app, 100, 30));
    press(&mut app, "Esc");
    assert!(app.search.is_none() && app.focus == Focus::Writing);
}

/// Sixty notifications, of which number 59 is the only one with a needle.
fn with_a_needle() -> App {
    let mut app = connected();
    let page =
        (1..61).map(|op| notification(op, &topic("#ops"), "bob", if op == 59 { "a needle" } else { "hay" }));
    past(&mut app, Conversation::All, page.collect(), false);
    text(&mut app, 100, 30);
    app
}

#[test]
fn the_keys_of_the_list_act_on_what_is_visible() {
    let mut app = with_a_needle();
    press(&mut app, "Tab");
    press(&mut app, "Home");
    assert_eq!(app.selected().unwrap().op, Op(1));
    // What is written shows the newest, and the list begins there.
    enter(&mut app, "a text");
    press(&mut app, "Tab");
    assert_eq!(app.selected().unwrap().op, Op(60), "{}", text(&mut app, 100, 30));
    // A selection that is visible stays, and stays visible under what comes.
    for _ in 0..3 {
        press(&mut app, "Up");
    }
    press(&mut app, "Esc");
    press(&mut app, "Tab");
    assert_eq!(app.selected().unwrap().op, Op(57));
    for op in 61..100 {
        came(&mut app, 1, notification(op, &topic("#ops"), "bob", "straw"));
    }
    assert_eq!(app.selected().unwrap().op, Op(57));
    assert!(crate::tui::view::list::visible(&app).contains(&56), "{}", text(&mut app, 100, 30));
}

#[test]
fn a_search_begins_at_what_is_visible_and_goes_on_from_the_other_end() {
    let mut app = with_a_needle();
    press(&mut app, "Tab");
    press(&mut app, "Home");
    enter(&mut app, "a text");
    // The hidden selection was at the beginning, and the only hit is below it.
    for way in ["Ctrl+r", "from the beginning", "/search"] {
        match way {
            "/search" => drop(enter(&mut app, "/search needle")),
            way => {
                if way == "from the beginning" {
                    press(&mut app, "Tab");
                    press(&mut app, "Home");
                }
                press(&mut app, "Ctrl+r");
                type_in(&mut app, "needle");
            }
        }
        let screen = text(&mut app, 100, 30);
        assert_eq!(app.selected().unwrap().op, Op(59), "{way}");
        assert!(screen.contains("SEARCH: 1 of 1") && screen.contains("a needle"), "{way}\n{screen}");
        press(&mut app, "Enter");
        press(&mut app, "Esc");
    }
}

#[test]
fn a_notification_is_copied_and_its_link_opened_only_after_a_yes() {
    let mut app = connected();
    let body = "see https://example.com/a and\u{1b}[31m https://example.com/b";
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", body)], false);
    press(&mut app, "Tab");
    let copied = press(&mut app, "Ctrl+y");
    assert_eq!(copied, [Effect::Copy("see https://example.com/a and https://example.com/b".to_owned())]);
    assert_eq!(press(&mut app, "Ctrl+o"), []);
    assert_eq!(press(&mut app, "n"), [], "no");
    press(&mut app, "Ctrl+o");
    press(&mut app, "Tab");
    assert_eq!(press(&mut app, "Enter"), [Effect::Browse("https://example.com/b".to_owned())]);
    assert!(app.popup.is_none());
    press(&mut app, "Ctrl+o");
    press(&mut app, "Tab");
    assert!(shows(&mut app, "y  Open https://example.com/a"));
    assert_eq!(press(&mut app, "y"), [Effect::Browse("https://example.com/a".to_owned())], "as it is drawn");
}

#[test]
fn following_is_done_when_the_service_says_so() {
    let mut app = connected();
    let effects = enter(&mut app, "/join #zoo");
    assert_eq!(request(&effects), Some(&Request::Follow { topic: topic("#zoo"), change: FollowChange::Add }));
    assert!(!app.places.follows(&topic("#zoo")));
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert!(app.places.follows(&topic("#zoo")) && app.here == place("#zoo"));
    enter(&mut app, "/leave");
    link(&mut app, 2, Link::Settled(RequestId::Here(2), Err(Code::NotFollowing)));
    assert!(!app.places.follows(&topic("#zoo")), "what holds already was wanted");
    enter(&mut app, "/follow @nobody");
    link(&mut app, 3, Link::Settled(RequestId::Here(3), Err(Code::UnknownProfile)));
    assert!(shows(&mut app, "there is no profile @nobody"));
}

#[test]
fn what_is_written_after_a_follow_goes_where_it_went_before() {
    let mut app = connected();
    for (n, followed) in ["@dora", "#zoo"].into_iter().enumerate() {
        let id = 2 * n as u64 + 1;
        enter(&mut app, &format!("/follow {followed}"));
        link(&mut app, 1, Link::Settled(RequestId::Here(id), Ok(Op(50 + id))));
        assert!(app.places.follows(&topic(followed)) && app.here == Conversation::All, "{followed}");
        assert!(shows(&mut app, &format!("you follow {followed}")));
        assert_eq!(
            request(&enter(&mut app, "hello")),
            Some(&send(None, "hello")),
            "to the followers, as the welcome says"
        );
    }
}

#[test]
fn a_user_who_leaves_learns_what_is_saved_and_not_acknowledged() {
    let mut app = connected();
    assert_eq!(app.unsent(None), None);
    link(&mut app, 1, Link::Connection(recado_client::ConnectionEvent::Searching));
    enter(&mut app, "one");
    let message = app.unsent(None).unwrap();
    assert!(
        message.starts_with("1 notification is saved") && message.contains("`recado` as @alice"),
        "{message}"
    );
    enter(&mut app, "two");
    assert!(app.unsent(None).unwrap().starts_with("2 notifications are saved"));
    for id in [1, 2] {
        link(&mut app, 2, Link::Settled(RequestId::Here(id), Err(Code::LimitReached)));
    }
    assert_eq!(app.unsent(None), None, "what is refused goes out no more");
}

#[test]
fn nothing_is_said_to_be_saved_whose_files_were_removed_and_the_loss_of_the_key_is_told() {
    let mut app = connected();
    assert!(!shows(&mut app, "were removed"));
    link(&mut app, 1, Link::Removed(Removed::Key));
    let screen = text(&mut app, 40, 20).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(screen.contains("/state/recado/7/alice were removed, and its key with them"), "{screen}");
    assert!(screen.contains("/device add draws a code"), "{screen}");
    app.update(at(100), Event::Tick);
    assert!(shows(&mut app, "were removed"), "it stays");
    let message = app.unsent(Some(Removed::Key)).unwrap();
    assert!(message.contains("its key with them") && !message.contains("lost"), "{message}");
    link(&mut app, 101, Link::Connection(recado_client::ConnectionEvent::Searching));
    enter(&mut app, "one");
    let message = app.unsent(Some(Removed::Key)).unwrap();
    assert!(message.contains("1 notification not acknowledged is lost with them"), "{message}");
    assert!(!message.contains("saved") && !message.contains("settles"), "{message}");
    let message = app.unsent(Some(Removed::Device)).unwrap();
    assert!(message.contains("slot-0 were removed; 1 notification") && !message.contains("key"), "{message}");
    link(&mut app, 102, opened(vec![]));
    assert!(!shows(&mut app, "were removed"), "the next client has files");
}

#[test]
fn what_no_server_will_take_is_not_said_to_be_settled_by_the_next_start() {
    let mut app = connected();
    link(&mut app, 1, Link::Connection(recado_client::ConnectionEvent::Searching));
    enter(&mut app, "one");
    link(&mut app, 2, Link::Other("THE CLUSTER IS NOT THE ONE IT WAS".to_owned()));
    let message = app.unsent(None).unwrap();
    assert!(message.contains("those of another one") && !message.contains("settles"), "{message}");
    link(&mut app, 3, Link::Ended(Box::new(ClientError::Forgotten("slot-0".into()))));
    let message = app.unsent(None).unwrap();
    assert!(message.contains("no longer know this device") && !message.contains("settles"), "{message}");
}

#[test]
fn a_wrong_command_stays_to_be_mended_and_a_slash_can_be_sent() {
    let mut app = connected();
    enter(&mut app, "/folow @bob");
    assert!(shows(&mut app, "there is no command") && app.compose.text() == "/folow @bob");
    press(&mut app, "Esc");
    assert!(app.compose.is_empty());
    assert_eq!(request(&enter(&mut app, "//etc is full")), Some(&send(None, "/etc is full")));
    assert_eq!(request(&enter(&mut app, ":) hello")), Some(&send(None, ":) hello")));
    type_in(&mut app, "two");
    press(&mut app, "Alt+Enter");
    assert_eq!(request(&enter(&mut app, "lines")), Some(&send(None, "two\nlines")));
}

#[test]
fn what_was_wrong_with_a_command_is_gone_with_the_next_that_is_right() {
    let mut app = connected();
    enter(&mut app, "/foo");
    assert!(shows(&mut app, "there is no command"));
    press(&mut app, "Esc");
    enter(&mut app, "/go #ops");
    assert!(!shows(&mut app, "there is no command"));
    enter(&mut app, "/foo");
    press(&mut app, "Esc");
    enter(&mut app, "a text");
    assert!(!shows(&mut app, "there is no command"));
}

#[test]
fn what_is_being_written_shows_whole_as_soon_as_there_is_room_again() {
    let mut app = connected();
    text(&mut app, 100, 30);
    text(&mut app, 40, 12);
    let words = "begin ".to_owned() + &"word ".repeat(18) + "e";
    assert_eq!(words.len(), 97);
    // The screen is drawn after every letter, as on a terminal.
    for letter in words.chars() {
        type_in(&mut app, &letter.to_string());
        text(&mut app, 40, 12);
    }
    assert!(!shows_at(&mut app, (40, 12), "begin"), "its end is written at");
    for (width, height) in [(39, 11), (20, 4)] {
        text(&mut app, width, height);
    }
    assert!(shows(&mut app, "begin word"), "{}", text(&mut app, 100, 30));
    assert_eq!(app.compose.text(), words);
    // Text typed next continues at the end.
    type_in(&mut app, "nd");
    assert_eq!(app.compose.text(), words.clone() + "nd");
    // There is room again, because the text is shortened.
    for _ in 0..80 {
        app.update(at(1), Event::Key(crossterm::event::KeyCode::Backspace.into()));
        text(&mut app, 40, 12);
    }
    assert!(shows_at(&mut app, (40, 12), "begin word"), "{}", text(&mut app, 40, 12));
}

#[test]
fn a_text_that_fills_its_row_has_its_cursor_behind_it() {
    for width in [40, 41, 42, 80] {
        let mut app = connected();
        let mut rows = 1;
        for letters in 1..120 {
            type_in(&mut app, "x");
            let mut drawn = crate::tui::samples::drawn(&mut app, width, 20);
            let compose = crate::tui::view::areas(&app).compose;
            let cursor = ratatui::backend::Backend::get_cursor_position(&mut drawn).unwrap();
            assert!(compose.contains(cursor), "{width}, {letters}: {cursor} in {compose}");
            let cell = &drawn.buffer()[cursor];
            assert_eq!(cell.symbol(), " ", "{width}, {letters}: {cursor}");
            if compose.height > rows {
                rows = compose.height;
                assert_eq!(
                    cursor.y,
                    compose.bottom() - 1,
                    "{width}, {letters}: the row is there for a letter"
                );
            }
        }
    }
}

#[test]
fn below_the_smallest_size_only_the_key_that_leaves_works() {
    let mut app = connected();
    type_in(&mut app, "a draft");
    app.update(at(1), Event::Resize(39, 20));
    type_in(&mut app, " more");
    app.on_paste("more");
    assert_eq!(press(&mut app, "Enter"), []);
    assert_eq!(app.compose.text(), "a draft");
    assert_eq!(press(&mut app, "Ctrl+c"), []);
    assert!(shows_at(&mut app, (40, 8), "Ctrl+C again leaves"), "{}", text(&mut app, 40, 8));
    assert!(press(&mut app, "Ctrl+c").contains(&Effect::Quit));
    // At the smallest size there is a list and a line to write in.
    let mut app = connected();
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", "seen")], false);
    type_in(&mut app, "a draft");
    let screen = text(&mut app, 40, 9);
    assert!(screen.contains("seen") && screen.contains("a draft"), "{screen}");
    let mut first = crate::tui::samples::app(None);
    type_in(&mut first, "alice");
    assert!(shows_at(&mut first, (40, 9), "@ alice"), "{}", text(&mut first, 40, 9));
}

#[test]
fn the_smallest_screen_names_the_place_and_marks_what_it_cuts() {
    let mut app = connected();
    app.go(place("#zoo"));
    let long = "n".repeat(32);
    let page = (1..30).map(|op| notification(op, &topic("#zoo"), &long, "roar")).collect();
    past(&mut app, place("#zoo"), page, false);
    text(&mut app, 40, 9);
    press(&mut app, "PgUp");
    let screen = text(&mut app, 40, 9);
    let header = screen.lines().next().unwrap();
    assert!(header.starts_with("  #zoo   1 follower, not followed") && header.ends_with(".."), "{screen}");
    assert!(screen.lines().any(|line| line.contains("@nnn") && line.contains("n..")), "{screen}");
    for line in screen.lines() {
        assert!(crate::tui::wrap::width(line) <= 40 && !line.contains(&long), "{screen}");
    }
    assert!(shows(&mut app, &format!("@{long} ")), "where there is room it is whole");
}

#[test]
fn a_theme_changes_at_once() {
    let mut app = connected();
    let before = app.settings.theme.clone();
    assert_eq!(enter(&mut app, "/theme light"), [Effect::Theme("light".to_owned())]);
    let light = Theme::named("light").unwrap();
    app.update(at(1), Event::Theme("light".to_owned(), Ok(Box::new(light.clone()))));
    assert!(app.settings.theme == light && light != before);
    app.update(at(1), Event::Theme("none".to_owned(), Err("there is no theme".to_owned())));
    assert!(shows(&mut app, "there is no theme") && app.settings.theme == light);
}

#[test]
fn ctrl_c_leaves_from_everywhere_and_writes_down_what_came() {
    for keys in ["", "F1", "F2", "Ctrl+p", "Tab", "Ctrl+r", "Tab Tab", "Tab Ctrl+o"] {
        let mut app = connected();
        past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", "http://a.b")], false);
        came(&mut app, 1, notification(6, &topic("#ops"), "bob", "x"));
        for key in keys.split_whitespace() {
            press(&mut app, key);
        }
        let effects = press(&mut app, "Ctrl+c");
        assert!(
            matches!(effects.as_slice(), [Effect::Keep(_, Some(Op(6))), Effect::Quit]),
            "{keys}: {effects:?}"
        );
    }
    let mut app = app(None);
    app.begin_effects();
    assert_eq!(press(&mut app, "Ctrl+c"), [Effect::Quit]);
}

#[test]
fn the_focus_goes_round_what_is_there() {
    let mut app = connected();
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", "x")], false);
    text(&mut app, 80, 24);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(app.focus);
        press(&mut app, "Tab");
    }
    assert_eq!(seen, [Focus::Writing, Focus::List, Focus::Places, Focus::Writing]);
    text(&mut app, 50, 24);
    press(&mut app, "Tab");
    press(&mut app, "Tab");
    assert_ne!(app.focus, Focus::Places);
}

#[test]
fn a_click_goes_where_it_points_and_the_wheel_scrolls() {
    use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut app = connected();
    let page = (1..80).map(|op| notification(op, &topic("#ops"), "bob", &format!("number {op}")));
    past(&mut app, Conversation::All, page.collect(), false);
    let screen = text(&mut app, 80, 24);
    let mouse = |app: &mut App, kind, column, what: &str| {
        let row = screen.lines().position(|line| line.contains(what)).unwrap() as u16;
        let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        app.update(at(1), Event::Mouse(event));
    };
    mouse(&mut app, MouseEventKind::ScrollUp, 40, "number 75");
    assert!(!text(&mut app, 80, 24).contains("number 79"));
    mouse(&mut app, MouseEventKind::ScrollDown, 40, "number 75");
    assert!(text(&mut app, 80, 24).contains("number 79"));
    let click = MouseEventKind::Down(MouseButton::Left);
    mouse(&mut app, click, 40, "number 75");
    assert_eq!((app.focus, app.selected().unwrap().op), (Focus::List, Op(75)));
    mouse(&mut app, click, 3, "#deploys");
    assert_eq!(app.here, place("#deploys"));
    mouse(&mut app, click, 30, "followers");
    assert_eq!(app.focus, Focus::Writing);
}

#[test]
fn the_palette_jumps_to_what_is_followed_and_to_what_is_not() {
    let mut app = connected();
    press(&mut app, "Ctrl+p");
    type_in(&mut app, "zo");
    let effects = press(&mut app, "Enter");
    assert_eq!(app.here, place("#zoo"));
    assert!(effects.contains(&Effect::History(place("#zoo"), HistoryRange::Before(Op(u64::MAX)))));
    assert!(shows(&mut app, "not followed"));
}

/// Splitmix64: the same seed yields the same keys.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[test]
fn whatever_is_pressed_and_whatever_comes_at_whatever_size_it_draws() {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let seed = std::env::var("SCREEN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0xC0FFEE);
    eprintln!("SCREEN_SEED={seed}");
    let mut dice = Dice(seed);
    let bindings: Vec<KeyCode> = "abcdefghijklmnopqrstuvwxyz/:?@#1GNA \u{65e5}\u{301}"
        .chars()
        .map(KeyCode::Char)
        .chain([KeyCode::Up, KeyCode::Down, KeyCode::Enter, KeyCode::Enter, KeyCode::Esc, KeyCode::Tab])
        .chain([KeyCode::BackTab, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Home, KeyCode::End])
        .chain([KeyCode::F(1), KeyCode::F(2), KeyCode::Backspace, KeyCode::Delete, KeyCode::Left])
        .collect();
    let mut app = connected();
    let mut op = 1_000;
    let mut size = (80, 24);
    for step in 0..6_000_u64 {
        let second = step / 20;
        let event = match dice.roll(20) {
            0 => {
                size = (1 + dice.roll(130) as u16, 1 + dice.roll(50) as u16);
                Event::Resize(size.0, size.1)
            }
            1 | 2 => {
                op += 1 + dice.roll(3);
                let topic = [topic("#ops"), topic("@bob"), Topic::Inbox(name("alice"))]
                    [dice.roll(3) as usize]
                    .clone();
                let body = "wo\u{65e5}rd ".repeat(dice.roll(60) as usize);
                let one = notification(op, &topic, "bob", &body);
                Event::Link(Link::Incoming(recado_client::Incoming::Notification(one.into())))
            }
            3 => {
                let (column, row) = (dice.roll(140) as u16, dice.roll(55) as u16);
                let kind = [
                    MouseEventKind::Down(MouseButton::Left),
                    MouseEventKind::ScrollUp,
                    MouseEventKind::ScrollDown,
                ][dice.roll(3) as usize];
                Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
            }
            4 => {
                let before = 1_000 - dice.roll(900);
                let page: Vec<_> = (before..before + 30)
                    .map(|op| notification(op, &topic("#ops"), "carol", "older"))
                    .collect();
                past(&mut app, Conversation::All, page, true);
                Event::Tick
            }
            5 => Event::Paste("pasted\ntext \u{1b}[31m".repeat(dice.roll(4) as usize)),
            6 => Event::Focus(dice.roll(2) == 0),
            _ => {
                let code = bindings[dice.roll(bindings.len() as u64) as usize];
                let modifiers =
                    [KeyModifiers::NONE, KeyModifiers::NONE, KeyModifiers::CONTROL, KeyModifiers::ALT];
                Event::Key(KeyEvent::new(code, modifiers[dice.roll(4) as usize]))
            }
        };
        app.update(at(second), event);
        if dice.roll(4) == 0 {
            crate::tui::samples::drawn(&mut app, size.0, size.1);
        }
        if app.compose.text().len() > 5_000 {
            app.compose.set("");
        }
    }
    assert!(matches!(
        app.popup,
        None | Some(
            Popup::Help { .. }
                | Popup::Servers { .. }
                | Popup::Text { .. }
                | Popup::Palette(_)
                | Popup::Question(_)
        )
    ));
}

#[test]
fn a_lapsed_session_is_followed_by_another_and_all_that_waits_stands_once() {
    let mut app = connected();
    app.go(place("#ops"));
    came(&mut app, 1, notification(7, &topic("#ops"), "bob", "before"));
    enter(&mut app, "waits");
    app.compose.paste("being written");
    let recovered = (RequestId::Recovered(1), send(Some(topic("#ops")), "waits"));
    link(&mut app, 2, opened(vec![recovered]));
    link(&mut app, 3, let_in());
    let screen = text(&mut app, 100, 30);
    assert_eq!(screen.matches("waits").count(), 1, "{screen}");
    assert!(screen.contains("before") && screen.contains("being written"), "{screen}");
    // A result from the client before has no effect any more.
    link(&mut app, 4, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert_eq!(app.outbox.unanswered(), 1);
    link(&mut app, 5, Link::Settled(RequestId::Recovered(1), Ok(Op(50))));
    assert_eq!(app.outbox.unanswered(), 0);
}

#[test]
fn without_a_session_a_text_stays_where_it_is_and_connect_tries_again() {
    let mut app = connected();
    let effects = enter(&mut app, "/connect");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Open(..))), "there is one: {effects:?}");
    link(&mut app, 1, Link::Ended(Box::new(ClientError::Ended(Code::Fenced))));
    assert!(shows(&mut app, "no session; /connect tries again"));
    assert!(shows(&mut app, "a copy of this device's files is in use"));
    assert_eq!(enter(&mut app, "not lost"), []);
    assert_eq!((app.compose.text(), app.outbox.unanswered()), ("not lost".to_owned(), 0));
    app.take_line();
    assert_eq!(enter(&mut app, "/connect"), [Effect::Open(name("alice"), None)]);
    assert_eq!(enter(&mut app, "/connect"), [], "it is being looked for");
    assert!(!shows(&mut app, "no session"));
}

#[test]
fn a_new_session_is_told_of_once_it_is_open_and_not_for_a_device_that_was_removed() {
    let mut app = connected();
    let forgotten = || Link::Ended(Box::new(ClientError::Forgotten("slot-0".into())));
    link(&mut app, 1, forgotten());
    enter(&mut app, "/connect");
    link(&mut app, 2, opened(vec![]));
    assert!(!shows(&mut app, "a new session"));
    link(&mut app, 2, forgotten());
    assert!(shows(&mut app, "no longer know this device") && !shows(&mut app, "a new session"));
    enter(&mut app, "/connect");
    link(&mut app, 3, opened(vec![]));
    link(&mut app, 3, let_in());
    assert!(shows(&mut app, "a new session is open; it goes on where the last one ended"));
    link(&mut app, 30, let_in());
    app.update(at(60), Event::Tick);
    assert!(!shows(&mut app, "a new session"));
}

#[test]
fn a_cluster_made_anew_begins_with_an_empty_screen() {
    let mut app = connected();
    came(&mut app, 1, notification(7, &topic("#ops"), "bob", "of the old cluster"));
    link(&mut app, 2, Link::Ended(Box::new(ClientError::Disconnected)));
    enter(&mut app, "/connect");
    let Link::Opened(mut anew) = opened(vec![]) else { unreachable!() };
    anew.cluster = recado_client::ClusterId(8);
    link(&mut app, 3, Link::Opened(anew));
    assert!(!shows(&mut app, "of the old cluster"));
}

#[test]
fn the_servers_are_watched_while_their_panel_is_open() {
    let mut app = connected();
    assert_eq!(press(&mut app, "F2"), [Effect::Watch(true)]);
    assert_eq!(link(&mut app, 1, Link::Pulse(vec![])), []);
    assert_eq!(press(&mut app, "Esc"), [Effect::Watch(false)]);
}
