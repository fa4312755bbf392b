//! The house rules that no compiler keeps: who may import whom, words, headers, unused files.
//!
//! Reads the text of the repository and nothing else. Each rule is a function from text to
//! complaints, so that each is shown here to complain of something.
//!
//! Invariant: comments and literals are no code; a link in a doc comment is no arrow.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Words,
    Rules,
    Edges,
    Conductors,
    Shell,
}

/// Module and layer; the longest match decides, so `event::decode` is a rule although `event` is
/// a word.
const LAYERS: &[(&str, Layer)] = &[
    ("main", Layer::Shell),
    ("cli", Layer::Shell),
    ("daemon", Layer::Shell),
    ("serve", Layer::Shell),
    ("config", Layer::Shell),
    ("telemetry", Layer::Shell),
    ("builtin", Layer::Shell),
    ("contract", Layer::Shell),
    ("ingest", Layer::Conductors),
    ("rollup", Layer::Conductors),
    ("watch", Layer::Conductors),
    ("source", Layer::Edges),
    ("lake", Layer::Edges),
    ("sql", Layer::Edges),
    ("notify", Layer::Edges),
    ("relay", Layer::Edges),
    ("noc", Layer::Edges),
    ("arroyo", Layer::Edges),
    ("event::decode", Layer::Rules),
    // Takes only what `privacy` returns, which is how nothing else can be stored.
    ("event::schema", Layer::Rules),
    ("enrich", Layer::Rules),
    ("privacy", Layer::Rules),
    ("session", Layer::Rules),
    ("watermark", Layer::Rules),
    ("alert", Layer::Rules),
    ("publish", Layer::Rules),
    ("event", Layer::Words),
    ("metric", Layer::Words),
    ("sketch", Layer::Words),
    ("clock", Layer::Words),
    ("simulate", Layer::Words),
    ("udfs", Layer::Words),
];

/// The only arrows between edges: both are readers.
const EDGE_ARROWS: &[(&str, &str)] = &[("sql", "lake"), ("noc", "sql")];

/// Everything above the rules may log; nothing else of the shell is imported from below it.
const TELEMETRY: &str = "telemetry";

/// Words that the glossary replaces, as parts of identifiers, and what to write instead.
const RETIRED_WORDS: &[(&str, &str)] = &[
    ("ttff", "startup_ms"),
    ("ebvs", "exits_before_start"),
    ("rebuf_", "rebuffering_ or stall_, as in event.rs"),
    ("vsf_", "start_failures"),
    ("vpf_", "playback_failures"),
];

/// Folders whose every file somebody must name.
const FOLDERS_IN_USE: &[&str] = &["pipelines/udfs", "tests/reference"];

