//! Decimals where CMCD has integers: `bl=3993.8321995464853` (events and metrics, 2.6).
//!
//! `quirks` calls this. The CMCD decoder leaves the field empty and the text as it was sent in `ext`;
//! here it is rounded into the field: half up, in the unit of the key.
//!
//! Invariant: a field that is known already is not replaced.
//! Invariant: a text that is not wholly understood stays in `ext`, and no field takes a part of it.

use super::fault;
use crate::event::PlayerEvent;

/// Where the decoder keeps a decimal, and its key.
const DECIMALS: [(&str, &str); 4] = [("cmcd.bl", "bl"), ("cmcd.dl", "dl"), ("cmcd.mtp", "mtp"), ("cmcd.tb", "tb")];
/// Above 2^53 a number that passed through JavaScript is not exact any more.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// One number of an inner list, and the object type it is about.
#[derive(Debug, Clone, PartialEq)]
struct Tagged {
    number: i64,
    tag: Option<String>,
}

pub(super) fn round(event: &mut PlayerEvent) {
    for (entry, key) in DECIMALS {
        let Some(position) = event.ext.iter().position(|(name, _)| name == entry) else {
            continue;
        };
        let Some(rounded) = members(&event.ext[position].1) else {
            continue;
        };
        if place(event, key, &rounded) {
            event.ext.remove(position);
            fault(event, key, "nonint");
        }
    }
}

/// `3993.83`, `3993.83;v` or `(3993.83;v 320.5;a)`, rounded.
fn members(text: &str) -> Option<Vec<Tagged>> {
    let inside = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let mut members = Vec::new();
    for member in inside.unwrap_or(text).split_ascii_whitespace() {
        let (number, tag) = match member.split_once(';') {
            Some((number, tag)) => (number, Some(tag.to_owned())),
            None => (member, None),
        };
        let number = rounded_half_up(number)?;
        members.push(Tagged { number, tag });
    }
    let is_single = inside.is_some() || members.len() == 1;
    (is_single && !members.is_empty()).then_some(members)
}

/// A plain number from 0 upwards, rounded half up; `None` for anything else.
fn rounded_half_up(text: &str) -> Option<i64> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if !text.bytes().all(is_plain) {
        return None;
    }
    let rounded = (text.parse::<f64>().ok()? + 0.5).floor();
    (rounded <= INTEGER_MAX).then_some(rounded as i64)
}

/// Puts a rounded value where the key's values go. False: the field is known already.
fn place(event: &mut PlayerEvent, key: &str, members: &[Tagged]) -> bool {
    let largest = members.iter().map(|member| member.number).max();
    match key {
        "bl" => place_buffers(event, members),
        "dl" => fill(&mut event.deadline_ms, largest),
        "mtp" => fill(&mut event.throughput_bps, largest.map(bps)),
        _ => fill(&mut event.top_bitrate_bps, whole(members).or(largest).map(bps)),
    }
}

fn fill(field: &mut Option<i64>, value: Option<i64>) -> bool {
    let is_free = field.is_none();
    if is_free {
        *field = value;
    }
    is_free
}

fn bps(kbps: i64) -> i64 {
    kbps.saturating_mul(1000)
}

fn tagged(members: &[Tagged], tag: Option<&str>) -> Option<i64> {
    members
        .iter()
        .find(|member| member.tag.as_deref() == tag)
        .map(|member| member.number)
}

/// A bitrate of video and audio together: untagged, muxed, or the sum of the two.
fn whole(members: &[Tagged]) -> Option<i64> {
    let parts = [tagged(members, Some("v")), tagged(members, Some("a"))];
    let sum = parts.into_iter().flatten().reduce(i64::saturating_add);
    tagged(members, None).or(tagged(members, Some("av"))).or(sum)
}

