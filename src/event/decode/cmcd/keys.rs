//! The one table of reserved keys: CMCD version 1 (CTA-5004) and version 2 (CTA-5004-B).
//!
//! Stands below all readers of CMCD: what a key is called, what its value looks like in which
//! version, in which header it travels, and on which records it may stand (events and metrics, 2.5).
//!
//! Invariant: `RULES` is sorted by name and stands in the order of `Key`.

/// Characters kept of a text for which the standard has no limit: a URL is the longest honest one.
pub(super) const TEXT_CHARS_MAX: usize = 4096;
/// Longest name of a reserved key, in bytes; `packed` holds eight.
const NAME_BYTES_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Ab,
    Bg,
    Bl,
    Br,
    Bs,
    Bsa,
    Bsd,
    Bsda,
    /// Draft of version 2: the CDN's name.
    Cdn,
    Cen,
    Cid,
    Cmsdd,
    Cmsds,
    Cs,
    D,
    /// Draft of version 2: what became `dfa`.
    Df,
    Dfa,
    Dl,
    E,
    Ec,
    H,
    Lab,
    Lb,
    Ltc,
    Msd,
    Mtp,
    Nor,
    Nr,
    Nrr,
    Ot,
    Pb,
    Pr,
    Pt,
    Rc,
    Rtp,
    Sf,
    Sid,
    Smrt,
    Sn,
    St,
    Sta,
    Su,
    Tab,
    Tb,
    Tbl,
    Tpb,
    Ts,
    Ttfb,
    Ttfbb,
    Ttlb,
    Url,
    V,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Integer,
    /// Integer of `ltc`: shaka sends decimals, and a clock may be a little ahead of the live edge (2.6).
    Latency,
    Decimal,
    /// Inner list of integers, each perhaps tagged with an object type.
    Integers,
    /// String of at most so many characters.
    Text(usize),
    /// Inner list of strings.
    Texts,
    Token(&'static [&'static str]),
}

/// The header that carries a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shard {
    Request,
    Object,
    Status,
    Session,
}

impl Shard {
    /// The shard of a header, whose name may be in any case.
    pub(super) fn of_header(name: &str) -> Option<Shard> {
        let names = [
            ("CMCD-Request", Shard::Request),
            ("CMCD-Object", Shard::Object),
            ("CMCD-Status", Shard::Status),
            ("CMCD-Session", Shard::Session),
        ];
        let known = names.into_iter().find(|(known, _)| name.trim().eq_ignore_ascii_case(known));
        known.map(|(_, shard)| shard)
    }
}

/// The records on which a key may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Anywhere,
    RequestsOnly,
    AnyEvent,
    /// Only on the event with this token.
    Event(&'static str),
}

impl Place {
    /// `event`: `None` on a request; `Some("")` on an event whose token could not be read.
    pub(super) fn allows(self, event: Option<&str>) -> bool {
        match (self, event) {
            (Place::Anywhere, _) | (Place::RequestsOnly, None) => true,
            (Place::RequestsOnly, Some(_)) | (_, None) => false,
            (Place::AnyEvent, Some(_)) => true,
            (Place::Event(only), Some(token)) => token.is_empty() || token == only,
        }
    }
}

/// One row of the standard's table.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyRule {
    pub(super) key: Key,
    pub(super) name: &'static str,
    /// `None`: version 1 does not have the key.
    pub(super) v1: Option<Form>,
    /// `None`: version 2 does not have the key.
    pub(super) v2: Option<Form>,
    /// `None`: the key never travels in a header.
    pub(super) shard: Option<Shard>,
    pub(super) place: Place,
}

impl Key {
    pub(super) const COUNT: usize = RULES.len();

    pub(super) fn rule(self) -> &'static KeyRule {
        &RULES[self as usize]
    }

    pub(super) fn name(self) -> &'static str {
        self.rule().name
    }

    /// The reserved key with this name; names are case-sensitive.
    pub(super) fn find(name: &str) -> Option<Key> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let number = packed(name);
        let mut at = home(number);
        loop {
            let (known, index) = PLACES[at];
            if known == number {
                return RULES.get(usize::from(index)).map(|rule| rule.key);
            }
            if index == NO_KEY {
                return None;
            }
            at = (at + 1) % PLACES_COUNT;
        }
    }

    pub(super) fn is_draft(self) -> bool {
        matches!(self, Key::Cdn | Key::Df)
    }
}