#[test]
fn imports_point_down() {
    let complaints = in_every_source_file(|file, code| arrow_complaints(&module_of(file), code));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn identifiers_use_the_glossarys_words() {
    let complaints = in_every_source_file(|_, code| word_complaints(code));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_source_file_says_what_it_holds() {
    let complaints: Vec<String> = rust_files("src")
        .iter()
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| format!("{}: opens without `//!` lines; say what lives here", shown(path)))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_function_and_fixture_is_used() {
    let users: Vec<(PathBuf, String)> = ["src", "tests", "pipelines", "benches"]
        .iter()
        .flat_map(|folder| files_below(&root().join(folder)))
        .filter(|path| has_extension(path, &["rs", "sql", "slt"]))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    let mut complaints = Vec::new();
    for folder in FOLDERS_IN_USE {
        for path in files_below(&root().join(folder)) {
            let others = users.iter().filter(|(user, _)| *user != path);
            let texts: Vec<&str> = others.map(|(_, text)| text.as_str()).collect();
            complaints.extend(unused_complaint(&shown(&path), &texts));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// ---- the rules ----

/// Every arrow of a file's code that must not be; `module` is the file's own, such as `lake::commit`.
fn arrow_complaints(module: &str, code: &str) -> Vec<String> {
    let Some((from, from_layer)) = layer_of(module) else {
        let how = "add it to LAYERS in tests/it/house.rs";
        return vec![format!("1: module {module} has no layer; {how}")];
    };
    let mut complaints = Vec::new();
    for (line, target) in imports(code) {
        let Some((to, to_layer)) = layer_of(&target) else {
            // Things that stand in lib.rs itself have no module, hence no layer.
            continue;
        };
        if !is_allowed((from, from_layer), (to, to_layer)) {
            let arrow = format!("{from} ({from_layer:?}) -> {to} ({to_layer:?})");
            complaints.push(format!("{line}: {arrow}; {}", allowed_from(from, from_layer)));
        }
    }
    complaints
}

fn is_allowed(from: (&str, Layer), to: (&str, Layer)) -> bool {
    let ((from, from_layer), (to, to_layer)) = (from, to);
    if to == TELEMETRY {
        return from_layer > Layer::Rules;
    }
    let is_same_part = from == to;
    let is_edge_to_edge = from_layer == Layer::Edges && to_layer == Layer::Edges;
    match is_edge_to_edge {
        true => is_same_part || EDGE_ARROWS.contains(&(from, to)),
        false => to_layer <= from_layer,
    }
}

fn allowed_from(from: &str, layer: Layer) -> String {
    let below: Vec<&str> = LAYERS
        .iter()
        .filter(|to| is_allowed((from, layer), **to))
        .map(|(name, _)| *name)
        .collect();
    format!("{from} may use: {}", below.join(", "))
}

/// The entry of `LAYERS` that `path` belongs to.
fn layer_of(path: &str) -> Option<(&'static str, Layer)> {
    let is_inside = |name: &str| match path.strip_prefix(name) {
        Some(rest) => rest.is_empty() || rest.starts_with("::"),
        None => false,
    };
    LAYERS
        .iter()
        .filter(|(name, _)| is_inside(name))
        .max_by_key(|(name, _)| name.len())
        .copied()
}

/// Line and path of everything that code names by `crate::`, lists in braces taken apart.
fn imports(code: &str) -> Vec<(usize, String)> {
    const START: &str = "crate::";
    let mut found = Vec::new();
    for (at, _) in code.match_indices(START) {
        let is_whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_whole_word {
            let line = 1 + code[..at].matches('\n').count();
            for path in paths(&code[at + START.len()..]) {
                found.push((line, path));
            }
        }
    }
    found
}

/// `a::{b, c::D}` gives `a::b` and `a::c::D`; what follows the path is ignored.
fn paths(text: &str) -> Vec<String> {
    let is_path_char = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let end = text.find(|c: char| !is_path_char(c)).unwrap_or(text.len());
    let (start, rest) = text.split_at(end);
    let Some(list) = rest.strip_prefix('{') else {
        return vec![start.trim_end_matches(':').to_owned()];
    };
    list_items(list)
        .iter()
        .flat_map(|item| paths(item.trim()))
        .map(|item| format!("{start}{item}"))
        .collect()
}

/// The items of a list up to its closing brace, lists inside left whole.
fn list_items(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut item_start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[item_start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[item_start..at]);
                item_start = at + 1;
            }
            _ => {}
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

fn word_complaints(code: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let lower = line.to_lowercase();
        for (word, instead) in RETIRED_WORDS {
            if lower.contains(word) {
                complaints.push(format!("{}: `{word}` is retired; write {instead}", index + 1));
            }
        }
    }
    complaints
}

/// A file is in use where its name, or its name without extension as a whole word, is written.
fn unused_complaint(file: &str, texts: &[&str]) -> Option<String> {
    let path = Path::new(file);
    let name = path.file_name()?.to_str()?;
    let stem = path.file_stem()?.to_str()?;
    let is_function = path.extension().is_some_and(|extension| extension == "rs");
    let is_used = texts.iter().any(|text| match is_function {
        true => contains_word(text, stem),
        false => text.contains(name),
    });
    match is_used {
        true => None,
        false => Some(format!("{file}: nobody names it; use it or remove it")),
    }
}

fn contains_word(text: &str, word: &str) -> bool {
    let is_word_char = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].ends_with(is_word_char);
        let after = text[at + word.len()..].starts_with(is_word_char);
        !before && !after
    })
}

// ---- reading ----

/// Applies a rule to the code of every file below src, and puts file names before complaints.
fn in_every_source_file(rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let files = rust_files("src");
    assert!(!files.is_empty(), "no source below {}", root().display());
    let mut complaints = Vec::new();
    for path in files {
        let code = code_only(&read(&path));
        for complaint in rule(&path, &code) {
            complaints.push(format!("{}:{complaint}", shown(&path)));
        }
    }
    complaints
}

/// `src/lake/commit.rs` is `lake::commit`. The map, `lib.rs`, names everything and counts as shell.
fn module_of(path: &Path) -> String {
    let below_src = path.strip_prefix(root().join("src")).unwrap_or(path);
    let without_extension = below_src.with_extension("");
    let parts: Vec<&str> = without_extension.iter().filter_map(|p| p.to_str()).collect();
    match parts.join("::").as_str() {
        "lib" => "main".to_owned(),
        module => module.to_owned(),
    }
}

/// Rust text with comments and literals blanked out, line for line.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blank = literal_length(rest, code.chars().next_back());
        let (taken, left) = rest.split_at(blank.unwrap_or(first.len_utf8()));
        match blank {
            Some(_) => code.extend(taken.chars().filter(|c| *c == '\n')),
            None => code.push_str(taken),
        }
        rest = left;
    }
    code
}

