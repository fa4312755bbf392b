//! What a user agent tells, against the operating-system cases of uap-core, whose names the reference
//! dashboards use.

use playhead::enrich::device::DeviceLookup;

use crate::support::fixtures;

/// Of a hundred systems that we name, so many are uap-core's.
const AGREED_MIN_PER_CENT: usize = 99;

/// Systems that we call otherwise: ours, uap-core's, why.
const DIFFERENT: [(&str, &str, &str); 2] = [
    (
        "tvOS",
        "ATV OS X",
        "one name for one system: uap-core takes it for another before release 9",
    ),
    ("webOS", "Web0S", "one name for one system: LG writes a zero, and says webOS itself"),
];

/// Systems that we do not name, though uap-core does: a crawler is on no device.
const UNCLAIMED: [(&str, &str); 2] = [("Linux", "Google Web Preview"), ("Android", "Google-InspectionTool")];

#[derive(serde::Deserialize)]
struct Cases {
    test_cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    user_agent_string: String,
    family: String,
}

#[test]
fn at_least_99_of_100_systems_that_we_name_are_those_of_uap_core() {
    let Some(folder) = fixtures("user-agents") else { return };
    let text = std::fs::read_to_string(folder.join("test_os.yaml")).expect("the cases can be read");
    let cases: Cases = serde_saphyr::from_str(&text).expect("the cases are a list of user agents and families");
    let lookup = DeviceLookup::default();
    let (mut agreed, mut different, mut unclaimed) = (0, Vec::new(), Vec::new());
    for case in &cases.test_cases {
        let told = lookup.lookup(&case.user_agent_string);
        match told.device.os.as_deref() {
            Some(os) if os == case.family => agreed += 1,
            Some(os) => different.push((os.to_owned(), case)),
            None if case.family == "Other" => {}
            None => unclaimed.push(case),
        }
    }
    let (total, claimed) = (cases.test_cases.len(), agreed + different.len());
    println!("{total} cases: {claimed} claimed, {agreed} agree, {} unclaimed", unclaimed.len());
    assert!(total >= 483 && agreed >= 440, "{total} cases, {agreed} agree");
    assert!(agreed * 100 >= claimed * AGREED_MIN_PER_CENT, "{agreed} of {claimed} agree");
    for (os, case) in different {
        let is_listed = DIFFERENT
            .iter()
            .any(|(ours, theirs, _)| (*ours, *theirs) == (os.as_str(), &case.family));
        assert!(is_listed, "{os}, and uap-core says {}: {}", case.family, case.user_agent_string);
    }
    for case in unclaimed {
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

#[test]
fn a_user_agent_tells_the_same_as_logged_and_as_sent() {
    let Some(folder) = fixtures("user-agents") else { return };
    let text = std::fs::read_to_string(folder.join("test_os.yaml")).expect("the cases can be read");
    let cases: Cases = serde_saphyr::from_str(&text).expect("the cases are a list of user agents and families");
    let lookup = DeviceLookup::default();
    let mut asked = 0;
    // One that holds a % of its own is decoded once too often.
    for sent in cases
        .test_cases
        .iter()
        .map(|case| &case.user_agent_string)
        .filter(|sent| !sent.contains('%'))
    {
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
