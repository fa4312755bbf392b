//! References to variables and macros in a text: `$x`, `${x:csv}`, `[[x:csv]]`, `$__timeFilter(...)`.
//!
//! Used by `expand`. The forms are those of Grafana's `variableRegex` and of its PostgreSQL macros.

use std::collections::BTreeSet;

/// A reference at the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    pub name: &'a str,
    /// After the colon, if there is one.
    pub format: Option<&'a str>,
    /// What stands between the brackets that follow `$name` at once.
    pub arguments: Option<&'a str>,
    /// Length without the arguments.
    pub bytes: usize,
}

impl Reference<'_> {
    /// Length with the arguments and their brackets.
    pub fn bytes_with_arguments(&self) -> usize {
        self.bytes + self.arguments.map_or(0, |arguments| arguments.len() + 2)
    }
}

/// The reference that `text` begins with, if it begins with one.
pub(super) fn reference(text: &str) -> Option<Reference<'_>> {
    if let Some(inside) = text.strip_prefix("${") {
        let end = inside.find('}')?;
        return braced(&inside[..end], end + 3);
    }
    if let Some(inside) = text.strip_prefix("[[") {
        let end = inside.find("]]")?;
        return braced(&inside[..end], end + 4);
    }
    let after = text.strip_prefix('$')?;
    let name = &after[..word_end(after)];
    if name.is_empty() {
        return None;
    }
    let bracket = after[name.len()..].strip_prefix('(');
    Some(Reference {
        name,
        format: None,
        arguments: bracket.and_then(|rest| rest.find(')').map(|end| &rest[..end])),
        bytes: name.len() + 1,
    })
}

fn braced(inside: &str, bytes: usize) -> Option<Reference<'_>> {
    let (name, format) = match inside.split_once(':') {
        Some((name, format)) => (name, Some(format)),
        None => (inside, None),
    };
    (!name.is_empty() && word_end(name) == name.len()).then_some(Reference {
        name,
        format,
        arguments: None,
        bytes,
    })
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The names of all variables and macros that a text refers to.
pub fn names_in(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices(['$', '[']).filter_map(|(at, _)| reference(&text[at..]));
    starts.map(|found| found.name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_reference_is_found() {
        let found = names_in("SELECT $__time(a), '$b', ${c:csv}, [[d]], [[e:raw]] FROM t_${f} WHERE x[1] = $ AND ${g.h} = 1");
        let expected = ["__time", "b", "c", "d", "e", "f"].map(str::to_owned);
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[test]
    fn arguments_end_at_the_first_bracket() {
        let found = reference("$__timeGroup(window_start, '5m', NULL), 1)").expect("a macro");
        assert_eq!((found.name, found.arguments), ("__timeGroup", Some("window_start, '5m', NULL")));
        assert_eq!(found.bytes_with_arguments(), "$__timeGroup(window_start, '5m', NULL)".len());
        assert_eq!(reference("$x (1)").expect("a variable").arguments, None);
        assert_eq!(reference("$__timeFilter(x").expect("a variable").arguments, None);
    }
}
