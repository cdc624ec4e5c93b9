//! The sources with every mutant in them, each behind its number.
//!
//! Mutants are only inserted within a line, so every line keeps its number: `a < b` becomes
//! `crate::mutant_binary!([17 <=, 18 >], <, a, b)`, and so on inwards.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::sites::{self, Shape, Site};

/// One mutant.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    /// The value of `RECADO_MUTANT` that activates it.
    pub(crate) number: u32,
    /// The number of the first mutant at its place.
    pub(crate) place: u32,
    /// The path of the file from the repository's root.
    pub(crate) path: String,
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The name of the function around it.
    pub(crate) function: String,
    /// The original code, on one line.
    pub(crate) original: String,
    /// The code that replaces it.
    pub(crate) instead: String,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutant { number, path, line, function, original, instead, .. } = self;
        write!(f, "{number} {path}:{line} {function}: {original} => {instead}")
    }
}

/// A source with its sites, each with the number of its first mutant.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) sites: Vec<(u32, Site)>,
}

/// All mutants and their sources.
#[derive(Debug)]
pub(crate) struct Planted {
    pub(crate) mutants: Vec<Mutant>,
    /// The sources, by path from the repository's root.
    pub(crate) sources: BTreeMap<String, Source>,
}

/// Finds the mutants of these files and of every file of these folders, except test files.
pub(crate) fn all(root: &Path, modules: &[&str], only: &str) -> Result<Planted> {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "--"]).args(modules).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let mut planted = Planted { mutants: Vec::new(), sources: BTreeMap::new() };
    // 0 activates no mutant.
    let mut number = 1;
    for path in listed.lines().filter(|path| path.ends_with(".rs") && path.starts_with(only)) {
        let tests = ["/tests.rs", "/tests/", "/properties.rs"];
        if tests.iter().any(|part| path.contains(part)) {
            continue;
        }
        let text = std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
        let mut numbered = Vec::new();
        for site in sites::of(&text).with_context(|| path.to_owned())? {
            let place = number;
            numbered.push((place, site.clone()));
            for instead in &site.instead {
                planted.mutants.push(Mutant {
                    number,
                    place,
                    path: path.to_owned(),
                    line: 1 + text[..site.range.start].matches('\n').count(),
                    function: site.function.clone(),
                    original: shown(&text, &site),
                    instead: instead.split_whitespace().collect::<Vec<_>>().join(" "),
                });
                number += 1;
            }
        }
        planted.sources.insert(path.to_owned(), Source { text, sites: numbered });
    }
    Ok(planted)
}

