//! Symbols of the screen. None of them has an ambiguous width (Unicode annex 11), because East Asian
//! terminals draw such characters two columns wide. Each has an ASCII replacement.

/// A set of symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbols {
    /// Marks the selected item.
    pub(crate) pointer: &'static str,
    /// Marks an acknowledged notification.
    pub(crate) sent: &'static str,
    /// Marks a refused text.
    pub(crate) refused: &'static str,
    /// Marks of priorities 1 to 5; that of 3 is empty.
    pub(crate) priority: [&'static str; 5],
    /// Levels of a column of the sparkline, from empty to full.
    pub(crate) levels: [&'static str; 5],
}

pub(crate) const UNICODE: Symbols = Symbols {
    pointer: "\u{276f}",
    sent: "\u{2713}",
    refused: "\u{2717}",
    priority: ["low", "low", "", "!", "!!"],
    levels: ["\u{2800}", "\u{28c0}", "\u{28e4}", "\u{28f6}", "\u{28ff}"],
};

pub(crate) const ASCII: Symbols = Symbols {
    pointer: ">",
    sent: "ok",
    refused: "x",
    priority: ["low", "low", "", "!", "!!"],
    levels: [" ", ".", ":", "|", "#"],
};

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn every_symbol_is_as_wide_in_east_asian_terminals() {
        let Symbols { pointer, sent, refused, priority, levels } = UNICODE;
        for symbol in [pointer, sent, refused].into_iter().chain(priority).chain(levels) {
            assert_eq!(symbol.width(), symbol.width_cjk(), "{symbol}");
        }
        let Symbols { pointer, sent, refused, priority, levels } = ASCII;
        assert!([pointer, sent, refused].into_iter().chain(priority).chain(levels).all(str::is_ascii));
    }
}
