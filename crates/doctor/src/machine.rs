//! Findings about this machine: open files, buffers, disks, permissions, ports.

use std::io;
use std::time::Duration;

use recado_sys::machine::{Access, OpenFiles, Port, Room};
use recado_sys::net::BUFFER_WANTED;

use crate::finding::{Finding, Severity};

/// Which program's files and disks are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client keeps a key, cursors and a queue of texts.
    Client,
    /// A server keeps the log, and each write waits for its disk.
    Server,
}

impl Side {
    /// The program.
    const fn program(self) -> &'static str {
        match self {
            Side::Client => "recado",
            Side::Server => "recadod",
        }
    }

    /// The open files that it may need: a server has the files of its journal and a few sockets, and a client
    /// a socket and a lock.
    const fn files_needed(self) -> u64 {
        match self {
            Side::Client => 64,
            Side::Server => 256,
        }
    }

    /// The times of a sync beyond which it is noted, and warned of. A write of a server waits for one on a
    /// majority, and a failover for three to five; a client waits for one with each command.
    const fn slow(self) -> (Duration, Duration) {
        match self {
            Side::Client => (Duration::from_millis(200), Duration::from_millis(1000)),
            Side::Server => (Duration::from_millis(15), Duration::from_millis(50)),
        }
    }
}

/// A sync that is faster than any disk's: a cache has answered for it.
const TOO_FAST: Duration = Duration::from_micros(20);

/// Open files of a process, and how many it may have. `None`: they are not to be seen.
pub fn open_files(subject: &str, side: Side, files: Option<OpenFiles>) -> Finding {
    let check = "files";
    let Some(OpenFiles { open, most }) = files else {
        let why = ("the process is another user's", "run the doctor as root, or as that user");
        return Finding::other(Severity::Note, check, subject, "open files are not to be seen", why);
    };
    let opened = open.map_or(String::new(), |open| format!("{open} open, "));
    let Some(most) = most else { return Finding::ok(check, subject, format!("{opened}without a limit")) };
    let seen = format!("{opened}{most} allowed");
    let needed = side.files_needed();
    let finding = if most < needed {
        let why = (
            format!("the limit is below the {needed} that may be needed; beyond it files and sockets fail"),
            match side {
                Side::Client => format!("raise it: ulimit -n {needed}"),
                Side::Server => {
                    format!(
                        "raise it: LimitNOFILE={needed} in the unit (systemctl edit), or ulimit -n {needed}"
                    )
                }
            },
        );
        Finding::other(Severity::Warning, check, subject, seen, why)
    } else if open.is_some_and(|open| open.saturating_mul(10) > most.saturating_mul(9)) {
        let why =
            ("nearly all that are allowed are in use", "raise the limit, and report what holds so many");
        Finding::other(Severity::Warning, check, subject, seen, why)
    } else {
        Finding::ok(check, subject, seen)
    };
    finding.with("open", open).with("allowed", most)
}

/// The receive buffer that the kernel grants, as it reports it (twice of it: socket(7)), and the most that it
/// grants any socket.
pub fn receive_buffer(subject: &str, reported: usize, most: Option<u64>) -> Finding {
    let check = "buffer";
    let granted = reported / 2;
    let finding = if granted >= BUFFER_WANTED {
        Finding::ok(check, subject, format!("{} to receive, all that was asked for", size(granted as u64)))
    } else {
        let bound = most.map_or(String::new(), |most| format!(" ({most})"));
        let why = (
            format!(
                "net.core.rmem_max{bound} is below what recado asks for; a burst beyond it is lost and sent again"
            ),
            format!(
                "under load: sysctl -w net.core.rmem_max={BUFFER_WANTED}, the same in /etc/sysctl.d, and a restart"
            ),
        );
        let seen =
            format!("{} to receive, of {} asked for", size(granted as u64), size(BUFFER_WANTED as u64));
        Finding::other(Severity::Note, check, subject, seen, why)
    };
    finding.with("granted_bytes", granted).with("asked_bytes", BUFFER_WANTED)
}

/// What a directory on a disk may need, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Without so many free it soon stops, or does not start.
    pub now: u64,
    /// It may come to take so many in all.
    pub most: u64,
    /// It takes so many already.
    pub taken: u64,
}

