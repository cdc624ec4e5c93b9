//! A model of the ownership of names, derived from the log alone: admission by the setting that was logged
//! with the CONNECT, the invitations and keys that administrators gave out, and the expiry of names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recado_proto::command::SessionOpen;
use recado_proto::id::{Admission, DeviceKey, Name};
use recado_proto::packet::{AdminChange, Code, CodeHash, OptionalFields};

use crate::coverage::Situation;

/// Everything that was granted and claimed so far.
#[derive(Debug)]
pub struct NameOwnership {
    names: BTreeMap<Name, Claimed>,
    invites: BTreeMap<CodeHash, Invitation>,
    /// Codes of invitations that have no use left.
    spent: BTreeSet<CodeHash>,
    allowed: BTreeSet<DeviceKey>,
    /// The log's time.
    now_ms: u64,
    unused_ms: u64,
}

#[derive(Debug)]
struct Claimed {
    /// The time of the claim.
    since_ms: u64,
    /// The time of the claim, or of the last contact of a device that the profile still has.
    seen_ms: u64,
    sessions: u32,
    used: bool,
    /// True if no key owns the name, although the profile exists.
    released: bool,
}

#[derive(Debug)]
struct Invitation {
    left: u32,
    until_ms: u64,
    only: Option<Name>,
}

impl NameOwnership {
    /// A model without any claim. A name that is not used expires after `unused`.
    pub fn new(unused: Duration) -> NameOwnership {
        NameOwnership {
            names: BTreeMap::new(),
            invites: BTreeMap::new(),
            spent: BTreeSet::new(),
            allowed: BTreeSet::new(),
            now_ms: 0,
            unused_ms: unused.as_millis() as u64,
        }
    }

    /// Advances the log's clock.
    pub fn at(&mut self, unix_ms: u64) {
        self.now_ms = self.now_ms.max(unix_ms);
    }

    /// Returns true if nobody owns this name.
    pub fn is_free(&self, name: &Name) -> bool {
        self.names.get(name).is_none_or(|claimed| claimed.released)
    }

    /// Takes a CONNECT that was admitted, or refused for this reason.
    ///
    /// # Errors
    /// The reason why the outcome is wrong.
    pub fn asked(&mut self, asked: &SessionOpen, refused: Option<Code>) -> Result<Option<Situation>, String> {
        let name = &asked.profile;
        let (free, right) = (self.is_free(name), self.right(asked));
        match refused {
            None if !free => Ok(None),
            None => {
                right.map_err(|code| format!("{name} was claimed, and it was to be {code:?}"))?;
                Ok(self.claim(asked))
            }
            Some(code @ (Code::InviteNeeded | Code::WrongInvite | Code::KeyNotAllowed)) => {
                if !free || right != Err(code) {
                    return Err(format!("{name} was refused, {code:?}: free {free}, and {right:?}"));
                }
                let spent = asked.invite.is_some_and(|code| self.spent.contains(&code));
                Ok(match code {
                    Code::KeyNotAllowed => Some(Situation::KeyNotAllowed),
                    _ => spent.then_some(Situation::InviteSpent),
                })
            }
            Some(_) => Ok(None),
        }
    }

    /// Returns the code with which a claim of a free name must be refused, if it must.
    fn right(&self, asked: &SessionOpen) -> Result<(), Code> {
        let fits = |invite: &&Invitation| {
            let only = invite.only.as_ref();
            self.now_ms <= invite.until_ms && only.is_none_or(|only| *only == asked.profile)
        };
        match (asked.admission, asked.invite) {
            (Admission::Open, _) => Ok(()),
            (Admission::Keys, _) if self.allowed.contains(&asked.device.key) => Ok(()),
            (Admission::Keys, _) => Err(Code::KeyNotAllowed),
            (Admission::Invite, None) => Err(Code::InviteNeeded),
            (Admission::Invite, Some(code)) => {
                self.invites.get(&code).filter(fits).map(|_| ()).ok_or(Code::WrongInvite)
            }
        }
    }

    fn claim(&mut self, asked: &SessionOpen) -> Option<Situation> {
        let fresh = Claimed {
            since_ms: self.now_ms,
            seen_ms: self.now_ms,
            sessions: 0,
            used: false,
            released: false,
        };
        self.names.entry(asked.profile.clone()).or_insert(fresh).released = false;
        match (asked.admission, asked.invite) {
            (Admission::Open, _) => None,
            (Admission::Keys, _) => Some(Situation::KeyAllowed),
            (Admission::Invite, code) => {
                let invite = code.and_then(|code| Some((code, self.invites.get_mut(&code)?)));
                if let Some((code, invite)) = invite {
                    invite.left -= 1;
                    if invite.left == 0 {
                        self.invites.remove(&code);
                        self.spent.insert(code);
                    }
                }
                Some(Situation::Invited)
            }
        }
    }

    /// Takes a change by an administrator that was applied.
    pub fn administered(&mut self, change: &AdminChange) -> Option<Situation> {
        match change {
            AdminChange::Release { name } => {
                if let Some(claimed) = self.names.get_mut(name) {
                    // Its devices are gone, and with them the times of their last contact.
                    (claimed.released, claimed.seen_ms) = (true, claimed.since_ms);
                }
                None
            }
            AdminChange::RemoveProfile { name } => {
                self.names.remove(name);
                Some(Situation::ProfileRemoved)
            }
            AdminChange::RemoveChannel { .. } => Some(Situation::ChannelRemoved),
            AdminChange::Invite { code, uses, lasts_ms, name } => {
                let invite = Invitation { left: *uses, until_ms: self.now_ms + lasts_ms, only: name.clone() };
                self.invites.entry(*code).or_insert(invite);
                None
            }
            AdminChange::Allow { key } => {
                self.allowed.insert(*key);
                None
            }
            AdminChange::Disallow { key } => {
                self.allowed.remove(key);
                None
            }
        }
    }

