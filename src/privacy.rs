//! From what may name a person to what may be stored: `PlayerEvent` to `AnonymousEvent`.
//!
//! Stands after `enrich` (which needs the full address) and before everything that writes. Addresses
//! are cut to /24 or /48 wherever they stand, user and device ids become keyed pseudonyms, and the
//! keys that depend on the result (`event_id`, `session_key`) are computed here and nowhere else.
//!
//! ```text
//! client_address "203.0.113.77:5123"     ->  client_prefix "203.0.113.0", client_address gone
//! user_id "us-west-2:5f2c..."            ->  "p-" and 32 hex digits, in the payload as well
//! payload {"ip":"203.0.113.77","at":5.0} ->  {"ip":"203.0.113.0","at":5.0}
//! ```
//!
//! Invariant: `Anonymous` can be made here only, so nothing else can be stored.
//! Invariant: anonymising the record decoded from a stored payload again gives the same ids, keys and
//! payload: bronze can be replayed.
//! Invariant: total; a record that cannot be treated loses its payload, never its anonymity.

pub mod address;
mod attributes;
pub mod lists;
mod named;
pub mod scrub;
mod withheld;

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use hmac::{Hmac, Mac};
use memchr::memmem;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::Sha256;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use crate::event::{CdnRequest, Device, Identity, Network, PlayerEvent};
use lists::Lists;
use scrub::{scrub, scrub_version};

/// What every pseudonym starts with, so that one is known when it is met again.
const PSEUDONYM_PREFIX: &str = "p-";

/// 128 bits: no two of a billion viewers collide.
const PSEUDONYM_BYTES: usize = 16;

const PSEUDONYM_LEN: usize = PSEUDONYM_PREFIX.len() + 2 * PSEUDONYM_BYTES;

/// The entry of `ext` that names what a player will ask for next.
const NEXT_OBJECTS: &str = "nor";

/// The rule an event broke whose decoder marked identity where the payload has no such place.
const UNUSABLE_IDENTITY_SPAN: &str = "unusable_identity_span";

/// A record that names nobody. Made by `Privacy` only. Boxed: a record has over a hundred fields, and
/// rows by the ten thousand are sorted, split and handed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Anonymous<T>(Box<T>);

pub type AnonymousEvent = Anonymous<PlayerEvent>;
pub type AnonymousRequest = Anonymous<CdnRequest>;

impl<T> Deref for Anonymous<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What becomes of user and device ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityPolicy {
    /// Replaced by a keyed pseudonym.
    Pseudonym,
    /// Stored as sent; an id that is an address is still cut.
    Keep,
}

/// The rules of anonymity, with the key of the pseudonyms.
#[derive(Clone)]
pub struct Privacy {
    policy: IdentityPolicy,
    lists: Lists,
    /// HMAC with the key already taken in: half the work of every pseudonym.
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for Privacy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Privacy").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Privacy {
    pub fn new(policy: IdentityPolicy, key: [u8; 32]) -> Privacy {
        let keyed = Hmac::new_from_slice(&key).expect("HMAC takes a key of any length");
        let lists = Lists::default();
        Privacy { policy, lists, keyed }
    }

    /// With these lists in place of the default, by which CDN logs keep no cookie, of a query its CMCD alone, and
    /// of a referrer its origin.
    pub fn with_lists(self, lists: Lists) -> Privacy {
        Privacy { lists, ..self }
    }

    /// `p-` and the first 128 bits of HMAC-SHA-256 of `id` in hex (EDPB Guidelines 01/2025: a keyed
    /// MAC). A pseudonym stays what it is, or a replay of bronze would make a second one of it.
    pub fn pseudonym(&self, id: &str) -> String {
        if is_pseudonym(id) {
            return id.to_owned();
        }
        let mut mac = self.keyed.clone();
        mac.update(id.as_bytes());
        let digest = mac.finalize().into_bytes();
        let mut out = String::with_capacity(PSEUDONYM_LEN);
        out.push_str(PSEUDONYM_PREFIX);
        for byte in &digest[..PSEUDONYM_BYTES] {
            push_hex(&mut out, *byte);
        }
        out
    }

    pub fn anonymise(&self, event: impl Into<Box<PlayerEvent>>) -> AnonymousEvent {
        let mut event: Box<PlayerEvent> = event.into();
        let client = Client::of(event.client_address.take());
        self.replace_identity(&mut event);
        let must_forget = client.clean(&mut event.payload);
        for text in event_texts(&mut event) {
            client.clean_text(text, must_forget);
        }
        for version in [&mut event.app_version, &mut event.player_version].into_iter().flatten() {
            replace_if_owned(version, scrub_version);
            client.forget_if(must_forget, version);
        }
        self.treat_next_objects(&mut event);
        client.clean_ext(&mut event.ext, must_forget);
        event.client_prefix = client.prefix(event.client_prefix.take());
        identify_event(&mut event);
        Anonymous(event)
    }

