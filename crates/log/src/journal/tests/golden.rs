//! The journal's files, pinned byte by byte. A difference means that old and new programs do not read each
//! other's directories, which only another version of the format allows. `UPDATE_EXPECT=1` rewrites the
//! pinned files.

use std::fmt::Write;

use recado_proto::entry::Unknown;

use super::super::record::{Body, Owner, Record};
use super::*;

/// The length of a file, and its bytes by offset; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes\n", bytes.len());
    for (at, line) in bytes.chunks(32).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
        write!(text, "{:04x} ", 32 * at).unwrap();
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn expect(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/journal/tests/golden").join(name);
    let text = dump(bytes);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{name} has other bytes");
}

#[test]
fn the_files_of_a_directory_have_their_pinned_bytes() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let boot = |incarnation, boot_id| KnownBoot { incarnation: Incarnation(incarnation), boot_id };
    let known = [(NodeId(2), boot(5, Some(BootId([0xb2; 16])))), (NodeId(3), boot(0x0102, None))];
    journal.know(&known).unwrap();
    let kinds = EntryKind::ALL;
    let entries: Vec<Entry> = (1..)
        .zip(kinds)
        .map(|(op, kind)| Entry { op: Op(op), view: VIEW, kind: *kind, payload: vec![op as u8; 3].into() })
        .collect();
    journal.append(&entries, Op(1)).unwrap();
    journal.promise(View(2 << 16 | 3)).unwrap();
    let job = journal.begin_snapshot(Op(3)).unwrap();
    let written = job.write(VIEW, b"the state at 3");
    journal.finish_snapshot(written).unwrap();
    for (name, file) in [
        ("meta", "meta".to_owned()),
        ("log", log_name(1)),
        ("log.next", log_name(5)),
        ("snapshot", snapshot_name(3)),
    ] {
        expect(name, &std::fs::read(dir.path().join(file)).unwrap());
    }
}

#[test]
fn the_start_of_a_segment_after_damage_has_its_pinned_bytes() {
    let lost = Some(Unknown { first: Op(7), last: Op(0x0809), view_max: VIEW });
    let owner = Some(Owner { cluster: ClusterId(7), node: NodeId(2) });
    let body = Body::Start { prev: 6, lost, owner };
    let record = Record { serial: 9, durable: 6, commit: Op(4), op: Op(6), view: VIEW, body };
    let mut bytes = Vec::new();
    record.encode(9, &mut bytes);
    expect("log.damaged", &bytes);
}
