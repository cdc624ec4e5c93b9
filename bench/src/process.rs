//! What processes use: CPU time and memory, from `/proc`.

use std::fs;
use std::path::PathBuf;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A process whose use is measured.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    name: String,
    pid: u32,
    /// The file to which it writes the number of its allocations, if it counts them.
    allocations: Option<PathBuf>,
    began: f64,
    allocated: Option<u64>,
}

/// What a process has used in a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    /// The name of the process.
    pub(crate) name: String,
    /// Its CPU time, user and system, in seconds.
    pub(crate) cpu_s: f64,
    /// Its largest resident memory since its start, in KiB.
    pub(crate) peak_rss_kib: u64,
    /// Its allocations, if it counts them.
    pub(crate) allocations: Option<u64>,
}

impl Watched {
    /// A process under a name; none if no process of this machine has the pid and runs `program`, or one
    /// whose name begins so.
    pub(crate) fn new(name: String, pid: u32, program: &str) -> Option<Watched> {
        let running = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        running.starts_with(program).then(|| Watched::of(name, pid))
    }

    fn of(name: String, pid: u32) -> Watched {
        Watched { name, pid, allocations: None, began: 0.0, allocated: None }
    }

    /// The same, with the file to which the process writes the number of its allocations.
    pub(crate) fn counted_in(self, file: Option<PathBuf>) -> Watched {
        Watched { allocations: file, ..self }
    }

    /// This process.
    pub(crate) fn this() -> Watched {
        Watched::of("client".into(), std::process::id())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Begins to measure. A process that has ended has used nothing.
    pub(crate) fn begin(&mut self) {
        self.began = cpu_seconds(self.pid).unwrap_or_default();
        self.allocated = self.count();
    }

    /// The number of its allocations so far, if it counts them.
    fn count(&self) -> Option<u64> {
        fs::read_to_string(self.allocations.as_ref()?).ok()?.parse().ok()
    }

    /// The memory of the process that is resident now, in KiB; none if it has ended.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        status_kib(self.pid, "VmRSS:")
    }

    /// What the process has used since it began; none if it has ended.
    pub(crate) fn used(&self) -> Option<Used> {
        let cpu_s = cpu_seconds(self.pid)? - self.began;
        let allocations = self.count().zip(self.allocated).map(|(now, before)| now.saturating_sub(before));
        let peak_rss_kib = status_kib(self.pid, "VmHWM:")?;
        Some(Used { name: self.name.clone(), cpu_s, peak_rss_kib, allocations })
    }
}

/// Lets this process open as many files as the system allows it at all, and returns how many that is; none if
/// there is no limit.
pub(crate) fn raise_file_limit() -> Option<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // With less than that, a socket that cannot be opened says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    maximum
}

/// The CPU time of a process, user and system, in seconds; the kernel counts it in ticks of 10 ms.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have spaces in it; utime and stime are fields 14 and 15, and the one after
    // the name is field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks as f64 / clock_ticks_per_second() as f64)
}

/// A size in the status of a process, in KiB.
fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let used = Watched::this().used().unwrap();
        assert!(used.cpu_s >= 0.0);
        assert!(used.peak_rss_kib > 100, "{used:?}");
        assert!(Watched::this().resident_kib().unwrap() > 100);
    }

    #[test]
    fn a_process_that_is_another_program_is_not_watched() {
        let pid = std::process::id();
        assert!(Watched::new("x".into(), pid, "").is_some());
        assert!(Watched::new("x".into(), pid, "recadod").is_none());
    }
}
