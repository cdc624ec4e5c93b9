//! The directory: the names, kinds, lengths and permissions of its files.

use super::*;

#[test]
fn a_name_of_the_journals_that_is_no_file_is_refused_and_nothing_is_touched() {
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("moved");
    let kinds: [fn(&Path, &Path); 4] = [
        |at, moved| std::os::unix::fs::symlink(moved, at).unwrap(),
        |at, _| std::os::unix::fs::symlink("nowhere", at).unwrap(),
        |at, _| std::fs::create_dir(at).unwrap(),
        |at, _| rustix::fs::mkfifoat(rustix::fs::CWD, at, rustix::fs::Mode::RWXU).unwrap(),
    ];
    for name in ["meta".to_owned(), log_name(1), snapshot_name(5), "reserve".into(), "tmp.meta".into()] {
        for make in kinds {
            let dir = tempfile::tempdir().unwrap();
            with_a_snapshot(dir.path());
            let at = dir.path().join(&name);
            if at.exists() {
                std::fs::rename(&at, &moved).unwrap();
            }
            make(&at, &moved);
            // A name that the journal does not use may be anything.
            std::fs::create_dir(dir.path().join("lost+found")).unwrap();
            std::os::unix::fs::symlink(&moved, dir.path().join("log.txt")).unwrap();
            let before = content(dir.path());
            let disk = Directory::lock(dir.path()).unwrap();
            let refused = Journal::open(disk.clone(), &expected(), Options::default()).err().unwrap();
            let init = Journal::init(&disk, &meta()).unwrap_err();
            let (check, inspect) =
                (check(dir.path(), &expected()).unwrap_err(), inspect(dir.path()).unwrap_err());
            for error in [refused, init, check, inspect] {
                assert!(
                    matches!(&error, JournalError::NotRegular(named) if *named == name),
                    "{name}: {error}"
                );
                assert!(error.is_wrong_directory(), "exit code 78");
            }
            assert!(content(dir.path()) == before, "{name}: nothing is touched");
            drop(disk);
            if std::fs::remove_file(&at).is_err() {
                std::fs::remove_dir(&at).unwrap();
            }
            if moved.exists() {
                std::fs::rename(&moved, &at).unwrap();
            }
            let (_, recovered) = open(dir.path());
            assert!(
                recovered.meta.voter && recovered.lost.is_none(),
                "{name}: with the file itself all is well"
            );
        }
    }
}

#[test]
fn no_file_of_the_journals_is_opened_or_made_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "kept").unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::os::unix::fs::symlink(&outside, dir.path().join("data/meta")).unwrap();
    let disk = Directory::lock(&dir.path().join("data")).unwrap();
    assert!(disk.open("meta").is_err() && disk.create("meta").is_err());
    assert_eq!(std::fs::read(&outside).unwrap(), b"kept");
}

#[test]
fn a_path_that_is_no_directory_is_another_error_than_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for open in [Directory::lock as fn(&Path) -> _, Directory::read_only] {
        let of = |path: &Path| open(path).err();
        assert!(matches!(of(&dir.path().join("none")), Some(JournalError::Missing)));
        assert!(matches!(of(&file), Some(JournalError::NotADirectory)));
        let below = of(&file.join("below"));
        assert!(matches!(below, Some(JournalError::Io { op: IoOp::OpenDirectory, .. })), "{below:?}");
    }
}

#[test]
fn what_the_journal_stores_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    with_a_snapshot(dir.path());
    for (path, _) in content(dir.path()) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_file_grows_to_the_length_asked_for_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Directory::lock(dir.path()).unwrap().create("file").unwrap();
    for (asked, len) in [(100, 100), (300, 300), (300, 300), (10, 300)] {
        file.allocate(asked).unwrap();
        assert_eq!(file.len().unwrap(), len, "asked for {asked}");
    }
}

#[test]
fn a_failed_removal_is_forgiven_only_for_a_file_that_the_disk_cannot_open() {
    let dir = tempfile::tempdir().unwrap();
    with_a_snapshot(dir.path());
    let disk = Directory::lock(dir.path()).unwrap();
    let failed = || Err(rustix::io::Errno::IO.into());
    let result = super::log::judge_removal(&disk, &snapshot_name(5), failed());
    assert!(matches!(result, Err(JournalError::Io { op: IoOp::Directory, .. })), "{result:?}");
}

#[test]
fn a_number_that_no_journal_reaches_makes_a_name_of_somebody_else() {
    let highest = u64::MAX / 2 - 1;
    assert_eq!(numbered(&log_name(highest), "log."), Some(highest));
    assert_eq!(numbered(&log_name(highest + 1), "log."), None);
    assert_eq!(numbered("log.12", "log."), None, "twenty digits");
}
