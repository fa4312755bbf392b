//! A complaint: what is wrong in a rule file, where it stands, and how to put it right.
//!
//! Stands beside the reading of rules, which makes complaints; the command line and the daemon show
//! them.
//!
//! Invariant: a complaint always says what to do.
//! Invariant: however long the source line is, no more of it is shown than fits a terminal.

/// Longest part of a source line shown in a complaint.
const MAX_SHOWN_CHARS: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Complaint {
    pub file: String,
    /// From 1; 0 when the complaint is about the file as a whole.
    pub line: usize,
    /// In characters from 1.
    pub column: usize,
    /// Where in the document, for instance `groups[0].rules[2].value.mean.sum`; may be empty.
    pub path: String,
    pub message: String,
    pub fix: String,
    /// The line as written.
    pub source_line: String,
    /// Characters to underline.
    pub width: usize,
}

impl Complaint {
    fn text(&self) -> String {
        let at = if self.path.is_empty() {
            String::new()
        } else {
            format!(", at {}", self.path)
        };
        let head = format!("{}:{}:{}: {}{at}", self.file, self.line, self.column, self.message);
        if self.line == 0 {
            return format!("{head}\n  {}", self.fix);
        }
        let shown: String = self.source_line.chars().take(MAX_SHOWN_CHARS).collect();
        let indent = " ".repeat((self.column - 1).min(MAX_SHOWN_CHARS));
        let room = shown.chars().count().saturating_sub(self.column - 1);
        let caret = "^".repeat(self.width.clamp(1, room.max(1)));
        format!("{head}\n{:>5} | {shown}\n      | {indent}{caret} {}", self.line, self.fix)
    }
}

pub(super) fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

/// The nearest name, as a question, if it is near enough to be a slip.
pub(in crate::alert) fn did_you_mean<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    let allowed = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_guessed_and_another_word_is_not() {
        let cases = [
            ("windw", Some("window")),
            ("wher", Some("where")),
            ("ab", Some("aa")),
            ("colour", None),
            ("", None),
        ];
        for (name, expected) in cases {
            let expected = expected.map(|word| format!("did you mean `{word}`?"));
            assert_eq!(did_you_mean(name, ["window", "where", "ac", "aa"].into_iter()), expected);
        }
    }

    #[test]
    fn the_caret_stays_under_the_line_as_shown() {
        let complaint = Complaint {
            file: "a.yaml".to_owned(),
            line: 7,
            column: 3,
            path: "x".to_owned(),
            message: "wrong".to_owned(),
            fix: "mend it".to_owned(),
            source_line: "é".repeat(MAX_SHOWN_CHARS + 9),
            width: usize::MAX,
        };
        let text = complaint.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "a.yaml:7:3: wrong, at x");
        assert_eq!(lines[1], format!("    7 | {}", "é".repeat(MAX_SHOWN_CHARS)));
        assert_eq!(lines[2], format!("      |   {} mend it", "^".repeat(MAX_SHOWN_CHARS - 2)));
    }
}
