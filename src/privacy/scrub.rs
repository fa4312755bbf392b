//! Finds address literals in any text (payload, URL, query, header, log line) and cuts them.
//!
//! `privacy` sends every stored text through here. A payload of plain JSON is read once, at the
//! speed of `memchr`; only a text whose escapes could hide an address is decoded.
//!
//! ```text
//! {"ip":"203.0.113.77","at":5.02}             ->  {"ip":"203.0.113.0","at":5.02}
//! ?ip=2001%3Adb8%3A85a3%3A8d3%3A%3A1&t=08:00  ->  ?ip=2001%3Adb8%3A85a3%3A%3A&t=08:00
//! 198.51.100.247,\x2010.89.113.224            ->  198.51.100.0,\x2010.89.113.0
//! Chrome/78.0.39.108, "app_version":"1.2.3.4" ->  the same, borrowed
//! ```
//!
//! What is an address:
//! - four dotted parts of at most 255 (zero-padded and octal ones too), or the same with a fifth part
//!   behind or before (`tcpdump` writes the port there); longer chains are object ids and stay. Not
//!   one behind a product token (`Chrome/1.2.3.4`) or in a JSON member whose name ends in `version`;
//! - IPv6 with `::` or eight groups, with no word character at its ends; with three or more
//!   colons it can be nothing else and word characters do not save it.
//!
//! How escapes are read: percent escapes and backslash escapes are taken off together, one layer at
//! a time, and each layer is searched. A match is mapped back, so that only the bytes that spelled it
//! change and a colon keeps the spelling (`%3A`, `\u003a`) it had. This also covers an address that
//! stands behind an escape (`%20`, `\n`), whose last letters would otherwise seem part of it.
//!
//! Invariant: the result without addresses is the input, borrowed.
//! Invariant: `scrub(scrub(x)) == scrub(x)`.
//! Invariant: time is linear in the length of the text.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use memchr::memchr2_iter;

use super::address;

/// Layers of escapes taken off: a URL percent-encoded twice, inside a JSON string.
const LAYERS_MAX: usize = 3;

/// Rounds over a text in which IPv6 or an escaped address was cut: in contrived texts that completes
/// another one beside it. Each round only clears bits, so a few reach the end.
const ROUNDS_MAX: usize = 8;

/// Texts up to here are looked through byte by byte: most hold none of the marks, and setting out for them with
/// vector searches costs more than these bytes.
const SHORT_BYTES_MAX: usize = 64;

/// Hex digits in one group of IPv6.
const GROUP_BYTES_MAX: usize = 4;

/// Parts of a dotted run that are looked at: an address and a port. Longer runs are object ids.
const DOTTED_PARTS_MAX: usize = 5;

/// Longest product token before a version; longer words before a slash are paths.
const PRODUCT_BYTES_MAX: usize = 64;

/// Blanks or backslashes skipped between the parts of a JSON member.
const FILLER_BYTES_MAX: usize = 8;

/// `text` with every address literal replaced by its /24 or /48.
pub fn scrub(text: &str) -> Cow<'_, str> {
    if text.len() <= SHORT_BYTES_MAX && !text.bytes().any(is_mark) {
        return Cow::Borrowed(text);
    }
    let edits = find_addresses(text.as_bytes(), HasMoreLayers::Yes);
    let plain = match edits.as_slice() {
        [] => Cow::Borrowed(text),
        edits => Cow::Owned(splice(text, edits)),
    };
    match scrub_layers(&plain) {
        Some(clean) => Cow::Owned(scrub_again(clean)),
        None if edits.iter().all(Edit::is_last_octet) => plain,
        None => Cow::Owned(scrub_again(plain.into_owned())),
    }
}

/// Each address has a dot or a colon, or an escape in its place.
fn is_mark(byte: u8) -> bool {
    matches!(byte, b'.' | b':' | b'%' | b'\\')
}

/// Like `scrub`, for a field that is known to hold a version: a dotted quad at its start stays.
pub fn scrub_version(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let start = usize::from(matches!(bytes.first(), Some(b'v' | b'V')));
    let Some(run) = DottedRun::at(bytes, start).filter(|run| run.last_octet().is_some()) else {
        return scrub(text);
    };
    let (version, rest) = text.split_at(run.end);
    match scrub(rest) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(clean) => Cow::Owned(format!("{version}{clean}")),
    }
}

/// Cuts what the first round brought to light, until nothing changes.
fn scrub_again(mut text: String) -> String {
    for _ in 1..ROUNDS_MAX {
        let edits = find_addresses(text.as_bytes(), HasMoreLayers::Yes);
        let plain = splice(&text, &edits);
        let layered = scrub_layers(&plain);
        if edits.is_empty() && layered.is_none() {
            return text;
        }
        text = layered.unwrap_or(plain);
    }
    text
}

