//! User agent to device class, system and browser.
//!
//! `enrich` asks here, for player events and CDN requests alike. The data set is woothee's, compiled
//! in; names are brought to those of uap-core, which the reference dashboards use (`Mac OS X`, `IE`).
//! Television sets and newer consoles, which woothee takes for phones and computers, are told by the
//! tokens their makers put in.
//!
//! Takes the user agent decoded: `%20` in it hides the system.
//!
//! Invariant: what is not recognised is `None`, never a word for unknown.
//! Invariant: memory is bounded, whatever is sent.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use woothee::parser::{Parser, WootheeResult};
use woothee::woothee::VALUE_UNKNOWN;

use crate::event::Device;

/// User agents remembered. A site sees a few hundred at a time, so this is rarely full; then it
/// starts afresh, which costs one parse each. With the longest user agents it holds 4 MiB.
const REMEMBERED_MAX: usize = 4096;

/// Real user agents end well before; what is behind is not looked at.
const USER_AGENT_BYTES_MAX: usize = 1024;

/// Tokens of television sets, sticks and boxes, and the system that goes with them where woothee
/// does not know it.
const TELEVISIONS: [(&str, Option<&str>); 17] = [
    ("AppleTV", Some("tvOS")),
    ("Apple TV", Some("tvOS")),
    ("tvOS", Some("tvOS")),
    ("Roku", Some("Roku")),
    ("Web0S", Some("webOS")),
    ("Tizen", Some("Tizen")),
    ("NetCast", None),
    ("BRAVIA", None),
    ("HbbTV", None),
    ("CrKey", None),
    ("; AFT", None),
    ("Android TV", None),
    ("Google TV", None),
    ("GoogleTV", None),
    ("SMART-TV", None),
    ("SmartTV", None),
    ("Smart TV", None),
];

/// Consoles that call themselves Windows or name no system.
const CONSOLES: [&str; 4] = ["PlayStation", "PLAYSTATION", "Xbox", "Nintendo"];

/// Products by which players that fetch media themselves name their releases: `ExoPlayerLib/2.18.1`.
const PLAYERS: [(&str, &str); 8] = [
    ("AppleCoreMedia/", "AVPlayer"),
    ("AndroidXMedia3/", "Media3"),
    ("ExoPlayerLib/", "ExoPlayer"),
    ("Roku/DVP-", "Roku"),
    ("VLC/", "VLC"),
    ("Lavf/", "FFmpeg"),
    ("GStreamer/", "GStreamer"),
    ("Kodi/", "Kodi"),
];

/// What a user agent says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserAgent {
    pub device: Device,
    pub is_bot: bool,
    /// A native player names itself and its release; a browser names no player.
    pub player_name: Option<&'static str>,
    pub player_version: Option<String>,
}

/// The parser, and what it found for the user agents of late.
#[derive(Debug, Default)]
pub struct DeviceLookup {
    remembered: RwLock<HashMap<Box<str>, Arc<UserAgent>>>,
}

impl DeviceLookup {
    pub fn lookup(&self, user_agent: &str) -> Arc<UserAgent> {
        let text = cut(user_agent);
        // A thread that panicked while it held the lock left a whole map behind: entries are only
        // inserted or all removed.
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered.get(text) {
            return Arc::clone(known);
        }
        drop(remembered);
        let told = Arc::new(parse(text));
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(text.into(), Arc::clone(&told));
        told
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(USER_AGENT_BYTES_MAX)]
}

fn parse(text: &str) -> UserAgent {
    let told = Parser::new().parse(text).unwrap_or_default();
    if told.category == "crawler" {
        let device_type = Some("bot".to_owned());
        let device = Device {
            device_type,
            browser: known(told.name),
            ..Device::default()
        };
        return UserAgent {
            device,
            is_bot: true,
            ..UserAgent::default()
        };
    }
    let television = television(text);
    let device_type = match television {
        Some(_) => Some("tv"),
        None => device_type(&told, text),
    };
    let os = television.flatten().or_else(|| os(told.os));
    let device = Device {
        device_type: device_type.map(str::to_owned),
        device_model: device_model(told.os),
        os: os.map(str::to_owned),
        browser: browser(told.name),
    };
    let (player_name, player_version) = player(text).unzip();
    UserAgent {
        device,
        is_bot: false,
        player_name,
        player_version: player_version.filter(|version| !version.is_empty()),
    }
}

