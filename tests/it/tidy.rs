//! Checks the sources against rules that no compiler checks: which crate may depend on which and which module
//! may import which (tables), which names a pure module must not use, a few forbidden words, and the
//! width of comments.
//!
//! The tables below are the rules. A violation is reported with file, line and rule. To change a rule, change
//! its table and give the reason in the commit.

pub(crate) mod source;

use std::path::Path;

use source::{Source, line_of, paths_from, places_of};

/// The crates of this workspace that each crate may depend on. Cargo holds them to it.
const CRATES: &[(&str, &[&str])] = &[
    ("crates/proto", &[]),
    ("crates/service", &["recado-proto"]),
    ("crates/sys", &["recado-proto"]),
    ("crates/log", &["recado-proto", "recado-sys"]),
    ("crates/client", &["recado-proto", "recado-sys"]),
    ("crates/doctor", &["recado-client", "recado-proto", "recado-sys"]),
    ("ui", &["recado-client", "recado-doctor", "recado-proto"]),
    ("bench", &["recado-client", "recado-proto", "recado-sys"]),
    (
        "bench/counted",
        &["recado", "recado-client", "recado-doctor", "recado-log", "recado-proto", "recado-sys"],
    ),
    ("", &["recado-client", "recado-doctor", "recado-log", "recado-proto", "recado-service", "recado-sys"]),
];

/// The names that a module may use of its own crate, besides its own. A file belongs to the first row with a
/// prefix of its path; a name is a path under `crate::` and includes everything below it.
const IMPORTS: &[(&str, &[&str])] = &[
    ("crates/proto/src/id.rs", &["hex"]),
    ("crates/proto/src/entry.rs", &["id", "bulk", "open_enum"]),
    ("crates/sys/src/net", &[]),
    ("crates/sys/src/sync", &["net"]),
    ("crates/sys/src/durable.rs", &[]),
    (
        "crates/log/src/bully",
        &["config", "journal::Recovered", "journal::SnapshotPiece", "links", "ordered", "replica"],
    ),
    ("crates/log/src/links", &["config"]),
    ("crates/log/src/ordered.rs", &[]),
    ("crates/log/src/replica", &["config"]),
    ("crates/log/src/journal", &[]),
    ("crates/client/src/machine", &[]),
    ("src/fair.rs", &[]),
    ("src/config", &[]),
    ("src/delivery", &["config", "fair"]),
    ("src/server/handshake", &["config", "delivery", "fair", "server::budget"]),
    ("src/server/node", &["config", "delivery", "fair", "server::budget", "server::cost"]),
    ("src/server", &["config", "delivery", "fair"]),
];

/// The names that a module may use of another crate of this workspace, if not all: the module, the crate, the
/// names. A node runs over any log, so it knows no engine and no journal.
const IMPORTS_OF_CRATES: &[(&str, &str, &[&str])] =
    &[("src/server/node", "recado_log", &["recado_log::ordered"])];

/// The modules without socket, file, thread, lock, channel, clock, global randomness or the iteration order
/// of a hash map. The simulator drives them as the server does; the screen's tests drive its state and its
/// drawing.
const PURE: &[&str] = &[
    "crates/proto/src",
    "crates/service/src",
    "crates/log/src/bully",
    "crates/log/src/config.rs",
    "crates/log/src/links",
    "crates/log/src/ordered.rs",
    "crates/log/src/replica",
    "crates/client/src/machine",
    "crates/doctor/src/cluster",
    "crates/doctor/src/finding.rs",
    "src/fair.rs",
    "src/delivery",
    "src/recadod/monitor/machine",
    "src/server/budget.rs",
    "src/server/cost.rs",
    "src/server/node",
    "src/server/outage.rs",
    "src/server/places.rs",
    "src/server/handshake",
    "ui/src/tui/app",
    "ui/src/tui/cluster.rs",
    "ui/src/tui/command.rs",
    "ui/src/tui/connection.rs",
    "ui/src/tui/event.rs",
    "ui/src/tui/input.rs",
    "ui/src/tui/keys.rs",
    "ui/src/tui/log.rs",
    "ui/src/tui/options.rs",
    "ui/src/tui/outbox.rs",
    "ui/src/tui/palette.rs",
    "ui/src/tui/conversation.rs",
    "ui/src/tui/scroll.rs",
    "ui/src/tui/view",
];

