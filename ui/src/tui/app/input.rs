//! Input of the user: keys, mouse, paste, size. The table of keys maps keys to actions.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position as Cell;
use recado_client::{Content, Listing, Topic};

use super::{App, Conversation, Effect, Focus, Popup, Question, Yes};
use crate::tui::conversation::Channel;
use crate::tui::keys::{self, Action, Scope};
use crate::tui::palette::{self, Choice, Palette};
use crate::tui::{event::written, view};

/// Limit of a pasted text in bytes: several times what can be sent, so that it can be shortened.
const PASTE_MAX: usize = 4 * Content::BODY_MAX;

/// Rows by which one step of the wheel scrolls.
const WHEEL: usize = 3;

impl App {
    pub(crate) fn scope(&self) -> Scope {
        match &self.popup {
            Some(Popup::Help { .. } | Popup::Servers { .. } | Popup::Text { .. }) => Scope::Reading,
            Some(Popup::Palette(_) | Popup::Welcome { .. } | Popup::Invitation { .. }) => Scope::Asking,
            Some(Popup::Question(_)) => Scope::Question,
            None if self.search.as_ref().is_some_and(|search| search.typing) => Scope::Asking,
            None => match self.focus {
                Focus::Writing => Scope::Writing,
                Focus::List => Scope::List,
                Focus::Places => Scope::Places,
            },
        }
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let away = !self.window_focused || self.now.since_start - self.last_key >= super::PRESENT;
        self.last_key = self.now.since_start;
        if away && self.follows_end() {
            self.after_move();
        }
        self.keys += 1;
        let scope = self.scope();
        if view::is_too_small(self) && keys::lookup(scope, &key) != Some(Action::Quit) {
            return;
        }
        match keys::lookup(scope, &key) {
            Some(_) if keys::is_typed_on(&key) && self.is_stray() => self.tell_of_question(),
            Some(action) => self.act(scope, action, key),
            None => self.on_text(key),
        }
        self.read_seen();
    }

    /// Handles a key without an action, which is text.
    fn on_text(&mut self, key: KeyEvent) {
        match &mut self.popup {
            Some(Popup::Palette(palette)) => {
                palette.input.input(key);
                palette.selected = 0;
            }
            Some(Popup::Welcome { input, wrong } | Popup::Invitation { input, wrong }) => {
                input.input(key);
                *wrong = None;
            }
            Some(Popup::Question(_)) => {
                if keys::is_character(&key) {
                    self.tell_of_question();
                }
            }
            // What is read makes room for the text that a letter begins or continues.
            Some(Popup::Help { .. } | Popup::Servers { .. } | Popup::Text { .. }) => {
                if keys::is_character(&key) {
                    self.popup = self.under.take();
                    match self.popup {
                        Some(_) => self.on_text(key),
                        None => self.write(key, true),
                    }
                }
            }
            None => match &mut self.search {
                Some(search) if search.typing => {
                    search.input.input(key);
                    self.find(true, true);
                }
                // Without a text there is nothing else whose end it could be.
                _ if key.code == KeyCode::End && self.compose.is_empty() => self.show_newest(),
                _ if self.focus == Focus::Writing
                    || keys::is_character(&key)
                    || key.code == KeyCode::Backspace =>
                {
                    self.write(key, self.focus != Focus::Writing);
                }
                _ => {}
            },
        }
    }

    /// Passes a key to the text, wherever the focus was. `by_keys` is true if it was where keys move.
    fn write(&mut self, key: KeyEvent, by_keys: bool) {
        if self.compose.is_empty() {
            self.by_keys = by_keys;
        }
        self.focus = Focus::Writing;
        self.compose.input(key);
        self.completion = 0;
    }

    pub(super) fn on_paste(&mut self, text: &str) {
        if view::is_too_small(self) {
            return;
        }
        self.keys += 1;
        self.last_key = self.now.since_start;
        if text.len() > PASTE_MAX {
            let (has, most) = (text.len(), Content::BODY_MAX);
            return self.trouble(format!("not pasted: it has {has} bytes, and a text has at most {most}"));
        }
        match &mut self.popup {
            Some(Popup::Palette(palette)) => palette.input.paste(text),
            Some(Popup::Welcome { input, .. } | Popup::Invitation { input, .. }) => input.paste(text),
            Some(Popup::Question(_)) => self.tell_of_question(),
            Some(Popup::Help { .. }) if self.under.is_some() => {
                self.popup = self.under.take();
                self.on_paste(text);
            }
            Some(Popup::Help { .. } | Popup::Servers { .. } | Popup::Text { .. }) | None => {
                match &mut self.search {
                    Some(search) if search.typing && self.popup.is_none() => {
                        search.input.paste(text);
                        self.find(true, true);
                    }
                    _ => {
                        self.popup = None;
                        self.focus = Focus::Writing;
                        self.compose.paste(text);
                        self.completion = 0;
                    }
                }
            }
        }
    }

