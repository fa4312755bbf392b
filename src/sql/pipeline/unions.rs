//! Unions out of a query's middle, for Arroyo: its planner groups the rows of one node, and a union is one only as a view.
//!
//! ```text
//! ... FROM ( A UNION ALL B ) AS facts GROUP BY ...   ->   facts: A UNION ALL B     ... FROM facts GROUP BY ...
//! ```
//!
//! Its words for it (0.16): "KeyCalculationExtension should have exactly one input".
//!
//! Invariant: letters are moved, none is changed; a text without such a union stays as it is.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// A query whose unions stand apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnionsApart {
    /// Name and text of each, in their order.
    pub views: Vec<(String, String)>,
    pub query: String,
}

/// A union in parentheses with its name behind them, by its bytes.
struct Union {
    whole: Range<usize>,
    inside: Range<usize>,
    name: String,
}

pub fn unions_apart(query: &str) -> UnionsApart {
    let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize_with_location();
    // What is no SQL is told where it is planned.
    let unions = tokens.map(|tokens| unions(query, &tokens)).unwrap_or_default();
    let mut apart = UnionsApart {
        views: Vec::new(),
        query: String::new(),
    };
    let mut done = 0;
    for union in unions {
        apart.query.extend([&query[done..union.whole.start], &union.name]);
        done = union.whole.end;
        apart.views.push((union.name, query[union.inside].trim().to_owned()));
    }
    apart.query.push_str(&query[done..]);
    apart
}

/// The outermost ones, in their order.
fn unions(query: &str, tokens: &[TokenWithSpan]) -> Vec<Union> {
    let tokens: Vec<&TokenWithSpan> = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    // Parentheses that are open, and whether a union stood right inside.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut found: Vec<Union> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => open.push((at, false)),
            Token::Word(word) if word.keyword == Keyword::UNION => open.iter_mut().last().into_iter().for_each(|last| last.1 = true),
            Token::RParen => {
                let Some((start, true)) = open.pop() else { continue };
                let Some((name, last)) = name_behind(&tokens[at + 1..]) else {
                    continue;
                };
                let begin = byte_of(query, tokens[start].span.start);
                found.retain(|inner| inner.whole.start < begin);
                found.push(Union {
                    whole: begin..byte_of(query, last.span.start) + name.len(),
                    inside: begin + 1..byte_of(query, token.span.start),
                    name,
                });
            }
            _ => {}
        }
    }
    found
}

/// `AS name`, without quotes.
fn name_behind<'a>(tokens: &[&'a TokenWithSpan]) -> Option<(String, &'a TokenWithSpan)> {
    let [by, named, ..] = tokens else { return None };
    match (&by.token, &named.token) {
        (Token::Word(by), Token::Word(name)) if by.keyword == Keyword::AS && name.quote_style.is_none() => {
            Some((name.value.clone(), named))
        }
        _ => None,
    }
}

/// Lines and columns count from one, columns in characters.
fn byte_of(text: &str, place: Location) -> usize {
    let line = usize::try_from(place.line).unwrap_or_default().saturating_sub(1);
    let column = usize::try_from(place.column).unwrap_or_default().saturating_sub(1);
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let within = text[before..].char_indices().nth(column).map(|(at, _)| at);
    within.map_or(text.len(), |within| before + within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(apart: &UnionsApart) -> Vec<(&str, &str)> {
        apart.views.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
    }

    #[test]
    fn a_union_that_is_grouped_stands_apart() {
        let apart = unions_apart(
            "-- ä (UNION)\nSELECT n FROM (\n  SELECT 'ü(' AS n FROM a\n  UNION ALL\n  SELECT n FROM b\n) AS facts\nGROUP BY n",
        );
        assert_eq!(apart.query, "-- ä (UNION)\nSELECT n FROM facts\nGROUP BY n");
        assert_eq!(
            views(&apart),
            [("facts", "SELECT 'ü(' AS n FROM a\n  UNION ALL\n  SELECT n FROM b")]
        );
    }

    #[test]
    fn of_unions_in_one_another_the_outer_one_stands_apart_as_a_whole() {
        let apart = unions_apart("SELECT 1 FROM (SELECT 1 FROM (a UNION ALL b) AS inner UNION ALL c) AS one, (d UNION ALL e) AS two");
        assert_eq!(apart.query, "SELECT 1 FROM one, two");
        assert_eq!(
            views(&apart),
            [
                ("one", "SELECT 1 FROM (a UNION ALL b) AS inner UNION ALL c"),
                ("two", "d UNION ALL e")
            ]
        );
    }

    #[test]
    fn what_has_no_such_union_stays_as_it_is() {
        for text in [
            "SELECT max(n) FROM (SELECT n FROM a) AS few",
            "SELECT 1 UNION ALL SELECT 2",
            "no ' SQL (",
        ] {
            assert_eq!(
                unions_apart(text),
                UnionsApart {
                    views: Vec::new(),
                    query: text.to_owned()
                }
            );
        }
    }
}
