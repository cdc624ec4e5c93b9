//! Local questions: a Unix socket in a directory, at which a process tells whoever asks one line.
//!
//! Who may ask is who may enter the directory. Nobody waits: a question is sent by connecting, which the
//! kernel takes also for a process that stands still, and its answer is looked for without blocking.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// The longest answer in bytes, with its line end: less than what a socket takes without a reader.
const ANSWER_MAX: usize = 512;

/// The longest path that the address of a socket has room for.
const PATH_MAX: usize = 107;

/// A socket at which this process answers.
#[derive(Debug)]
pub struct Answering {
    listener: UnixListener,
    path: PathBuf,
}

impl Answering {
    /// Makes the socket. One that an earlier process left there is replaced, so only one process at a time
    /// may do this; another kind of file is not.
    ///
    /// # Errors
    /// The system's error.
    pub fn bind(path: &Path) -> io::Result<Answering> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = by_short_path(path, |short| UnixListener::bind(short))?;
        // Whoever may write to it may ask.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Answering { listener, path: path.to_owned() })
    }

    /// Waits for a question, and answers it.
    ///
    /// # Errors
    /// The system's error, for instance that no more files may be opened.
    pub fn answer(&self, line: impl FnOnce() -> String) -> io::Result<()> {
        let (mut asker, _) = self.listener.accept()?;
        asker.set_nonblocking(true)?;
        let mut line = line();
        line.truncate(line.floor_char_boundary(ANSWER_MAX - 1));
        line.push('\n');
        // An asker that is gone has no use for the answer.
        let _ = asker.write_all(line.as_bytes());
        Ok(())
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A question that was asked. Readable when there is something of its answer.
#[derive(Debug)]
pub struct Question {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Question {
    /// Asks. It does not wait.
    ///
    /// # Errors
    /// Nobody answers at this path, or too many questions wait there.
    pub fn ask(path: &Path) -> io::Result<Question> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        by_short_path(path, |short| Ok(connect(&socket, &SocketAddrUnix::new(short)?)?))?;
        Ok(Question { stream: socket.into(), read: Vec::new() })
    }

    /// The answer without its line end, if all of it has come.
    ///
    /// # Errors
    /// The other end has given none, or one that is too long or not UTF-8: none will come.
    pub fn answer(&mut self) -> io::Result<Option<String>> {
        loop {
            if self.read.last() == Some(&b'\n') {
                self.read.pop();
                let text = String::from_utf8(std::mem::take(&mut self.read));
                return text.map(Some).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            let mut bytes = [0; ANSWER_MAX];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) if self.read.len() + count > ANSWER_MAX => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(count) => self.read.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Question {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Uses the path of a socket, or a shorter one by way of its directory, where it is too long for an address.
fn by_short_path<T>(path: &Path, using: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return using(path) };
    if path.as_os_str().len() <= PATH_MAX || dir.as_os_str().is_empty() {
        return using(path);
    }
    let dir = File::open(dir)?;
    using(&Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::wait_any;
    use crate::threads::spawn_named;

    fn told(question: &mut Question) -> io::Result<String> {
        loop {
            if let Some(line) = question.answer()? {
                return Ok(line);
            }
            assert_eq!(wait_any(&[question.as_fd()], Duration::from_secs(30)).unwrap(), [true]);
        }
    }

    #[test]
    fn every_question_is_answered_with_a_line_also_below_a_long_path() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&dir).unwrap();
        for path in [root.path().join("status.sock"), dir.join("status.sock")] {
            let answering = Answering::bind(&path).unwrap();
            let mut early = Question::ask(&path).unwrap();
            assert_eq!(early.answer().unwrap(), None, "nobody has answered yet");
            let answers = spawn_named("answers", move || {
                for n in 1..=3 {
                    answering.answer(|| format!("answer {n}")).unwrap();
                }
            });
            assert_eq!(told(&mut early).unwrap(), "answer 1");
            assert_eq!(told(&mut Question::ask(&path).unwrap()).unwrap(), "answer 2");
            drop(Question::ask(&path).unwrap());
            answers.unwrap().join();
        }
    }

    #[test]
    fn the_socket_of_an_earlier_process_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.sock");
        assert!(Question::ask(&path).is_err(), "there is none");
        drop(Answering::bind(&path).unwrap());
        assert_eq!(Question::ask(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let answering = Answering::bind(&path).unwrap();
        let mut question = Question::ask(answering.path()).unwrap();
        drop(answering);
        assert!(question.answer().is_err(), "none will come");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "letter").unwrap();
        assert!(Answering::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "letter");
    }

    #[test]
    fn an_answer_is_bounded_on_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.sock");
        let answering = Answering::bind(&path).unwrap();
        let mut question = Question::ask(&path).unwrap();
        answering.answer(|| "x".repeat(10_000)).unwrap();
        assert_eq!(told(&mut question).unwrap().len(), ANSWER_MAX - 1);
        // Another program at the path.
        let mut question = Question::ask(&path).unwrap();
        let (mut asker, _) = answering.listener.accept().unwrap();
        asker.write_all(&[b'x'; ANSWER_MAX * 2]).unwrap();
        assert_eq!(told(&mut question).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
