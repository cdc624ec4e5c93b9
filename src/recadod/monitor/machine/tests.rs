//! Tests of the monitor's decisions on servers that are made up, on virtual time.

use proptest::prelude::*;

use super::*;

const HANG: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn node(id: u16) -> NodeId {
    NodeId(id)
}

/// What is in a server's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Kept,
    Lost,
    Unmounted,
}

/// How a process behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It reads its data, and does not answer yet.
    Starts,
    Answers,
    CatchesUp,
    /// It answers that its replica thread has taken no turn.
    Stuck,
    /// It does not answer.
    Stopped,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    running: Running,
    mood: Mood,
    mood_since: Moment,
    /// True if it was catching up when it last answered.
    told_catching_up: bool,
    has_answered: bool,
    turns: u64,
    since: Moment,
}

#[derive(Clone, Debug)]
struct Place {
    data: Data,
    process: Option<Process>,
    /// A process that does not say who it is has the lock.
    is_taken: bool,
    fsync: Duration,
    /// The end of its last process, the time that ran, and the pause that was then due.
    ended: Option<(Moment, Duration, Duration)>,
    starts: u64,
}

/// A machine, its servers, and what is checked of every effect.
struct World {
    now: Moment,
    monitor: Machine,
    places: BTreeMap<NodeId, Place>,
    members: usize,
    /// What a new process of a server does first.
    first_mood: Mood,
    pids: u32,
    said: Vec<String>,
    /// Servers that were killed for a hang, when, and whether one answered again since.
    killed: Vec<(NodeId, Moment, bool)>,
    is_stopping: bool,
}

impl World {
    fn new(servers: u16, members: usize) -> World {
        let now = Moment(1_000_000_000);
        let place =
            Place { data: Data::Kept, process: None, is_taken: false, fsync: MS, ended: None, starts: 0 };
        let places: BTreeMap<_, _> = (1..=servers).map(|id| (node(id), place.clone())).collect();
        let monitor = Machine::new(clock(now), places.keys().map(|id| (*id, false)), HANG);
        World {
            now,
            monitor,
            places,
            members,
            first_mood: Mood::Answers,
            pids: 100,
            said: Vec::new(),
            killed: Vec::new(),
            is_stopping: false,
        }
    }

    /// As [`World::new`], with every server running.
    fn running(servers: u16) -> World {
        let mut world = World::new(servers, servers.into());
        world.pass(S * 5);
        assert!(world.places.values().all(|place| place.process.is_some()));
        world
    }

    fn place(&mut self, id: u16) -> &mut Place {
        self.places.get_mut(&node(id)).unwrap()
    }

    fn process(&mut self, id: u16) -> &mut Process {
        self.place(id).process.as_mut().unwrap()
    }

    fn runs(&self, id: u16) -> bool {
        self.places[&node(id)].process.is_some()
    }

    fn view(&self, id: u16) -> ServerView {
        self.monitor.view().into_iter().find(|server| server.id == id).unwrap()
    }

    fn has_said(&self, words: &str) -> bool {
        self.said.iter().any(|line| line.contains(words))
    }

    /// A new process of a server, which nobody has to have started.
    fn new_process(&mut self, id: NodeId) -> Running {
        self.pids += 1;
        let running = Running { pid: self.pids, started: self.now.0 };
        let (mood, since) = (self.first_mood, self.now);
        let place = self.places.get_mut(&id).unwrap();
        assert_eq!(place.process.map(|process| process.running), None, "two copies of {id}");
        place.starts += 1;
        place.process = Some(Process {
            running,
            mood,
            mood_since: since,
            told_catching_up: false,
            has_answered: false,
            turns: 0,
            since,
        });
        running
    }