fn shown(text: &str, site: &Site) -> String {
    match site.shape {
        Shape::Body => "(body)".to_owned(),
        _ => text[site.range.clone()].split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// A rewritten source, and the position of each site in it.
pub(crate) struct Rewritten {
    pub(crate) text: String,
    /// The range of bytes in `text`, the number of the site's first mutant, and the number of its mutants.
    pub(crate) places: Vec<(Range<usize>, u32, u32)>,
}

/// Rewrites a source with its sites, except those in `without`.
pub(crate) fn rewrite(source: &Source, without: &dyn Fn(u32) -> bool) -> Rewritten {
    // At equal positions an outer site opens before an inner one, and closes after it.
    let mut edits: Vec<(usize, Order, Edit)> = Vec::new();
    for (depth, (number, site)) in source.sites.iter().enumerate() {
        if !without(*number) {
            edits_of(&source.text, *number, site, depth, &mut edits);
        }
    }
    edits.sort_by_key(|edit| (edit.0, edit.1));
    let mut text = String::new();
    let (mut at, mut open, mut places) = (0, BTreeMap::new(), Vec::new());
    for (place, _, edit) in edits {
        text.push_str(&source.text[at..place.max(at)]);
        at = at.max(place + edit.replaces);
        match edit.what {
            EditKind::Open(number, count) => {
                open.insert(number, (text.len(), count));
                text.push_str(&edit.text);
            }
            EditKind::Middle => text.push_str(&edit.text),
            EditKind::Close(number) => {
                text.push_str(&edit.text);
                if let Some((from, count)) = open.remove(&number) {
                    places.push((from..text.len(), number, count));
                }
            }
        }
    }
    text.push_str(&source.text[at..]);
    Rewritten { text, places }
}

/// Closings first (inner before outer), then openings (outer before inner).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Close(std::cmp::Reverse<usize>),
    Open(usize),
}

struct Edit {
    what: EditKind,
    text: String,
    /// The number of original bytes that it replaces.
    replaces: usize,
}

enum EditKind {
    Open(u32, u32),
    Middle,
    Close(u32),
}

fn edits_of(text: &str, first: u32, site: &Site, depth: usize, edits: &mut Vec<(usize, Order, Edit)>) {
    let count = site.instead.len() as u32;
    let cases: Vec<String> =
        (first..).zip(&site.instead).map(|(number, instead)| format!("{number} {instead}")).collect();
    let cases = cases.join(", ");
    let (open, middle) = match &site.shape {
        Shape::Binary(op) => {
            let operator = &text[op.clone()];
            (format!("crate::mutant_binary!([{cases}], {operator}, "), Some((op.clone(), ",")))
        }
        Shape::Not(op) => (format!("crate::mutant_not!({first}, "), Some((op.clone(), ""))),
        Shape::Value => (format!("crate::mutant_value!([{cases}], "), None),
        Shape::Statement => (format!("if crate::mutants::active({first}) != {first} {{ "), None),
        Shape::Body => (String::new(), None),
    };
    let close = match &site.shape {
        Shape::Statement => " }".to_owned(),
        Shape::Body => {
            let each = (first..).zip(&site.instead);
            each.map(|(number, value)| {
                format!(" if crate::mutants::active({first}) == {number} {{ return {value}; }}")
            })
            .collect()
        }
        _ => ")".to_owned(),
    };
    let opening = Edit { what: EditKind::Open(first, count), text: open, replaces: 0 };
    edits.push((site.range.start, Order::Open(2 * depth), opening));
    if let Some((op, text)) = middle {
        let edit = Edit { what: EditKind::Middle, text: text.to_owned(), replaces: op.len() };
        edits.push((op.start, Order::Open(2 * depth), edit));
    }
    let order = match site.shape {
        // A body has no inner range: it opens and closes after the brace, before any site that opens there.
        Shape::Body => Order::Open(2 * depth + 1),
        _ => Order::Close(std::cmp::Reverse(depth)),
    };
    let closing = Edit { what: EditKind::Close(first), text: close, replaces: 0 };
    edits.push((site.range.end, order, closing));
}

/// The code that the rewritten sources call. It is appended to the library's root.
pub(crate) const RUNTIME: &str = r#"
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub)]
pub mod mutants {
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The number of the mistake to make, at the place of this number and those that follow.
    pub fn active(place: u32) -> u32 {
        static ACTIVE: LazyLock<u32> = LazyLock::new(|| {
            std::env::var("RECADO_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
        });
        static SEEN: [AtomicBool; 1 << 14] = [const { AtomicBool::new(false) }; 1 << 14];
        static REACHED: LazyLock<Option<std::fs::File>> = LazyLock::new(|| {
            let path = std::env::var_os("RECADO_REACHED")?;
            std::fs::OpenOptions::new().append(true).open(path).ok()
        });
        if let Some(mut reached) = REACHED.as_ref()
            && !SEEN[place as usize].swap(true, Ordering::Relaxed)
        {
            // One write a line: other threads write their own.
            let _ = reached.write_all(format!("{place}\n").as_bytes());
        }
        *ACTIVE
    }
}
#[doc(hidden)]
#[macro_export]
macro_rules! mutant_binary {
    ([$first:literal $instead:tt $(, $number:literal $other:tt)*], $op:tt, $left:expr, $right:expr) => {
        (match $crate::mutants::active($first) {
            $first => $left $instead $right,
            $($number => $left $other $right,)*
            _ => $left $op $right
        })
    };
}
#[doc(hidden)]
#[macro_export]
macro_rules! mutant_not {
    ($number:literal, $value:expr) => {
        (match $crate::mutants::active($number) { $number => $value, _ => !$value })
    };
}
#[doc(hidden)]
#[macro_export]
macro_rules! mutant_value {
    ([$first:literal $instead:expr $(, $number:literal $other:expr)*], $value:expr) => {
        (match $crate::mutants::active($first) {
            $first => $instead,
            $($number => $other,)*
            _ => $value
        })
    };
}
"#;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let mut number = 1;
        let mut sites = Vec::new();
        for site in sites::of(text).unwrap() {
            let count = site.instead.len() as u32;
            sites.push((number, site));
            number += count;
        }
        rewrite(&Source { text: text.to_owned(), sites }, &|_| false).text
    }

    #[test]
    fn an_expression_is_given_its_mutants_from_the_outside_in() {
        assert_eq!(
            rewritten("fn f(&self) -> bool { a < b && !c }"),
            "fn f(&self) -> bool { if crate::mutants::active(1) == 1 { return true; } \
             if crate::mutants::active(1) == 2 { return false; } \
             crate::mutant_binary!([3 ||], &&, crate::mutant_binary!([4 <=, 5 >], <, a , b) , \
             crate::mutant_not!(6, c)) }"
        );
    }

    #[test]
    fn a_statement_can_be_left_out_and_what_only_tests_compile_is_left_alone() {
        assert_eq!(
            rewritten("fn f() { self.x = y; }\n#[cfg(test)]\nmod tests { fn g() { a(); } }"),
            "fn f() { if crate::mutants::active(1) == 1 { return (); } \
             if crate::mutants::active(2) != 2 { self.x = y; } }\n#[cfg(test)]\nmod tests { fn g() { a(); } }"
        );
    }

    #[test]
    fn constants_patterns_and_conditions_that_bind_have_no_room_for_one() {
        let text = "const A: u8 = 1 + 2;\nfn f() { if let 1 = a && b {} }";
        assert_eq!(
            rewritten(text),
            "const A: u8 = 1 + 2;\nfn f() { if crate::mutants::active(1) == 1 { return (); } if let 1 = a && b {} }"
        );
    }
}