/// Room on the disk of a directory.
pub fn disk(subject: &str, side: Side, room: &io::Result<Room>, need: Need) -> Finding {
    let check = "disk";
    let room = match room {
        Ok(room) => room,
        Err(error) => return unreadable(check, subject, side, error),
    };
    let seen = format!("{} free of {}", size(room.free), size(room.total));
    let finding = if room.is_read_only {
        let why = (
            "the file system is mounted for reading alone",
            "mount it for writing, and look at dmesg for why",
        );
        Finding::other(Severity::Fault, check, subject, "nothing can be written", why)
    } else if room.free < need.now {
        let why = (
            format!("the disk is full: {} are needed to go on", size(need.now)),
            "free space there, or move the directory to a larger disk",
        );
        Finding::other(Severity::Fault, check, subject, seen, why)
    } else if room.free.saturating_add(need.taken) < need.most {
        let why = (
            format!(
                "it may come to take {} with this configuration, and takes {} now",
                size(need.most),
                size(need.taken)
            ),
            match side {
                Side::Client => "make room, or set XDG_STATE_HOME to a directory on a larger disk",
                Side::Server => "make room, or lower [retention] all_mib in recado.toml",
            },
        );
        Finding::other(Severity::Warning, check, subject, seen, why)
    } else if side == Side::Server && room.is_in_memory {
        let why = (
            "the file system is in memory: a restart of this machine loses what was acknowledged",
            "keep the data on a disk (`data` in recado.toml)",
        );
        Finding::other(Severity::Warning, check, subject, seen, why)
    } else {
        Finding::ok(check, subject, seen)
    };
    finding
        .with("free_bytes", room.free)
        .with("total_bytes", room.total)
        .with("taken_bytes", need.taken)
        .with("may_need_bytes", need.most)
}

/// The times of syncs of a directory's disk, ascending. `None`: they did not end in time.
pub fn sync_times(subject: &str, side: Side, times: Option<&io::Result<Vec<Duration>>>) -> Finding {
    let check = "fsync";
    let times = match times {
        Some(Ok(times)) if !times.is_empty() => times,
        Some(Err(error)) => return unreadable(check, subject, side, error),
        Some(Ok(_)) | None => {
            let why = (
                "the disk does not answer, or is very busy",
                "look at dmesg and iostat; replace the disk if it fails",
            );
            return Finding::other(Severity::Fault, check, subject, "no fsync has ended in time", why);
        }
    };
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let seen = format!("{} in the median, {} at most, of {}", time(median), time(slowest), times.len());
    let (noted, warned) = side.slow();
    let what = match side {
        Side::Client => "each command waits for it",
        Side::Server => "each write waits for it on a majority, and a failover for three to five of them",
    };
    let finding = if median >= warned || slowest >= warned * 10 {
        let why = (
            format!("the disk is slow, or shared with much else; {what}"),
            "give the directory a faster disk of its own",
        );
        Finding::other(Severity::Warning, check, subject, seen, why)
    } else if median >= noted {
        let why =
            (format!("the disk is not fast; {what}"), "a faster disk makes it shorter, if that matters");
        Finding::other(Severity::Note, check, subject, seen, why)
    } else if side == Side::Server && median < TOO_FAST {
        let why = (
            "something answers before the disk has it: memory, or a cache",
            "make sure that the cache survives a power cut; otherwise what was acknowledged may not",
        );
        Finding::other(Severity::Note, check, subject, seen, why)
    } else {
        Finding::ok(check, subject, seen)
    };
    finding
        .with("median_us", median.as_micros() as u64)
        .with("most_us", slowest.as_micros() as u64)
        .with("count", times.len())
}

/// Owner and permissions of what only its owner may read: a file that is not written, or a directory.
/// `exposed`: how bad it is if others may. `user` owns what belongs with it, if that is known: the user that
/// the server runs as.
pub fn private(
    subject: &str,
    side: Side,
    access: &io::Result<Access>,
    user: Option<u32>,
    exposed: Severity,
) -> Finding {
    let check = "access";
    let Access { owner, mode, me, is_directory } = match access {
        Ok(access) => access,
        Err(error) => return unreadable(check, subject, side, error),
    };
    let seen = format!("mode {mode:03o}, of user {owner}");
    let (needed, lacks, grant) = match is_directory {
        true => (0o700, "its owner may not read, write and enter it", "u+rwx"),
        false => (0o400, "its owner may not read it", "u+r"),
    };
    let finding = if mode & 0o077 != 0 {
        let why = ("other users may read or change it", format!("run: chmod go= {subject}"));
        Finding::other(exposed, check, subject, seen, why)
    } else if mode & needed != needed {
        let why = (lacks, format!("run: chmod {grant} {subject}"));
        Finding::other(Severity::Fault, check, subject, seen, why)
    } else if let Some(user) = user.filter(|user| user != owner) {
        let why = (
            format!("what lies with it belongs to user {user}, who cannot read it"),
            format!("run: chown -R {user}: {subject}"),
        );
        Finding::other(Severity::Fault, check, subject, seen, why)
    } else if user.is_none() && *me != 0 && me != owner {
        let why = (
            format!("this is user {me}, who cannot use it"),
            format!("run {} as user {owner}, or chown it", side.program()),
        );
        Finding::other(Severity::Fault, check, subject, seen, why)
    } else {
        Finding::ok(check, subject, seen)
    };
    finding.with("mode", format!("{mode:03o}")).with("owner", *owner)
}

