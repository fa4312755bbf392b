//! The YAML of a rule file, read into nodes that keep their places.
//!
//! Stands before the reading of rules: a text in, one document or one complaint out.
//!
//! Invariant: size, depth, aliases and nodes are bounded before anything is built from them.
//! Invariant: a place in the text counts from 1; line 0 is the file as a whole.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

use super::Complaint;

/// A rule file is written by hand; 1 MiB is some ten thousand rules.
const MAX_FILE_BYTES: usize = 1 << 20;
/// The schema needs nine levels; the parser recurses, and 16 fit a 2 MiB stack in a debug build.
const MAX_DEPTH: usize = 16;
/// An alias saves a few lines; more than this is an alias bomb.
const MAX_ALIASES: usize = 100;
/// Nodes that all aliases of a file may expand to.
const MAX_ALIAS_NODES: usize = 10_000;
/// Nodes of one file: ten thousand rules of ten keys.
const MAX_NODES: usize = 200_000;

/// A YAML node that keeps its place.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Null,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

/// The one document of a file, or what is wrong with it.
pub(super) fn read(name: &str, text: &str) -> Result<Spanned<Node>, Box<Complaint>> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Box::new(too_large(name, text.len())));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_nodes: MAX_NODES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIAS_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Box::new(unreadable(name, text, &error)))
}

fn too_large(name: &str, bytes: usize) -> Complaint {
    Complaint {
        file: name.to_owned(),
        line: 0,
        column: 0,
        path: String::new(),
        message: format!("the file has {bytes} bytes"),
        fix: format!("split it; a rule file may have {MAX_FILE_BYTES} bytes"),
        source_line: String::new(),
        width: 0,
    }
}

fn unreadable(name: &str, text: &str, error: &serde_saphyr::Error) -> Complaint {
    let mut options = serde_saphyr::RenderOptions::new(&serde_saphyr::UserMessageFormatter);
    options.snippets = serde_saphyr::SnippetMode::Off;
    let rendered = error.render_with_options(options);
    let message = rendered.split_once(" at line ").map_or(rendered.as_str(), |(message, _)| message);
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let (line, column) = place(location);
    Complaint {
        file: name.to_owned(),
        line,
        column,
        path: String::new(),
        message: format!("not readable as YAML: {message}"),
        fix: "correct the YAML here or just above".to_owned(),
        source_line: source_line(text, line),
        width: 1,
    }
}

/// Line and column of a location, both from 1.
pub(super) fn place(location: Location) -> (usize, usize) {
    let line = usize::try_from(location.line()).unwrap_or(1).max(1);
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    (line, column)
}

/// Characters that a node takes, as written.
pub(super) fn width(location: Location) -> usize {
    usize::try_from(location.span().len()).unwrap_or(1)
}

/// One line of a text, by its number from 1, as it is shown.
pub(super) fn source_line(text: &str, line: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, parse, texts};
    use super::*;

    #[test]
    fn broken_yaml_is_one_complaint() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        min_samples: 400",
            r"
alerts/a.yaml:13:9: not readable as YAML: duplicate mapping key: min_samples not allowed here
   13 |         min_samples: 400
      |         ^ correct the YAML here or just above
",
        );
        check(
            "group_by: [device_type, app_name]",
            "group_by: [device_type",
            r"
alerts/a.yaml:12:20: not readable as YAML: illegal placement of ':' indicator
   12 |         min_samples: 500
      |                    ^ correct the YAML here or just above
",
        );
        check(
            "{stdout: {}}",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
            r"
alerts/a.yaml:3:28: not readable as YAML: recursion limit exceeded
    3 |   console: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
      |                            ^ correct the YAML here or just above
",
        );
    }

    #[test]
    fn size_and_aliases_are_bounded() {
        let large = format!("version: 1\n#{}", "x".repeat(MAX_FILE_BYTES));
        let complaints = parse(&[("a", large)]).unwrap_err();
        assert_eq!(
            texts(&complaints),
            "a:0:0: the file has 1048588 bytes\n  split it; a rule file may have 1048576 bytes\n"
        );
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g"].iter().zip(["a", "b", "c", "d", "e", "f"]) {
            let aliases = vec![format!("*{of}"); 10].join(", ");
            bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        let complaints = parse(&[("a", bomb)]).unwrap_err();
        assert!(complaints[0].message.starts_with("not readable as YAML: "));
    }
}
