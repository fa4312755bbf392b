//! What a user agent tells, against the cases of uap-core, whose names the reference dashboards use.

use std::path::Path;

use playhead::enrich::device::{DeviceLookup, UserAgent};

use crate::support::{Bench, fixtures};

/// Of a hundred systems or browsers that we name, so many are uap-core's.
const AGREED_MIN_PER_CENT: usize = 99;

/// Systems and crawlers that we call otherwise: ours, uap-core's, why.
const DIFFERENT: [(&str, &str, &str); 3] = [
    (
        "tvOS",
        "ATV OS X",
        "one name for one system: uap-core takes it for another before release 9",
    ),
    ("webOS", "Web0S", "one name for one system: LG writes a zero, and says webOS itself"),
    ("Google Web Preview", "Other", "woothee knows it, and no rule does"),
];

/// Systems and browsers that we do not name, though uap-core does: a crawler is on no device, and no browser.
const UNCLAIMED: [(&str, &str); 3] = [
    ("Linux", "Google Web Preview"),
    ("Android", "Google-InspectionTool"),
    ("Chrome", "Google Web Preview"),
];

/// Browsers that uap-core names by device and we by one name: ours, uap-core's.
const ONE_NAME: [(&str, &str); 15] = [
    ("Chrome", "Chrome Mobile"),
    ("Chrome", "Chrome Mobile iOS"),
    ("Chrome", "Chrome Mobile WebView"),
    ("DuckDuckGo", "DuckDuckGo Mobile"),
    ("Ecosia", "Ecosia Android"),
    ("Ecosia", "Ecosia iOS"),
    ("Edge", "Edge Mobile"),
    ("Firefox", "Firefox Mobile"),
    ("Firefox", "Firefox iOS"),
    ("IE", "IE Mobile"),
    ("Opera", "Opera Mobile"),
    ("Opera", "Opera Tablet"),
    ("QQ Browser", "QQ Browser Mobile"),
    ("Safari", "Mobile Safari"),
    ("Safari", "Mobile Safari UI/WKWebView"),
];

/// A program built on a browser, which what is compiled in takes for that browser.
const OBS: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.6533.120 OBS/32.0.2 Safari/537.36";

#[derive(serde::Deserialize)]
struct Cases {
    test_cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    user_agent_string: String,
    family: String,
}

fn cases(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).expect("the cases can be read");
    let cases: Cases = serde_saphyr::from_str(&text).expect("the cases are a list of user agents and families");
    cases.test_cases
}

/// A look-up by the rules of a file.
fn by_rules(file: &Path) -> DeviceLookup {
    let (lookup, complaint) = DeviceLookup::load(Some(file.to_owned()));
    assert!(complaint.is_none(), "{complaint:?}");
    lookup
}

/// What fetched: uap-core has one name for browsers, crawlers and players.
fn fetcher(told: &UserAgent) -> Option<&str> {
    told.player_name.or(told.device.browser.as_deref())
}

/// How our names compare with uap-core's.
#[derive(Default)]
struct Compared<'c> {
    agreed: usize,
    /// Of those that agree: browsers that uap-core names by device.
    renamed: usize,
    different: Vec<(String, &'c Case)>,
    unclaimed: Vec<&'c Case>,
}

