//! cmcd_value(text, text) -> text: the value of one key of a CMCD record (CTA-5004), as text.
//!
//! ```sql
//! SELECT cmcd_value('bl=21300,br=3200,sid="6e2f-4c",su', 'sid')  -- 6e2f-4c
//! ```
//!
//! The record is a header's value or, decoded from per cent, that of the query's `CMCD`. Strings come
//! without their quotes, a bare key as `true`, an inner list as what stands between its parentheses;
//! parameters go. Of a key that comes twice the last value counts. NULL: the key is missing or its
//! value cannot be read, which costs that key alone. The grammar of the daemon's own reader.

use arroyo_udf_plugin::udf;

#[udf]
fn cmcd_value(record: &str, key: &str) -> Option<String> {
    let mut found = None;
    let mut rest = record;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
        if rest.is_empty() {
            return found.flatten();
        }
        let (name, value, after) = pair(rest);
        if name == key {
            found = Some(value);
        }
        rest = after;
    }
}

/// Name and value of the first member, and what follows it.
fn pair(text: &str) -> (&str, Option<String>, &str) {
    let end = text.find(['=', ',']).unwrap_or(text.len());
    let name = text[..end].trim_ascii_end();
    match text[end..].strip_prefix('=') {
        Some(behind) => {
            let behind = behind.trim_ascii_start();
            let (value, after) = quoted(behind).or_else(|| list(behind)).unwrap_or_else(|| bare(behind));
            (name, value, after)
        }
        None => {
            let name = name.split(';').next().unwrap_or_default();
            (name, Some("true".to_owned()), &text[end..])
        }
    }
}

/// A string that ends where a member may end.
fn quoted(text: &str) -> Option<(Option<String>, &str)> {
    let close = string_end(text)?;
    let after = behind_parameters(&text[close + 1..])?;
    Some((Some(unescaped(&text[1..close])), after))
}

/// The place of the quote that closes the string at the beginning.
fn string_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let mut bytes = text.bytes().enumerate();
    if bytes.next()?.1 != b'"' {
        return None;
    }
    for (at, byte) in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescaped(inside: &str) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.next_if(|next| character == '\\' && matches!(next, '"' | '\\')) {
            Some(escaped) => text.push(escaped),
            None => text.push(character),
        }
    }
    text
}

/// A list that is closed before another one opens.
fn list(text: &str) -> Option<(Option<String>, &str)> {
    let inside = text.strip_prefix('(')?;
    let mut at = 0;
    let close = loop {
        match inside.as_bytes().get(at)? {
            b')' => break at,
            b'(' => return None,
            b'"' => at += string_end(&inside[at..])?,
            _ => {}
        }
        at += 1;
    };
    let after = behind_parameters(&inside[close + 1..])?;
    Some((Some(inside[..close].to_owned()), after))
}

/// What follows the parameters that stand here up to the next comma, if nothing else does.
fn behind_parameters(text: &str) -> Option<&str> {
    let end = text.find(',').unwrap_or(text.len());
    are_parameters(text[..end].trim_ascii()).then(|| &text[end..])
}

fn are_parameters(text: &str) -> bool {
    let is_open = text.matches('"').count() % 2 == 1;
    text.is_empty() || (text.starts_with(';') && !is_open && !text.contains(['(', ')']))
}

/// A value without quotes and parentheses: a number, a token, a boolean or one odd word.
fn bare(text: &str) -> (Option<String>, &str) {
    let end = text.find(',').unwrap_or(text.len());
    let word = text[..end].trim_ascii_end();
    (bare_value(word).map(str::to_owned), &text[end..])
}

fn bare_value(word: &str) -> Option<&str> {
    let (value, parameters) = match word.find(';') {
        Some(place) => (word[..place].trim_ascii_end(), &word[place..]),
        None => (word, ""),
    };
    if value.is_empty() || !are_parameters(parameters) {
        return None;
    }
    match value {
        "?1" => Some("true"),
        "?0" => Some("false"),
        _ if value.starts_with('?') => None,
        _ if is_number(value) || is_token(value) => Some(value),
        _ => is_word(word).then_some(word),
    }
}

fn is_number(text: &str) -> bool {
    let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
        None => is_digits(unsigned),
    }
}

fn is_token(text: &str) -> bool {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*') && text.bytes().all(in_token)
}

fn is_word(text: &str) -> bool {
    let odd = |byte: u8| byte <= b' ' || byte == 0x7f || matches!(byte, b'"' | b'(' | b')' | b'\\' | b'=');
    !text.bytes().any(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"bl=21300, br=(3200;v 128;a),sid="6e\"2f, 4c",su,mtp=12px,cid="open,ltc=-5,v=2,v=1"#;

    #[track_caller]
    fn check(key: &str, expected: Option<&str>) {
        assert_eq!(cmcd_value(RECORD, key).as_deref(), expected, "{key}");
    }

    #[test]
    fn each_key_is_read_alone() {
        check("bl", Some("21300"));
        check("br", Some("3200;v 128;a"));
        check("sid", Some("6e\"2f, 4c"));
        check("su", Some("true"));
        check("mtp", Some("12px"));
        check("cid", None);
        check("ltc", Some("-5"));
        check("v", Some("1"));
        check("nor", None);
    }
}
