//! Behaviours of the store, on a real file system.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;

use recado_proto::hex::Hex;
use recado_proto::id::{ChannelName, Moment, Priority, Seq, Topic};
use recado_proto::packet::{Body, ChannelChange, Content, FollowChange, KeyChange, Role};

use super::files::FILE_MAX;
use super::*;
use crate::machine::{Numbered, Request};

fn take(state: &Path) -> Result<(Slot, Outbox), StoreError> {
    Slot::take(state, ClusterId(7), &"alice".parse().unwrap())
}

fn send(body: &str) -> Request {
    let content = Content {
        title: None,
        priority: Priority::default(),
        tags: vec!["a".into()],
        body: body.into(),
        extra: Vec::new(),
    };
    Request::Send { topic: Some(Topic::to_send("#ops").unwrap()), content }
}

fn numbered(seq: u64, request: Request) -> Numbered {
    Numbered { seq: Seq(seq), nonce: seq, request }
}

/// Takes the device, which is admitted, asks these requests, and ends.
fn ask(state: &Path, requests: &[Numbered]) -> Slot {
    let (slot, mut outbox) = take(state).unwrap();
    outbox.known(Op(3), Seq(0));
    requests.iter().for_each(|of| outbox.asked(of.clone()));
    outbox.end_turn(Seq(0)).unwrap();
    outbox.close();
    slot
}

fn unanswered(outbox: &Outbox) -> Vec<Numbered> {
    outbox.kept().numbered().collect()
}

#[test]
fn a_second_process_takes_the_next_slot_of_the_same_installation() {
    let state = tempfile::tempdir().unwrap();
    let (first, _) = take(state.path()).unwrap();
    let (second, _) = take(state.path()).unwrap();
    assert_eq!(first.device().key, second.device().key);
    assert_eq!((first.device().slot, second.device().slot), (0, 1));
    drop(first);
    assert_eq!(take(state.path()).unwrap().0.device().slot, 0);
}

#[test]
fn when_every_slot_is_taken_the_error_says_so() {
    let state = tempfile::tempdir().unwrap();
    let taken: Vec<_> = (0..SLOTS).map(|_| take(state.path()).unwrap()).collect();
    assert!(matches!(take(state.path()), Err(StoreError::NoSlot(_))));
    drop(taken);
    assert!(take(state.path()).is_ok());
}

#[test]
fn a_slot_that_becomes_free_in_time_is_taken() {
    let state = tempfile::tempdir().unwrap();
    let mut taken: Vec<_> = (0..SLOTS).map(|_| take(state.path()).unwrap()).collect();
    let mut tries = 0;
    let clock = MachineClock::start();
    let (slot, _) = once_free(clock, Moment(60_000_000), || {
        tries += 1;
        if tries == 3 {
            taken.remove(5);
        }
        take(state.path())
    })
    .unwrap();
    assert_eq!((tries, slot.device().slot), (3, 5));
    assert!(matches!(once_free(clock, Moment(0), || take(state.path())), Err(StoreError::NoSlot(_))));
}

#[test]
fn a_client_without_files_takes_a_device_that_has_none_and_writes_the_lock_alone() {
    let state = tempfile::tempdir().unwrap();
    let without = || Slot::take_without_files(state.path(), ClusterId(7), &"alice".parse().unwrap());
    let (slot, mut outbox) = without().unwrap();
    outbox.known(Op(3), Seq(7));
    outbox.asked(numbered(8, send("in memory")));
    outbox.end_turn(Seq(8)).unwrap();
    slot.save_cursor(Op(9)).unwrap();
    assert_eq!((slot.device().slot, slot.cursor(), unanswered(&outbox).len()), (15, Some(Op(9)), 1));
    let names = fs::read_dir(slot.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["lock"]);
    assert_eq!(without().unwrap().0.device().slot, 14);
    outbox.close();
    drop(slot);
    let (slot, outbox) = without().unwrap();
    assert_eq!((slot.device().slot, slot.cursor(), unanswered(&outbox)), (15, None, vec![]));
    drop(slot);
    // All devices have files.
    let taken: Vec<_> = (0..SLOTS).map(|_| ask(state.path(), &[numbered(1, send("kept"))])).collect();
    drop(taken);
    assert!(matches!(without(), Err(StoreError::NoSlot(_))));
    assert!(take(state.path()).is_ok(), "nothing is locked");
}

