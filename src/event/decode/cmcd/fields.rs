//! The keys of a set into the fields of a `PlayerEvent`: what is the same for events and requests.
//!
//! Stands after `set` and below the two modes, which add kind and time (events and metrics, 2.3).
//!
//! Invariant: a key that must not stand on this kind of record is ignored, and named in the faults.
//! Invariant: kbps become bit/s here and nowhere else.

use std::borrow::Cow;

use super::keys::Key;
use super::rule;
use super::set::CmcdSet;
use super::value::{Ranged, Tagged};
use crate::event::decode::text::{ext, flag};
use crate::event::{KeyFault, PlayerEvent, ReportedState};

/// A playhead above this is no offset in an asset but a time of day: ten years, ms.
const MEDIA_MS_MAX: i64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// One set on its way into a `PlayerEvent`.
pub(super) struct Filling<'s> {
    pub(super) set: &'s CmcdSet,
    /// `None`: a request. `Some("")`: an event whose token could not be read.
    token: Option<&'static str>,
    pub(super) flags: Vec<&'static str>,
    faults: Vec<KeyFault>,
    ext: Vec<(&'s str, Cow<'s, str>)>,
}

impl<'s> Filling<'s> {
    pub(super) fn new(set: &'s CmcdSet, token: Option<&'static str>) -> Filling<'s> {
        let mut filling = Filling {
            set,
            token,
            flags: Vec::new(),
            faults: set.faults().to_vec(),
            ext: Vec::new(),
        };
        for (key, _) in set.values() {
            if !filling.allows(*key) {
                filling.fault(*key, rule::NOT_ALLOWED_HERE);
            }
        }
        filling
    }

    pub(super) fn fault(&mut self, key: Key, rule: &'static str) {
        self.faults.push(KeyFault { key: key.name(), rule });
    }

    pub(super) fn allows(&self, key: Key) -> bool {
        key.rule().place.allows(self.token)
    }

    pub(super) fn numbers(&self, key: Key) -> &'s [Tagged] {
        if self.allows(key) { self.set.numbers(key) } else { &[] }
    }

    pub(super) fn number(&self, key: Key) -> Option<i64> {
        self.numbers(key).first().map(|member| member.number)
    }

    pub(super) fn text(&self, key: Key) -> Option<&'s str> {
        self.set.text(key).filter(|_| self.allows(key))
    }

    fn owned(&self, key: Key) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    /// An event with everything but its kind, its time and its payload.
    ///
    /// Boxed, as all events are that leave the decoder: they are large, and would be copied at each step.
    pub(super) fn fill(&mut self, source: &'static str) -> Box<PlayerEvent> {
        let mut event: Box<PlayerEvent> = Box::default();
        event.source = source;
        self.identity(&mut event);
        self.program(&mut event);
        self.content(&mut event);
        self.playback(&mut event);
        self.bitrates(&mut event);
        self.buffers(&mut event);
        self.stalls(&mut event);
        self.object(&mut event);
        self.response(&mut event);
        event
    }

    /// Moves what was gathered on the way into the event.
    pub(super) fn finish(mut self, mut event: Box<PlayerEvent>) -> Box<PlayerEvent> {
        self.extras();
        event.ext = ext(self.ext, None, &mut self.flags);
        event.dq_flags = self.flags;
        event.key_faults = self.faults;
        event
    }

    fn identity(&mut self, event: &mut PlayerEvent) {
        event.native_session_id = self.owned(Key::Sid);
        event.seq = self.number(Key::Sn);
        event.user_id = self.set.user_id.clone();
        event.device_id = self.set.device_id.clone();
        event.identity_spans = self.set.identity_spans.clone();
    }

    /// CMCD has no keys for the player and the app: custom keys of these endings tell (2.3).
    fn program(&mut self, event: &mut PlayerEvent) {
        let told = |endings: &[&str]| {
            let custom = self
                .set
                .custom
                .iter()
                .find(|custom| endings.iter().any(|ending| custom.key.ends_with(ending)));
            custom.map(|custom| custom.text.clone()).filter(|text| !text.is_empty())
        };
        event.player_name = told(&["-player-name", "-player"]);
        event.player_version = told(&["-player-version"]);
        event.app_name = told(&["-app-name", "-app"]);
        event.app_version = told(&["-app-version"]);
    }

    fn content(&mut self, event: &mut PlayerEvent) {
        event.content_id = self.owned(Key::Cid);
        event.stream_type = self.set.token(Key::St).map(|token| match token {
            "v" => "vod",
            "l" => "live",
            _ => "ll_live",
        });
        event.stream_format = self.set.token(Key::Sf).map(|token| match token {
            "d" => "dash",
            "h" => "hls",
            "e" => "hesp",
            "s" => "smooth",
            _ => "other",
        });
        self.playhead(event);
    }

    /// A live playhead is a time of day (2.3), so it is kept apart from offsets in an asset.
    fn playhead(&mut self, event: &mut PlayerEvent) {
        let Some(pt) = self.number(Key::Pt) else {
            return;
        };
        let is_live = event.stream_type.is_some_and(|stream_type| stream_type != "vod");
        if is_live || pt > MEDIA_MS_MAX {
            self.ext.push(("pt", Cow::Owned(pt.to_string())));
            return;
        }
        event.playhead_ms = Some(pt);
    }

    fn playback(&mut self, event: &mut PlayerEvent) {
        event.state = self.set.token(Key::Sta).and_then(state);
        if event.state == Some(ReportedState::Waiting) {
            flag(&mut self.flags, "undefined_state");
        }
        event.playback_rate = self.set.decimal(Key::Pr);
        event.startup_ms = self.number(Key::Msd);
        event.startup_flag = self.set.boolean(Key::Su);
        event.background = self.set.boolean(Key::Bg);
        event.not_rendered = self.set.boolean(Key::Nr);
        event.dropped_frames_total = self.number(Key::Dfa).or_else(|| self.number(Key::Df));
        event.live_latency_ms = self.number(Key::Ltc);
        let is_playing = matches!(event.state, None | Some(ReportedState::Playing));
        if event.live_latency_ms.is_some() && !is_playing {
            event.live_latency_ms = None;
            self.fault(Key::Ltc, rule::NOT_PLAYING);
        }
        let codes = self.set.texts(Key::Ec).iter().map(|code| code.text.clone());
        event.error_codes = codes.filter(|code| !code.is_empty()).collect();
    }

    fn bitrates(&mut self, event: &mut PlayerEvent) {
        let about = self.set.token(Key::Ot);
        let shown = self.numbers(Key::Pb);
        event.bitrate_video_bps = of_type(shown, "v", about).map(bps);
        event.bitrate_audio_bps = of_type(shown, "a", about).map(bps);
        let is_audio_alone = event.bitrate_audio_bps.is_some() && event.bitrate_video_bps.is_none();
        event.bitrate_bps = whole(shown).filter(|_| !is_audio_alone || has_whole(shown, about)).map(bps);

        let rate = |key: Key, aggregate: Key| whole(self.numbers(key)).or_else(|| whole(self.numbers(aggregate)));
        event.req_bitrate_bps = rate(Key::Br, Key::Ab).map(bps);
        event.top_bitrate_bps = rate(Key::Tb, Key::Tab).map(bps);
        event.low_bitrate_bps = rate(Key::Lb, Key::Lab).map(bps);
        event.top_playable_bitrate_bps = whole(self.numbers(Key::Tpb)).map(bps);
        // A player that has measured nothing yet sends 0 (2.6).
        let measured = largest(self.numbers(Key::Mtp)).filter(|kbps| *kbps > 0);
        event.throughput_bps = measured.map(bps);
        event.req_throughput_max_bps = self.number(Key::Rtp).map(bps);
    }

    fn buffers(&mut self, event: &mut PlayerEvent) {
        let held = self.numbers(Key::Bl);
        let about = self.set.token(Key::Ot);
        event.buffer_video_ms = of_type(held, "v", about);
        event.buffer_audio_ms = of_type(held, "a", about);
        let tagged = [event.buffer_video_ms, event.buffer_audio_ms].into_iter().flatten();
        // Playing goes on as long as the emptier of the two buffers lasts.
        event.buffer_ms = tagged_as(held, None).or(tagged_as(held, Some("av"))).or(tagged.min());
        event.buffer_target_ms = largest(self.numbers(Key::Tbl));
    }

    fn stalls(&mut self, event: &mut PlayerEvent) {
        event.stall_flag = self.set.boolean(Key::Bs);
        event.stall_count_total = largest(self.numbers(Key::Bsa));
        event.stall_total_ms = largest(self.numbers(Key::Bsda));
        if let Some((stall_ms, count)) = finished_stalls(self.numbers(Key::Bsd)) {
            event.stall_ms = Some(stall_ms);
            event.stall_count = (count > 1).then_some(count);
        }
    }

    fn object(&mut self, event: &mut PlayerEvent) {
        event.object_type = self.set.token(Key::Ot).map(|token| match token {
            "m" => "manifest",
            "a" => "audio",
            "v" => "video",
            "av" => "muxed",
            "i" => "init",
            "c" => "caption",
            "tt" => "timed_text",
            "k" => "key",
            _ => "other",
        });
        event.object_duration_ms = self.number(Key::D);
        event.deadline_ms = self.number(Key::Dl);
    }

    fn response(&mut self, event: &mut PlayerEvent) {
        let url = self.text(Key::Url).map(without_query);
        event.host = self.owned(Key::H).or_else(|| url.and_then(host).map(str::to_owned));
        event.url = url.map(|url| without_user_info(url).into_owned());
        event.cdn = self.owned(Key::Cdn);
        event.http_status = self.number(Key::Rc);
        event.ttfb_ms = self.number(Key::Ttfb);
        event.ttfbb_ms = self.number(Key::Ttfbb);
        event.ttlb_ms = self.number(Key::Ttlb);
    }

    /// What has no field of its own.
    fn extras(&mut self) {
        let set = self.set;
        for custom in &set.custom {
            self.ext.push((&custom.key, Cow::Borrowed(custom.text.as_str())));
        }
        for key in [Key::Cs, Key::Nor, Key::Nrr, Key::Cen] {
            if let Some(text) = self.text(key) {
                self.ext.push((key.name(), Cow::Borrowed(text)));
            }
        }
        for (key, name) in [(Key::Cmsdd, "cmsdd"), (Key::Cmsds, "cmsds"), (Key::Smrt, "smrt")] {
            if let Some(sent) = self.text(key) {
                let decoded = base64_text(sent);
                if decoded.is_none() {
                    self.fault(key, rule::NOT_BASE64);
                }
                self.ext.push((name, decoded.map_or(Cow::Borrowed(sent), Cow::Owned)));
            }
        }
        self.next_objects(set.texts(Key::Nor));
        for (key, text) in &set.sent {
            if set.value(*key).is_none() {
                self.ext.push((sent_name(*key), Cow::Borrowed(text.as_str())));
            }
        }
    }

    /// The list of version 2 as JSON, and its ranges under the name that version 1 has for them.
    fn next_objects(&mut self, objects: &[Ranged]) {
        if objects.is_empty() {
            return;
        }
        let urls: Vec<&str> = objects.iter().map(|object| object.text.as_str()).collect();
        self.ext.push(("nor", Cow::Owned(serde_json::Value::from(urls).to_string())));
        if objects.iter().any(|object| object.range.is_some()) {
            let ranges: Vec<Option<&str>> = objects.iter().map(|object| object.range.as_deref()).collect();
            self.ext.push(("nrr", Cow::Owned(serde_json::Value::from(ranges).to_string())));
        }
    }
}