impl<'c> Compared<'c> {
    /// `name`: ours.
    fn all(cases: &'c [Case], lookup: &DeviceLookup, name: impl Fn(&UserAgent) -> Option<&str>) -> Compared<'c> {
        let mut compared = Compared::default();
        for case in cases {
            let told = lookup.lookup(&case.user_agent_string);
            match name(&told) {
                Some(ours) if ours == case.family => compared.agreed += 1,
                Some(ours) if ONE_NAME.contains(&(ours, &case.family)) => {
                    compared.agreed += 1;
                    compared.renamed += 1;
                }
                Some(ours) => compared.different.push((ours.to_owned(), case)),
                None if case.family == "Other" => {}
                None => compared.unclaimed.push(case),
            }
        }
        println!(
            "{} cases: {} claimed, {} agree, {} of them by one name for all devices; {} unclaimed",
            cases.len(),
            compared.claimed(),
            compared.agreed,
            compared.renamed,
            compared.unclaimed.len()
        );
        compared
    }

    fn claimed(&self) -> usize {
        self.agreed + self.different.len()
    }

    /// At least 99 of 100 that we claim agree, and every other is listed above.
    fn assert_listed(&self) {
        let (agreed, claimed) = (self.agreed, self.claimed());
        assert!(agreed * 100 >= claimed * AGREED_MIN_PER_CENT, "{agreed} of {claimed} agree");
        for (ours, case) in &self.different {
            let is_listed = DIFFERENT.iter().any(|(listed, theirs, _)| listed == ours && *theirs == case.family);
            assert!(is_listed, "{ours}, and uap-core says {}: {}", case.family, case.user_agent_string);
        }
        for case in &self.unclaimed {
            let is_listed = UNCLAIMED
                .iter()
                .any(|(theirs, crawler)| *theirs == case.family && case.user_agent_string.contains(crawler));
            assert!(
                is_listed,
                "not named, and uap-core says {}: {}",
                case.family, case.user_agent_string
            );
        }
    }
}

#[test]
fn at_least_99_of_100_systems_that_we_name_are_those_of_uap_core() {
    let Some(folder) = fixtures("user-agents") else { return };
    let cases = cases(&folder.join("test_os.yaml"));
    let compared = Compared::all(&cases, &DeviceLookup::default(), |told| told.device.os.as_deref());
    assert!(cases.len() >= 483 && compared.agreed >= 440, "{} agree", compared.agreed);
    compared.assert_listed();
}

#[test]
fn by_uap_cores_rules_at_least_99_of_100_browsers_go_by_its_names() {
    let Some(folder) = fixtures("user-agents") else { return };
    let (file, rules) = (folder.join("test_ua.yaml"), folder.join("regexes.yaml"));
    if !file.is_file() {
        println!(
            "skipped: {} is not there; it is uap-core's tests/test_ua.yaml, of the revision of {}",
            file.display(),
            rules.display()
        );
        return;
    }
    let cases = cases(&file);
    let compared = Compared::all(&cases, &by_rules(&rules), fetcher);
    assert!(cases.len() >= 1_601 && compared.agreed >= 1_590, "{} agree", compared.agreed);
    compared.assert_listed();
}

#[test]
fn rules_name_what_is_not_compiled_in_and_a_bad_file_leaves_them_in_use() {
    let Some(folder) = fixtures("user-agents") else { return };
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("regexes.yaml");
    std::fs::copy(folder.join("regexes.yaml"), &file).expect("the rules can be copied");
    let lookup = by_rules(&file);
    let browser = |user_agent: &str| lookup.lookup(user_agent).device.browser.clone();
    let phone = "Mozilla/5.0 (Linux; Android 10; Pixel 3) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Mobile Safari/537.36";
    assert_eq!(DeviceLookup::default().lookup(OBS).device.browser.as_deref(), Some("Chrome"));
    assert_eq!(browser(OBS).as_deref(), Some("OBS Studio"));
    assert_eq!(browser(phone).as_deref(), Some("Chrome"));
    std::fs::write(&file, "user_agent_parsers: [{regex: '(a'}]").expect("the folder can be written");
    let complaint = lookup.reload_changed().expect("it is refused").to_string();
    for part in [
        "cannot use devices.user_agents",
        "rule 1 of user_agent_parsers, `(a`",
        "the file read before stays in use",
    ] {
        assert!(complaint.contains(part), "{complaint}");
    }
    assert!(lookup.reload_changed().is_none(), "said once");
    assert_eq!(browser(OBS).as_deref(), Some("OBS Studio"));
    std::fs::write(&file, "user_agent_parsers: [{regex: '(OBS)/(\\d+)', family_replacement: 'Studio'}]")
        .expect("the folder can be written");
    assert!(lookup.reload_changed().is_none());
    assert_eq!(browser(OBS).as_deref(), Some("Studio"), "nothing of the old rules is remembered");
}

#[test]
fn the_settings_name_the_rules_and_a_file_that_is_missing_stops_nothing() {
    let Some(folder) = fixtures("user-agents") else { return };
    let row = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn_v1_row.tsv");
    let row = std::fs::read_to_string(row).expect("the reference row is in the repository");
    let mut columns: Vec<&str> = row.split('\t').collect();
    let logged = OBS.replace(' ', "%20");
    columns[10] = &logged;
    let names = ["regexes.yaml", "not-there.yaml"].map(|name| {
        let file = folder.join(name);
        let bench = Bench::new();
        let log = bench.write("cdn.tsv", columns.join("\t"));
        let settings = bench.write(
            "playhead.yaml",
            format!("devices: {{user_agents: {:?}}}\n", file.display().to_string()),
        );
        let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let output = bench.run(&["ingest", "--settings", &path(&settings), &path(&log)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let complaints = said.matches("cannot use devices.user_agents").count();
        assert_eq!(complaints, usize::from(!file.is_file()), "{said}");
        bench.sql("SELECT browser FROM silver.cdn_requests")[0]["browser"].to_string()
    });
    assert_eq!(names, [r#""OBS Studio""#, r#""Chrome""#]);
}

#[test]
fn a_user_agent_tells_the_same_as_logged_and_as_sent() {
    let Some(folder) = fixtures("user-agents") else { return };
    let cases = cases(&folder.join("test_os.yaml"));
    let lookup = DeviceLookup::default();
    let mut asked = 0;
    // One that holds a % of its own is decoded once too often.
    for sent in cases.iter().map(|case| &case.user_agent_string).filter(|sent| !sent.contains('%')) {
        let once: String = sent.bytes().map(encoded).collect();
        let twice = once.replace('%', "%25");
        let told = lookup.lookup(sent);
        assert_eq!(lookup.lookup(&once), told, "{once}");
        if twice.len() <= 1024 {
            assert_eq!(lookup.lookup(&twice), told, "{twice}");
        }
        asked += 1;
    }
    assert!(asked > 400, "{asked}");
}

/// As CloudFront's logger writes it (events and metrics, 4.1).
fn encoded(byte: u8) -> String {
    match byte {
        b'<' | b'>' | b'"' | b'#' | b'%' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'~' | b'[' | b']' | b'`' | b'\'' | b' ' | 127.. => {
            format!("%{byte:02X}")
        }
        _ => char::from(byte).to_string(),
    }
}
