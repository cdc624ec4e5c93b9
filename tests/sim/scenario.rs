//! Transcripts: a script in a small language, and the log of role changes and deliveries that it must
//! produce.
//!
//! ```text
//! servers 1 2 3                 client ann                 ann follow #ops
//! run 400ms                     ann send #ops hello        ann crash | ann start
//! crash 3 | power 3 | start 3   pause 2 300ms              stop 3 | wipe 3
//! cut 1 2 | cut 1 -> 2          isolate 3 | heal           expect primary 2
//! clock 3 60000ms               // the wall clock of server 3 jumps, back if below zero
//! preempt                       snapshots 200ms            (the last two before `servers`)
//! damage 1 middle | damage 1 head | damage 1 file           // the newest log of a stopped server 1
//! copy 1 | put back 1           expect nobody | expect 1 waits for 3
//! ----
//! the lines expected
//! ```

use std::path::Path;
use std::time::Duration;

use recado::config::{PlantedBug, Preempt};
use recado::server::engine::Input;
use recado_client::machine::Request;
use recado_proto::id::{NodeId, Topic};
use recado_proto::packet::{FollowChange, RoleName};

use crate::checkers;
use crate::client::{Client, ClientProfile, Outcome};
use crate::disk::{Damage, Extent, MemDisk};
use crate::fault_execution::DueFault;
use crate::faults::{Fault, MS, Plan, Target};
use crate::history::ClientId;
use crate::network::{Host, Micros};
use crate::population;
use crate::server::{Death, DiskSpeed, Server};
use crate::storage::Storage;
use crate::world::{Event, World};

/// The down time of a process that only the script restarts.
const FOREVER: Micros = 3_600_000 * MS;

/// Runs the script in this file and compares the transcript. `UPDATE_EXPECT=1` rewrites the expected lines.
///
/// # Errors
/// The difference, or the line of the script that cannot be parsed or does not hold.
pub fn play(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (script, expected) = text.split_once("----\n").unwrap_or((&text, ""));
    let mut stage = ScenarioRun::new();
    for (number, line) in script.lines().enumerate() {
        let line = line.split("//").next().unwrap_or("").trim();
        if !line.is_empty() {
            stage.line(line).map_err(|error| {
                let so_far = stage.world.lines.join("\n");
                format!("{}:{}: {line}: {error}\nso far:\n{so_far}", path.display(), number + 1)
            })?;
        }
    }
    checkers::check(&stage.world.history)
        .map_err(|error| format!("{error}\nso far:\n{}", stage.world.lines.join("\n")))?;
    let mut told = stage.world.lines.join("\n");
    told.push('\n');
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return std::fs::write(path, format!("{script}----\n{told}")).map_err(|error| error.to_string());
    }
    if told == expected {
        return Ok(());
    }
    Err(format!("{} tells\n{told}\ninstead of\n{expected}", path.display()))
}

struct ScenarioRun {
    world: World,
    preempt: bool,
    snapshots: Option<Duration>,
    copy: Option<MemDisk>,
}