/// Files that only tests compile, by a feature that nothing but tests enables.
const TEST_FEATURES: &[&str] = &["crates/proto/src/noise/stand_in.rs"];

/// Paths of the standard library that a pure module must not use, with everything below them.
const IMPURE_PATHS: &[&str] = &[
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process::Command",
    "std::sync::Condvar",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Words that a pure module must not use, under any path.
const IMPURE_WORDS: &[&str] = &[
    "HashMap",
    "HashSet",
    "Instant",
    "RandomState",
    "SystemTime",
    "UdpSocket",
    "crossbeam",
    "getrandom",
    "parking_lot",
    "rustix",
    "signal_hook",
    "socket2",
    "thread_local",
];

/// Crates that only `crates/sys/src/sync` may name in the libraries. Threads that bypassed it would not run
/// in the tests of interleavings.
const SEAM: &[&str] = &["crossbeam", "parking_lot"];

/// Places that may derive Serialize or Deserialize: types on the wire, in a snapshot, in a configuration
/// file, in a client's own files, and in a command's output.
const SERIALIZED: &[&str] = &[
    "crates/proto/src",
    "crates/service/src/state.rs",
    "crates/service/src/stored.rs",
    "crates/log/src/journal/inspect.rs",
    "crates/client/src/format.rs",
    "crates/client/src/keyfile.rs",
    "crates/client/src/store/change.rs",
    "crates/client/src/known.rs",
    "crates/doctor/src/monitor.rs",
    "src/server/node",
    "src/server/places.rs",
    "src/config/file.rs",
    "ui/src",
];

/// The one file that names bincode.
const BINCODE: &str = "crates/proto/src/codec.rs";

/// The files that may create, replace or rename files in the libraries, so that a power cut cannot lose one.
const FILES: &[&str] = &[
    "crates/sys/src/durable.rs",
    "crates/log/src/journal/directory.rs",
    // Lock files, which have no content, and the cursor, which is overwritten in place.
    "crates/client/src/store/files.rs",
    // A file without a name, by which syncs are measured.
    "crates/sys/src/machine.rs",
    // Manual pages, which are written again.
    "src/recadod/manual.rs",
    // The monitor's lock, which has no content, and the servers' logs.
    "src/recadod/monitor/files.rs",
];

/// The calls that create or replace a file.
const MAKING: &[&str] =
    &["OpenOptions", "DirBuilder", "File::create", "fs::write", "fs::rename", "fs::create_dir"];

/// The files that may use `unsafe`, with the reason.
const UNSAFE: &[&str] = &[
    // Counts what the decoder and a delivery allocate: a global allocator is an unsafe trait.
    "tests/it/allocation.rs",
    // Counts what the clients of a measurement and `recadod-counted` allocate, for the same reason.
    "bench/src/allocations.rs",
    // Counts what the state holds, for the same reason.
    "benches/state.rs",
    // Replaces functions of the C library, whose arguments are pointers.
    "tests/shim/src/lib.rs",
];

/// The width of a comment, as `rustfmt.toml` has it for code. Tables and diagrams are no wider.
const WIDTH: usize = 110;

/// Words that mark unfinished work; split, so that this file does not contain them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    line: usize,
    rule: &'static str,
    found: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.found)
    }
}

/// Returns true if `path` is `prefix` or lies under it; `src/server` covers `src/server.rs` and
/// `src/server/node/mod.rs`.
fn file_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

