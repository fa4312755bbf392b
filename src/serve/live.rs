//! Live figures for apps: how many are watching now, what, and what most.
//!
//! ```text
//! GET /v1/live               concurrent viewers, and the most watched contents
//! GET /v1/live?content=ID    of one content
//! GET /v1/live/stream        the same as server-sent events
//! ```
//!
//! Stands at the end of the walk, beside the page. The figures are those of the newest complete minute of
//! `gold.audience_1m`: time watched over the length of the minute, which adds up over contents.
//!
//! Invariant: worked out once per `every` for all readers.
//! Invariant: a content with fewer viewers than `min_viewers` is not named, and its number is not told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::page::{Page, Refusal};
use crate::sql::MINUTE_MS;

/// Contents that are kept for questions about one of them; the audience of the rest is in the total.
const CONTENTS_MAX: usize = 10_000;
const ANY_ORIGIN: &str = "*";

/// What the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Anybody may read; otherwise whoever may see the page.
    pub is_public: bool,
    /// Web pages whose scripts may read, as `https://host`; `*` is all of them.
    pub origins: Vec<String>,
    pub min_viewers: u64,
    /// Contents that are listed.
    pub top: usize,
    /// How often the figures are worked out.
    pub every: Duration,
}

/// The figures of one minute.
struct Figures {
    tag: u64,
    text: Arc<str>,
    by_content: HashMap<String, u64>,
    start: Value,
}

/// The newest figures and when they were worked out.
pub struct Live {
    settings: Settings,
    last: Mutex<Option<(i64, Arc<Figures>)>>,
}

impl Live {
    pub fn new(settings: Settings) -> Live {
        Live {
            settings,
            last: Mutex::default(),
        }
    }

    fn figures(&self, newest_ms: Option<i64>, counted: &[(String, f64)], all: f64) -> Figures {
        let whole = |viewers: f64| viewers.round().max(0.0) as u64;
        let named = counted.iter().map(|(content, viewers)| (content, whole(*viewers)));
        let named: Vec<(&String, u64)> = named.filter(|(_, viewers)| *viewers >= self.settings.min_viewers).collect();
        let start = complete_minute(newest_ms).map_or(Value::Null, moment);
        let top = named.iter().take(self.settings.top);
        let top: Vec<Value> = top
            .map(|(content, viewers)| json!({"content_id": content, "viewers": viewers}))
            .collect();
        let text =
            json!({"minute": start, "concurrent_viewers": whole(all), "min_viewers": self.settings.min_viewers, "most_watched": top})
                .to_string();
        Figures {
            tag: xxh3_64(text.as_bytes()),
            text: Arc::from(text),
            by_content: named.into_iter().map(|(content, viewers)| (content.clone(), viewers)).collect(),
            start,
        }
    }
}

/// Start of the newest minute that another one has followed: it is not filling any more.
fn complete_minute(newest_ms: Option<i64>) -> Option<i64> {
    newest_ms.map(|newest_ms| newest_ms - MINUTE_MS)
}

fn moment(ms: i64) -> Value {
    let text = DateTime::from_timestamp_millis(ms).map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
    text.map_or(Value::Null, Value::String)
}

impl Page {
    async fn live_figures(&self) -> Result<Arc<Figures>, Refusal> {
        let mut last = self.live.last.lock().await;
        let now_ms = self.now_ms();
        let every_ms = i64::try_from(self.live.settings.every.as_millis()).unwrap_or(i64::MAX);
        if let Some((_, known)) = last.as_ref().filter(|(at_ms, _)| (0..every_ms).contains(&(now_ms - at_ms))) {
            return Ok(Arc::clone(known));
        }
        let newest_ms = self.state().await?.newest_ms;
        let (counted, all) = match complete_minute(newest_ms) {
            Some(minute_ms) => self.audience(minute_ms).await?,
            None => (Vec::new(), 0.0),
        };
        let figures = Arc::new(self.live.figures(newest_ms, &counted, all));
        *last = Some((now_ms, Arc::clone(&figures)));
        Ok(figures)
    }