impl ScenarioRun {
    fn new() -> ScenarioRun {
        ScenarioRun { world: World::new(Plan::quiet(), false), preempt: false, snapshots: None, copy: None }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["preempt"] => self.preempt = true,
            ["snapshots", every] => self.snapshots = Some(Duration::from_micros(time(every)?)),
            ["servers", ids @ ..] => self.servers(ids)?,
            ["client", name] => self.client(name),
            ["run", time_] => self.world.run_for(time(time_)?)?,
            ["expect", "primary", id] => self.expect_primary(node(id)?)?,
            ["expect", "nobody"] => {
                if let Some(server) = self.world.servers.values().find(|server| leads(server)) {
                    return Err(format!("{} leads", server.id));
                }
            }
            ["expect", id, "waits", "for", other] => {
                let told = format!("{} waits for {:?}", node(id)?, [node(other)?]);
                if !self.world.lines.contains(&told) {
                    return Err(format!("nobody said: {told}"));
                }
            }
            ["damage", id, what] => {
                let (middle, extent, rot) = match *what {
                    "middle" => (true, Extent::ToEnd, Damage::Zeroed),
                    "head" => (false, Extent::Block, Damage::Garbled),
                    "file" => (false, Extent::Whole, Damage::Gone),
                    _ => return Err("what is damaged?".into()),
                };
                let rng = &mut self.world.rng;
                let server = self.world.servers.get_mut(&node(id)?).filter(|server| !server.alive());
                server.ok_or("it runs")?.storage.damage_newest(rng, middle, extent, rot);
            }
            ["copy", id] => {
                self.copy = self.world.servers.get(&node(id)?).map(|server| server.storage.copy())
            }
            ["put", "back", id] => {
                let server = self.world.servers.get_mut(&node(id)?).filter(|server| !server.alive());
                server.ok_or("it runs")?.put_back(self.copy.as_ref().ok_or("no copy")?);
                self.world.set_back(node(id)?);
            }
            ["crash", id] => self.kill(id, false)?,
            ["power", id] => self.kill(id, true)?,
            ["wipe", id] => self.strike(Fault::Wipe(Target::Server(node(id)?), FOREVER))?,
            ["start", id] => self.world.after(0, Event::Start(node(id)?)),
            ["stop", id] => {
                self.world.with_server(node(id)?, |server, step| server.on_input(step, Input::Stop))?;
            }
            ["pause", id, lasts] => self.strike(Fault::Pause(Target::Server(node(id)?), time(lasts)?))?,
            ["clock", id, jump] => {
                let ms = jump.strip_suffix("ms").and_then(|ms| ms.parse().ok()).ok_or("how far?")?;
                self.strike(Fault::Clock(Target::Server(node(id)?), ms))?;
            }
            ["isolate", id] => {
                let me = node(id)?;
                for other in self.world.servers.keys().filter(|other| **other != me) {
                    self.world.network.cut(Host::Server(me), Host::Server(*other));
                }
            }
            ["cut", from, "->", to] => {
                self.world.network.cut_one_way(Host::Server(node(from)?), Host::Server(node(to)?));
            }
            ["cut", one, other] => {
                self.world.network.cut(Host::Server(node(one)?), Host::Server(node(other)?))
            }
            ["heal"] => self.world.network.heal(self.world.now),
            [name, "crash"] => {
                let id = self.find(name)?;
                self.world.with_client(id, |client, _, history| {
                    client.crash(history);
                    Outcome::default()
                })?;
            }
            [name, "start"] => {
                let id = self.find(name)?;
                self.world.after(0, Event::ClientStart(id));
            }
            [name, verb @ ("follow" | "unfollow"), topic] => {
                let topic = Topic::to_follow(topic).map_err(|error| error.to_string())?;
                let change = if *verb == "follow" { FollowChange::Add } else { FollowChange::Remove };
                self.ask(name, Request::Follow { topic, change })?;
            }
            [name, "send", topic, text @ ..] => {
                let topic = match *topic {
                    "feed" => None,
                    other => Some(Topic::to_send(other).map_err(|error| error.to_string())?),
                };
                let id = self.find(name)?;
                let ask = self.world.clients[&id].send_text(topic, text.join(" "));
                self.ask(name, ask)?;
            }
            _ => return Err("no such line".into()),
        }
        Ok(())
    }

    fn servers(&mut self, ids: &[&str]) -> Result<(), String> {
        for id in ids {
            let mut config = population::config(ids.len() as u16, node(id)?, PlantedBug::default());
            config.preempt = if self.preempt { Preempt::Graceful } else { Preempt::Off };
            config.snapshot_every = self.snapshots.unwrap_or(config.snapshot_every);
            let storage = Storage::initialised(&config);
            self.world.add_server(Server::new(config, storage, DiskSpeed { sync: self.world.plan.sync }));
        }
        Ok(())
    }

    fn client(&mut self, name: &str) {
        let id = self.world.clients.len() as u8 + 1;
        let character = ClientProfile::plain(name, id);
        let rng = self.world.rng.fork();
        self.world.add_client(Client::new(ClientId(id), character, rng), 0);
    }

    fn find(&self, name: &str) -> Result<u8, String> {
        let named = |client: &&Client| client.character.profile.as_str() == name;
        self.world.clients.values().find(named).map(|client| client.id.0).ok_or(format!("who is {name}?"))
    }

    fn ask(&mut self, name: &str, ask: Request) -> Result<(), String> {
        let id = self.find(name)?;
        self.world.with_client(id, |client, now, history| client.ask(now, ask, history))
    }

    fn strike(&mut self, fault: Fault) -> Result<(), String> {
        DueFault(fault).strike(&mut self.world)
    }

    fn kill(&mut self, id: &str, power: bool) -> Result<(), String> {
        self.strike(Fault::Crash(Target::Server(node(id)?), Death { power, down: FOREVER }))
    }

    fn expect_primary(&self, wanted: NodeId) -> Result<(), String> {
        let primaries: Vec<NodeId> = self
            .world
            .servers
            .values()
            .filter(|server| server.role() == Some(RoleName::Primary))
            .map(|server| server.id)
            .collect();
        if primaries == [wanted] { Ok(()) } else { Err(format!("primary is {primaries:?}")) }
    }
}

fn leads(server: &Server) -> bool {
    matches!(server.role(), Some(RoleName::Primary | RoleName::Isolated))
}

fn node(text: &str) -> Result<NodeId, String> {
    text.parse().map(NodeId).map_err(|_| format!("{text} is no server"))
}

