//! A Rust source as the rules see it: without comments, without the contents of literals, and without the
//! items that only tests compile. Every byte keeps its position, so lines keep their numbers.
//!
//! It is not a parser. It knows nested comments, escapes, raw strings, that a lifetime is not a character,
//! that `#[cfg(test)]` belongs to the item after it, and how `use` groups expand.

/// One prepared file.
pub(crate) struct Source {
    /// The path from the repository's root, with `/`.
    pub(super) path: String,
    /// The original text.
    pub(crate) text: String,
    /// The text with spaces in place of comments and the contents of literals.
    pub(super) code: String,
    /// As `code`, with spaces in place of items under `#[cfg(test)]` too.
    pub(crate) shipped: String,
    /// The modules that `#[cfg(test)] mod name;` declares. Their files are tests.
    pub(super) test_modules: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = without_comments_and_literals(text);
        let (shipped, test_modules) = without_test_items(&code);
        Source { path: path.to_owned(), text: text.to_owned(), code, shipped, test_modules }
    }

    /// Returns the files and folders of the modules in [`Source::test_modules`].
    pub(super) fn test_files(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let home = if matches!(name, "mod" | "lib" | "main") { folder } else { stem };
        let files = |module: &String| [format!("{home}/{module}.rs"), format!("{home}/{module}/")];
        self.test_modules.iter().flat_map(files).collect()
    }
}

/// The line of a byte, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn in_identifier(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Returns the positions of `word` in `code` where it is not a part of a longer identifier.
pub(crate) fn places_of(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let before = |at: usize| at.checked_sub(1).is_some_and(|at| in_identifier(bytes[at]));
    let after = |at: usize| bytes.get(at + word.len()).is_some_and(|byte| in_identifier(*byte));
    let ends_in_identifier = word.bytes().last().is_some_and(in_identifier);
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| !(before(*at) || ends_in_identifier && after(*at)))
        .collect()
}

/// Returns every path that starts with `root::`, with groups expanded and with its position: `use std::{fs,
/// time::Instant}` gives `std::fs` and `std::time::Instant`.
pub(super) fn paths_from(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for at in places_of(code, root) {
        let after = at + root.len();
        let preceded = code.as_bytes()[..at].ends_with(b"::");
        if code[after..].starts_with("::") && !preceded {
            unfold(code, after + 2, root, &mut paths);
        }
    }
    paths
}

/// Reads one use-tree that starts at `at` under `prefix`, and returns its end.
fn unfold(code: &str, at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
    let bytes = code.as_bytes();
    let blank = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let mut at = blank(at);
    if bytes.get(at) == Some(&b'{') {
        at = blank(at + 1);
        while bytes.get(at).is_some_and(|byte| *byte != b'}') {
            at = blank(unfold(code, at, prefix, paths));
            while bytes.get(at).is_some_and(|byte| !matches!(byte, b',' | b'}')) {
                at += 1; // `as name`
            }
            if bytes.get(at) == Some(&b',') {
                at = blank(at + 1);
            }
        }
        return at + 1;
    }
    let start = at;
    while bytes.get(at).is_some_and(|byte| in_identifier(*byte) || *byte == b'*') {
        at += 1;
    }
    let name = &code[start..at];
    let path = if name == "self" { prefix.to_owned() } else { format!("{prefix}::{name}") };
    let more = code[at..].starts_with("::")
        && bytes.get(at + 2).is_some_and(|byte| in_identifier(*byte) || matches!(byte, b'{' | b'*'));
    if more {
        return unfold(code, at + 2, &path, paths);
    }
    paths.push((start, path));
    at.max(start + 1)
}

/// Returns the length of the literal or comment at `at` in bytes, and the number of bytes at each end that
/// are its delimiters and stay.
fn passage(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    let bytes = rest.as_bytes();
    if rest.starts_with("//") {
        return Some((rest.find('\n').unwrap_or(rest.len()), 0));
    }
    if rest.starts_with("/*") {
        let (mut depth, mut end) = (0_usize, 0);
        while end < bytes.len() {
            match &bytes[end..] {
                [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
                [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
                _ => end += 1,
            }
            if depth == 0 {
                break;
            }
        }
        return Some((end, 0));
    }
    let quoted = |quote: u8| {
        let mut end = 1;
        while end < bytes.len() && bytes[end] != quote {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        Some(((end + 1).min(bytes.len()), 1))
    };
    match bytes[0] {
        b'"' => quoted(b'"'),
        b'\'' => {
            let mut chars = rest.char_indices().skip(1);
            let (_, first) = chars.next()?;
            let closed = chars.next().is_some_and(|(_, second)| second == '\'');
            if first == '\\' || closed { quoted(b'\'') } else { None }
        }
        b'r' => {
            let starts_a_token = at.checked_sub(1).is_none_or(|before| {
                let before = text.as_bytes()[before];
                !in_identifier(before) || matches!(before, b'b' | b'c')
            });
            let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
            if !starts_a_token || bytes.get(1 + hashes) != Some(&b'"') {
                return None;
            }
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            let end = rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len());
            Some((end, 0))
        }
        _ => None,
    }
}

fn without_comments_and_literals(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    let mut at = 0;
    while at < text.len() {
        if !text.is_char_boundary(at) {
            at += 1;
            continue;
        }
        match passage(text, at) {
            Some((length, marks)) => {
                let end = (at + length).min(code.len());
                blank(&mut code, at + marks, end.saturating_sub(marks));
                at = end.max(at + 1);
            }
            None => at += 1,
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn blank(code: &mut [u8], from: usize, to: usize) {
    for byte in code.iter_mut().take(to).skip(from) {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Blanks each item under `#[cfg(test)]` or `#[cfg(all(test, ...))]`, and returns the modules declared that
/// way.
fn without_test_items(code: &str) -> (String, Vec<String>) {
    let mut shipped = code.as_bytes().to_vec();
    let mut modules = Vec::new();
    let marks = code.match_indices("#[cfg(test)]").chain(code.match_indices("#[cfg(all(test"));
    for (at, _) in marks {
        let end = end_of_item(code, at);
        let item = &code[at..end];
        if let Some(rest) = item.split("mod ").nth(1).filter(|_| item.ends_with(';')) {
            modules.push(rest.trim_end_matches(';').trim().to_owned());
        }
        blank(&mut shipped, at, end);
    }
    (String::from_utf8_lossy(&shipped).into_owned(), modules)
}

/// Returns the end of the item whose attribute starts at `at`: its `;`, or its closing brace.
fn end_of_item(code: &str, at: usize) -> usize {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for (offset, byte) in code[at..].bytes().enumerate() {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => curly += 1,
            b'}' => curly -= 1,
            _ => continue,
        }
        if byte == b'}' && curly == 0 && round == 0 {
            return at + offset + 1;
        }
        if curly == 0 && round == 0 && matches!(byte, b')' | b']') {
            let rest = code[at + offset + 1..].trim_start();
            if rest.starts_with(';') {
                return at + offset + 1 + code[at + offset + 1..].find(';').unwrap_or(0) + 1;
            }
        }
        if curly == 0 && round == 0 {
            // A declaration such as `mod tests;` has no bracket of its own.
            let rest = &code[at + offset + 1..];
            let semicolon = rest.find(';');
            let bracket = rest.find(['{', '(', '[']);
            if let Some(end) = semicolon.filter(|end| bracket.is_none_or(|bracket| *end < bracket)) {
                return at + offset + 1 + end + 1;
            }
        }
    }
    code.len()
}
