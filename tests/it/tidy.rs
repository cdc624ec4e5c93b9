//! Checks the sources against rules that no compiler checks: which module may import which (a table), which
//! names a pure module must not use, and a few forbidden words.
//!
//! The tables below are the rules. A violation is reported with file, line and rule. To change a rule, change
//! its table and give the reason in the commit.

mod source;

use std::path::Path;

use source::{Source, line_of, paths_from, places_of};

/// The names that a module may use of this crate, besides its own. A file belongs to the first row with a
/// prefix of its path; a name is a path under `crate::` and includes everything below it.
const IMPORTS: &[(&str, &[&str])] = &[
    ("src/hex.rs", &[]),
    ("src/fair.rs", &["id"]),
    ("src/fnv.rs", &[]),
    ("src/bulk.rs", &[]),
    ("src/random.rs", &[]),
    ("src/sync", &["net"]),
    ("src/durable.rs", &[]),
    ("src/id.rs", &["hex"]),
    ("src/entropy.rs", &[]),
    ("src/entry.rs", &["id", "bulk"]),
    ("src/config", &["id", "hex"]),
    ("src/wire", &["id", "entry", "entropy", "fnv", "bulk"]),
    ("src/service", &["id", "config", "wire::packet", "wire::command"]),
    ("src/replica", &["id", "config", "entry", "entropy", "fnv", "wire::packet"]),
    ("src/delivery", &["id", "config", "entropy", "fair", "wire", "service::Page"]),
    ("src/client/machine", &["id", "entropy", "wire", "config::PlantedBug", "config::Planted"]),
    ("src/journal", &["id", "config", "entry", "durable"]),
    ("src/net", &["id", "config"]),
    // The clock and the threads are the server's: one file reads a clock, one starts threads.
    (
        "src/client",
        &[
            "id",
            "entry",
            "entropy",
            "config",
            "wire",
            "net::Inbox",
            "net::NetError",
            "durable",
            "hex",
            "random",
            "server::MachineClock",
            "server::Thread",
            "server::spawn_named",
            "sync",
        ],
    ),
    (
        "src/server",
        &[
            "id",
            "entry",
            "entropy",
            "config",
            "fair",
            "wire",
            "service",
            "replica",
            "delivery",
            "journal",
            "net::Inbox",
            "net::NetError",
            "net::NetOp",
            "net::SendOutcome",
            "durable",
            "random",
            "sync",
        ],
    ),
];

/// The names that a program may use of the library.
const PUBLIC_FACES: &[(&str, &[&str])] = &[
    ("ui/src", &["client", "id", "config"]),
    ("src/main.rs", &["server", "journal", "config", "id"]),
    ("src/recadod", &["server", "client", "journal", "config", "id", "durable", "random"]),
];

/// The modules without socket, file, thread, lock, channel, clock, global randomness or the iteration order
/// of a hash map. The simulator drives them as the server does; the screen's tests drive its state and its
/// drawing.
const PURE: &[&str] = &[
    "src/id.rs",
    "src/entry.rs",
    "src/entropy.rs",
    "src/hex.rs",
    "src/fair.rs",
    "src/fnv.rs",
    "src/bulk.rs",
    "src/wire",
    "src/service",
    "src/replica",
    "src/delivery",
    "src/client/machine",
    "src/server/budget.rs",
    "src/server/cost.rs",
    "src/server/node",
    "src/server/handshake",
    "ui/src/tui/app",
    "ui/src/tui/cluster.rs",
    "ui/src/tui/command.rs",
    "ui/src/tui/connection.rs",
    "ui/src/tui/event.rs",
    "ui/src/tui/input.rs",
    "ui/src/tui/keys.rs",
    "ui/src/tui/log.rs",
    "ui/src/tui/outbox.rs",
    "ui/src/tui/palette.rs",
    "ui/src/tui/conversation.rs",
    "ui/src/tui/scroll.rs",
    "ui/src/tui/view",
];

/// Files that only tests compile, by a feature that nothing but tests enables.
const TEST_FEATURES: &[&str] = &["src/wire/noise/stand_in.rs"];

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

