//! What the machine gives a program: room and speed of a disk, owners and permissions of files, open files,
//! addresses and ports. It is read for people (`recado doctor`, `recadod doctor`); no server and no client
//! decides anything by it. The monitor of servers decides by [`mount_root`] whether a disk is lost.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use crate::clock::MachineClock;
use crate::net::{BoundSocket, NetError};

/// The bytes written before each sync that is measured: a few notifications.
const SYNCED: usize = 4096;
/// The magic numbers of file systems that are in memory alone: tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Room on the disk of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The bytes that this user may still write.
    pub free: u64,
    /// The size of the file system, in bytes.
    pub total: u64,
    /// True if it is mounted for reading alone.
    pub is_read_only: bool,
    /// True if it is in memory, so that a restart of the machine empties it.
    pub is_in_memory: bool,
}

/// Reads the room on the disk of a directory.
///
/// # Errors
/// The system's error.
pub fn room(dir: &Path) -> io::Result<Room> {
    let of = rustix::fs::statvfs(dir)?;
    // The type of its fields differs between architectures.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "it is wider elsewhere")]
    let kind = rustix::fs::statfs(dir)?.f_type as i64;
    Ok(Room {
        free: of.f_bavail.saturating_mul(of.f_frsize),
        total: of.f_blocks.saturating_mul(of.f_frsize),
        is_read_only: of.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        is_in_memory: IN_MEMORY.contains(&kind),
    })
}

/// The directory on which the file system is mounted that has this path, or would have it: that of the
/// nearest directory above it that exists. A disk that is not mounted is told by another one than before.
///
/// # Errors
/// The system's error.
pub fn mount_root(path: &Path) -> io::Result<PathBuf> {
    let there = path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let mut root = fs::canonicalize(there)?;
    let device = fs::metadata(&root)?.dev();
    while let Some(above) = root.parent()
        && fs::metadata(above)?.dev() == device
    {
        root = above.to_owned();
    }
    Ok(root)
}

/// The bytes that the files in a directory take on the disk, without those in directories in it.
///
/// # Errors
/// The system's error.
pub fn taken(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        // A file that is gone since takes nothing.
        let Ok(metadata) = entry?.metadata() else { continue };
        bytes += if metadata.is_file() { metadata.blocks().saturating_mul(512) } else { 0 };
    }
    Ok(bytes)
}

/// Who may do what with a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The owner's user id.
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
    /// The user id of this process.
    pub me: u32,
    /// True if it is a directory.
    pub is_directory: bool,
}

/// Reads the owner and the permissions of a path; a link is followed.
///
/// # Errors
/// The system's error.
pub fn access(path: &Path) -> io::Result<Access> {
    let metadata = fs::metadata(path)?;
    let me = rustix::process::geteuid().as_raw();
    let is_directory = metadata.is_dir();
    Ok(Access { owner: metadata.uid(), mode: metadata.mode() & 0o777, me, is_directory })
}

/// Measures how long a directory's disk takes to write 4 KiB durably, `rounds` times or for about `within`,
/// ascending. The file has no name where the file system can do that, and loses it at once elsewhere.
///
/// # Errors
/// The system's error: no file can be made or written there.
pub fn sync_times(dir: &Path, rounds: usize, within: Duration) -> io::Result<Vec<Duration>> {
    let (clock, file) = (MachineClock::start(), nameless(dir)?);
    let bytes = [b'.'; SYNCED];
    // The journal writes into files that have their length already.
    for round in 0..rounds {
        file.write_all_at(&bytes, (round * SYNCED) as u64)?;
    }
    file.sync_all()?;
    let (started, mut times) = (clock.now(), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let before = clock.now();
        file.write_all_at(&bytes, (round * SYNCED) as u64)?;
        file.sync_data()?;
        times.push(clock.now().since(before));
        if clock.now().since(started) >= within {
            break;
        }
    }
    times.sort_unstable();
    Ok(times)
}

/// A file that is gone when it is closed.
fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    let path: PathBuf = dir.join(format!(".recado-doctor.{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Files that a process has open, and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The number it has open, if it can be seen.
    pub open: Option<u64>,
    /// The most that it may have; none: without a limit.
    pub most: Option<u64>,
}

/// The open files of a process, or of this one. None if they are not this user's to see.
pub fn open_files(process: Option<u32>) -> Option<OpenFiles> {
    let id = process.unwrap_or_else(std::process::id);
    let open = fs::read_dir(format!("/proc/{id}/fd")).ok().map(|fds| fds.count() as u64);
    let most = match process {
        None => getrlimit(Resource::Nofile).current,
        Some(id) => limit_in(&fs::read_to_string(format!("/proc/{id}/limits")).ok()?)?,
    };
    Some(OpenFiles { open, most })
}

/// The soft limit of open files in the text of `/proc/PID/limits`.
fn limit_in(text: &str) -> Option<Option<u64>> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => Some(Some(number.parse().ok()?)),
    }
}

