//! What kind of object a request asks for: its class and its container.
//!
//! `enrich` asks here. CMCD's `ot` is believed first, then the end of the path, then the content
//! type: an error page sent in place of a segment is still a request for a segment.
//!
//! Invariant: an answer allocates nothing, and depends on its three inputs alone.

/// What part of a presentation a request asks for (events and metrics, 3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectClass {
    /// Playlist or MPD.
    Manifest,
    /// Initialisation segment.
    Init,
    /// Audio or video, also a whole file.
    Segment,
    /// Key, licence or certificate.
    Key,
    /// Caption or timed text.
    Subtitle,
    /// Poster, thumbnail or trick-play image.
    Image,
    Other,
}

impl ObjectClass {
    pub const ALL: [ObjectClass; 7] = [
        ObjectClass::Manifest,
        ObjectClass::Init,
        ObjectClass::Segment,
        ObjectClass::Key,
        ObjectClass::Subtitle,
        ObjectClass::Image,
        ObjectClass::Other,
    ];

    /// The name stored in `object_class`.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectClass::Manifest => "manifest",
            ObjectClass::Init => "init",
            ObjectClass::Segment => "segment",
            ObjectClass::Key => "key",
            ObjectClass::Subtitle => "subtitle",
            ObjectClass::Image => "image",
            ObjectClass::Other => "other",
        }
    }
}

/// What is known of an object before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    pub class: ObjectClass,
    /// `hls`, `dash`, `smooth` (manifests), `mpegts`, `mp4`, `webm`, `packed_audio`, `webvtt`, `ttml`.
    pub container: Option<&'static str>,
}

/// Longest ending that is looked at: `webvtt`, `mpegts`.
const ENDING_BYTES_MAX: usize = 6;

/// `path`: with or without its query. `object_type`: as `PlayerEvent::object_type` has it.
pub fn object(path: Option<&str>, content_type: Option<&str>, object_type: Option<&str>) -> Object {
    let by_path = path.and_then(by_path);
    let found = by_path.or_else(|| content_type.and_then(by_content_type));
    let (class, container) = found.unwrap_or((ObjectClass::Other, None));
    Object {
        class: object_type.and_then(by_object_type).unwrap_or(class),
        container,
    }
}

type Told = (ObjectClass, Option<&'static str>);

/// `other` is no answer: the path may know more.
fn by_object_type(object_type: &str) -> Option<ObjectClass> {
    match object_type {
        "manifest" => Some(ObjectClass::Manifest),
        "init" => Some(ObjectClass::Init),
        "audio" | "video" | "muxed" => Some(ObjectClass::Segment),
        "key" => Some(ObjectClass::Key),
        "caption" | "timed_text" => Some(ObjectClass::Subtitle),
        _ => None,
    }
}

fn by_path(path: &str) -> Option<Told> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    match name.rsplit_once('.') {
        Some((stem, ending)) => by_ending(stem, ending).or_else(|| by_name(name)),
        None => by_name(name),
    }
}

fn by_ending(stem: &str, ending: &str) -> Option<Told> {
    let mut buffer = [0; ENDING_BYTES_MAX];
    let lower = buffer.get_mut(..ending.len())?;
    lower.copy_from_slice(ending.as_bytes());
    lower.make_ascii_lowercase();
    let told = match &*lower {
        b"m3u8" | b"m3u" => (ObjectClass::Manifest, Some("hls")),
        b"mpd" => (ObjectClass::Manifest, Some("dash")),
        b"ism" | b"isml" => (ObjectClass::Manifest, Some("smooth")),
        b"f4m" => (ObjectClass::Manifest, None),
        b"ts" | b"mpegts" | b"m2ts" => (ObjectClass::Segment, Some("mpegts")),
        b"m4s" | b"mp4" | b"m4v" | b"m4a" | b"m4f" | b"cmfv" | b"cmfa" | b"cmf" | b"dash" | b"mp4a" | b"mp4v" | b"mov" => {
            (class_of_mp4(stem), Some("mp4"))
        }
        b"webm" | b"mkv" => (class_of_mp4(stem), Some("webm")),
        b"aac" | b"ac3" | b"ec3" | b"eac3" | b"mp3" => (ObjectClass::Segment, Some("packed_audio")),
        b"flv" | b"f4f" | b"ogg" | b"opus" | b"wav" => (ObjectClass::Segment, None),
        b"key" | b"cer" | b"der" => (ObjectClass::Key, None),
        b"vtt" | b"webvtt" => (ObjectClass::Subtitle, Some("webvtt")),
        b"ttml" | b"dfxp" | b"imsc" | b"imsc1" => (ObjectClass::Subtitle, Some("ttml")),
        b"cmft" | b"m4t" => (ObjectClass::Subtitle, Some("mp4")),
        b"srt" | b"stl" => (ObjectClass::Subtitle, None),
        b"jpg" | b"jpeg" | b"png" | b"webp" | b"gif" | b"avif" | b"bif" | b"svg" | b"ico" => (ObjectClass::Image, None),
        _ => return None,
    };
    Some(told)
}

