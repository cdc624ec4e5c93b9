//! The journal of one simulated server, and what becomes of its disk.

use std::io;

use recado::config::Config;
use recado::id::{Op, View};
use recado::journal::Recovered;
use recado::server::node::{SnapshotPiece, Task};

use crate::rng::Rng;

/// A disk, and the journal on it while the process lives.
pub struct Storage {}

impl Storage {
    pub fn initialised(_config: &Config) -> Storage {
        todo!()
    }
    pub fn open(&mut self, _config: &Config) -> Result<Recovered, String> {
        todo!()
    }
    pub fn write(&mut self, _task: &Task) -> io::Result<()> {
        todo!()
    }
    pub fn sync(&mut self) -> io::Result<()> {
        todo!()
    }
    pub fn write_snapshot(&mut self, _op: Op, _view: View, _bytes: &[u8]) -> io::Result<()> {
        todo!()
    }
    pub fn read_snapshot(&self, _op: Op, _offset: u64, _chunks: u16) -> Option<SnapshotPiece> {
        todo!()
    }
    pub fn close(&mut self, _power: bool, _rng: &mut Rng) {
        todo!()
    }
    pub fn wipe(&mut self) {}
    pub fn flip(&mut self, _rng: &mut Rng) {}
    pub fn fail_next_sync(&mut self) {}
    pub fn mend(&mut self) {}
}