/// Searches below the escapes of `text`. `None`: nothing there.
fn scrub_layers(text: &str) -> Option<String> {
    if !hides_address(text.as_bytes()) {
        return None;
    }
    let mut clean: Option<String> = None;
    let mut view = View::of(text);
    for layer in 1..=LAYERS_MAX {
        view = view.decode();
        let has_more = if layer < LAYERS_MAX {
            HasMoreLayers::Yes
        } else {
            HasMoreLayers::No
        };
        let edits = view.find_addresses(clean.as_deref().unwrap_or(text), has_more);
        if !edits.is_empty() {
            let spliced = splice(clean.as_deref().unwrap_or(text), &edits);
            view = (0..layer).fold(View::of(&spliced), |view, _| view.decode());
            clean = Some(spliced);
        }
        if !hides_address(&view.bytes) {
            break;
        }
    }
    clean
}

/// One replacement; ranges of a text's edits ascend and do not overlap.
#[derive(Debug)]
struct Edit {
    range: Range<usize>,
    with: Cow<'static, str>,
}

impl Edit {
    /// The cut of a plain IPv4 address, which changes nothing around it.
    fn is_last_octet(&self) -> bool {
        self.with == "0"
    }
}

fn splice(text: &str, edits: &[Edit]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for edit in edits {
        out.push_str(&text[done..edit.range.start]);
        out.push_str(&edit.with);
        done = edit.range.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Will a deeper layer be searched as well? Then digits that may belong to an escape wait for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HasMoreLayers {
    Yes,
    No,
}

/// Every address that stands in `bytes` as they are.
fn find_addresses(bytes: &[u8], has_more: HasMoreLayers) -> Vec<Edit> {
    let mut finder = Finder {
        bytes,
        has_more,
        floor: 0,
        edits: Vec::new(),
    };
    let mut next = 0;
    for hit in memchr2_iter(b'.', b':', bytes) {
        if hit >= next {
            next = if bytes[hit] == b'.' {
                finder.visit_dot(hit)
            } else {
                finder.visit_colon(hit)
            };
        }
    }
    finder.edits
}

struct Finder<'a> {
    bytes: &'a [u8],
    has_more: HasMoreLayers,
    /// End of the last address: nothing before it is read again, and no word goes on behind it.
    floor: usize,
    edits: Vec<Edit>,
}

impl Finder<'_> {
    /// Judges the dotted digits around the dot at `hit`; gives where to go on.
    fn visit_dot(&mut self, hit: usize) -> usize {
        let bytes = self.bytes;
        let is_between_digits = hit > self.floor && bytes[hit - 1].is_ascii_digit() && bytes.get(hit + 1).is_some_and(u8::is_ascii_digit);
        if !is_between_digits {
            return hit + 1;
        }
        let start = self.start_of_run(hit, |byte| byte.is_ascii_digit());
        let Some(run) = DottedRun::at(bytes, start) else {
            return hit + 1;
        };
        let Some(last_octet) = run.last_octet() else {
            return run.end;
        };
        if is_product_version(bytes, start, run.end) || is_version_member(bytes, start) {
            return run.end;
        }
        let is_quad_behind_escape = self.escape_reaching_into(start).is_some_and(|end| bytes[end].is_ascii_digit());
        if is_quad_behind_escape {
            return run.end;
        }
        if bytes[last_octet.clone()].iter().any(|digit| *digit != b'0') {
            self.edits.push(Edit {
                range: last_octet,
                with: Cow::Borrowed("0"),
            });
        }
        self.floor = run.end;
        run.end
    }

    /// Judges the hex digits and colons around the colon at `hit`; gives where to go on.
    fn visit_colon(&mut self, hit: usize) -> usize {
        let bytes = self.bytes;
        let has_group_before = hit > self.floor && bytes[hit - 1].is_ascii_hexdigit();
        let has_colon_behind = bytes.get(hit + 1) == Some(&b':');
        if !has_group_before && !has_colon_behind {
            return hit + 1;
        }
        let start = self.start_of_run(hit, is_hex_or_colon);
        let end = end_of_run(bytes, hit, is_hex_or_colon);
        let run = &bytes[start..end];
        let colons = run.iter().filter(|byte| **byte == b':').count();
        let has_gap = run.windows(2).any(|pair| pair == b"::");
        if !has_gap && colons < 7 {
            return end;
        }
        let is_behind_word = start > self.floor && is_word_before(bytes, start);
        let is_before_word = bytes.get(end).copied().is_some_and(is_word);
        let is_in_word = is_behind_word || is_before_word;
        if is_in_word && colons < 3 {
            return end;
        }
        if self.escape_reaching_into(start).is_some() {
            return end;
        }
        let Some(literal) = Literal::in_run(bytes, start..end) else {
            return end;
        };
        self.edits.extend(literal.edit(bytes));
        self.floor = literal.range.end;
        self.floor
    }

    fn start_of_run(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let before = &self.bytes[self.floor..from];
        from - before.iter().rev().take_while(|byte| belongs(**byte)).count()
    }

    /// The end of an escape that starts before `start` and takes some characters from there on
    /// (`%20` before `203.0.113.77`). The next layer will take it off; on the last layer there is none.
    fn escape_reaching_into(&self, start: usize) -> Option<usize> {
        if self.has_more == HasMoreLayers::No {
            return None;
        }
        // An introducer is one character (`%`, `\`) or two (`\x`, `\u`).
        (1..=2).find_map(|introducer| {
            let at = start.checked_sub(introducer)?;
            let (_, len) = escape_at(self.bytes, at)?;
            (at + len > start).then_some(at + len)
        })
    }
}