    pub(super) fn on_resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        if self.focus == Focus::Places && view::areas(self).side.is_none() {
            self.focus = Focus::Writing;
        }
        if let (Focus::List, Some(op)) = (self.focus, self.position.selected)
            && let Some(at) = self.log(&self.here).and_then(|log| log.position(op).ok())
            && self.position.anchor.is_some()
        {
            self.select(at);
        }
    }

    pub(super) fn on_focus(&mut self, focused: bool) {
        self.window_focused = focused;
        if focused {
            self.last_key = self.now.since_start;
            self.after_move();
            self.refresh_places(super::REFRESH_LEAST);
            self.renew_own();
        } else {
            // Notifications that arrive while the window has no focus are marked as new.
            let here = self.here.clone();
            self.mark_seen(&here);
        }
    }

    fn act(&mut self, scope: Scope, action: Action, key: KeyEvent) {
        match action {
            // Ctrl+C at the question whether to leave is a yes.
            Action::Quit if self.asks_whether_to_leave() => self.leave_screen(),
            Action::Quit => self.quit(),
            Action::Repaint => self.effects.push(Effect::Repaint),
            Action::Suspend => self.effects.push(Effect::Suspend),
            // Without a name, the user can only enter one.
            _ if matches!(self.popup, Some(Popup::Welcome { .. })) => match action {
                Action::Accept => self.accept_name(),
                Action::Help => self.popup_help(),
                _ => {}
            },
            _ if matches!(self.popup, Some(Popup::Invitation { .. })) => match action {
                Action::Accept => self.accept_code(),
                Action::Help => self.popup_help(),
                Action::Leave => self.leave_invitation(),
                _ => {}
            },
            // Only the help may stand over the prompt for a name or a code.
            Action::Servers | Action::Palette if self.under.is_some() => {}
            _ if scope == Scope::Question => self.act_question(action),
            Action::Help => self.popup_help(),
            Action::Servers => match self.popup {
                Some(Popup::Servers { .. }) => self.popup = None,
                _ => self.popup = Some(Popup::Servers { scroll: 0 }),
            },
            Action::Palette => self.open_palette(palette::JUMP, |_| true),
            _ => match scope {
                Scope::Reading => self.act_reading(action),
                Scope::Asking => self.act_asking(action),
                Scope::Everywhere | Scope::Question | Scope::Writing | Scope::List | Scope::Places => {
                    self.act_here(scope, action, key);
                }
            },
        }
    }

    fn act_here(&mut self, scope: Scope, action: Action, key: KeyEvent) {
        match action {
            Action::FocusNext => self.step_focus(true),
            Action::FocusBack => self.step_focus(false),
            Action::PlaceNext => self.step_place(true, |_, _| true),
            Action::PlaceBack => self.step_place(false, |_, _| true),
            Action::PlaceUnread => {
                self.step_place(true, |app, place| place.topic().is_some() && app.places.unread(place) > 0)
            }
            Action::PageUp => self.scroll_page(true),
            Action::PageDown => self.scroll_page(false),
            Action::Send => self.on_enter(),
            Action::NewLine => self.compose.new_line(),
            Action::Complete => self.complete(),
            Action::EarlierText if self.steps_completion() => self.step_completion(false),
            Action::LaterText if self.steps_completion() => self.step_completion(true),
            Action::EarlierText if self.compose.at_edge(true) => {
                let to = self.target();
                self.compose.earlier(&to);
                self.completion = 0;
            }
            Action::LaterText if self.compose.at_edge(false) => {
                let to = self.target();
                self.compose.later(&to);
                self.completion = 0;
            }
            Action::EarlierText | Action::LaterText => self.compose.input(key),
            Action::Leave => self.leave(),
            Action::Command => {
                self.focus = Focus::Writing;
                self.compose.begin_command();
            }
            Action::Search => self.search_on(),
            Action::FoundBack => self.find_or_tell(false, false),
            Action::Open => self.open_selected(),
            Action::Copy => self.copy(),
            Action::Browse => self.browse(),
            Action::Reply => self.reply(),
            Action::Write => self.focus = Focus::Writing,
            Action::Mute => self.mute_here(),
            Action::Up | Action::Down => match scope {
                Scope::Places => self.step_place(action == Action::Down, |_, _| true),
                _ => self.step_selection(action == Action::Down),
            },
            Action::First | Action::Last => match scope {
                Scope::Places if key.modifiers.is_empty() => self.edge_place(action == Action::First),
                Scope::List => self.edge(action == Action::First),
                _ => self.show_newest(),
            },
            Action::Quit
            | Action::Help
            | Action::Servers
            | Action::Palette
            | Action::Repaint
            | Action::Suspend
            | Action::Accept
            | Action::Yes
            | Action::No => {}
        }
    }

    fn act_reading(&mut self, action: Action) {
        let page = usize::from(self.size.1 / 2).max(1);
        let Some(scroll) = self.popup.as_mut().and_then(Popup::scroll_mut) else { return };
        *scroll = match action {
            Action::Up => scroll.saturating_sub(1),
            Action::Down => *scroll + 1,
            Action::PageUp => scroll.saturating_sub(page),
            Action::PageDown => *scroll + page,
            Action::First => 0,
            Action::Last => usize::MAX,
            Action::Leave => return self.popup = self.under.take(),
            _ => *scroll,
        };
        let most = view::reading_rows(self);
        if let Some(scroll) = self.popup.as_mut().and_then(Popup::scroll_mut) {
            *scroll = (*scroll).min(most);
        }
    }

    fn act_asking(&mut self, action: Action) {
        if let Some(Popup::Palette(palette)) = &mut self.popup {
            match action {
                Action::Up => palette.step(false),
                Action::Down => palette.step(true),
                Action::Accept => {
                    let chosen = palette.chosen();
                    self.popup = None;
                    if let Some(place) = chosen {
                        self.go(place);
                        self.focus = Focus::Writing;
                    }
                }
                Action::Leave => self.popup = None,
                _ => {}
            }
            return;
        }
        match action {
            Action::Up | Action::Search => self.find_or_tell(true, false),
            Action::Down => self.find_or_tell(false, false),
            Action::Accept => {
                let found = self.find(true, true).is_some();
                if let Some(search) = &mut self.search {
                    search.typing = false;
                }
                if self.wanted().is_none() {
                    self.search = None;
                } else if !found {
                    self.find_or_tell(true, true);
                }
            }
            Action::Leave => self.leave(),
            _ => {}
        }
    }

    fn popup_help(&mut self) {
        match self.popup {
            Some(Popup::Help { .. }) => self.popup = self.under.take(),
            _ => {
                let asks =
                    |popup: &mut Popup| matches!(popup, Popup::Welcome { .. } | Popup::Invitation { .. });
                self.under = self.popup.take_if(asks);
                self.popup = Some(Popup::Help { scroll: 0 });
            }
        }
    }

    /// Leaves, after a question if a text that is not sent would be lost.
    pub(super) fn quit(&mut self) {
        // A question would replace the popup that asks for the name.
        let asks = matches!(self.popup, Some(Popup::Welcome { .. } | Popup::Invitation { .. }));
        let drafts = self.unsent_drafts();
        let text = match &drafts[..] {
            _ if asks => return self.leave_screen(),
            [] => return self.leave_screen(),
            [draft] => {
                let bytes = crate::wording::counted(draft.len() as u64, "byte");
                format!("Your text of {bytes} is not sent and would be lost.")
            }
            drafts => {
                let places = drafts.len();
                format!("Your texts at {places} places are not sent and would be lost.")
            }
        };
        let leave = ("Leave without it".to_owned(), Yes::Effect(Effect::Quit));
        self.ask(Question::new("Leave?".to_owned(), text, leave, "Stay"));
    }

    pub(super) fn leave_screen(&mut self) {
        self.write_down();
        self.effects.push(Effect::Quit);
    }

    fn step_focus(&mut self, next: bool) {
        let has_side = view::areas(self).side.is_some();
        let order = [Focus::Writing, Focus::List, Focus::Places];
        let count = if has_side { 3 } else { 2 };
        let at = order.iter().position(|focus| *focus == self.focus).unwrap_or(0);
        let step = if next { 1 } else { count - 1 };
        match order[(at + step) % count] {
            Focus::List => self.focus_list(),
            other => self.focus = other,
        }
    }

    /// Closes what was opened over the text: a search, the list, a command. The text itself stays.
    pub(super) fn leave(&mut self) {
        if self.search.take().is_some() || self.focus != Focus::Writing {
            self.focus = Focus::Writing;
        } else if self.compose.command().is_some() {
            // A text may be part of it, so the Up key brings it back.
            self.take_line();
        }
    }

    fn mute_here(&mut self) {
        let topic = match self.focus {
            Focus::List => self.selected().map(|one| one.topic.clone()),
            Focus::Writing | Focus::Places => self.here.topic().cloned(),
        };
        match topic {
            Some(topic) => self.toggle_mute(&topic),
            None => self.notice("everything cannot be muted; choose a topic"),
        }
    }

    pub(super) fn toggle_mute(&mut self, topic: &Topic) {
        let muted = self.places.toggle_mute(topic);
        let name = written(topic);
        self.notice(if muted { format!("{name} is muted") } else { format!("{name} is no longer muted") });
        self.must_keep();
    }

    // ---- the palette

    pub(super) fn open_palette(&mut self, title: &'static str, wanted: fn(&Conversation) -> bool) {
        for listing in [Listing::Channels, Listing::People] {
            if self.connection.is_served() {
                self.effects.push(Effect::List(listing));
            }
        }
        let palette = Palette::new(title, wanted, self.choices());
        self.popup = Some(Popup::Palette(palette));
    }

    /// Updates an open palette after a list has arrived.
    pub(super) fn refresh_palette(&mut self) {
        let choices = self.choices();
        if let Some(Popup::Palette(palette)) = &mut self.popup {
            palette.offer(choices);
        }
    }

    /// All places to jump to, the followed ones first.
    fn choices(&self) -> Vec<Choice> {
        let me = self.profile.as_ref();
        let mut choices: Vec<Choice> = Vec::new();
        let mut add = |place: Conversation, note: String| {
            if !choices.iter().any(|choice| choice.place == place) {
                choices.push(Choice { label: place.label(me), note, place });
            }
        };
        for (_, place) in self.rows() {
            let unread = self.places.unread(&place);
            let note = if unread > 0 { format!("{unread} unread") } else { String::new() };
            add(place, note);
        }
        for Channel { name, followers, .. } in &self.channels {
            let note = crate::wording::counted(*followers, "follower");
            add(Conversation::Topic(Topic::Channel(name.clone())), note);
        }
        for name in &self.people {
            add(Conversation::Topic(Topic::Feed(name.clone())), String::new());
        }
        choices
    }

    /// Names for the completion of commands: of the lists of the servers, and of what is followed.
    pub(crate) fn names(&self, people: bool, channels: bool) -> Vec<String> {
        let followed = self.places.rows([]).into_iter().filter_map(|(_, place)| match place {
            Conversation::Topic(Topic::Feed(name)) => Some(Topic::Feed(name)),
            Conversation::Topic(topic @ Topic::Channel(_)) => Some(topic),
            Conversation::Topic(Topic::Inbox(_)) | Conversation::All => None,
        });
        let listed_people = self.people.iter().cloned().map(Topic::Feed);
        let listed_channels = self.channels.iter().map(|channel| Topic::Channel(channel.name.clone()));
        let mut names = Vec::new();
        for topic in listed_people.chain(listed_channels).chain(followed) {
            let wanted = match &topic {
                Topic::Feed(name) => people && Some(name) != self.profile.as_ref(),
                Topic::Channel(_) => channels,
                Topic::Inbox(_) => false,
            };
            let name = written(&topic);
            if wanted && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    // ---- the mouse

    pub(super) fn on_mouse(&mut self, mouse: MouseEvent) {
        if view::is_too_small(self) {
            return;
        }
        let areas = view::areas(self);
        let cell = Cell::new(mouse.column, mouse.row);
        let up = mouse.kind == MouseEventKind::ScrollUp;
        match mouse.kind {
            MouseEventKind::ScrollUp | MouseEventKind::ScrollDown => match &mut self.popup {
                Some(Popup::Palette(palette)) => palette.step(!up),
                Some(_) => self.act_reading(if up { Action::Up } else { Action::Down }),
                None if areas.side.is_some_and(|side| side.contains(cell)) => {
                    self.step_place(!up, |_, _| true);
                }
                None => self.scroll(up, WHEEL),
            },
            MouseEventKind::Down(MouseButton::Left) => {
                self.last_key = self.now.since_start;
                if self.popup.is_some() {
                    return;
                }
                if let Some(side) = areas.side.filter(|side| side.contains(cell)) {
                    if let Some(place) = view::side::place_at(self, side, mouse.row) {
                        self.go(place);
                    }
                } else if areas.list.contains(cell) {
                    if let Some(at) = view::list::item_at(self, areas.list, mouse.row) {
                        self.focus = Focus::List;
                        self.select(at);
                    }
                } else if areas.compose.contains(cell) {
                    self.focus = Focus::Writing;
                }
            }
            _ => {}
        }
    }
}