#[test]
fn clusters_and_profiles_have_their_own_keys() {
    let state = tempfile::tempdir().unwrap();
    let (alice, _) = take(state.path()).unwrap();
    let (bob, _) = Slot::take(state.path(), ClusterId(7), &"bob".parse().unwrap()).unwrap();
    let (elsewhere, _) = Slot::take(state.path(), ClusterId(8), &"alice".parse().unwrap()).unwrap();
    assert_ne!(alice.device().key, bob.device().key);
    assert_ne!(alice.device().key, elsewhere.device().key);
}

#[test]
fn unanswered_requests_and_the_cursor_outlive_the_process() {
    let state = tempfile::tempdir().unwrap();
    let follow = Request::Follow { topic: Topic::to_follow("@bob").unwrap(), change: FollowChange::Remove };
    let change = |change| Request::Channel { channel: "ops".parse().unwrap(), change };
    let member = || "bob".parse().unwrap();
    let longest: ChannelName = "A-_.~z09".repeat(16).parse().unwrap();
    assert_eq!(longest.as_str().len(), ChannelName::LEN_MAX);
    let full = Request::Send {
        topic: None,
        content: Content {
            title: Some("t".repeat(Content::TITLE_MAX)),
            priority: Priority::default(),
            tags: vec!["g".repeat(Content::TAG_MAX); Content::TAGS_MAX],
            body: Body::binary(vec![0xff; Content::BODY_MAX]),
            extra: vec![("key".into(), vec![0xfe; Content::EXTRA_MAX - 3])],
        },
    };
    let asks = [
        (Seq(1), change(ChannelChange::Create { private: true })),
        (Seq(2), change(ChannelChange::Add { member: member(), role: Role::Writer })),
        (Seq(3), change(ChannelChange::Delete)),
        (Seq(4), follow),
        (Seq(5), Request::Keys { change: KeyChange::Revoke { key: DeviceKey([0xfe; 32]) } }),
        (Seq(6), Request::Channel { channel: longest.clone(), change: ChannelChange::Delete }),
        (Seq(7), Request::Follow { topic: Topic::Channel(longest), change: FollowChange::Add }),
        (Seq(8), send("two\nlines \u{1b}[0m \"quoted\"")),
        (Seq(9), full),
    ];
    let (slot, mut outbox) = take(state.path()).unwrap();
    assert_eq!((unanswered(&outbox), slot.cursor()), (vec![], None));
    outbox.known(Op(3), Seq(9));
    // A nonce that uses all 64 bits.
    let asks = asks.map(|(seq, request)| Numbered { seq, nonce: u64::MAX - seq.0, request });
    asks.iter().for_each(|of| outbox.asked(of.clone()));
    outbox.end_turn(Seq(0)).unwrap();
    slot.save_cursor(Op(17)).unwrap();
    slot.save_cursor(Op(12)).unwrap();
    drop((slot, outbox));
    let (slot, outbox) = take(state.path()).unwrap();
    assert_eq!(unanswered(&outbox), asks);
    assert_eq!((outbox.kept().created_op, outbox.kept().given), (Some(Op(3)), Seq(9)));
    assert_eq!(slot.cursor(), Some(Op(17)));
}

#[test]
fn the_key_file_is_private_and_its_damage_is_an_error() {
    let state = tempfile::tempdir().unwrap();
    let (slot, _) = take(state.path()).unwrap();
    let key = slot.key();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    drop(slot);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(take(state.path()), Err(StoreError::Exposed { mode: 0o644, .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "short").unwrap();
    assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })));
}

#[test]
fn the_files_of_a_device_are_private_and_wrong_permissions_are_corrected() {
    let state = tempfile::tempdir().unwrap();
    let modes = |slot: &Slot| {
        let dir = slot.dir();
        let paths = [dir.ancestors().nth(2).unwrap(), dir.parent().unwrap(), dir, &dir.join(OUTBOX)];
        paths.map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777)
    };
    let slot = ask(state.path(), &[]);
    let private = [0o700, 0o700, 0o700, 0o600];
    assert_eq!(modes(&slot), private);
    let dir = slot.dir().to_owned();
    drop(slot);
    for (path, mode) in dir
        .ancestors()
        .take(3)
        .map(|dir| (dir.to_owned(), 0o755))
        .chain([(dir.join(OUTBOX), 0o644), (dir.join("cursor"), 0o664)])
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let (slot, _) = take(state.path()).unwrap();
    assert_eq!(modes(&slot), private);
    assert_eq!(fs::metadata(dir.join("cursor")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_damaged_cursor_or_outbox_is_an_error_and_not_guessed() {
    let state = tempfile::tempdir().unwrap();
    let (slot, _) = take(state.path()).unwrap();
    let dir = slot.dir().to_owned();
    drop(slot);
    fs::write(dir.join("cursor"), "12").unwrap();
    assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })));
    fs::remove_file(dir.join("cursor")).unwrap();
    assert_eq!(take(state.path()).unwrap().0.cursor(), None);
    for bad in ["", "recadoOB", "created = 3\n", &"x".repeat(99)] {
        fs::write(dir.join(OUTBOX), bad).unwrap();
        assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })), "{bad}");
    }
}