/// The name under which a value that was no integer is kept for the player-quirk layer (2.6).
fn sent_name(key: Key) -> &'static str {
    match key {
        Key::Bl => "cmcd.bl",
        Key::Dl => "cmcd.dl",
        Key::Mtp => "cmcd.mtp",
        _ => "cmcd.tb",
    }
}

fn state(token: &str) -> Option<ReportedState> {
    Some(match token {
        "d" => ReportedState::Preloading,
        "s" => ReportedState::Starting,
        "p" => ReportedState::Playing,
        "k" => ReportedState::Seeking,
        "r" => ReportedState::Rebuffering,
        "a" => ReportedState::Paused,
        "w" => ReportedState::Waiting,
        "e" => ReportedState::Ended,
        "f" => ReportedState::Failed,
        "q" => ReportedState::Quit,
        _ => return None,
    })
}

fn bps(kbps: i64) -> i64 {
    kbps.saturating_mul(1000)
}

fn tagged_as(members: &[Tagged], tag: Option<&str>) -> Option<i64> {
    members.iter().find(|member| member.tag == tag).map(|member| member.number)
}

/// The number for one type: tagged with it, or untagged on a record about an object of that type.
fn of_type(members: &[Tagged], object_type: &str, about: Option<&str>) -> Option<i64> {
    let untagged = || tagged_as(members, None).filter(|_| about == Some(object_type));
    tagged_as(members, Some(object_type)).or_else(untagged)
}

