//! Identity never reaches the disk: addresses are cut wherever they stand, ids become pseudonyms.
//!
//! What is searched is everything that a run leaves: each byte of each file below the lake, the rows
//! of every table (the files are compressed), and what was printed.
//!
//! Invariant: each search is shown to find its addresses in the input before it is believed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Bench, files_below, fixtures, reference};

/// The forms of `reference-solution.md` 3.1 with their correct prefixes. A mapped address may be
/// stored mapped or plain.
const FORMS: [(&str, &[Option<&str>]); 8] = [
    ("203.0.113.77", &[Some("203.0.113.0")]),
    ("2001:db8:85a3:8d3:1319:8a2e:370:7348", &[Some("2001:db8:85a3::")]),
    ("2001:DB8:85A3:8D3:1319:8A2E:370:ABCD", &[Some("2001:db8:85a3::")]),
    ("2001:db8::1", &[Some("2001:db8::")]),
    ("::1", &[Some("::")]),
    ("::ffff:203.0.113.77", &[Some("203.0.113.0"), Some("::ffff:203.0.113.0")]),
    ("unknown", &[None]),
    ("-", &[None]),
];

/// Places of a player event in which an address has been seen; `{A}` is the address.
const PLACES: [&str; 20] = [
    r#""client_ip":"{A}""#,
    r#""Remote_Addr":"{A}""#,
    r#""X-Forwarded-For":"{A}, 198.51.100.23""#,
    r#""forwarded":"for=\"{A}\";proto=https""#,
    r#""url":"https://cdn.example.com/v.m3u8?token=7&ip={A}&x=1""#,
    r#""url":"https://cdn.example.com/v.m3u8?ip={PERCENT}""#,
    r#""referer":"https://www.example.com/?u=https%3A%2F%2Fa%2F%3Fip%3D{PERCENT_TWICE}""#,
    r#""page":"{JSON}""#,
    r#""context":{"net":{"peer":{"ip":"{A}"}}}"#,
    r#""hops":["{A}","192.0.2.55"]"#,
    r#""seen":{"{A}":true}"#,
    r#""message":"cannot reach {A}: timed out""#,
    r#""error_code":"{A}""#,
    r#""user_id":"{A}""#,
    r#""device_id":"{A}""#,
    r#""session_id":"{A}""#,
    r#""video_id":"{A}""#,
    r#""user_agent":"Mozilla/5.0 (via {A})""#,
    r#""cdn_tracking_id":"{A}""#,
    r#""isp":"{A}""#,
];

/// Records that are refused, for a reason that must not quote them.
const REFUSED: [&str; 5] = [
    r#"{"MetricType":"PLAY","client_ip":"{A}","#,
    r#"{"MetricType":"PLAY","TimeStamp":"{A}"}"#,
    r#"{"MetricType":"PLAY","client_ip":"{A}"}"#,
    r#"["{A}"]"#,
    "{A} - - [06/May/2020:08:00:00 +0000] \"GET / HTTP/1.1\" 200",
];

const OTHER_KEY: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

fn addresses() -> Vec<&'static str> {
    FORMS
        .iter()
        .filter(|(_, stored)| stored[0].is_some())
        .map(|(address, _)| *address)
        .collect()
}

/// `place` with the address in it, as plain text or under the escapes that it asks for.
fn filled(place: &str, address: &str) -> String {
    let percent = address.replace(':', "%3A").replace('.', "%2E");
    place
        .replace("{PERCENT_TWICE}", &percent.replace('%', "%25"))
        .replace("{PERCENT}", &percent)
        .replace("{JSON}", &address.replace(':', "\\u003a").replace('.', "\\u002e"))
        .replace("{A}", address)
}

#[test]
fn seven_forms_of_an_address_are_cut_as_they_should() {
    let bench = Bench::new();
    let lines = FORMS.iter().zip(1..).map(|((address, _), second)| {
        let time = 1_588_752_000_000_i64 + second * 1000;
        json!({"MetricType": "PLAY", "user_id": "u", "video_id": "v", "client_ip": address, "TimeStamp": time}).to_string() + "\n"
    });
    let file = bench.write("in.ndjson", lines.collect::<String>());
    let summary = bench.ingest(&[&file]);
    assert_eq!(summary["stored"], FORMS.len(), "{summary}");
    for table in ["bronze.player_events", "silver.player_events"] {
        let rows = bench.sql(&format!("SELECT client_prefix FROM {table} ORDER BY event_ts"));
        assert_eq!(rows.len(), FORMS.len(), "{table}");
        for ((address, allowed), row) in FORMS.iter().zip(&rows) {
            let stored = row["client_prefix"].as_str();
            assert!(allowed.contains(&stored), "{address} is stored in {table} as {stored:?}");
        }
    }
}

