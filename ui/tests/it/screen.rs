//! Tests of the full screen with two users, on real terminals, while servers die.

use std::process::Command;
use std::time::Duration;

use recado_proto::id::NodeId;
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, succeeded};
use crate::terminal::Terminal;
use crate::tmux::{Tmux, Window};

/// Starts the screen and waits until its session is open.
fn open(window: &Window<'_>, name: &str) {
    window.enter(&format!("clear; recado --as {name}; echo ENDED $?"));
    window.wait_for("connected");
}

fn kill(window: &Window<'_>, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(window.child()).unwrap()).expect("not 0");
    kill_process(process, signal).unwrap();
}

fn listed(cluster: &Cluster) -> String {
    cluster.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn two_people_write_across_the_death_of_the_primary() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let mut cluster = Cluster::ready(3);
    let servers = listed(&cluster);
    // The windows use this handle only to wait. The cluster whose servers are killed has another handle.
    let watch = Cluster::init(1);
    let (alice, bob) = (tmux.window(&watch, "alice", &servers), tmux.window(&watch, "bob", &servers));
    let before = alice.settings();
    open(&alice, "alice");
    open(&bob, "bob");

    bob.enter("/follow @alice");
    bob.wait_for("you follow @alice");
    alice.enter("hello, whoever follows");
    bob.wait_for("hello, whoever follows");

    // The primary dies while a word is typed, and typing goes on.
    alice.type_in("written while the primary ");
    let primary = cluster.wait_primary();
    let began = cluster.clock().now();
    cluster.kill(primary);
    alice.type_in("died");
    alice.wait_for("written while the primary died");
    alice.press("Enter");
    let screen = alice.wait_for("is primary now");
    let banner = screen.lines().find(|line| line.contains("is primary now")).unwrap_or_default();
    eprintln!(
        "killed {primary}; {} ms later alice's screen says: {}",
        cluster.clock().now().since(began).as_millis(),
        banner.trim()
    );
    bob.wait_for("written while the primary died");
    alice.wait_until("nothing left to send", |screen| !screen.contains("to send"));
    assert_eq!(bob.screen().matches("written while the primary died").count(), 1);
    assert_eq!(alice.screen().matches("written while the primary died").count(), 1);

    // The screen adapts to any size at once.
    alice.resize(40, 12);
    alice.wait_until("a small screen", |screen| !screen.contains("Feeds") && screen.contains("followers"));
    alice.resize(20, 5);
    alice.wait_for("20x5");
    alice.resize(100, 30);
    alice.wait_for("Feeds");

    // Ctrl+Z returns to the shell, and `fg` to the screen.
    alice.press("C-z");
    alice.wait_until("the shell", is_prompt);
    alice.assert_sane(&before);
    alice.enter("fg");
    alice.wait_for("Feeds");

    alice.press("C-c");
    alice.wait_until("the shell", is_prompt);
    alice.enter("echo STATUS $?");
    alice.wait_for("\nSTATUS 0");
    alice.assert_sane(&before);
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let nobody = Cluster::init(1);
    let window = tmux.window(&nobody, "alice", &listed(&nobody));
    let before = window.settings();
    let begin = |set: &str| {
        window.enter(&format!("clear; {set} recado --as alice"));
        window.wait_for("Everything");
        let flags = "alternate #{alternate_on} mouse #{mouse_any_flag}";
        assert_eq!(window.asks(flags), "alternate 1 mouse 1");
    };
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        begin("");
        kill(&window, signal);
        window.wait_until("the shell", is_prompt);
        window.enter("echo ENDED $?");
        window.wait_for(&format!("ENDED {code}"));
        window.assert_sane(&before);
    }
    if !cfg!(debug_assertions) {
        return eprintln!("LEFT OUT: panics, which only builds with debug assertions can be asked for");
    }
    // The panic is on the thread that draws, and then on another thread while that one goes on.
    for thread in ["main", "recado-input"] {
        begin(&format!("RECADO_PANIC={thread}"));
        window.press("C-l");
        window.wait_for("asked for by RECADO_PANIC");
        window.enter("echo ENDED $?");
        let screen = window.wait_for("ENDED 134");
        assert!(screen.contains(&format!("thread '{thread}'")), "{screen}");
        assert!(screen.contains("asked for by RECADO_PANIC"), "{screen}");
        window.assert_sane(&before);
    }
}