/// Digit groups joined by single dots.
struct DottedRun<'a> {
    bytes: &'a [u8],
    /// The first groups; empty where there are fewer.
    parts: [Range<usize>; DOTTED_PARTS_MAX],
    count: usize,
    end: usize,
}

impl<'a> DottedRun<'a> {
    /// The run whose first digit stands at `start`.
    fn at(bytes: &'a [u8], start: usize) -> Option<DottedRun<'a>> {
        let mut parts: [Range<usize>; DOTTED_PARTS_MAX] = std::array::from_fn(|_| 0..0);
        let mut count = 0;
        let mut at = start;
        loop {
            let end = end_of_run(bytes, at, |byte| byte.is_ascii_digit());
            if end == at {
                return None;
            }
            if let Some(part) = parts.get_mut(count) {
                *part = at..end;
            }
            count += 1;
            let goes_on = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            if !goes_on {
                return Some(DottedRun { bytes, parts, count, end });
            }
            at = end + 1;
        }
    }

    /// The fourth part of the address in this run, if it is one.
    fn last_octet(&self) -> Option<Range<usize>> {
        match self.count {
            4 | 5 if self.is_quad(0) => Some(self.parts[3].clone()),
            5 if self.is_quad(1) => Some(self.parts[4].clone()),
            _ => None,
        }
    }

    fn is_quad(&self, first: usize) -> bool {
        self.parts[first..first + 4]
            .iter()
            .all(|part| address::is_octet(&self.bytes[part.clone()]))
    }
}

/// An IPv6 address that was found.
struct Literal {
    range: Range<usize>,
    address: Ipv6Addr,
    /// A port or a label is joined to it by a bare colon; once `::` stands there, only brackets tell
    /// them apart.
    is_joined: bool,
}

impl Literal {
    /// Reads a run of hex digits and colons, with the dotted quad that may follow it.
    fn in_run(bytes: &[u8], run: Range<usize>) -> Option<Literal> {
        let run = without_stray_colons(bytes, run);
        let text = |range: Range<usize>| std::str::from_utf8(&bytes[range]).unwrap_or_default();
        let alone = |range: Range<usize>| {
            let address = address::parse_v6(text(range.clone()))?;
            Some(Literal {
                range,
                address,
                is_joined: false,
            })
        };
        let with_quad = quad_tail(bytes, &run).and_then(|end| alone(run.start..end));
        if let Some(literal) = with_quad.or_else(|| alone(run.clone())) {
            return Some(literal);
        }
        if let Some((address, len)) = address::parse_v6_with_bare_port(text(run.clone())) {
            return Some(Literal {
                range: run.start..run.start + len,
                address,
                is_joined: true,
            });
        }
        let (label, rest) = text(run.clone()).split_once(':')?;
        // Short of this, `s3:::beef` would be a label and an address.
        let is_unmistakable = label.len() > GROUP_BYTES_MAX || !rest.contains("::");
        if !is_unmistakable {
            return None;
        }
        let behind_label = alone(run.start + label.len() + 1..run.end)?;
        Some(Literal {
            is_joined: true,
            ..behind_label
        })
    }