/// The folder of a file's crate, and the file's path in that crate's sources.
fn in_crate(path: &str) -> Option<(&str, &str)> {
    if let Some(inside) = path.strip_prefix("src/") {
        return Some(("", inside));
    }
    let (folder, inside) = path.split_once("/src/")?;
    Some((folder, inside))
}

/// Returns true if the file is part of a library: not of a program, a test or a bench.
fn in_library(path: &str) -> bool {
    let program = file_under(path, "src/main.rs") || file_under(path, "src/recadod");
    (path.starts_with("src/") || path.starts_with("crates/")) && !program
}

/// Returns true if a Rust path is `prefix` or lies under it. A glob reaches everything beside it.
fn path_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn allowed(path: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| path_under(path, prefix))
}

/// Checks one file. With `only_tests`, no part of the file ships.
fn check(source: &Source, only_tests: bool) -> Vec<Violation> {
    let shipped = if only_tests { "" } else { source.shipped.as_str() };
    let mut found = Vec::new();
    check_imports(source, shipped, &mut found);
    check_imports_of_crates(source, shipped, &mut found);
    check_purity(source, shipped, &mut found);
    check_words(source, shipped, &mut found);
    check_width(source, &mut found);
    found.sort();
    found.dedup();
    found
}

fn check_imports(source: &Source, shipped: &str, found: &mut Vec<Violation>) {
    let path = source.path.as_str();
    let mut report = |at, rule, what: String| {
        found.push(Violation { file: path.to_owned(), line: line_of(shipped, at), rule, found: what });
    };
    let Some((module, names)) = IMPORTS.iter().find(|(module, _)| file_under(path, module)) else { return };
    let Some(((_, own), (_, inside))) = in_crate(module).zip(in_crate(path)) else { return };
    let own = own.trim_end_matches(".rs").replace('/', "::");
    for (at, named) in paths_from(shipped, "crate") {
        let named = named.trim_start_matches("crate::");
        if !path_under(named, &own) && !allowed(named, names) {
            let what = format!("{own} may not name crate::{named}, only {names:?} (table IMPORTS)");
            report(at, "imports", what);
        }
    }
    // A chain of `super` that leaves the module would bypass the table.
    let inside = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count() + 1 - own.split("::").count();
    let chain = "super::".repeat(depth);
    for (at, _) in shipped.match_indices(&chain) {
        if !shipped[..at].ends_with("super::") {
            report(at, "imports", format!("{depth} times `super` leaves the module: write crate::..."));
        }
    }
}

fn check_imports_of_crates(source: &Source, shipped: &str, found: &mut Vec<Violation>) {
    let rows = IMPORTS_OF_CRATES.iter().filter(|(module, ..)| file_under(&source.path, module));
    for (module, other, names) in rows {
        for (at, named) in paths_from(shipped, other) {
            if !allowed(&named, names) {
                let (file, line) = (source.path.clone(), line_of(shipped, at));
                let what = format!("{module} may not name {named}, only {names:?} (table IMPORTS_OF_CRATES)");
                found.push(Violation { file, line, rule: "imports", found: what });
            }
        }
    }
}

fn check_purity(source: &Source, shipped: &str, found: &mut Vec<Violation>) {
    if !PURE.iter().any(|module| file_under(&source.path, module)) {
        return;
    }
    let mut report = |at, what: String| {
        let line = line_of(shipped, at);
        found.push(Violation { file: source.path.clone(), line, rule: "purity", found: what });
    };
    for (at, named) in paths_from(shipped, "std") {
        let reach = named.strip_suffix("::*");
        let impure =
            |path: &&&str| path_under(&named, path) || reach.is_some_and(|all| path_under(path, all));
        if let Some(path) = IMPURE_PATHS.iter().find(impure) {
            report(at, format!("a pure module names {named} ({path} is in table IMPURE_PATHS)"));
        }
    }
    for (at, named) in paths_from(shipped, "recado_sys") {
        report(at, format!("a pure module names {named}: threads, clocks, sockets, files"));
    }
    for word in IMPURE_WORDS {
        for at in places_of(shipped, word) {
            report(at, format!("a pure module names {word} (table IMPURE_WORDS)"));
        }
    }
}

