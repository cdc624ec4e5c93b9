//! Navigation: the place shown, the visible part of its list, and the selected notification.

use std::collections::BTreeMap;
use std::sync::Arc;

use recado_client::{Notification, Op, Topic};

use super::{App, Conversation, Effect, Focus, PRESENT, Popup, Position, Question, Yes};
use crate::tui::log::Before;
use crate::tui::scroll::{Anchor, Items};
use crate::tui::view;

/// Older notifications are requested when fewer than this are above the window.
const AHEAD: usize = 20;

impl App {
    /// Returns true if the user is present, judged by the window's focus and the last key.
    pub(super) fn is_present(&self) -> bool {
        self.window_focused && self.now.since_start.saturating_sub(self.last_key) < PRESENT
    }

    /// Returns true if the list scrolls along with new notifications.
    pub(super) fn follows_end(&self) -> bool {
        self.position.anchor.is_none()
    }

    /// Returns true if the list shown includes notifications of this place.
    pub(super) fn shows(&self, place: &Conversation) -> bool {
        self.here == Conversation::All || self.here == *place
    }

    /// Returns true if the user sees a new notification of this place.
    pub(super) fn sees(&self, place: &Conversation) -> bool {
        self.shows(place) && self.follows_end() && self.is_present()
    }

    pub(super) fn read_here(&mut self, topic: &Topic) {
        let newest =
            self.log(&Conversation::Topic(topic.clone())).and_then(|log| log.newest()).map(|one| one.op);
        if let Some(newest) = newest
            && self.places.read(topic, newest)
        {
            self.must_keep();
        }
    }

    /// Marks as read what somebody looks at who presses a key: the place shown if its newest are visible, and
    /// each topic whose unread notifications are all visible among the others.
    pub(super) fn read_seen(&mut self) {
        if !self.follows_end() || self.popup.is_some() || view::is_too_small(self) {
            return;
        }
        let Conversation::Topic(topic) = self.here.clone() else {
            let mut seen: BTreeMap<Topic, (u64, Op)> = BTreeMap::new();
            for at in view::list::visible(self) {
                let Some(one) = self.log(&self.here).and_then(|log| log.get(at)) else { continue };
                let theirs = Some(&one.author) != self.profile.as_ref();
                if theirs && one.op > self.places.read_upto(&one.topic) {
                    let (count, newest) = seen.entry(one.topic.clone()).or_default();
                    (*count, *newest) = (*count + 1, one.op);
                }
            }
            for (topic, (count, newest)) in seen {
                let unread = self.places.unread(&Conversation::Topic(topic.clone()));
                if count >= unread && self.places.read(&topic, newest) {
                    self.must_keep();
                }
            }
            return;
        };
        self.read_here(&topic);
    }

    /// Shows a place, with its draft.
    pub(crate) fn go(&mut self, place: Conversation) {
        self.exchange_draft(&place);
        self.show(place);
    }

    /// Shows a place that has no draft, and takes the draft along.
    pub(super) fn go_with_draft(&mut self, place: Conversation) {
        (self.addressee, self.partner) = (None, None);
        self.show(place);
    }

    fn show(&mut self, place: Conversation) {
        (self.moving, self.begun_for) = (None, None);
        if place == self.here {
            self.need_past(&place);
            self.renew_own();
            return;
        }
        let left = self.here.clone();
        self.mark_seen(&left);
        if let Conversation::Topic(topic) = &place {
            let read_upto = self.places.read_upto(topic);
            let log = self.log_mut(&place);
            log.seen_upto.get_or_insert(read_upto);
        }
        self.here = place.clone();
        self.position = Position::default();
        self.search = None;
        self.need_past(&place);
        self.renew_own();
        self.listed = None;
        self.ask_for_followers();
        if let Conversation::Topic(topic) = place {
            self.read_here(&topic);
        }
    }