#[test]
fn no_address_survives_in_any_place_under_either_policy() {
    let mut input = String::new();
    let mut kept = 0;
    for place in PLACES {
        for address in addresses() {
            kept += 1;
            let time = 1_588_752_000_000_i64 + kept * 1000;
            // The place comes last, so that it also wins where it repeats a key.
            let line = format!(
                r#"{{"MetricType":"ERROR","user_id":"u{kept}","video_id":"v","TimeStamp":{time},{}}}"#,
                filled(place, address)
            );
            input.push_str(&(line + "\n"));
        }
    }
    let refused: Vec<String> = REFUSED
        .iter()
        .flat_map(|line| addresses().into_iter().map(|address| filled(line, address) + "\n"))
        .collect();
    input.extend(refused.iter().map(String::as_str));

    let mut needles: Vec<Needle> = addresses().into_iter().map(Needle::of).collect();
    needles.extend(["198.51.100.23", "192.0.2.55"].map(Needle::of));
    assert_found(&input, &needles);

    for policy in ["pseudonym", "keep"] {
        let bench = Bench::new();
        let file = bench.write("in.ndjson", &input);
        let settings = bench.write("s.yaml", format!("privacy:\n  identity: {policy}\nlog:\n  level: trace\n"));
        let output = bench.run(&["ingest", "--json", "--settings", path_text(&settings), path_text(&file)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
        assert_eq!(
            (&summary["stored"], &summary["rejected"]),
            (&json!(kept), &json!(refused.len())),
            "{policy}: {summary}"
        );
        let printed = [output.stdout, output.stderr].concat();
        assert_nowhere(&bench, &printed, &needles, policy);
    }
}

#[test]
fn no_address_survives_in_a_cdn_log() {
    let header = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status \
                  cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header \
                  cs-protocol cs-bytes time-taken x-forwarded-for\n";
    let mut input = header.to_string();
    for (number, address) in addresses().into_iter().enumerate() {
        let percent = address.replace(':', "%3A");
        let twice = percent.replace('%', "%25");
        input.push_str(&format!(
            "2020-05-06\t08:00:{number:02}\tLHR50-C1\t10\t{address}\tGET\td1.cloudfront.net\t/v/{percent}/1.ts\t200\t\
             https://a.example/?ip={address}\tMozilla/5.0%20(via%20{percent})\tip={twice}&t=1\tpeer={address}\tHit\tid{number}\t\
             {address}\thttps\t1\t0.1\t{address},\\x20192.0.2.55\n"
        ));
    }
    // One cell too few: refused, and not quoted.
    input.push_str("2020-05-06\t08:00:00\tLHR50-C1\t10\t203.0.113.77\n");
    let mut needles: Vec<Needle> = addresses().into_iter().map(Needle::of).collect();
    needles.push(Needle::of("192.0.2.55"));
    assert_found(&input, &needles);

    for lists in ["{}", "{keep_query: [ip, t], keep_cookies: [peer], referrer: keep}"] {
        let bench = Bench::new();
        let file = bench.write("in.tsv", &input);
        let settings = bench.write("s.yaml", format!("cdn: {lists}\n"));
        let output = bench.run(&["ingest", "--json", "--settings", path_text(&settings), path_text(&file)]);
        let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
        assert_eq!(
            (&summary["stored"], &summary["rejected"]),
            (&json!(addresses().len()), &json!(1)),
            "{summary}"
        );
        assert_nowhere(&bench, &[output.stdout, output.stderr].concat(), &needles, lists);
    }
}

#[test]
fn cookies_queries_and_referrers_of_a_cdn_log_are_nowhere_unless_they_are_listed() {
    let header = "#Fields: date time c-ip cs-uri-stem sc-status cs(Referer) cs-uri-query cs(Cookie) x-edge-request-id\n";
    let row = "2026-01-01\t08:00:00\t192.0.2.7\t/v/1.ts\t200\thttps://site.example/watch?who=SECRET-PAGE\t\
               token=SECRET-TOKEN&lang=en&CMCD=sid%3D%22s-1%22\tsession=SECRET-COOKIE;%20ab=blue\tid1\n";
    let input = format!("{header}{row}");
    let secrets = ["SECRET-PAGE", "SECRET-TOKEN", "SECRET-COOKIE"].map(Needle::of);
    assert_found(&input, &secrets);
    let stored = |lists: &str| {
        let bench = Bench::new();
        let file = bench.write("in.tsv", &input);
        let counts = bench.ingest_with(&format!("cdn: {lists}\n"), &[&file]);
        assert_eq!(counts["stored"], 1, "{counts}");
        let row = bench
            .sql("SELECT referer, uri_query, cookie, session_id FROM silver.cdn_requests")
            .remove(0);
        (bench, row)
    };
    let (bench, row) = stored("{}");
    assert_nowhere(&bench, b"", &secrets, "no lists");
    assert_eq!(
        row,
        json!({"referer": "https://site.example/", "uri_query": null, "cookie": null, "session_id": "s-1"})
    );
    let (bench, row) = stored("{keep_query: [lang], keep_cookies: [ab], referrer: drop}");
    assert_nowhere(&bench, b"", &secrets, "lists");
    assert_eq!((&row["referer"], &row["uri_query"]), (&json!(null), &json!("lang=en")));
    assert!(row["cookie"].as_str().is_some_and(|cookie| cookie.contains("ab=blue")), "{row}");
}

/// `nor` and `url` of CMCD: in a query, in a column of its own, as a list, in a player's own record; under
/// either policy.
#[test]
fn what_stands_behind_the_path_of_a_url_that_a_player_names_is_nowhere() {
    let log = "#Fields: date time cs-uri-stem sc-status cs-uri-query x-edge-request-id cmcd-next-object-request\n\
               2026-01-01\t08:00:00\t/v/1.ts\t200\tCMCD=nor%3D%22..%252F2.ts%253Ftoken%253DSECRET-ONCE%22%2Csid%3D%22s-1%22\tid1\t-\n\
               2026-01-01\t08:00:01\t/v/1.ts\t200\tCMCD=nor%253D%2522..%25252F3.ts%25253Ftoken%25253DSECRET-TWICE%2522%252Csid%253D%2522s-1%2522\tid2\t-\n\
               2026-01-01\t08:00:02\t/v/1.ts\t200\t-\tid3\t%22..%252F4.ts%253Ftoken%253DSECRET-COLUMN%22\n";
    let players = "nor=\"..%2F5.ts%3Ftoken%3DSECRET-OWN\",sid=\"s-2\",bl=1000\n\
                   e=rr,nor=(\"6.ts?token=SECRET-LIST\";r=\"0-99\" \"7.ts\"),rc=200,sid=\"s-3\",ts=1767254400000,url=\"https://ann:SECRET-PASS@cdn.example/5.ts?token=SECRET-URL\",v=2\n\
                   {\"sid\":\"s-4\",\"bl\":1000,\"nor\":\"8.ts?token=SECRET-JSON\"}\n";
    let secrets = ["ONCE", "TWICE", "COLUMN", "OWN", "LIST", "PASS", "URL", "JSON"].map(|name| Needle::of(&format!("SECRET-{name}")));
    assert_found(&format!("{log}{players}"), &secrets);
    for policy in ["pseudonym", "keep"] {
        let bench = Bench::new();
        let (log, players) = (bench.write("cdn.tsv", log), bench.write("players.cmcd", players));
        let counts = bench.ingest_with(&format!("privacy: {{identity: {policy}}}\n"), &[&log, &players]);
        assert_eq!(counts["stored"], 6, "{counts}");
        assert_nowhere(&bench, b"", &secrets, policy);
        let named = bench.sql("SELECT session_id AS session, ext['nor'] AS next FROM silver.player_events ORDER BY 1 NULLS FIRST, 2");
        let named: Vec<(&str, &str)> = named
            .iter()
            .map(|row| {
                (
                    row["session"].as_str().unwrap_or_default(),
                    row["next"].as_str().unwrap_or_default(),
                )
            })
            .collect();
        let expected = [
            ("", "..%2F4.ts"),
            ("s-1", "..%2F2.ts"),
            ("s-1", "..%2F3.ts"),
            ("s-2", "..%2F5.ts"),
            ("s-3", "[\"6.ts\",\"7.ts\"]"),
            ("s-4", "8.ts"),
        ];
        assert_eq!(named, expected, "{policy}");
        let payloads = bench.sql("SELECT payload FROM bronze.cdn_logs ORDER BY event_ts");
        let ends = [
            "CMCD=nor%3D%22..%252F2.ts%22%2Csid%3D%22s-1%22\tid1\t-",
            "%2522..%25252F3.ts%2522%252Csid%253D%2522s-1%2522\tid2\t-",
            "id3\t%22..%252F4.ts%22",
        ];
        for (row, end) in payloads.iter().zip(ends) {
            assert!(row["payload"].as_str().is_some_and(|payload| payload.ends_with(end)), "{row}");
        }
    }
}

#[test]
fn no_address_of_any_fixture_reaches_the_disk() {
    let mut paths: Vec<PathBuf> = ["ref_player.ndjson", "ref_cdn.ndjson", "ref_cdn_v1_row.tsv", "hostile.ndjson"]
        .map(reference)
        .to_vec();
    // Some of these are logs, and some are in no format that Playhead knows: those are refused.
    paths.extend(
        ["cloudfront-logs", "player-events", "cmcd"]
            .iter()
            .filter_map(|name| fixtures(name)),
    );
    let mut text = String::new();
    for path in &paths {
        match path.is_dir() {
            true => files_below(path)
                .values()
                .for_each(|bytes| text.push_str(&String::from_utf8_lossy(bytes))),
            false => text.push_str(&std::fs::read_to_string(path).expect("the fixture is there")),
        }
    }
    let found = addresses_in(&text);
    assert!(found.len() >= 4, "the scan finds only {found:?}");
    let needles: Vec<Needle> = found.iter().map(|address| Needle::of(address)).collect();
    assert_found(&text, &needles);

    let bench = Bench::new();
    let mut arguments = vec!["ingest", "--json"];
    arguments.extend(paths.iter().map(|path| path_text(path)));
    let output = bench.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_nowhere(&bench, &[output.stdout, output.stderr].concat(), &needles, "the fixtures");
}

#[test]
fn no_user_id_of_the_fixture_is_stored_unless_it_is_asked_for() {
    let player = reference("ref_player.ndjson");
    let text = std::fs::read_to_string(&player).expect("the fixture is there");
    let ids: BTreeSet<String> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("a line of JSON")["user_id"]
                .as_str()
                .expect("an id")
                .to_string()
        })
        .collect();
    assert_eq!(ids.len(), 4);
    // The part behind the region alone would still name the person.
    let needles: Vec<Needle> = ids
        .iter()
        .map(|id| Needle::exactly(id.rsplit(':').next().expect("region:uuid")))
        .collect();
    assert_found(&text, &needles);

    let bench = Bench::new();
    let output = bench.run(&["ingest", "--json", path_text(&player)]);
    assert!(output.status.success());
    assert_nowhere(&bench, &[output.stdout, output.stderr].concat(), &needles, "the default policy");
    assert_eq!(pseudonyms(&bench).len(), 4, "four viewers stay four");

    let keeping = Bench::new();
    keeping.ingest_with("privacy:\n  identity: keep\n", &[&player]);
    assert_eq!(pseudonyms(&keeping), ids, "the search above would find what is kept");
}