    pub fn anonymise_request(&self, request: impl Into<Box<CdnRequest>>) -> AnonymousRequest {
        let mut request: Box<CdnRequest> = request.into();
        self.withhold(&mut request);
        let client = Client::of(request.client_address.take());
        let must_forget = client.clean(&mut request.payload);
        for text in request_texts(&mut request) {
            client.clean_text(text, must_forget);
        }
        for item in &mut request.forwarded_for {
            match address::mask(item) {
                Some(prefix) => *item = prefix,
                None => client.clean_text(item, must_forget),
            }
        }
        client.clean_ext(&mut request.ext, must_forget);
        request.client_prefix = client.prefix(request.client_prefix.take());
        request.event_id = request_event_id(&request);
        Anonymous(request)
    }

    /// User and device id by policy, in their fields and in the payload.
    fn replace_identity(&self, event: &mut PlayerEvent) {
        let spans = std::mem::take(&mut event.identity_spans);
        event.user_id = event.user_id.take().filter(|id| !id.is_empty());
        event.device_id = event.device_id.take().filter(|id| !id.is_empty());
        let spans = match self.policy {
            IdentityPolicy::Pseudonym => spans,
            // Where a viewer stands is kept under no policy, and a URL's query by its own list.
            IdentityPolicy::Keep => {
                let is_kept = |identity: Identity| matches!(identity, Identity::User | Identity::Device);
                spans.into_iter().filter(|(_, identity)| !is_kept(*identity)).collect()
            }
        };
        if spans.is_empty() && self.policy == IdentityPolicy::Keep {
            return;
        }
        if self.policy == IdentityPolicy::Pseudonym {
            for id in [&mut event.user_id, &mut event.device_id].into_iter().flatten() {
                *id = self.pseudonym(id);
            }
        }
        match self.splice_identity(event, spans) {
            Some(payload) => event.payload = payload,
            None => {
                event.payload.clear();
                event.dq_flags.push(UNUSABLE_IDENTITY_SPAN);
            }
        }
    }

    /// CMCD's `nor` where it has no column of its own.
    fn treat_next_objects(&self, event: &mut PlayerEvent) {
        let named = event.ext.iter_mut().filter(|(key, _)| key == NEXT_OBJECTS);
        for (_, urls) in named {
            if let Some(treated) = self.lists.named_urls(urls) {
                *urls = treated;
            }
        }
    }

    /// The payload with a pseudonym in place of every span. `None`: a span is not in the payload.
    ///
    /// The last span of a kind takes the pseudonym of its field, whatever the decoder did to the
    /// text (cut it, say): the last duplicate of a JSON member counts, and column and payload must
    /// agree when bronze is replayed.
    fn splice_identity(&self, event: &PlayerEvent, mut spans: Vec<(Range<usize>, Identity)>) -> Option<String> {
        spans.sort_by_key(|(range, _)| (range.start, range.end));
        let payload = event.payload.as_str();
        let mut out = String::with_capacity(payload.len() + spans.len() * PSEUDONYM_LEN);
        let mut done = 0;
        for (at, (range, identity)) in spans.iter().enumerate() {
            if range.start < done {
                return None;
            }
            let sent = payload.get(range.clone())?;
            let field = match identity {
                Identity::User => &event.user_id,
                Identity::Device => &event.device_id,
                Identity::Position => &None,
                Identity::Url => {
                    let url = self.lists.named_urls(sent);
                    out.extend([&payload[done..range.start], url.as_deref().unwrap_or(sent)]);
                    done = range.end;
                    continue;
                }
            };
            let is_last = spans[at + 1..].iter().all(|(_, other)| other != identity);
            let pseudonym = match field {
                _ if sent.is_empty() || *identity == Identity::Position => String::new(),
                Some(field) if is_last => field.clone(),
                _ => self.pseudonym(&unescaped(sent)),
            };
            let quote = if is_bare_json_value(payload, range.start) { "\"" } else { "" };
            out.extend([&payload[done..range.start], quote, &pseudonym, quote]);
            done = range.end;
        }
        out.push_str(&payload[done..]);
        Some(out)
    }
}