    /// Marks all notifications here as seen, so that later ones of this place are new.
    pub(super) fn mark_seen(&mut self, place: &Conversation) {
        let log = self.log_mut(place);
        if let Some(newest) = log.newest().map(|newest| newest.op) {
            log.seen_upto = Some(newest);
        }
    }

    /// Goes to the next wanted place down or up the list of places, wrapping at the ends.
    pub(super) fn step_place(&mut self, down: bool, wanted: impl Fn(&App, &Conversation) -> bool) {
        let places: Vec<Conversation> = self.rows().into_iter().map(|(_, place)| place).collect();
        let at = places.iter().position(|place| *place == self.here).unwrap_or(0);
        let count = places.len();
        let next = (1..count)
            .map(|step| if down { at + step } else { at + count - step })
            .filter_map(|at| places.get(at % count))
            .find(|place| wanted(self, place));
        if let Some(place) = next.cloned() {
            self.go(place);
        }
    }

    pub(super) fn edge_place(&mut self, first: bool) {
        let mut places = self.rows().into_iter().map(|(_, place)| place);
        if let Some(place) = if first { places.next() } else { places.next_back() } {
            self.go(place);
        }
    }

    // ---- in the list

    fn with_items<T>(&self, with: impl FnOnce(&Items<&dyn Fn(usize) -> usize>) -> T) -> T {
        let area = view::areas(self).list;
        let context = view::item::Context::new(self, area.width);
        let log = self.log(&self.here);
        let height = |at: usize| log.map_or(1, |log| view::item::height(&context, log, at));
        let len = log.map_or(0, |log| log.len());
        with(&Items { len, page: usize::from(area.height), height: &height })
    }

    /// The anchor as an index into the list shown.
    pub(crate) fn anchor(&self) -> Option<Anchor> {
        let (op, hidden) = self.position.anchor?;
        let log = self.log(&self.here)?;
        let item = log.position(op).unwrap_or_else(|at| at.min(log.len().saturating_sub(1)));
        Some(Anchor { item, hidden })
    }

    fn set_anchor(&mut self, anchor: Option<Anchor>) {
        let log = self.log(&self.here);
        let op = |anchor: Anchor| Some((log?.get(anchor.item)?.op, anchor.hidden));
        let end = self.with_items(|items| items.end());
        self.position.anchor = anchor.filter(|anchor| *anchor != end).and_then(op);
        self.after_move();
    }

    /// Requests older notifications if few are above the window, and marks what is seen as read.
    pub(super) fn after_move(&mut self) {
        let above = self.with_items(|items| {
            let anchor = self.anchor().unwrap_or(items.end());
            if items.len == 0 { 0 } else { items.first(anchor).item }
        });
        if above < AHEAD {
            let here = self.here.clone();
            self.need_older(&here);
        }
        if self.follows_end()
            && let Conversation::Topic(topic) = self.here.clone()
        {
            self.read_here(&topic);
        }
    }

    pub(super) fn scroll(&mut self, up: bool, rows: usize) {
        let anchor = self.with_items(|items| {
            let from = self.anchor().unwrap_or(items.end());
            if up { Some(items.up(from, rows)) } else { items.down(from, rows) }
        });
        self.set_anchor(anchor);
        self.keep_selection_in_view();
    }

    pub(super) fn scroll_page(&mut self, up: bool) {
        let page = usize::from(view::areas(self).list.height);
        self.scroll(up, page.saturating_sub(2).max(1));
    }

    /// First and last item that are at least partly visible.
    fn window(&self) -> (usize, usize) {
        self.with_items(|items| {
            let anchor = self.anchor().unwrap_or(items.end());
            if items.len == 0 { (0, 0) } else { (items.first(anchor).item, anchor.item) }
        })
    }

    fn keep_selection_in_view(&mut self) {
        let Some(selected) = self.position.selected else { return };
        let (first, last) = self.window();
        let Some(log) = self.log(&self.here) else { return };
        let at = log.position(selected).unwrap_or(last).clamp(first, last);
        self.position.selected = log.get(at).map(|one| one.op);
    }