    fn edit(&self, bytes: &[u8]) -> Option<Edit> {
        let full = IpAddr::V6(self.address);
        let masked = address::mask_ip(full);
        if masked == full {
            return None;
        }
        let touches_number = self
            .range
            .start
            .checked_sub(1)
            .is_some_and(|at| bytes[at] == b'.' || is_word_before(bytes, self.range.start));
        let touches_group = bytes.get(self.range.end).is_some_and(u8::is_ascii_hexdigit);
        let needs_brackets = if masked.is_ipv4() {
            touches_number
        } else {
            self.is_joined || touches_group
        };
        let with = if needs_brackets {
            format!("[{masked}]")
        } else {
            masked.to_string()
        };
        Some(Edit {
            range: self.range.clone(),
            with: Cow::Owned(with),
        })
    }
}

/// A single colon at either end belongs to the sentence (`ip:2001:db8::1: timed out`).
fn without_stray_colons(bytes: &[u8], run: Range<usize>) -> Range<usize> {
    let Range { mut start, mut end } = run;
    let colons = bytes[start..end].iter().take_while(|byte| **byte == b':').count();
    if matches!(colons, 1 | 3) {
        start += 1;
    }
    let colons = bytes[start..end].iter().rev().take_while(|byte| **byte == b':').count();
    if matches!(colons, 1 | 3) {
        end -= 1;
    }
    start..end
}

/// Where the dotted quad ends that the last group of `run` starts.
fn quad_tail(bytes: &[u8], run: &Range<usize>) -> Option<usize> {
    if bytes.get(run.end) != Some(&b'.') {
        return None;
    }
    let last_colon = run.start + bytes[run.clone()].iter().rposition(|byte| *byte == b':')?;
    let quad = DottedRun::at(bytes, last_colon + 1)?;
    (quad.count >= 4 && quad.is_quad(0)).then(|| quad.parts[3].end)
}

/// `Chrome/78.0.39.108`: a version behind a product token (RFC 9110, 10.1.5), not a path or a host
/// name (`/ip/203.0.113.77`, `edge.example.com/203.0.113.77:443`).
fn is_product_version(bytes: &[u8], start: usize, end: usize) -> bool {
    let Some([.., letter, b'/']) = bytes.get(..start) else {
        return false;
    };
    let has_port = matches!(bytes.get(end..), Some([b':', digit, ..]) if digit.is_ascii_digit());
    if !letter.is_ascii_alphabetic() || has_port {
        return false;
    }
    let before_slash = &bytes[..start - 1];
    let len = before_slash
        .iter()
        .rev()
        .take(PRODUCT_BYTES_MAX + 1)
        .take_while(|byte| is_word(**byte) || **byte == b'-')
        .count();
    let (before, token) = before_slash.split_at(before_slash.len() - len);
    if token.len() > PRODUCT_BYTES_MAX {
        return false;
    }
    match before.last() {
        None => true,
        Some(b'%') => escaped_byte(token).is_some_and(can_precede_product),
        Some(byte) => can_precede_product(*byte),
    }
}

/// The byte that the digits behind a `%` spell, however often the percent sign was escaped itself.
fn escaped_byte(mut digits: &[u8]) -> Option<u8> {
    for _ in 0..=LAYERS_MAX {
        match hex_pair(digits, 0)? {
            b'%' => digits = &digits[2..],
            byte => return Some(byte),
        }
    }
    None
}

fn can_precede_product(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'+' | b'(' | b';' | b',' | b'"' | b'\'')
}

/// `"app_version" : "1.2.3.4"`, also inside a string of JSON (`\"`): is the quad at `start` the
/// beginning of the value?
fn is_version_member(bytes: &[u8], start: usize) -> bool {
    let value = &bytes[..start];
    let value = value.strip_suffix(b"v").or(value.strip_suffix(b"V")).unwrap_or(value);
    let member = without_quote(value)
        .map(|before| without_filler(before, u8::is_ascii_whitespace))
        .and_then(|before| before.strip_suffix(b":"))
        .map(|before| without_filler(before, u8::is_ascii_whitespace))
        .and_then(without_quote);
    let Some(key) = member else {
        return false;
    };
    const SUFFIX: &[u8] = b"version";
    key.len()
        .checked_sub(SUFFIX.len())
        .is_some_and(|at| key[at..].eq_ignore_ascii_case(SUFFIX))
}

fn without_quote(bytes: &[u8]) -> Option<&[u8]> {
    bytes
        .strip_suffix(b"\"")
        .map(|before| without_filler(before, |byte| *byte == b'\\'))
}

fn without_filler(bytes: &[u8], is_filler: impl Fn(&u8) -> bool) -> &[u8] {
    let len = bytes.iter().rev().take(FILLER_BYTES_MAX).take_while(|byte| is_filler(byte)).count();
    &bytes[..bytes.len() - len]
}

/// Could a layer of escapes hold an address that the text as it stands does not show?
///
/// Only if an escape spells a character of an address, or stands right before one: `%20` between
/// two words does neither, and a log line full of those is not decoded.
fn hides_address(bytes: &[u8]) -> bool {
    memchr2_iter(b'%', b'\\', bytes).any(|at| match bytes[at] {
        b'%' => percent_hides_address(bytes, at),
        // The first backslash speaks for a whole run of them, or a long run would cost its square.
        _ if at > 0 && bytes[at - 1] == b'\\' => false,
        _ => backslash_hides_address(bytes, at),
    })
}

fn percent_hides_address(bytes: &[u8], at: usize) -> bool {
    let mut end = at + 1;
    for _ in 0..=LAYERS_MAX {
        let Some(byte) = hex_pair(bytes, end) else {
            return false;
        };
        end += 2;
        if is_address_byte(byte) || byte == b'\\' || starts_like_address(bytes, end) {
            return true;
        }
        if byte != b'%' {
            return false;
        }
    }
    false
}

fn backslash_hides_address(bytes: &[u8], at: usize) -> bool {
    let behind = end_of_run(bytes, at, |byte| byte == b'\\');
    let Some((byte, len)) = escape_at(bytes, behind - 1) else {
        return false;
    };
    let shows_itself = bytes[behind] == byte;
    if shows_itself {
        return false;
    }
    is_address_byte(byte) || byte == b'%' || byte == b'\\' || starts_like_address(bytes, behind - 1 + len)
}

fn starts_like_address(bytes: &[u8], start: usize) -> bool {
    let Some(rest) = bytes.get(start..) else {
        return false;
    };
    let colons = rest
        .iter()
        .take_while(|byte| is_hex_or_colon(**byte))
        .filter(|byte| **byte == b':')
        .count();
    colons >= 2 || DottedRun::at(rest, 0).is_some_and(|run| run.count >= 4)
}

