//! Devices and sessions: devices are admitted and forgotten, sessions opened, confirmed, fenced and closed,
//! and cursors moved.

use std::cmp::Reverse;

use imbl::Vector;

use recado_proto::command::SessionOpen;
use recado_proto::id::{DeviceId, DeviceKey, Name, Op, Seq, SessionId};
use recado_proto::packet::Code;

use super::capacity::{KEY, PROFILE};
use super::state::{Device, Session};
use super::{Applied, Service};

/// The number of CONNECT nonces remembered of a device's ended sessions. A network is assumed not to hold
/// back more CONNECTs of one device than this.
pub(super) const RECENT_NONCES_MAX: usize = 8;

impl Service {
    /// Opens a session. It is pending until it is confirmed: the device's live session goes on, an older
    /// pending one ends. A repeated CONNECT gets the live or pending session that the first one opened.
    pub(super) fn open_session(
        &mut self,
        op: Op,
        command: &SessionOpen,
        out: &mut Vec<Applied>,
    ) -> Result<SessionId, Code> {
        let SessionOpen { device: id, ref profile, receives, nonce, fresh, aead, .. } = *command;
        match self.state.devices.get(&id) {
            // A delayed CONNECT of a session that has ended must not displace that session's successor.
            Some(device) if device.recent_nonces.contains(&nonce) => {
                return Err(if device.session.is_some() { Code::Fenced } else { Code::SessionOver });
            }
            // A device belongs to one profile: its request numbers and its cursor have no meaning in another.
            Some(device) if device.profile != *profile => return Err(Code::NotYours),
            Some(device) => {
                let known = [device.session, device.pending].into_iter().flatten();
                let of = |session: &SessionId| self.state.sessions.get(session).map(|open| open.nonce);
                if let Some(same) = known.into_iter().find(|session| of(session) == Some(nonce)) {
                    return Ok(same);
                }
                if let Some(replaced) = device.pending {
                    self.close_session(replaced, Code::SessionOver, out);
                }
                if self.state.sessions.len() >= self.limits.sessions {
                    return Err(Code::LimitReached);
                }
            }
            // Refused before a device or a profile is created for it.
            None if self.state.sessions.len() >= self.limits.sessions => return Err(Code::LimitReached),
            None if fresh => self.admit_device(op, id, command, out)?,
            None => return Err(Code::UnknownDevice),
        }
        let (session, opened_ms) = (SessionId(op), self.state.clock_ms);
        let device = self.state.devices.get_mut(&id).ok_or(Code::UnknownDevice)?;
        device.pending = Some(session);
        self.state.sessions.insert(session, Session { device: id, receives, nonce, aead, opened_ms });
        self.index.pending.insert((opened_ms, session));
        Ok(session)
    }

    /// Makes a pending session its device's live one and fences the older one.
    pub(super) fn confirm_session(&mut self, session: SessionId, out: &mut Vec<Applied>) {
        let Some(open) = self.state.sessions.get(&session).copied() else { return };
        let Some(device) = self.state.devices.get(&open.device) else { return };
        if device.pending != Some(session) {
            return;
        }
        if let Some(fenced) = device.session {
            self.close_session(fenced, Code::Fenced, out);
        }
        self.index.pending.remove(&(open.opened_ms, session));
        let now_ms = self.state.clock_ms;
        if let Some(device) = self.state.devices.get_mut(&open.device) {
            (device.session, device.pending) = (Some(session), None);
            device.receives |= open.receives;
            device.last_seen_ms = now_ms;
            self.index.add_session(session, &device.profile, open.receives, now_ms);
            let profile = device.profile.clone();
            self.has_entered(&profile);
        }
        out.push(Applied::SessionConfirmed { session });
    }

