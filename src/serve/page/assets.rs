//! The files of the page: our own HTML, CSS and JavaScript, and plotly.js as its crate brings it.
//!
//! Everything is packed once at start. An address holds the hash of all files together, so that a browser
//! keeps them for ever and modules of two releases never meet.
//!
//! Invariant: no file names another host to load anything from.

use std::io::{Read, Write};
use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use xxhash_rust::xxh3::xxh3_64;

const INDEX: &str = include_str!("assets/index.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const CHARTS: &str = "plotly.js";
/// A year: what has the hash in its address never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Name, type and text of every file of our own.
const FILES: [(&str, &str, &str); 18] = [
    ("api.js", SCRIPT, include_str!("assets/api.js")),
    ("app.js", SCRIPT, include_str!("assets/app.js")),
    ("charts.js", SCRIPT, include_str!("assets/charts.js")),
    ("controls.js", SCRIPT, include_str!("assets/controls.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("fields.js", SCRIPT, include_str!("assets/fields.js")),
    ("incidents.js", SCRIPT, include_str!("assets/incidents.js")),
    ("links.js", SCRIPT, include_str!("assets/links.js")),
    ("mark.svg", "image/svg+xml", include_str!("assets/mark.svg")),
    ("panel.js", SCRIPT, include_str!("assets/panel.js")),
    ("session.js", SCRIPT, include_str!("assets/session.js")),
    ("sql.js", SCRIPT, include_str!("assets/sql.js")),
    ("state.js", SCRIPT, include_str!("assets/state.js")),
    ("style.css", STYLE, include_str!("assets/style.css")),
    ("table.js", SCRIPT, include_str!("assets/table.js")),
    ("theme.js", SCRIPT, include_str!("assets/theme.js")),
    ("tiles.js", SCRIPT, include_str!("assets/tiles.js")),
    ("units.js", SCRIPT, include_str!("assets/units.js")),
];

/// One file, packed.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    packed: Bytes,
}

/// All files.
pub struct Assets {
    index: String,
    hash: String,
    charts_hash: String,
    files: Vec<Asset>,
}

/// Packs everything, the first time that it is called.
pub fn all() -> &'static Assets {
    static ASSETS: OnceLock<Assets> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let texts: Vec<&str> = FILES.iter().map(|(_, _, text)| *text).collect();
        let hash = hash_of(texts.concat().as_bytes());
        let charts = chart_library();
        let charts_hash = hash_of(charts.as_bytes());
        let asset = |name, content_type, text: &str| Asset {
            name,
            content_type,
            packed: packed(text.as_bytes()),
        };
        let mut files: Vec<Asset> = FILES
            .iter()
            .map(|(name, content_type, text)| asset(*name, *content_type, text))
            .collect();
        files.push(asset(CHARTS, SCRIPT, &charts));
        let index = INDEX.replace("{{hash}}", &hash).replace("{{charts_hash}}", &charts_hash);
        Assets {
            index,
            hash,
            charts_hash,
            files,
        }
    })
}

fn hash_of(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

/// plotly.js without the tags that the crate puts around it, and without the typesetter that follows it.
fn chart_library() -> String {
    const START: &str = "<script type=\"text/javascript\">";
    let tagged = plotly::Plot::offline_js_sources();
    let inside = tagged.split_once(START).map_or(tagged.as_str(), |(_, rest)| rest);
    let end = inside.find(START).unwrap_or(inside.len());
    let first = inside[..end].trim_end();
    first.strip_suffix("</script>").unwrap_or(first).to_owned()
}

fn packed(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes what is written");
    Bytes::from(encoder.finish().expect("memory takes what is written"))
}

pub fn index() -> Response {
    let mut response = Response::new(Body::from(all().index.as_str()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // It names the hash of everything else.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

pub fn answer(hash: &str, name: &str, asked: &HeaderMap) -> Response {
    let assets = all();
    let Some(asset) = assets.files.iter().find(|asset| asset.name == name) else {
        let mut response = Response::new(Body::from("there is no such file\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let known = if name == CHARTS { &assets.charts_hash } else { &assets.hash };
    // A page that was loaded before an upgrade asks for files that are gone: it gets those of today, once.
    let cache = if hash == known { FOR_EVER } else { "no-store" };
    let takes_packed = asked
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"));
    let mut response = Response::new(match takes_packed {
        true => Body::from(asset.packed.clone()),
        false => Body::from(unpacked(&asset.packed)),
    });
    let headers = response.headers_mut();
    if takes_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    response
}

fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).expect("we packed it ourselves");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_library_comes_alone_and_without_tags() {
        let charts = chart_library();
        assert!(charts.trim_start().starts_with("/**\n* plotly.js v"), "{}", &charts[..40]);
        assert!(charts.len() > 3_000_000);
        assert!(!charts.contains("</script>"));
        assert!(!charts.contains("MathJax.loader"));
    }

    #[test]
    fn every_file_that_is_named_is_there_and_none_is_of_another_host() {
        for (name, _, text) in FILES.iter().chain([&("index.html", "", INDEX)]) {
            for (_, rest) in text.match_indices("from './").map(|(at, found)| text[at..].split_at(found.len())) {
                let import = rest.split('\'').next().unwrap();
                assert!(FILES.iter().any(|(known, ..)| *known == import), "{name} imports {import}");
            }
            let namespace = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!namespace.contains("http://") && !namespace.contains("https://"), "{name}");
            assert!(!text.contains("innerHTML") && !text.contains("eval("), "{name}");
        }
        assert!(all().index.contains(&all().hash));
        assert!(!all().index.contains("{{"));
    }

    #[test]
    fn whoever_unpacks_nothing_gets_plain_text_and_an_old_hash_is_not_kept() {
        let old = answer("0", "style.css", &HeaderMap::new());
        assert_eq!(old.headers()[CACHE_CONTROL], "no-store");
        assert!(old.headers().get(CONTENT_ENCODING).is_none());
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"));
        let new = answer(&all().hash, "style.css", &headers);
        assert_eq!(new.headers()[CACHE_CONTROL], FOR_EVER);
        assert_eq!(new.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer("0", "../page.rs", &headers).status(), StatusCode::NOT_FOUND);
    }
}
