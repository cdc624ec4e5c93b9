//! Measures the cost of a frame, and the delay of a typed letter during a flood of notifications. Run it
//! with `cargo test --release -p recado-ui performance -- --nocapture`; only a release build is held to
//! limits of time.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use parking_lot::Mutex;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use recado_client::{Incoming, Topic};

use super::app::App;
use super::clock::Clock;
use super::conversation::Conversation;
use super::event::{Event, Link};
use super::runtime::{Flow, Runtime, spawn};
use super::samples::{connected, notification, press};
use super::view;

/// Largest median time of a frame at 200x60.
const FRAME_MAX: Duration = Duration::from_millis(5);

const BODY: &str = "The quick brown fox jumps over the lazy dog; \u{65e5}\u{672c}\u{8a9e} and \u{e9}t\u{e9}, \
    https://example.com/some/long/path?query=1. It says more than fits one line at a hundred columns.";

fn full(count: u64) -> App {
    let mut app = connected();
    app.size = (200, 60);
    let topic = Topic::to_follow("#ops").unwrap();
    app.go(Conversation::Topic(topic.clone()));
    for op in 1..=count {
        let one = notification(op, &topic, ["bob", "carol", "dora"][op as usize % 3], BODY);
        app.log_at(&Conversation::Topic(topic.clone())).insert(Arc::new(one));
    }
    app
}

fn middle(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn a_frame_of_a_hundred_thousand_notifications_is_cheap_wherever_one_is() {
    let mut app = full(100_000);
    let mut terminal = Terminal::new(TestBackend::new(200, 60)).unwrap();
    let clock = Clock::start();
    press(&mut app, "Tab");
    for (name, keys) in [
        ("a page up", ["PgUp"].as_slice()),
        ("a row up", &["Up"]),
        ("to the oldest and back", &["Home", "End"]),
        ("a search that finds nothing", &["Ctrl+r", "z", "Enter", "Esc", "Tab"]),
    ] {
        let (mut moves, mut frames) = (Vec::new(), Vec::new());
        let rounds = if keys.len() > 2 { 5 } else { 200 };
        for _ in 0..rounds {
            for key in keys {
                let began = clock.now().since_start;
                press(&mut app, key);
                let moved = clock.now().since_start;
                terminal.draw(|frame| view::draw(&app, frame)).unwrap();
                moves.push(moved - began);
                frames.push(clock.now().since_start - moved);
            }
        }
        let ((key, key_99), (frame, frame_99)) = (middle(moves), middle(frames));
        eprintln!("{name}: key p50 {key:?} p99 {key_99:?}; frame p50 {frame:?} p99 {frame_99:?}");
        assert!(cfg!(debug_assertions) || frame <= FRAME_MAX, "{name}: {frame:?}");
    }
}

/// Types a letter every 50 ms for two seconds, while this many notifications a second arrive. Returns the
/// time from each key press to its drawing, and the number of all drawings.
fn typed_under(notifications: u32) -> (Vec<Duration>, usize) {
    const LETTERS: usize = 40;
    let (input_in, input) = channel::bounded(1_024);
    let (links_in, links) = channel::bounded(1_024);
    let (_signals_in, signals) = channel::bounded(1);
    let clock = Clock::start();
    let pressed = Arc::new(Mutex::new(Vec::new()));
    let times = pressed.clone();
    spawn("typist", move || {
        let ticks = channel::tick(Duration::from_millis(50));
        for _ in 0..LETTERS {
            ticks.recv().unwrap();
            times.lock().push(clock.now().since_start);
            let letter = KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE);
            input_in.send(Event::Key(letter)).unwrap();
        }
        ticks.recv().unwrap();
        // The letters are a text that is not sent, so the first Ctrl+C asks.
        for _ in 0..2 {
            let _ = input_in.send(Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        }
    })
    .unwrap();
    if notifications > 0 {
        spawn("flood", move || {
            let topic = Topic::to_follow("#ops").unwrap();
            let ticks = channel::tick(Duration::from_secs(1) / notifications);
            for op in 200_000.. {
                ticks.recv().unwrap();
                let one = Arc::new(notification(op, &topic, "bob", BODY));
                if links_in.send(Link::Incoming(Incoming::Notification(one))).is_err() {
                    return;
                }
            }
        })
        .unwrap();
    }
    let (mut drawn, mut waits, mut frames) = (0, Vec::new(), 0);
    let mut on_drawn = |app: &App| {
        frames += 1;
        let now = clock.now().since_start;
        let pressed = pressed.lock();
        for letter in drawn..app.compose.text().len() {
            waits.push(now - pressed[letter]);
        }
        drawn = app.compose.text().len();
    };
    let mut runtime = Runtime {
        app: full(1_000),
        clock,
        input,
        links,
        signals,
        perform: &mut |effect| match effect {
            super::event::Effect::Quit => Flow::Quit,
            _ => Flow::GoOn,
        },
        on_drawn: &mut on_drawn,
    };
    let mut terminal = Terminal::new(TestBackend::new(200, 60)).unwrap();
    runtime.run(&mut terminal, &mut |_, _| Ok(())).unwrap();
    assert_eq!(waits.len(), LETTERS);
    (waits, frames)
}

#[test]
fn a_thousand_notifications_a_second_cost_no_more_frames_and_delay_no_letter() {
    let (quiet, _) = typed_under(0);
    let (flooded, frames) = typed_under(1_000);
    let ((quiet, quiet_99), (flooded, flooded_99)) = (middle(quiet), middle(flooded));
    eprintln!(
        "a letter is drawn after p50 {quiet:?} p99 {quiet_99:?} in quiet, p50 {flooded:?} p99 {flooded_99:?} with \
         1,000 notifications a second; {frames} frames in 2 s"
    );
    assert!(frames <= 2 * 30 + 3, "{frames} frames in two seconds and a bit");
    // A longer delay than a frame and its drawing would mean that events queue up.
    assert!(cfg!(debug_assertions) || flooded <= Duration::from_millis(40), "{flooded:?}");
}