    /// Lets time pass; the monitor looks whenever it says so.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.look();
            let due = self.monitor.next_deadline().unwrap_or(end);
            if due >= end {
                break;
            }
            self.now = due.max(self.now + MS);
        }
        self.now = end;
        self.look();
    }

    /// Lets time pass in which the monitor stands still.
    fn stand_still(&mut self, time: Duration) {
        self.now = self.now + time;
        self.look();
    }

    fn look(&mut self) {
        for _ in 0..2 {
            let mut effects = Vec::new();
            self.monitor.on_time(clock(self.now), &mut effects);
            self.perform(effects);
        }
    }

    fn handle(&mut self, id: NodeId, event: Event) {
        let mut effects = Vec::new();
        self.monitor.handle(clock(self.now), id, event, &mut effects);
        self.perform(effects);
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        let mut effects = Vec::new();
        self.monitor.stop(clock(self.now), &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Say(line) => self.said.push(line),
                Effect::Look(id) => {
                    let found = self.found(id);
                    self.handle(id, Event::Found(found));
                }
                Effect::Start { server, makes_data } => {
                    assert!(!self.is_stopping, "{server} is started at the end");
                    let now = self.now;
                    let place = self.places.get_mut(&server).unwrap();
                    assert_eq!(makes_data, place.data == Data::Lost, "{server}");
                    assert_ne!(place.data, Data::Unmounted, "{server}");
                    if let Some((ended, _, pause)) = place.ended {
                        let waited = now.since(ended);
                        assert!(waited >= pause, "{server} waited {waited:?} of {pause:?}");
                    }
                    place.data = Data::Kept;
                    let running = self.new_process(server);
                    self.handle(server, Event::Started(running));
                }
                Effect::Ask(id) => {
                    let place = self.places.get_mut(&id).unwrap();
                    let fsync = place.fsync;
                    let process = place.process.as_mut().expect("only who runs is asked");
                    let catches_up = process.mood == Mood::CatchesUp;
                    match process.mood {
                        Mood::Starts | Mood::Stopped => continue,
                        Mood::Stuck => {}
                        Mood::Answers | Mood::CatchesUp => process.turns += 1,
                    }
                    (process.told_catching_up, process.has_answered) = (catches_up, true);
                    let answer = Answer { turns: process.turns, catches_up, fsync };
                    if !catches_up {
                        let again = self.killed.iter_mut().filter(|(killed, ..)| *killed == id);
                        again.for_each(|(_, _, is_back)| *is_back = true);
                    }
                    self.handle(id, Event::Answered(answer));
                }
                Effect::Stop(id) => {
                    assert!(self.is_stopping);
                    // A stuck one does not take it.
                    if self.places[&id].process.is_some_and(|process| process.mood != Mood::Stuck) {
                        self.end(id, Ended::Code(0));
                    }
                }
                Effect::Kill(id) => self.on_kill(id),
            }
        }
    }

    fn on_kill(&mut self, id: NodeId) {
        let place = &self.places[&id];
        let process = place.process.expect("only who runs is killed");
        if !self.is_stopping {
            assert!(process.has_answered, "{id} had not answered yet");
            assert!(!process.told_catching_up, "{id} was catching up");
            let now = self.now;
            let is_heard = process.mood == Mood::Answers && now.since(process.mood_since) > LATE;
            assert!(!is_heard, "{id} answers");
            for (other, at, is_back) in &self.killed {
                assert!(*is_back || now.since(*at) >= TURN_MAX, "{id} is killed beside {other}");
            }
            self.killed.push((id, now, false));
        }
        self.end(id, Ended::Signal(9));
    }

    fn found(&mut self, id: NodeId) -> Found {
        let members = self.members;
        let place = &self.places[&id];
        match (place.process, place.data) {
            (Some(_), _) if place.is_taken => Found::Taken,
            (Some(process), _) => {
                let was_ready = process.has_answered && !process.told_catching_up;
                Found::Runs { process: process.running, was_ready }
            }
            (None, Data::Kept) => Found::Ready,
            (None, Data::Lost) => Found::Lost { members },
            (None, Data::Unmounted) => Found::Unusable("mount its disk".into()),
        }
    }

    /// The process of a server ends, if it has one.
    fn end(&mut self, id: NodeId, ended: Ended) {
        let now = self.now;
        let place = self.places.get_mut(&id).unwrap();
        let Some(process) = place.process.take() else { return };
        let ran = now.since(process.since);
        let before = place.ended.map_or(Duration::ZERO, |(_, _, pause)| pause);
        let mut pause = if ran >= HEALTHY { PAUSE } else { (before * 2).clamp(PAUSE, PAUSE_MAX) };
        if ended == Ended::Code(BAD_CONFIG) {
            pause = PAUSE_MAX;
        }
        // A monitor that has just begun did not see it run.
        let is_seen = self.monitor.servers[&id].process().is_some();
        place.ended = is_seen.then_some((now, ran, pause));
        self.handle(id, Event::Ended(ended));
    }
}

