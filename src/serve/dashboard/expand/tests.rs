//! What comes out of SQL with macros and variables, and that no value gets out of its place.

use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use proptest::prelude::*;

use super::*;

/// 2026-03-01 00:00 to 06:00 UTC on 100 points: a step of 5 minutes.
fn scope(variables: &[(&str, Chosen)]) -> Scope {
    let mut scope = Scope::new(1_772_323_200_000, 1_772_344_800_000, 100, 60_000);
    scope.variables = variables
        .iter()
        .map(|(name, chosen)| ((*name).to_owned(), chosen.clone()))
        .collect();
    scope
}

fn one(value: &str) -> Chosen {
    Chosen::One(value.to_owned())
}

fn many(values: &[&str]) -> Chosen {
    Chosen::Many(values.iter().map(|value| (*value).to_owned()).collect())
}

#[track_caller]
fn check(sql: &str, expected: &str) {
    let scope = scope(&[
        ("app", many(&["O'Brien", "web"])),
        ("none", many(&[])),
        ("all", Chosen::AsWritten("'*'".to_owned())),
        ("grain", one("5m")),
        ("name", one("O'Brien")),
    ]);
    assert_eq!(expand(sql, &scope).as_deref(), Ok(expected), "{sql}");
}

#[track_caller]
fn check_refused(sql: &str, chosen: &Chosen, expected: &str) {
    let error = expand(sql, &scope(&[("x", chosen.clone())])).expect_err(sql);
    assert_eq!(error.to_string(), expected, "{sql}");
}

#[test]
fn macros_are_put_in() {
    check(
        "SELECT $__time(window_start), 1 WHERE $__timeFilter(window_start)",
        "SELECT window_start AS \"time\", 1 WHERE window_start BETWEEN '2026-03-01T00:00:00Z' AND '2026-03-01T06:00:00Z'",
    );
    check("$__unixEpochTo() - $__unixEpochFrom()", "1772344800 - 1772323200");
    check("$__interval, '$__interval', $__interval_ms", "5m, '5m', 300000");
    check("$__from ${__to} $__range_s $__range", "1772323200000 1772344800000 21600 21600s");
}

#[test]
fn a_group_before_a_comma_is_named_time() {
    let group = "floor(extract(epoch from t)/300)*300";
    check("SELECT $__timeGroup(t, $__interval), 1", &format!("SELECT {group} AS \"time\", 1"));
    check("GROUP BY $__timeGroup(t, '$grain')", &format!("GROUP BY {group}"));
    check("SELECT $__timeGroupAlias(t, 5m, NULL)", &format!("SELECT {group} AS \"time\""));
}

#[test]
fn every_form_of_a_variable_is_put_in() {
    check("FROM gold.playback_${grain}", "FROM gold.playback_5m");
    check("FROM gold.playback_$grain WHERE", "FROM gold.playback_5m WHERE");
    check("FROM [[grain]], [[grain:raw]]", "FROM 5m, 5m");
    check("app IN ($app)", "app IN ('O''Brien','web')");
    check("app IN (${app:sqlstring})", "app IN ('O''Brien','web')");
    check("'${app:csv}'", "'O''Brien,web'");
    check("'$name' = ${name:sqlstring}", "'O''Brien' = 'O''Brien'");
    check("E'\\'$name'", "E'\\'O''Brien'");
    check("'*' IN ($all) OR x IN ($none)", "'*' IN ('*') OR x IN (NULL)");
}

#[test]
fn what_is_no_reference_stays_as_it_is() {
    for text in [
        "SELECT 1",
        "$unknown = $1",
        "it''s '$5' \"a\"\"b\" [1] [[1,2]]",
        "-- $__timeFilter( of $grain\n/* $app /* $name */ '*/ ü",
        "cost > 5 $",
    ] {
        check(text, text);
    }
    check("a -- it's\n = $grain", "a -- it's\n = 5m");
    check("'--' || '$grain' /* ' */ || '$grain'", "'--' || '5m' /* ' */ || '5m'");
}

#[test]
fn a_value_that_looks_like_a_macro_stays_a_value() {
    let scope = scope(&[("x", one("$__timeTo()")), ("y", many(&["${x}", "[[x]]"]))]);
    let expanded = expand("a = '$x' OR b IN ($y)", &scope).expect("it is in quotes");
    assert_eq!(expanded, "a = '$__timeTo()' OR b IN ('${x}','[[x]]')");
}

