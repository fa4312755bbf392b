//! Server-sent events: a text is sent when it changes, and a sign of life now and then.
//!
//! Every stream asks again each few seconds; what it asks is worked out once for all (`pulse`, `live`).
//!
//! Invariant: bounded: no more than `STREAMS_MAX` streams; who comes later is told to come again.
//! Invariant: a stream ends when the daemon stops, and when its reader is gone, at the next sign of life.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Extensions, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

use crate::source::http::InHand;

/// A stream costs a connection and some kilobytes.
const STREAMS_MAX: usize = 4_096;
/// How often a stream looks for news.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Proxies close what is silent for half a minute, and a reader that is gone is noticed by writing to it.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(10);

/// Who may hold a stream, and until when.
pub struct Streams {
    places: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// One stream between two of its events.
struct Following<N> {
    event: &'static str,
    next: N,
    sent: Option<u64>,
    spoke_at: Option<Instant>,
    stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
    _in_hand: Option<Arc<InHand>>,
}

impl Streams {
    pub fn new(stop: watch::Receiver<bool>) -> Streams {
        Streams {
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            stop,
        }
    }

    /// Sends what `next` gives whenever its tag is another; `None` is no news.
    pub fn answer<N, F>(&self, event: &'static str, connection: &Extensions, next: N) -> Response
    where
        N: Fn() -> F + Send + 'static,
        F: Future<Output = Option<(u64, Arc<str>)>> + Send,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                [(RETRY_AFTER, "30")],
                "too many streams; come again\n",
            )
                .into_response();
        };
        let following = Following {
            event,
            next,
            sent: None,
            spoke_at: None,
            stop: self.stop.clone(),
            _place: place,
            _in_hand: connection.get::<Arc<InHand>>().cloned(),
        };
        let events = stream::unfold(following, |mut following| async move {
            let event = following.event().await?;
            Some((Ok::<Bytes, Infallible>(event), following))
        });
        let mut response = Response::new(Body::from_stream(events));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx would gather the events.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        response
    }
}

impl<N, F> Following<N>
where
    N: Fn() -> F,
    F: Future<Output = Option<(u64, Arc<str>)>>,
{
    /// The next event or sign of life; none once the daemon stops.
    async fn event(&mut self) -> Option<Bytes> {
        loop {
            if *self.stop.borrow() {
                return None;
            }
            if let Some((tag, text)) = (self.next)().await.filter(|(tag, _)| self.sent != Some(*tag)) {
                self.sent = Some(tag);
                self.spoke_at = Some(Instant::now());
                return Some(Bytes::from(format!("event: {}\ndata: {text}\n\n", self.event)));
            }
            if self.spoke_at.is_none_or(|at| at.elapsed() >= SIGN_OF_LIFE_EVERY) {
                self.spoke_at = Some(Instant::now());
                return Some(Bytes::from_static(b": alive\n\n"));
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                // Err: whoever could stop us is gone, which is a stop too.
                changed = self.stop.changed() => changed.ok()?,
            }
        }
    }
}