fn clock(now: Moment) -> Clock {
    Clock { now, unix_ms: 1_800_000_000_000 + now.0 / 1000 }
}

#[test]
fn a_server_that_dies_is_started_again_after_a_pause_that_doubles_up_to_a_minute() {
    let mut world = World::running(3);
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        world.end(node(1), Ended::Signal(9));
        assert!(world.has_said(&format!("exited; restarting it in {pause} s.")), "{:?}", world.said);
        world.said.clear();
        world.pass(S * pause - MS);
        assert!(!world.runs(1), "after less than {pause} s");
        assert_eq!(world.view(1).state, Shown::Waits);
        world.pass(MS * 2);
        assert!(world.runs(1) && world.has_said("server-1 runs again"));
    }
    assert_eq!((world.view(1).restarts, world.view(1).exit.unwrap().how.as_str()), (7, "signal 9"));
    // A minute of running makes the pause the first one again.
    world.pass(HEALTHY);
    world.end(node(1), Ended::Code(1));
    world.pass(PAUSE + MS);
    assert!(world.runs(1));
    assert!(world.places.values().skip(1).all(|place| place.starts == 1), "the others are left alone");
}

#[test]
fn a_server_that_cannot_run_on_its_files_is_tried_again_each_minute_and_the_reason_is_shown() {
    let mut world = World::running(1);
    world.end(node(1), Ended::Code(78));
    assert!(world.view(1).reason.unwrap().contains("exit code 78"));
    world.pass(PAUSE_MAX - MS);
    assert!(!world.runs(1));
    world.pass(MS * 2);
    assert!(world.runs(1));
    assert_eq!(world.view(1).reason, None);
}

#[test]
fn a_server_that_is_silent_is_killed_and_started_and_one_that_answers_is_not() {
    for mood in [Mood::Stopped, Mood::Stuck] {
        let mut world = World::running(3);
        world.process(2).mood = mood;
        world.pass(HANG - S);
        assert_eq!((world.killed.len(), world.view(2).hangs), (0, 0));
        world.pass(S * 3);
        assert_eq!((world.killed.len(), world.view(2).hangs), (1, 1), "{:?}", world.said);
        assert!(world.has_said("server-2 (pid 102) hangs"), "{:?}", world.said);
        world.pass(PAUSE + MS);
        assert!(world.runs(2));
        assert_eq!(world.view(2).state, Shown::Runs);
        world.pass(S * 600);
        assert_eq!(world.killed.len(), 1);
    }
}

#[test]
fn a_server_on_a_slow_disk_is_waited_for_as_long_as_four_of_its_fsyncs_take() {
    let mut world = World::running(3);
    world.place(2).fsync = S * 5;
    world.pass(S * 2);
    world.process(2).mood = Mood::Stopped;
    world.pass(S * 19);
    assert_eq!(world.killed.len(), 0);
    world.pass(S * 4);
    assert_eq!(world.killed.len(), 1);
}

#[test]
fn a_server_that_starts_or_catches_up_is_never_killed() {
    let mut world = World::running(3);
    world.process(1).mood = Mood::CatchesUp;
    world.pass(S * 2);
    assert_eq!(world.view(1).state, Shown::CatchesUp);
    world.process(1).mood = Mood::Stopped;
    world.first_mood = Mood::Starts;
    world.end(node(2), Ended::Code(1));
    world.pass(S * 3600);
    assert_eq!((world.killed.len(), world.view(2).state), (0, Shown::Starts));
}

#[test]
fn servers_that_hang_together_are_killed_one_after_the_other() {
    let mut world = World::running(3);
    for id in 1..=3 {
        world.process(id).mood = Mood::Stopped;
    }
    world.pass(HANG + S * 2);
    assert_eq!(world.killed.len(), 1);
    // The next one is killed when the first is back.
    world.pass(PAUSE + S);
    assert_eq!(world.killed.len(), 2);
    // If it is not back, the next one is not left for ever.
    let (second, ..) = world.killed[1];
    world.first_mood = Mood::Starts;
    world.pass(PAUSE + S);
    assert!(world.places[&second].process.is_some_and(|process| process.mood == Mood::Starts));
    world.pass(TURN_MAX - S * 5);
    assert_eq!(world.killed.len(), 2);
    world.pass(S * 5);
    assert_eq!(world.killed.len(), 3);
}

