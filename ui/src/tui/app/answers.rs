//! What the servers say to requests and queries: results, refusals with their reasons, lists.

use std::sync::Arc;
use std::time::Duration;

use recado_client::{
    Access, ChannelChange, ChannelName, Code, Content, DeviceKey, EnrolmentCode, FollowChange, ListItem,
    Listing, Name, Notification, Op, Request, Topic, explain,
};
use recado_proto::packet::KeyChange;

use super::{App, Conversation, Effect, Popup, Question, Yes};
use crate::exit::refusal;
use crate::print::local;
use crate::tui::command::in_commands_of_here;
use crate::tui::conversation::Channel;
use crate::tui::event::{RequestId, reached, written};
use crate::wording::{changed, claimed, empty, enrolling, listed, no_right};

/// What a list that a command asked for is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Show(Listing),
    /// Ask whether to delete this channel.
    Delete(ChannelName),
    /// Revoke the only key that begins so.
    Revoke(String),
}

/// A refusal whose reason waits for the names of the channel's owners.
#[derive(Clone, Debug)]
pub(super) struct Denied {
    id: RequestId,
    channel: ChannelName,
    /// The role that the request needs.
    role: &'static str,
}

impl App {
    pub(super) fn on_settled(&mut self, id: RequestId, result: Result<Op, Code>) {
        match result {
            Ok(op) => match self.outbox.answered(id) {
                Some(Request::Send { topic, content }) => self.on_sent(op, topic, content),
                Some(Request::Follow { topic, change }) => {
                    self.on_followed(topic, matches!(change, FollowChange::Add));
                }
                Some(Request::Channel { channel, change }) => {
                    self.notice(changed(&channel, &change));
                    self.list_channels();
                    if matches!(change, ChannelChange::Create { .. }) {
                        // Who makes a channel is to see what is sent there.
                        let (topic, change) = (Topic::Channel(channel), FollowChange::Add);
                        self.request(Request::Follow { topic, change });
                    }
                }
                Some(Request::Keys { change: KeyChange::Revoke { key } }) => {
                    self.notice(format!("{key} is revoked"));
                }
                // An earlier command left this request. The screen makes none of this kind.
                Some(
                    Request::Keys { .. }
                    | Request::Retract { .. }
                    | Request::Display { .. }
                    | Request::Put { .. }
                    | Request::Delete { .. },
                )
                | None => {}
            },
            Err(code) => self.on_refused(id, code),
        }
    }

    /// Lists an acknowledged notification at its place, and shows a notice if this place is not visible.
    fn on_sent(&mut self, op: Op, topic: Option<Topic>, content: Content) {
        let Some(me) = self.profile.clone() else { return };
        let whom = reached(topic.as_ref());
        let topic = topic.unwrap_or(Topic::Feed(me.clone()));
        if self.places.wrote(&topic, op) {
            self.must_keep();
        }
        let shows = self.shows(&self.stands_in(&topic));
        let notification = Arc::new(Notification {
            op,
            topic,
            author: me,
            unix_ms: self.now.unix_ms,
            content,
            options: recado_proto::packet::OptionalFields::NONE,
        });
        self.insert_own(notification);
        // The notice of a success does not replace the notice of a failure.
        if !shows && !self.notice.as_ref().is_some_and(|notice| notice.is_trouble) {
            self.notice(format!("sent to {whom}"));
        }
    }

    /// Says that a notification made its channel, as `recado send` does: the name may be mistyped.
    pub(super) fn on_made_channel(&mut self, topic: &Topic) {
        if let Topic::Channel(name) = topic {
            self.channels.push(Channel { name: name.clone(), followers: 0, access: Access::Open });
            self.notice(format!(
                "created #{name}: there was no such channel; anyone can follow it and send to it now"
            ));
        }
    }