/// `init.mp4`, `video_init.m4s`, `chunk-stream0-init.mp4`, `init-0.m4s`; `initial.mp4` is none.
fn class_of_mp4(stem: &str) -> ObjectClass {
    let is_init = stem
        .split(|letter: char| !letter.is_ascii_alphabetic())
        .any(|word| word.eq_ignore_ascii_case("init"));
    if is_init { ObjectClass::Init } else { ObjectClass::Segment }
}

/// Names without an ending: Smooth's and those of licence servers.
fn by_name(name: &str) -> Option<Told> {
    let word = name.split_once('(').map_or(name, |(word, _)| word);
    let is = |expected: &str| word.eq_ignore_ascii_case(expected);
    match () {
        () if is("manifest") => Some((ObjectClass::Manifest, Some(container_of_manifest(name)))),
        () if is("fragments") => Some((ObjectClass::Segment, Some("mp4"))),
        () if is("license") || is("licence") || is("key") => Some((ObjectClass::Key, None)),
        () => None,
    }
}

/// Azure's names of manifests in other formats: `Manifest(format=m3u8-aapl)`, `Manifest(format=mpd-time-csf)`.
fn container_of_manifest(name: &str) -> &'static str {
    match () {
        () if name.contains("format=m3u8") => "hls",
        () if name.contains("format=mpd") => "dash",
        () => "smooth",
    }
}

fn by_content_type(content_type: &str) -> Option<Told> {
    let essence = content_type.split_once(';').map_or(content_type, |(essence, _)| essence).trim();
    let is = |expected: &[&str]| expected.iter().any(|expected| essence.eq_ignore_ascii_case(expected));
    let begins = |expected: &str| {
        essence
            .get(..expected.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(expected))
    };
    match () {
        () if is(&HLS) => Some((ObjectClass::Manifest, Some("hls"))),
        () if is(&["application/dash+xml"]) => Some((ObjectClass::Manifest, Some("dash"))),
        () if is(&["application/vnd.ms-sstr+xml"]) => Some((ObjectClass::Manifest, Some("smooth"))),
        () if is(&["video/mp2t"]) => Some((ObjectClass::Segment, Some("mpegts"))),
        () if is(&["video/mp4", "audio/mp4", "video/iso.segment", "audio/iso.segment"]) => Some((ObjectClass::Segment, Some("mp4"))),
        () if is(&["video/webm", "audio/webm"]) => Some((ObjectClass::Segment, Some("webm"))),
        () if begins("video/") || begins("audio/") => Some((ObjectClass::Segment, None)),
        () if is(&["text/vtt"]) => Some((ObjectClass::Subtitle, Some("webvtt"))),
        () if is(&["application/ttml+xml"]) => Some((ObjectClass::Subtitle, Some("ttml"))),
        () if begins("image/") => Some((ObjectClass::Image, None)),
        () if is(&[
            "application/pgp-keys",
            "application/pkix-cert",
            "application/vnd.ms-playready.initiator+xml",
        ]) =>
        {
            Some((ObjectClass::Key, None))
        }
        () => None,
    }
}