/// The name, of at most eight bytes, as one number, so that a look-up compares numbers.
const fn packed(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut number = 0;
    let mut at = 0;
    while at < bytes.len() {
        number |= (bytes[at] as u64) << (u64::BITS - 8 * (at as u32 + 1));
        at += 1;
    }
    number
}

/// Places of the look-up table: enough for nearly every name to stand where it is looked for first.
const PLACES_COUNT: usize = 512;
/// The index of an empty place.
const NO_KEY: u8 = u8::MAX;

/// Where a name is looked for first.
const fn home(number: u64) -> usize {
    // The golden ratio spreads numbers that differ in few bits; the upper nine bits are the place.
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - PLACES_COUNT.ilog2())) as usize
}

/// Packed names and their places in `RULES`: each name at or after its home, with no gap between.
static PLACES: [(u64, u8); PLACES_COUNT] = {
    let mut places = [(0, NO_KEY); PLACES_COUNT];
    let mut index = 0;
    while index < RULES.len() {
        let number = packed(RULES[index].name);
        let mut at = home(number);
        while places[at].1 != NO_KEY {
            at = (at + 1) % PLACES_COUNT;
        }
        places[at] = (number, index as u8);
        index += 1;
    }
    places
};

pub(super) const EVENTS: &[&str] = &[
    "abs", "abe", "ae", "as", "b", "bc", "c", "ce", "e", "h", "m", "pc", "pe", "pr", "ps", "rr", "sk", "t", "um",
];
pub(super) const OBJECT_TYPES: &[&str] = &["m", "a", "v", "av", "i", "c", "tt", "k", "o"];
const STATES: &[&str] = &["d", "s", "p", "k", "r", "a", "w", "e", "f", "q"];
const FORMATS_V1: &[&str] = &["d", "h", "s", "o"];
const FORMATS_V2: &[&str] = &["d", "h", "e", "s", "o"];
const STREAM_TYPES_V1: &[&str] = &["v", "l"];
const STREAM_TYPES_V2: &[&str] = &["v", "l", "ll"];

const fn row(key: Key, name: &'static str, v1: Option<Form>, v2: Option<Form>, shard: Option<Shard>, place: Place) -> KeyRule {
    KeyRule {
        key,
        name,
        v1,
        v2,
        shard,
        place,
    }
}

const fn both(key: Key, name: &'static str, v1: Form, v2: Form, shard: Shard) -> KeyRule {
    row(key, name, Some(v1), Some(v2), Some(shard), Place::Anywhere)
}

const fn second(key: Key, name: &'static str, v2: Form, shard: Shard) -> KeyRule {
    row(key, name, None, Some(v2), Some(shard), Place::Anywhere)
}

const fn event_only(key: Key, name: &'static str, v2: Form, place: Place) -> KeyRule {
    row(key, name, None, Some(v2), None, place)
}

use Form::{Boolean, Decimal, Integer, Integers, Latency, Text, Texts, Token};
use Shard::{Object, Request, Session, Status};

const ANY_TEXT: Form = Text(TEXT_CHARS_MAX);
const ON_RR: Place = Place::Event("rr");