#[test]
fn pseudonyms_depend_on_the_key_and_on_nothing_else() {
    let (first, same, other) = (Bench::new(), Bench::new(), Bench::new());
    other.write("lake/playhead.key", OTHER_KEY);
    for bench in [&first, &same, &other] {
        bench.ingest(&[&reference("ref_player.ndjson")]);
    }
    assert_eq!(pseudonyms(&first), pseudonyms(&same));
    assert!(
        pseudonyms(&first).is_disjoint(&pseudonyms(&other)),
        "two keys give the same pseudonym"
    );
}

#[test]
fn a_lake_without_a_key_gets_one_of_its_own_that_only_its_owner_can_read() {
    let benches = [Bench::new(), Bench::new()];
    for bench in &benches {
        let key = bench.lake().join("playhead.key");
        std::fs::remove_file(&key).expect("the key was there");
        bench.ingest(&[&reference("ref_player.ndjson")]);
        let made = std::fs::read_to_string(&key).expect("a key was made");
        assert!(
            made.trim().len() == 64 && made.trim().bytes().all(|byte| byte.is_ascii_hexdigit()),
            "not 64 hex digits"
        );
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).expect("it is there").permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }
    assert!(
        pseudonyms(&benches[0]).is_disjoint(&pseudonyms(&benches[1])),
        "two lakes share a key"
    );
}