/// True if a number stands for video and audio together.
fn has_whole(members: &[Tagged], about: Option<&str>) -> bool {
    tagged_as(members, Some("av")).is_some() || tagged_as(members, None).is_some() && about != Some("a")
}

/// A bitrate of the whole: untagged, muxed, or the sum of what is declared for video and audio.
fn whole(members: &[Tagged]) -> Option<i64> {
    let parts = [tagged_as(members, Some("v")), tagged_as(members, Some("a"))];
    let sum = parts.into_iter().flatten().reduce(i64::saturating_add);
    let any = members.iter().map(|member| member.number).max();
    tagged_as(members, None).or(tagged_as(members, Some("av"))).or(sum).or(any)
}

/// The type whose numbers stand for the viewer's: video, else untagged, else muxed; `None`: others.
fn preferred(members: &[Tagged]) -> Option<Option<&'static str>> {
    let order = [Some("v"), None, Some("av")];
    order.into_iter().find(|tag| tagged_as(members, *tag).is_some())
}

/// The largest number of the preferred type: for counts that only grow.
fn largest(members: &[Tagged]) -> Option<i64> {
    let chosen = preferred(members);
    let counts = members.iter().filter(|member| chosen.is_none_or(|tag| member.tag == tag));
    counts.map(|member| member.number).max()
}

