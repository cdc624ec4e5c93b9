//! Holds `docs/PROTOCOL.md` to the sources. Its tables have every type that is sent, with all fields, tags
//! and codes, and every constant of the protocol; so a change of any of them in `crates/proto` that the
//! document does not follow fails here. The types and constants are read from the sources by a small parser,
//! because a compiled program knows no names of fields.

mod vectors;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use recado_proto::envelope::{Class, Envelope, GROUP, Header, MAGIC, OUTER_LEN, VERSION, seal};
use recado_proto::fnv::fnv1a;
use recado_proto::id::{BootId, ClusterId, ClusterKey, DeviceKey, Incarnation, NodeId, Op, SessionId};
use recado_proto::packet::{ToClient, ToPeer, ToServer};
use recado_proto::seal::{ClusterKeys, Direction, Key, PacketKeys, mac};

use crate::samples::Samples;
use crate::tidy::source::{Source, places_of};

/// The sources in `crates/proto/src` that declare what is sent, beside those in its folder `packet`.
const WIRE: [&str; 6] = ["id", "id/name", "entry", "envelope", "seal", "seal/aead"];

/// Constants of the protocol that only the code's own data structures need.
const INTERNAL: [&str; 6] =
    ["ALLOCATION_MAX", "COMPLETED_MAX", "Home::PRIMARY", "OptionalFields::NONE", "WIDTH_MAX", "WORDS"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn source(path: &str) -> Source {
    Source::new(path, &read(path))
}

// ---- the document

/// A table of the document, its cells without backticks.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect()
}

fn tables(document: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut within = false;
    for line in document.lines().map(str::trim) {
        if line.starts_with("|--") {
            continue;
        }
        if !line.starts_with('|') {
            within = false;
        } else if within && let Some(table) = tables.last_mut() {
            table.rows.push(cells(line));
        } else {
            within = true;
            tables.push(Table { head: cells(line), rows: Vec::new() });
        }
    }
    tables
}

fn document() -> Vec<Table> {
    tables(&read("docs/PROTOCOL.md"))
}

/// The tables whose first head cell begins with `title`, each with the rest of that cell.
fn titled<'a>(tables: &'a [Table], title: &str) -> Vec<(&'a str, &'a Table)> {
    tables.iter().filter_map(|table| Some((table.head.first()?.strip_prefix(title)?, table))).collect()
}

/// The one table with this first head cell.
fn the_table<'a>(tables: &'a [Table], title: &str) -> &'a Table {
    let found: Vec<_> = titled(tables, title).into_iter().filter(|(rest, _)| rest.is_empty()).collect();
    assert_eq!(found.len(), 1, "tables that begin with {title:?}");
    found[0].1
}

// ---- types

/// A type that is sent, as a table of the document has it.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    /// The type that encodes it.
    Newtype(String),
    /// The fields in their order: name and type.
    Struct(Vec<(String, String)>),
    /// The variants in the order of their tags: name and content.
    Enum(Vec<(String, String)>),
}

impl Shape {
    /// The types that it names.
    fn names(&self) -> Vec<String> {
        let texts: Vec<&str> = match self {
            Shape::Newtype(of) => vec![of.as_str()],
            Shape::Struct(of) | Shape::Enum(of) => of.iter().map(|(_, of)| of.as_str()).collect(),
        };
        let words = texts.into_iter().flat_map(|text| text.split(|letter: char| !letter.is_alphanumeric()));
        words.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned).collect()
    }
}

/// A declaration in a source.
struct Declared {
    name: String,
    /// True if it derives Serialize.
    encoded: bool,
    shape: Shape,
}

/// The text between the bracket that `text` begins with and the one that closes it.
fn inside(text: &str) -> &str {
    let open = text.chars().next();
    let close = match open {
        Some('(') => ')',
        Some('[') => ']',
        Some('<') => '>',
        _ => '}',
    };
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        if Some(letter) == open {
            depth += 1;
        } else if letter == close {
            depth -= 1;
        }
        if depth == 0 {
            return &text[1..at];
        }
    }
    panic!("no end of {text:?}")
}

/// A field or variant without attributes and visibility.
fn bare(part: &str) -> &str {
    let mut part = part.trim();
    while let Some(rest) = part.strip_prefix('#') {
        part = rest[inside(rest).len() + 2..].trim_start();
    }
    match part.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest[inside(rest).len() + 2..].trim_start(),
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => part,
    }
}

