//! The keys of one record, read: values by key, custom keys, and what was wrong with them.
//!
//! Stands between the transports, which find pairs, and the modes, which make events of them. The
//! version decides what a value must look like and may stand last, so all pairs are cut out first.
//!
//! Invariant: a key holds its last good value; a bad one never removes a good one.
//! Invariant: every value of a custom key that names a user or a device has a span, good or bad.

use std::ops::Range;

use super::grammar::{Pair, Raw, is_key};
use super::keys::{Key, Shard};
use super::rule;
use super::value::{Ranged, Reader, Tagged, Value};
use crate::event::decode::text::cut;
use crate::event::private::names_more_than_a_path;
use crate::event::{Identity, KeyFault};

/// The highest version understood.
const VERSION_MAX: i64 = 2;
/// Characters of a custom value (CTA-5004-B, section 3).
const CUSTOM_CHARS_MAX: usize = 64;
/// Characters of a user or device id: longer ones are kept whole, for a cut id names somebody else.
const IDENTITY_CHARS_MAX: usize = 512;
/// Faults kept of one record: each reserved key breaks two or three rules at the worst, and a line of
/// nothing but commas and strangers must not become a row of a megabyte.
const FAULTS_MAX: usize = 128;
/// Custom keys that name somebody end like this, in any case.
const IDENTITY_ENDINGS: [(&str, Identity); 5] = [
    ("-user-id", Identity::User),
    ("-userid", Identity::User),
    ("-uid", Identity::User),
    ("-device-id", Identity::Device),
    ("-deviceid", Identity::Device),
];

/// A pair, and the header that it came in.
pub(super) struct Found<'a> {
    shard: Option<Shard>,
    key: Option<Key>,
    pair: Pair<'a>,
}

impl<'a> Found<'a> {
    pub(super) fn new(shard: Option<Shard>, pair: Pair<'a>) -> Found<'a> {
        let key = Key::find(pair.key);
        Found { shard, key, pair }
    }
}

/// A custom key as sent; the value as text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Custom {
    pub(super) key: String,
    pub(super) text: String,
}

/// The decoded keys of one record, from whichever transport.
#[derive(Debug, Clone, PartialEq)]
pub struct CmcdSet {
    version: i64,
    is_ignored: bool,
    is_event: bool,
    has_reserved_key: bool,
    values: Vec<(Key, Value)>,
    /// Place in `values`, counted from 1; 0 is none.
    places: [u8; Key::COUNT],
    pub(super) custom: Vec<Custom>,
    /// Text of a value that was no integer, for the keys whose senders are known to do that (2.6).
    pub(super) sent: Vec<(Key, String)>,
    pub(super) user_id: Option<String>,
    pub(super) device_id: Option<String>,
    /// Where the text that was read holds user and device ids and telling URLs, ascending.
    pub(super) identity_spans: Vec<(Range<usize>, Identity)>,
    /// The URL whose query carried the set, without its query.
    pub(super) request_url: Option<String>,
    pub(super) decode_depth: Option<i64>,
    pub(super) faults: Vec<KeyFault>,
}

impl CmcdSet {
    /// 1 or 2: as sent, or as the keys show.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// How many times a query had to be percent-decoded (4.5 rule 3); `None` for other transports.
    pub fn decode_depth(&self) -> Option<i64> {
        self.decode_depth
    }

    /// The keys that broke a rule, in the order of the record.
    pub fn faults(&self) -> &[KeyFault] {
        &self.faults
    }

    /// `v` is above 2: nothing of the set may be used, and it has no values.
    pub fn is_ignored(&self) -> bool {
        self.is_ignored
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.custom.is_empty()
    }

    /// `sid`.
    pub fn session_id(&self) -> Option<&str> {
        self.text(Key::Sid)
    }

    /// True if `e` or `ts` was sent, which only events carry, whatever became of their values.
    pub fn is_event(&self) -> bool {
        self.is_event
    }

    pub(super) fn has_reserved_key(&self) -> bool {
        self.has_reserved_key
    }

    pub(super) fn values(&self) -> &[(Key, Value)] {
        &self.values
    }

