//! A stream of Kinesis in this process, for tests: JSON 1.1 over HTTP, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::runtime::Handle;

#[derive(Debug, Clone)]
pub enum Fault {
    /// An answer of 400 with this type.
    Refuse(&'static str),
    Fail500,
    Slow(Duration),
}

#[derive(Debug, Clone)]
pub struct StubRecord {
    pub sequence: u64,
    pub key: String,
    pub data: Vec<u8>,
    pub arrived_ms: i64,
}

#[derive(Debug, Default)]
struct StubShard {
    parents: Vec<String>,
    records: Vec<StubRecord>,
    is_closed: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub target: String,
    pub shard: String,
    /// Kind of iterator that was asked for.
    pub detail: String,
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Stream {
    is_missing: bool,
    shards: BTreeMap<String, StubShard>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    calls: Vec<Call>,
    /// Iterators of an earlier generation are expired.
    generation: u64,
    next_sequence: u64,
    records_per_read: Option<usize>,
}

#[derive(Clone)]
pub struct Stub {
    stream: Arc<Mutex<Stream>>,
    pub url: String,
}

impl Stub {
    pub fn start(handle: &Handle) -> Stub {
        let stream = Arc::new(Mutex::new(Stream {
            next_sequence: 9_999,
            ..Stream::default()
        }));
        let listener = handle.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&stream));
        handle.spawn(async move { axum::serve(listener, app).await });
        Stub { stream, url }
    }

    pub fn shard(&self, id: &str, parents: &[&str]) {
        let mut stream = self.stream.lock().unwrap();
        for parent in parents {
            if let Some(parent) = stream.shards.get_mut(*parent) {
                parent.is_closed = true;
            }
        }
        let parents = parents.iter().map(|parent| (*parent).to_owned()).collect();
        stream.shards.entry(id.to_owned()).or_default().parents = parents;
    }

    pub fn put(&self, shard: &str, data: impl AsRef<[u8]>) {
        self.put_at(shard, data, 1_700_000_000_000);
    }

    pub fn put_at(&self, shard: &str, data: impl AsRef<[u8]>, arrived_ms: i64) {
        let mut stream = self.stream.lock().unwrap();
        stream.next_sequence += 1;
        let record = StubRecord {
            sequence: stream.next_sequence,
            key: "viewer".to_owned(),
            data: data.as_ref().to_vec(),
            arrived_ms,
        };
        stream.shards.get_mut(shard).unwrap().records.push(record);
    }

    /// Retention takes the whole shard.
    pub fn remove(&self, shard: &str) {
        self.stream.lock().unwrap().shards.remove(shard);
    }

    pub fn set_missing(&self, is_missing: bool) {
        self.stream.lock().unwrap().is_missing = is_missing;
    }

    pub fn set_records_per_read(&self, records: usize) {
        self.stream.lock().unwrap().records_per_read = Some(records);
    }

    pub fn expire_iterators(&self) {
        self.stream.lock().unwrap().generation += 1;
    }

    /// The next calls of a kind fail so.
    pub fn fail(&self, target: &str, fault: &Fault, times: usize) {
        let mut stream = self.stream.lock().unwrap();
        let faults = stream.faults.entry(target.to_owned()).or_default();
        faults.extend(std::iter::repeat_n(fault.clone(), times));
    }

    pub fn calls(&self, target: &str) -> Vec<Call> {
        let stream = self.stream.lock().unwrap();
        stream.calls.iter().filter(|call| call.target == target).cloned().collect()
    }
}

