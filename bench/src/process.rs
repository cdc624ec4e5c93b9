//! What processes use: CPU time and memory, from `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// A process whose use is measured.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    name: String,
    pid: u32,
    began: f64,
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
}

impl Watched {
    /// A process under a name; none if no process of this machine has the pid and runs `program`.
    pub(crate) fn new(name: String, pid: u32, program: &str) -> Option<Watched> {
        let running = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (program.is_empty() || running.trim() == program).then_some(Watched { name, pid, began: 0.0 })
    }

    /// This process.
    pub(crate) fn this() -> Watched {
        Watched { name: "client".into(), pid: std::process::id(), began: 0.0 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Begins to measure. A process that has ended has used nothing.
    pub(crate) fn begin(&mut self) {
        self.began = cpu_seconds(self.pid).unwrap_or_default();
    }

    /// What the process has used since it began; none if it has ended.
    pub(crate) fn used(&self) -> Option<Used> {
        let cpu_s = cpu_seconds(self.pid)? - self.began;
        Some(Used { name: self.name.clone(), cpu_s, peak_rss_kib: peak_rss_kib(self.pid)? })
    }
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

fn peak_rss_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
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
    }

    #[test]
    fn a_process_that_is_another_program_is_not_watched() {
        let pid = std::process::id();
        assert!(Watched::new("x".into(), pid, "").is_some());
        assert!(Watched::new("x".into(), pid, "recadod").is_none());
    }
}
