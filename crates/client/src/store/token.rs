//! The token: the highest op that any client of an installation has seen, in a file that they share. A query
//! that names it gets no older answer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use recado_proto::id::Op;
use recado_sys::sync;

use super::files::{at, open, read_text, unreadable};
use super::{position, read_position};
use crate::error::{StoreError, StoreOp};
use crate::format;

/// The name of the file, beside the installation's key.
const TOKEN: &str = "token";

const CURE: &str = "delete it: the next answer may be older than an earlier one";

/// The token of an installation.
#[derive(Debug)]
pub(crate) struct Token {
    path: PathBuf,
    op: Op,
}

impl Token {
    /// Reads the token; zero if there is none yet.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure.
    pub(crate) fn open(installation: &Path) -> Result<Token, StoreError> {
        let path = installation.join(TOKEN);
        let op = read(&path)?;
        Ok(Token { path, op })
    }

    /// The op.
    pub(crate) fn op(&self) -> Op {
        self.op
    }

    /// The path of its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Raises the token, here and in the file, which is in the page cache afterwards: it survives the
    /// process, not a power failure. A file that cannot be written is no error, because reading needs no
    /// right to write.
    pub(crate) fn raise(&mut self, op: Op) {
        if op > self.op {
            self.op = op;
            if let Err(error) = self.write() {
                tracing::debug!(%error, "keeping the token");
            }
        }
    }

    /// Lowers the token to this op: the servers were restored from an older copy.
    pub(crate) fn set_back(&mut self, op: Op) {
        self.op = op;
        let file = open(&self.path, CURE);
        let written = file.and_then(|file| write(&file, op).map_err(at(StoreOp::Write, &self.path)));
        if let Err(error) = written {
            tracing::debug!(%error, "setting the token back");
        }
    }

    /// Writes it, unless another process has written a higher one.
    fn write(&self) -> Result<(), StoreError> {
        let file = open(&self.path, CURE)?;
        sync::flock(&file).map_err(at(StoreOp::Lock, &self.path))?;
        if read(&self.path)? < self.op {
            write(&file, self.op).map_err(at(StoreOp::Write, &self.path))?;
        }
        Ok(())
    }
}

fn write(file: &File, op: Op) -> std::io::Result<()> {
    file.write_all_at(format::line(&position(op)).as_bytes(), 0)
}

fn read(path: &Path) -> Result<Op, StoreError> {
    match read_text(path, CURE)?.as_deref() {
        None | Some("") => Ok(Op::ZERO),
        Some(line) => format::read_line(line).and_then(read_position).map_err(unreadable(path, CURE)),
    }
}