#[test]
fn a_text_written_without_servers_survives_the_screen_and_arrives_once() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let mut cluster = Cluster::ready(3);
    let servers = listed(&cluster);
    let watch = Cluster::init(1);
    let alice = tmux.window(&watch, "alice", &servers);
    open(&alice, "alice");
    alice.enter("with servers");
    alice.wait_for("@alice \u{2713}  with servers");
    cluster.kill_all();
    for text in ["first", "second", "third"] {
        alice.enter(text);
    }
    alice.wait_for("3 to send");
    alice.press("C-c");
    alice.wait_for("ENDED 0");

    // The screen starts without a server, shows the queued notifications, and accepts more.
    alice.enter("clear; recado --as alice; echo ENDED $?");
    alice.wait_for("third  queued");
    alice.enter("fourth");
    alice.wait_for("4 to send");
    // This time the screen is killed.
    kill(&alice, Signal::KILL);
    alice.wait_for("ENDED 137");
    // Nothing could restore the terminal, so Enter ends no line in it.
    alice.type_in("stty sane; reset; echo BACK AGAIN");
    alice.press("C-j");
    alice.wait_until("the shell", |screen| screen.trim_start().starts_with("BACK AGAIN"));

    cluster.start_all();
    cluster.wait_ready();
    open(&alice, "alice");
    alice.wait_until("all acknowledged", |screen| {
        screen.contains("connected") && screen.contains("fourth") && !screen.contains("to send")
    });
    let terminal = Terminal::knowing(&servers);
    terminal.ok(&["--as=eve", "claim"]);
    let past = terminal.json(&["--as=eve", "history", "@alice", "--json"]);
    let bodies: Vec<&str> = past.iter().filter_map(|one| one["body"].as_str()).collect();
    assert_eq!(bodies, ["with servers", "first", "second", "third", "fourth"]);
}

/// Connects with a copy of alice's device, which ends her session. The copy makes no request, because two
/// copies that give the same numbers to different requests cannot be reconciled by any client.
fn take_over(tmux: &Tmux, shell: &Window<'_>) {
    let (home, copy) = (tmux.home("alice"), tmux.home("copy"));
    let (home, copy) = (home.display(), copy.display());
    shell.enter(&format!(
        "clear; rm -rf {copy}; cp -a {home} {copy} && HOME={copy} recado --as alice claim; echo TAKEN $?"
    ));
    shell.wait_for("TAKEN 0");
}

#[test]
fn a_session_lost_while_stopped_is_replaced_and_one_taken_by_a_copy_waits_for_connect() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(3);
    let servers = listed(&cluster);
    let (alice, shell) = (tmux.window(&cluster, "alice", &servers), tmux.window(&cluster, "shell", &servers));
    // This shell does not take the terminal back when its program is stopped.
    alice.enter("clear; sh -c 'recado --as alice; echo ENDED'");
    alice.wait_for("connected");
    alice.enter("while awake");
    alice.wait_for("@alice \u{2713}  while awake");

    // The process sleeps for longer than any silence that the servers accept. Typed text waits in the
    // terminal.
    kill(&alice, Signal::STOP);
    let began = cluster.clock().now();
    alice.enter("typed asleep");
    take_over(&tmux, &shell);
    let asleep = || cluster.clock().now().since(began) > Duration::from_secs(6);
    assert!(cluster.poll(PATIENCE, asleep));
    kill(&alice, Signal::CONT);
    alice.wait_for("a new session is open");
    alice.enter("awake again");
    alice.wait_for("@alice \u{2713}  awake again");

    // While the process is awake, a copy that takes over the session keeps it until the user says
    // otherwise.
    take_over(&tmux, &shell);
    alice.wait_for("no session; /connect tries again");
    alice.wait_for("a copy of this device's files is in use");
    alice.enter("kept");
    alice.wait_for("your text stays here");
    alice.press("C-u");
    alice.enter("/connect");
    alice.wait_for("a new session is open");
    alice.enter("connected again");
    alice.wait_for("@alice \u{2713}  connected again");

    let terminal = Terminal::knowing(&servers);
    terminal.ok(&["--as=eve", "claim"]);
    let past = terminal.json(&["--as=eve", "history", "@alice", "--json"]);
    let bodies: Vec<&str> = past.iter().filter_map(|one| one["body"].as_str()).collect();
    assert_eq!(bodies, ["while awake", "typed asleep", "awake again", "connected again"]);
}

