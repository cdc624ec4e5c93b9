//! Behaviours of the service.

mod administration;
mod capacity;
mod channels;
mod claims;
mod cost;
mod expiry;
mod follows;
mod golden;
mod keys;
mod planted;
mod queries;
mod requests;
mod retention;
mod retraction;
mod sessions;
mod store;
mod stream;

use std::sync::Arc;

use recado_proto::codec;
use recado_proto::command::{Claim, Command, Request, SessionOpen, Stamped};
use recado_proto::id::{
    Admission, ChannelName, DeviceKey, OUTSTANDING_MAX, Priority, StoreKey, Topic, millis,
};
use recado_proto::packet::{
    Access, Admin, AdminChange, Answer, AnswerKind, ChannelChange, CodeHash, Condition, Content, DisplayName,
    FollowChange, History, HistoryRange, KeyChange, List, ListItem, Listing, Notice, Notification,
    OptionalFields, Position, Query, QueryId, QueryKind, Role, StoredValue, ToClient, ToServer,
};

use super::*;
use crate::limits::Retention;

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn channel_name(text: &str) -> ChannelName {
    text.parse().unwrap()
}

pub(super) fn feed(owner: &str) -> Topic {
    Topic::Feed(name(owner))
}

pub(super) fn inbox(owner: &str) -> Topic {
    Topic::Inbox(name(owner))
}

pub(super) fn channel(text: &str) -> Topic {
    Topic::Channel(channel_name(text))
}

/// The longest name of a channel, one for each number.
fn longest(number: usize) -> String {
    format!("{number:Z>most$}", most = ChannelName::LEN_MAX)
}

pub(super) fn device(key: u8, slot: u8) -> DeviceId {
    DeviceId { key: DeviceKey([key; 32]), slot }
}

pub(super) fn content(body: &str) -> Content {
    Content::of(body)
}

/// The digest of every request that no test tells apart from another.
pub(super) const DIGEST: u64 = 7;

/// A service, and the log that a test appends to it.
pub(super) struct Log {
    pub(super) service: Service,
    pub(super) unix_ms: u64,
}