/// The registered type of a playlist, and those in use before it (RFC 8216, section 4).
const HLS: [&str; 4] = [
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(path: &str, content_type: &str, object_type: &str, expected: (&str, Option<&str>)) {
        let given = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        let leaked = |text: &str| given(Box::leak(text.to_owned().into_boxed_str()));
        let told = object(leaked(path), leaked(content_type), leaked(object_type));
        assert_eq!(
            (told.class.as_str(), told.container),
            expected,
            "{path} {content_type} {object_type}"
        );
    }

    #[test]
    fn the_end_of_the_path_tells_the_class() {
        for (path, expected) in [
            ("/a/master.m3u8", ("manifest", Some("hls"))),
            ("/a/MASTER.M3U8?x=.mp4", ("manifest", Some("hls"))),
            ("/a/film.mpd", ("manifest", Some("dash"))),
            ("/a/film.ism/Manifest", ("manifest", Some("smooth"))),
            ("/a/film.ism/manifest(format=m3u8-aapl)", ("manifest", Some("hls"))),
            ("/a/film.ism/Manifest(format=mpd-time-csf)", ("manifest", Some("dash"))),
            ("/a/film.ism/QualityLevels(1)/Fragments(video=0)", ("segment", Some("mp4"))),
            ("/a/init.mp4", ("init", Some("mp4"))),
            ("/a/video_init.m4s", ("init", Some("mp4"))),
            ("/a/chunk-stream0-init.mp4", ("init", Some("mp4"))),
            ("/a/init0.m4s", ("init", Some("mp4"))),
            ("/a/initial.mp4", ("segment", Some("mp4"))),
            ("/init/seg1.m4s", ("segment", Some("mp4"))),
            ("/a/seg1.ts", ("segment", Some("mpegts"))),
            ("/a/seg1.cmfv", ("segment", Some("mp4"))),
            ("/a/seg1.aac", ("segment", Some("packed_audio"))),
            ("/a/seg1.webm", ("segment", Some("webm"))),
            ("/a/1.key", ("key", None)),
            ("/widevine/License", ("key", None)),
            ("/a/en.vtt", ("subtitle", Some("webvtt"))),
            ("/a/en.ttml", ("subtitle", Some("ttml"))),
            ("/a/thumb.jpg", ("image", None)),
            ("/a/trick.bif", ("image", None)),
            ("/a/player.js", ("other", None)),
            ("/", ("other", None)),
            ("/a/seg.toolonganending", ("other", None)),
            ("/a/é.é", ("other", None)),
        ] {
            check(path, "", "", expected);
        }
    }

    #[test]
    fn the_content_type_tells_where_the_path_does_not() {
        check(
            "/a/1",
            "application/vnd.apple.mpegURL; charset=utf-8",
            "",
            ("manifest", Some("hls")),
        );
        check("", "application/dash+xml", "", ("manifest", Some("dash")));
        check("/a/1", "video/MP2T", "", ("segment", Some("mpegts")));
        check("/a/1", "audio/flac", "", ("segment", None));
        check("/a/1", "text/vtt", "", ("subtitle", Some("webvtt")));
        check("/a/1", "image/png", "", ("image", None));
        check("/a/1", "text/html", "", ("other", None));
        check("/a/1", "é", "", ("other", None));
        check("/a/1.ts", "text/html", "", ("segment", Some("mpegts")));
        check("", "", "", ("other", None));
    }

    #[test]
    fn cmcd_is_believed_first_unless_it_says_other() {
        check("/a/1.mp4", "", "init", ("init", Some("mp4")));
        check("/a/1.m4s", "", "timed_text", ("subtitle", Some("mp4")));
        check("/a/1", "", "video", ("segment", None));
        check("/a/1.ts", "", "other", ("segment", Some("mpegts")));
        check("/a/1", "", "key", ("key", None));
        check("/a/x", "", "manifest", ("manifest", None));
    }

    #[test]
    fn each_class_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = ObjectClass::ALL.map(ObjectClass::as_str).into();
        assert_eq!(names.len(), ObjectClass::ALL.len());
    }

    proptest! {
        #[test]
        fn any_text_is_no_panic(path in "\\PC{0,40}", content_type in "\\PC{0,20}", object_type in "\\PC{0,8}") {
            let told = object(Some(&path), Some(&content_type), Some(&object_type));
            prop_assert!(ObjectClass::ALL.contains(&told.class));
        }
    }
}
