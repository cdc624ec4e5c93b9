//! Findings, and their report for people and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// How bad a finding is. Ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// It works now, and will not under load, after a failure or later.
    Warning,
    /// Something does not work.
    Fault,
}

impl Severity {
    /// The word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Fault => "fault",
        }
    }

    /// The mark before a line, and its colour for a terminal (SGR).
    const fn mark(self) -> (&'static str, &'static str) {
        match self {
            Severity::Ok => ("ok", "32"),
            Severity::Note => ("note", "36"),
            Severity::Warning => ("WARN", "33"),
            Severity::Fault => ("FAULT", "1;31"),
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The check: one lower-case word that does not change.
    pub check: &'static str,
    /// What was checked: a server, a file, a name.
    pub subject: String,
    /// What was seen.
    pub seen: String,
    /// Why that is so, as far as can be told. Empty if all is well.
    pub cause: String,
    /// What to do. Empty if nothing is to be done.
    pub cure: String,
    /// What was measured, for programs.
    pub values: Map<String, Value>,
}

impl Finding {
    fn new(severity: Severity, check: &'static str, subject: &str, seen: impl Into<String>) -> Finding {
        let (subject, seen, values) = (subject.to_owned(), seen.into(), Map::new());
        Finding { severity, check, subject, seen, cause: String::new(), cure: String::new(), values }
    }

    /// All is well.
    pub fn ok(check: &'static str, subject: &str, seen: impl Into<String>) -> Finding {
        Finding::new(Severity::Ok, check, subject, seen)
    }

    /// All but well: `why` is the cause and the cure.
    pub fn other(
        severity: Severity,
        check: &'static str,
        subject: &str,
        seen: impl Into<String>,
        (cause, cure): (impl Into<String>, impl Into<String>),
    ) -> Finding {
        let (cause, cure) = (cause.into(), cure.into());
        Finding { cause, cure, ..Finding::new(severity, check, subject, seen) }
    }

    /// Adds a measured value.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Finding {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "severity": self.severity.as_str(),
            "check": self.check,
            "subject": self.subject,
            "seen": self.seen,
            "cause": self.cause,
            "cure": self.cure,
            "values": self.values,
        })
    }
}

/// All findings of one examination, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report(pub Vec<Finding>);

impl Report {
    /// The worst severity; [`Severity::Ok`] without a finding.
    pub fn worst(&self) -> Severity {
        self.0.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    /// Returns true if there is a warning or a fault.
    pub fn has_failed(&self) -> bool {
        self.worst() >= Severity::Warning
    }

    fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }

    /// For people: a line for each finding, below it cause and cure of those that are not well, and a
    /// summary. `coloured` colours the marks for a terminal.
    pub fn to_text(&self, coloured: bool) -> String {
        let width = |of: fn(&Finding) -> usize| self.0.iter().map(of).max().unwrap_or_default();
        let check = width(|finding| finding.check.chars().count());
        // One long path must not move all columns.
        let subject = width(|finding| finding.subject.chars().count()).min(34);
        let mut text = String::new();
        for finding in &self.0 {
            let Finding { severity, check: name, subject: of, seen, cause, cure, .. } = finding;
            let (mark, colour) = severity.mark();
            let mark = match coloured {
                true => format!("\u{1b}[{colour}m{mark:<5}\u{1b}[0m"),
                false => format!("{mark:<5}"),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{mark}  {name:<check$}  {of:<subject$}  {seen}");
            for (what, line) in [("cause", cause), ("cure", cure)] {
                if !line.is_empty() {
                    let _ = writeln!(text, "       {what:<5}  {line}");
                }
            }
        }
        text + &self.summary()
    }

    /// The last line for people.
    fn summary(&self) -> String {
        let [notes, warnings, faults] =
            [Severity::Note, Severity::Warning, Severity::Fault].map(|severity| self.count(severity));
        let counted = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let of = format!("{}: ", counted(self.0.len(), "check"));
        match (faults, warnings, notes) {
            (0, 0, 0) => of + "all is well",
            (0, 0, _) => of + &format!("all is well, with {}", counted(notes, "note")),
            _ => {
                let parts = [(faults, "fault"), (warnings, "warning"), (notes, "note")];
                let parts = parts.iter().filter(|(count, _)| *count > 0);
                of + &parts.map(|(count, what)| counted(*count, what)).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// For programs: an object with `ok`, `worst`, the count of each severity, and the `findings`. Keys are
    /// added in later versions, and none is taken away.
    pub fn to_json(&self) -> Value {
        json!({
            "ok": !self.has_failed(),
            "worst": self.worst().as_str(),
            "faults": self.count(Severity::Fault),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "findings": self.0.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report(vec![
            Finding::ok("udp", "server-1", "10 of 10").with("sent", 10),
            Finding::other(Severity::Warning, "clock", "server-2 (b)", "93 s ahead", ("set wrong", "set it")),
        ])
    }

    #[test]
    fn columns_are_aligned_and_cause_and_cure_follow_what_is_not_well() {
        let text = "ok     udp    server-1      10 of 10\n\
                    WARN   clock  server-2 (b)  93 s ahead\n       cause  set wrong\n       cure   set it\n\
                    2 checks: 1 warning";
        assert_eq!(report().to_text(false), text);
        assert!(report().to_text(true).contains("\u{1b}[33mWARN \u{1b}[0m"));
    }

    #[test]
    fn notes_are_well_and_warnings_and_faults_are_not() {
        let of = |severity| Report(vec![Finding::other(severity, "a", "b", "c", ("d", "e"))]);
        assert!(!Report::default().has_failed() && !of(Severity::Note).has_failed());
        assert!(of(Severity::Warning).has_failed() && of(Severity::Fault).has_failed());
        assert!(of(Severity::Note).to_text(false).ends_with("1 check: all is well, with 1 note"));
        assert!(Report::default().to_text(false).ends_with("0 checks: all is well"));
        let both = Report([report().0, of(Severity::Fault).0].concat());
        assert!(both.to_text(false).ends_with("3 checks: 1 fault, 1 warning"));
    }

    #[test]
    fn every_finding_has_the_same_keys_for_programs() {
        let value = report().to_json();
        assert_eq!((&value["ok"], &value["worst"]), (&json!(false), &json!("warning")));
        assert_eq!(
            (&value["faults"], &value["warnings"], &value["notes"]),
            (&json!(0), &json!(1), &json!(0))
        );
        for finding in value["findings"].as_array().unwrap() {
            let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["cause", "check", "cure", "seen", "severity", "subject", "values"]);
        }
        assert_eq!(value["findings"][0]["values"], json!({"sent": 10}));
    }
}
