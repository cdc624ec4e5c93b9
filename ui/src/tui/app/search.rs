//! Search in the place shown.

use recado_client::{Notification, Op};

use super::App;
use crate::tui::input::Input;
use crate::tui::log::{Before, Log};

/// A search in the place shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    pub(crate) input: Input,
    /// True while the search is being typed.
    pub(crate) typing: bool,
    /// The words for which `found` holds.
    sought: String,
    /// Ops of the notifications that match, ascending.
    found: Vec<Op>,
}

impl Search {
    /// A search for these words, or one that is still to be typed.
    pub(super) fn of(words: Option<&str>) -> Search {
        let mut search = Search { typing: words.is_none(), ..Search::default() };
        search.input.paste(words.unwrap_or_default());
        search
    }

    /// Words to search for, in lower case. `None` if there are none.
    pub(crate) fn wanted(&self) -> Option<String> {
        let text = self.input.text().to_lowercase();
        (!text.trim().is_empty()).then_some(text)
    }

    /// Number of notifications that match.
    pub(crate) fn hits(&self) -> usize {
        self.found.len()
    }

    /// Position of a notification among those that match, the newest first and counted from 1.
    pub(crate) fn rank(&self, selected: Option<Op>) -> Option<usize> {
        let at = self.found.binary_search(&selected?).ok()?;
        Some(self.found.len() - at)
    }

    /// Searches the log again, if the words are others. What holds longer words holds the shorter ones too,
    /// so typing on looks only at what was found before.
    fn refresh(&mut self, log: &Log) {
        let Some(wanted) = self.wanted() else {
            self.found.clear();
            self.sought.clear();
            return;
        };
        if wanted == self.sought {
            return;
        }
        let narrows = !self.sought.is_empty() && wanted.contains(&self.sought);
        if narrows {
            let has = |op: &Op| {
                log.position(*op).is_ok_and(|at| log.get(at).is_some_and(|one| contains(one, &wanted)))
            };
            self.found.retain(has);
        } else {
            self.found = log.iter().filter(|one| contains(one, &wanted)).map(|one| one.op).collect();
        }
        self.sought = wanted;
    }

    /// Records that the log has older notifications than before, so the next step searches all of it.
    pub(super) fn is_stale(&mut self) {
        self.sought.clear();
    }

    /// Takes a notification that came after the search had begun.
    pub(super) fn came(&mut self, one: &Notification) {
        if !self.sought.is_empty()
            && contains(one, &self.sought)
            && let Err(at) = self.found.binary_search(&one.op)
        {
            self.found.insert(at, one.op);
        }
    }
}

impl App {
    pub(crate) fn wanted(&self) -> Option<String> {
        self.search.as_ref()?.wanted()
    }

    /// Brings the list of what is found up to date with the words.
    fn search_again(&mut self) {
        let log = self.logs.get(&self.here);
        if let (Some(search), Some(log)) = (&mut self.search, log) {
            search.refresh(log);
        }
    }

    /// Selects the next notification that matches the search, from the selected one on, which is visible.
    /// Without one in this direction, goes on from the other end. `including` allows the selected one itself
    /// in a search upwards. Returns whether it went on from the other end; none if nothing matches.
    pub(super) fn find(&mut self, up: bool, including: bool) -> Option<bool> {
        self.search_again();
        let (search, log) = (self.search.as_ref()?, self.log(&self.here)?);
        let newest = || log.newest().map_or(Op::ZERO, |one| one.op);
        // Without a selection the search begins at the newest notification, and includes it.
        let including = including || self.position.selected.is_none();
        let from = self.position.selected.unwrap_or_else(newest);
        let below = search.found.partition_point(|op| if including { *op <= from } else { *op < from });
        let next = match up {
            true => below.checked_sub(1),
            false => Some(search.found.partition_point(|op| *op <= from)),
        };
        let next = next.and_then(|at| search.found.get(at));
        let other_end = if up { search.found.last() } else { search.found.first() };
        let at = log.position(*next.or(other_end)?).ok()?;
        let wrapped = next.is_none();
        self.select(at);
        Some(wrapped)
    }

    pub(super) fn find_or_tell(&mut self, up: bool, including: bool) {
        let before = self.position;
        let found = self.find(up, including);
        let older = self.log(&self.here).is_some_and(|log| log.before == Before::More);
        match found {
            Some(false) => {}
            // What is older comes before the other end.
            _ if up && older => {
                self.position = before;
                let here = self.here.clone();
                self.need_older(&here);
                self.notice("not found in what was fetched; fetching older ones: search again");
            }
            Some(true) if up => self.notice("nothing more above; on from the newest"),
            Some(true) => self.notice("nothing more below; on from the oldest"),
            None => self.notice("nothing found"),
        }
    }

    /// Begins a search, or goes on with the one that there is.
    pub(super) fn search_on(&mut self) {
        self.focus_list();
        match self.wanted() {
            Some(_) => self.find_or_tell(true, false),
            None => self.search = Some(Search::of(None)),
        }
    }
}

/// Returns true if a visible part of a notification contains `wanted`, which is in lower case.
fn contains(one: &Notification, wanted: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(wanted);
    let content = &one.content;
    has(&content.body.as_text())
        || content.title.as_deref().is_some_and(has)
        || has(one.author.as_str())
        || content.tags.iter().any(|tag| has(tag))
}
