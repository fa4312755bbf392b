//! Operating system of a user agent, by the tokens that systems put in.
//!
//! `device` asks here before woothee, which does not know televisions, watches, apps and libraries.
//! The names are those of uap-core, which the reference dashboards use.
//!
//! Invariant: the first row whose tokens are all there decides, so a system stands before those whose
//! words it borrows (`Windows Phone` says `Android` and `iPhone` too).

/// All of these tokens: this system.
type Row = (&'static [&'static str], &'static str);

/// Systems of televisions, sticks, boxes and watches. What a set runs is told before who made it.
const SCREENS: &[Row] = &[
    (&["watchOS"], "WatchOS"),
    (&["Apple Watch"], "WatchOS"),
    (&["CrKey", "Fuchsia"], "Chromecast Fuchsia"),
    (&["CrKey", "SmartSpeaker"], "Chromecast SmartSpeaker"),
    (&["CrKey", "Android"], "Chromecast Android"),
    (&["CrKey"], "Chromecast Linux"),
    (&["tvOS"], "tvOS"),
    (&["AppleTV"], "tvOS"),
    (&["Apple TV"], "tvOS"),
    (&["Roku"], "Roku"),
    (&["Tizen"], "Tizen"),
    (&["Web0S"], "webOS"),
    (&["hpwOS"], "webOS"),
    (&["webOS"], "webOS"),
    (&["GoogleTV"], "GoogleTV"),
    (&["Andr0id"], "Android"),
    (&["HbbTV", "Android"], "Android"),
    (&["HbbTV", "firetv"], "FireHbbTV"),
    (&["HbbTV", "Samsung"], "Samsung"),
    (&["HbbTV", "Maple"], "Samsung"),
    (&["HbbTV", "Panasonic"], "Panasonic"),
    (&["HbbTV", "LGE"], "LG"),
    (&["HbbTV", "Sony"], "Sony"),
    (&["HbbTV", "Philips"], "Philips"),
];

const MOBILES: &[Row] = &[
    (&["Windows Phone"], "Windows Phone"),
    (&["XBLWP7"], "Windows Phone"),
    (&["(Windows; U; wds "], "Windows Phone"),
    (&["Windows Mobile"], "Windows Mobile"),
    (&["KAIOS"], "KaiOS"),
    (&["KaiOS"], "KaiOS"),
    (&["HarmonyOS"], "HarmonyOS"),
    (&["OpenHarmony"], "HarmonyOS"),
    (&["Sailfish"], "Sailfish"),
    (&["Bada"], "Bada"),
    (&["MeeGo"], "MeeGo"),
    (&["Maemo"], "Maemo"),
    (&["RIM Tablet OS"], "BlackBerry Tablet OS"),
    (&["BREW "], "BREW"),
    (&["(BREW;"], "BREW"),
    (&["(BMP;"], "Brew MP"),
    (&["Brew MP"], "Brew MP"),
    (&["(BMP "], "Brew MP"),
    (&[" BMP/"], "Brew MP"),
    (&["Series40"], "Nokia Series 40"),
    (&["Series30Plus"], "Nokia Series 30 Plus"),
    (&["Symbian/3", "NokiaBrowser/7.3"], "Symbian^3 Anna"),
    (&["Symbian/3", "NokiaBrowser/7.4"], "Symbian^3 Belle"),
    (&["Symbian/3"], "Symbian^3"),
    (&["SymbOS"], "Symbian OS"),
    (&["Symbian"], "Symbian OS"),
    (&["(Series 60;"], "Symbian OS"),
    (&["=S60;"], "Symbian OS"),
    (&["(S60V"], "Symbian OS"),
    (&[" S60/"], "Symbian OS"),
    (&["(VRE;"], "VRE"),
    (&["WebTV/"], "WebTV"),
    (&["WeTab"], "WeTab"),
    (&["Kindle/"], "Kindle"),
    (&["CriOS/"], "iOS"),
    (&["EdgiOS/"], "iOS"),
    (&["FxiOS/"], "iOS"),
    (&["(iPhone;"], "iOS"),
    (&["(iPad;"], "iOS"),
    (&["Android"], "Android"),
    (&["; U; Adr "], "Android"),
    (&[" android "], "Android"),
    (&["Silk/"], "Android"),
    (&["OculusBrowser/"], "Android"),
    (&["JUC(Linux"], "Android"),
    (&["JUC (Linux"], "Android"),
    (&["iPhone"], "iOS"),
    (&["IPhone"], "iOS"),
    (&["iPad"], "iOS"),
    (&["iPod"], "iOS"),
    (&["HomePod"], "iOS"),
    (&["(iOS"], "iOS"),
    (&[";iOS"], "iOS"),
    (&[" iOS"], "iOS"),
    (&["-iOS/"], "iOS"),
];