fn check_words(source: &Source, shipped: &str, found: &mut Vec<Violation>) {
    let path = source.path.as_str();
    let mut report = |text: &str, at, rule, what: String| {
        found.push(Violation { file: path.to_owned(), line: line_of(text, at), rule, found: what });
    };
    if path != BINCODE {
        for at in places_of(&source.code, "bincode") {
            report(&source.code, at, "bincode", format!("only {BINCODE} names bincode"));
        }
    }
    if !UNSAFE.contains(&path) {
        for at in places_of(&source.code, "unsafe") {
            report(&source.code, at, "unsafe", "no unsafe code but in the files of table UNSAFE".into());
        }
    }
    for at in places_of(&source.code, "sleep") {
        let before = source.code[..at].trim_end();
        let own_method = before.ends_with('.') || before.ends_with("fn");
        let called = source.code[at + "sleep".len()..].starts_with('(');
        let imported = before.ends_with("thread::");
        if imported || (called && !own_method) {
            let cure = "no blind waits: wait for a condition with a deadline, or on a channel";
            report(&source.code, at, "sleep", cure.into());
        }
    }
    for (at, _) in shipped.match_indices(".unwrap()") {
        if in_crate(path).is_some() {
            report(shipped, at, "unwrap", "outside tests: a typed error, or `expect` with the reason".into());
        }
    }
    if (path.starts_with("src/") || in_library(path)) && !FILES.contains(&path) {
        for word in MAKING {
            // Only whole words count: `MetaFile::create` is not one.
            for (at, _) in shipped
                .match_indices(word)
                .filter(|(at, _)| !shipped[..*at].ends_with(|before: char| before.is_alphanumeric()))
            {
                report(shipped, at, "files", format!("{word}: use `durable`, or say why not in table FILES"));
            }
        }
    }
    if in_library(path) && !file_under(path, "crates/sys/src/sync") {
        for word in SEAM {
            for at in places_of(shipped, word) {
                report(shipped, at, "seam", format!("{word}: by way of recado_sys::sync (table SEAM)"));
            }
        }
    }
    for word in UNFINISHED {
        for at in places_of(&source.text, word) {
            report(&source.text, at, "unfinished", format!("{word}: do it, or open an issue"));
        }
    }
    if !SERIALIZED.iter().any(|place| file_under(path, place)) {
        for (at, _) in shipped.match_indices("derive(") {
            let end = shipped[at..].find(')').map_or(shipped.len(), |end| at + end);
            for word in ["Serialize", "Deserialize"] {
                if !places_of(&shipped[at..end], word).is_empty() {
                    report(
                        shipped,
                        at,
                        "serialize",
                        format!("no {word} but in the places of table SERIALIZED"),
                    );
                }
            }
        }
    }
}

