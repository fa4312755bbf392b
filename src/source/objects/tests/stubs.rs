//! A store whose answers fail as scripted, and a queue that forgets nothing but what is deleted.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::source::objects::queue::{BATCH, Message, Queue};

/// What goes wrong with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 500, 503 and connections that are refused look alike above the client.
    Unavailable,
    Hangs,
    /// The body breaks off with an error after half of it.
    Resets,
    /// The body ends early without an error.
    Short,
    Forbidden,
}

#[derive(Debug, Default)]
pub struct Faulty {
    pub inner: InMemory,
    /// Faults of the next answers to GETs of keys that contain the text.
    pub faults: Mutex<VecDeque<(String, Fault)>>,
    /// Every GET of keys that contain a text fails so, until it is taken away.
    pub standing: Mutex<Option<(String, Fault)>>,
    pub list_faults: AtomicUsize,
    pub gets: AtomicUsize,
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Faulty")
    }
}

fn unavailable() -> Error {
    Error::Generic {
        store: "Faulty",
        source: "503 Slow Down".into(),
    }
}

impl Faulty {
    pub fn script(&self, key: &str, faults: &[Fault]) {
        let scripted = faults.iter().map(|fault| (key.to_string(), *fault));
        self.faults.lock().expect("sound").extend(scripted);
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let fault = self.fault_for(location);
        let result = self.inner.get_opts(location, options).await;
        match fault {
            None => result,
            Some(Fault::Unavailable) => Err(unavailable()),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Resets) => broken_body(result?, true).await,
            Some(Fault::Short) => broken_body(result?, false).await,
            Some(Fault::Forbidden) => Err(Error::PermissionDenied {
                path: location.to_string(),
                source: "403".into(),
            }),
        }
    }

    fn fault_for(&self, location: &Path) -> Option<Fault> {
        let matches = |key: &str| location.as_ref().contains(key);
        let mut faults = self.faults.lock().expect("sound");
        if let Some(at) = faults.iter().position(|(key, _)| matches(key)) {
            return faults.remove(at).map(|(_, fault)| fault);
        }
        let standing = self.standing.lock().expect("sound");
        standing.as_ref().filter(|(key, _)| matches(key)).map(|(_, fault)| *fault)
    }
}

async fn broken_body(result: GetResult, resets: bool) -> Result<GetResult> {
    let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
    let bytes = result.bytes().await?;
    let mut pieces = vec![Ok(bytes.slice(..bytes.len() / 2))];
    if resets {
        pieces.push(Err(unavailable()));
    }
    Ok(GetResult {
        payload: GetResultPayload::Stream(futures_util::stream::iter(pieces).boxed()),
        meta,
        range,
        attributes,
    })
}

/// What a method of the store's trait returns, as its macro writes it.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl ObjectStore for Faulty {
    fn put_opts<'s, 'l, 'a>(&'s self, location: &'l Path, payload: PutPayload, options: PutOptions) -> Answer<'a, PutResult>
    where
        's: 'a,
        'l: 'a,
        Self: 'a,
    {
        self.inner.put_opts(location, payload, options)
    }

    fn put_multipart_opts<'s, 'l, 'a>(&'s self, location: &'l Path, options: PutMultipartOptions) -> Answer<'a, Box<dyn MultipartUpload>>
    where
        's: 'a,
        'l: 'a,
        Self: 'a,
    {
        self.inner.put_multipart_opts(location, options)
    }

    fn get_opts<'s, 'l, 'a>(&'s self, location: &'l Path, options: GetOptions) -> Answer<'a, GetResult>
    where
        's: 'a,
        'l: 'a,
        Self: 'a,
    {
        Box::pin(self.get(location, options))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let failing = self
            .list_faults
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failing {
            // A torn listing: some of it, then an error.
            Ok(_) => {
                let tear = futures_util::stream::once(async { Err(unavailable()) });
                self.inner.list(prefix).take(1).chain(tear).boxed()
            }
            Err(_) => self.inner.list(prefix),
        }
    }

    fn list_with_delimiter<'s, 'l, 'a>(&'s self, prefix: Option<&'l Path>) -> Answer<'a, ListResult>
    where
        's: 'a,
        'l: 'a,
        Self: 'a,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'s, 'f, 't, 'a>(&'s self, from: &'f Path, to: &'t Path, options: CopyOptions) -> Answer<'a, ()>
    where
        's: 'a,
        'f: 'a,
        't: 'a,
        Self: 'a,
    {
        self.inner.copy_opts(from, to, options)
    }
}