#[test]
fn the_files_of_a_device_have_their_pinned_bytes() {
    let state = tempfile::tempdir().unwrap();
    put_key(&installation(state.path(), ClusterId(7), &"alice".parse().unwrap()), &[0x5e; 32], false)
        .unwrap();
    let (slot, mut outbox) = take(state.path()).unwrap();
    outbox.known(Op(3), Seq(0));
    outbox.asked(numbered(1, send("at noon")));
    outbox.end_turn(Seq(0)).unwrap();
    outbox.asked(numbered(2, Request::Send { topic: None, content: Content::of("later") }));
    outbox.renumbered(vec![(Seq(2), Seq(3))]);
    outbox.end_turn(Seq(0)).unwrap();
    outbox.answered(Seq(1));
    outbox.end_turn(Seq(0)).unwrap();
    outbox.close();
    slot.save_cursor(Op(1_234)).unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(read(slot.key()), format!("v1 {} 65c538db\n", "5e".repeat(32)));
    assert_eq!(
        read(slot.dir().join("cursor")),
        "v1 00000 00000000000000000000 0000000000 00000000000000001234 959acffd\n"
    );
    let head = "72656361646f4f42 01000000 5400000000000000 985f2b17";
    let frames = [
        "5390047f 28000000 aeb2fce9 0000000000000000",
        "07000000 00 01000000 03 01",
        "19000000 01 01 01 02 01 01 03 6f7073 00 03 01 01 61 00 07 6174206e6f6f6e 00",
        "438e5a13 1c000000 308d1a70 5400000000000000",
        "10000000 01 02 02 02 00 00 03 00 00 05 6c61746572 00",
        "04000000 02 01 02 03",
        "85f4d040 06000000 d3f72a4a 8400000000000000",
        "02000000 03 01",
        "c3795903 00000000 00000000 9e00000000000000",
    ];
    let bytes = fs::read(slot.dir().join(OUTBOX)).unwrap();
    assert_eq!(Hex(&bytes).to_string(), (head.to_owned() + &frames.concat()).replace(' ', ""));
}

/// What is said of a file with these bytes, which are not touched. The file has its own again afterwards.
fn refusal(state: &Path, file: &Path, bytes: &[u8]) -> StoreError {
    let good = fs::read(file).unwrap();
    fs::write(file, bytes).unwrap();
    let error = take(state).unwrap_err();
    assert_eq!(fs::read(file).unwrap(), bytes, "{error}");
    fs::write(file, good).unwrap();
    error
}

#[test]
fn a_file_of_another_version_is_refused_as_such_and_not_touched() {
    let state = tempfile::tempdir().unwrap();
    let slot = ask(state.path(), &[]);
    slot.save_cursor(Op(3)).unwrap();
    let (dir, key) = (slot.dir().to_owned(), slot.key());
    drop(slot);
    let line = |versioned: &str| format!("{versioned} {:08x}\n", crc32c::crc32c(versioned.as_bytes()));
    let elsewhere = "00000 00000000000000000001 0000000000 00000000000000000003";
    let outbox = {
        let head = [&b"recadoOB"[..], &2u32.to_le_bytes(), &99u64.to_le_bytes()].concat();
        [&head[..], &crc32c::crc32c(&head).to_le_bytes(), b"something else"].concat()
    };
    for (path, text) in [
        (key, line("v2 a key").into_bytes()),
        (dir.join("cursor"), line("v2 a cursor").into_bytes()),
        (dir.join("cursor"), format::line(elsewhere).into_bytes()),
        (dir.join(OUTBOX), outbox),
    ] {
        let error = refusal(state.path(), &path, &text);
        assert!(
            matches!(&error, StoreError::OtherVersion { path: named, found: 2, reads: 1 } if *named == path),
            "{error}"
        );
    }
    assert!(take(state.path()).is_ok());
}