/// The length of all finished stalls and their number; one stall hits video and audio alike, so only
/// one type counts.
fn finished_stalls(members: &[Tagged]) -> Option<(i64, i64)> {
    let sum_of = |tag: Option<&str>| {
        let of_tag = members.iter().filter(|member| member.tag == tag);
        of_tag.fold((0_i64, 0), |(sum, count), member| (sum.saturating_add(member.number), count + 1))
    };
    match preferred(members) {
        Some(tag) => Some(sum_of(tag)),
        None => members.iter().map(|member| sum_of(member.tag)).max(),
    }
}

/// The URL up to its query or fragment, which may carry CMCD or a viewer's token.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// The URL without a name and password before its host.
fn without_user_info(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Cow::Borrowed(url);
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => Cow::Owned(format!("{scheme}://{}", &rest[at + 1..])),
        None => Cow::Borrowed(url),
    }
}

/// `example.com:8080` of `https://example.com:8080/a`.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = authority.rsplit('@').next()?;
    (!host.is_empty()).then_some(host)
}

/// Base64 (RFC 4648, either alphabet, padding optional) of a UTF-8 text.
fn base64_text(sent: &str) -> Option<String> {
    let digits = sent.trim_end_matches('=').as_bytes();
    let mut decoded = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            bits = bits << 6 | sextet(*digit)?;
        }
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        let whole_bytes = group.len().checked_sub(1).filter(|count| *count > 0)?;
        decoded.extend(&bytes[1..=whole_bytes]);
    }
    String::from_utf8(decoded).ok()
}