/// The escape that starts at `at`: what it spells and how many bytes it takes. Characters beyond
/// ASCII all become `NOT_ASCII`; none of them is part of an address.
fn escape_at(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    match bytes.get(at)? {
        b'%' => Some((hex_pair(bytes, at + 1)?, 3)),
        b'\\' => match bytes.get(at + 1)? {
            b'n' | b'r' | b't' | b'b' | b'f' | b'v' => Some((b'\n', 2)),
            byte @ (b'"' | b'\'' | b'/' | b'\\') => Some((*byte, 2)),
            b'x' => Some((hex_pair(bytes, at + 2)?, 4)),
            b'u' => {
                let (high, low) = (hex_pair(bytes, at + 2)?, hex_pair(bytes, at + 4)?);
                Some((if high == 0 && low.is_ascii() { low } else { NOT_ASCII }, 6))
            }
            _ => None,
        },
        _ => None,
    }
}

const NOT_ASCII: u8 = 0x80;

fn hex_pair(bytes: &[u8], at: usize) -> Option<u8> {
    let &[high, low] = bytes.get(at..at + 2)? else {
        return None;
    };
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high << 4 | low).ok()
}

/// A text with layers of escapes taken off, and where each byte of it stands in the text.
struct View {
    bytes: Vec<u8>,
    /// One more than `bytes`: the last is the length of the text.
    at: Vec<usize>,
}

impl View {
    fn of(text: &str) -> View {
        View {
            bytes: text.as_bytes().to_vec(),
            at: (0..=text.len()).collect(),
        }
    }

    /// The same with one more layer taken off.
    fn decode(&self) -> View {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut at = Vec::with_capacity(self.at.len());
        let mut next = 0;
        while let Some(&byte) = self.bytes.get(next) {
            let (byte, len) = escape_at(&self.bytes, next).unwrap_or((byte, 1));
            bytes.push(byte);
            at.push(self.at[next]);
            next += len;
        }
        at.push(self.at[next]);
        View { bytes, at }
    }

    /// Every address in the view, as edits of the `text` it was made of.
    fn find_addresses(&self, text: &str, has_more: HasMoreLayers) -> Vec<Edit> {
        let mut edits = find_addresses(&self.bytes, has_more);
        for edit in &mut edits {
            let found = edit.range.clone();
            if let Some(colon) = memchr::memchr(b':', &self.bytes[found.clone()]) {
                let at = found.start + colon;
                let spelling = &text[self.at[at]..self.at[at + 1]];
                edit.with = Cow::Owned(edit.with.replace(':', spelling));
            }
            edit.range = self.at[found.start]..self.at[found.end];
        }
        edits
    }
}

fn end_of_run(bytes: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    start + bytes[start..].iter().take_while(|byte| belongs(**byte)).count()
}

fn is_hex_or_colon(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b':'
}