#[test]
fn a_monitor_that_stood_still_blames_nobody() {
    let mut world = World::running(3);
    for _ in 0..100 {
        world.stand_still(HANG * 5);
    }
    assert_eq!(world.killed.len(), 0);
}

#[test]
fn a_server_that_runs_already_is_adopted_and_one_that_hung_before_is_killed() {
    let mut world = World::new(3, 3);
    for id in 1..=3 {
        world.new_process(node(id));
    }
    world.process(1).has_answered = true;
    world.process(1).mood = Mood::Stopped;
    world.process(2).mood = Mood::Stopped;
    world.pass(S);
    assert!(world.has_said("server-1 runs already (pid 101); it is adopted."), "{:?}", world.said);
    assert_eq!(world.view(3).process.unwrap().pid, 103);
    world.pass(HANG * 3);
    // Nobody knows of the second whether it had ended its start.
    assert_eq!(world.killed.iter().map(|(id, ..)| id.0).collect::<Vec<_>>(), [1]);
    assert!(world.places.values().all(|place| place.process.is_some()));
}

#[test]
fn a_directory_that_another_process_has_is_waited_for() {
    let mut world = World::new(3, 3);
    world.new_process(node(2));
    world.place(2).is_taken = true;
    world.pass(S * 60);
    assert_eq!((world.place(2).starts, world.view(2).state), (1, Shown::Waits));
    assert!(world.view(2).reason.unwrap().contains("has the lock"));
    assert_eq!(world.said.iter().filter(|line| line.contains("has the lock")).count(), 1, "told once");
    world.place(2).process = None;
    world.pass(LOOK_EVERY + MS);
    assert!(world.runs(2));
}

#[test]
fn a_server_whose_data_are_lost_begins_as_a_learner_if_enough_others_have_a_vote() {
    let mut world = World::running(3);
    world.place(3).data = Data::Lost;
    world.first_mood = Mood::CatchesUp;
    world.end(node(3), Ended::Code(1));
    world.pass(PAUSE + S);
    assert!(world.runs(3) && world.has_said("server-3: its data are lost. It begins with none"));
    assert!(world.view(3).learns);
    // While it learns the second one could not learn from two.
    world.place(2).data = Data::Lost;
    world.end(node(2), Ended::Code(1));
    world.pass(S * 60);
    assert!(!world.runs(2));
    let reason = world.view(2).reason.unwrap();
    assert!(reason.contains("2 other servers with a vote") && reason.contains("at most 1"), "{reason}");
    world.process(3).mood = Mood::Answers;
    world.pass(LOOK_EVERY * 2);
    assert!(world.runs(2) && !world.view(3).learns);
}

#[test]
fn what_no_other_server_can_tell_is_not_made_anew() {
    for servers in [1, 2] {
        let mut world = World::new(servers, servers.into());
        world.place(1).data = Data::Lost;
        world.pass(S * 600);
        let reason = world.view(1).reason.unwrap();
        assert!(!world.runs(1) && reason.contains("its data are lost"), "{reason}");
        assert_eq!(world.said.iter().filter(|line| line.contains("server-1")).count(), 1, "{:?}", world.said);
    }
    // Of three, two are lost at once, and found one after the other.
    let mut world = World::new(3, 3);
    (world.place(1).data, world.place(3).data) = (Data::Lost, Data::Lost);
    world.pass(S * 60);
    assert_eq!([1, 2, 3].map(|id| world.runs(id)), [false, true, false]);
    // On three machines the others are not known to be lost.
    let mut world = World::new(1, 3);
    world.place(1).data = Data::Lost;
    world.pass(S);
    assert!(world.runs(1));
}

#[test]
fn a_disk_that_is_not_mounted_is_waited_for() {
    let mut world = World::new(3, 3);
    world.place(1).data = Data::Unmounted;
    world.pass(S * 60);
    assert!(!world.runs(1) && world.view(1).reason.unwrap().contains("mount"));
    world.place(1).data = Data::Kept;
    world.pass(LOOK_EVERY + MS);
    assert!(world.runs(1));
}