/// The items of a list, split at the commas that are not within brackets.
fn items(list: &str) -> Vec<String> {
    let (mut depth, mut items) = (0_i32, vec![String::new()]);
    for letter in list.chars() {
        match letter {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        match items.last_mut() {
            Some(item) if letter != ',' || depth > 0 => item.push(letter),
            _ => items.push(String::new()),
        }
    }
    items.into_iter().map(|item| bare(&item).to_owned()).filter(|item| !item.is_empty()).collect()
}

fn word(text: &str) -> &str {
    let end = text.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    &text[..end.unwrap_or(text.len())]
}

/// A Rust type in the words of the document.
fn plain(rust: &str) -> String {
    let rust = rust.trim();
    if rust.starts_with('(') {
        let types: Vec<String> = items(inside(rust)).iter().map(|of| plain(of)).collect();
        return format!("({})", types.join(", "));
    }
    if rust.starts_with('[') {
        let list = inside(rust);
        assert!(list.starts_with("u8"), "an array or slice of {list}");
        return list.split_once(';').map_or("bytes".to_owned(), |(_, many)| format!("{} bytes", many.trim()));
    }
    let (path, of) = match rust.find('<') {
        Some(at) => (&rust[..at], Some(inside(&rust[at..]))),
        None => (rust, None),
    };
    match (path.rsplit("::").next().unwrap_or(path), of) {
        ("Option", Some(of)) => format!("optional {}", plain(of)),
        ("Vec", Some(of)) if of.trim() == "u8" => "bytes".to_owned(),
        ("Vec", Some(of)) => format!("list of {}", plain(of)),
        ("Arc", Some(of)) => plain(of),
        ("String" | "str", None) => "string".to_owned(),
        (name, None) => name.to_owned(),
        (_, Some(_)) => panic!("the document has no word for {rust}"),
    }
}

fn field(item: &str) -> (String, String) {
    let (name, of) = item.split_once(':').unwrap_or_else(|| panic!("{item:?} is no field"));
    (name.trim().to_owned(), plain(of))
}

fn variant(item: &str) -> (String, String) {
    let name = word(item);
    let rest = item[name.len()..].trim_start();
    let content: Vec<String> = match rest.chars().next() {
        Some('(') => items(inside(rest)).iter().map(|of| plain(of)).collect(),
        Some('{') => {
            let fields = items(inside(rest));
            fields.iter().map(|of| field(of)).map(|(name, of)| format!("{name}: {of}")).collect()
        }
        _ => vec!["none".to_owned()],
    };
    (name.to_owned(), content.join(", "))
}

/// The structs and enums of a source, without those that have parameters.
fn declared(source: &Source) -> Vec<Declared> {
    let code = source.shipped.as_str();
    let mut found = Vec::new();
    for keyword in ["struct", "enum"] {
        for at in places_of(code, keyword) {
            let name = word(code[at + keyword.len()..].trim_start());
            let body = code[at + keyword.len()..].trim_start()[name.len()..].trim_start();
            let shape = match body.chars().next() {
                Some('(') => Shape::Newtype(items(inside(body)).iter().map(|of| plain(of)).collect()),
                Some('{') if keyword == "enum" => {
                    Shape::Enum(items(inside(body)).iter().map(|of| variant(of)).collect())
                }
                Some('{') => Shape::Struct(items(inside(body)).iter().map(|of| field(of)).collect()),
                _ => continue,
            };
            let attributes = code[..at].rfind(['{', '}', ';']).map_or(0, |end| end + 1);
            let is_open = code[..attributes.saturating_sub(1)].trim_end().ends_with("open_enum!");
            // A macro implements what is encoded as the text that it checks.
            let is_text = code.contains(&format!("checked_name!({name},"));
            let derived = !places_of(&code[attributes..at], "Serialize").is_empty();
            let encoded = is_open || is_text || derived;
            found.push(Declared { name: name.to_owned(), encoded, shape });
        }
    }
    found
}

/// Every type that a packet or an inner header holds, by name.
fn sent() -> BTreeMap<String, Shape> {
    let mut encoded = BTreeMap::new();
    let packets = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proto/src/packet");
    let packets = fs::read_dir(packets).unwrap().map(|file| file.unwrap().file_name());
    let packets = packets.map(|file| format!("crates/proto/src/packet/{}", file.to_string_lossy()));
    for file in packets.chain(WIRE.map(|file| format!("crates/proto/src/{file}.rs"))) {
        let all = declared(&source(&file));
        for Declared { name, shape, .. } in all.into_iter().filter(|declared| declared.encoded) {
            assert!(encoded.insert(name.clone(), shape).is_none(), "two types {name}");
        }
    }
    let mut sent = BTreeMap::new();
    // A Selection is the content of an optional field.
    let mut left = ["ToServer", "ToClient", "ToPeer", "Header", "Selection"].map(str::to_owned).to_vec();
    while let Some(name) = left.pop() {
        if let Some(shape) = encoded.remove(&name) {
            left.extend(shape.names());
            sent.insert(name, shape);
        } else {
            let known = sent.contains_key(&name) || name == "SocketAddr";
            assert!(known, "{name} is sent, and neither a packet's source nor one of {WIRE:?} declares it");
        }
    }
    sent
}

/// The types that the document has, by name.
fn documented() -> BTreeMap<String, Shape> {
    let document = document();
    let mut found = Vec::new();
    for (name, table) in titled(&document, "field of ") {
        let fields = table.rows.iter().map(|row| (row[0].clone(), row[1].clone()));
        found.push((name.to_owned(), Shape::Struct(fields.collect())));
    }
    for (name, table) in titled(&document, "tag of ") {
        let has_content = table.head.get(2).is_some_and(|head| head == "content");
        let mut variants = Vec::new();
        for (tag, row) in table.rows.iter().enumerate() {
            assert_eq!(row[0], tag.to_string(), "the tags of {name} are consecutive");
            let content = if has_content { row[2].as_str() } else { "none" };
            variants.push((row[1].clone(), content.to_owned()));
        }
        found.push((name.to_owned(), Shape::Enum(variants)));
    }
    for row in &the_table(&document, "newtype").rows {
        found.push((row[0].clone(), Shape::Newtype(row[1].clone())));
    }
    let count = found.len();
    let documented: BTreeMap<String, Shape> = found.into_iter().collect();
    assert_eq!(documented.len(), count, "each type has one table");
    documented
}

#[test]
fn every_type_that_is_sent_stands_in_the_document_as_the_sources_declare_it() {
    let (documented, sent) = (documented(), sent());
    for (name, shape) in &sent {
        assert_eq!(
            documented.get(name),
            Some(shape),
            "{name}: left is docs/PROTOCOL.md, right is the source"
        );
    }
    let gone: Vec<&String> = documented.keys().filter(|name| !sent.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/PROTOCOL.md has {gone:?}, which no packet holds");
}

/// The parser of this test finds in the sources what the compiler finds.
#[test]
fn the_sources_are_read_as_they_are_compiled() {
    fn of<P: Samples + Debug>(set: &str, sent: &BTreeMap<String, Shape>) {
        let Some(Shape::Enum(packets)) = sent.get(set) else { panic!("no enum {set}") };
        let names: Vec<&str> = packets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, P::KINDS);
        for packet in P::samples() {
            let kind = packet.kind();
            let content = packets.iter().find(|(name, _)| name == kind).and_then(|(_, of)| sent.get(of));
            let Some(Shape::Struct(fields)) = content else { continue };
            let shown = format!("{packet:?}");
            for (field, _) in fields {
                assert!(shown.contains(&format!("{field}: ")), "{kind} has no {field}: {shown}");
            }
        }
    }
    let sent = sent();
    of::<ToServer>("ToServer", &sent);
    of::<ToClient>("ToClient", &sent);
    of::<ToPeer>("ToPeer", &sent);
}

// ---- constants

/// The type whose `impl` encloses this place.
fn owner(code: &str, at: usize) -> Option<&str> {
    let begin = *places_of(&code[..at], "impl").last()?;
    let open = begin + code[begin..].find('{')?;
    let end = open + inside(&code[open..]).len();
    code[begin..open].split_whitespace().next_back().filter(|_| at < end)
}

/// The constants of a source by name, each with its expression.
fn constants(source: &Source) -> BTreeMap<String, String> {
    let code = source.shipped.as_str();
    let mut found = BTreeMap::new();
    for at in places_of(code, "const") {
        let before = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        let name = word(code[at + "const".len()..].trim_start());
        let is_item = matches!(before, "" | "pub" | "pub(crate)" | "pub(super)");
        if !is_item || !name.starts_with(char::is_uppercase) {
            continue;
        }
        let Some(begin) = code[at..].find('=').map(|equals| at + equals + 1) else { continue };
        let Some(end) = code[begin..].find(';').map(|end| begin + end) else { continue };
        // A macro's constant is one of each type that it declares, and a list is no number.
        if code[begin..end].contains('$') || code[begin..end].trim_start().starts_with('[') {
            continue;
        }
        let name = owner(code, at).map_or(name.to_owned(), |owner| format!("{owner}::{name}"));
        found.insert(name, source.text[begin..end].trim().to_owned());
    }
    found
}

/// The constants of `crates/proto`.
fn constants_of_the_protocol() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("crates/proto/src")];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.ends_with("tests.rs") || path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            for (name, expression) in constants(&source(&path)) {
                assert!(found.insert(name.clone(), expression).is_none(), "two constants {name}");
            }
        }
    }
    found
}

