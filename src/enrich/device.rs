//! User agent to device class, model, system, browser, player and bot.
//!
//! `enrich` asks here, for player events and CDN requests alike. The data set is woothee's, compiled
//! in, and rows of our own for what it does not know: televisions, boxes, consoles, watches, apps and
//! libraries (`systems`, `models`, `programs`). Browsers and crawlers are named by a file of uap-core's
//! rules where there is one (`rules`). Names are those of uap-core, which the reference dashboards use
//! (`Mac OS X`, `IE`).
//!
//! Takes the user agent as logged or decoded: up to two layers of percent-encoding are taken off, and
//! `+` for a space, for `%20` in it hides the system.
//!
//! Invariant: what is not recognised is `None`, never a word for unknown.
//! Invariant: memory is bounded, whatever is sent.

mod models;
mod programs;
mod rules;
mod systems;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use woothee::parser::Parser;
use woothee::woothee::VALUE_UNKNOWN;

use super::remembered::{Asked, Remembered};
use super::watched::{LookedAt, Watched};
use crate::event::Device;
use crate::privacy::scrub::scrub;
use rules::Rules;
pub use rules::UnusableRules;

/// User agents remembered in a generation. A site sees a few hundred at a time, so this is rarely
/// full. With the longest user agents both generations hold 9 MiB, with usual ones 3.
const REMEMBERED_MAX: usize = 4096;

/// Real user agents end well before; what is behind is not looked at.
const USER_AGENT_BYTES_MAX: usize = 1024;

/// Layers of percent-encoding: CloudFront's logger puts on one or two.
const DECODES_MAX: usize = 2;

/// What a user agent says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserAgent {
    pub device: Device,
    pub is_bot: bool,
    /// A native player names itself and its release; a browser names no player.
    pub player_name: Option<&'static str>,
    pub player_version: Option<String>,
}

/// A file of rules that cannot be used: where, what happens now and what to do.
#[derive(Debug)]
pub struct RulesComplaint {
    pub path: PathBuf,
    pub cause: UnusableRules,
    /// An older file was read before and stays in use.
    pub keeps_old: bool,
}

impl fmt::Display for RulesComplaint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot use devices.user_agents {}: {}; ", self.path.display(), self.cause)?;
        match self.keeps_old {
            true => write!(out, "the file read before stays in use; ")?,
            false => write!(out, "browsers are named by what is compiled in; ")?,
        }
        write!(out, "put uap-core's regexes.yaml there, it is picked up while running")
    }
}

impl std::error::Error for RulesComplaint {}

/// The parser, and what it found for the user agents of late; shared by all threads that decode.
#[derive(Debug)]
pub struct DeviceLookup {
    rules: Option<Watched<Rules>>,
    remembered: Remembered<String, Arc<UserAgent>>,
}

impl Default for DeviceLookup {
    fn default() -> DeviceLookup {
        DeviceLookup {
            rules: None,
            remembered: Remembered::new(REMEMBERED_MAX),
        }
    }
}

impl DeviceLookup {
    /// Reads a file of uap-core's rules. One that cannot be used is complained about, and looked for again by
    /// `reload_changed`.
    pub fn load(user_agents: Option<PathBuf>) -> (DeviceLookup, Option<RulesComplaint>) {
        let lookup = DeviceLookup {
            rules: user_agents.map(Watched::new),
            ..DeviceLookup::default()
        };
        let complaint = lookup.reload_changed();
        (lookup, complaint)
    }

    /// Reads the file if its modification time or length has changed. One that is missing or unusable is
    /// complained about once, and the one read before stays in use.
    pub fn reload_changed(&self) -> Option<RulesComplaint> {
        let file = self.rules.as_ref()?;
        match file.reload_if_changed(Rules::read) {
            LookedAt::Unchanged => None,
            LookedAt::Replaced => {
                self.remembered.forget_all();
                None
            }
            LookedAt::Refused { cause, keeps_old } => Some(RulesComplaint {
                path: file.path().to_owned(),
                cause,
                keeps_old,
            }),
        }
    }