/// `p-` and 32 lower-case hex digits.
fn is_pseudonym(text: &str) -> bool {
    text.strip_prefix(PSEUDONYM_PREFIX)
        .is_some_and(|hex| hex.len() == 2 * PSEUDONYM_BYTES && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// The content of a JSON string as its reader sees it; the text itself where it is none.
fn unescaped(inside_quotes: &str) -> Cow<'_, str> {
    if !inside_quotes.contains('\\') {
        return Cow::Borrowed(inside_quotes);
    }
    serde_json::from_str(&format!("\"{inside_quotes}\"")).map_or(Cow::Borrowed(inside_quotes), Cow::Owned)
}

/// Is the JSON value at `start` a number (or `true`, or a list), for which a pseudonym has to bring
/// its own quotes?
fn is_bare_json_value(payload: &str, start: usize) -> bool {
    let is_blank = |letter: char| letter.is_whitespace() || letter == '\u{feff}';
    let is_json = payload.trim_start_matches(is_blank).starts_with(['{', '[']);
    is_json && !payload[..start].ends_with('"')
}

/// The client address of one record: what is stored of it, and which spellings must not survive.
///
/// The scanner leaves a quad in a version alone and knows no bare numbers. If such a thing is the
/// very address of this client, it goes too.
struct Client {
    prefix: Option<String>,
    /// (spelling as sent or canonical, what takes its place).
    spellings: Vec<(String, String)>,
}

impl Client {
    fn of(address: Option<String>) -> Client {
        let Some(sent) = address else {
            return Client {
                prefix: None,
                spellings: Vec::new(),
            };
        };
        let Some(full) = address::parse(&sent) else {
            return Client {
                prefix: None,
                spellings: Vec::new(),
            };
        };
        let masked = address::mask_ip(full);
        let prefix = masked.to_string();
        // Cut already: nothing is left to hide, and a replay of bronze must leave the payload as it is.
        if masked == full {
            return Client {
                prefix: Some(prefix),
                spellings: Vec::new(),
            };
        }
        let sent = sent.trim();
        let is_decimal = sent.bytes().all(|byte| byte.is_ascii_digit()) && !sent.starts_with('0');
        let mut spellings = vec![(full.to_string(), prefix.clone())];
        match masked {
            // A number stays a number: the payload must stay JSON.
            std::net::IpAddr::V4(v4) if is_decimal => {
                spellings.push((sent.to_owned(), v4.to_bits().to_string()));
            }
            _ => spellings.push((sent.to_owned(), prefix.clone())),
        }
        spellings.dedup_by(|a, b| a.0 == b.0);
        spellings.retain(|(spelling, replacement)| spelling != replacement);
        Client {
            prefix: Some(prefix),
            spellings,
        }
    }

    /// The prefix of the address, or that of an event that was anonymised before.
    fn prefix(&self, stored: Option<String>) -> Option<String> {
        self.prefix.clone().or_else(|| address::mask(&stored?))
    }

    /// Scrubs the payload. True: it held the address in a place that the scanner spares, so the
    /// fields taken from it may hold it as well.
    fn clean(&self, payload: &mut String) -> bool {
        replace_if_owned(payload, scrub);
        self.forget(payload)
    }

    fn clean_text(&self, text: &mut String, must_forget: bool) {
        replace_if_owned(text, scrub);
        self.forget_if(must_forget, text);
    }

    fn clean_ext(&self, ext: &mut Vec<(String, String)>, must_forget: bool) {
        for (key, value) in ext.iter_mut() {
            if is_version_key(key) {
                replace_if_owned(value, scrub_version);
            } else {
                replace_if_owned(value, scrub);
            }
            self.forget_if(must_forget, value);
            self.clean_text(key, must_forget);
        }
        // Keys that were addresses of one network are one key now; the map has it once.
        ext.sort_by(|left, right| left.0.cmp(&right.0));
        ext.dedup_by(|later, kept| later.0 == kept.0);
    }

    fn forget_if(&self, must_forget: bool, text: &mut String) {
        if must_forget {
            self.forget(text);
        }
    }

    /// Replaces every spelling of the address that stands on its own. True: there was one.
    fn forget(&self, text: &mut String) -> bool {
        let mut found = false;
        for (spelling, replacement) in &self.spellings {
            if let Some(clean) = replace_standing_alone(text, spelling, replacement) {
                *text = clean;
                found = true;
            }
        }
        found
    }
}

/// `None`: `needle` does not stand in `text`, save as a part of a longer word or number.
fn replace_standing_alone(text: &str, needle: &str, replacement: &str) -> Option<String> {
    let mut out = String::new();
    let mut done = 0;
    for start in memmem::find_iter(text.as_bytes(), needle) {
        let end = start + needle.len();
        if !stands_alone(text.as_bytes(), start, end) {
            continue;
        }
        out.push_str(&text[done..start]);
        out.push_str(replacement);
        done = end;
    }
    if done == 0 {
        return None;
    }
    out.push_str(&text[done..]);
    Some(out)
}

/// No digit or letter goes on before or behind, and no dotted number either.
fn stands_alone(bytes: &[u8], start: usize, end: usize) -> bool {
    let goes_on_before = match &bytes[..start] {
        [.., digit, b'.'] => digit.is_ascii_digit(),
        [.., byte] => byte.is_ascii_alphanumeric(),
        [] => false,
    };
    let goes_on_behind = match &bytes[end..] {
        [b'.', digit, ..] => digit.is_ascii_digit(),
        [byte, ..] => byte.is_ascii_alphanumeric(),
        [] => false,
    };
    !goes_on_before && !goes_on_behind
}

fn is_version_key(key: &str) -> bool {
    const SUFFIX: &str = "version";
    key.len()
        .checked_sub(SUFFIX.len())
        .is_some_and(|at| key.as_bytes()[at..].eq_ignore_ascii_case(SUFFIX.as_bytes()))
}

/// Text that `clean` leaves as it is costs no allocation.
fn replace_if_owned(text: &mut String, clean: impl Fn(&str) -> Cow<'_, str>) {
    if let Cow::Owned(cleaned) = clean(text) {
        *text = cleaned;
    }
}

/// Every text of an event that is scanned as it stands; versions, `ext` and the payload apart.
fn event_texts(event: &mut PlayerEvent) -> impl Iterator<Item = &mut String> {
    let fields = [
        &mut event.native_event_id,
        &mut event.native_session_id,
        &mut event.user_id,
        &mut event.device_id,
        &mut event.content_id,
        &mut event.content_title,
        &mut event.codec,
        &mut event.error_category,
        &mut event.error_message,
        &mut event.request_id,
        &mut event.cdn,
        &mut event.host,
        &mut event.connection_type,
        &mut event.app_name,
        &mut event.player_name,
        &mut event.user_agent,
        &mut event.ad_id,
        &mut event.url,
    ];
    let looked_up = device_texts(&mut event.device).chain(network_texts(&mut event.network));
    fields.into_iter().flatten().chain(&mut event.error_codes).chain(looked_up)
}

/// Every text of a request that is scanned as it stands; `forwarded_for`, `ext` and the payload
/// apart.
fn request_texts(request: &mut CdnRequest) -> impl Iterator<Item = &mut String> {
    let fields = [
        &mut request.cdn,
        &mut request.request_id,
        &mut request.edge_location,
        &mut request.pop,
        &mut request.method,
        &mut request.host,
        &mut request.host_header,
        &mut request.uri_stem,
        &mut request.uri_query,
        &mut request.error_code,
        &mut request.content_id,
        &mut request.session_id,
        &mut request.referer,
        &mut request.user_agent,
        &mut request.cookie,
        &mut request.result_type,
        &mut request.response_result_type,
        &mut request.detailed_result_type,
        &mut request.protocol,
        &mut request.protocol_version,
        &mut request.ssl_protocol,
        &mut request.ssl_cipher,
        &mut request.fle_status,
        &mut request.fle_encrypted_fields,
        &mut request.content_type,
        &mut request.fields,
    ];
    let looked_up = device_texts(&mut request.device).chain(network_texts(&mut request.network));
    fields.into_iter().flatten().chain(looked_up)
}

fn device_texts(device: &mut Device) -> impl Iterator<Item = &mut String> {
    [
        &mut device.device_type,
        &mut device.device_model,
        &mut device.os,
        &mut device.browser,
    ]
    .into_iter()
    .flatten()
}

fn network_texts(network: &mut Network) -> impl Iterator<Item = &mut String> {
    [&mut network.country, &mut network.region, &mut network.city, &mut network.isp]
        .into_iter()
        .flatten()
}

/// Sets `session_key`, `unattributed` and `event_id`.
///
/// All three are made of anonymised values only. An unkeyed hash over a full address could be
/// undone by trying all of them, and a replay of bronze, which has no full address, has to come to
/// the same keys.
fn identify_event(event: &mut PlayerEvent) {
    let session_key = session_key(event);
    event.event_id = event_id(event, session_key.as_deref());
    event.unattributed = session_key.is_none();
    event.session_key = session_key.unwrap_or_else(|| event.event_id.clone());
}

/// The sender's session, else the viewer on the content (spec: events and metrics, 2.4). `None`: the
/// event names neither.
fn session_key(event: &PlayerEvent) -> Option<String> {
    if let Some(native) = event.native_session_id.as_deref().filter(|id| !id.is_empty()) {
        return Some(native.to_owned());
    }
    let viewer = event.user_id.as_deref().or(event.device_id.as_deref())?;
    let content = event.content_id.as_deref().unwrap_or("");
    Some(hash(&[viewer.as_bytes(), content.as_bytes()]))
}

/// The dedupe key (spec: events and metrics, 2.4): the same message delivered twice has one key.
///
/// The sender's own id or sequence number says it best. Without one, what the message says is its
/// identity: two events of one session with the same type, time and members are one event sent
/// twice. The members are taken without their order and the blanks between them, because a
/// forwarder that reads and rewrites JSON changes both while the event stays the same.
fn event_id(event: &PlayerEvent, session_key: Option<&str>) -> String {
    if let Some(native) = event.native_event_id.as_deref().filter(|id| !id.is_empty()) {
        let scope = session_key.unwrap_or(event.source);
        return hash(&[b"native", scope.as_bytes(), native.as_bytes()]);
    }
    if let (Some(seq), Some(session), Some(_)) = (event.seq, session_key, &event.native_session_id) {
        let seq = seq.to_le_bytes();
        return hash(&[b"seq", session.as_bytes(), event.source.as_bytes(), &seq]);
    }
    let kind = event.kind.map_or("", |kind| kind.as_str());
    let sent_at = event.event_ts_raw.map(i64::to_le_bytes);
    hash(&[
        b"content",
        session_key.unwrap_or("").as_bytes(),
        kind.as_bytes(),
        sent_at.as_ref().map_or(&[][..], |bytes| &bytes[..]),
        &canonical_payload_hash(&event.payload).to_le_bytes(),
    ])
}

/// The dedupe key of a log line: the CDN's id of the request and its time, else the line itself.
fn request_event_id(request: &CdnRequest) -> String {
    let cdn = request.cdn.as_deref().unwrap_or("").as_bytes();
    match request.request_id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => hash(&[b"cdn", cdn, id.as_bytes(), &request.event_ts_ms.to_le_bytes()]),
        None => hash(&[b"cdn_line", cdn, request.payload.as_bytes()]),
    }
}