/// Systems of computers, and what libraries and tools say of theirs.
const COMPUTERS: &[Row] = &[
    (&["CrOS "], "Chrome OS"),
    (&["X11; Windows", "CitrixChromeApp"], "Chrome OS"),
    (&["Windows"], "Windows"),
    (&["Win NT"], "Windows"),
    (&["os/macos"], "Mac OS X"),
    (&["darwin;"], "Mac OS X"),
    (&["Darwin/", "x86_64"], "Mac OS X"),
    (&["Darwin/", "i386"], "Mac OS X"),
    // Apps on Apple silicon say no more than this either; phones outnumber them.
    (&["CFNetwork/", "Darwin/"], "iOS"),
    (&["Mac OS X"], "Mac OS X"),
    (&["MacOS X"], "Mac OS X"),
    (&["Macintosh; OS X"], "Mac OS X"),
    (&["Mac_PowerPC"], "Mac OS"),
    (&["Ubuntu"], "Ubuntu"),
    (&["Debian"], "Debian"),
    (&["Fedora"], "Fedora"),
    (&["CentOS"], "CentOS"),
    (&["SUSE"], "SUSE"),
    (&["Linux Mint"], "Linux Mint"),
    (&["Slackware"], "Slackware"),
    (&["Mandriva"], "Mandriva"),
    (&["gentoo"], "Gentoo"),
    (&["Gentoo"], "Gentoo"),
    (&["redhat-linux"], "Red Hat"),
    (&["Red Hat"], "Red Hat"),
    (&["FreeBSD"], "FreeBSD"),
    (&["(freebsd"], "FreeBSD"),
    (&["OpenBSD"], "OpenBSD"),
    (&["NetBSD"], "NetBSD"),
    (&["BSD Four"], "BSD"),
    (&["SunOS"], "Solaris"),
    (&["SerenityOS"], "SerenityOS"),
    (&["BB10"], "BlackBerry OS"),
    (&["BlackBerry"], "BlackBerry OS"),
    (&["(Mobile; ", "Gecko/", "Firefox/"], "Firefox OS"),
    (&["(Tablet; ", "Gecko/", "Firefox/"], "Firefox OS"),
    (&["Linux"], "Linux"),
    (&["(linux-gnu"], "Linux"),
    (&["-linux-gnu"], "Linux"),
    (&["rust/", " linux"], "Linux"),
];

/// The system that `text` names, in uap-core's words.
pub(super) fn system(text: &str) -> Option<&'static str> {
    let mut rows = SCREENS.iter().chain(MOBILES).chain(COMPUTERS);
    let found = rows.find(|(tokens, _)| tokens.iter().all(|token| text.contains(token)));
    found.map(|(_, system)| *system)
}

/// What runs a system that is no computer's, where no token of a television is there.
pub(super) fn device_type(system: &str) -> Option<&'static str> {
    match system {
        "tvOS" | "Roku" | "GoogleTV" | "FireHbbTV" | "Samsung" | "Panasonic" | "LG" | "Sony" | "Philips" | "WebTV" => Some("tv"),
        "Chromecast Android" | "Chromecast Fuchsia" | "Chromecast Linux" => Some("tv"),
        "BlackBerry Tablet OS" | "Kindle" | "WeTab" => Some("tablet"),
        "Android" | "iOS" | "HarmonyOS" | "KaiOS" | "Sailfish" | "Bada" | "MeeGo" | "Maemo" | "BREW" | "Brew MP" => Some("mobile"),
        "Tizen" | "webOS" | "Windows Phone" | "Windows Mobile" | "BlackBerry OS" | "Firefox OS" | "VRE" => Some("mobile"),
        _ if system.starts_with("Symbian") || system.starts_with("Nokia") => Some("mobile"),
        _ => None,
    }
}
