//! Finds links in other users' text that a browser may open: http and https only.

/// Limit of a link's length. Nobody can check a longer one before opening it.
const LENGTH_MAX: usize = 2_000;

/// Links in a text, in order, each once.
pub(crate) fn find(text: &str) -> Vec<String> {
    let mut links: Vec<String> = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '`')) {
        let Some(at) = ["https://", "http://"].iter().filter_map(|scheme| word.find(scheme)).min() else {
            continue;
        };
        let link = word[at..].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '}', '\'']);
        let has_host = link.split("//").nth(1).is_some_and(|host| !host.is_empty());
        if has_host && link.len() <= LENGTH_MAX && link.is_ascii() && !links.iter().any(|one| one == link) {
            links.push(link.to_owned());
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_without_what_stands_around_them() {
        let text = "see https://a.example/x?y=1, (http://b.example/z) and https://a.example/x?y=1.";
        assert_eq!(find(text), ["https://a.example/x?y=1", "http://b.example/z"]);
    }

    #[test]
    fn nothing_else_is_a_link() {
        for text in
            ["file:///etc/passwd", "javascript:alert(1)", "https://", "http:// x", "https://\u{0430}.com"]
        {
            assert_eq!(find(text), [""; 0], "{text}");
        }
    }
}