    /// Admits a device, and creates its profile if the name is unclaimed. Its cursor, and a new profile,
    /// start at this op: what was sent before is history. If the profile has the most devices it may have,
    /// [one of them](Service::replaceable_device) is forgotten.
    fn admit_device(
        &mut self,
        op: Op,
        id: DeviceId,
        command: &SessionOpen,
        out: &mut Vec<Applied>,
    ) -> Result<(), Code> {
        let name = &command.profile;
        self.room_for(PROFILE + KEY + self.device_weight())?;
        self.admit_key(op, command)?;
        if let Some(oldest) = self.replaceable_device(name, Some(id.key))? {
            self.forget_device(oldest, out);
        }
        let device = Device {
            profile: name.clone(),
            created_op: op,
            cursor: op,
            last_seq: Seq(0),
            results: Vector::new(),
            session: None,
            pending: None,
            recent_nonces: Vector::new(),
            receives: false,
            last_seen_ms: self.state.clock_ms,
        };
        self.state.devices.insert(id, device);
        Ok(())
    }

    /// The device of `name` whose place a further one takes, which is of the installation with this key, if
    /// that is known; none while the profile may have more devices. Of the devices without a live session it
    /// is one of the installation that has the most, and there the one that was seen longest ago. No
    /// installation that has a device takes the last one of another: many short programs on one machine would
    /// end what waits on another.
    ///
    /// # Errors
    /// [`Code::LimitReached`] if the profile has the most devices and none of them gives way.
    pub(super) fn replaceable_device(
        &self,
        name: &Name,
        of: Option<DeviceKey>,
    ) -> Result<Option<DeviceId>, Code> {
        let Some(profile) = self.state.profiles.get(name) else { return Ok(None) };
        let devices = || self.state.devices_of(name, profile);
        if devices().count() < self.limits.devices {
            return Ok(None);
        }
        let count = |key| devices().filter(|(id, _)| id.key == key).count();
        let has_one = of.is_some_and(|of| count(of) > 0);
        devices()
            .filter(|(id, device)| device.session.is_none() && !(has_one && count(id.key) == 1))
            .min_by_key(|(id, device)| (Reverse(count(id.key)), device.last_seen_ms, **id))
            .map(|(id, _)| Some(*id))
            .ok_or(Code::LimitReached)
    }

    /// Ends a session, live or pending, and remembers its nonce as used. The device keeps its numbers,
    /// results and cursor.
    pub(super) fn close_session(&mut self, session: SessionId, why: Code, out: &mut Vec<Applied>) {
        let Some(open) = self.state.sessions.remove(&session) else { return };
        if let Some(device) = self.state.devices.get_mut(&open.device) {
            if device.session == Some(session) {
                device.session = None;
                self.index.remove_session(session, &device.profile, device.last_seen_ms);
            } else {
                device.pending = None;
                self.index.pending.remove(&(open.opened_ms, session));
            }
            device.recent_nonces.push_back(open.nonce);
            if device.recent_nonces.len() > RECENT_NONCES_MAX {
                device.recent_nonces.pop_front();
            }
        }
        out.push(Applied::SessionClosed { session, why });
    }

    /// Forgets a device and ends its sessions.
    pub(super) fn forget_device(&mut self, id: DeviceId, out: &mut Vec<Applied>) {
        let Some(device) = self.state.devices.get(&id) else { return };
        for session in [device.session, device.pending].into_iter().flatten() {
            self.close_session(session, Code::SessionOver, out);
        }
        self.state.devices.remove(&id);
    }

    /// Moves cursors forward, never back. A cursor beyond the last applied op is not from this log and moves
    /// nothing. For a session that only sends, the device counts as seen and its cursor stays.
    pub(super) fn move_cursors(&mut self, cursors: &[(SessionId, Op)]) {
        for (session, upto) in cursors {
            let Some(open) = self.state.live(*session).map(|(open, _)| *open) else { continue };
            let moves = open.receives && *upto <= self.state.applied;
            if let Some(device) = self.seen(open.device).filter(|_| moves) {
                device.cursor = device.cursor.max(*upto);
            }
        }
    }

    /// Records that the device was seen now, by the log's clock, and returns it.
    pub(super) fn seen(&mut self, id: DeviceId) -> Option<&mut Device> {
        let now_ms = self.state.clock_ms;
        let device = self.state.devices.get_mut(&id)?;
        let before_ms = std::mem::replace(&mut device.last_seen_ms, now_ms);
        if let Some(session) = device.session {
            self.index.session_seen(session, before_ms, now_ms);
        }
        Some(device)
    }
}