#[test]
fn all_servers_are_stopped_in_order_and_who_does_not_stop_is_killed() {
    let mut world = World::running(3);
    world.stop();
    assert!(world.monitor.has_ended() && world.has_said("All servers stopped."));
    assert!(world.monitor.view().iter().all(|server| server.state == Shown::Stopped));

    let mut world = World::running(3);
    world.process(2).mood = Mood::Stuck;
    world.place(1).data = Data::Unmounted;
    world.end(node(1), Ended::Code(1));
    world.stop();
    assert!(!world.monitor.has_ended() && world.view(2).state == Shown::Stops);
    world.pass(STOP_WITHIN - MS);
    assert!(world.runs(2) && !world.monitor.has_ended());
    world.pass(MS * 2);
    assert!(
        !world.runs(2) && world.monitor.has_ended() && world.has_said("were killed. Nothing acknowledged")
    );
    assert!(!world.has_said("All servers stopped."));
}

/// Something that happens to a server, or to the monitor.
#[derive(Clone, Debug)]
enum Happens {
    Ends(u16, i32),
    Mood(u16, Mood),
    Data(u16, Data),
    Fsync(u16, u64),
    FirstMood(Mood),
    Passes(u64),
    StandsStill(u64),
    Monitor,
}

fn happens() -> impl Strategy<Value = Happens> {
    let mood = || {
        prop_oneof![
            3 => Just(Mood::Answers),
            1 => Just(Mood::CatchesUp),
            2 => Just(Mood::Stopped),
            2 => Just(Mood::Stuck),
            1 => Just(Mood::Starts),
        ]
    };
    let data = prop_oneof![2 => Just(Data::Kept), 1 => Just(Data::Lost), 1 => Just(Data::Unmounted)];
    let server = || 1..=3u16;
    prop_oneof![
        3 => (server(), prop_oneof![Just(0), Just(1), Just(78)]).prop_map(|(id, code)| Happens::Ends(id, code)),
        3 => (server(), mood()).prop_map(|(id, mood)| Happens::Mood(id, mood)),
        1 => (server(), data).prop_map(|(id, data)| Happens::Data(id, data)),
        1 => (server(), 0..5_000u64).prop_map(|(id, ms)| Happens::Fsync(id, ms)),
        1 => mood().prop_map(Happens::FirstMood),
        4 => (0..90_000u64).prop_map(Happens::Passes),
        1 => (0..90_000u64).prop_map(Happens::StandsStill),
        1 => Just(Happens::Monitor),
    ]
}

proptest! {
    /// Never two copies of a server; never two killed for hanging at once; none that starts, catches up or
    /// answers; no pause shorter than it has to be: [`World`] checks it at every effect.
    #[test]
    fn whatever_happens_the_rules_of_the_monitor_hold(all in prop::collection::vec(happens(), 1..60)) {
        let mut world = World::running(3);
        for one in all {
            match one {
                Happens::Ends(id, code) => world.end(node(id), Ended::Code(code)),
                Happens::Mood(id, mood) => {
                    let now = world.now;
                    if let Some(process) = world.place(id).process.as_mut().filter(|one| one.mood != mood) {
                        (process.mood, process.mood_since) = (mood, now);
                    }
                }
                Happens::Data(id, data) => world.place(id).data = data,
                Happens::Fsync(id, ms) => world.place(id).fsync = MS * ms as u32,
                Happens::FirstMood(mood) => world.first_mood = mood,
                Happens::Passes(ms) => world.pass(MS * ms as u32),
                Happens::StandsStill(ms) => world.stand_still(MS * ms as u32),
                // It dies, and another one begins with what it finds.
                Happens::Monitor => {
                    let learn: Vec<_> = world.monitor.view().iter().map(|one| (node(one.id), one.learns)).collect();
                    world.monitor = Machine::new(clock(world.now), learn, HANG);
                    world.killed.clear();
                    world.places.values_mut().for_each(|place| place.ended = None);
                }
            }
        }
        // Once every server can run, all of them do, in bounded time.
        world.first_mood = Mood::Answers;
        let now = world.now;
        for place in world.places.values_mut() {
            place.data = Data::Kept;
            place.fsync = MS;
            if let Some(process) = &mut place.process {
                (process.mood, process.mood_since) = (Mood::Answers, now);
            }
        }
        world.pass(PAUSE_MAX + LOOK_EVERY + S);
        prop_assert!(world.monitor.view().iter().all(|one| one.state == Shown::Runs), "{:#?}", world.monitor);
        // And they are left alone from then on.
        let starts: Vec<u64> = world.places.values().map(|place| place.starts).collect();
        world.pass(S * 300);
        prop_assert_eq!(starts, world.places.values().map(|place| place.starts).collect::<Vec<_>>());
    }
}
