//! Who is let in: profiles are claimed, devices known and forgotten, sessions opened, fenced and
//! closed, and cursors moved.

use imbl::{OrdMap, Vector};

use super::Service;
use super::state::{Device, Profile, Session};
use crate::id::{DeviceId, Name, Op, Seq, SessionId};
use crate::wire::packet::Code;

/// Nonces remembered of a device's sessions that are over: more CONNECTs than a network holds back.
const SPENT_MAX: usize = 8;

impl Service {
    /// Opens a session and tells which older one of the device it fences. A CONNECT that opened the
    /// live session already gets it again.
    pub(super) fn open_session(
        &mut self,
        op: Op,
        id: DeviceId,
        profile: &Name,
        receives: bool,
        nonce: u64,
        fresh: bool,
    ) -> Result<(SessionId, Option<SessionId>), Code> {
        // A CONNECT of a session that is over, late by a stray path, must not fence its successor.
        if self.state.devices.get(&id).is_some_and(|device| device.spent.contains(&nonce)) {
            return Err(Code::SessionOver);
        }
        let fenced = match self.state.devices.get(&id) {
            // A device stays with its profile: its numbers and its cursor mean nothing elsewhere.
            Some(device) if device.profile != *profile => return Err(Code::NotYours),
            Some(device) => device.session,
            None if fresh => {
                self.admit_device(op, id, profile)?;
                None
            }
            None => return Err(Code::UnknownDevice),
        };
        if let Some(live) = fenced {
            if self.state.sessions.get(&live).is_some_and(|open| open.nonce == nonce) {
                return Ok((live, None));
            }
            self.close_session(live);
        }
        let session = SessionId(op);
        let device = self.state.devices.get_mut(&id).ok_or(Code::UnknownDevice)?;
        device.session = Some(session);
        device.receives |= receives;
        device.last_seen_ms = self.state.clock_ms;
        self.state.sessions.insert(session, Session { device: id, receives, nonce });
        self.index.add_session(session, profile, receives, self.state.clock_ms);
        Ok((session, fenced))
    }

    /// Makes a device known, and its profile if the name is unclaimed. Either starts here: what was
    /// sent before is history. In a full profile the device that was idle the longest makes room.
    fn admit_device(&mut self, op: Op, id: DeviceId, name: &Name) -> Result<(), Code> {
        match self.state.profiles.get(name) {
            Some(profile) if !profile.keys.contains(&id.key) => return Err(Code::NotYours),
            Some(profile) => {
                if self.state.devices_of(name, profile).count() >= self.limits.devices {
                    let idle =
                        self.state.devices_of(name, profile).filter(|(_, device)| device.session.is_none());
                    let oldest = idle.min_by_key(|(id, device)| (device.last_seen_ms, **id));
                    let oldest = *oldest.ok_or(Code::LimitReached)?.0;
                    self.state.devices.remove(&oldest);
                }
            }
            None if self.state.profiles.len() >= self.limits.profiles => return Err(Code::LimitReached),
            None => {
                let profile =
                    Profile { born: op, keys: vec![id.key], follows: OrdMap::new(), sent: Vector::new() };
                self.state.profiles.insert(name.clone(), profile);
            }
        }
        let device = Device {
            profile: name.clone(),
            cursor: op,
            last_seq: Seq(0),
            results: OrdMap::new(),
            session: None,
            spent: Vector::new(),
            receives: false,
            last_seen_ms: self.state.clock_ms,
        };
        self.state.devices.insert(id, device);
        Ok(())
    }

    /// Ends a session; false if it is not live. Numbers, results and cursor stay with the device.
    pub(super) fn close_session(&mut self, session: SessionId) -> bool {
        let Some(open) = self.state.sessions.remove(&session) else { return false };
        if let Some(device) = self.state.devices.get_mut(&open.device) {
            device.session = None;
            device.spent.push_back(open.nonce);
            if device.spent.len() > SPENT_MAX {
                device.spent.pop_front();
            }
            self.index.remove_session(session, &device.profile, device.last_seen_ms);
        }
        true
    }

    /// Moves cursors forward, never back and never beyond what is applied. A session that only
    /// sends is seen by this, and its device's cursor stays.
    pub(super) fn move_cursors(&mut self, cursors: &[(SessionId, Op)]) {
        for (session, upto) in cursors {
            let Some(open) = self.state.sessions.get(session).copied() else { continue };
            if open.receives
                && let Some(device) = self.state.devices.get_mut(&open.device)
            {
                device.cursor = device.cursor.max((*upto).min(self.state.applied));
            }
            self.seen(open.device);
        }
    }

    /// Notes that a device was heard of now, by the log's clock.
    pub(super) fn seen(&mut self, id: DeviceId) {
        let now_ms = self.state.clock_ms;
        let Some(device) = self.state.devices.get_mut(&id) else { return };
        let before_ms = std::mem::replace(&mut device.last_seen_ms, now_ms);
        if let Some(session) = device.session {
            self.index.session_seen(session, before_ms, now_ms);
        }
    }
}