/// A native player and its release.
fn player(text: &str) -> Option<(&'static str, String)> {
    let found = PLAYERS
        .iter()
        .find_map(|(token, name)| text.split_once(token).map(|(_, rest)| (*name, rest)));
    let (name, rest) = found?;
    let is_version = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let end = rest.find(|letter| !is_version(letter)).unwrap_or(rest.len());
    Some((name, rest[..end].to_owned()))
}

/// `Some(None)`: a television set whose system woothee tells.
fn television(text: &str) -> Option<Option<&'static str>> {
    TELEVISIONS.iter().find(|(token, _)| text.contains(token)).map(|(_, os)| *os)
}

fn device_type(told: &WootheeResult<'_>, text: &str) -> Option<&'static str> {
    if CONSOLES.iter().any(|token| text.contains(token)) {
        return Some("console");
    }
    match told.category {
        "pc" => Some("desktop"),
        "smartphone" if is_tablet(told.os, text) => Some("tablet"),
        "smartphone" | "mobilephone" => Some("mobile"),
        // The game consoles among the appliances are gone by now.
        "appliance" => Some("tv"),
        _ => None,
    }
}

/// Android tablets leave the word `Mobile` out (Chrome's rule for its own user agents).
fn is_tablet(os: &str, text: &str) -> bool {
    os == "iPad" || (os == "Android" && !text.contains("Mobile"))
}

/// Apple says which of its devices it is; others hide the model in words of their own.
fn device_model(os: &str) -> Option<String> {
    matches!(os, "iPhone" | "iPad" | "iPod").then(|| os.to_owned())
}

fn os(name: &str) -> Option<&str> {
    match name {
        "" | VALUE_UNKNOWN => None,
        "Mac OSX" => Some("Mac OS X"),
        "Mac OS Classic" => Some("Mac OS"),
        "iPhone" | "iPad" | "iPod" => Some("iOS"),
        "ChromeOS" => Some("Chrome OS"),
        "Windows Phone OS" => Some("Windows Phone"),
        "Windows CE" => Some("Windows CE"),
        _ if name.starts_with("Windows") => Some("Windows"),
        _ if name.starts_with("BlackBerry") => Some("BlackBerry OS"),
        _ => Some(name),
    }
}

fn browser(name: &str) -> Option<String> {
    match name {
        "Internet Explorer" => Some("IE".to_owned()),
        "SamsungBrowser" => Some("Samsung Internet".to_owned()),
        _ => known(name),
    }
}

fn known(name: &str) -> Option<String> {
    (!name.is_empty() && name != VALUE_UNKNOWN).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(user_agent: &str, expected: [Option<&str>; 3]) {
        let told = DeviceLookup::default().lookup(user_agent);
        let device = &told.device;
        let found = [&device.device_type, &device.os, &device.browser].map(Option::as_deref);
        assert_eq!(found, expected, "{user_agent}");
    }

    #[test]
    fn the_reference_row_is_chrome_on_a_mac() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn_v1_row.tsv");
        let row = std::fs::read_to_string(path).expect("the reference row is in the repository");
        let encoded = row.split('\t').nth(10).expect("the eleventh column is the user agent");
        check(&encoded.replace("%2520", " "), [Some("desktop"), Some("Mac OS X"), Some("Chrome")]);
    }

    #[test]
    fn a_native_player_names_itself_and_a_browser_none() {
        let check = |user_agent: &str, name: Option<&str>, version: Option<&str>| {
            let told = DeviceLookup::default().lookup(user_agent);
            assert_eq!((told.player_name, told.player_version.as_deref()), (name, version), "{user_agent}");
        };
        check(
            "AppleCoreMedia/1.0.0.21F79 (iPhone; U; CPU OS 17_5 like Mac OS X; en_us)",
            Some("AVPlayer"),
            Some("1.0.0.21F79"),
        );
        check(
            "Example/5.2 (Linux;Android 14) ExoPlayerLib/2.18.1",
            Some("ExoPlayer"),
            Some("2.18.1"),
        );
        check("VLC/", Some("VLC"), None);
        check(
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120.0 Safari/537.36",
            None,
            None,
        );
    }

    #[test]
    fn names_are_those_of_uap_core() {
        check(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 10_2_1 like Mac OS X) AppleWebKit/602.4.6 (KHTML, like Gecko) Version/10.0 Mobile/14D27 Safari/602.1",
            [Some("mobile"), Some("iOS"), Some("Safari")],
        );
        check(
            "Mozilla/5.0 (iPad; CPU OS 9_3 like Mac OS X) AppleWebKit/601.1 (KHTML, like Gecko) Version/9.0 Mobile/13E188a Safari/601.1",
            [Some("tablet"), Some("iOS"), Some("Safari")],
        );
        check(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/78.0.3904.108 Safari/537.36",
            [Some("desktop"), Some("Windows"), Some("Chrome")],
        );
        check(
            "Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko",
            [Some("desktop"), Some("Windows"), Some("IE")],
        );
        check(
            "Mozilla/5.0 (Linux; Android 10; Pixel 3) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Mobile Safari/537.36",
            [Some("mobile"), Some("Android"), Some("Chrome")],
        );
        check(
            "Mozilla/5.0 (Linux; Android 9; SM-T510) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Safari/537.36",
            [Some("tablet"), Some("Android"), Some("Chrome")],
        );
        check(
            "Mozilla/5.0 (X11; CrOS x86_64 12739.105.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.158 Safari/537.36",
            [Some("desktop"), Some("Chrome OS"), Some("Chrome")],
        );
        check(
            "Mozilla/5.0 (X11; Linux x86_64; rv:83.0) Gecko/20100101 Firefox/83.0",
            [Some("desktop"), Some("Linux"), Some("Firefox")],
        );
    }

    #[test]
    fn television_sets_and_consoles_are_no_phones() {
        check(
            "Mozilla/5.0 (SMART-TV; Linux; Tizen 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Version/5.0 TV Safari/537.36",
            [Some("tv"), Some("Tizen"), Some("Safari")],
        );
        check(
            "Mozilla/5.0 (Linux; Android 7.1.2; AFTMM Build/NS6265) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/70.0.3538.110 Mobile Safari/537.36",
            [Some("tv"), Some("Android"), Some("Chrome")],
        );
        check("Roku/DVP-9.10 (519.10E04111A)", [Some("tv"), Some("Roku"), None]);
        check("AppleTV11,1/11.1", [Some("tv"), Some("tvOS"), None]);
        check(
            "Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 Safari/605.1.15",
            [Some("console"), None, Some("Safari")],
        );
        check(
            "Mozilla/5.0 (PlayStation 4 7.51) AppleWebKit/605.1.15 (KHTML, like Gecko)",
            [Some("console"), Some("PlayStation 4"), Some("PlayStation 4")],
        );
    }

    #[test]
    fn a_crawler_is_a_bot_and_has_no_system() {
        let crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        check(crawler, [Some("bot"), None, Some("Googlebot")]);
        assert!(DeviceLookup::default().lookup(crawler).is_bot);
    }

    #[test]
    fn the_unknown_is_none() {
        for text in ["", "-", "my-player", "Mozilla/5.0", "\u{0}\u{1}"] {
            check(text, [None, None, None]);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let devices = DeviceLookup::default();
        for number in 0..REMEMBERED_MAX + 10 {
            devices.lookup(&format!("player {number}"));
        }
        assert_eq!(devices.remembered.read().unwrap().len(), 10);
        let longest = "ä".repeat(USER_AGENT_BYTES_MAX);
        assert_eq!(devices.lookup(&longest), devices.lookup(&longest[..USER_AGENT_BYTES_MAX]));
        assert_eq!(devices.remembered.read().unwrap().len(), 11);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            text in "\\PC{0,80}|(Mozilla/5\\.0|Windows|NT|Phone| |\\(|;|\\)|like|Mac OS X|iPhone;|MSIE|Trident/7|DoCoMo/|KDDI-|UP\\.Browser|[0-9.]{0,4}|Opera|Version/|Firefox/){0,16}"
        ) {
            let devices = DeviceLookup::default();
            prop_assert_eq!(devices.lookup(&text), devices.lookup(&text));
        }
    }
}