/// The evaluation of a constant's expression: sums, products and shifts of numbers, constants and durations.
struct Evaluation<'a> {
    rest: &'a str,
    /// Where a constant is looked for, in this order.
    scopes: &'a [&'a BTreeMap<String, String>],
}

impl<'a> Evaluation<'a> {
    /// The number that the expression gives; of a duration, the microseconds.
    fn of(expression: &'a str, scopes: &'a [&'a BTreeMap<String, String>]) -> u128 {
        let mut evaluation = Evaluation { rest: expression, scopes };
        let number = evaluation.shift();
        assert!(evaluation.rest.trim().is_empty(), "this test cannot evaluate {expression:?}");
        number
    }

    /// Steps over `token`, if it is the next one.
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn shift(&mut self) -> u128 {
        let mut number = self.sum();
        while self.takes("<<") {
            number <<= self.sum();
        }
        number
    }

    fn sum(&mut self) -> u128 {
        let mut number = self.product();
        loop {
            if self.takes("+") {
                number += self.product();
            } else if self.takes("-") {
                number -= self.product();
            } else {
                return number;
            }
        }
    }

    fn product(&mut self) -> u128 {
        let mut number = self.operand();
        while self.takes("*") {
            number *= self.operand();
        }
        number
    }

    fn operand(&mut self) -> u128 {
        let mut number = if self.takes("(") { self.closed() } else { self.named() };
        loop {
            if self.takes(".div_ceil(") {
                number = number.div_ceil(self.closed());
            } else if self.takes("as ") {
                self.path();
            } else {
                return number;
            }
        }
    }

    /// The rest of an expression in parentheses.
    fn closed(&mut self) -> u128 {
        let number = self.shift();
        assert!(self.takes(")"), "this test cannot evaluate {:?}", self.rest);
        number
    }

    fn path(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | ':')));
        let (path, rest) = rest.split_at(end.unwrap_or(rest.len()));
        self.rest = rest;
        path
    }

    fn named(&mut self) -> u128 {
        let path = self.path();
        if path.starts_with(|letter: char| letter.is_ascii_digit()) {
            let digits = path.replace('_', "");
            let hex = digits.strip_prefix("0x").map(|hex| u128::from_str_radix(hex, 16).unwrap());
            return hex.unwrap_or_else(|| digits.parse().unwrap());
        }
        if self.takes("(") {
            let number = self.closed();
            return match path {
                "Duration::from_secs" => number * 1_000_000,
                "Duration::from_millis" => number * 1_000,
                _ => number,
            };
        }
        if path == "u64::BITS" {
            return u64::BITS.into();
        }
        Evaluation::of(expression(path, self.scopes), self.scopes)
    }
}