/// A UDP port of this machine's server. `runs`: its server answers there.
pub fn port(subject: &str, found: Port, runs: bool) -> Finding {
    let check = "port";
    match (found, runs) {
        (Port::Taken, true) => Finding::ok(check, subject, "the server has it"),
        (Port::Free(_), false) => Finding::ok(check, subject, "free"),
        (Port::Taken, false) => {
            let why = (
                "another program has it, or the server does not answer",
                "ss -ulpn names the program; end it, or give the cluster other ports (init --port)",
            );
            Finding::other(Severity::Fault, check, subject, "taken, and no server answers", why)
        }
        (Port::Free(_), true) => {
            let why = (
                "the server that answers at this address runs on another machine or in another network namespace",
                "stop the server that is not meant: two servers with one identity break promises",
            );
            Finding::other(Severity::Fault, check, subject, "free, and a server answers", why)
        }
        (Port::Elsewhere, _) => {
            let why = (
                "the address is none of this machine's",
                "run the doctor on the server's machine, or give this machine the address",
            );
            Finding::other(Severity::Fault, check, subject, "cannot be bound", why)
        }
        (Port::Forbidden, _) => {
            let why = ("ports below 1024 need a privilege", "choose higher ports (init --port)");
            Finding::other(Severity::Fault, check, subject, "may not be bound", why)
        }
    }
}

fn unreadable(check: &'static str, subject: &str, side: Side, error: &io::Error) -> Finding {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => "run the doctor as the user that it belongs to, or as root",
        io::ErrorKind::NotFound if side == Side::Server => "check the path; is its disk mounted?",
        io::ErrorKind::NotFound => "check the path; the first command makes the directory",
        io::ErrorKind::StorageFull => "free space there",
        _ => "look at dmesg, and check the disk",
    };
    let why = (error.to_string(), cure);
    Finding::other(Severity::Fault, check, subject, "cannot be used", why)
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes / unit < 10 && bytes % unit >= unit / 10 => {
            format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
        }
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