#[test]
fn a_removed_device_sees_the_reason_and_the_cure() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(3);
    let servers = listed(&cluster);
    let other = Terminal::knowing(&servers);
    other.ok(&["--as=alice", "claim"]);
    let code = &other.json(&["--as=alice", "device", "add", "--json"])[0]["code"];
    let alice = tmux.window(&cluster, "alice", &servers);
    alice.enter(&format!("clear; recado --as alice device enrol {}; echo DONE $?", code.as_str().unwrap()));
    alice.wait_for("DONE 0");
    open(&alice, "alice");
    let keys = other.json(&["--as=alice", "device", "list", "--json"]);
    let key = keys.iter().find(|key| key["this"] == false).expect("there are two");
    other.ok(&["--as=alice", "device", "remove", key["key"].as_str().unwrap()]);
    alice.wait_for("no session; /connect tries again");
    alice.enter("/connect");
    alice.wait_for("the servers no longer know this device");
    alice.wait_for("reset it:");

    // The user follows the advice. Then the key is refused, which needs another cure.
    std::fs::remove_dir_all(tmux.home("alice").join(".local/state/recado").join(cluster.id.to_string()))
        .unwrap();
    alice.enter("/connect");
    alice.wait_for("the name belongs to another key");
    alice.wait_for("recado device add");
}

#[test]
fn files_that_are_removed_under_an_open_screen_are_told_there_and_on_leaving() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(3);
    let alice = tmux.window(&cluster, "alice", &listed(&cluster));
    open(&alice, "alice");
    std::fs::remove_dir_all(tmux.home("alice").join(".local/state/recado").join(cluster.id.to_string()))
        .unwrap();
    alice.wait_for("removed");
    alice.press("C-c");
    let screen = alice.wait_for("ENDED 0");
    let told: String = screen.split_whitespace().collect();
    assert!(told.contains("itskeywiththem") && !told.contains("issaved"), "{screen}");
}

#[test]
fn a_first_run_asks_for_a_name_and_remembers_it() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(3);
    let servers = listed(&cluster);
    let terminal = Terminal::knowing(&servers);
    terminal.ok(&["--as=taken", "claim"]);
    let window = tmux.window(&cluster, "newcomer", &servers);
    window.enter("clear; recado; echo ENDED $?");
    window.wait_for("3 servers answer");
    window.enter("taken");
    window.wait_for("Be @taken?");
    window.press("Enter");
    window.wait_for("belongs to another key here");
    window.enter("newcomre");
    window.wait_for("Be @newcomre?");
    window.press("n");
    window.wait_for("@ newcomre");
    window.press("BSpace");
    window.press("BSpace");
    window.enter("er");
    window.wait_for("Be @newcomer?");
    window.press("y");
    window.wait_for("Two things to do");
    window.wait_for("claimed @newcomer: nobody had it");
    window.press("C-c");
    window.wait_for("ENDED 0");
    window.enter("clear; recado; echo ENDED $?");
    window.wait_for("You are @newcomer");
}

#[test]
fn a_mistyped_name_is_told_on_the_screen_and_not_claimed_where_that_is_forbidden() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(1);
    let window = tmux.window(&cluster, "typist", &listed(&cluster));
    window.enter("clear; recado --as alcie; echo ENDED $?");
    window.wait_for("claimed @alcie: nobody had it");
    window.press("C-c");
    window.wait_for("ENDED 0");
    // It is no longer new the next time.
    window.enter("clear; recado --as alcie; echo ENDED $?");
    let screen = window.wait_for("Two things to do");
    assert!(!screen.contains("claimed"), "{screen}");
    window.press("C-c");
    window.wait_for("ENDED 0");
    window.enter("clear; recado --as other --no-claim; echo ENDED $?");
    window.wait_for("@other is no profile of this machine");
    window.press("C-c");
    window.wait_for("ENDED 0");
    window.enter(
        "clear; echo 'claim = false' > \"$HOME/c.toml\"; recado --config \"$HOME/c.toml\"; echo ENDED $?",
    );
    window.wait_for("One server answers");
    window.enter("another");
    window.wait_for("@another is no profile of this machine");
    window.press("C-c");
    window.wait_for("ENDED 0");
    let people = Terminal::knowing(&listed(&cluster));
    people.ok(&["--as=eve", "claim"]);
    let people = people.ok(&["--as=eve", "people"]);
    assert!(people.contains("@alcie") && !people.contains("other"), "{people}");
}

