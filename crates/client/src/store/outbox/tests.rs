//! The outbox's file against crashes, power cuts and bit rot, on a real file system.

use std::fs::{self, OpenOptions};

use recado_proto::entropy::Entropy;
use recado_proto::packet::Content;

use super::*;
use crate::machine::Request;

fn numbered(seq: u64, body: &str) -> Numbered {
    let request = Request::Send { topic: None, content: Content::of(body) };
    Numbered { seq: Seq(seq), nonce: seq, request }
}

/// A device's file, and what it has held after each turn since it was written whole, with the file's length.
struct Device {
    path: PathBuf,
    outbox: Outbox,
    held: Vec<(u64, Kept)>,
    next: u64,
    _dir: tempfile::TempDir,
}

impl Device {
    fn new() -> Device {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let outbox = Outbox::open(path.clone()).unwrap();
        Device { path, outbox, held: Vec::new(), next: 1, _dir: dir }
    }

    fn end_turn(&mut self, told_below: u64) {
        let before = self.outbox.ends.whole;
        let frames = self.held.last().map_or(0, |(end, _)| *end);
        self.outbox.end_turn(Seq(told_below)).unwrap();
        let Ends { written, whole, .. } = self.outbox.ends;
        if whole != before || written < frames {
            self.held.clear();
        }
        self.held.push((written, self.outbox.kept.clone()));
    }

    fn ask(&mut self, bodies: &[&str]) {
        for body in bodies {
            self.outbox.asked(numbered(self.next, body));
            self.next += 1;
        }
    }

