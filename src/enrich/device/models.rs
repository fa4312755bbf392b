//! Class and model of the device that a user agent names.
//!
//! `device` asks here, with what woothee and `systems` found.
//!
//! Invariant: television sets, sticks, set-top boxes and consoles are video devices, never phones or
//! computers, whatever browser they run.

use super::systems;

/// Tokens of television sets, sticks and set-top boxes.
const TELEVISIONS: &[&str] = &[
    "AppleTV",
    "Apple TV",
    "tvOS",
    "Roku",
    "Web0S",
    "NetCast",
    "BRAVIA",
    "HbbTV",
    "CrKey",
    "Chromecast",
    " AFT",
    "Android TV",
    "AndroidTV",
    "Google TV",
    "GoogleTV",
    "SMART-TV",
    "SmartTV",
    "Smart TV",
    "Large Screen",
    "VIERA",
    "NETTV",
    "PHILIPSTV",
    "InettvBrowser",
    "Opera TV",
    "DTV)",
    "MIBOX",
    "MiTV",
    "WebTV",
    "STB",
    "QtEmbedded",
    "DirectFB",
    "TiVo",
    "SetTopBox",
];

/// Consoles, which call themselves Windows or name no system; the longer names first.
const CONSOLES: &[(&str, &str)] = &[
    ("PlayStation 5", "PlayStation 5"),
    ("PlayStation 4", "PlayStation 4"),
    ("PlayStation Vita", "PlayStation Vita"),
    ("PlayStation Portable", "PlayStation Portable"),
    ("PLAYSTATION 3", "PlayStation 3"),
    ("PlayStation", "PlayStation"),
    ("PLAYSTATION", "PlayStation"),
    ("Xbox Series", "Xbox Series"),
    ("XBOX_ONE", "Xbox One"),
    ("Xbox One", "Xbox One"),
    ("Xbox", "Xbox"),
    ("XBOX", "Xbox"),
    ("Nintendo Switch", "Nintendo Switch"),
    ("Nintendo WiiU", "Nintendo Wii U"),
    ("Nintendo Wii", "Nintendo Wii"),
    ("Nintendo 3DS", "Nintendo 3DS"),
    ("Nintendo DS", "Nintendo DS"),
    ("Nintendo", "Nintendo"),
    ("Dreamcast", "Dreamcast"),
];

/// Parts of an Android user agent that stand where the model would and are none. `K` is what Chrome
/// sends in its place since release 110.
const NO_MODELS: &[&str] = &["K", "U", "wv", "Mobile", "Tablet", "arm", "arm_64", "Generic"];

/// Bytes of a model; real ones are far shorter.
const MODEL_BYTES_MAX: usize = 64;

/// The console that `text` names.
pub(super) fn console(text: &str) -> Option<&'static str> {
    CONSOLES.iter().find(|(token, _)| text.contains(token)).map(|(_, model)| *model)
}

/// `category`: woothee's.
pub(super) fn device_type(text: &str, system: Option<&str>, category: &str) -> Option<&'static str> {
    if is_television(text, system) {
        return Some("tv");
    }
    match category {
        _ if is_neither(text, system) => None,
        // Chrome and Edge say Macintosh on an iPad that asks for the desktop site.
        _ if system == Some("iOS") && (text.contains("iPad") || text.contains("Macintosh")) => Some("tablet"),
        _ if system == Some("Android") => Some(android_type(text)),
        _ if system.and_then(systems::device_type).is_some() => system.and_then(systems::device_type),
        "pc" => Some("desktop"),
        "smartphone" | "mobilephone" => Some("mobile"),
        "appliance" => Some("tv"),
        _ if text.starts_with("Mozilla/") || text.starts_with("Opera/") => system.map(|_| "desktop"),
        _ => None,
    }
}

fn is_television(text: &str, system: Option<&str>) -> bool {
    let is_smart_speaker = system == Some("Chromecast SmartSpeaker");
    // Tizen also ran phones.
    let is_tizen_set = system == Some("Tizen") && !text.contains("Mobile");
    !is_smart_speaker && (is_tizen_set || TELEVISIONS.iter().any(|token| text.contains(token)))
}

/// Watches, headsets and speakers: no word of ours fits.
fn is_neither(text: &str, system: Option<&str>) -> bool {
    matches!(system, Some("WatchOS" | "Chromecast SmartSpeaker")) || text.contains("OculusBrowser/") || text.contains("HomePod")
}

/// Android tablets leave the word `Mobile` out (Chrome's rule for its own user agents). Players say it
/// on no device, and run on phones for the most part.
fn android_type(text: &str) -> &'static str {
    let is_browser = text.starts_with("Mozilla/") && text.contains("AppleWebKit/");
    match is_browser && !text.contains("Mobile") {
        true => "tablet",
        false => "mobile",
    }
}

/// The model as its maker writes it, where the user agent says it.
pub(super) fn model(text: &str, system: Option<&str>) -> Option<String> {
    if let Some(console) = console(text) {
        return Some(console.to_owned());
    }
    match system? {
        "iOS" => ["iPad", "iPod", "iPhone"]
            .into_iter()
            .find(|model| text.contains(model))
            .map(str::to_owned),
        "tvOS" => text.contains("Apple").then(|| hardware(text, "AppleTV")).flatten(),
        "Roku" => hardware(text, "Roku"),
        "Android" => android_model(text),
        _ => None,
    }
}

/// `AppleTV11,1` of `AppleTV11,1/11.1`, `4640X` of `Roku4640X/DVP-7.70`.
fn hardware(text: &str, maker: &str) -> Option<String> {
    let (_, behind) = text.split_once(maker)?;
    let end = behind.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != ',')?;
    let is_number = end > 0 && behind.starts_with(|letter: char| letter.is_ascii_digit());
    let model = match maker {
        "Roku" => behind[..end].to_owned(),
        _ => format!("{maker}{}", &behind[..end]),
    };
    is_number.then_some(model)
}

/// `SM-T510` of `(Linux; Android 9; de-de; SM-T510 Build/PPR1)`.
fn android_model(text: &str) -> Option<String> {
    let (_, behind) = text.split_once("Android ").or_else(|| text.split_once("Andr0id "))?;
    let (_, parts) = behind.split_once(';')?;
    let parts = parts.split_once(')').map_or(parts, |(parts, _)| parts);
    let model = parts.split(';').map(without_build).find(|part| is_model(part))?;
    let model = model.strip_prefix("SAMSUNG ").unwrap_or(model);
    Some(model.to_owned()).filter(|model| model.len() <= MODEL_BYTES_MAX)
}

fn without_build(part: &str) -> &str {
    part.split_once("Build/").map_or(part, |(model, _)| model).trim()
}

fn is_model(part: &str) -> bool {
    let is_language = match part.as_bytes() {
        [a, b] | [a, b, b'-' | b'_', _, _] => a.is_ascii_lowercase() && b.is_ascii_lowercase(),
        _ => false,
    };
    !part.is_empty() && !is_language && !NO_MODELS.contains(&part) && !part.starts_with("rv:") && !part.contains('/')
}