fn pseudonyms(bench: &Bench) -> BTreeSet<String> {
    let rows = bench.sql("SELECT DISTINCT user_id FROM silver.player_events");
    rows.iter()
        .map(|row| {
            row["user_id"]
                .as_str()
                .expect("every event of the fixture names its viewer")
                .to_string()
        })
        .collect()
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path of plain text")
}

// ---- the search ----

/// A text that must not be found, in the spellings that still tell it.
struct Needle {
    spellings: Vec<String>,
}

impl Needle {
    fn exactly(text: &str) -> Needle {
        Needle {
            spellings: vec![text.to_lowercase()],
        }
    }

    /// An address as written, in its short form and with all its groups.
    fn of(address: &str) -> Needle {
        let mut spellings = BTreeSet::from([address.to_lowercase()]);
        if let Ok(IpAddr::V6(v6)) = address.parse::<IpAddr>() {
            let groups = v6.segments();
            spellings.insert(v6.to_string());
            spellings.insert(groups.map(|group| format!("{group:x}")).join(":"));
            spellings.insert(groups.map(|group| format!("{group:04x}")).join(":"));
            if let Some(v4) = v6.to_ipv4_mapped() {
                spellings.insert(v4.to_string());
            }
        }
        Needle {
            spellings: spellings.into_iter().collect(),
        }
    }
}