    /// Selects the item at this index of the list, and scrolls to it.
    pub(super) fn select(&mut self, at: usize) {
        let Some(op) = self.log(&self.here).and_then(|log| log.get(at)).map(|one| one.op) else { return };
        self.position.selected = Some(op);
        let anchor = self.with_items(|items| items.show(self.anchor().unwrap_or(items.end()), at));
        self.set_anchor(Some(anchor));
    }

    fn selected_at(&self) -> Option<usize> {
        let log = self.log(&self.here)?;
        log.position(self.position.selected?).ok()
    }

    pub(super) fn step_selection(&mut self, down: bool) {
        let last = self.log(&self.here).map_or(0, |log| log.len()).saturating_sub(1);
        let Some(at) = self.selected_at() else { return self.select(self.window().1) };
        // An item that is higher than the window is scrolled to its end before the selection moves on.
        let page = usize::from(view::areas(self).list.height);
        let (high, below) = self.with_items(|items| {
            let anchor = self.anchor().unwrap_or(items.end());
            let high = items.len > 0 && (items.height)(at) > page;
            (high, if anchor.item == at { anchor.hidden } else { 0 })
        });
        match (down, high) {
            (true, true) if below > 0 => self.scroll(false, below.min(page.saturating_sub(2).max(1))),
            (true, _) => self.select((at + 1).min(last)),
            (false, true) if self.window().0 == at && self.window_hides_above() > 0 => {
                let hidden = self.window_hides_above();
                self.scroll(true, hidden.min(page.saturating_sub(2).max(1)));
            }
            (false, _) => self.select(at.saturating_sub(1)),
        }
    }

    fn window_hides_above(&self) -> usize {
        self.with_items(|items| {
            let anchor = self.anchor().unwrap_or(items.end());
            if items.len == 0 { 0 } else { items.first(anchor).hidden }
        })
    }

    pub(super) fn edge(&mut self, first: bool) {
        if first {
            self.select(0);
            let begin = self.with_items(|items| items.begin());
            self.set_anchor(Some(begin));
        } else {
            self.show_newest();
            self.select(self.log(&self.here).map_or(0, |log| log.len()).saturating_sub(1));
        }
    }

    pub(super) fn show_newest(&mut self) {
        self.position.anchor = None;
        self.after_move();
    }

    pub(crate) fn selected(&self) -> Option<Arc<Notification>> {
        self.log(&self.here)?.get(self.selected_at()?).cloned()
    }

    /// Moves the focus to the list, and selects the last visible item unless the selected one is visible: the
    /// keys of the list act on what is seen.
    pub(super) fn focus_list(&mut self) {
        self.focus = Focus::List;
        let visible = view::list::visible(self);
        if self.selected_at().is_none_or(|at| !visible.contains(&at)) {
            let last = if visible.is_empty() { self.window().1 } else { visible.end - 1 };
            self.position.selected = self.log(&self.here).and_then(|log| log.get(last)).map(|one| one.op);
        }
    }

    /// Holds the list where it is if what has come would move the selected item out of view.
    pub(super) fn hold_selection(&mut self) {
        if self.focus == Focus::List
            && let Some(at) = self.selected_at()
            && !view::list::visible(self).contains(&at)
        {
            self.select(at);
        }
    }

    // ---- going back in time

    /// Goes to the first notification since this time. Older ones are requested first if needed.
    pub(super) fn go_back_to(&mut self, unix_ms: u64) {
        let here = self.here.clone();
        self.log_mut(&here).goal_ms = Some(unix_ms);
        self.toward_goal(&here);
    }