fn sextet(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<Tagged> {
        let set = CmcdSet::from_text(&format!("v=2,bsd=({text})"));
        assert!(set.faults().is_empty(), "{text}");
        set.numbers(Key::Bsd).to_vec()
    }

    #[test]
    fn custom_keys_name_the_player_and_the_app() {
        let line = r#"com.example-player-name="hls.js",com.example-player-version="1.6.2",com.example-app="Tele",com.example-app-version="5.1",sid="s",v=2"#;
        let event = crate::event::decode::cmcd::decode_request(&CmcdSet::from_text(line), 0);
        let told = [&event.player_name, &event.player_version, &event.app_name, &event.app_version];
        assert_eq!(
            told.map(Option::as_deref),
            [Some("hls.js"), Some("1.6.2"), Some("Tele"), Some("5.1")]
        );
    }

    #[test]
    fn a_url_loses_the_name_and_password_before_its_host() {
        let check = |url: &str, expected: &str| assert_eq!(without_user_info(url), expected);
        check("https://u:p@h.example/a@b", "https://h.example/a@b");
        check("https://h.example/a@b", "https://h.example/a@b");
        check("../a@b", "../a@b");
    }

    #[test]
    fn one_stall_of_two_types_counts_once_and_two_stalls_of_one_type_add_up() {
        let check = |text: &str, expected: Option<(i64, i64)>| assert_eq!(finished_stalls(&members(text)), expected, "{text}");
        check("", None);
        check("1500", Some((1500, 1)));
        check("1500 800", Some((2300, 2)));
        check("1500;v 1480;a", Some((1500, 1)));
        check("1500;v 300;v 9000;a", Some((1800, 2)));
        check("9000;a 1500", Some((1500, 1)));
        check("9000;a 700;av", Some((700, 1)));
        check("900;a 200;a 1000;o", Some((1100, 2)));
    }

    #[test]
    fn a_bitrate_is_of_the_whole_or_the_sum_of_its_parts() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(whole(&members(text)), expected, "{text}");
        check("", None);
        check("3164", Some(3164));
        check("3000;v 164;a", Some(3164));
        check("3000;v 164;a 3200", Some(3200));
        check("3300;av", Some(3300));
        check("3000;v", Some(3000));
        check("1;c 2;tt", Some(2));
    }

    #[test]
    fn a_url_is_kept_without_what_may_name_a_viewer() {
        let check = |url: &str, kept: &str, name: Option<&str>| {
            assert_eq!((without_query(url), host(without_query(url))), (kept, name), "{url}");
        };
        check("https://a.b:80/x?CMCD=sid%3D1#f", "https://a.b:80/x", Some("a.b:80"));
        check("https://u:p@a.b/x#f", "https://u:p@a.b/x", Some("a.b"));
        check("/x?y", "/x", None);
        check("file:///x", "file:///x", None);
    }

    #[test]
    fn base64_is_decoded_where_it_is_text() {
        let check = |sent: &str, expected: Option<&str>| assert_eq!(base64_text(sent).as_deref(), expected, "{sent}");
        check("", Some(""));
        check("Zg==", Some("f"));
        check("Zm8=", Some("fo"));
        check("Zm9v", Some("foo"));
        check("Zm9vYg", Some("foob"));
        check("ImNkbiI7ZXRwPTc2", Some("\"cdn\";etp=76"));
        check("w6Q", Some("ä"));
        check("_-A", None);
        check("Zm9vY", None);
        check("a b=", None);
    }
}