    /// Contents by viewers, the most watched first, and the viewers of all.
    async fn audience(&self, minute_ms: i64) -> Result<(Vec<(String, f64)>, f64), Refusal> {
        let start = moment(minute_ms);
        let start = start.as_str().unwrap_or_default();
        let from = format!("FROM gold.audience_1m WHERE window_start = TIMESTAMP '{start}'");
        let desk = self.desk()?;
        let by_content = format!(
            "SELECT arrow_cast(content_id, 'Utf8') AS content_id, cast(sum(active_ms) AS double) / {MINUTE_MS}.0 AS viewers {from} \
             AND content_id IS NOT NULL GROUP BY content_id ORDER BY viewers DESC, content_id LIMIT {CONTENTS_MAX}"
        );
        let all = format!("SELECT coalesce(cast(sum(active_ms) AS double), 0.0) / {MINUTE_MS}.0 AS viewers {from}");
        let mut contents = Vec::new();
        for batch in desk.query(&by_content).await?.batches {
            let (names, viewers) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Float64Type>());
            let pairs = names.iter().zip(viewers.iter());
            contents.extend(pairs.filter_map(|(name, viewers)| Some((name?.to_owned(), viewers?))));
        }
        let batches = desk.query(&all).await?.batches;
        let all = batches.iter().find(|batch| batch.num_rows() > 0);
        Ok((
            contents,
            all.map_or(0.0, |batch| batch.column(0).as_primitive::<Float64Type>().value(0)),
        ))
    }
}

/// The routes; whoever may not see the page may see these where the settings say so.
pub fn router(page: Arc<Page>) -> Router {
    let routes = Router::new().route("/v1/live", get(live)).route("/v1/live/stream", get(stream));
    let routes = match page.live.settings.is_public {
        true => routes,
        false => routes.layer(middleware::from_fn_with_state(Arc::clone(&page), super::page::guard)),
    };
    routes
        .layer(middleware::from_fn_with_state(Arc::clone(&page), allow_origin))
        .with_state(page)
}

async fn live(State(page): State<Arc<Page>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Refusal> {
    let figures = page.live_figures().await?;
    let asked = query.unwrap_or_default();
    let content = url::form_urlencoded::parse(asked.as_bytes()).find(|(name, _)| name == "content");
    let (tag, text) = match content {
        None => (figures.tag, Arc::clone(&figures.text)),
        Some((_, content)) => {
            let viewers = figures.by_content.get(&*content);
            let text =
                json!({"minute": figures.start, "content_id": content, "viewers": viewers, "min_viewers": page.live.settings.min_viewers})
                    .to_string();
            (xxh3_64(text.as_bytes()), Arc::from(text))
        }
    };
    let tag = format!("\"{tag:016x}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_known = known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => text.to_string().into_response(),
    };
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let age = format!(
        "{}, max-age={}",
        if page.live.settings.is_public { "public" } else { "private" },
        page.live.settings.every.as_secs()
    );
    let header = |text: &str| HeaderValue::from_str(text).expect("digits and words are a header");
    answer.insert(CACHE_CONTROL, header(&age));
    answer.insert(ETAG, header(&tag));
    Ok(response)
}

async fn stream(State(page): State<Arc<Page>>, request: Request) -> Response {
    let source = Arc::clone(&page);
    let next = move || {
        let page = Arc::clone(&source);
        async move {
            page.live_figures()
                .await
                .ok()
                .map(|figures| (figures.tag, Arc::clone(&figures.text)))
        }
    };
    page.streams.answer("live", request.extensions(), next)
}

/// Lets the scripts of the listed pages read the answer.
async fn allow_origin(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = next.run(request).await;
    let origins = &page.live.settings.origins;
    let is_any = origins.iter().any(|known| known == ANY_ORIGIN);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("origin"));
    let allowed = match origin {
        _ if is_any => Some(HeaderValue::from_static(ANY_ORIGIN)),
        Some(origin) if origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) => Some(origin),
        _ => None,
    };
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 1_700_000_040_000;

    fn live(min_viewers: u64, top: usize) -> Live {
        Live::new(Settings {
            is_public: false,
            origins: Vec::new(),
            min_viewers,
            top,
            every: Duration::from_secs(5),
        })
    }

    #[test]
    fn few_viewers_are_not_told_and_still_count() {
        let counted = [("a".to_owned(), 41.6), ("b".to_owned(), 10.0), ("c".to_owned(), 9.4)];
        let figures = live(10, 1).figures(Some(MINUTE + MINUTE_MS), &counted, 61.0);
        let expected = r#"{"concurrent_viewers":61,"min_viewers":10,"minute":"2023-11-14T22:14:00Z","most_watched":[{"content_id":"a","viewers":42}]}"#;
        assert_eq!(&*figures.text, expected);
        assert_eq!(figures.by_content, HashMap::from([("a".to_owned(), 42), ("b".to_owned(), 10)]));
    }

    #[test]
    fn an_empty_lake_has_no_viewers() {
        let figures = live(10, 20).figures(None, &[], 0.0);
        assert_eq!(
            &*figures.text,
            r#"{"concurrent_viewers":0,"min_viewers":10,"minute":null,"most_watched":[]}"#
        );
    }
}