    /// Requests older notifications until the goal is reached, then shows it.
    pub(super) fn toward_goal(&mut self, place: &Conversation) {
        let is_here = *place == self.here;
        let log = self.log_mut(place);
        let Some(goal) = log.goal_ms else { return };
        let reached = log.oldest().is_some_and(|oldest| oldest.unix_ms < goal);
        match log.before {
            Before::More if !reached => self.need_older(place),
            Before::Loading | Before::Unknown if !reached => {}
            Before::More | Before::Nothing | Before::Loading | Before::Unknown => {
                log.goal_ms = None;
                let at = log.since(goal);
                if !is_here {
                    return;
                }
                if at >= log.len() {
                    return self.notice("nothing was sent here since then");
                }
                // The user reads on from the goal, so it goes to the upper edge.
                self.position.anchor = None;
                self.select(0);
                self.select(at);
                let top = self.with_items(|items| items.top(at));
                self.set_anchor(Some(top));
                self.focus = Focus::List;
            }
        }
    }

    // ---- actions on the selected notification

    pub(super) fn copy(&mut self) {
        let Some(one) = self.selected() else { return };
        let mut text = String::new();
        if let Some(title) = &one.content.title {
            text.push_str(&crate::text::clean_line(title));
            text.push('\n');
        }
        text.push_str(&crate::text::sanitize(&one.content.body.as_text()));
        self.effects.push(Effect::Copy(text));
        self.notice("copied, if the terminal allows it");
    }

    /// Shows the selected notification with all its lines.
    pub(super) fn open_selected(&mut self) {
        let Some(one) = self.selected() else { return };
        let clean = crate::text::clean_line;
        let at = view::time(one.unix_ms, &self.settings.zone, "%Y-%m-%d %H:%M:%S");
        let mut lines =
            vec![format!("@{} to {}, {at}", one.author, crate::tui::event::reached_by(&one.topic))];
        let fields = crate::tui::options::Fields {
            title: one.content.title.as_deref().map(clean),
            priority: one.content.priority,
            tags: one.content.tags.iter().map(|tag| clean(tag)).collect(),
        };
        lines.extend((!fields.is_empty()).then(|| fields.in_words()));
        lines.push(String::new());
        lines.extend(crate::text::sanitize(&one.content.body.as_text()).lines().map(str::to_owned));
        self.popup = Some(Popup::Text { title: format!("Notification {}", one.op), lines, scroll: 0 });
    }

    pub(super) fn browse(&mut self) {
        let Some(one) = self.selected() else { return };
        let title = one.content.title.clone().unwrap_or_default();
        let links = crate::tui::links::find(&format!("{title}\n{}", one.content.body));
        if links.is_empty() {
            return self.notice("there is no link in this notification");
        }
        let open = |link: String| (format!("Open {link}"), Some(Yes::Effect(Effect::Browse(link))));
        let mut answers: Vec<_> = links.into_iter().map(open).collect();
        answers.push(("Open nothing".to_owned(), None));
        let title = format!("Open a link of @{}?", one.author);
        self.ask(Question::of(title, String::new(), answers));
    }

    /// Recipient of a reply from the inbox: the author of the selected notification, otherwise who got the
    /// last text from here, otherwise the author of the newest one. If the user wrote it, the profile to
    /// whose inbox it went.
    pub(crate) fn correspondent(&self) -> Option<recado_client::Name> {
        let other = |one: &Arc<Notification>| match &one.topic {
            Topic::Inbox(to) if Some(&one.author) == self.profile.as_ref() => Some(to.clone()),
            Topic::Inbox(_) | Topic::Feed(_) | Topic::Channel(_) => Some(one.author.clone()),
        };
        match self.selected().filter(|_| self.focus == Focus::List) {
            Some(one) => other(&one),
            None => self.partner.clone().or_else(|| self.log(&self.here)?.newest().and_then(other)),
        }
    }

    pub(super) fn reply(&mut self) {
        let Some(name) = self.correspondent() else { return };
        self.focus = Focus::Writing;
        self.compose.begin_command();
        self.compose.set(&format!("/dm @{name} "));
    }
}