fn expression<'a>(name: &str, scopes: &'a [&'a BTreeMap<String, String>]) -> &'a str {
    let found = scopes.iter().find_map(|scope| scope.get(name));
    found.unwrap_or_else(|| panic!("no constant {name}"))
}

/// A constant's value as the document writes it.
fn value(name: &str, scopes: &[&BTreeMap<String, String>]) -> String {
    let expression = expression(name, scopes);
    if expression.starts_with('"') {
        return expression.trim_matches('"').to_owned();
    }
    let number = Evaluation::of(expression, scopes);
    match number {
        _ if !expression.contains("Duration::") => number.to_string(),
        micros if micros.is_multiple_of(1_000_000) => format!("{} s", micros / 1_000_000),
        micros => format!("{} ms", micros / 1_000),
    }
}

#[test]
fn every_constant_of_the_protocol_stands_in_the_document_with_its_value() {
    let constants = constants_of_the_protocol();
    for name in INTERNAL {
        assert!(constants.contains_key(name), "INTERNAL has {name}, which is gone");
    }
    let names = constants.keys().filter(|name| !INTERNAL.contains(&name.as_str()));
    let coded: BTreeMap<String, String> =
        names.map(|name| (name.clone(), value(name, &[&constants]))).collect();
    let document = document();
    let rows = &the_table(&document, "constant").rows;
    let written: BTreeMap<String, String> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(written, coded, "left is docs/PROTOCOL.md, right is crates/proto");
    assert_eq!(rows.len(), written.len(), "each constant has one row");
}

#[test]
fn the_constants_of_servers_and_client_in_the_document_are_those_of_their_files() {
    let protocol = constants_of_the_protocol();
    let document = document();
    let rows = &the_table(&document, "file").rows;
    assert!(!rows.is_empty());
    for row in rows {
        let own = constants(&source(&row[0]));
        assert_eq!(row[2], value(&row[1], &[&own, &protocol]), "{} of {}", row[1], row[0]);
    }
}

// ---- layouts, keys and examples

#[test]
fn the_outer_header_has_the_fields_and_classes_of_the_document_at_their_offsets() {
    let outer = |class| Envelope {
        class,
        cluster: ClusterId(0x0102_0304_0506_0708),
        session: SessionId(Op(0x1112_1314_1516_1718)),
        node: Some(NodeId(0x2122)),
        incarnation: Incarnation(0x3132_3334_3536_3738),
        number: 0x4142_4344_4546_4748,
    };
    let sealed = |class| seal(&mut Key::new([1; 32]).into(), &outer(class), &Header::default(), &[]);
    let Envelope { class: _, cluster, session, node, incarnation, number } = outer(Class::Peer);
    let fields = [
        ("magic", MAGIC.to_be_bytes().to_vec()),
        ("version", vec![VERSION]),
        ("class", vec![2]),
        ("cluster", cluster.0.to_be_bytes().to_vec()),
        ("group", GROUP.to_be_bytes().to_vec()),
        ("session", session.0.0.to_be_bytes().to_vec()),
        ("node", node.map_or(0, |node| node.0).to_be_bytes().to_vec()),
        ("incarnation", incarnation.0.to_be_bytes().to_vec()),
        ("number", number.to_be_bytes().to_vec()),
    ];
    let document = document();
    let rows = &the_table(&document, "offset in outer header").rows;
    assert_eq!(rows.len(), fields.len());
    let datagram = sealed(Class::Peer);
    for (row, (name, bytes)) in rows.iter().zip(fields) {
        let (offset, length): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!((row[2].as_str(), &datagram[offset..offset + length]), (name, &bytes[..]));
    }

    let envelope = declared(&source("crates/proto/src/envelope.rs"));
    let declared = envelope.into_iter().find(|declared| declared.name == "Class").map(|class| class.shape);
    let Some(Shape::Enum(declared)) = declared else { panic!("no enum Class") };
    let classes = [Class::Handshake, Class::Client, Class::Peer, Class::PeerHello];
    let coded: Vec<(String, String)> =
        classes.map(|class| (sealed(class)[3].to_string(), format!("{class:?}"))).into();
    assert!(declared.iter().map(|(name, _)| name).eq(coded.iter().map(|(_, name)| name)), "{declared:?}");
    let rows = &the_table(&document, "class byte").rows;
    let written: Vec<(String, String)> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(written, coded);
}

#[test]
fn the_layouts_in_the_document_have_no_holes_and_the_length_of_their_datagrams() {
    let constants = constants_of_the_protocol();
    let document = document();
    let layouts = titled(&document, "offset in ");
    assert_eq!(layouts.len(), 7);
    for (name, table) in layouts {
        let length = match name {
            "outer header" => "OUTER_LEN",
            "HELLO" | "RETRY" => "HELLO_LEN",
            "INITIATION" => "DATAGRAM_BASE",
            "ANSWER" => "OUTER_LEN + 1 + OPENING_LEN",
            "peer hello" => "PEER_HELLO_LEN",
            "VERSION" => "VERSION_LEN",
            other => panic!("no datagram {other}"),
        };
        let mut offset = 0_u128;
        for row in &table.rows {
            assert_eq!(row[0], offset.to_string(), "{name}: {}", row[2]);
            offset += if row[1] == "rest" { 0 } else { row[1].parse::<u128>().unwrap() };
        }
        assert_eq!(offset, Evaluation::of(length, &[&constants]), "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_in_the_document_are_those_of_the_golden_files() {
    let golden = |place: &str| {
        let (file, line) = place.split_once(", line ").unwrap();
        let line: usize = line.parse().unwrap();
        read(&format!("tests/it/golden/{file}")).lines().nth(line - 1).unwrap().to_owned()
    };
    let written = |table: &Table| table.rows.iter().map(|row| row[0].replace(' ', "")).collect::<String>();
    let document = document();
    let whole = titled(&document, "bytes of ");
    assert_eq!(whole.len(), 2);
    for (place, table) in whole {
        assert_eq!(written(table), golden(place), "{place}");
    }
    let sealed = titled(&document, "bytes inside ");
    assert_eq!(sealed.len(), 1);
    for (place, table) in sealed {
        let line = golden(place);
        let digits = (0..line.len()).step_by(2).map(|at| &line[at..at + 2]);
        let datagram: Vec<u8> = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
        let number = Envelope::peek(&datagram).unwrap().number;
        let inside = PacketKeys::from(Key::new([0x5e; 32])).open(number, OUTER_LEN, &datagram).unwrap();
        assert_eq!(written(table), hex(&inside), "{place}");
    }
}

#[test]
fn the_labels_in_the_document_derive_the_keys_and_its_examples_of_hashes_hold() {
    let secret = [1; 32];
    let (device, number, nonce) = ([2; 32], 5_u64.to_be_bytes(), 9_u64.to_be_bytes());
    let (one, other) = ([3; 16], [4; 16]);
    let cluster = ClusterKeys::new(&secret);
    let session = cluster.session_secret(SessionId(Op(5)), DeviceKey(device), 9, Default::default());
    let of_session = |direction| session.of_session(direction, NodeId(1), BootId(one)).secret().clone();
    let here = (NodeId(1), BootId(one));
    let peer = cluster.peer(here, (NodeId(2), BootId(other)), 0);
    let (id, ids) = ([0, 1], [0, 1, 0, 2]);
    let server = vec![&id[..], &one[..]];
    let derived = [
        (&secret, vec![], cluster.cluster_private()),
        (&secret, vec![], cluster.admin_private()),
        (&secret, vec![&number[..], &device[..], &nonce[..], &[0]], session.key().clone()),
        (session.key().as_bytes(), server.clone(), of_session(Direction::ToServer)),
        (session.key().as_bytes(), server, of_session(Direction::ToClient)),
        (&secret, vec![&ids[..], &one[..], &other[..], &[0]], peer.secret().clone()),
        (&secret, vec![&ids[..], &one[..]], cluster.peer_hello(here, NodeId(2))),
        (peer.secret().as_bytes(), vec![&number[..]], peer.of_phase(5)),
    ];
    let text = read("docs/PROTOCOL.md");
    let document = tables(&text);
    let rows = &the_table(&document, "key").rows;
    assert_eq!(rows.len(), derived.len());
    for (row, (parent, parts, key)) in rows.iter().zip(derived) {
        let label: &'static str = row[2].clone().leak();
        assert!(Key::new(mac(parent, label, &parts)) == key, "{}: {label:?}", row[0]);
    }
    let ascending = ClusterKey(std::array::from_fn(|at| at as u8));
    let examples = [ascending.fingerprint().to_string(), format!("{:016x}", fnv1a(*b"foobar"))];
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for example in examples {
        assert!(words.contains(&example), "docs/PROTOCOL.md has no {example}");
    }
}