/// A short time for people.
pub fn time(time: Duration) -> String {
    match time.as_micros() {
        us if us < 1_000 => format!("{us} us"),
        us if us < 100_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        us => format!("{} ms", us / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(free: u64) -> io::Result<Room> {
        Ok(Room { free, total: 1 << 40, is_read_only: false, is_in_memory: false })
    }

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [(17, "17 B"), (4 * MIB, "4 MiB"), (212_992, "208 KiB"), (1_600 * MIB, "1.5 GiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        for (us, text) in [(7, "7 us"), (1_250, "1.2 ms"), (250_000, "250 ms")] {
            assert_eq!(time(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn too_few_open_files_are_a_warning_with_the_setting_that_raises_them() {
        let of = |open, most| open_files("server", Side::Server, Some(OpenFiles { open, most }));
        assert_eq!(of(Some(20), Some(1024)).severity, Severity::Ok);
        assert_eq!(of(None, None).severity, Severity::Ok);
        let few = of(Some(20), Some(64));
        assert!(few.severity == Severity::Warning && few.cure.contains("LimitNOFILE=256"), "{few:?}");
        assert_eq!(of(Some(1000), Some(1024)).severity, Severity::Warning);
        assert_eq!(open_files("server", Side::Server, None).severity, Severity::Note);
        assert_eq!(
            open_files("me", Side::Client, Some(OpenFiles { open: None, most: Some(64) })).severity,
            Severity::Ok
        );
    }

    #[test]
    fn a_small_receive_buffer_is_noted_with_the_command_that_raises_it() {
        assert_eq!(receive_buffer("this machine", 2 * BUFFER_WANTED, None).severity, Severity::Ok);
        let small = receive_buffer("this machine", 425_984, Some(212_992));
        assert_eq!(small.severity, Severity::Note);
        assert!(small.seen.contains("208 KiB") && small.cause.contains("212992"), "{small:?}");
        assert!(small.cure.contains("net.core.rmem_max=4194304"), "{small:?}");
    }

    #[test]
    fn a_disk_is_judged_by_what_is_needed_now_and_at_most() {
        let need = Need { now: 100 * MIB, most: 2_000 * MIB, taken: 500 * MIB };
        let of = |free| disk("data", Side::Server, &room(free), need);
        assert_eq!(of(1_500 * MIB).severity, Severity::Ok);
        let small = of(1_499 * MIB);
        assert!(small.severity == Severity::Warning && small.cure.contains("all_mib"), "{small:?}");
        let small = disk("state", Side::Client, &room(1_499 * MIB), need);
        assert!(small.severity == Severity::Warning && small.cure.contains("XDG_STATE_HOME"), "{small:?}");
        let full = of(99 * MIB);
        assert!(full.severity == Severity::Fault && full.cause.contains("100 MiB"), "{full:?}");
        let memory = |side| {
            let room = Room { free: 1 << 40, total: 1 << 40, is_read_only: false, is_in_memory: true };
            disk("data", side, &Ok(room), need).severity
        };
        assert_eq!((memory(Side::Server), memory(Side::Client)), (Severity::Warning, Severity::Ok));
        let read_only = Room { free: 1 << 40, total: 1 << 40, is_read_only: true, is_in_memory: false };
        assert_eq!(disk("data", Side::Client, &Ok(read_only), need).severity, Severity::Fault);
        let gone = disk("data", Side::Server, &Err(io::ErrorKind::NotFound.into()), need);
        assert!(gone.severity == Severity::Fault && gone.cure.contains("mounted"), "{gone:?}");
        let gone = disk("state", Side::Client, &Err(io::ErrorKind::NotFound.into()), need);
        assert!(gone.severity == Severity::Fault && !gone.cure.contains("recadod"), "{gone:?}");
    }

    #[test]
    fn a_disk_that_is_slow_or_faster_than_a_disk_can_be_is_told() {
        let of = |side, ms: &[f64]| {
            let times = ms.iter().map(|ms| Duration::from_secs_f64(ms / 1000.0)).collect();
            sync_times("data", side, Some(&Ok(times))).severity
        };
        assert_eq!(of(Side::Server, &[0.5, 1.0, 14.0]), Severity::Ok);
        assert_eq!(of(Side::Server, &[10.0, 16.0, 20.0]), Severity::Note);
        assert_eq!(of(Side::Server, &[10.0, 50.0, 60.0]), Severity::Warning);
        assert_eq!(of(Side::Server, &[1.0, 1.0, 500.0]), Severity::Warning, "a single one may be too slow");
        assert_eq!(of(Side::Server, &[0.005, 0.006, 0.007]), Severity::Note);
        assert_eq!(of(Side::Client, &[10.0, 50.0, 60.0]), Severity::Ok);
        assert_eq!(of(Side::Client, &[0.005]), Severity::Ok);
        assert_eq!(sync_times("data", Side::Server, None).severity, Severity::Fault, "it hangs");
        let refused = sync_times("data", Side::Server, Some(&Err(io::ErrorKind::PermissionDenied.into())));
        assert!(refused.severity == Severity::Fault && refused.cure.contains("root"), "{refused:?}");
    }

    #[test]
    fn what_others_may_read_or_its_user_may_not_is_a_fault_with_the_command_that_mends_it() {
        let judge = |owner, mode, me, user, is_directory| {
            let access = Ok(Access { owner, mode, me, is_directory });
            private("/data", Side::Server, &access, user, Severity::Fault)
        };
        let of = |owner, mode, me, user| judge(owner, mode, me, user, true);
        assert_eq!(of(7, 0o700, 7, None).severity, Severity::Ok);
        for mode in [0o600, 0o400] {
            assert_eq!(judge(7, mode, 0, Some(7), false).severity, Severity::Ok, "a file is only read");
        }
        for (finding, cure) in [
            (of(7, 0o750, 7, None), "chmod go= /data"),
            (of(7, 0o600, 7, None), "chmod u+rwx /data"),
            (judge(7, 0o200, 7, None, false), "chmod u+r /data"),
            (of(0, 0o700, 0, Some(7)), "chown -R 7: /data"),
            (of(7, 0o700, 8, None), "recadod as user 7"),
        ] {
            assert!(finding.severity == Severity::Fault && finding.cure.contains(cure), "{finding:?}");
        }
    }

    #[test]
    fn a_port_is_well_if_the_server_has_it_or_nobody() {
        let of = |found, runs| port("192.0.2.1:10097", found, runs);
        assert_eq!(of(Port::Taken, true).severity, Severity::Ok);
        assert_eq!(of(Port::Free(1), false).severity, Severity::Ok);
        for (finding, word) in [
            (of(Port::Taken, false), "another program"),
            (of(Port::Free(1), true), "another machine"),
            (of(Port::Elsewhere, false), "none of this machine's"),
            (of(Port::Forbidden, false), "privilege"),
        ] {
            assert!(finding.severity == Severity::Fault && finding.cause.contains(word), "{finding:?}");
        }
    }
}
