//! Checks on the log as it is read, op by op: its time, and the devices' cursors.

use std::collections::{BTreeMap, BTreeSet};

use recado_proto::id::{DeviceId, Op};

/// Checks that the log's time never goes back, and is never ahead of every clock that it can have followed.
#[derive(Debug, Default)]
pub struct LogTime {
    last: BTreeMap<Op, u64>,
}

impl LogTime {
    /// Takes the time stamp of the entry at `op`; `latest_ms` is the most that any wall clock has shown.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn stamped(&mut self, op: Op, unix_ms: u64, latest_ms: u64) -> Result<(), String> {
        let before = self.last.range(..op).next_back();
        if let Some((earlier, ms)) = before.filter(|(_, ms)| **ms > unix_ms) {
            return Err(format!(
                "op {op} is stamped {unix_ms}, the earlier {earlier} {ms}: the time went back"
            ));
        }
        if unix_ms > latest_ms {
            let ahead = unix_ms - latest_ms;
            return Err(format!("op {op} is stamped {ahead} ms ahead of every clock there ever was"));
        }
        self.last.insert(op, unix_ms);
        Ok(())
    }
}

/// Checks that a device's cursor is where its client has acknowledged, and never goes back. A device that is
/// admitted again begins at that op.
#[derive(Debug, Default)]
pub struct Cursors {
    /// The op up to which each application has reported everything as taken.
    taken: BTreeMap<DeviceId, Op>,
    admitted: BTreeSet<(DeviceId, Op)>,
    /// The cursors, by the op of the state in which they were seen.
    seen: BTreeMap<(DeviceId, Op), Op>,
}

impl Cursors {
    /// Takes an application's report that it has taken everything up to `upto`.
    pub fn taken(&mut self, device: DeviceId, upto: Op) {
        let taken = self.taken.entry(device).or_default();
        *taken = upto.max(*taken);
    }

    /// Takes the entry at `op`, by which a device asked to be admitted.
    pub fn asked_in(&mut self, device: DeviceId, op: Op) {
        self.admitted.insert((device, op));
    }

    /// Checks the cursor of the device in the state at `applied`.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn stands(&mut self, device: DeviceId, applied: Op, cursor: Op) -> Result<(), String> {
        let begins = self.admitted.contains(&(device, cursor));
        let taken = self.taken.get(&device).copied().unwrap_or_default();
        if cursor > taken && !begins {
            return Err(format!(
                "at op {applied} the cursor of {device:?} is {cursor}, it has taken {taken}"
            ));
        }
        let earlier = (device, Op::ZERO)..(device, applied);
        if let Some((_, before)) = self.seen.range(earlier).next_back()
            && cursor < *before
            && !begins
        {
            return Err(format!(
                "at op {applied} the cursor of {device:?} went back from {before} to {cursor}"
            ));
        }
        self.seen.insert((device, applied), cursor);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::DeviceKey;

    use super::*;

    const DEVICE: DeviceId = DeviceId { key: DeviceKey([1; 32]), slot: 0 };

    #[test]
    fn a_time_that_goes_back_is_found_whatever_order_the_ops_are_seen_in() {
        let mut time = LogTime::default();
        assert_eq!(time.stamped(Op(3), 1_000, 1_000), Ok(()));
        assert_eq!(time.stamped(Op(4), 1_000, 2_000), Ok(()));
        assert!(time.stamped(Op(5), 999, 2_000).unwrap_err().contains("went back"));
    }

    #[test]
    fn a_time_ahead_of_every_clock_is_found() {
        assert!(LogTime::default().stamped(Op(3), 1_001, 1_000).unwrap_err().contains("1 ms ahead"));
    }

    #[test]
    fn a_cursor_beyond_what_was_taken_is_found() {
        let mut cursors = Cursors::default();
        cursors.asked_in(DEVICE, Op(2));
        assert_eq!(cursors.stands(DEVICE, Op(2), Op(2)), Ok(()));
        cursors.taken(DEVICE, Op(5));
        assert_eq!(cursors.stands(DEVICE, Op(7), Op(5)), Ok(()));
        assert!(cursors.stands(DEVICE, Op(8), Op(6)).unwrap_err().contains("has taken 5"));
    }

    #[test]
    fn a_cursor_that_goes_back_is_found_unless_the_device_came_in_anew() {
        let mut cursors = Cursors::default();
        cursors.asked_in(DEVICE, Op(2));
        cursors.taken(DEVICE, Op(9));
        assert_eq!(cursors.stands(DEVICE, Op(7), Op(6)), Ok(()));
        assert!(cursors.stands(DEVICE, Op(8), Op(5)).unwrap_err().contains("went back"));
        cursors.asked_in(DEVICE, Op(12));
        assert_eq!(cursors.stands(DEVICE, Op(12), Op(12)), Ok(()));
        // The state at an earlier op may be seen later, when another server reaches it.
        assert_eq!(cursors.stands(DEVICE, Op(6), Op(2)), Ok(()));
    }
}