    fn on_refused(&mut self, id: RequestId, code: Code) {
        let sent_to = self.outbox.topic_of(id);
        let limit = self.outbox.limit_of(id).filter(|_| code == Code::LimitReached);
        let why = limit.map_or_else(|| refusal(code, sent_to.as_ref()), str::to_owned);
        let why = in_commands_of_here(&why);
        if code != Code::AlreadyFollowing {
            self.give_up_join(id);
        }
        let request = self.outbox.refused(id, &why);
        if let (Code::NotAllowed, Some(Topic::Channel(channel))) = (code, &sent_to) {
            let role = if request.is_some() { "an owner" } else { "a writer" };
            self.denied.push(Denied { id, channel: channel.clone(), role });
            self.effects.push(Effect::List(Listing::Members(channel.clone())));
            // The reason follows with the list of the members.
            return self.trouble(explain(code));
        }
        match request {
            // The requested state holds already.
            Some(Request::Follow { topic, .. }) if code == Code::AlreadyFollowing => {
                self.on_followed(topic, true);
            }
            Some(Request::Follow { topic, .. }) if code == Code::NotFollowing => {
                self.places.unfollow(&topic);
                self.notice(format!("you do not follow {}", written(&topic)));
            }
            // These codes concern the member, not the channel.
            Some(Request::Channel {
                change: ChannelChange::Add { member, .. } | ChannelChange::Remove { member },
                ..
            }) if matches!(code, Code::UnknownProfile | Code::NotMember) => {
                self.trouble(refusal(code, Some(&Topic::Feed(member))));
            }
            Some(
                Request::Follow { .. }
                | Request::Channel { .. }
                | Request::Keys { .. }
                | Request::Retract { .. }
                | Request::Display { .. }
                | Request::Put { .. }
                | Request::Delete { .. },
            ) => self.trouble(why),
            Some(Request::Send { .. }) | None => self.trouble(format!("not sent: {why}")),
        }
    }

    /// Completes the reasons that wait for the members of this channel, with the words of the commands.
    fn tell_owners(&mut self, of: &ChannelName, members: Result<&[ListItem], ()>) {
        let (told, left) = std::mem::take(&mut self.denied).into_iter().partition(|one| one.channel == *of);
        self.denied = left;
        let told: Vec<Denied> = told;
        for Denied { id, channel, role } in told {
            let why = match members {
                Ok(members) => no_right(&channel, role, members),
                // Only a member may list the members of a private channel.
                Err(()) => refusal(Code::NotAllowed, Some(&Topic::Channel(channel))),
            };
            self.outbox.refused(id, &why);
            self.trouble(why);
        }
    }

    fn on_followed(&mut self, topic: Topic, now: bool) {
        let name = written(&topic);
        if now {
            self.places.follow(topic.clone());
            match self.take_join(&topic) {
                Some(moved) => {
                    if !self.arrive(moved) {
                        self.notice(format!("you follow {name}; /go {name} shows it"));
                    }
                }
                None => self.notice(format!("you follow {name}")),
            }
        } else {
            self.places.unfollow(&topic);
            self.notice(format!("you no longer follow {name}"));
        }
        if matches!(self.here, Conversation::Topic(Topic::Channel(_))) {
            self.list_channels();
        }
        // A list that is on its way may be older.
        self.refresh_places(Duration::ZERO);
        self.must_keep();
    }

    /// Says that the name was claimed, as the commands do: it may be mistyped.
    pub(super) fn on_claimed(&mut self) {
        if let Some(me) = &self.profile {
            self.notice(claimed(me));
        }
    }

    pub(super) fn on_enrolled(&mut self, code: Result<EnrolmentCode, String>) {
        let (code, me) = match (code, self.profile.clone()) {
            (Ok(code), Some(me)) => (code, me),
            (Err(why), _) => return self.trouble(format!("no code for a new machine: {why}")),
            (Ok(_), None) => return,
        };
        let lines = vec![
            code.to_string(),
            String::new(),
            "On the new machine, once, within 10 minutes:".to_owned(),
            enrolling(&code, &me, &self.servers),
        ];
        self.popup = Some(Popup::Text { title: "Code for a new machine".to_owned(), lines, scroll: 0 });
    }

