//! The keys of a profile: the key that claimed its name, the keys enrolled since, and the release of the name
//! by an administrator (DESIGN.md section 7).

use imbl::{OrdMap, Vector};

use recado_proto::command::SessionOpen;
use recado_proto::id::{DeviceId, DeviceKey, Name, Op, millis};
use recado_proto::packet::{Code, CodeHash, KeyChange};

use super::state::{Enrolment, Profile, Usage};
use super::{Applied, Service};

/// The number of wrong codes that ends an enrolment. Five guesses of a code of ten characters are hopeless.
const WRONG_MAX: u32 = 5;

impl Service {
    /// Makes the device's key one of the profile's, if it is not one yet. An unclaimed name is claimed by
    /// this CONNECT; a claimed one needs the code of its open enrolment.
    pub(super) fn admit_key(&mut self, op: Op, command: &SessionOpen) -> Result<(), Code> {
        let (name, key, claimed_ms) = (&command.profile, command.device.key, self.state.clock_ms);
        let full = self.state.profiles.len() >= self.limits.profiles;
        match (self.state.profiles.get(name), command.code) {
            (Some(profile), _) if profile.keys.contains(&key) => Ok(()),
            (Some(profile), None) if profile.keys.is_empty() => {
                self.may_claim(command)?;
                if let Some(profile) = self.state.profiles.get_mut(name) {
                    profile.keys.push(key);
                    self.index.counted.keys += 1;
                }
                Ok(())
            }
            (Some(_), None) => Err(Code::NotYours),
            (Some(_), Some(code)) => self.enrol(name, key, code),
            // A client with a code means an existing profile: a mistyped name must not be claimed.
            (None, Some(_)) => Err(Code::UnknownProfile),
            (None, None) if full => Err(Code::LimitReached),
            (None, None) => {
                self.may_claim(command)?;
                let profile = Profile {
                    claimed_op: op,
                    keys: vec![key],
                    follows: OrdMap::new(),
                    sent: Vector::new(),
                    owns: 0,
                    enrolment: None,
                    claimed_ms,
                    usage: Usage::Claimed,
                    channels_paid_ms: 0,
                    display: None,
                };
                self.state.profiles.insert(name.clone(), profile);
                self.index.unused.insert((claimed_ms, name.clone()));
                self.index.counted.keys += 1;
                Ok(())
            }
        }
    }

    fn enrol(&mut self, name: &Name, key: DeviceKey, code: CodeHash) -> Result<(), Code> {
        let now_ms = self.state.clock_ms;
        let no_place = self.replaceable_device(name, None).is_err();
        let most = self.limits.keys;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        let Some(mut open) = profile.enrolment.take().filter(|open| now_ms <= open.until_ms) else {
            return Err(Code::WrongCode);
        };
        if open.code != code {
            open.wrong += 1;
            profile.enrolment = Some(open).filter(|open| open.wrong < WRONG_MAX);
            return Err(Code::WrongCode);
        }
        // A code that could not let its device in can be used again once there is a place.
        if profile.keys.len() >= most || no_place {
            profile.enrolment = Some(open);
            return Err(Code::LimitReached);
        }
        profile.keys.push(key);
        self.index.counted.keys += 1;
        Ok(())
    }

    /// Applies a KEYS of a device of `name`.
    pub(super) fn change_keys(
        &mut self,
        op: Op,
        name: &Name,
        change: KeyChange,
        out: &mut Vec<Applied>,
    ) -> Result<Op, Code> {
        let until_ms = self.state.clock_ms.saturating_add(millis(self.limits.enrolment));
        let most = self.limits.keys;
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        match change {
            KeyChange::Enrol { .. } if profile.keys.len() >= most => return Err(Code::LimitReached),
            KeyChange::Enrol { code } => {
                profile.enrolment = Some(Enrolment { code, until_ms, wrong: 0 });
            }
            KeyChange::Revoke { key } if !profile.keys.contains(&key) => return Err(Code::UnknownDevice),
            KeyChange::Revoke { .. } if profile.keys.len() == 1 => return Err(Code::LastOne),
            KeyChange::Revoke { key } => {
                self.forget_devices(name, |id| id.key == key, out);
                if let Some(profile) = self.state.profiles.get_mut(name) {
                    profile.keys.retain(|of| *of != key);
                    // A holder of the revoked key may know the code. The enrolment does not say which key
                    // opened it, so any open one ends.
                    profile.enrolment = None;
                    self.index.counted.keys -= 1;
                }
            }
        }
        Ok(op)
    }

    /// Releases a name: removes its keys and forgets its devices.
    pub(super) fn release(&mut self, name: &Name, out: &mut Vec<Applied>) -> Result<(), Code> {
        self.forget_devices(name, |_| true, out);
        let profile = self.state.profiles.get_mut(name).ok_or(Code::UnknownProfile)?;
        self.index.counted.keys -= profile.keys.len() as u64;
        profile.keys.clear();
        profile.enrolment = None;
        profile.display = None;
        Ok(())
    }

    fn forget_devices(&mut self, name: &Name, which: impl Fn(&DeviceId) -> bool, out: &mut Vec<Applied>) {
        let Some(profile) = self.state.profiles.get(name) else { return };
        let devices = self.state.devices_of(name, profile).map(|(id, _)| *id);
        for id in devices.filter(which).collect::<Vec<_>>() {
            self.forget_device(id, out);
        }
    }
}