/// Length of the comment, text or character that `text` starts with, if it starts with one.
fn literal_length(text: &str, before: Option<char>) -> Option<usize> {
    let is_in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_length(text));
    }
    if text.starts_with('"') {
        return Some(quoted_length(text, '"'));
    }
    if text.starts_with('\'') && is_character(text) {
        return Some(quoted_length(text, '\''));
    }
    let may_be_raw = text.starts_with('r') || text.starts_with("br");
    match may_be_raw && !is_in_word {
        true => raw_text_length(text),
        false => None,
    }
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    for (at, _) in text.char_indices() {
        if text[at..].starts_with("/*") {
            depth += 1;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'a'` and `'\n'` are characters, `'a` is a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

/// `r"..."`, `r#"..."#` and their byte forms; nothing for a word that begins with r.
fn raw_text_length(text: &str) -> Option<usize> {
    let after_r = text.find('r')? + 1;
    let hashes = text[after_r..].chars().take_while(|c| *c == '#').count();
    let body = after_r + hashes + 1;
    if !text[after_r + hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text[body..].find(&end)?;
    Some(body + length + end.len())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = files_below(&root().join(folder));
    files.retain(|path| has_extension(path, &["rs"]));
    files
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.contains(&extension))
}

/// All files below `folder`, sorted; none where there is no such folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("the folder stays while it is listed").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", shown(path)))
}

fn shown(path: &Path) -> String {
    let below_root = path.strip_prefix(root()).unwrap_or(path);
    below_root.display().to_string()
}

// ---- the rules complain ----

#[test]
fn an_arrow_that_points_up_or_sideways_is_named() {
    let check = |module: &str, code: &str, expected: &[&str]| {
        let complaints = arrow_complaints(module, &code_only(code));
        let arrows: Vec<&str> = complaints.iter().map(|complaint| complaint.split(';').next().unwrap()).collect();
        assert_eq!(arrows, expected, "{module}: {code}");
    };
    check("session", "use crate::event::facts::Outcome;", &[]);
    check("session", "use crate::lake::Lake;", &["1: session (Rules) -> lake (Edges)"]);
    check(
        "lake::commit",
        "use crate::{\n    event::{self, decode::decode},\n    config::Config,\n    notify,\n};",
        &["1: lake (Edges) -> config (Shell)", "1: lake (Edges) -> notify (Edges)"],
    );
    check("sql::pipeline", "use crate::lake::Lake;", &[]);
    check("lake", "\nuse crate::sql::Sql;", &["2: lake (Edges) -> sql (Edges)"]);
    check("lake", "use crate::lake::tables::TABLES; crate::telemetry::note();", &[]);
    check("session", "crate::telemetry::note();", &["1: session (Rules) -> telemetry (Shell)"]);
    check("event", "use crate::event::decode;", &["1: event (Words) -> event::decode (Rules)"]);
    check("event::decode", "use crate::event::PlayerEvent;", &[]);
    check("sessions", "", &["1: module sessions has no layer"]);
    check("session", "//! [`crate::lake`]\nlet s = \"crate::lake\"; // crate::lake", &[]);
    check("ingest", "use crate::lake::Lake; use crate::session; pub(crate) fn x() {}", &[]);
    check("watch", "use crate::cli::Args;", &["1: watch (Conductors) -> cli (Shell)"]);
}

#[test]
fn a_complaint_lists_the_arrows_that_are_allowed() {
    let complaints = arrow_complaints("metric", "use crate::session;");
    let allowed = "metric may use: event, metric, sketch, clock, simulate, udfs";
    assert!(complaints[0].ends_with(allowed), "{}", complaints[0]);
}

#[test]
fn a_retired_word_is_named_in_code_and_left_alone_in_text() {
    let complaints = |text: &str| word_complaints(&code_only(text));
    let found = complaints("let a = 1;\nlet mean_ttff_ms = 0;");
    assert_eq!(found, ["2: `ttff` is retired; write startup_ms"]);
    assert_eq!(complaints("struct Ttff;").len(), 1);
    assert!(complaints("// what others call TTFF\nlet s = r#\"ttff \"quoted\" \"#;").is_empty());
}

#[test]
fn code_keeps_its_lines_when_literals_go() {
    let check = |text: &str, expected: &str| assert_eq!(code_only(text), expected, "{text}");
    check("a /* b /* c */ d\n */ e", "a \n e");
    check("let q = '\"'; let s = \"x\";", "let q = ; let s = ;");
    check("fn f<'a>(x: &'a str) -> char { '\\'' }", "fn f<'a>(x: &'a str) -> char {  }");
    check("let r = br##\"a\"# b\"##; for_r\n", "let r = ; for_r\n");
    check("let s = \"a\\\"\nb\"; // c", "let s = \n; ");
}

#[test]
fn a_file_that_nobody_names_is_named() {
    let texts = ["read(\"one.ndjson\")", "register(startup_band)"];
    let is_unused = |file: &str| unused_complaint(file, &texts).is_some();
    assert!(!is_unused("tests/reference/one.ndjson"));
    assert!(is_unused("tests/reference/two.ndjson"));
    assert!(!is_unused("pipelines/udfs/startup_band.rs"));
    assert!(is_unused("pipelines/udfs/startup.rs"));
}
