//! Title, priority and tags of a text, and the options of `/send`, which are those of `recado send`.

use recado_client::{Content, Priority, Topic};

/// What a text has besides its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) title: Option<String>,
    pub(crate) priority: Priority,
    pub(crate) tags: Vec<String>,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Fields::default()
    }

    /// The content with this body.
    pub(crate) fn content(self, body: String) -> Content {
        let Fields { title, priority, tags } = self;
        Content { title, priority, tags, body: body.into(), extra: Vec::new() }
    }

    /// The fields in one line.
    pub(crate) fn in_words(&self) -> String {
        let title = self.title.as_ref().map(|title| format!("title {title}"));
        let priority =
            (self.priority != Priority::default()).then(|| format!("priority {}", u8::from(self.priority)));
        let tags = self.tags.iter().map(|tag| format!("[{tag}]"));
        title.into_iter().chain(priority).chain(tags).collect::<Vec<_>>().join("   ")
    }
}

/// Options of `/send`.
const OPTIONS: [&str; 4] = ["--to", "--title", "--priority", "--tag"];

/// Parses a priority.
///
/// # Errors
/// A message that says which priorities there are.
pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    let number = text.parse::<u8>().ok().and_then(|number| Priority::try_from(number).ok());
    number.ok_or_else(|| format!("{text:?} is no priority: 1 (lowest) to 5 (highest)"))
}

/// Parses what stands behind `/send`: options and a topic in any order, then the text. `--` ends the options.
///
/// # Errors
/// A message that says what is wrong. Nothing that looks like an option or a topic is taken for text.
pub(crate) fn parse(typed: &str) -> Result<(Option<Topic>, Fields, String), String> {
    let (mut topic, mut fields, mut rest) = (None, Fields::default(), typed.trim());
    loop {
        let (word, after) = split(rest);
        if word == "--" {
            return Ok((topic, fields, after.to_owned()));
        } else if word.starts_with("--") {
            let (name, inline) = word.split_once('=').map_or((word, false), |(name, _)| (name, true));
            if !OPTIONS.contains(&name) {
                return Err(format!(
                    "there is no option {name}; there are {}; write -- before a text that begins so",
                    OPTIONS.join(", ")
                ));
            }
            let from = if inline { rest.get(name.len() + 1..).unwrap_or_default() } else { after };
            let (value, after) = value(from).ok_or_else(|| format!("{name} needs a value"))?;
            match name {
                "--title" => fields.title = Some(value),
                "--priority" => fields.priority = priority(&value)?,
                "--tag" => fields.tags.push(value),
                _ => topic = Some(to_send(&value)?),
            }
            rest = after;
        } else if topic.is_none() && word.starts_with(['#', '@']) {
            topic = Some(to_send(word)?);
            rest = after;
        } else {
            break;
        }
    }
    let is_option = |word: &&str| OPTIONS.contains(&word.split('=').next().unwrap_or_default());
    match rest.split_whitespace().find(is_option) {
        Some(option) => Err(format!(
            "{option} stands behind the text; write options before it, or -- before a text that has this word"
        )),
        None => Ok((topic, fields, rest.to_owned())),
    }
}

fn to_send(word: &str) -> Result<Topic, String> {
    Topic::to_send(word).map_err(|error| format!("{word}: {error}; write -- before a text that begins so"))
}

/// The first word, and what stands behind it.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The value of an option: a word, or several in quotes. It is not empty.
fn value(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''));
    let quoted = quote.and_then(|quote| text.get(1..)?.split_once(quote));
    let (value, rest) = quoted.unwrap_or_else(|| split(text));
    (!value.is_empty()).then(|| (value.to_owned(), rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(title: Option<&str>, priority: u8, tags: &[&str]) -> Fields {
        Fields {
            title: title.map(str::to_owned),
            priority: priority.try_into().unwrap(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }
    }

    #[test]
    fn options_and_the_topic_stand_before_the_text_in_any_order() {
        let ops = Topic::to_send("#ops").unwrap();
        let all = fields(Some("Disk full"), 5, &["a", "b"]);
        for typed in [
            "#ops --title 'Disk full' --priority 5 --tag a --tag b  two words",
            "--title=\"Disk full\" --priority=5 --tag=a --tag b --to #ops two words",
            "--tag a --tag b --priority 5 --title \"Disk full\" #ops -- two words",
        ] {
            let parsed = parse(typed).unwrap();
            assert_eq!(parsed, (Some(ops.clone()), all.clone(), "two words".to_owned()), "{typed}");
        }
        let plain = |text: &str| (None, Fields::default(), text.to_owned());
        assert_eq!(parse("just a text").unwrap(), plain("just a text"));
        assert_eq!(parse("-- --force is no option").unwrap(), plain("--force is no option"));
        assert_eq!(parse("it's -5 today").unwrap(), plain("it's -5 today"));
        let (to, _, text) = parse("@bob @carol says so").unwrap();
        assert_eq!((to, text.as_str()), (Topic::to_send("@bob").ok(), "@carol says so"));
    }

    #[test]
    fn what_looks_like_an_option_or_a_topic_and_is_none_is_refused() {
        for (typed, told) in [
            ("--prio 5 x", "there is no option --prio"),
            ("--priority 9 x", "1 (lowest) to 5"),
            ("--title", "--title needs a value"),
            ("x --priority 5", "--priority stands behind the text"),
            ("#bad! x", "write -- before a text"),
            ("@ x", "write -- before a text"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(told), "{typed}: {error}");
        }
    }
}