/// A queue with visibility time-outs.
#[derive(Default)]
pub struct StubQueue {
    state: Mutex<Messages>,
    pub failing: AtomicUsize,
}

#[derive(Default)]
struct Messages {
    bodies: BTreeMap<usize, (String, Option<Instant>, usize)>,
    sent: usize,
}

impl StubQueue {
    pub fn send(&self, body: &str) -> usize {
        let mut state = self.state.lock().expect("sound");
        state.sent += 1;
        let number = state.sent;
        state.bodies.insert(number, (body.to_string(), None, 0));
        number
    }

    pub fn left(&self) -> usize {
        self.state.lock().expect("sound").bodies.len()
    }

    /// Messages that somebody else could receive now.
    pub fn visible(&self) -> usize {
        let state = self.state.lock().expect("sound");
        state
            .bodies
            .values()
            .filter(|(_, until, _)| until.is_none_or(|until| until <= Instant::now()))
            .count()
    }

    /// How often a message was received; `None`: it is deleted.
    pub fn receives(&self, number: usize) -> Option<usize> {
        self.state
            .lock()
            .expect("sound")
            .bodies
            .get(&number)
            .map(|(_, _, receives)| *receives)
    }

    fn fails(&self) -> std::result::Result<(), String> {
        let failing = self
            .failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        failing.map_or(Ok(()), |_| Err("503".to_string()))
    }
}

fn number_of(receipt: &str) -> (usize, usize) {
    let (number, delivery) = receipt.split_once('/').expect("ours");
    (number.parse().expect("ours"), delivery.parse().expect("ours"))
}

impl Queue for StubQueue {
    fn receive(&self, _wait: Duration, hold: Duration) -> BoxFuture<'_, std::result::Result<Vec<Message>, String>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.fails()?;
            let now = Instant::now();
            let mut state = self.state.lock().expect("sound");
            let visible = state
                .bodies
                .iter_mut()
                .filter(|(_, (_, until, _))| until.is_none_or(|until| until <= now));
            let received = visible.take(BATCH).map(|(number, (body, until, receives))| {
                *until = Some(now + hold);
                *receives += 1;
                Message {
                    id: format!("m{number}"),
                    receipt: format!("{number}/{receives}"),
                    body: body.clone(),
                }
            });
            Ok(received.collect())
        })
    }

    fn delete(&self, receipts: Vec<String>) -> BoxFuture<'_, std::result::Result<Vec<String>, String>> {
        Box::pin(async move {
            assert!(receipts.len() <= BATCH);
            self.fails()?;
            let mut state = self.state.lock().expect("sound");
            for (number, delivery) in receipts.iter().map(|receipt| number_of(receipt)) {
                if state.bodies.get(&number).is_some_and(|(_, _, receives)| *receives == delivery) {
                    state.bodies.remove(&number);
                }
            }
            Ok(Vec::new())
        })
    }

    fn hold(&self, receipts: Vec<String>, hold: Duration) -> BoxFuture<'_, std::result::Result<(), String>> {
        Box::pin(async move {
            assert!(receipts.len() <= BATCH);
            let mut state = self.state.lock().expect("sound");
            for (number, delivery) in receipts.iter().map(|receipt| number_of(receipt)) {
                if let Some((_, until, receives)) = state.bodies.get_mut(&number)
                    && *receives == delivery
                {
                    *until = Some(Instant::now() + hold);
                }
            }
            Ok(())
        })
    }
}