    /// Takes a contact of one of the profile's devices.
    pub fn seen(&mut self, name: &Name) {
        if let Some(claimed) = self.names.get_mut(name) {
            claimed.seen_ms = self.now_ms;
        }
    }

    /// Takes a new session of one of the profile's devices.
    pub fn entered(&mut self, name: &Name) {
        self.seen(name);
        if let Some(claimed) = self.names.get_mut(name) {
            claimed.sessions += 1;
            claimed.used |= claimed.sessions > 1;
        }
    }

    /// Takes a use of the profile, by itself or by another.
    pub fn used(&mut self, name: &Name) {
        if let Some(claimed) = self.names.get_mut(name) {
            claimed.used = true;
        }
    }

    /// Takes the expiry of a profile: it must be unused, and its last contact must be long enough ago.
    ///
    /// # Errors
    /// It was used, or it is too early.
    pub fn expired(&mut self, name: &Name) -> Result<Situation, String> {
        let claimed = self.names.remove(name).ok_or(format!("{name} expired, and there was none"))?;
        let age_ms = self.now_ms - claimed.seen_ms;
        if claimed.used || age_ms <= self.unused_ms {
            return Err(format!("{name} expired after {age_ms} ms: {claimed:?}"));
        }
        Ok(Situation::NameExpired)
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::DeviceId;

    use super::*;
    use crate::population::name;
    use crate::tap;

    const CODE: CodeHash = CodeHash([7; 32]);

    fn connect(profile: &str, admission: Admission) -> SessionOpen {
        SessionOpen {
            device: DeviceId { key: tap::public(1), slot: 0 },
            profile: name(profile),
            receives: true,
            nonce: 1,
            fresh: true,
            code: None,
            invite: Some(CODE),
            admission,
            aead: Default::default(),
            options: OptionalFields::NONE,
        }
    }

    fn given(changes: &[AdminChange]) -> NameOwnership {
        let mut claims = NameOwnership::new(Duration::from_millis(100));
        claims.at(1_000);
        changes.iter().for_each(|change| {
            claims.administered(change);
        });
        claims
    }

    fn invite(uses: u32, only: Option<&str>) -> AdminChange {
        AdminChange::Invite { code: CODE, uses, lasts_ms: 50, name: only.map(name) }
    }

    #[test]
    fn an_invitation_that_opens_once_too_often_is_found() {
        let mut claims = given(&[invite(1, None)]);
        assert_eq!(claims.asked(&connect("ann", Admission::Invite), None), Ok(Some(Situation::Invited)));
        let again = claims.asked(&connect("bob", Admission::Invite), None);
        assert!(again.unwrap_err().contains("WrongInvite"));
        let refused = claims.asked(&connect("bob", Admission::Invite), Some(Code::WrongInvite));
        assert_eq!(refused, Ok(Some(Situation::InviteSpent)));
        // The owner of a name needs no invitation for it.
        assert_eq!(claims.asked(&connect("ann", Admission::Invite), None), Ok(None));
    }

    #[test]
    fn an_invitation_for_another_name_or_of_another_time_is_found() {
        let other = given(&[invite(1, Some("cleo"))]).asked(&connect("ann", Admission::Invite), None);
        assert!(other.unwrap_err().contains("WrongInvite"));
        let mut late = given(&[invite(1, None)]);
        late.at(1_051);
        assert!(late.asked(&connect("ann", Admission::Invite), None).is_err());
    }

    #[test]
    fn a_good_claim_that_is_refused_is_found() {
        let refused = |changes: &[AdminChange], admission, code| {
            given(changes).asked(&connect("ann", admission), Some(code)).is_err()
        };
        let key = tap::public(1);
        assert!(refused(&[invite(1, None)], Admission::Invite, Code::WrongInvite));
        assert!(refused(&[AdminChange::Allow { key }], Admission::Keys, Code::KeyNotAllowed));
        assert!(refused(&[], Admission::Open, Code::KeyNotAllowed));
        assert!(!refused(
            &[AdminChange::Allow { key }, AdminChange::Disallow { key }],
            Admission::Keys,
            Code::KeyNotAllowed
        ));
    }

    #[test]
    fn a_name_that_expires_though_it_was_used_or_too_early_is_found() {
        let expires = |use_it: fn(&mut NameOwnership), at| {
            let mut claims = given(&[]);
            claims.asked(&connect("ann", Admission::Open), None).unwrap();
            claims.entered(&name("ann"));
            use_it(&mut claims);
            claims.at(at);
            claims.expired(&name("ann"))
        };
        assert_eq!(expires(|_| (), 1_101), Ok(Situation::NameExpired));
        assert!(expires(|_| (), 1_100).is_err());
        let was_there: fn(&mut NameOwnership) = |claims| {
            claims.at(1_050);
            claims.seen(&name("ann"));
        };
        assert!(expires(was_there, 1_150).is_err());
        assert_eq!(expires(was_there, 1_151), Ok(Situation::NameExpired));
        assert!(expires(|claims| claims.used(&name("ann")), 1_101).is_err());
        assert!(expires(|claims| claims.entered(&name("ann")), 1_101).is_err());
    }
}