#[test]
fn an_error_about_a_file_that_is_no_text_names_the_file_and_a_cure() {
    let state = tempfile::tempdir().unwrap();
    let slot = ask(state.path(), &[]);
    let (dir, key) = (slot.dir().to_owned(), slot.key());
    drop(slot);
    for path in [dir.join(OUTBOX), dir.join("cursor"), key] {
        let message = refusal(state.path(), &path, &[0xff; 64]).to_string();
        assert!(message.starts_with(&format!("{} is damaged; ", path.display())), "{message}");
    }
    assert!(take(state.path()).is_ok());
}

#[test]
fn no_flipped_bit_of_a_cursor_makes_another_cursor() {
    let state = tempfile::tempdir().unwrap();
    let (slot, _) = take(state.path()).unwrap();
    slot.save_cursor(Op(1_234)).unwrap();
    let path = slot.dir().join("cursor");
    drop(slot);
    let good = fs::read(&path).unwrap();
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let message = refusal(state.path(), &path, &bad).to_string();
        assert!(message.contains("cursor is damaged; delete it"), "bit {bit}: {message}");
    }
    fs::write(&path, &good).unwrap();
    let (slot, _) = take(state.path()).unwrap();
    assert_eq!(slot.cursor(), Some(Op(1_234)));
    slot.set_cursor(Op(7)).unwrap();
    drop(slot);
    assert_eq!(take(state.path()).unwrap().0.cursor(), Some(Op(7)), "back when the servers say so");
}