fn check_width(source: &Source, found: &mut Vec<Violation>) {
    for (at, (text, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        // A line that is blank without its comment has nothing else.
        let is_comment = code.trim().is_empty() && text.trim_start().starts_with("//");
        let width = text.chars().count();
        if is_comment && width > WIDTH {
            let (file, line) = (source.path.clone(), at + 1);
            let cure = format!("{width} columns: break the line before column {WIDTH}");
            found.push(Violation { file, line, rule: "width", found: cure });
        }
    }
}

/// Reads every `.rs` file of the repository's source folders.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> =
        ["src", "crates", "ui/src", "ui/tests", "bench", "tests", "benches"].map(|f| root.join(f)).into();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                sources.push(Source::new(&name, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort_by(|one, two| one.path.cmp(&two.path));
    sources
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = sources();
    assert!(
        sources.iter().any(|source| source.path == "crates/log/src/replica/mod.rs"),
        "the sources were not found"
    );
    let tests: Vec<String> = sources.iter().flat_map(Source::test_files).collect();
    let only_tests = |path: &str| {
        in_crate(path).is_none()
            || TEST_FEATURES.contains(&path)
            || tests.iter().any(|test| path == test || (test.ends_with('/') && path.starts_with(test)))
    };
    let found: Vec<String> = sources
        .iter()
        .flat_map(|source| check(source, only_tests(&source.path)))
        .map(|violation| violation.to_string())
        .collect();
    assert!(found.is_empty(), "{} lines break a rule:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_crate_depends_on_the_crates_of_its_row_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, names) in CRATES {
        let text = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap().keys();
        let ours: Vec<&str> =
            dependencies.map(String::as_str).filter(|name| name.starts_with("recado")).collect();
        assert_eq!(ours, *names, "{folder}/Cargo.toml (table CRATES)");
    }
    let folders = std::fs::read_dir(root.join("crates")).unwrap();
    assert_eq!(folders.count() + 4, CRATES.len(), "each has a row");
}

/// A row that names a file which was moved would hold for nothing.
#[test]
fn every_path_in_the_tables_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let others = IMPORTS_OF_CRATES.iter().map(|(path, ..)| path);
    let rows = IMPORTS.iter().chain(CRATES).map(|(path, _)| path).chain(others);
    let paths = [PURE, TEST_FEATURES, SERIALIZED, FILES, UNSAFE].into_iter().flatten();
    for path in rows.chain(paths).chain([&BINCODE]) {
        assert!(root.join(path).exists(), "no {path}");
    }
}

/// Returns the rules that `text`, as the file `path`, breaks, each once a line.
fn broken(path: &str, text: &str) -> Vec<(usize, &'static str)> {
    let found = check(&Source::new(path, text), false);
    let mut rules: Vec<_> = found.iter().map(|violation| (violation.line, violation.rule)).collect();
    rules.dedup();
    rules
}

#[test]
fn an_import_outside_the_table_is_found() {
    let imports = |line| vec![(line, "imports")];
    let replica = "crates/log/src/replica/cast.rs";
    assert_eq!(broken(replica, "use std::fmt;\nuse crate::journal::Journal;\n"), imports(2));
    assert_eq!(broken(replica, "fn f() { crate::journal::start() }"), imports(1));
    assert_eq!(broken(replica, "use crate::{\n    config::Timing,\n    journal::Journal,\n};"), imports(3));
    assert_eq!(broken("src/delivery/mod.rs", "use crate::server::{Server, node};"), imports(1));
    assert_eq!(broken("crates/client/src/machine.rs", "use crate::store::Slot;"), imports(1));
    assert_eq!(broken("crates/proto/src/id.rs", "use crate::*;"), imports(1));
    assert_eq!(broken("crates/sys/src/net/mod.rs", "use super::sync::Mutex;"), imports(1));
    assert_eq!(broken("crates/sys/src/net/peer.rs", "use super::super::sync::Mutex;"), imports(1));
    assert_eq!(broken("src/server/node/charges.rs", "use crate::server::counters::Counters;"), imports(1));
    assert_eq!(broken("src/server/node/mod.rs", "use super::counters::Counters;"), imports(1));
    assert_eq!(broken("src/server/node/admin.rs", "use super::super::counters::Counters;"), imports(1));
    let node = "src/server/node/mod.rs";
    assert_eq!(broken(node, "use recado_log::replica::Task;"), imports(1));
    assert_eq!(broken(node, "use recado_log::{\n    journal::Meta,\n    ordered::Ticket,\n};"), imports(2));
    assert_eq!(broken(node, "fn f(log: &recado_log::bully::Bully) {}"), imports(1));
    assert_eq!(broken(node, "use recado_log::*;"), imports(1));
}

#[test]
fn an_import_within_the_table_passes() {
    let replica = "crates/log/src/replica/cast.rs";
    assert_eq!(broken(replica, "use super::log::Log;\nuse crate::replica::Task as Work;"), []);
    assert_eq!(broken(replica, "use crate::config::{Config, Timing};\nuse recado_proto::id::Op;"), []);
    assert_eq!(broken("src/delivery/stream.rs", "use super::session::Session;\nuse crate::fair::Fair;"), []);
    assert_eq!(broken("src/server/listener.rs", "use recado_sys::net::Inbox;\nuse crate::delivery;"), []);
    let node = "use super::Effect;\nuse crate::server::budget::Budgets;\nuse crate::server::node::Input;";
    assert_eq!(broken("src/server/node/charges.rs", node), []);
    assert_eq!(broken("src/server/node/mod.rs", "use recado_log::ordered::{OrderedLog, Ticket};"), []);
    assert_eq!(broken("src/server/engine.rs", "use recado_log::bully::Bully;"), []);
}

#[test]
fn a_way_round_the_seam_of_threads_is_found() {
    assert_eq!(broken("src/server/overflow_queue.rs", "use crossbeam::channel::Sender;"), [(1, "seam")]);
    assert_eq!(broken("crates/client/src/ending.rs", "use parking_lot::Mutex;"), [(1, "seam")]);
    assert_eq!(broken("crates/client/src/ending.rs", "use recado_sys::sync::Mutex;"), []);
    assert_eq!(broken("src/recadod/log.rs", "use parking_lot::Mutex;"), []);
    let sender = "use recado_sys::sync::channel::Sender;";
    assert_eq!(broken("src/server/node/mod.rs", sender), [(1, "purity")]);
    assert_eq!(broken("crates/client/src/machine/mod.rs", sender), [(1, "purity")]);
}

#[test]
fn a_pure_module_that_names_the_world_is_found() {
    let purity = vec![(1, "purity")];
    for text in [
        "use std::collections::HashMap;",
        "use std::collections::{BTreeMap, hash_map};",
        "use std::{fmt, thread};",
        "use std::time::{Duration, Instant};",
        "use std::time; fn f() { time::SystemTime::now(); }",
        "use std::net::{SocketAddr, UdpSocket};",
        "use std::time::*;",
        "fn f() { std::fs::read(path); }",
        "use imbl::HashSet;",
    ] {
        assert_eq!(broken("crates/log/src/replica/log.rs", text), purity, "{text}");
        assert_eq!(broken("src/server/node/mod.rs", text), purity, "{text}");
        assert_eq!(broken("src/server/listener.rs", text), [], "{text}");
    }
    for text in
        ["use parking_lot::Mutex;", "use crossbeam::channel;", "static STATE: std::sync::Mutex<u8> = NONE;"]
    {
        let found = broken("crates/log/src/replica/log.rs", text);
        assert!(found.contains(&(1, "purity")), "{text}: {found:?}");
    }
    assert_eq!(
        broken("crates/service/src/lib.rs", "use std::net::SocketAddr;\nuse std::time::Duration;"),
        []
    );
}

#[test]
fn words_that_must_not_appear_are_found() {
    assert_eq!(broken("crates/sys/src/net/mod.rs", "use bincode::config;"), [(1, "bincode")]);
    assert_eq!(broken("crates/sys/src/net/mod.rs", "fn f() {\n    unsafe { g() }\n}"), [(2, "unsafe")]);
    assert_eq!(broken("tests/it/x.rs", "thread::sleep(wait);"), [(1, "sleep")]);
    assert_eq!(broken("crates/sys/src/net/mod.rs", "use std::thread::sleep;"), [(1, "sleep")]);
    assert_eq!(broken("crates/sys/src/net/mod.rs", "sleep(wait);"), [(1, "sleep")]);
    assert_eq!(broken("ui/src/main.rs", "let a = b.unwrap();"), [(1, "unwrap")]);
    assert_eq!(
        broken("crates/sys/src/net/mod.rs", &format!("// {}: later", UNFINISHED[0])),
        [(1, "unfinished")]
    );
    assert_eq!(
        broken("crates/sys/src/net/mod.rs", "#[derive(Debug,\n Serialize)]\nstruct A;"),
        [(1, "serialize")]
    );
    assert_eq!(
        broken("crates/service/src/lib.rs", "#[derive(serde::Deserialize)]\nstruct A;"),
        [(1, "serialize")]
    );
    assert_eq!(broken("src/recadod/init.rs", "fs::write(path, text)?;"), [(1, "files")]);
    assert_eq!(broken("crates/client/src/known.rs", "use std::fs::OpenOptions;"), [(1, "files")]);
}

#[test]
fn their_innocent_neighbours_pass() {
    assert_eq!(broken("crates/proto/src/codec.rs", "use bincode::config;"), []);
    assert_eq!(
        broken("src/delivery/stream.rs", "fn sleep(&mut self) {}\nfn f() { self.stream.sleep(); }"),
        []
    );
    assert_eq!(broken("crates/sys/src/net/mod.rs", "#![deny(unsafe_op_in_unsafe_fn)]"), []);
    assert_eq!(broken("crates/sys/src/net/mod.rs", "a.unwrap_or(b); a.unwrap_or_default();"), []);
    assert_eq!(broken("crates/service/src/state.rs", "#[derive(Serialize, Deserialize)]\nstruct A;"), []);
}

#[test]
fn a_comment_that_is_wider_than_the_code_is_found() {
    let comment = |width: usize| format!("fn f() {{}}\n    // {}\n", "x".repeat(width - 7));
    assert_eq!(broken("crates/service/src/lib.rs", &comment(WIDTH)), []);
    assert_eq!(broken("crates/service/src/lib.rs", &comment(WIDTH + 1)), [(2, "width")]);
    let table = format!("//! | `a` | {} |\n", "x".repeat(WIDTH));
    assert_eq!(broken("tests/it/x.rs", &table), [(1, "width")]);
    let literal = format!("const A: &str = \"// {}\";\n", "x".repeat(WIDTH));
    assert_eq!(broken("tests/it/x.rs", &literal), []);
}

#[test]
fn comments_and_literals_say_what_they_like() {
    let text = r###"
//! bincode, unsafe, HashMap, thread::sleep(x), crate::journal::Log
/* std::fs /* nested */ .unwrap() */
const A: &str = "crate::journal \" unsafe";
const B: &str = r#"bincode " HashMap"#;
const C: char = '"'; // unsafe
const D: &[u8] = b"std::fs\\";
const E: char = '\''; fn f<'a>(x: &'a str) -> &'a str { x } // 'unsafe
"###;
    assert_eq!(broken("crates/service/src/lib.rs", text), []);
    let text = "const A: char = '\"';\nconst B: &str = \"\\\\\";\nuse std::fs;\n";
    assert_eq!(broken("crates/service/src/lib.rs", text), [(3, "purity")]);
}

#[test]
fn what_only_tests_compile_may_unwrap() {
    let text = "#[cfg(test)]\nmod tests {\n    use crate::journal::Log;\n    fn f() { a.unwrap(); }\n}\n";
    assert_eq!(broken("crates/service/src/lib.rs", text), []);
    let after = format!("{text}fn g() {{ b.unwrap(); }}\n");
    assert_eq!(broken("crates/service/src/lib.rs", &after), [(6, "unwrap")]);
    let declared = "#[cfg(test)]\nmod tests;\nfn g() { b.unwrap(); }\n";
    assert_eq!(broken("crates/service/src/lib.rs", declared), [(3, "unwrap")]);
    let imported = "#[cfg(test)]\n#[allow(x)]\nuse crate::{journal, net};\nfn g() { b.unwrap(); }\n";
    assert_eq!(broken("crates/service/src/lib.rs", imported), [(4, "unwrap")]);
    assert_eq!(
        Source::new("crates/service/src/lib.rs", declared).test_files()[0],
        "crates/service/src/tests.rs"
    );
    assert_eq!(
        Source::new("crates/proto/src/link.rs", declared).test_files()[1],
        "crates/proto/src/link/tests/"
    );
}