fn is_address_byte(byte: u8) -> bool {
    is_hex_or_colon(byte) || byte == b'.'
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Does a word end right before `start`? The letter of an escape (`\n`) is no word.
fn is_word_before(bytes: &[u8], start: usize) -> bool {
    match bytes.get(..start) {
        Some([.., b'\\', _]) => false,
        Some([.., byte]) => is_word(*byte),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(input: &str, expected: &str) {
        let scrubbed = scrub(input);
        assert_eq!(scrubbed, expected, "scrub of {input}");
        assert_eq!(scrub(&scrubbed), expected, "scrub of a scrub of {input}");
        if input == expected {
            assert!(matches!(scrubbed, Cow::Borrowed(_)), "{input} was copied for nothing");
        }
    }

    fn check_kept(input: &str) {
        check(input, input);
    }

    #[test]
    fn json_strings_keys_and_headers_lose_the_low_bits() {
        check(r#"{"ip":"203.0.113.77","at":5.02}"#, r#"{"ip":"203.0.113.0","at":5.02}"#);
        check(r#"{"203.0.113.77":1}"#, r#"{"203.0.113.0":1}"#);
        check(r#"{"ip":"2001:DB8:85A3:8D3:1319:8A2E:370:ABCD"}"#, r#"{"ip":"2001:db8:85a3::"}"#);
        check("203.0.113.77:5123", "203.0.113.0:5123");
        check(
            "X-Forwarded-For: 203.0.113.77, 198.51.100.9, unknown",
            "X-Forwarded-For: 203.0.113.0, 198.51.100.0, unknown",
        );
        check(
            r#"Forwarded: for="[2001:db8::1]:4711";proto=https"#,
            r#"Forwarded: for="[2001:db8::]:4711";proto=https"#,
        );
        check("/p?ip=203.0.113.77&u=1", "/p?ip=203.0.113.0&u=1");
        check("http://203.0.113.77/live.m3u8", "http://203.0.113.0/live.m3u8");
        check("a\t203.0.113.77\tGET\t08:00:00", "a\t203.0.113.0\tGET\t08:00:00");
        check("from 203.0.113.77.", "from 203.0.113.0.");
        check("IP 203.0.113.77.51734 >", "IP 203.0.113.0.51734 >");
        check("u203.0.113.77x", "u203.0.113.0x");
        check("0313.0.0161.0115", "0313.0.0161.0");
        check("203.000.113.077", "203.000.113.0");
    }

    #[test]
    fn ipv6_in_every_surrounding() {
        check("2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:85a3::");
        check("::ffff:203.0.113.77", "203.0.113.0");
        check("::ffff:cb00:714d", "203.0.113.0");
        check("::203.0.113.77", "203.0.113.0");
        check("2002:cb00:714d::1", "2002:cb00:7100::");
        check("64:ff9b::203.0.113.77", "64:ff9b::");
        check("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:4136::");
        check("fe80::1%eth0", "fe80::%eth0");
        check("[2001:db8::1]:443", "[2001:db8::]:443");
        check("2001:db8:85a3:8d3:1319:8a2e:370:7348:443", "[2001:db8:85a3::]:443");
        check("2001:db8::1:51734", "[2001:db8::]:51734");
        check("host:2001:db8:85a3:8d3::1: timed out", "host:2001:db8:85a3::: timed out");
        check("ip2001:db8:85a3:8d3::1", "ip2001:db8:85a3::");
        check("peer ::1.", "peer ::.");
        check("2001:db8::1/64", "2001:db8::/64");
        check_kept("2001:db8:85a3::");
        check_kept("2001:0DB8:85A3::");
    }

    #[test]
    fn percent_encoding_once_and_twice_is_seen_through() {
        check("ip=2001%3Adb8%3A%3A1&t=1", "ip=2001%3Adb8%3A%3A&t=1");
        check("ip=2001%253Adb8%253a%253A1&t=1", "ip=2001%253Adb8%253A%253A&t=1");
        check("%3A%3Affff%3A203.0.113.77", "203.0.113.0");
        check("203%2E0%2E113%2E77", "203%2E0%2E113%2E0");
        check("203%252E0%2E113.77", "203%252E0%2E113.0");
        check("%32%30%33.0.113.7%37", "%32%30%33.0.113.0");
        check("url=http%3A%2F%2F203.0.113.77%2Fa", "url=http%3A%2F%2F203.0.113.0%2Fa");
        check("%5B2001%3Adb8%3A%3A1%5D%3A443", "%5B2001%3Adb8%3A%3A%5D%3A443");
    }

    #[test]
    fn an_escape_before_an_address_is_no_part_of_it() {
        check(r"198.51.100.247,\x2010.89.113.224", r"198.51.100.0,\x2010.89.113.0");
        check("198.51.100.247,%2010.89.113.224", "198.51.100.0,%2010.89.113.0");
        check("198.51.100.247,%252010.89.113.224", "198.51.100.0,%252010.89.113.0");
        check(r#"{"x":"\u002010.89.113.224"}"#, r#"{"x":"\u002010.89.113.0"}"#);
        check("%202001:db8:85a3:8d3::1", "%202001:db8:85a3::");
        check("%25202001:db8:85a3:8d3::1", "%25202001:db8:85a3::");
        check(r"\x202001:db8:85a3:8d3::1", r"\x202001:db8:85a3::");
        check(r#""a\n2001:db8:85a3:8d3::1""#, r#""a\n2001:db8:85a3::""#);
        check(r#""a\f2001:db8:85a3:8d3::1""#, r#""a\f2001:db8:85a3::""#);
        check(r#""\u00e92001:db8:85a3:8d3::1""#, r#""\u00e92001:db8:85a3::""#);
        check(r#""a\n203.0.113.77""#, r#""a\n203.0.113.0""#);
        check("%10.1.2.3", "%10.1.2.0");
        check("%2510.1.2.3", "%2510.1.2.0");
        check("%20203.0.113.77", "%20203.0.113.0");
        check("%20::ffff:203.0.113.77", "%20203.0.113.0");
    }

    #[test]
    fn json_escapes_do_not_hide_an_address() {
        check(r#"{"ip":"203\u002e0\u002e113\u002e77"}"#, r#"{"ip":"203\u002e0\u002e113\u002e0"}"#);
        check(r#"{"ip":"2001\u003adb8\u003A\u003a1"}"#, r#"{"ip":"2001\u003adb8\u003a\u003a"}"#);
        check(r#"{"u":"http:\/\/203.0.113.77\/"}"#, r#"{"u":"http:\/\/203.0.113.0\/"}"#);
        check(r#"{"j":"{\"ip\":\"2001:db8::1\"}"}"#, r#"{"j":"{\"ip\":\"2001:db8::\"}"}"#);
        check(r#"{"j":"\\u0032\\u00303.0.113.77"}"#, r#"{"j":"\\u0032\\u00303.0.113.0"}"#);
    }

    #[test]
    fn what_is_no_address_is_borrowed_back() {
        for text in [
            "",
            "08:00:01",
            "2020-05-06T08:00:01.000Z",
            "2020-05-06T08:00:01.000+02:00",
            r#"{"user_id":"us-west-2:5f2c7b1e-8d0a-4a53-9b1f-2c6f0d1c7e10"}"#,
            r#"{"a":1,"b":-4.02,"c":[1.5,2.5],"d":{"e":null}}"#,
            "00:1a:2b:3c:4d:5e",
            "4.02",
            "1.2.3",
            "1.3.6.1.4.1.311",
            "256.1.1.1",
            "71.0.3578.98",
            "10.0.19041.1165",
            "203.0.113.0",
            "arn:aws:iam::123456789012:role/x",
            "arn:aws:iam::aws:policy",
            "arn:aws:s3:::bucket",
            "std::vector a::before Foo::Bar::Baz",
            "urn:uuid:5f2c7b1e-8d0a-4a53-9b1f-2c6f0d1c7e10",
            "aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99",
            "00:00:10,500 --> 00:00:12,000",
            "11:22:33:44",
            "100%:: %zz % \\ \\u12 %2",
            "größer 5.0 ä::ö",
        ] {
            check_kept(text);
        }
    }

    #[test]
    fn versions_are_kept_by_rule() {
        check_kept("Mozilla/5.0 (X11) Chrome/78.0.39.108 Safari/537.36");
        check_kept("Mozilla/5.0%2520(X11)%2520Chrome/78.0.39.108%2520Safari/537.36");
        check_kept("Chrome/78.0.39.108");
        check_kept(r#"{"app_version":"1.2.3.4"}"#);
        check_kept(r#"{"appVersion" : "v1.2.3.4-beta"}"#);
        check_kept(r#"{"j":"{\"player_version\":\"1.2.3.4\"}"}"#);
        check_kept("%22app_version%22%3A%221.2.3.4%22");
        check_kept("%2522app_version%2522%253A%25221.2.3.4%2522");
        check(r#"{"versions":"1.2.3.4"}"#, r#"{"versions":"1.2.3.0"}"#);
        check(r#"{"app_version":"2001:db8::1"}"#, r#"{"app_version":"2001:db8::"}"#);
        assert_eq!(scrub_version("1.2.3.4"), "1.2.3.4");
        assert_eq!(scrub_version("v1.2.3.4-b"), "v1.2.3.4-b");
        assert_eq!(scrub_version("1.2.3.4 at 203.0.113.77"), "1.2.3.4 at 203.0.113.0");
        assert_eq!(scrub_version("at 203.0.113.77"), "at 203.0.113.0");
    }

    #[test]
    fn a_path_or_a_host_is_no_product() {
        check("/ip/203.0.113.77", "/ip/203.0.113.0");
        check("%2Fip%2F203.0.113.77", "%2Fip%2F203.0.113.0");
        check("%2Fip/203.0.113.77", "%2Fip/203.0.113.0");
        check("http://example.com/203.0.113.77", "http://example.com/203.0.113.0");
        check("localhost/203.0.113.77:443", "localhost/203.0.113.0:443");
        check("a/b/203.0.113.77", "a/b/203.0.113.0");
        let long = "a".repeat(PRODUCT_BYTES_MAX + 1);
        check(&format!("{long}/203.0.113.77"), &format!("{long}/203.0.113.0"));
    }

    #[test]
    fn one_address_cut_does_not_complete_another() {
        check("1.::ffff:203.0.113.77", "1.[203.0.113.0]");
        check("1.2.3.4::ffff:5.6.7.8", "1.2.3.0[5.6.7.0]");
        check("1%2E2.3.4.5", "1%2E2.3.0.0");
        check("ada:2001:db8:85a3:8d3:1319:8a2e:370:7abc", "ada:[2001:db8:85a3::]");
    }

    #[test]
    fn a_log_line_keeps_every_other_byte() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn_v1_row.tsv");
        let line = std::fs::read_to_string(path).expect("the reference row is in the repository");
        check(&line, &line.replace("203.0.113.77", "203.0.113.0"));
    }

    #[test]
    fn a_reference_payload_is_stored_unchanged() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_player.ndjson");
        let lines = std::fs::read_to_string(path).expect("the reference events are in the repository");
        assert!(lines.lines().count() >= 25);
        lines.lines().for_each(check_kept);
    }

    #[test]
    fn hostile_lengths_take_linear_time() {
        for piece in ["\\", "%", "%25", ":", ".", "1.", "a:", "::", "%3A", "\\u003a", "1.2.3.4 ", "f"] {
            let text = piece.repeat(1_000_000 / piece.len());
            let twice = scrub(&text).into_owned();
            assert_eq!(scrub(&twice), twice, "{piece}");
        }
    }

    /// Every layer of percent and JSON escapes off, by other means than the scanner's.
    fn readings(text: &str) -> Vec<String> {
        let mut all = vec![text.to_owned()];
        for _ in 0..3 {
            let last = all.last().expect("never empty");
            let mut out = String::new();
            let mut rest = last.as_str();
            while let Some(first) = rest.chars().next() {
                let code = |prefix: &str, digits: usize| {
                    let hex = rest.strip_prefix(prefix)?.get(..digits)?;
                    let byte = u32::from_str_radix(hex, 16).ok()?;
                    Some((char::from_u32(byte)?, prefix.len() + digits))
                };
                let (decoded, len) = code("%", 2)
                    .or_else(|| code("\\u", 4))
                    .or_else(|| code("\\x", 2))
                    .unwrap_or((first, first.len_utf8()));
                out.push(decoded);
                rest = &rest[len..];
            }
            all.push(out);
        }
        all
    }

    /// Does any piece of any reading of `text` parse as `address`?
    fn reveals(text: &str, address: IpAddr) -> bool {
        readings(text).iter().any(|reading| {
            reading
                .split(|letter: char| !(letter.is_ascii_hexdigit() || ".:".contains(letter)))
                .flat_map(|piece| {
                    let starts = (0..piece.len()).map(|at| &piece[at..]);
                    starts.flat_map(|start| (2..=start.len()).map(|end| &start[..end]))
                })
                .filter(|piece| piece.len() >= 7 || piece.contains("::"))
                .any(|piece| address::parse(piece) == Some(address) && !is_only_prefix(piece))
        })
    }

    /// A piece that is its own mask says nothing.
    fn is_only_prefix(piece: &str) -> bool {
        address::parse(piece).is_some_and(|address| address::mask_ip(address) == address)
    }

    fn spellings(address: IpAddr) -> Vec<String> {
        let plain = address.to_string();
        let mut all = vec![plain.clone(), plain.to_uppercase()];
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                all.push(format!("::ffff:{v4}"));
                all.push(format!("::ffff:{a:02x}{b:02x}:{c:02x}{d:02x}"));
                all.push(format!("{v4}:5123"));
            }
            IpAddr::V6(v6) => {
                let groups = v6.segments().map(|group| format!("{group:04x}"));
                all.push(groups.join(":"));
                all.push(format!("[{v6}]:443"));
                all.push(format!("{v6}%eth0"));
            }
        }
        all
    }

    fn encode(text: &str, encoding: usize) -> String {
        let percent = |text: &str| text.replace('%', "%25").replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
        match encoding {
            1 => percent(text),
            2 => percent(&percent(text)),
            3 => text.replace('.', "%2E").replace(':', "%3a"),
            4 => text.replace('.', "\\u002e").replace(':', "\\u003A"),
            5 => text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            6 => text.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
            _ => text.to_owned(),
        }
    }

    const SURROUNDINGS: [(&str, &str); 17] = [
        ("", ""),
        ("{\"ip\":\"", "\",\"at\":5.02}"),
        ("{\"at\":5.02,\"", "\":1}"),
        ("/p?ip=", "&u=1"),
        ("a\t08:00:00\t", "\tGET"),
        ("198.51.100.247,\\x20", ""),
        ("x,%20", "%20y"),
        ("x,%2520", "%2520y"),
        ("\"\\u0020", "\\u0020\""),
        ("\"\\n", "\\n\""),
        ("for=", ";proto=https"),
        ("http://", "/a/b.ts"),
        ("Mozilla/5.0 (", ") Chrome/71.0.3578.98"),
        ("ip: ", " - "),
        ("größe ", " ä"),
        ("x-", ", unknown"),
        ("uid=us-west-2:5f2c7b1e-8d0a&a=", "&b=2.5"),
    ];

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (1u32 << 24..).prop_map(|bits| IpAddr::V4((bits | 1).into())),
            any::<u128>().prop_map(|bits| IpAddr::V6((bits | 1).into())),
            (any::<u32>(), any::<u16>())
                .prop_map(|(net, low)| IpAddr::V6((u128::from(net) << 96 | u128::from(low) | 1).into()))
                .prop_filter("an IPv4 address in disguise", |address| address::mask_ip(*address).is_ipv6()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn no_reading_of_the_result_holds_the_address(
            address in any_address(),
            spelling in 0usize..5,
            encoding in 0usize..7,
            around in 0..SURROUNDINGS.len(),
        ) {
            let spellings = spellings(address);
            let spelled = &spellings[spelling % spellings.len()];
            let (before, behind) = SURROUNDINGS[around];
            let text = format!("{before}{}{behind}", encode(spelled, encoding));
            let scrubbed = scrub(&text);
            prop_assert!(!reveals(&scrubbed, address), "{text} became {scrubbed}");
            let again = scrub(&scrubbed).into_owned();
            prop_assert_eq!(again, scrubbed.into_owned(), "{}", text);
        }

        #[test]
        fn any_text_is_scrubbed_once_and_for_all(
            text in "\\PC{0,40}|[0-9a-f.:%\\\\]{0,40}|([0-9]{1,3}|[.:%\\\\x]|25|20|2E|3A|::|u00|1\\.2\\.3\\.4|ä){0,24}"
        ) {
            let scrubbed = scrub(&text).into_owned();
            let again = scrub(&scrubbed).into_owned();
            prop_assert_eq!(again, scrubbed, "{}", text);
            let version = scrub_version(&text).into_owned();
            let again = scrub_version(&version).into_owned();
            prop_assert_eq!(again, version, "{}", text);
        }
    }
}