/// Output of an administrator's command.
fn admin(cluster: &Cluster, node: NodeId, args: &[&str]) -> String {
    let mut command = Command::new(crate::recadod());
    succeeded(&command.arg("admin").args(args).arg("--config").arg(cluster.config(node)).output().unwrap())
}

/// A cluster of one server with this setting for new names.
fn admitting(new_names: &str) -> (Cluster, NodeId) {
    let mut cluster = Cluster::init(1);
    let node = cluster.nodes()[0];
    cluster.edit(node, |text| {
        let edited = text.replace("new_names = \"open\"", &format!("new_names = \"{new_names}\""));
        assert_ne!(edited, text);
        edited
    });
    cluster.start(node);
    cluster.wait_ready();
    (cluster, node)
}

#[test]
fn a_new_name_that_needs_an_invitation_is_claimed_with_a_code_typed_on_the_screen() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let (cluster, node) = admitting("invite");
    let servers = listed(&cluster);
    let spent = admin(&cluster, node, &["invite"]);
    Terminal::knowing(&servers).ok(&["--as=first", "--invite", spent.trim(), "claim"]);
    let window = tmux.window(&cluster, "newcomer", &servers);
    window.enter("clear; recado; echo ENDED $?");
    window.wait_for("One server answers");
    window.enter("newcomer");
    window.wait_for("Be @newcomer?");
    window.press("Enter");
    window.wait_for("Invitation for @newcomer");
    // Another name needs a code too.
    window.press("Escape");
    window.wait_for("Welcome to recado");
    window.enter("latecomer");
    window.wait_for("Be @latecomer?");
    window.press("Enter");
    window.wait_for("Invitation for @latecomer");
    window.enter(spent.trim());
    window.wait_for(&format!("{} is mistyped, used up", spent.trim()));
    let code = admin(&cluster, node, &["invite"]);
    window.enter(code.trim());
    window.wait_for("You are @latecomer");
    window.press("C-c");
    window.wait_for("ENDED 0");
    window.enter("clear; recado; echo ENDED $?");
    window.wait_for("You are @latecomer");
}

#[test]
fn a_key_that_must_be_allowed_is_shown_on_the_screen_and_connects_once_it_is() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let (cluster, node) = admitting("keys");
    let window = tmux.window(&cluster, "newcomer", &listed(&cluster));
    window.enter("clear; recado --as newcomer; echo ENDED $?");
    let screen = window.wait_for("Not allowed yet");
    let is_key = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = screen.split_whitespace().find(is_key).expect("the whole key");
    admin(&cluster, node, &["allow", key]);
    window.press("y");
    window.wait_for("You are @newcomer");
}

#[test]
fn the_demo_sends_notifications_and_its_bots_follow_nobody_afterwards() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let terminal = Terminal::new(&cluster);
    let output = terminal.ok(&["demo", "--bots", "3", "--count", "4", "--every", "30ms"]);
    assert!(output.contains("12 notifications were sent and acknowledged"), "{output}");
    terminal.ok(&["--as=eve", "claim"]);
    let channels = terminal.ok(&["--as=eve", "channels"]);
    assert!(channels.contains("#demo-ops") && channels.contains("#demo-deploys"), "{channels}");
    let followers = terminal.json(&["--as=eve", "info", "@demo.ada", "--json"]);
    assert_eq!(followers[0]["followers"], 0);
    // The demo keeps the keys of its names, so it can run again.
    terminal.ok(&["demo", "--bots", "2", "--count", "1", "--every", "1ms"]);
}

