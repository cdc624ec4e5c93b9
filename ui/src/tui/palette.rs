//! Palette: jumps to a place by a few letters of its name.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

use super::conversation::Conversation;
use super::input::Input;

/// Titles of the palettes.
pub(crate) const JUMP: &str = "Jump to";
pub(crate) const CHANNELS: &str = "Channels";
pub(crate) const PEOPLE: &str = "People";

/// A place to jump to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) label: String,
    /// Explanation beside the label.
    pub(crate) note: String,
    pub(crate) place: Conversation,
}

/// A choice that matches the typed text, with the indices of the matching letters in its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) choice: Choice,
    pub(crate) letters: Vec<u32>,
}

/// An open palette.
#[derive(Clone, Debug)]
pub(crate) struct Palette {
    pub(crate) title: &'static str,
    wanted: fn(&Conversation) -> bool,
    pub(crate) input: Input,
    choices: Vec<Choice>,
    pub(crate) selected: usize,
}

impl Palette {
    /// A palette of the choices whose place is `wanted`.
    pub(crate) fn new(
        title: &'static str,
        wanted: fn(&Conversation) -> bool,
        choices: Vec<Choice>,
    ) -> Palette {
        let mut palette = Palette { title, wanted, input: Input::default(), choices: vec![], selected: 0 };
        palette.offer(choices);
        palette
    }

    /// Replaces the choices.
    pub(crate) fn offer(&mut self, mut choices: Vec<Choice>) {
        choices.retain(|choice| (self.wanted)(&choice.place));
        self.choices = choices;
    }

    /// Choices that match, the best first. All choices in their order while nothing is typed.
    pub(crate) fn fits(&self) -> Vec<Fit> {
        let typed = self.input.text();
        let pattern = Pattern::parse(typed.trim(), CaseMatching::Ignore, Normalization::Smart);
        let mut matcher = Matcher::new(Config::DEFAULT);
        let mut chars = Vec::new();
        let mut fits: Vec<(u32, Fit)> = Vec::new();
        for choice in &self.choices {
            let mut letters = Vec::new();
            let label = Utf32Str::new(&choice.label, &mut chars);
            if let Some(score) = pattern.indices(label, &mut matcher, &mut letters) {
                letters.sort_unstable();
                letters.dedup();
                fits.push((score, Fit { choice: choice.clone(), letters }));
            }
        }
        fits.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        fits.into_iter().map(|(_, fit)| fit).collect()
    }

    /// Moves the selection, wrapping at the ends.
    pub(crate) fn step(&mut self, down: bool) {
        let count = self.fits().len().max(1);
        self.selected = if down { (self.selected + 1) % count } else { (self.selected + count - 1) % count };
    }

    /// Why there is nothing to choose from.
    pub(crate) fn none(&self) -> &'static str {
        match (self.title, self.choices.is_empty()) {
            (CHANNELS, true) => "there is no channel yet; /channel create #name makes one",
            (PEOPLE, true) => "nobody else is here yet",
            (CHANNELS, false) => "no channel is called so; /channel create #name makes one",
            (PEOPLE, false) => "nobody is called so",
            _ => "nothing is called so",
        }
    }

    pub(crate) fn chosen(&self) -> Option<Conversation> {
        self.fits().into_iter().nth(self.selected).map(|fit| fit.choice.place)
    }
}

#[cfg(test)]
mod tests {
    use recado_client::Topic;

    use super::*;

    fn palette() -> Palette {
        let choices = ["#deploys", "#ops", "@dora", "@bob"].map(|label| Choice {
            label: label.to_owned(),
            note: String::new(),
            place: Conversation::Topic(Topic::to_follow(label).unwrap()),
        });
        Palette::new("Jump to", |_| true, choices.into())
    }

    #[test]
    fn a_few_letters_find_it_and_are_shown() {
        let mut palette = palette();
        palette.input.paste("dpl");
        let fits = palette.fits();
        assert_eq!(fits[0].choice.label, "#deploys");
        assert_eq!(fits[0].letters, [1, 3, 4]);
        assert_eq!(palette.chosen(), Some(Conversation::Topic(Topic::to_follow("#deploys").unwrap())));
        palette.input.paste("zz");
        assert_eq!(palette.chosen(), None);
    }

    #[test]
    fn the_selection_goes_round() {
        let mut palette = palette();
        palette.step(false);
        assert_eq!(palette.selected, 3);
        palette.step(true);
        assert_eq!(palette.selected, 0);
    }

    #[test]
    fn only_what_is_wanted_is_offered_and_what_comes_later_too() {
        let all = palette().choices;
        let mut channels = Palette::new("Channels", Conversation::is_channel, all.clone());
        assert_eq!(channels.fits().len(), 2);
        channels.offer(all.into_iter().skip(1).collect());
        assert_eq!(channels.fits()[0].choice.label, "#ops");
    }
}