#[test]
fn a_file_that_is_not_regular_is_an_error_with_a_cure_and_blocks_nobody() {
    let state = tempfile::tempdir().unwrap();
    let slot = ask(state.path(), &[]);
    let (dir, key) = (slot.dir().to_owned(), slot.key());
    drop(slot);
    let beside = key.with_file_name("lock");
    for path in [dir.join(OUTBOX), dir.join("cursor"), dir.join("lock"), key, beside] {
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let told = |what: &str| {
            let told = take(state.path()).unwrap_err();
            assert!(
                matches!(&told, StoreError::NotRegular { path: at, .. } if *at == path),
                "{what}: {told}"
            );
            fs::remove_file(&path).unwrap();
        };
        told("a pipe");
        for target in [Path::new("/dev/zero"), &aside] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            told("a link");
        }
        fs::rename(&aside, &path).unwrap();
    }
    assert!(take(state.path()).is_ok());
    // A file that is longer than any that was ever written there.
    OpenOptions::new().write(true).open(dir.join("cursor")).unwrap().set_len(FILE_MAX + 1).unwrap();
    assert!(matches!(take(state.path()), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_missing_key_beside_a_device_is_an_error_and_no_new_key_is_drawn() {
    let state = tempfile::tempdir().unwrap();
    let (slot, _) = take(state.path()).unwrap();
    let (key, device) = (slot.key(), slot.device());
    drop(slot);
    let aside = state.path().join("aside");
    fs::rename(&key, &aside).unwrap();
    // The key was never used by a device, so a new one is made.
    assert_ne!(take(state.path()).unwrap().0.device(), device);
    fs::rename(&aside, &key).unwrap();
    drop(ask(state.path(), &[numbered(1, send("kept"))]));
    fs::rename(&key, &aside).unwrap();
    let error = take(state.path()).unwrap_err();
    assert!(matches!(error, StoreError::KeyMissing { .. }), "{error}");
    let installation = key.parent().unwrap();
    for part in [key.to_str().unwrap(), "restore it", &format!("delete {}", installation.display())] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!key.exists());
    fs::rename(&aside, &key).unwrap();
    let (slot, outbox) = take(state.path()).unwrap();
    assert_eq!((slot.device(), unanswered(&outbox).len()), (device, 1));
}

#[test]
fn a_reset_names_what_is_not_sent_and_leaves_the_key_and_the_highest_number() {
    let state = tempfile::tempdir().unwrap();
    let begin = || DeviceReset::begin(state.path(), ClusterId(7), &"alice".parse().unwrap());
    assert!(matches!(begin(), Err(StoreError::NoKey { .. })));
    let slot = ask(state.path(), &[numbered(1, send("one")), numbered(2, send("two"))]);
    slot.save_cursor(Op(9)).unwrap();
    let key = slot.device().key;
    assert!(matches!(begin(), Err(StoreError::InUse(_))), "it is in use");
    drop(slot);
    let kept = begin().unwrap();
    assert_eq!((kept.devices(), kept.unsent()), (1, &[send("one"), send("two")][..]));
    assert!(take(state.path()).unwrap().0.dir().ends_with("slot-1"), "it is locked meanwhile");
    drop(kept);
    let (slot, outbox) = take(state.path()).unwrap();
    assert_eq!((slot.cursor(), unanswered(&outbox).len()), (Some(Op(9)), 2), "nothing was done");
    drop((slot, outbox));

    begin().unwrap().finish().unwrap();
    let (slot, outbox) = take(state.path()).unwrap();
    assert_eq!((slot.device().key, slot.cursor()), (key, None));
    assert_eq!(*outbox.kept(), change::Kept { given: Seq(2), ..Default::default() });
}

#[test]
fn what_cannot_be_read_is_reset_too() {
    let state = tempfile::tempdir().unwrap();
    let slot = ask(state.path(), &[numbered(1, send("one"))]);
    let dir = slot.dir().to_owned();
    drop(slot);
    fs::write(dir.join(OUTBOX), "no outbox").unwrap();
    fs::write(dir.join(CURSOR), "no cursor").unwrap();
    let reset = DeviceReset::begin(state.path(), ClusterId(7), &"alice".parse().unwrap()).unwrap();
    assert!(matches!(reset.unreadable(), [StoreError::Damaged { .. }]), "{reset:?}");
    reset.finish().unwrap();
    let (slot, outbox) = take(state.path()).unwrap();
    assert_eq!((slot.dir(), slot.cursor(), unanswered(&outbox)), (dir.as_path(), None, vec![]));
}

#[test]
fn who_only_sends_settles_first_what_was_left_and_who_receives_keeps_its_cursor() {
    let state = tempfile::tempdir().unwrap();
    let to_send = || Slot::take_to_send(state.path(), ClusterId(7), &"alice".parse().unwrap()).unwrap();
    let ends = |slot: &Slot, name: &str| assert!(slot.dir().ends_with(name), "{:?}", slot.dir());
    let (first, _) = to_send();
    ends(&first, "slot-0");
    let (second, mut outbox) = to_send();
    ends(&second, "slot-1");
    assert!(!first.has_unsettled_neighbour());
    let request = Request::Follow { topic: Topic::to_follow("#ops").unwrap(), change: FollowChange::Add };
    outbox.known(Op(3), Seq(0));
    outbox.asked(Numbered { seq: Seq(1), nonce: 1, request });
    outbox.end_turn(Seq(0)).unwrap();
    assert!(!first.has_unsettled_neighbour(), "somebody settles it at the moment");
    drop((second, outbox));
    assert!(first.has_unsettled_neighbour());
    drop(first);
    ends(&take(state.path()).unwrap().0, "slot-0");
    ends(&to_send().0, "slot-1");
}

#[test]
fn an_installation_tells_what_waits_in_it_and_what_cannot_be_read() {
    let state = tempfile::tempdir().unwrap();
    assert!(Installation::all(state.path()).is_empty());
    let (slot, mut outbox) = take(state.path()).unwrap();
    let request = Request::Follow { topic: Topic::to_follow("#ops").unwrap(), change: FollowChange::Add };
    outbox.known(Op(3), Seq(0));
    outbox.asked(Numbered { seq: Seq(1), nonce: 1, request });
    outbox.end_turn(Seq(0)).unwrap();
    let found = || {
        let mut all = Installation::all(state.path());
        assert_eq!((all.len(), all[0].cluster, all[0].profile.as_str()), (1, ClusterId(7), "alice"));
        all.remove(0)
    };
    assert_eq!((found().unanswered, found().unreadable.len()), (1, 0));
    fs::write(slot.dir().join(CURSOR), "no cursor").unwrap();
    fs::write(slot.dir().join(OUTBOX), "no outbox").unwrap();
    assert_eq!((found().unanswered, found().unreadable.len()), (0, 2));
    fs::write(slot.key(), "no key").unwrap();
    assert_eq!(found().unreadable.len(), 3);
    fs::remove_file(slot.key()).unwrap();
    assert!(matches!(found().unreadable.last(), Some(StoreError::NoKey { .. })));
}