/// Crates that only `src/sync` may name in the library. Threads that bypassed it would not run in the tests
/// of interleavings.
const SEAM: &[&str] = &["crossbeam", "parking_lot"];

/// Places that may derive Serialize or Deserialize: types on the wire, in a snapshot, in a configuration
/// file, in a client's own files, and in a command's output.
const SERIALIZED: &[&str] = &[
    "src/wire",
    "src/id.rs",
    "src/entry.rs",
    "src/service/state.rs",
    "src/server/node",
    "src/config/file.rs",
    "src/journal/inspect.rs",
    "src/client/keyfile.rs",
    "src/client/store.rs",
    "src/client/known.rs",
    "ui/src",
];

/// The one file that names bincode.
const BINCODE: &str = "src/wire/codec.rs";

/// The files that may create, replace or rename files in the library, so that a power cut cannot lose one.
const FILES: &[&str] = &[
    "src/durable.rs",
    "src/journal/directory.rs",
    // Lock files, which have no content, and the cursor, which is overwritten in place.
    "src/client/store.rs",
];

/// The calls that create or replace a file.
const MAKING: &[&str] =
    &["OpenOptions", "DirBuilder", "File::create", "fs::write", "fs::rename", "fs::create_dir"];

/// The files that may use `unsafe`, with the reason.
const UNSAFE: &[&str] = &[
    // Counts what the decoder allocates: a global allocator is an unsafe trait.
    "tests/it/allocation.rs",
    // Replaces functions of the C library, whose arguments are pointers.
    "tests/shim/src/lib.rs",
];

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

/// Returns true if `path` is `prefix` or lies under it; `src/wire` covers `src/wire.rs` and
/// `src/wire/link.rs`.
fn file_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
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
    check_purity(source, shipped, &mut found);
    check_words(source, shipped, &mut found);
    found.sort();
    found.dedup();
    found
}