async fn answer(State(stream): State<Arc<Mutex<Stream>>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default();
    let target = target.rsplit('.').next().unwrap_or_default().to_owned();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let fault = {
        let mut stream = stream.lock().unwrap();
        let iterator = text(&asked, "ShardIterator");
        let shard = iterator.split('|').next().filter(|shard| !shard.is_empty());
        let call = Call {
            target: target.clone(),
            shard: shard.map_or_else(|| text(&asked, "ShardId"), str::to_owned),
            detail: text(&asked, "ShardIteratorType"),
            at: Instant::now(),
        };
        stream.calls.push(call);
        stream.faults.get_mut(&target).and_then(VecDeque::pop_front)
    };
    match fault {
        Some(Fault::Refuse(kind)) => return refuse(kind),
        Some(Fault::Fail500) => return (StatusCode::INTERNAL_SERVER_ERROR, r#"{"__type":"InternalFailure"}"#).into_response(),
        Some(Fault::Slow(wait)) => tokio::time::sleep(wait).await,
        None => {}
    }
    let stream = stream.lock().unwrap();
    let done = match target.as_str() {
        _ if stream.is_missing => Err("ResourceNotFoundException"),
        "ListShards" => Ok(list_shards(&stream)),
        "GetShardIterator" => iterator(&stream, &asked),
        "GetRecords" => get_records(&stream, &asked),
        _ => Err("UnknownOperationException"),
    };
    match done {
        Ok(value) => ([("content-type", "application/x-amz-json-1.1")], value.to_string()).into_response(),
        Err(kind) => refuse(kind),
    }
}

fn refuse(kind: &str) -> Response {
    let body = json!({ "__type": kind, "message": "because the test said so" });
    (
        StatusCode::BAD_REQUEST,
        [("content-type", "application/x-amz-json-1.1")],
        body.to_string(),
    )
        .into_response()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn list_shards(stream: &Stream) -> Value {
    let shard = |(id, shard): (&String, &StubShard)| {
        json!({
            "ShardId": id,
            "ParentShardId": shard.parents.first(),
            "AdjacentParentShardId": shard.parents.get(1),
            "HashKeyRange": { "StartingHashKey": "0", "EndingHashKey": "1" },
            "SequenceNumberRange": { "StartingSequenceNumber": "1" },
        })
    };
    json!({ "Shards": stream.shards.iter().map(shard).collect::<Vec<_>>() })
}

fn iterator(stream: &Stream, asked: &Value) -> Result<Value, &'static str> {
    let id = text(asked, "ShardId");
    let records = &stream.shards.get(&id).ok_or("ResourceNotFoundException")?.records;
    let first = match text(asked, "ShardIteratorType").as_str() {
        "TRIM_HORIZON" => 0,
        "AT_TIMESTAMP" => {
            let at_ms = asked["Timestamp"].as_f64().unwrap_or_default() * 1_000.0;
            records
                .iter()
                .position(|record| record.arrived_ms as f64 >= at_ms)
                .unwrap_or(records.len())
        }
        "AFTER_SEQUENCE_NUMBER" => {
            let sequence: u64 = text(asked, "StartingSequenceNumber")
                .parse()
                .map_err(|_| "InvalidArgumentException")?;
            let found = records.iter().position(|record| record.sequence == sequence);
            found.ok_or("InvalidArgumentException")? + 1
        }
        _ => return Err("InvalidArgumentException"),
    };
    Ok(json!({ "ShardIterator": format!("{id}|{first}|{}", stream.generation) }))
}

fn get_records(stream: &Stream, asked: &Value) -> Result<Value, &'static str> {
    let iterator = text(asked, "ShardIterator");
    let mut parts = iterator.split('|');
    let id = parts.next().unwrap_or_default();
    let first: usize = parts
        .next()
        .and_then(|first| first.parse().ok())
        .ok_or("InvalidArgumentException")?;
    if parts.next() != Some(&stream.generation.to_string()) {
        return Err("ExpiredIteratorException");
    }
    let shard = stream.shards.get(id).ok_or("ResourceNotFoundException")?;
    let count = stream.records_per_read.unwrap_or(10_000);
    let given: Vec<&StubRecord> = shard.records.iter().skip(first).take(count).collect();
    let next = first + given.len();
    let is_end = shard.is_closed && next == shard.records.len();
    let records = given.iter().map(|record| {
        json!({
            "SequenceNumber": record.sequence.to_string(),
            "PartitionKey": record.key,
            "ApproximateArrivalTimestamp": record.arrived_ms as f64 / 1_000.0,
            "Data": base64(&record.data),
        })
    });
    Ok(json!({
        "Records": records.collect::<Vec<_>>(),
        "NextShardIterator": (!is_end).then(|| format!("{id}|{next}|{}", stream.generation)),
        "MillisBehindLatest": 1_000 * (shard.records.len() - next),
    }))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let whole = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let letter = LETTERS[(whole >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