    pub(super) fn on_list(&mut self, listing: Listing, items: Result<Vec<ListItem>, String>) {
        let asked = self.asked.take_if(|asked| match asked {
            Asked::Show(what) => *what == listing,
            Asked::Delete(channel) => listing == Listing::Members(channel.clone()),
            Asked::Revoke(_) => listing == Listing::Keys,
        });
        if let Listing::Members(channel) = &listing {
            self.tell_owners(channel, items.as_deref().map_err(|_| ()));
        }
        let items = match items {
            Ok(items) => items,
            // Without an answer the older list is kept. The next connection asks again.
            Err(why) => {
                if asked.is_some() {
                    self.trouble(why);
                }
                return;
            }
        };
        match asked {
            Some(Asked::Show(_)) => self.show_list(&listing, &items),
            Some(Asked::Delete(channel)) => self.ask_whether_to_delete(channel),
            Some(Asked::Revoke(beginning)) => self.ask_whether_to_revoke(&beginning, &items),
            None => {}
        }
        match listing {
            Listing::Following => {
                let topics = items.into_iter().filter_map(|item| match item {
                    ListItem::Following { topic: topic @ (Topic::Feed(_) | Topic::Channel(_)), .. } => {
                        Some(topic)
                    }
                    _ => None,
                });
                self.places.set_followed(topics.collect());
                self.must_keep();
            }
            Listing::People => {
                let names = items.into_iter().filter_map(|item| match item {
                    ListItem::Profile { name, .. } | ListItem::Displayed { name, .. } => Some(name),
                    _ => None,
                });
                self.people = names.collect();
            }
            Listing::Channels => {
                let channels = items.into_iter().filter_map(|item| match item {
                    ListItem::Channel { name, followers, access, .. } => {
                        Some(Channel { name, followers, access })
                    }
                    _ => None,
                });
                self.channels = channels.collect();
                self.drop_needless_question();
            }
            Listing::Followers
            | Listing::Devices
            | Listing::Members(_)
            | Listing::Keys
            | Listing::Stored { .. } => {}
        }
        self.refresh_palette();
    }

    /// Shows a list in a popup, as the commands print it.
    fn show_list(&mut self, listing: &Listing, items: &[ListItem]) {
        let title = match listing {
            Listing::Following => "You follow".to_owned(),
            Listing::Followers => "Followers".to_owned(),
            Listing::Members(channel) => format!("Members of #{channel}"),
            Listing::Devices => "Your devices".to_owned(),
            Listing::Keys => "Keys of your machines".to_owned(),
            Listing::Stored { .. } => "Keys of the store".to_owned(),
            Listing::People | Listing::Channels => return,
        };
        let zone = self.settings.zone.clone();
        let when = |unix_ms| local(unix_ms, &zone);
        let mut lines: Vec<String> =
            items.iter().map(|item| listed(item, self.device.map(|own| own.key), when)).collect();
        if lines.is_empty() {
            lines.push(empty(listing, "/follow"));
        }
        self.popup = Some(Popup::Text { title, lines, scroll: 0 });
    }

    fn ask_whether_to_delete(&mut self, channel: ChannelName) {
        let text = format!("This deletes #{channel} and its notifications for everyone.");
        let title = format!("Delete #{channel}?");
        let change = ChannelChange::Delete;
        let yes = (format!("Delete #{channel}"), Yes::Request(Request::Channel { channel, change }));
        self.ask(Question::new(title, text, yes, "Keep it").careful());
    }

    fn ask_whether_to_revoke(&mut self, beginning: &str, items: &[ListItem]) {
        let keys = items.iter().filter_map(|item| match item {
            ListItem::Key { key, .. } if key.in_full().starts_with(beginning) => Some(*key),
            _ => None,
        });
        let key: DeviceKey = match keys.collect::<Vec<_>>()[..] {
            [key] => key,
            [] => return self.trouble(format!("no key begins with {beginning:?}; /device list shows them")),
            _ => return self.trouble(format!("several keys begin with {beginning:?}; give more digits")),
        };
        let me = self.profile.as_ref().map(Name::to_string).unwrap_or_default();
        let text = if self.device.is_some_and(|own| own.key == key) {
            format!("{key} is the key of this machine, which then can no longer act as @{me}.")
        } else {
            format!("The devices with the key {key} can then no longer act as @{me}.")
        };
        let revoke = Yes::Request(Request::Keys { change: KeyChange::Revoke { key } });
        let yes = ("Revoke it".to_owned(), revoke);
        self.ask(Question::new("Revoke a key?".to_owned(), text, yes, "Keep it").careful());
    }
}