impl Log {
    fn new() -> Log {
        Log::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Log {
        Log { service: Service::new(State::default(), limits, PlantedBug::default()), unix_ms: 1_000 }
    }

    pub(super) fn apply(&mut self, command: Command) -> Vec<Applied> {
        self.unix_ms += 1;
        let mut out = Vec::new();
        let stamped = Stamped { unix_ms: self.unix_ms, command };
        self.service.apply(self.service.applied().next(), Some(&stamped), &mut out);
        out
    }

    fn connect(&mut self, profile: &str, device: DeviceId, nonce: u64, fresh: bool) -> Vec<Applied> {
        self.connect_with(profile, device, nonce, fresh, None)
    }

    fn connect_with(
        &mut self,
        profile: &str,
        device: DeviceId,
        nonce: u64,
        fresh: bool,
        code: Option<CodeHash>,
    ) -> Vec<Applied> {
        let profile = name(profile);
        let (receives, invite, admission) = (true, None, Admission::Open);
        let open = SessionOpen {
            device,
            profile,
            receives,
            nonce,
            fresh,
            code,
            invite,
            admission,
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        self.apply(Command::SessionOpen(open))
    }

    fn keys(&mut self, session: SessionId, change: KeyChange) -> Result<Op, Code> {
        self.request(session, Request::Keys { change })
    }

    /// The result of a CONNECT of a new key with this enrolment code.
    fn enrol(&mut self, profile: &str, key: u8, code: CodeHash) -> Result<(), Code> {
        let nonce = self.unix_ms;
        match self.connect_with(profile, device(key, 0), nonce, true, Some(code))[..] {
            [Applied::SessionOpened { .. }] => Ok(()),
            [Applied::SessionRefused { code, .. }] => Err(code),
            ref other => panic!("{other:?}"),
        }
    }

    /// Opens a session and confirms it.
    fn enter(&mut self, profile: &str, device: DeviceId, nonce: u64, fresh: bool) -> SessionId {
        match self.connect(profile, device, nonce, fresh).last() {
            Some(Applied::SessionOpened { session, .. }) => {
                let session = *session;
                self.apply(Command::SessionConfirm { session });
                session
            }
            other => panic!("not let in: {other:?}"),
        }
    }

    fn open(&mut self, profile: &str, key: u8) -> SessionId {
        self.enter(profile, device(key, 0), self.unix_ms, true)
    }

    fn request(&mut self, session: SessionId, request: Request) -> Result<Op, Code> {
        let seq = self.service.session(session).unwrap().last_seq.next();
        let out = self.apply(Command::Request {
            session,
            seq,
            answered_below: seq,
            request,
            digest: DIGEST,
            may_make: true,
            options: OptionalFields::NONE,
        });
        let answer = out.iter().find_map(|one| match one {
            Applied::Answered { result, .. } => Some(*result),
            _ => None,
        });
        answer.unwrap_or_else(|| panic!("not answered: {out:?}"))
    }

    fn follow(&mut self, session: SessionId, topic: Topic) -> Result<Op, Code> {
        self.request(session, Request::Follow { topic, change: FollowChange::Add })
    }

    fn unfollow(&mut self, session: SessionId, topic: Topic) -> Result<Op, Code> {
        self.request(session, Request::Follow { topic, change: FollowChange::Remove })
    }

    fn send(&mut self, session: SessionId, topic: Topic) -> Result<Op, Code> {
        self.request(session, Request::Send { topic, content: content("hello") })
    }

    fn send_text(&mut self, session: SessionId, topic: Topic, body: &str) -> Result<Op, Code> {
        self.request(session, Request::Send { topic, content: content(body) })
    }

    /// As the primary logs it, with the topic that it finds.
    fn retract(&mut self, session: SessionId, op: Op) -> Result<Op, Code> {
        let (topic, _) = self.service.topic_of(self.service.owner(session).unwrap(), op);
        self.request(session, Request::Retract { op, topic })
    }

    fn channel(&mut self, session: SessionId, name_of: &str, change: ChannelChange) -> Result<Op, Code> {
        self.request(session, Request::Channel { channel: channel_name(name_of), change })
    }

    fn list(&self, asker: &str, what: Listing) -> Result<Vec<ListItem>, Code> {
        let query = List { what, after: None };
        self.service.list(&name(asker), &query, true).map(|(answer, _)| answer.items)
    }

    fn pending(&self, session: SessionId) -> Vec<Op> {
        let cursor = self.service.session(session).unwrap().cursor;
        ops(&self.service.page(session, cursor, 1_000, 1 << 20).notifications)
    }

    fn history(&self, asker: &str, topic: Option<Topic>, range: HistoryRange) -> Result<Vec<Op>, Code> {
        let query = History { topic, range, limit: 2 };
        self.service
            .history(&name(asker), &query, History::BYTES_MAX)
            .map(|answer| answer.notifications.iter().map(|one| one.op).collect())
    }

    fn administer(&mut self, change: AdminChange) -> Result<Op, Code> {
        // Each ADMIN has another id.
        let query = QueryId(self.unix_ms);
        match self.apply(Command::Administer(Admin { query, change })).last() {
            Some(Applied::Administered { result, .. }) => *result,
            other => panic!("not answered: {other:?}"),
        }
    }

    /// The result of claiming a name under this setting.
    fn claim(
        &mut self,
        profile: &str,
        key: u8,
        admission: Admission,
        invite: Option<CodeHash>,
    ) -> Result<(), Code> {
        let (device, nonce) = (device(key, 0), self.unix_ms);
        let open = SessionOpen {
            device,
            profile: name(profile),
            receives: true,
            nonce,
            fresh: true,
            code: None,
            invite,
            admission,
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        match self.apply(Command::SessionOpen(open))[..] {
            [.., Applied::SessionOpened { .. }] => Ok(()),
            [.., Applied::SessionRefused { code, .. }] => Err(code),
            ref other => panic!("{other:?}"),
        }
    }

    /// The clock advances by `days`, and the primary does its housekeeping.
    fn tidy_after(&mut self, days: u64) {
        self.unix_ms += days * DAY_MS;
        for command in self.service.housekeeping(self.unix_ms, &Retention::default(), 100) {
            self.apply(command);
        }
    }

    /// The clock advances day by day; each day these sessions are seen and the primary does its housekeeping.
    fn spend(&mut self, days: u64, sessions: &[SessionId]) {
        for _ in 0..days {
            self.apply(Command::Cursors(sessions.iter().map(|session| (*session, Op(0))).collect()));
            self.tidy_after(1);
        }
    }

    fn has_profile(&self, who: &str) -> bool {
        self.service.state.profiles.contains_key(&name(who))
    }
}

pub(super) fn ops(notifications: &[Stored]) -> Vec<Op> {
    notifications.iter().map(Stored::op).collect()
}

fn create(private: bool) -> ChannelChange {
    ChannelChange::Create { private }
}

fn add(member: &str, role: Role) -> ChannelChange {
    ChannelChange::Add { member: name(member), role }
}

fn remove(member: &str) -> ChannelChange {
    ChannelChange::Remove { member: name(member) }
}

const CODE: CodeHash = CodeHash([7; 32]);
const WRONG: CodeHash = CodeHash([8; 32]);

const DAY_MS: u64 = 24 * 3_600 * 1_000;

const INVITED: CodeHash = CodeHash([7; 32]);

fn invitation(uses: u32, only: Option<&str>) -> AdminChange {
    AdminChange::Invite { code: INVITED, uses, lasts_ms: DAY_MS, name: only.map(name) }
}

fn asked(query: u64, change: AdminChange) -> Command {
    Command::Administer(Admin { query: QueryId(query), change })
}