/// Needles that stand in a text, whatever its escapes.
fn found_in<'a>(text: &str, needles: &'a [Needle]) -> Vec<&'a str> {
    let mut text = text.to_lowercase();
    // One round per layer of escapes: percent twice inside JSON.
    for _ in 0..3 {
        text = text
            .replace("%25", "%")
            .replace("%3a", ":")
            .replace("%2e", ".")
            .replace("\\u003a", ":")
            .replace("\\u002e", ".");
    }
    needles
        .iter()
        .flat_map(|needle| &needle.spellings)
        .filter(|spelling| stands_in(&text, spelling))
        .map(String::as_str)
        .collect()
}

/// True if `text` holds `spelling`; one that short, as a whole: `2001:db8::1f` is not `::1`.
fn stands_in(text: &str, spelling: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit() || *byte == b':');
    let is_whole = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| text.as_bytes().get(before));
        !is_part(before) && !is_part(text.as_bytes().get(at + spelling.len()))
    };
    text.match_indices(spelling).any(|(at, _)| is_telling(spelling) || is_whole(at))
}

/// Three bytes such as `::1` stand in any compressed file by chance.
fn is_telling(spelling: &str) -> bool {
    spelling.len() > 4
}

/// The search is worth something: it finds every needle in the input.
#[track_caller]
fn assert_found(input: &str, needles: &[Needle]) {
    for needle in needles {
        assert!(
            !found_in(input, std::slice::from_ref(needle)).is_empty(),
            "the search does not find {:?} in the input",
            needle.spellings
        );
    }
}

#[track_caller]
fn assert_nowhere(bench: &Bench, printed: &[u8], needles: &[Needle], what: &str) {
    let hits = found_in(&String::from_utf8_lossy(printed), needles);
    assert!(hits.is_empty(), "{what}: printed: {hits:?}");

    let telling: Vec<&String> = needles
        .iter()
        .flat_map(|needle| &needle.spellings)
        .filter(|spelling| is_telling(spelling))
        .collect();
    for (name, bytes) in files_below(&bench.lake()) {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let hit = telling.iter().find(|spelling| text.contains(spelling.as_str()));
        assert!(hit.is_none(), "{what}: {hit:?} stands in the file {}", name.display());
    }

    let tables = tables(bench);
    assert!(tables.len() >= 13, "only {tables:?}");
    for table in tables {
        let rows = Value::Array(bench.sql(&format!("SELECT * FROM {table}"))).to_string();
        let hits = found_in(&rows, needles);
        assert!(hits.is_empty(), "{what}: in {table}: {hits:?}");
    }
}

/// Names of all tables of the lake, by their folders.
fn tables(bench: &Bench) -> BTreeSet<String> {
    let files = files_below(&bench.lake());
    let logs = files.keys().filter_map(|name| {
        let table = name.to_str()?.split_once("/_delta_log/")?.0;
        Some(table.replace('/', "."))
    });
    logs.collect()
}

/// Full addresses that stand in a text, by the standard library's reading of one.
fn addresses_in(text: &str) -> BTreeSet<String> {
    let is_address_byte = |letter: char| letter.is_ascii_hexdigit() || letter == ':' || letter == '.';
    let tokens = text.split(|letter| !is_address_byte(letter)).map(|token| token.trim_matches('.'));
    let is_full = |token: &&str| match token.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.octets()[3] != 0,
        Ok(IpAddr::V6(v6)) => v6.segments()[3..].iter().any(|group| *group != 0),
        Err(_) => false,
    };
    tokens.filter(is_full).map(str::to_string).collect()
}
