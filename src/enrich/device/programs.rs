//! What fetched: a native player and its release, a browser, a crawler.
//!
//! `device` asks here, beside woothee.
//!
//! Invariant: a browser goes by one name on every device (uap-core's, without its `Mobile`, `iOS` and
//! `WebView`): the device type says the rest.

use woothee::woothee::VALUE_UNKNOWN;

/// Products by which players that fetch media themselves name their releases: `ExoPlayerLib/2.18.1`.
const PLAYERS: &[(&str, &str)] = &[
    ("AppleCoreMedia/", "AVPlayer"),
    ("AndroidXMedia3/", "Media3"),
    ("ExoPlayerLib/", "ExoPlayer"),
    ("ExoPlayer/", "ExoPlayer"),
    ("Roku/DVP-", "Roku"),
    ("/DVP-", "Roku"),
    ("LibVLC/", "VLC"),
    ("VLC/", "VLC"),
    ("Lavf/", "FFmpeg"),
    ("GStreamer/", "GStreamer"),
    ("Kodi/", "Kodi"),
    ("stagefright/", "Stagefright"),
    ("NSPlayer/", "Windows Media Player"),
    ("NexPlayer/", "NexPlayer"),
    ("mpv/", "mpv"),
];

/// Browsers that woothee takes for the one they are built on, or does not know; the closest first.
const BROWSERS: &[(&str, &str)] = &[
    ("EdgiOS/", "Edge"),
    ("EdgA/", "Edge"),
    ("Edg/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("OPiOS/", "Opera"),
    ("OPT/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Silk/", "Amazon Silk"),
    ("YaBrowser/", "Yandex Browser"),
    ("Vivaldi/", "Vivaldi"),
    ("Whale/", "Whale"),
    ("UCBrowser/", "UC Browser"),
    ("MiuiBrowser/", "MiuiBrowser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("OculusBrowser/", "Oculus Browser"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("QQBrowser/", "QQ Browser"),
    ("FBAV/", "Facebook"),
    ("Instagram", "Instagram"),
    ("Puffin/", "Puffin"),
    ("Electron/", "Electron"),
    ("SeaMonkey/", "SeaMonkey"),
    ("PaleMoon/", "Pale Moon"),
    ("CriOS/", "Chrome"),
    ("FxiOS/", "Firefox"),
];

/// Words of crawlers, probes and monitors, in lower case.
const BOT_WORDS: &[&str] = &[
    "spider",
    "crawl",
    "slurp",
    "scraper",
    "scrapy",
    "archiver",
    "heritrix",
    "nutch",
    "indexer",
    "web preview",
    "externalhit",
    "imgproxy",
    "headlesschrome",
    "lighthouse",
    "inspectiontool",
    "ptst/",
    "pingdom",
    "statuscake",
    "masscan",
    "monitor;",
];

/// What woothee calls a crawler that says it is a browser, and one that it knows no name of.
const NO_CRAWLERS: &[&str] = &[
    "Chrome",
    "Safari",
    "Firefox",
    "Internet Explorer",
    "Opera",
    "Webview",
    "HTTP Library",
    "misc crawler",
];

/// A maker of telephones whose name ends like a crawler's.
const CUBOT: &str = "cubot";

/// A native player and its release.
pub(super) fn player(text: &str) -> Option<(&'static str, String)> {
    let found = PLAYERS
        .iter()
        .find_map(|(token, name)| text.split_once(token).map(|(_, rest)| (*name, rest)));
    let (name, rest) = found?;
    let is_version = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let end = rest.find(|letter| !is_version(letter)).unwrap_or(rest.len());
    Some((name, rest[..end].to_owned()))
}

/// `told`: woothee's name.
pub(super) fn browser(text: &str, told: &str) -> Option<String> {
    let by_token = BROWSERS.iter().find(|(token, _)| text.contains(token)).map(|(_, name)| *name);
    let name = by_token.unwrap_or(match told {
        "Internet Explorer" => "IE",
        // Its words for kinds of program, which name none.
        "Webview" | "HTTP Library" | "misc crawler" | "misc RSSReader" => VALUE_UNKNOWN,
        // Consoles, which woothee names for want of a browser.
        _ if told.starts_with("PlayStation") || told.starts_with("Nintendo") => VALUE_UNKNOWN,
        _ => told,
    });
    known(name)
}

/// `bot` as the end of a word, or a word that crawlers and probes alone use.
pub(super) fn is_bot(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    BOT_WORDS.iter().any(|word| lower.contains(word)) || ends_a_word(&lower, "bot")
}

fn ends_a_word(lower: &str, end: &str) -> bool {
    lower.match_indices(end).any(|(at, _)| {
        let behind = lower[at + end.len()..].chars().next();
        let is_end = !behind.is_some_and(|letter| letter.is_ascii_alphabetic());
        is_end && !lower[..at + end.len()].ends_with(CUBOT)
    })
}

/// A crawler's own name: woothee's, else the word that ends in `bot`.
pub(super) fn crawler(text: &str, told: &str) -> Option<String> {
    let is_separator = |letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '-' | '_');
    let named = || text.split(is_separator).find(|word| ends_a_word(&word.to_ascii_lowercase(), "bot"));
    known(told)
        .filter(|name| !NO_CRAWLERS.contains(&name.as_str()))
        .or_else(|| named().and_then(known))
}

fn known(name: &str) -> Option<String> {
    (!name.is_empty() && name != VALUE_UNKNOWN).then(|| name.to_owned())
}