pub(super) static RULES: [KeyRule; 52] = [
    second(Key::Ab, "ab", Integers, Object),
    second(Key::Bg, "bg", Boolean, Status),
    both(Key::Bl, "bl", Integer, Integers, Request),
    both(Key::Br, "br", Integer, Integers, Object),
    both(Key::Bs, "bs", Boolean, Boolean, Status),
    second(Key::Bsa, "bsa", Integers, Status),
    second(Key::Bsd, "bsd", Integers, Status),
    second(Key::Bsda, "bsda", Integers, Status),
    second(Key::Cdn, "cdn", ANY_TEXT, Status),
    event_only(Key::Cen, "cen", Text(64), Place::Event("ce")),
    both(Key::Cid, "cid", Text(64), Text(128), Session),
    event_only(Key::Cmsdd, "cmsdd", ANY_TEXT, ON_RR),
    event_only(Key::Cmsds, "cmsds", ANY_TEXT, ON_RR),
    second(Key::Cs, "cs", ANY_TEXT, Request),
    both(Key::D, "d", Integer, Integer, Object),
    second(Key::Df, "df", Integer, Request),
    second(Key::Dfa, "dfa", Integer, Request),
    both(Key::Dl, "dl", Integer, Integer, Request),
    event_only(Key::E, "e", Token(EVENTS), Place::AnyEvent),
    second(Key::Ec, "ec", Texts, Status),
    event_only(Key::H, "h", Text(128), Place::AnyEvent),
    second(Key::Lab, "lab", Integers, Object),
    second(Key::Lb, "lb", Integers, Object),
    second(Key::Ltc, "ltc", Latency, Request),
    second(Key::Msd, "msd", Integer, Session),
    both(Key::Mtp, "mtp", Integer, Integers, Request),
    both(Key::Nor, "nor", ANY_TEXT, Texts, Request),
    second(Key::Nr, "nr", Boolean, Status),
    row(Key::Nrr, "nrr", Some(ANY_TEXT), None, Some(Request), Place::RequestsOnly),
    both(Key::Ot, "ot", Token(OBJECT_TYPES), Token(OBJECT_TYPES), Object),
    second(Key::Pb, "pb", Integers, Request),
    both(Key::Pr, "pr", Decimal, Decimal, Status),
    second(Key::Pt, "pt", Integer, Status),
    event_only(Key::Rc, "rc", Integer, ON_RR),
    both(Key::Rtp, "rtp", Integer, Integer, Status),
    both(Key::Sf, "sf", Token(FORMATS_V1), Token(FORMATS_V2), Session),
    both(Key::Sid, "sid", Text(64), Text(64), Session),
    event_only(Key::Smrt, "smrt", ANY_TEXT, ON_RR),
    second(Key::Sn, "sn", Integer, Request),
    both(Key::St, "st", Token(STREAM_TYPES_V1), Token(STREAM_TYPES_V2), Session),
    second(Key::Sta, "sta", Token(STATES), Request),
    both(Key::Su, "su", Boolean, Boolean, Request),
    second(Key::Tab, "tab", Integers, Object),
    both(Key::Tb, "tb", Integer, Integers, Object),
    second(Key::Tbl, "tbl", Integers, Request),
    second(Key::Tpb, "tpb", Integers, Object),
    event_only(Key::Ts, "ts", Integer, Place::AnyEvent),
    event_only(Key::Ttfb, "ttfb", Integer, ON_RR),
    event_only(Key::Ttfbb, "ttfbb", Integer, ON_RR),
    event_only(Key::Ttlb, "ttlb", Integer, ON_RR),
    event_only(Key::Url, "url", ANY_TEXT, ON_RR),
    both(Key::V, "v", Integer, Integer, Session),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_in_the_order_of_the_enum() {
        for (place, rule) in RULES.iter().enumerate() {
            assert_eq!(rule.key as usize, place, "{}", rule.name);
            assert_eq!(Key::find(rule.name), Some(rule.key));
        }
        assert!(RULES.is_sorted_by(|left, right| left.name < right.name));
        for stranger in ["", "BL", "bl ", "blx", "brr", "ttfbbb", "ttfbbbbbbbbb", "com.example-x", "ä"] {
            assert_eq!(Key::find(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn version_1_has_18_keys_and_version_2_has_49() {
        let standard = || RULES.iter().filter(|rule| !rule.key.is_draft());
        assert_eq!(standard().filter(|rule| rule.v1.is_some()).count(), 18);
        assert_eq!(standard().filter(|rule| rule.v2.is_some()).count(), 49);
        assert_eq!((EVENTS.len(), STATES.len(), OBJECT_TYPES.len()), (19, 10, 9));
    }

    #[test]
    fn a_key_stands_where_the_standard_allows_it() {
        let check = |key: Key, event: Option<&str>, expected: bool| {
            assert_eq!(key.rule().place.allows(event), expected, "{} on {event:?}", key.name());
        };
        check(Key::Bl, None, true);
        check(Key::Bl, Some("t"), true);
        check(Key::Nrr, None, true);
        check(Key::Nrr, Some("rr"), false);
        check(Key::Ts, None, false);
        check(Key::Ts, Some("t"), true);
        check(Key::Rc, Some("rr"), true);
        check(Key::Rc, Some("t"), false);
        check(Key::Rc, Some(""), true);
        check(Key::Cen, Some("ce"), true);
        check(Key::Cen, Some("t"), false);
        check(Key::Cen, None, false);
    }
}