#[test]
fn a_value_that_could_get_out_is_refused() {
    let word = "variable x has a value that is no plain word, and stands where only one may; put it in quotes, or use :sqlstring";
    for hostile in ["", "a b", "1;DROP", "a'", "a--", "-1", "a)", "$$", "a\"", "ü", "a,b", "/*"] {
        check_refused("SELECT $x", &one(hostile), word);
        check_refused("SELECT \"$x\"", &one(hostile), word);
        check_refused("SELECT ${x:raw}", &many(&["a", hostile]), word);
    }
    let quoted = "variable x brings its own quotes and stands inside quotes; take these away, or use :csv";
    check_refused("'$x'", &many(&["a"]), quoted);
    check_refused("'${x:sqlstring}'", &one("a"), quoted);
    check_refused("SELECT E$x", &many(&["\\' OR 1=1"]), quoted);
    let dollars = "text between dollar signs ($$) cannot be told from variables; use single quotes";
    check_refused("$$ it is $x $$", &one("a"), dollars);
    check_refused("$tag$ it is $x $tag$", &one("a"), dollars);
    check_refused(
        "'$__timeFrom()'",
        &one("a"),
        "macro $__timeFrom stands inside quotes; take it out of them",
    );
    check_refused("$__nothing(1)", &one("a"), "there is no macro $__nothing");
    check_refused(
        "${x:lucene}",
        &one("a"),
        "format :lucene of variable x is not known; use :csv, :raw, :sqlstring or none",
    );
}

/// Ways to write a variable that take any value.
const OPEN_TO_ALL: [&str; 6] = [
    "SELECT a FROM t WHERE a = '$x' AND b > 1",
    "SELECT a FROM t WHERE a IN ($y) OR b = 'it''s' AND c IN (${y:sqlstring})",
    "SELECT a FROM t WHERE a LIKE '%${y:csv}%' -- it's\n AND b = 1",
    "SELECT \"a'b\" FROM t WHERE a = '[[x]]' /* ' */ AND b = '${x:raw}'",
    "SELECT a FROM t WHERE a = E'\\'$x' AND $__timeFilter(b)",
    "SELECT $__timeGroup(b, '5m'), '$x' FROM t WHERE '*' IN ($y)",
];

fn tokens(sql: &str) -> Vec<Token> {
    let generic = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let postgres = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize();
    let postgres = postgres.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(generic.as_ref(), Ok(&postgres), "{sql}");
    postgres
}

/// The tokens with what stands in literals taken out.
fn shape(tokens: &[Token]) -> Vec<Token> {
    let emptied = |token: &Token| match token {
        Token::SingleQuotedString(_) => Token::SingleQuotedString(String::new()),
        Token::EscapedStringLiteral(_) => Token::EscapedStringLiteral(String::new()),
        other => other.clone(),
    };
    tokens.iter().map(emptied).collect()
}

fn hostile_value() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "'",
        "''",
        "\\",
        "\\'",
        "\"",
        "--",
        "/*",
        "*/",
        ";",
        "\n",
        "$x",
        "${y}",
        "[[x]]",
        "$__timeTo()",
        "$$",
        "E'",
        ")",
        " OR 1=1 ",
        "ü",
        "a",
    ]);
    prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever is chosen, the SQL has the same tokens as with harmless values, and the literals hold
    /// what was chosen.
    #[test]
    fn no_value_leaves_its_literal(value in hostile_value(), other in hostile_value()) {
        for sql in OPEN_TO_ALL {
            let harmless = expand(sql, &scope(&[("x", one("a")), ("y", many(&["a", "b"]))])).expect("harmless");
            let expanded = expand(sql, &scope(&[("x", one(&value)), ("y", many(&[&value, &other]))])).expect("in quotes");
            let found = tokens(&expanded);
            prop_assert_eq!(shape(&found), shape(&tokens(&harmless)), "{}", expanded);
            let holds_it = |token: &Token| matches!(token, Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)
                if text.contains(&value));
            prop_assert!(found.iter().any(holds_it), "{}", expanded);
        }
    }

    /// Where only a word may stand, what is let through is one token, or is refused.
    #[test]
    fn no_value_becomes_more_than_a_word(value in "[a-zA-Z0-9_.'\";$/*() -]{0,12}") {
        if let Ok(expanded) = expand("SELECT a FROM gold.t_$x WHERE b = 'c'", &scope(&[("x", one(&value))])) {
            prop_assert!(expanded.ends_with(" WHERE b = 'c'"));
            let is_harmless = |token: &Token| !matches!(token, Token::SemiColon | Token::LParen | Token::Comma)
                && !matches!(token, Token::Whitespace(space) if space.to_string().len() > 1);
            let found = tokens(&expanded);
            prop_assert!(found.iter().all(is_harmless), "{}", expanded);
            prop_assert_eq!(found.iter().filter(|token| matches!(token, Token::SingleQuotedString(_))).count(), 1);
        }
    }

    /// Nothing that an author writes makes it fall over.
    #[test]
    fn any_text_is_expanded_or_refused(text in "[a-zA-Z0-9_$'\"\\\\{}()\\[\\]:,*/\n ü-]{0,60}") {
        let _ = expand(&text, &scope(&[("x", one("a")), ("y", many(&["a", "b"]))]));
    }
}
