//! Fuzz targets for the files that people edit and copy: the known clusters, and an exported key.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bolero::check;
use recado_client::{KeyFile, KnownClusters};

use crate::script::Script;

const KNOWN: &str = "version = 1\n[[cluster]]\n\
    id = \"00000000000000c8\"\n\
    key = \"0101010101010101010101010101010101010101010101010101010101010101\"\n\
    since_unix_ms = 1700000000000\n\
    addresses = [\"127.0.0.1:10097\", \"[::1]:10098\"]\n";

/// A file is read as it stands or refused as damaged. A file that cannot be parsed is never overwritten.
#[test]
fn a_file_of_known_clusters_is_understood_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known-clusters.toml");
    let clusters = KnownClusters::under(dir.path());
    let write = |bytes: &[u8]| {
        let _ = fs::remove_file(&path);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    write(KNOWN.as_bytes());
    assert_eq!(clusters.list().unwrap().len(), 1);
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let mut bytes = KNOWN.as_bytes().to_vec();
        script.corrupt(&mut bytes);
        for bytes in [&bytes[..], input] {
            write(bytes);
            if let Ok(known) = clusters.list() {
                // Writing the file again changes nothing.
                assert_eq!(clusters.forget(|_| false).unwrap(), []);
                assert_eq!(clusters.list().unwrap(), known);
            }
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    });
}

/// A parsed key file has the same content when it is written and parsed again.
#[test]
fn an_exported_key_reads_as_it_is_written_or_not_at_all() {
    check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let parse = |text: &str| KeyFile::parse(Path::new("key"), text).ok();
        if let Some(file) = parse(text) {
            assert_eq!(parse(&file.text()).map(|again| again.text()), Some(file.text()));
        }
    });
}
