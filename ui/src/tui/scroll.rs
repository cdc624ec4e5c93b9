//! Scroll position in a list of items of different heights.
//!
//! The position is an anchor: the item at the lower edge of the window, and how many of its rows lie below
//! the edge. No step needs the height of the whole list; each looks only at the items of about one window.

/// The item at the lower edge, and the number of its rows below the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) item: usize,
    pub(crate) hidden: usize,
}

/// The dimensions of a list that scrolling needs.
pub(crate) struct Items<F> {
    pub(crate) len: usize,
    /// Height of the window, in rows.
    pub(crate) page: usize,
    /// Height of an item in rows, at least one.
    pub(crate) height: F,
}

impl<F: Fn(usize) -> usize> Items<F> {
    /// The anchor at the end of the list.
    pub(crate) fn end(&self) -> Anchor {
        Anchor { item: self.len.saturating_sub(1), hidden: 0 }
    }

    /// The anchor at the beginning of the list: the window is filled from the first item on.
    pub(crate) fn begin(&self) -> Anchor {
        self.top(0)
    }

    /// The anchor with this item's first row at the upper edge, if the items after it fill the window.
    /// Otherwise the end.
    pub(crate) fn top(&self, item: usize) -> Anchor {
        let mut rows = 0;
        for item in item..self.len {
            rows += (self.height)(item);
            if rows >= self.page {
                return Anchor { item, hidden: rows - self.page };
            }
        }
        self.end()
    }

    /// Moves the anchor up by `rows`, not beyond the beginning.
    pub(crate) fn up(&self, from: Anchor, rows: usize) -> Anchor {
        let mut anchor = Anchor { item: from.item, hidden: from.hidden + rows };
        loop {
            let height = (self.height)(anchor.item);
            if anchor.hidden < height || self.len == 0 {
                break;
            }
            if anchor.item == 0 {
                return self.begin();
            }
            anchor = Anchor { item: anchor.item - 1, hidden: anchor.hidden - height };
        }
        if self.rows_down_to(anchor) < self.page { self.begin() } else { anchor }
    }

    /// Moves the anchor down by `rows`. `None` means the end of the list.
    pub(crate) fn down(&self, from: Anchor, rows: usize) -> Option<Anchor> {
        let mut anchor = from;
        let mut rows = rows;
        while rows > anchor.hidden {
            rows -= anchor.hidden;
            anchor.item += 1;
            if anchor.item >= self.len {
                return None;
            }
            anchor.hidden = (self.height)(anchor.item);
        }
        anchor.hidden -= rows;
        (anchor != self.end()).then_some(anchor)
    }

    /// Moves the anchor no further than needed to show `item` as a whole, or its beginning if it is higher
    /// than the window.
    pub(crate) fn show(&self, from: Anchor, item: usize) -> Anchor {
        if item > from.item || (item == from.item && from.hidden > 0) {
            if (self.height)(item) >= self.page {
                return self.top(item);
            }
            return Anchor { item, hidden: 0 };
        }
        let first = self.first(from);
        if item < first.item || (item == first.item && first.hidden > 0) { self.top(item) } else { from }
    }

    /// The first item in the window, and the number of its rows above the upper edge.
    pub(crate) fn first(&self, anchor: Anchor) -> Anchor {
        let mut rows = 0;
        for item in (0..=anchor.item).rev() {
            let hidden = if item == anchor.item { anchor.hidden } else { 0 };
            rows += (self.height)(item).saturating_sub(hidden);
            if rows >= self.page {
                return Anchor { item, hidden: rows - self.page };
            }
        }
        Anchor { item: 0, hidden: 0 }
    }

    /// Number of rows from the beginning to the anchor. Counting stops at the height of the window.
    fn rows_down_to(&self, anchor: Anchor) -> usize {
        let mut rows = 0;
        for item in (0..=anchor.item).rev() {
            let hidden = if item == anchor.item { anchor.hidden } else { 0 };
            rows += (self.height)(item).saturating_sub(hidden);
            if rows >= self.page {
                break;
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(len: usize, page: usize) -> Items<impl Fn(usize) -> usize> {
        Items { len, page, height: |item| item % 3 + 1 }
    }

    fn at(item: usize, hidden: usize) -> Anchor {
        Anchor { item, hidden }
    }

    #[test]
    fn up_and_down_by_rows_are_each_others_inverse() {
        let items = items(100, 10);
        let mut anchor = items.end();
        for _ in 0..50 {
            let up = items.up(anchor, 1);
            assert_eq!(items.down(up, 1).unwrap_or(items.end()), anchor);
            anchor = up;
        }
    }

    #[test]
    fn nothing_scrolls_beyond_the_beginning_or_the_end() {
        let list = items(100, 10);
        assert_eq!(list.up(list.end(), 10_000), list.begin());
        assert_eq!(list.begin(), at(5, 2), "1 + 2 + 3 + 1 + 2 + 3 rows, two of them below the edge");
        assert_eq!(list.down(list.begin(), 10_000), None);
        let short = items(2, 10);
        assert_eq!(short.up(short.end(), 5), short.end());
        let none = items(0, 10);
        assert_eq!(none.up(none.end(), 5), none.end());
    }

    #[test]
    fn showing_an_item_moves_no_more_than_needed() {
        let items = items(100, 10);
        let end = items.end();
        assert_eq!(items.show(end, 98), end);
        assert_eq!(items.first(items.show(end, 50)), at(50, 0));
        let up = items.show(end, 50);
        assert_eq!(items.show(up, 99), end);
        let high = Items { len: 3, page: 5, height: |_| 20 };
        assert_eq!(high.first(high.show(high.end(), 1)), at(1, 0), "its beginning shows");
    }
}