    pub(super) fn value(&self, key: Key) -> Option<&Value> {
        let place = usize::from(self.places[key as usize]);
        self.values.get(place.checked_sub(1)?).map(|(_, value)| value)
    }

    pub(super) fn boolean(&self, key: Key) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The numbers of a list, or the one number of a scalar.
    pub(super) fn numbers(&self, key: Key) -> &[Tagged] {
        match self.value(key) {
            Some(Value::Integer(number)) => std::slice::from_ref(number),
            Some(Value::Integers(numbers)) => numbers,
            _ => &[],
        }
    }

    pub(super) fn decimal(&self, key: Key) -> Option<f64> {
        match self.value(key)? {
            Value::Decimal(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: Key) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn texts(&self, key: Key) -> &[Ranged] {
        match self.value(key) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    pub(super) fn token(&self, key: Key) -> Option<&'static str> {
        match self.value(key)? {
            Value::Token(token) => Some(token),
            _ => None,
        }
    }

    /// Reads pairs. `is_json`: texts stand for tokens.
    pub(super) fn read(found: &[Found<'_>], is_json: bool) -> CmcdSet {
        let mut set = CmcdSet {
            version: 1,
            is_ignored: false,
            is_event: false,
            has_reserved_key: false,
            values: Vec::with_capacity(found.len()),
            places: [0; Key::COUNT],
            custom: Vec::new(),
            sent: Vec::new(),
            user_id: None,
            device_id: None,
            identity_spans: Vec::new(),
            request_url: None,
            decode_depth: None,
            faults: Vec::new(),
        };
        set.find_version(found);
        if set.is_ignored {
            return set;
        }
        let mut broken = Vec::new();
        for Found { shard, key, pair } in found {
            let Some(key) = *key else {
                set.read_stranger(pair);
                continue;
            };
            set.check_header(key, *shard);
            if is_telling_url(key, &pair.value) {
                set.identity_spans.push((pair.span.clone(), Identity::Url));
            }
            let mut reader = Reader {
                version: set.version,
                is_json,
                broken: &mut broken,
            };
            let value = reader.read(key, &pair.value);
            set.put(key, value, pair, &broken);
            broken.clear();
        }
        set
    }

    /// The last `v` that can be read; without one, the keys that only version 2 has on events decide.
    fn find_version(&mut self, found: &[Found<'_>]) {
        let mut sent = None;
        for Found { key, pair, .. } in found {
            match key {
                Some(Key::V) => sent = version_of(&pair.value).or(sent),
                Some(Key::E | Key::Ts) => self.is_event = true,
                _ => {}
            }
        }
        match sent {
            Some(version) if version > VERSION_MAX => {
                self.is_ignored = true;
                self.fault(Key::V.name(), rule::UNSUPPORTED_VERSION);
            }
            Some(version) => self.version = version,
            None if self.is_event => {
                self.version = VERSION_MAX;
                self.fault(Key::V.name(), rule::MISSING);
            }
            None => {}
        }
    }

    pub(super) fn fault(&mut self, key: &'static str, rule: &'static str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(KeyFault { key, rule });
        }
    }

    /// CTA-5004 sends `pr` with the session, CTA-5004-B with the status.
    fn check_header(&mut self, key: Key, shard: Option<Shard>) {
        let Some(shard) = shard else {
            return;
        };
        let is_old_place = key == Key::Pr && shard == Shard::Session;
        if key.rule().shard != Some(shard) && !is_old_place {
            self.fault(key.name(), rule::WRONG_HEADER);
        }
    }

    fn put(&mut self, key: Key, value: Option<Value>, pair: &Pair<'_>, broken: &[&'static str]) {
        self.has_reserved_key = true;
        for rule in broken {
            self.fault(key.name(), rule);
        }
        let value = value.filter(|value| self.is_in_range(key, value));
        let Some(value) = value else {
            if broken.contains(&rule::NOT_AN_INTEGER) {
                self.remember_as_sent(key, &pair.value);
            }
            return;
        };
        let place = &mut self.places[key as usize];
        if *place == 0 {
            self.values.push((key, value));
            // There are fewer reserved keys than 256.
            *place = self.values.len() as u8;
            return;
        }
        self.values[usize::from(*place) - 1].1 = value;
        self.fault(key.name(), rule::DUPLICATE_KEY);
    }

    fn is_in_range(&mut self, key: Key, value: &Value) -> bool {
        let Value::Integer(member) = value else {
            return true;
        };
        let in_range = match key {
            Key::V => (1..=VERSION_MAX).contains(&member.number),
            Key::Rc => (0..=999).contains(&member.number),
            _ => true,
        };
        if !in_range {
            self.fault(key.name(), rule::OUT_OF_RANGE);
        }
        in_range
    }

    /// The players of 2.6 send decimals in these four; correcting players is not the decoder's to do.
    fn remember_as_sent(&mut self, key: Key, raw: &Raw<'_>) {
        if !matches!(key, Key::Bl | Key::Dl | Key::Mtp | Key::Tb) {
            return;
        }
        let text = match raw {
            Raw::Number(number, parameters) => format!("{number}{parameters}"),
            Raw::List(inside) => format!("({inside})"),
            _ => return,
        };
        self.sent.retain(|(known, _)| *known != key);
        self.sent.push((key, text));
    }

    /// A key that is none of the standard's: the sender's own if it has a hyphen.
    fn read_stranger(&mut self, pair: &Pair<'_>) {
        if !is_key(pair.key) {
            return self.fault(rule::CUSTOM, rule::MALFORMED_KEY);
        }
        if !pair.key.contains('-') {
            return self.fault(rule::CUSTOM, rule::UNKNOWN_KEY);
        }
        let identity = identity_of(pair.key);
        if let Some(identity) = identity
            && !pair.span.is_empty()
        {
            self.identity_spans.push((pair.span.clone(), identity));
        }
        let text = match &pair.value {
            Raw::Malformed => return self.fault(rule::CUSTOM, rule::MALFORMED),
            Raw::Text(text, _) => text.as_ref(),
            Raw::Token(word, _) => word,
            Raw::Word(word) => {
                self.fault(rule::CUSTOM, rule::UNQUOTED_STRING);
                word
            }
            other => {
                if self.version == VERSION_MAX {
                    self.fault(rule::CUSTOM, rule::CUSTOM_KEY_TYPE);
                }
                &plain_text(other)
            }
        };
        match identity {
            None => self.keep_custom(pair.key, text),
            Some(identity) => self.keep_identity(identity, text),
        }
    }

    fn keep_custom(&mut self, key: &str, text: &str) {
        let chars_max = if self.version == VERSION_MAX {
            CUSTOM_CHARS_MAX
        } else {
            usize::MAX
        };
        let (kept, was_cut) = cut(text, chars_max);
        if was_cut {
            self.fault(rule::CUSTOM, rule::TOO_LONG);
        }
        self.custom.push(Custom {
            key: key.to_owned(),
            text: kept.to_owned(),
        });
    }

    fn keep_identity(&mut self, identity: Identity, text: &str) {
        if text.chars().nth(CUSTOM_CHARS_MAX).is_some() && self.version == VERSION_MAX {
            self.fault(rule::CUSTOM, rule::TOO_LONG);
        }
        let (kept, _) = cut(text, IDENTITY_CHARS_MAX);
        let field = match identity {
            Identity::User => &mut self.user_id,
            Identity::Device => &mut self.device_id,
            Identity::Position | Identity::Url => return,
        };
        *field = Some(kept.to_owned()).filter(|id| !id.is_empty());
    }
}

/// What the value of a pair must not be stored for as it is.
pub(super) fn identity_in(pair: &Pair<'_>) -> Option<Identity> {
    let is_url = Key::find(pair.key).is_some_and(|key| is_telling_url(key, &pair.value));
    if is_url { Some(Identity::Url) } else { identity_of(pair.key) }
}

/// True for a key of URLs whose value may hold more than paths.
fn is_telling_url(key: Key, raw: &Raw<'_>) -> bool {
    matches!(key, Key::Nor | Key::Url)
        && match raw {
            Raw::Text(text, _) | Raw::List(text) => names_more_than_a_path(text),
            Raw::Token(word, _) | Raw::Word(word) => names_more_than_a_path(word),
            Raw::Malformed => true,
            Raw::Boolean(_) | Raw::Number(..) => false,
        }
}

fn identity_of(key: &str) -> Option<Identity> {
    let ends = |ending: &str| {
        let start = key.len().checked_sub(ending.len());
        start.is_some_and(|start| key.as_bytes()[start..].eq_ignore_ascii_case(ending.as_bytes()))
    };
    let known = IDENTITY_ENDINGS.iter().find(|(ending, _)| ends(ending));
    known.map(|(_, identity)| *identity)
}

/// A custom value that is neither a string nor a token, as text.
fn plain_text(raw: &Raw<'_>) -> String {
    match raw {
        Raw::Number(number, _) => (*number).to_owned(),
        Raw::Boolean(value) => value.to_string(),
        Raw::List(inside) => format!("({inside})"),
        Raw::Text(..) | Raw::Token(..) | Raw::Word(_) | Raw::Malformed => String::new(),
    }
}

/// A version that could be meant: a whole number above 0.
fn version_of(raw: &Raw<'_>) -> Option<i64> {
    let Raw::Number(text, _) = raw else {
        return None;
    };
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().unwrap_or(i64::MAX);
    (is_whole && number > 0).then_some(number)
}

/// True if some version reads the value.
pub(super) fn is_readable(key: Key, raw: &Raw<'_>) -> bool {
    let mut broken = Vec::new();
    let mut reader = Reader {
        version: VERSION_MAX,
        is_json: false,
        broken: &mut broken,
    };
    reader.read(key, raw).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::vectors::rendered;
    use super::*;

    /// The set and the faults of a line, in words.
    fn read(line: &str) -> (String, Vec<String>) {
        let set = CmcdSet::from_text(line);
        let faults = set.faults().iter().map(|fault| format!("{} {}", fault.key, fault.rule));
        (rendered(&set).to_string(), faults.collect())
    }

    fn check(line: &str, values: &str, faults: &[&str]) {
        let expected: Vec<String> = faults.iter().map(|fault| (*fault).to_owned()).collect();
        assert_eq!(read(line), (values.to_owned(), expected), "{line}");
    }

    /// Events and metrics, 6.2: the standard's column.
    #[test]
    fn where_the_oracles_disagree_the_standard_holds() {
        check("e=h,v=2", r#"{"e":"h","v":2}"#, &[]);
        check("sf=e,v=2", r#"{"sf":"e","v":2}"#, &[]);
        check("sta=w,v=2", r#"{"sta":"w","v":2}"#, &[]);
        check("bs=?0,v=2", r#"{"bs":false,"v":2}"#, &[]);
        check(
            "br=(3000;v 164;a),v=2",
            r#"{"br":[{"type":"v","value":3000},{"type":"a","value":164}],"v":2}"#,
            &[],
        );
        check("com.example-x=1,v=2", r#"{"com.example-x":1,"v":2}"#, &["custom custom_key_type"]);
        check("com.example-myKey=1", r#"{"com.example-myKey":1}"#, &[]);
        check("bl=3993.8321995464853,sid=\"s\"", r#"{"sid":"s"}"#, &["bl not_an_integer"]);
        check("ts=1640995200000.5,e=t,v=2", r#"{"e":"t","v":2}"#, &["ts not_an_integer"]);
        check(r#"com.example-q="\"Q\"",bl=1"#, r#"{"bl":1,"com.example-q":"\"Q\""}"#, &[]);
        check("d=12px,bl=1", r#"{"bl":1}"#, &["d wrong_type"]);
        check("v=3,bl=1", "{}", &["v unsupported_version"]);
        assert!(CmcdSet::from_text("bl=1,v=3").is_ignored());
    }

    #[test]
    fn the_last_good_value_of_a_key_holds() {
        check("bl=1,bl=2", r#"{"bl":2}"#, &["bl duplicate_key"]);
        check("bl=1,bl=x", r#"{"bl":1}"#, &["bl wrong_type"]);
        check("v=2,v=1,bl=1", r#"{"bl":1,"v":1}"#, &["v duplicate_key"]);
    }

    #[test]
    fn a_stranger_is_ignored_and_a_custom_key_is_kept() {
        check("foo=1,bl=1", r#"{"bl":1}"#, &["custom unknown_key"]);
        check("BL=2,bl=1", r#"{"bl":1}"#, &["custom unknown_key"]);
        check("b\"l=2,bl=1,=3", r#"{"bl":1}"#, &["custom malformed_key", "custom malformed_key"]);
        check("com.a-b=tok,com.a-c=\"t x\",v=2", r#"{"com.a-b":"tok","com.a-c":"t x","v":2}"#, &[]);
        check(
            "com.a-b=1.5,com.a-c,v=2",
            r#"{"com.a-b":"1.5","com.a-c":true,"v":2}"#,
            &["custom custom_key_type"; 2],
        );
        check(
            "com.a-b=(1 2),com.a-c=9x",
            r#"{"com.a-b":"(1 2)","com.a-c":"9x"}"#,
            &["custom unquoted_string"],
        );
        check("com.a-b=\"x,bl=1", r#"{"bl":1}"#, &["custom malformed"]);
        let long = "x".repeat(65);
        check(
            &format!("com.a-b={long},v=2"),
            &format!("{{\"com.a-b\":\"{}\",\"v\":2}}", "x".repeat(64)),
            &["custom too_long"],
        );
        check(&format!("com.a-b={long}"), &format!("{{\"com.a-b\":\"{long}\"}}"), &[]);
    }

    #[test]
    fn a_line_of_strangers_has_bounded_faults_and_keeps_its_keys() {
        let set = CmcdSet::from_text(&format!("{}sid=\"s\"", "x=1,".repeat(100_000)));
        assert_eq!((set.faults().len(), set.session_id()), (FAULTS_MAX, Some("s")));
    }

    #[test]
    fn a_draft_of_version_2_is_understood_and_named() {
        check(
            "cdn=\"x\",df=3,v=2",
            r#"{"cdn":"x","df":3,"v":2}"#,
            &["cdn draft_key", "df draft_key"],
        );
    }

    #[test]
    fn four_keys_that_players_send_as_decimals_are_remembered_as_sent() {
        let sent = |line: &str| -> Vec<(&'static str, String)> {
            let set = CmcdSet::from_text(line);
            set.sent.into_iter().map(|(key, text)| (key.name(), text)).collect()
        };
        assert_eq!(
            sent("bl=25767.613999998,dl=1.5,mtp=2.5,tb=3.5,br=4.5,rtp=5.5,d=6.5"),
            [("bl", "25767.613999998"), ("dl", "1.5"), ("mtp", "2.5"), ("tb", "3.5")].map(|(key, text)| (key, text.to_owned()))
        );
        assert_eq!(sent("bl=(5000.5;v 300;a),v=2"), [("bl", "(5000.5;v 300;a)".to_owned())]);
        assert_eq!(sent("bl=12px,dl=-1,mtp=5"), []);
    }

    #[test]
    fn ids_of_people_and_devices_have_their_fields_and_their_spans() {
        let check = |line: &str, user: Option<&str>, device: Option<&str>, spans: &[&str]| {
            let set = CmcdSet::from_text(line);
            assert_eq!((set.user_id.as_deref(), set.device_id.as_deref()), (user, device), "{line}");
            let texts: Vec<&str> = set.identity_spans.iter().map(|(span, _)| &line[span.clone()]).collect();
            assert_eq!(texts, spans, "{line}");
            assert!(set.custom.is_empty(), "{line}");
        };
        check(
            "com.a-user-id=\"ann\",com.a-Device-ID=tv1",
            Some("ann"),
            Some("tv1"),
            &["ann", "tv1"],
        );
        check("com.a-userId=\"a\\\"b\",bl=1", Some("a\"b"), None, &["a\\\"b"]);
        check("com.a-uid=4711,com.a-uid=\"x\"", Some("x"), None, &["4711", "x"]);
        check("com.a-uid=\"open,bl=1", None, None, &["open"]);
        check("com.a-uid=\"\",com.a-uid", Some("true"), None, &[]);
        check("sid=\"s\",uid=5", None, None, &[]);
    }
}