fn check_imports(source: &Source, shipped: &str, found: &mut Vec<Violation>) {
    let path = source.path.as_str();
    let mut report = |at, rule, what: String| {
        found.push(Violation { file: path.to_owned(), line: line_of(shipped, at), rule, found: what });
    };
    if let Some((module, names)) = IMPORTS.iter().find(|(module, _)| file_under(path, module)) {
        let own = module.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        for (at, named) in paths_from(shipped, "crate") {
            let named = named.trim_start_matches("crate::");
            if !path_under(named, &own) && !allowed(named, names) {
                report(
                    at,
                    "imports",
                    format!("{own} may not name crate::{named}, only {names:?} (table IMPORTS)"),
                );
            }
        }
        // A chain of `super` that leaves the module would bypass the table.
        let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let depth = inside.split('/').count();
        let chain = "super::".repeat(depth);
        for (at, _) in shipped.match_indices(&chain) {
            if !shipped[..at].ends_with("super::") {
                report(at, "imports", format!("{depth} times `super` leaves the module: write crate::..."));
            }
        }
    }
    if let Some((program, names)) = PUBLIC_FACES.iter().find(|(program, _)| file_under(path, program)) {
        for (at, named) in paths_from(shipped, "recado") {
            let named = named.trim_start_matches("recado::");
            if !allowed(named, names) {
                let what =
                    format!("{program} may not name recado::{named}, only {names:?} (table PUBLIC_FACES)");
                report(at, "imports", what);
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
    for (at, named) in paths_from(shipped, "crate") {
        if path_under(&named, "crate::sync") {
            report(at, format!("a pure module names {named}: threads and channels"));
        }
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
        if path.starts_with("src/") || path.starts_with("ui/src/") {
            report(shipped, at, "unwrap", "outside tests: a typed error, or `expect` with the reason".into());
        }
    }
    if path.starts_with("src/") && !FILES.contains(&path) {
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
    let library = path.starts_with("src/") && !PUBLIC_FACES.iter().any(|(face, _)| file_under(path, face));
    if library && !file_under(path, "src/sync") {
        for word in SEAM {
            for at in places_of(shipped, word) {
                report(shipped, at, "seam", format!("{word}: by way of crate::sync (table SEAM)"));
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

/// Reads every `.rs` file of the repository's source folders.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> =
        ["src", "ui/src", "ui/tests", "tests", "benches", "examples"].map(|f| root.join(f)).into();
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
    assert!(sources.iter().any(|source| source.path == "src/replica/mod.rs"), "the sources were not found");
    let tests: Vec<String> = sources.iter().flat_map(Source::test_files).collect();
    let only_tests = |path: &str| {
        !(path.starts_with("src/") || path.starts_with("ui/src/"))
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
fn every_folder_of_the_library_has_a_row_in_the_import_table() {
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        let path = source.path.as_str();
        let known = path == "src/lib.rs"
            || IMPORTS.iter().any(|(module, _)| file_under(path, module))
            || PUBLIC_FACES.iter().any(|(program, _)| file_under(path, program));
        assert!(known, "{path} has no row in the tables IMPORTS and PUBLIC_FACES");
    }
}

/// A row that names a file which was moved would hold for nothing.
#[test]
fn every_path_in_the_tables_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = IMPORTS.iter().chain(PUBLIC_FACES).map(|(path, _)| path);
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
    assert_eq!(broken("src/service/apply.rs", "use std::fmt;\nuse crate::journal::Journal;\n"), imports(2));
    assert_eq!(broken("src/service/apply.rs", "fn f() { crate::server::start() }"), imports(1));
    assert_eq!(broken("src/service/mod.rs", "use crate::wire::Link;"), imports(1));
    assert_eq!(
        broken("src/replica/mod.rs", "use crate::{\n    id::Op,\n    service::Service,\n};"),
        imports(3)
    );
    assert_eq!(broken("src/replica/log.rs", "use crate::wire::{packet::Packet, Link};"), imports(1));
    assert_eq!(broken("src/delivery/mod.rs", "use crate::service::{Page, Service};"), imports(1));
    assert_eq!(broken("src/client/machine.rs", "use crate::net::Socket;"), imports(1));
    assert_eq!(broken("src/client/machine/state.rs", "use crate::config::Config;"), imports(1));
    assert_eq!(broken("src/id.rs", "use crate::*;"), imports(1));
    assert_eq!(broken("src/net/mod.rs", "use super::journal::Log;"), imports(1));
    assert_eq!(broken("src/net/peer.rs", "use super::super::journal::Log;"), imports(1));
    assert_eq!(broken("ui/src/main.rs", "use recado::{client::Client, journal};"), imports(1));
    assert_eq!(broken("src/main.rs", "use recado::replica::Role;"), imports(1));
}

#[test]
fn an_import_within_the_table_passes() {
    assert_eq!(
        broken("src/service/apply.rs", "use crate::wire::{command::Command, packet::{Code, Info}};"),
        []
    );
    assert_eq!(
        broken("src/delivery/stream.rs", "use crate::service::Page;\nuse super::session::Session;"),
        []
    );
    assert_eq!(broken("src/replica/cast.rs", "use super::log::Log;\nuse crate::replica::Task as Work;"), []);
    assert_eq!(broken("src/client/machine.rs", "use crate::{id::{self, Op}, config::PlantedBug};"), []);
    assert_eq!(broken("src/server/listener.rs", "use crate::net::Inbox;\nuse crate::delivery;"), []);
    assert_eq!(broken("ui/src/main.rs", "use recado::client::Client;\nuse crate::output;"), []);
}

#[test]
fn a_way_round_the_seam_of_threads_is_found() {
    assert_eq!(broken("src/server/overflow_queue.rs", "use crossbeam::channel::Sender;"), [(1, "seam")]);
    assert_eq!(broken("src/client/ending.rs", "use parking_lot::Mutex;"), [(1, "seam")]);
    assert_eq!(broken("src/client/ending.rs", "use crate::sync::Mutex;"), []);
    assert_eq!(broken("src/recadod/log.rs", "use parking_lot::Mutex;"), []);
    assert_eq!(broken("src/server/node/mod.rs", "use crate::sync::channel::Sender;"), [(1, "purity")]);
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
        assert_eq!(broken("src/replica/log.rs", text), purity, "{text}");
        assert_eq!(broken("src/server/node/mod.rs", text), purity, "{text}");
        assert_eq!(broken("src/server/listener.rs", text), [], "{text}");
    }
    for text in
        ["use parking_lot::Mutex;", "use crossbeam::channel;", "static STATE: std::sync::Mutex<u8> = NONE;"]
    {
        let found = broken("src/replica/log.rs", text);
        assert!(found.contains(&(1, "purity")), "{text}: {found:?}");
    }
    assert_eq!(broken("src/service/mod.rs", "use std::net::SocketAddr;\nuse std::time::Duration;"), []);
}

#[test]
fn words_that_must_not_appear_are_found() {
    assert_eq!(broken("src/net/mod.rs", "use bincode::config;"), [(1, "bincode")]);
    assert_eq!(broken("src/net/mod.rs", "fn f() {\n    unsafe { g() }\n}"), [(2, "unsafe")]);
    assert_eq!(broken("tests/it/x.rs", "thread::sleep(wait);"), [(1, "sleep")]);
    assert_eq!(broken("src/net/mod.rs", "use std::thread::sleep;"), [(1, "sleep")]);
    assert_eq!(broken("src/net/mod.rs", "sleep(wait);"), [(1, "sleep")]);
    assert_eq!(broken("ui/src/main.rs", "let a = b.unwrap();"), [(1, "unwrap")]);
    assert_eq!(broken("src/net/mod.rs", &format!("// {}: later", UNFINISHED[0])), [(1, "unfinished")]);
    assert_eq!(broken("src/net/mod.rs", "#[derive(Debug,\n Serialize)]\nstruct A;"), [(1, "serialize")]);
    assert_eq!(broken("src/service/mod.rs", "#[derive(serde::Deserialize)]\nstruct A;"), [(1, "serialize")]);
    assert_eq!(broken("src/recadod/init.rs", "fs::write(path, text)?;"), [(1, "files")]);
    assert_eq!(broken("src/client/known.rs", "use std::fs::OpenOptions;"), [(1, "files")]);
}

#[test]
fn their_innocent_neighbours_pass() {
    assert_eq!(broken("src/wire/codec.rs", "use bincode::config;"), []);
    assert_eq!(
        broken("src/delivery/stream.rs", "fn sleep(&mut self) {}\nfn f() { self.stream.sleep(); }"),
        []
    );
    assert_eq!(broken("src/net/mod.rs", "#![deny(unsafe_op_in_unsafe_fn)]"), []);
    assert_eq!(broken("src/net/mod.rs", "a.unwrap_or(b); a.unwrap_or_default();"), []);
    assert_eq!(broken("src/service/state.rs", "#[derive(Serialize, Deserialize)]\nstruct A;"), []);
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
    assert_eq!(broken("src/service/mod.rs", text), []);
    let text = "const A: char = '\"';\nconst B: &str = \"\\\\\";\nuse std::fs;\n";
    assert_eq!(broken("src/service/mod.rs", text), [(3, "purity")]);
}

#[test]
fn what_only_tests_compile_may_unwrap() {
    let text = "#[cfg(test)]\nmod tests {\n    use crate::journal::Log;\n    fn f() { a.unwrap(); }\n}\n";
    assert_eq!(broken("src/service/mod.rs", text), []);
    let after = format!("{text}fn g() {{ b.unwrap(); }}\n");
    assert_eq!(broken("src/service/mod.rs", &after), [(6, "unwrap")]);
    let declared = "#[cfg(test)]\nmod tests;\nfn g() { b.unwrap(); }\n";
    assert_eq!(broken("src/service/mod.rs", declared), [(3, "unwrap")]);
    let imported = "#[cfg(test)]\n#[allow(x)]\nuse crate::{journal, net};\nfn g() { b.unwrap(); }\n";
    assert_eq!(broken("src/service/mod.rs", imported), [(4, "unwrap")]);
    assert_eq!(Source::new("src/service/mod.rs", declared).test_files()[0], "src/service/tests.rs");
    assert_eq!(Source::new("src/wire/link.rs", declared).test_files()[1], "src/wire/link/tests/");
}