/// An untagged buffer is that of the object that is asked for. Playing goes on as long as the
/// emptier of two buffers lasts.
fn place_buffers(event: &mut PlayerEvent, members: &[Tagged]) -> bool {
    if event.buffer_ms.is_some() || event.buffer_video_ms.is_some() || event.buffer_audio_ms.is_some() {
        return false;
    }
    let untagged = |object_type: &str| tagged(members, None).filter(|_| event.object_type == Some(object_type));
    let video_ms = tagged(members, Some("v")).or_else(|| untagged("video"));
    let audio_ms = tagged(members, Some("a")).or_else(|| untagged("audio"));
    let emptier = [video_ms, audio_ms].into_iter().flatten().min();
    event.buffer_ms = tagged(members, None).or(tagged(members, Some("av"))).or(emptier);
    (event.buffer_video_ms, event.buffer_audio_ms) = (video_ms, audio_ms);
    event.buffer_ms.is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ext(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn rounded(mut event: PlayerEvent) -> PlayerEvent {
        round(&mut event);
        event
    }

    fn with(key: &str, text: &str) -> PlayerEvent {
        PlayerEvent {
            ext: ext(&[(key, text)]),
            ..PlayerEvent::default()
        }
    }

    #[test]
    fn decimals_are_rounded_half_up_into_their_fields() {
        let event = rounded(PlayerEvent {
            object_type: Some("video"),
            ext: ext(&[
                ("a", "1"),
                ("cmcd.bl", "3993.8321995464853"),
                ("cmcd.dl", "3993.5"),
                ("cmcd.mtp", "25400.4999"),
                ("cmcd.tb", "6000.5"),
            ]),
            ..PlayerEvent::default()
        });
        assert_eq!(
            (event.buffer_ms, event.buffer_video_ms, event.buffer_audio_ms),
            (Some(3994), Some(3994), None)
        );
        assert_eq!(event.deadline_ms, Some(3994));
        assert_eq!((event.throughput_bps, event.top_bitrate_bps), (Some(25_400_000), Some(6_001_000)));
        assert_eq!(event.ext, ext(&[("a", "1")]));
        let faults: Vec<(&str, &str)> = event.key_faults.iter().map(|fault| (fault.key, fault.rule)).collect();
        assert_eq!(faults, [("bl", "nonint"), ("dl", "nonint"), ("mtp", "nonint"), ("tb", "nonint")]);
    }

    #[test]
    fn a_buffer_belongs_to_the_type_it_names_else_to_the_object() {
        let check = |object_type: Option<&'static str>, text: &str, expected: [Option<i64>; 3]| {
            let event = rounded(PlayerEvent {
                object_type,
                ..with("cmcd.bl", text)
            });
            assert_eq!(
                [event.buffer_ms, event.buffer_video_ms, event.buffer_audio_ms],
                expected,
                "{object_type:?} {text}"
            );
        };
        check(Some("video"), "0.4", [Some(0), Some(0), None]);
        check(Some("audio"), "0.4", [Some(0), None, Some(0)]);
        check(Some("muxed"), "0.4", [Some(0), None, None]);
        check(None, "0.4", [Some(0), None, None]);
        check(None, "7.5;v", [Some(8), Some(8), None]);
        check(None, "(5000.5;v 300.2;a)", [Some(300), Some(5001), Some(300)]);
        check(None, "(5000.5;v 300.2;a 4.5)", [Some(5), Some(5001), Some(300)]);
        check(None, "(4.5;av)", [Some(5), None, None]);
        check(None, "(4.5;tt)", [None, None, None]);
    }

    #[test]
    fn a_list_is_one_bitrate_of_the_whole_and_one_throughput() {
        assert_eq!(rounded(with("cmcd.tb", "(6000.5;v 128.4;a)")).top_bitrate_bps, Some(6_129_000));
        assert_eq!(rounded(with("cmcd.tb", "(6000.5;o)")).top_bitrate_bps, Some(6_001_000));
        assert_eq!(rounded(with("cmcd.mtp", "(6000.5;v 128.4;a)")).throughput_bps, Some(6_001_000));
    }

    #[test]
    fn what_is_no_decimal_or_known_already_stays_where_it_is() {
        let check = |event: PlayerEvent| assert_eq!(rounded(event.clone()), event);
        for text in [
            "",
            ".",
            "()",
            "-1.5",
            "1.5 2.5",
            "(1.5 x)",
            "(1.5",
            "inf",
            "1e5",
            "NaN",
            "99999999999999999999.5",
            "1.2.3",
        ] {
            check(with("cmcd.bl", text));
            check(with("cmcd.mtp", text));
        }
        check(PlayerEvent {
            buffer_video_ms: Some(1),
            deadline_ms: Some(2),
            ext: ext(&[("cmcd.bl", "7.5"), ("cmcd.dl", "7.5"), ("bl", "7.5")]),
            ..PlayerEvent::default()
        });
    }

    proptest! {
        #[test]
        fn any_text_is_rounded_or_left(text in "\\PC{0,12}|[(]?[0-9.;va ]{0,24}[)]?") {
            let event = rounded(with("cmcd.bl", &text));
            prop_assert_eq!(event.buffer_ms.is_some(), event.ext.is_empty());
            prop_assert_eq!(rounded(event.clone()), event);
        }
    }
}