#[test]
fn the_screen_without_a_terminal_names_the_commands_to_use_instead() {
    let terminal = Terminal::knowing("127.0.0.1:9");
    let (code, message) = terminal.fails(&["--as=alice"]);
    assert!(code == 2 && message.contains("recado listen --json"), "{code}: {message}");
}

#[test]
fn the_configuration_begins_with_a_sample_and_is_never_replaced() {
    let terminal = Terminal::knowing("127.0.0.1:9");
    let path = terminal.ok(&["config", "init"]);
    assert!(std::fs::read_to_string(path.trim()).unwrap().contains("#theme = \"dark\""));
    let (code, message) = terminal.fails(&["config", "init"]);
    assert!(code == 1 && message.contains("left as it is"), "{message}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(terminal.ok(&["completions", shell]).contains("recado"));
    }
    assert!(terminal.ok(&["man"]).contains(".TH recado 1"));
}

#[test]
fn prose_in_the_list_is_text_and_a_mistyped_channel_is_asked_about() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(3);
    let alice = tmux.window(&cluster, "alice", &listed(&cluster));
    alice.enter("clear; recado --as alice; echo ENDED $?");
    // A start with servers never says that there are none.
    let started = alice.wait_until("connected", |screen| {
        assert!(!screen.contains("no server answer") && !screen.contains("No server answers"), "{screen}");
        screen.contains("connected")
    });
    assert!(started.contains("WRITING"), "{started}");
    alice.enter("see https://example.com");
    alice.wait_for("@alice \u{2713}  see https");
    for command in ["/since 1h", "/search see"] {
        alice.enter(command);
        alice.wait_for("letters write");
        alice.type_in("my q");
        let screen = alice.wait_for("\u{276f} my q");
        assert!(
            screen.contains("WRITING") && !screen.contains("muted") && !screen.contains("copied"),
            "{screen}"
        );
        alice.press("C-u");
    }
    alice.enter("/send #typo hello");
    alice.wait_for("Create #typo?");
    alice.press("Escape");
    alice.wait_until("no question", |screen| !screen.contains("Create #typo?"));
    let terminal = Terminal::knowing(&listed(&cluster));
    terminal.ok(&["--as=eve", "claim"]);
    assert!(!terminal.ok(&["--as=eve", "channels"]).contains("typo"));
    alice.press("Enter");
    alice.wait_for("Create #typo?");
    alice.press("y");
    alice.wait_for("created #typo: there was no such channel");
    alice.type_in("not sent yet");
    alice.press("C-c");
    alice.wait_for("would be lost");
    alice.press("Escape");
    alice.wait_for("\u{276f} not sent yet");
    alice.press("C-c");
    alice.press("C-c");
    alice.wait_for("ENDED 0");
}

#[test]
fn flags_and_families_leave_nothing_behind() {
    let _shared = beside_other_clusters();
    let Some(tmux) = Tmux::start() else { return };
    let cluster = Cluster::ready(3);
    let alice = tmux.window(&cluster, "alice", &listed(&cluster));
    open(&alice, "alice");
    let text = "\u{1f1e7}\u{1f1f7}\u{1f1e9}\u{1f1ea} \u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{1f44d}\u{1f3fd} tail";
    alice.enter(text);
    let screen = alice.wait_for("@alice \u{2713}  BRDE");
    assert!(screen.contains("BRDE \u{1f469} \u{1f44d} tail"), "{screen}");
    // Another place stands where it was, and then the same again: drawn over, not anew.
    alice.enter("/inbox");
    let screen = alice.wait_for("Nothing had been sent here");
    assert!(!screen.contains("BR") && !screen.contains('\u{1f469}') && !screen.contains("tail"), "{screen}");
    alice.enter("/go");
    alice.wait_for("BRDE \u{1f469} \u{1f44d} tail");
    let terminal = Terminal::knowing(&listed(&cluster));
    terminal.ok(&["--as=eve", "claim"]);
    let past = terminal.json(&["--as=eve", "history", "@alice", "--json"]);
    assert_eq!(past[0]["body"], text, "what is sent is what was typed");
}

/// Returns true if the shell waits for a command. An older prompt above the last line does not count.
fn is_prompt(screen: &str) -> bool {
    screen.trim_end().lines().last() == Some("READY>")
}