/// A hash of the top-level members of a JSON object that does not see their order or the blanks
/// between them; of the bytes where the payload is no object.
///
/// The sum of one hash a member: addition forgets the order, and a member that stands twice still
/// counts twice (with exclusive or it would vanish).
fn canonical_payload_hash(payload: &str) -> u128 {
    let mut json = serde_json::Deserializer::from_str(payload);
    let members = json.deserialize_map(SumOfMembers).and_then(|sum| json.end().map(|()| sum));
    members.unwrap_or_else(|_not_an_object| xxh3_128(payload.as_bytes()))
}

struct SumOfMembers;

impl<'de> Visitor<'de> for SumOfMembers {
    type Value = u128;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u128, A::Error> {
        let mut sum = 0u128;
        while let Some((key, value)) = members.next_entry::<KeyHash, &RawValue>()? {
            sum = sum.wrapping_add(xxh3_128_with_seed(value.get().as_bytes(), key.0));
        }
        Ok(sum)
    }
}

/// The hash of a member's name, without a copy of it. It seeds the hash of the value, so that a
/// value counts under its own name only.
struct KeyHash(u64);

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyHash, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = KeyHash;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the name of a member")
            }

            fn visit_str<E>(self, key: &str) -> Result<KeyHash, E> {
                Ok(KeyHash(xxh3_64(key.as_bytes())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

/// 32 hex digits of `hash_parts`.
fn hash(parts: &[&[u8]]) -> String {
    let mut out = String::with_capacity(32);
    for byte in hash_parts(parts).to_be_bytes() {
        push_hex(&mut out, byte);
    }
    out
}

/// xxh3-128 over the parts, each behind its length: ("ab", "c") is not ("a", "bc").
fn hash_parts(parts: &[&[u8]]) -> u128 {
    let len = parts.iter().map(|part| part.len() + size_of::<u64>()).sum();
    let mut joined = Vec::with_capacity(len);
    for part in parts {
        joined.extend_from_slice(&(part.len() as u64).to_le_bytes());
        joined.extend_from_slice(part);
    }
    xxh3_128(&joined)
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];

    fn privacy() -> Privacy {
        Privacy::new(IdentityPolicy::Pseudonym, KEY)
    }

    fn keeping() -> Privacy {
        Privacy::new(IdentityPolicy::Keep, KEY)
    }

    /// An event whose payload holds `id` in a member of its own.
    fn event_of(id: &str, payload: &str) -> PlayerEvent {
        let start = payload.find(id).expect("the payload holds the id");
        PlayerEvent {
            source: "aws_demo",
            kind: Some(EventKind::Heartbeat),
            user_id: Some(id.to_owned()),
            content_id: Some("BigBuckBunny".to_owned()),
            event_ts_raw: Some(1_588_752_000_000),
            event_ts_ms: 1_588_752_000_000,
            payload: payload.to_owned(),
            identity_spans: vec![(start..start + id.len(), Identity::User)],
            ..PlayerEvent::default()
        }
    }

    #[test]
    fn a_pseudonym_is_hmac_sha256_and_stays_what_it_is() {
        // RFC 4231, test case 2, with its four-byte key filled up with zeros (HMAC does the same).
        let mut key = [0u8; 32];
        key[..4].copy_from_slice(b"Jefe");
        let privacy = Privacy::new(IdentityPolicy::Pseudonym, key);
        let pseudonym = privacy.pseudonym("what do ya want for nothing?");
        assert_eq!(pseudonym, "p-5bdcc146bf60754e6a042426089575c7");
        assert_eq!(privacy.pseudonym(&pseudonym), pseudonym);
        assert_ne!(privacy.pseudonym("p-5bdc"), "p-5bdc");
        assert_ne!(
            privacy.pseudonym("p-5BDCC146BF60754E6A042426089575C7"),
            "p-5BDCC146BF60754E6A042426089575C7"
        );
    }

    #[test]
    fn another_key_gives_other_pseudonyms_and_no_key_is_shown() {
        let other = Privacy::new(IdentityPolicy::Pseudonym, [8; 32]);
        assert_ne!(privacy().pseudonym("viewer"), other.pseudonym("viewer"));
        assert_eq!(format!("{other:?}"), "Privacy { policy: Pseudonym, .. }");
    }

    #[test]
    fn identity_leaves_the_fields_and_the_payload() {
        let mut event = event_of("us-west-2:5f2c", r#"{"user_id":"us-west-2:5f2c","at":5.02,"ip":"203.0.113.77"}"#);
        event.client_address = Some("203.0.113.77:5123".to_owned());
        let stored = privacy().anonymise(event);
        let pseudonym = privacy().pseudonym("us-west-2:5f2c");
        assert_eq!(stored.user_id.as_deref(), Some(pseudonym.as_str()));
        assert_eq!(
            stored.payload,
            format!(r#"{{"user_id":"{pseudonym}","at":5.02,"ip":"203.0.113.0"}}"#)
        );
        assert_eq!(stored.client_address, None);
        assert_eq!(stored.client_prefix.as_deref(), Some("203.0.113.0"));
        assert!(stored.identity_spans.is_empty());
    }

    #[test]
    fn a_bare_value_takes_quotes_and_an_escaped_one_its_reading() {
        let check = |id: &str, field: &str, payload: &str, expected: &str| {
            let mut event = event_of(id, payload);
            event.user_id = Some(field.to_owned());
            let stored = privacy().anonymise(event);
            let pseudonym = privacy().pseudonym(field);
            assert_eq!(stored.payload, expected.replace('#', &pseudonym), "{payload}");
        };
        check("4711", "4711", r#"{"user_id":4711,"at":1}"#, r##"{"user_id":"#","at":1}"##);
        check("4711", "4711", r#"{"user_id": 4711 }"#, r##"{"user_id": "#" }"##);
        check("4711", "4711", r#"{"user_id":"4711"}"#, r##"{"user_id":"#"}"##);
        check("true", "true", r#"{"user_id":true}"#, r##"{"user_id":"#"}"##);
        check(r#"["a"]"#, r#"["a"]"#, r#"{"user_id":["a"]}"#, r##"{"user_id":"#"}"##);
        check(r"\u0061b", "ab", r#"{"user_id":"\u0061b"}"#, r##"{"user_id":"#"}"##);
        check("4711", "4711", "sid=1,com.example-uid=4711", "sid=1,com.example-uid=#");
    }

    #[test]
    fn every_duplicate_of_an_id_is_replaced_and_the_last_agrees_with_its_column() {
        let payload = r#"{"user_id":"ann","user_id":"bob "}"#;
        let mut event = event_of("ann", payload);
        event.user_id = Some("bob".to_owned());
        event
            .identity_spans
            .push((payload.find("bob").unwrap()..payload.find("bob").unwrap() + 4, Identity::User));
        let stored = privacy().anonymise(event);
        let (ann, bob) = (privacy().pseudonym("ann"), privacy().pseudonym("bob"));
        assert_eq!(stored.payload, format!(r#"{{"user_id":"{ann}","user_id":"{bob}"}}"#));
    }

    #[test]
    fn a_span_that_cannot_be_cut_out_costs_the_payload() {
        for span in [0..99, 8..10, 2..3] {
            let mut event = event_of("ä", "ääää");
            event.identity_spans = vec![(span, Identity::User)];
            let stored = privacy().anonymise(event);
            assert_eq!((stored.payload.as_str(), &stored.dq_flags[..]), ("", &[UNUSABLE_IDENTITY_SPAN][..]));
        }
    }

    #[test]
    fn keep_keeps_an_id_unless_it_is_an_address() {
        let check = |id: &str, expected: &str| {
            let payload = format!(r#"{{"user_id":"{id}"}}"#);
            let stored = keeping().anonymise(event_of(id, &payload));
            assert_eq!(stored.user_id.as_deref(), Some(expected));
            assert_eq!(stored.payload, payload.replace(id, expected));
        };
        check(
            "us-west-2:5f2c7b1e-8d0a-4a53-9b1f-2c6f0d1c7e10",
            "us-west-2:5f2c7b1e-8d0a-4a53-9b1f-2c6f0d1c7e10",
        );
        check("203.0.113.77", "203.0.113.0");
        check("2001:db8::1", "2001:db8::");
    }

    #[test]
    fn a_payload_without_identity_is_stored_byte_for_byte() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_player.ndjson");
        let lines = std::fs::read_to_string(path).expect("the reference events are in the repository");
        for line in lines.lines() {
            let event = PlayerEvent {
                payload: line.to_owned(),
                ..PlayerEvent::default()
            };
            assert_eq!(keeping().anonymise(event).payload, line);
        }
    }

    #[test]
    fn the_clients_own_address_is_not_spared_where_other_quads_are() {
        let check = |address: &str, payload: &str, expected: &str| {
            let event = PlayerEvent {
                client_address: Some(address.to_owned()),
                app_version: Some("203.0.113.77".to_owned()),
                payload: payload.to_owned(),
                ..PlayerEvent::default()
            };
            let stored = privacy().anonymise(event);
            assert_eq!(stored.payload, expected);
            let is_in_payload = expected != payload;
            assert_eq!(stored.app_version.as_deref() == Some("203.0.113.0"), is_in_payload);
        };
        check(
            "203.0.113.77",
            r#"{"app_version":"203.0.113.77"}"#,
            r#"{"app_version":"203.0.113.0"}"#,
        );
        check(
            "3405803853",
            r#"{"ip":3405803853,"n":34058038531}"#,
            r#"{"ip":3405803776,"n":34058038531}"#,
        );
        check("0xCB00714D", r#"{"ip":"0xCB00714D"}"#, r#"{"ip":"203.0.113.0"}"#);
        check("203.0.113.7", r#"{"v":"5.203.0.113.7.6.7"}"#, r#"{"v":"5.203.0.113.7.6.7"}"#);
    }

    #[test]
    fn every_text_of_an_event_is_scanned() {
        let dirty = || Some("at 203.0.113.77".to_owned());
        let event = PlayerEvent {
            native_event_id: dirty(),
            native_session_id: dirty(),
            content_id: dirty(),
            content_title: dirty(),
            codec: dirty(),
            error_codes: vec!["203.0.113.77".to_owned()],
            error_category: dirty(),
            error_message: dirty(),
            request_id: dirty(),
            cdn: dirty(),
            host: dirty(),
            connection_type: dirty(),
            app_name: dirty(),
            app_version: dirty(),
            player_name: dirty(),
            player_version: dirty(),
            device: Device {
                device_type: dirty(),
                device_model: dirty(),
                os: dirty(),
                browser: dirty(),
            },
            user_agent: dirty(),
            client_address: dirty(),
            client_prefix: dirty(),
            network: Network {
                country: dirty(),
                region: dirty(),
                city: dirty(),
                asn: None,
                isp: dirty(),
            },
            ext: vec![
                ("203.0.113.77".to_owned(), "2001:db8::77".to_owned()),
                ("203.0.113.78".to_owned(), "1".to_owned()),
            ],
            payload: "203.0.113.77".to_owned(),
            ..PlayerEvent::default()
        };
        let stored = privacy().anonymise(event);
        let shown = format!("{stored:?}");
        assert!(
            !shown.contains(".77") && !shown.contains("::77") && !shown.contains(".78"),
            "{shown}"
        );
        assert_eq!(stored.client_prefix, None);
        assert_eq!(stored.ext, [("203.0.113.0".to_owned(), "2001:db8::".to_owned())]);
    }

    #[test]
    fn versions_in_fields_and_ext_are_kept() {
        let event = PlayerEvent {
            app_version: Some("1.2.3.4".to_owned()),
            player_version: Some("v1.2.3.4".to_owned()),
            ext: vec![
                ("sdkVersion".to_owned(), "1.2.3.4".to_owned()),
                ("x".to_owned(), "1.2.3.4".to_owned()),
            ],
            ..PlayerEvent::default()
        };
        let stored = privacy().anonymise(event);
        assert_eq!(stored.app_version.as_deref(), Some("1.2.3.4"));
        assert_eq!(stored.player_version.as_deref(), Some("v1.2.3.4"));
        assert_eq!((stored.ext[0].1.as_str(), stored.ext[1].1.as_str()), ("1.2.3.4", "1.2.3.0"));
    }

    #[test]
    fn forwarded_for_is_cut_item_by_item() {
        let request = CdnRequest {
            forwarded_for: [
                "203.0.113.77",
                "2001:DB8::1",
                "unknown",
                "::ffff:cb00:714d",
                "_hidden",
                r"\x2010.89.113.224",
                "-",
            ]
            .map(str::to_owned)
            .to_vec(),
            client_address: Some("2001:db8:85a3:8d3:1319:8a2e:370:7348".to_owned()),
            ..CdnRequest::default()
        };
        let stored = privacy().anonymise_request(request);
        assert_eq!(
            stored.forwarded_for,
            [
                "203.0.113.0",
                "2001:db8::",
                "unknown",
                "203.0.113.0",
                "_hidden",
                r"\x2010.89.113.0",
                "-"
            ]
        );
        assert_eq!(stored.client_prefix.as_deref(), Some("2001:db8:85a3::"));
        assert_eq!(stored.client_address, None);
    }

    #[test]
    fn every_text_of_a_request_is_scanned() {
        let dirty = || Some("a=203.0.113.77&b=2001%3Adb8%3A%3A77".to_owned());
        let request = CdnRequest {
            cdn: dirty(),
            request_id: dirty(),
            edge_location: dirty(),
            pop: dirty(),
            method: dirty(),
            host: dirty(),
            host_header: dirty(),
            uri_stem: dirty(),
            uri_query: dirty(),
            referer: dirty(),
            user_agent: dirty(),
            cookie: dirty(),
            result_type: dirty(),
            response_result_type: dirty(),
            detailed_result_type: dirty(),
            protocol: dirty(),
            protocol_version: dirty(),
            ssl_protocol: dirty(),
            ssl_cipher: dirty(),
            forwarded_for: vec!["a 203.0.113.77".to_owned()],
            fle_status: dirty(),
            fle_encrypted_fields: dirty(),
            content_type: dirty(),
            device: Device {
                device_type: dirty(),
                device_model: dirty(),
                os: dirty(),
                browser: dirty(),
            },
            network: Network {
                country: dirty(),
                region: dirty(),
                city: dirty(),
                asn: None,
                isp: dirty(),
            },
            ext: vec![("203.0.113.77".to_owned(), "203.0.113.77".to_owned())],
            payload: "203.0.113.77".to_owned(),
            fields: dirty(),
            ..CdnRequest::default()
        };
        let shown = format!("{:?}", privacy().anonymise_request(request));
        assert!(!shown.contains(".77") && !shown.contains("3A77"), "{shown}");
    }

    #[test]
    fn the_session_is_the_senders_else_viewer_and_content_else_nobody() {
        let stored = |change: fn(&mut PlayerEvent)| {
            let mut event = event_of("ann", r#"{"user_id":"ann"}"#);
            change(&mut event);
            privacy().anonymise(event)
        };
        let usual = stored(|_| {});
        assert_eq!(usual.session_key.len(), 32);
        assert!(!usual.unattributed);
        assert_eq!(stored(|event| event.native_session_id = Some("s-1".to_owned())).session_key, "s-1");
        assert_ne!(stored(|event| event.content_id = None).session_key, usual.session_key);
        assert_ne!(
            stored(|event| event.user_id = Some("bob".to_owned())).session_key,
            usual.session_key
        );
        let by_device = stored(|event| event.device_id = event.user_id.take());
        assert_eq!(by_device.session_key, usual.session_key);
        let nobody = stored(|event| event.user_id = None);
        assert!(nobody.unattributed);
        assert_eq!(nobody.session_key, nobody.event_id);
        let empty = stored(|event| event.user_id = Some(String::new()));
        assert!(empty.unattributed);
    }

    #[test]
    fn the_same_message_has_one_event_id_in_any_order_and_spacing_of_its_members() {
        let id = |payload: &str| {
            let event = PlayerEvent {
                payload: payload.to_owned(),
                ..event_of("", "")
            };
            privacy()
                .anonymise(PlayerEvent {
                    identity_spans: Vec::new(),
                    ..event
                })
                .event_id
                .clone()
        };
        let usual = id(r#"{"a":1,"b":"x y","c":{"d":[1]}}"#);
        assert_eq!(usual.len(), 32);
        assert_eq!(id("{ \"c\" : {\"d\":[1]},\n\"b\":\"x y\" ,\"a\":1 }"), usual);
        assert_eq!(id(r#"{"\u0061":1,"b":"x y","c":{"d":[1]}}"#), usual);
        for other in [
            r#"{"a":2,"b":"x y","c":{"d":[1]}}"#,
            r#"{"a":1,"b":"xy","c":{"d":[1]}}"#,
            r#"{"a":1,"b":"x y"}"#,
            r#"{"a":1,"a":1,"b":"x y","c":{"d":[1]}}"#,
            r#"{"a":"x y","b":1,"c":{"d":[1]}}"#,
            "[]",
            "",
        ] {
            assert_ne!(id(other), usual, "{other}");
        }
    }

    #[test]
    fn the_senders_own_id_or_number_decides_over_the_payload() {
        let id = |payload: &str, change: fn(&mut PlayerEvent)| {
            let mut event = event_of("ann", payload);
            change(&mut event);
            privacy().anonymise(event).event_id.clone()
        };
        let (one, other) = (r#"{"user_id":"ann","n":1}"#, r#"{"user_id":"ann","n":2}"#);
        let native: fn(&mut PlayerEvent) = |event| event.native_event_id = Some("e-1".to_owned());
        let numbered: fn(&mut PlayerEvent) = |event| {
            event.native_session_id = Some("s".to_owned());
            event.seq = Some(7);
        };
        let number_only: fn(&mut PlayerEvent) = |event| event.seq = Some(7);
        assert_eq!(id(one, native), id(other, native));
        assert_eq!(id(one, numbered), id(other, numbered));
        assert_ne!(id(one, number_only), id(other, number_only));
        assert_ne!(id(one, |_| {}), id(other, |_| {}));
    }

    #[test]
    fn a_log_line_is_known_by_its_request_id_and_time() {
        let id = |request_id: Option<&str>, event_ts_ms: i64, payload: &str| {
            let request = CdnRequest {
                cdn: Some("cloudfront".to_owned()),
                request_id: request_id.map(str::to_owned),
                event_ts_ms,
                payload: payload.to_owned(),
                ..CdnRequest::default()
            };
            privacy().anonymise_request(request).event_id.clone()
        };
        assert_eq!(id(Some("r"), 1, "a"), id(Some("r"), 1, "b"));
        assert_ne!(id(Some("r"), 1, "a"), id(Some("r"), 2, "a"));
        assert_eq!(id(None, 1, "a"), id(None, 2, "a"));
        assert_ne!(id(None, 1, "a"), id(None, 1, "b"));
    }

    proptest! {
        #[test]
        fn any_event_is_anonymised_once_and_for_all(
            texts in proptest::collection::vec("\\PC{0,12}|203\\.0\\.113\\.[0-9]{1,3}|([0-9a-f]{0,4}:){2,8}[0-9a-f]{0,4}|[0-9]{8,11}", 8),
            spans in proptest::collection::vec((0usize..40, 0usize..40), 0..3),
            keep: bool,
            seq: Option<i64>,
        ) {
            let text = |at: usize| Some(texts[at].clone());
            let event = PlayerEvent {
                source: "aws_demo",
                user_id: text(0),
                device_id: text(1),
                content_id: text(2),
                native_event_id: text(3).filter(|text| text.len() > 6),
                native_session_id: text(4).filter(|text| text.len() > 6),
                client_address: text(5),
                seq,
                ext: vec![(texts[6].clone(), texts[7].clone())],
                payload: format!(r#"{{"a":"{}","{}":{}}}"#, texts[5], texts[6], texts[7]),
                identity_spans: spans.iter().map(|(start, end)| (*start..*end, Identity::User)).collect(),
                ..PlayerEvent::default()
            };
            let privacy = if keep { keeping() } else { privacy() };
            let once = privacy.anonymise(event);
            let twice = privacy.anonymise(PlayerEvent::clone(&once));
            prop_assert_eq!(twice, once);
        }
    }
}