    pub fn lookup(&self, user_agent: &str) -> Arc<UserAgent> {
        let text = cut(user_agent);
        self.remembered.answer(text, || Arc::new(self.parse(&decoded(text))))
    }

    /// How often the memory of user agents knew the answer.
    pub fn asked(&self) -> Asked {
        self.remembered.asked()
    }

    fn parse(&self, text: &str) -> UserAgent {
        let told = Parser::new().parse(text).unwrap_or_default();
        // A name is a piece of the text: one cut out of an address would hold what privacy no longer knows for one.
        let clean = scrub(text);
        let name = self.rules.as_ref().and_then(|file| file.content().as_ref()?.name(&clean));
        if told.category == "crawler" || programs::is_bot(text) {
            return bot(programs::crawler(&clean, name.as_deref().unwrap_or(told.name)));
        }
        let (player_name, player_version) = programs::player(text).unzip();
        UserAgent {
            device: Device {
                browser: name.or_else(|| programs::browser(text, told.name)),
                ..device(text, told.os, told.category)
            },
            is_bot: false,
            player_name,
            player_version: player_version.filter(|version| !version.is_empty()),
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(USER_AGENT_BYTES_MAX)]
}

/// Without its percent-encoding, and without `+` for spaces where it holds no space.
fn decoded(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..DECODES_MAX {
        let next = percent_decode_str(&text).decode_utf8_lossy();
        if next == text {
            break;
        }
        text = Cow::Owned(next.into_owned());
    }
    match !text.contains(' ') && text.contains("+(") {
        true => Cow::Owned(text.replace('+', " ")),
        false => text,
    }
}

/// Without the browser. `os`, `category`: woothee's words.
fn device(text: &str, os: &str, category: &str) -> Device {
    let is_console = models::console(text).is_some();
    let os = systems::system(text).or_else(|| system(os));
    // A console's own system has no name of its own; the Xbox runs Windows.
    let os = os.filter(|os| !is_console || *os == "Windows");
    let device_type = match is_console {
        true => Some("console"),
        false => models::device_type(text, os, category),
    };
    Device {
        device_type: device_type.map(str::to_owned),
        device_model: models::model(text, os),
        os: os.map(str::to_owned),
        browser: None,
    }
}

/// A crawler is on no device: the system that it names is the one that it plays.
fn bot(name: Option<String>) -> UserAgent {
    UserAgent {
        device: Device {
            device_type: Some("bot".to_owned()),
            browser: name,
            ..Device::default()
        },
        is_bot: true,
        ..UserAgent::default()
    }
}

/// Systems that woothee tells and our rows do not, in uap-core's words.
fn system(name: &str) -> Option<&str> {
    match name {
        "" | VALUE_UNKNOWN => None,
        // Carriers and kinds of device, which stand in for a system there.
        "docomo" | "au" | "SoftBank" | "emobile" | "WILLCOM" | "jig" | "DigitalTV" => None,
        "Mac OSX" => Some("Mac OS X"),
        "Mac OS Classic" => Some("Mac OS"),
        "iPhone" | "iPad" | "iPod" => Some("iOS"),
        "ChromeOS" => Some("Chrome OS"),
        "SymbianOS" => Some("Symbian OS"),
        "Windows Phone OS" => Some("Windows Phone"),
        _ if name.starts_with("Windows") => Some("Windows"),
        _ if name.starts_with("BlackBerry") => Some("BlackBerry OS"),
        _ => Some(name),
    }
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
            [Some("console"), None, None],
        );
    }

    #[test]
    fn a_crawler_is_a_bot_and_has_no_system() {
        let crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        check(crawler, [Some("bot"), None, Some("Googlebot")]);
        assert!(DeviceLookup::default().lookup(crawler).is_bot);
    }

    #[test]
    fn crawlers_and_probes_are_told_by_their_words() {
        for (user_agent, name) in [
            (
                "Mozilla/5.0 (compatible; ExampleBot/7.0; +http://example.com/robot/)",
                Some("ExampleBot"),
            ),
            (
                "Mozilla/5.0 (Linux; Android 7.0;) AppleWebKit/537.36 Mobile Safari/537.36 (compatible; AspiegelBot)",
                Some("AspiegelBot"),
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/62.0.3202.89 Safari/537.36",
                None,
            ),
            ("Scrapy/0.22.2 (+http://scrapy.org)", None),
        ] {
            check(user_agent, [Some("bot"), None, name]);
        }
        check(
            "Mozilla/5.0 (Linux; Android 9; CUBOT) AppleWebKit/537.36 Chrome/80.0.3987.99 Mobile Safari/537.36",
            [Some("mobile"), Some("Android"), Some("Chrome")],
        );
        check("curl/7.55.1", [None, None, None]);
    }

    #[test]
    fn no_name_holds_the_end_of_an_address() {
        check("203.0.113.77bot/1.0", [Some("bot"), None, Some("0bot")]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("regexes.yaml");
        std::fs::write(&path, "user_agent_parsers: [{regex: '(\\d+ [A-Z]\\w+)/'}]").unwrap();
        let (lookup, complaint) = DeviceLookup::load(Some(path));
        assert!(complaint.is_none(), "{complaint:?}");
        for user_agent in ["Mozilla/5.0 (203.0.113.77 Spider/1.0)", "203.0.113.77 Player/1.0"] {
            let browser = lookup.lookup(user_agent).device.browser.clone().unwrap();
            assert!(browser.starts_with("0 "), "{browser}");
        }
    }

    #[test]
    fn sets_and_boxes_are_televisions_and_watches_and_speakers_are_none() {
        let check = |user_agent: &str, device_type: Option<&str>, os: &str| {
            let told = DeviceLookup::default().lookup(user_agent);
            let found = (told.device.device_type.as_deref(), told.device.os.as_deref());
            assert_eq!(found, (device_type, Some(os)), "{user_agent}");
        };
        check(
            "HbbTV/1.1.1 (;Samsung;SmartTV2013;T-FXPDEUC-1102.2;;) WebKit",
            Some("tv"),
            "Samsung",
        );
        check(
            "Mozilla/5.0 (Linux; Andr0id 9; BRAVIA 4K UR2) AppleWebKit/537.36 HbbTV/1.5.1 (+DRM; Sony;)",
            Some("tv"),
            "Android",
        );
        check(
            "Mozilla/5.0 (SMART-TV; Linux; Tizen 5.5) HbbTV/1.5.1 (+DRM;Samsung;SmartTV2020;)",
            Some("tv"),
            "Tizen",
        );
        check(
            "Mozilla/5.0 (Linux; Tizen 2.3; SAMSUNG SM-Z130H) AppleWebKit/537.3 Mobile Safari/537.3",
            Some("mobile"),
            "Tizen",
        );
        check(
            "Mozilla/5.0 (QtEmbedded; U; Linux; C) AppleWebKit/533.3 MAG200 stbapp",
            Some("tv"),
            "Linux",
        );
        check(
            "Mozilla/5.0 (X11; Linux armv7l) Chrome/90.0 Safari/537.36 CrKey/1.56 DeviceType/SmartSpeaker",
            None,
            "Chromecast SmartSpeaker",
        );
        check("atc/1.0 watchOS/5.1.3 model/Watch3,4 hwp/t8004", None, "WatchOS");
        check(
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 CriOS/120 Safari/605.1.15",
            Some("tablet"),
            "iOS",
        );
        check(
            "AppleCoreMedia/1.0.0.21F79 (iPhone; U; CPU OS 17_5 like Mac OS X; en_us)",
            Some("mobile"),
            "iOS",
        );
        check(
            "AppleCoreMedia/1.0.0.21F79 (Macintosh; U; Intel Mac OS X 10_15_7; en_us)",
            Some("desktop"),
            "Mac OS X",
        );
        check("Example/5.2 (Linux;Android 14) ExoPlayerLib/2.18.1", Some("mobile"), "Android");
        check(
            "Mozilla/5.0 (Mobile; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5.1",
            Some("mobile"),
            "KaiOS",
        );
    }

    #[test]
    fn a_browser_goes_by_one_name_on_every_device() {
        let check = |products: &str, browser: &str| {
            let user_agent = format!("Mozilla/5.0 (Linux; Android 10; Pixel 3) AppleWebKit/537.36 (KHTML, like Gecko) {products}");
            let told = DeviceLookup::default().lookup(&user_agent);
            assert_eq!(told.device.browser.as_deref(), Some(browser), "{products}");
        };
        check("Chrome/80.0 Mobile Safari/537.36 EdgA/45.0", "Edge");
        check("Chrome/80.0 Safari/537.36 Edg/80.0", "Edge");
        check("SamsungBrowser/11.1 Chrome/75.0 Mobile Safari/537.36", "Samsung Internet");
        check("Silk/80.1 like Chrome/80.0 Safari/537.36", "Amazon Silk");
        check("Chrome/80.0 Mobile Safari/537.36 OPR/57.0", "Opera");
        check("CriOS/80.0 Mobile Safari/604.1", "Chrome");
    }

    #[test]
    fn the_unknown_is_none() {
        for text in ["", "-", "my-player", "Mozilla/5.0", "\u{0}\u{1}"] {
            check(text, [None, None, None]);
        }
    }

    #[test]
    fn a_user_agent_is_read_as_logged_too() {
        let sent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/78.0.3904.108 Safari/537.36";
        let expected = [Some("desktop"), Some("Windows"), Some("Chrome")];
        let once = sent.replace(' ', "%20");
        for logged in [once.as_str(), &once.replace('%', "%25"), &sent.replace(' ', "+")] {
            check(logged, expected);
        }
        check("Example/1.0+(Linux; Android 14; Pixel 8)", [Some("mobile"), Some("Android"), None]);
    }

    #[test]
    fn a_device_names_its_model() {
        let check = |user_agent: &str, model: Option<&str>| {
            let told = DeviceLookup::default().lookup(user_agent);
            assert_eq!(told.device.device_model.as_deref(), model, "{user_agent}");
        };
        check(
            "Mozilla/5.0 (Linux; Android 10; Pixel 3) AppleWebKit/537.36 Chrome/80.0 Mobile Safari/537.36",
            Some("Pixel 3"),
        );
        check(
            "Mozilla/5.0 (Linux; U; Android 9; de-de; SM-T510 Build/PPR1.180610.011) AppleWebKit/537.36",
            Some("SM-T510"),
        );
        check(
            "Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-S911B) AppleWebKit/537.36 SamsungBrowser/23.0",
            Some("SM-S911B"),
        );
        check(
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36",
            None,
        );
        check("Example/5.2 (Linux;Android 14) ExoPlayerLib/2.18.1", None);
        check(
            "Mozilla/5.0 (Linux; Android 9; AFTMM Build/PS7242; wv) AppleWebKit/537.36",
            Some("AFTMM"),
        );
        check("Mozilla/5.0 (iPhone; CPU iPhone OS 10_2_1 like Mac OS X)", Some("iPhone"));
        check("AppleTV11,1/11.1", Some("AppleTV11,1"));
        check("AppleCoreMedia/1.0.0.12F69 (Apple TV; U; CPU OS 8_3 like Mac OS X; en_us)", None);
        check("Roku4640X/DVP-7.70 (297.70E04154A)", Some("4640X"));
        check("Mozilla/5.0 (Nintendo WiiU) AppleWebKit/534.52", Some("Nintendo Wii U"));
        check(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) AppleWebKit/537.36 Edge/44.18363",
            Some("Xbox One"),
        );
        check("Mozilla/5.0 (X11; Linux x86_64; rv:83.0) Gecko/20100101 Firefox/83.0", None);
    }

    #[test]
    fn memory_is_bounded() {
        let devices = DeviceLookup::default();
        for number in 0..3 * REMEMBERED_MAX {
            devices.lookup(&format!("player {number}"));
        }
        assert!(devices.remembered.len() <= 2 * REMEMBERED_MAX);
        let longest = "ä".repeat(USER_AGENT_BYTES_MAX);
        assert_eq!(devices.lookup(&longest), devices.lookup(&longest[..USER_AGENT_BYTES_MAX]));
        let Asked { hits, misses } = devices.asked();
        assert_eq!((hits, misses), (1, 3 * REMEMBERED_MAX as u64 + 1));
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