fn time(text: &str) -> Result<Micros, String> {
    let ms = text.strip_suffix("ms").and_then(|number| number.parse::<u64>().ok());
    ms.map(|ms| ms * MS).ok_or(format!("{text} is no time in ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(stage: &mut ScenarioRun, story: &str) {
        for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
            stage.line(line).unwrap_or_else(|why| panic!("{line}: {why}\n{}", stage.world.lines.join("\n")));
        }
    }

    /// The newest log of one server is damaged after an orderly stop. The only other server with an undamaged
    /// log of everything acknowledged is down. The two that are left must wait for it.
    fn the_end_of_a_log_is_lost(what: &str) {
        let mut stage = ScenarioRun::new();
        tell(
            &mut stage,
            "servers 1 2 3
             client ann
             client bob
             run 1500ms
             ann send #ops first
             run 200ms
             bob follow #ops
             run 400ms
             crash 2
             run 200ms",
        );
        for text in 0..40 {
            tell(&mut stage, &format!("ann send #ops {text}\nrun 20ms"));
        }
        tell(&mut stage, "run 600ms\nstop 1\nrun 100ms");
        tell(&mut stage, &format!("damage 1 {what}"));
        tell(
            &mut stage,
            "crash 3
             start 2
             run 4000ms
             expect nobody
             expect 1 waits for 3
             start 3
             run 4000ms",
        );
        let world = &stage.world;
        assert_eq!(world.servers.values().filter(|server| leads(server)).count(), 1, "{what}");
        checkers::all_answered(&world.history).unwrap();
        checkers::check(&world.history).unwrap();
        let delivered = |happened: &&crate::history::ClientEvent| {
            matches!(happened, crate::history::ClientEvent::Delivered { .. })
        };
        let seen = world.history.of(ClientId(2)).filter(delivered).count();
        assert_eq!(seen, 40, "{what}: what was acknowledged is there\n{}", world.lines.join("\n"));
    }

    #[test]
    fn servers_wait_for_the_one_that_has_what_damage_took_from_the_middle() {
        the_end_of_a_log_is_lost("middle");
    }

    #[test]
    fn servers_wait_for_the_one_that_has_what_damage_took_from_the_head() {
        the_end_of_a_log_is_lost("head");
    }

    #[test]
    fn servers_wait_for_the_one_that_has_what_was_in_a_lost_file() {
        the_end_of_a_log_is_lost("file");
    }

    /// An attacker that answers HELLOs faster than the servers cannot keep a client from servers that have
    /// restarted.
    #[test]
    fn a_client_goes_on_with_servers_that_start_again_while_all_its_hellos_are_answered_by_a_forger() {
        for before in 1..=3 {
            let mut stage = ScenarioRun::new();
            tell(
                &mut stage,
                "servers 1 2 3
                 client ann
                 run 1500ms",
            );
            stage.strike(Fault::ForgeRetry { before, lasts: FOREVER }).unwrap();
            for boot in 0..3 {
                tell(
                    &mut stage,
                    "crash 1
                     crash 2
                     crash 3
                     start 1
                     start 2
                     start 3
                     run 1500ms",
                );
                tell(&mut stage, &format!("ann send #ops {boot}\nrun 1500ms"));
                let lines = || stage.world.lines.join("\n");
                checkers::all_answered(&stage.world.history)
                    .unwrap_or_else(|why| panic!("{before} lies, boot {boot}: {why}\n{}", lines()));
                let told = format!("ann: request {} acknowledged", boot + 1);
                assert!(stage.world.lines.contains(&told), "{before} lies, boot {boot}\n{}", lines());
            }
        }
    }

    /// The servers ignore a server on an older copy of its directory, made before a start that they have
    /// heard of. That holds also for servers that have restarted since. After one start the copy counts up to
    /// the incarnation that they know, and only the boot id tells the two boots apart.
    #[test]
    fn a_directory_put_back_from_an_older_copy_is_shut_out() {
        for starts in [1, 2] {
            let mut stage = ScenarioRun::new();
            tell(&mut stage, "servers 1 2 3\nrun 800ms\ncrash 1\nrun 100ms\ncopy 1");
            for _ in 1..starts {
                tell(&mut stage, "start 1\nrun 500ms\ncrash 1");
            }
            tell(
                &mut stage,
                "start 1
                 run 500ms
                 crash 3
                 run 1500ms
                 start 3
                 run 500ms
                 crash 1
                 crash 2
                 crash 3
                 put back 1
                 start 1
                 start 2
                 start 3
                 run 3000ms",
            );
            let told = |line: &String| line.contains("hears server-1 in boot");
            assert!(stage.world.lines.iter().any(told), "{starts}: {}", stage.world.lines.join("\n"));
            assert_ne!(stage.world.servers[&NodeId(1)].role(), Some(RoleName::Primary), "{starts}");
        }
    }
}