    /// A turn with anything that can happen in one.
    fn any_turn(&mut self, draw: &mut Entropy) {
        let mut below = |most: u64| draw.number() % most;
        if below(8) == 0 {
            self.outbox.known(Op(below(100)), Seq(below(self.next)));
        }
        for _ in 0..below(4) {
            let body = "x".repeat(below(300) as usize);
            self.ask(&[&body]);
        }
        let unanswered: Vec<Seq> = self.outbox.kept.unanswered.keys().copied().collect();
        for seq in unanswered.iter().filter(|_| below(3) == 0) {
            self.outbox.answered(*seq);
        }
        if below(10) == 0 {
            let left = self.outbox.kept.unanswered.keys().copied();
            let moved: Vec<_> = left.map(|seq| (seq, Seq(seq.0 + 1))).collect();
            self.outbox.renumbered(moved);
            self.next += 1;
        }
        let told = if below(3) == 0 { self.next } else { 0 };
        self.end_turn(told);
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// Asserts that these bytes are refused as damaged, or are what was held at one of the ends from `least`
    /// on. Returns true if they are refused.
    fn check(&self, bytes: &[u8], least: u64, what: &str) -> bool {
        match scan(bytes) {
            Err(Unreadable::Damaged) => true,
            Err(other) => panic!("{what}: {other:?}"),
            Ok(scanned) => {
                let mut held = self.held.iter().filter(|(end, _)| *end >= least);
                assert!(held.any(|(_, kept)| *kept == scanned.kept), "{what}: {:?}", scanned.kept);
                false
            }
        }
    }
}

fn seeded(seed: u64) -> Entropy {
    eprintln!("seed {seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Entropy::new(bytes)
}

#[test]
fn after_a_power_cut_the_outbox_is_that_of_a_turn_from_the_last_synced_one_on() {
    for seed in 0..40 {
        let (mut device, mut draw) = (Device::new(), seeded(seed));
        device.ask(&["the first"]);
        device.end_turn(0);
        for turn in 0..30 {
            device.any_turn(&mut draw);
            assert_eq!(read_outbox(&device.path).unwrap(), device.outbox.kept, "the process crashes");
            let (bytes, synced) = (device.bytes(), device.outbox.ends.synced);
            for _ in 0..20 {
                let mut left = bytes.clone();
                let loose = bytes.len() - synced as usize;
                let any = |draw: &mut Entropy| synced as usize + draw.number() as usize % (loose + 1);
                let (from, to) = (any(&mut draw), any(&mut draw));
                match draw.number() % 4 {
                    0 => left.truncate(from),
                    1 => left[from.min(to)..from.max(to)].fill(0),
                    2 => left[synced as usize..from].fill(0),
                    _ => left[from.min(to)..from.max(to)].iter_mut().for_each(|byte| *byte ^= 0x5a),
                }
                let refused = device.check(&left, synced, &format!("turn {turn}, {from} to {to}"));
                assert!(!refused, "turn {turn}, {from} to {to}: what was never synced is no damage");
            }
        }
    }
}

#[test]
fn no_prefix_and_no_flipped_bit_makes_another_outbox() {
    for seed in 0..6 {
        let (mut device, mut draw) = (Device::new(), seeded(seed));
        device.ask(&["the first"]);
        device.end_turn(0);
        (0..6).for_each(|_| device.any_turn(&mut draw));
        for closed in [false, true] {
            if closed {
                let empty = Outbox::open(device.path.clone()).unwrap();
                std::mem::replace(&mut device.outbox, empty).close();
            }
            let bytes = device.bytes();
            let Ends { attested, .. } = scan(&bytes).unwrap().ends;
            for bit in 0..8 * bytes.len() {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let refused = device.check(&bad, attested, &format!("bit {bit}"));
                assert_eq!(refused, bit as u64 / 8 < attested, "bit {bit}: what is known to be durable");
            }
            for length in 0..bytes.len() {
                let refused = device.check(&bytes[..length], 0, &format!("prefix {length}"));
                let Ends { whole, .. } = device.outbox.ends;
                assert!(refused || length as u64 >= whole, "prefix {length}");
            }
        }
        let last = device.held.last().map(|(_, kept)| kept.clone());
        assert_eq!(last, Some(read_outbox(&device.path).unwrap()));
    }
}

#[test]
fn a_request_is_synced_before_it_is_sent_and_an_answer_before_the_servers_are_told() {
    let mut device = Device::new();
    device.ask(&["one", "two", "three"]);
    device.end_turn(1);
    let synced = |device: &Device| device.outbox.ends.synced >= device.outbox.ends.changed;
    assert!(synced(&device));
    device.outbox.answered(Seq(1));
    device.end_turn(1);
    assert!(!synced(&device), "nobody is told");
    device.end_turn(1);
    assert!(!synced(&device), "nothing has changed");
    device.end_turn(2);
    assert!(synced(&device), "from here on the servers hold no result of 1");
    device.outbox.answered(Seq(3));
    device.end_turn(2);
    assert!(!synced(&device), "all below 2 are durably answered");
    device.ask(&["four"]);
    device.end_turn(2);
    assert!(synced(&device), "a request is, with what comes before it");
    device.outbox.renumbered(vec![(Seq(4), Seq(5))]);
    device.end_turn(2);
    assert!(synced(&device), "another number is");
    device.outbox.known(Op(9), Seq(5));
    device.end_turn(2);
    assert!(synced(&device), "the device is");
}

#[test]
fn what_a_crashed_process_did_not_sync_is_synced_before_it_is_sent() {
    let mut device = Device::new();
    device.ask(&["one", "two"]);
    device.end_turn(0);
    device.outbox.answered(Seq(1));
    device.end_turn(0);
    let mut next = Outbox::open(device.path.clone()).unwrap();
    assert!(next.ends.synced < next.ends.changed);
    next.end_turn(Seq(0)).unwrap();
    assert!(next.ends.synced < next.ends.changed, "nothing is sent");
    next.end_turn(Seq(2)).unwrap();
    assert!(next.ends.synced >= next.ends.changed);
}

#[test]
fn a_turn_without_changes_writes_nothing() {
    let mut device = Device::new();
    device.end_turn(0);
    assert!(!device.path.exists());
    device.ask(&["one"]);
    device.end_turn(1);
    let bytes = device.bytes();
    device.end_turn(1);
    assert_eq!(device.bytes(), bytes);
    // A file whose end says that all of it is durable needs no other end.
    for _ in 0..2 {
        device.outbox.close();
        device.outbox = Outbox::open(device.path.clone()).unwrap();
        assert_eq!(device.bytes(), bytes);
    }
}

#[test]
fn an_outbox_that_was_closed_is_known_to_be_durable_whole() {
    let mut device = Device::new();
    device.ask(&["one", "two"]);
    device.end_turn(1);
    device.outbox.answered(Seq(1));
    device.end_turn(1);
    let changed = device.outbox.ends.changed;
    device.outbox.close();
    let bytes = fs::read(&device.path).unwrap();
    assert_eq!(scan(&bytes).unwrap().ends.attested, changed);
    let mut rotten = bytes;
    rotten[changed as usize - 1] ^= 1;
    assert_eq!(scan(&rotten).map(|_| ()), Err(Unreadable::Damaged));
}

#[test]
fn a_torn_end_is_cut_by_the_next_turn_that_keeps_anything() {
    let mut device = Device::new();
    device.ask(&["one"]);
    device.end_turn(1);
    let torn = [&device.bytes()[..], &frame(b"lost", 0)[..FRAME + 2]].concat();
    fs::write(&device.path, &torn).unwrap();
    device.outbox = Outbox::open(device.path.clone()).unwrap();
    device.end_turn(0);
    assert_eq!(device.bytes(), torn, "nothing has changed");
    device.ask(&["two"]);
    device.end_turn(1);
    assert_eq!(read_outbox(&device.path).unwrap().unanswered.len(), 2);
    assert!(!scan(&device.bytes()).unwrap().torn);
}

#[test]
fn what_stands_before_a_torn_end_is_durable_before_it_is_sent() {
    let mut device = Device::new();
    device.ask(&["one"]);
    device.end_turn(1);
    device.ask(&["two"]);
    device.end_turn(1);
    let torn = [&device.bytes()[..], b"torn"].concat();
    fs::write(&device.path, &torn).unwrap();
    device.outbox = Outbox::open(device.path.clone()).unwrap();
    device.end_turn(1);
    assert_eq!(device.bytes(), whole(&device.outbox.kept));
    assert_eq!(device.outbox.kept.unanswered.len(), 2);
}

#[test]
fn a_file_that_has_grown_is_written_whole_and_a_crash_meanwhile_leaves_the_one_before() {
    let mut device = Device::new();
    let mut compactions = 0;
    let mut longest = 0;
    for turn in 1..=1_000 {
        let (before, whole) = (device.path.exists().then(|| device.bytes()), device.outbox.ends.whole);
        device.ask(&[&"x".repeat(500)]);
        if turn > 1 {
            device.outbox.answered(Seq(turn - 1));
        }
        // A crash before the rename.
        fs::write(device.path.with_extension("tmp"), &MAGIC[..turn as usize % 9]).unwrap();
        if let Some(before) = &before {
            let kept = scan(before).unwrap().kept;
            assert_eq!(read_outbox(&device.path).unwrap(), kept);
        }
        device.end_turn(turn);
        compactions += u64::from(device.outbox.ends.whole != whole);
        longest = longest.max(device.bytes().len());
        assert_eq!(read_outbox(&device.path).unwrap(), device.outbox.kept);
        assert_eq!(device.outbox.kept.unanswered.len(), 1);
    }
    assert!((2..20).contains(&compactions), "{compactions}");
    assert!(longest < 3 * GROWTH_MIN as usize, "{longest}");
}

#[test]
fn a_file_that_has_grown_by_what_is_kept_is_not_written_whole_each_turn() {
    let mut device = Device::new();
    let body = "x".repeat(4_000);
    let mut written = 0;
    for _ in 0..256 {
        let whole = device.outbox.ends.whole;
        device.ask(&[&body]);
        device.end_turn(1);
        written += if device.outbox.ends.whole == whole { 0 } else { device.bytes().len() };
    }
    assert!(written < 3 * device.bytes().len(), "{written}");
}

#[test]
fn a_change_that_this_program_does_not_know_is_of_another_version() {
    let mut device = Device::new();
    device.ask(&["one"]);
    device.end_turn(1);
    let unknown = [&2u32.to_le_bytes()[..], &[0x7f, 0]].concat();
    let mut elsewhere = codec_of_another_epoch();
    elsewhere.splice(0..0, (elsewhere.len() as u32).to_le_bytes());
    for body in [unknown, elsewhere] {
        let later = [device.bytes(), frame(&body, 0)].concat();
        assert_eq!(scan(&later).map(|_| ()), Err(Unreadable::OtherVersion(VERSION + 1)));
    }
}

/// The change that a device was admitted by an op of another epoch.
fn codec_of_another_epoch() -> Vec<u8> {
    let known = encode(&Change::Known { created_op: Some(Op(3)), given: Seq(1) });
    // Kind, some, group, epoch.
    let mut other = known.clone();
    other[3] = 1;
    assert_eq!(decode(&known), Some(Change::Known { created_op: Some(Op(3)), given: Seq(1) }));
    other
}

#[test]
fn a_turn_that_cannot_be_kept_is_undone_or_said_to_be_there_perhaps() {
    let mut device = Device::new();
    let aside = device.path.with_extension("tmp");
    fs::create_dir(&aside).unwrap();
    device.ask(&["one"]);
    let failed = device.outbox.end_turn(Seq(1)).unwrap_err();
    assert!(failed.undone && failed.error.to_string().contains("outbox"), "{failed:?}");
    assert!(!device.path.exists());
    fs::remove_dir(&aside).unwrap();

    let mut device = Device::new();
    device.ask(&["one"]);
    device.end_turn(1);
    let bytes = device.bytes();
    // Nothing can be written, and nothing undone.
    device.outbox.file = Some(OpenOptions::new().read(true).open(&device.path).unwrap());
    device.ask(&["two"]);
    let failed = device.outbox.end_turn(Seq(1)).unwrap_err();
    assert!(!failed.undone && failed.error.to_string().contains("outbox"), "{failed:?}");
    let Device { outbox, path, _dir, .. } = device;
    outbox.close();
    assert_eq!(fs::read(path).unwrap(), bytes);
}