/// The most that the kernel grants a socket for what it has received (`net.core.rmem_max`), in bytes.
pub fn receive_buffer_most() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?.trim().parse().ok()
}

/// Whether a program could have a UDP port now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Yes; it was had for a moment, with a receive buffer of so many bytes, as the kernel reports it.
    Free(usize),
    /// A program has it.
    Taken,
    /// The address is none of this machine's.
    Elsewhere,
    /// This user may not have it.
    Forbidden,
}

/// Tries to have a UDP port for a moment.
///
/// # Errors
/// [`NetError`] for another reason than those of [`Port`].
pub fn port(addr: SocketAddr) -> Result<Port, NetError> {
    match BoundSocket::bind(addr, Duration::ZERO) {
        Ok(socket) => Ok(Port::Free(socket.buffers().receive)),
        Err(error) => match error.source.kind() {
            io::ErrorKind::AddrInUse => Ok(Port::Taken),
            io::ErrorKind::AddrNotAvailable => Ok(Port::Elsewhere),
            io::ErrorKind::PermissionDenied => Ok(Port::Forbidden),
            _ => Err(error),
        },
    }
}

/// The receive buffer that a socket gets on this machine, in bytes, as the kernel reports it: twice of what
/// it grants. Clients and servers ask for [`crate::net::BUFFER_WANTED`].
///
/// # Errors
/// [`NetError`]: there is no socket of this family.
pub fn receive_buffer(ip: IpAddr) -> Result<usize, NetError> {
    Ok(BoundSocket::bind(SocketAddr::new(ip, 0), Duration::ZERO)?.buffers().receive)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn syncs_are_measured_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let times = sync_times(dir.path(), 5, Duration::from_secs(60)).unwrap();
        assert_eq!((times.len(), times.is_sorted()), (5, true));
        assert_eq!(sync_times(dir.path(), 5, Duration::ZERO).unwrap().len(), 1, "time is up after one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(sync_times(&dir.path().join("none"), 1, Duration::ZERO).is_err());
    }

    #[test]
    fn room_and_what_is_taken_of_it_are_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path()).unwrap();
        assert!(room.free <= room.total && room.total > 0 && !room.is_read_only, "{room:?}");
        assert_eq!(taken(dir.path()).unwrap(), 0);
        fs::write(dir.path().join("file"), vec![1; 100_000]).unwrap();
        File::open(dir.path().join("file")).unwrap().sync_all().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let taken = taken(dir.path()).unwrap();
        assert!((100_000..1_000_000).contains(&taken), "{taken}");
        assert!(super::room(&dir.path().join("none")).is_err());
        assert!(super::room(Path::new("/dev/shm")).is_ok_and(|shm| shm.is_in_memory));
    }

    #[test]
    fn a_path_is_of_the_file_system_of_the_nearest_directory_above_it() {
        let own = mount_root(Path::new("/proc/self")).unwrap();
        assert_eq!(own, Path::new("/proc"));
        assert_eq!(mount_root(Path::new("/proc/none/none")).unwrap(), own);
        let dir = tempfile::tempdir().unwrap();
        let root = mount_root(dir.path()).unwrap();
        assert!(fs::canonicalize(dir.path()).unwrap().starts_with(&root) && root != dir.path());
        assert_eq!(mount_root(&dir.path().join("a/b")).unwrap(), root);
    }

    #[test]
    fn owner_and_mode_are_those_of_the_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let access = access(dir.path()).unwrap();
        assert_eq!((access.mode, access.owner), (0o750, access.me));
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let text = "Limit   Soft Limit   Hard Limit   Units\nMax open files   1024   524288   files\n";
        assert_eq!(limit_in(text), Some(Some(1024)));
        assert_eq!(limit_in("Max open files   unlimited   unlimited   files"), Some(None));
        assert_eq!((limit_in(""), limit_in("Max open files   many")), (None, None));
        let own = open_files(None).unwrap();
        assert_eq!(open_files(Some(std::process::id())).unwrap().most, own.most);
        assert!(own.open.is_some_and(|open| open > 0));
        assert_eq!(open_files(Some(u32::MAX)), None);
    }

    #[test]
    fn a_port_is_free_taken_or_elsewhere() {
        let socket = BoundSocket::bind(([127, 0, 0, 1], 0).into(), Duration::ZERO).unwrap();
        let addr = socket.addr();
        assert_eq!(port(addr).unwrap(), Port::Taken);
        let granted = socket.buffers().receive;
        drop(socket);
        assert_eq!(port(addr).unwrap(), Port::Free(granted));
        assert_eq!(receive_buffer(addr.ip()).unwrap(), granted);
        assert_eq!(port(([192, 0, 2, 1], 0).into()).unwrap(), Port::Elsewhere);
    }
}
