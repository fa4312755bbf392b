//! The fakes of AWS as a test speaks to them: streams of Kinesis, objects of S3, queues of SQS, all by
//! plain requests.
//!
//! Invariant: a request that is refused fails the test; nothing is sent twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http_client::{self, Answer};
use crate::services::Service;
use crate::support::Bench;

/// How long a change of a stream may take.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Records of one request: Kinesis takes 500, kinesis-local is slow with many.
const RECORDS_PER_REQUEST: usize = 100;
/// The account of moto.
const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "us-east-1";

/// A bench whose daemon may speak to the fakes.
pub fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.set_variable("AWS_ACCESS_KEY_ID", "test");
    bench.set_variable("AWS_SECRET_ACCESS_KEY", "test");
    bench.set_variable("AWS_REGION", REGION);
    bench
}

pub fn socket_address(service: &Service) -> SocketAddr {
    let address = service.address().trim_start_matches("http://");
    address.parse().expect("the script prints a socket address")
}

/// The fakes look at the form of a signature and at the service that it names, not at its value.
fn signature(service: &str) -> String {
    format!("AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host;x-amz-date, Signature=00")
}

// ---- Kinesis ----

/// A stream of kinesalite or kinesis-local.
pub struct Stream {
    address: SocketAddr,
    name: String,
}

/// A part of a stream, with the first and the last of the hashes of its keys.
#[derive(Debug, Clone)]
pub struct Shard {
    pub id: String,
    first_hash: u128,
    last_hash: u128,
    pub is_open: bool,
}

impl Stream {
    /// Makes a stream and waits until it can be written.
    #[track_caller]
    pub fn create(service: &Service, name: &str, shards: u32) -> Stream {
        let stream = Stream {
            address: socket_address(service),
            name: name.to_string(),
        };
        stream.call("CreateStream", json!({"ShardCount": shards}));
        stream.wait_until_active();
        stream
    }

    /// Sends lines by their session, in order.
    #[track_caller]
    pub fn send(&self, lines: &[String]) {
        for lines in lines.chunks(RECORDS_PER_REQUEST) {
            let records: Vec<Value> = lines
                .iter()
                .map(|line| json!({"Data": base64(line.as_bytes()), "PartitionKey": session_of(line)}))
                .collect();
            let answer = self.call("PutRecords", json!({"Records": records}));
            assert_eq!(answer["FailedRecordCount"], 0, "{answer}");
        }
    }

    /// Splits an open shard in two halves.
    #[track_caller]
    pub fn split(&self, shard: &Shard) {
        let middle = shard.first_hash + (shard.last_hash - shard.first_hash) / 2 + 1;
        self.call(
            "SplitShard",
            json!({"ShardToSplit": shard.id, "NewStartingHashKey": middle.to_string()}),
        );
        self.wait_until_active();
    }

    /// Makes one of two open shards that lie side by side.
    #[track_caller]
    pub fn merge(&self, first: &Shard, second: &Shard) {
        assert_eq!(first.last_hash.wrapping_add(1), second.first_hash, "they do not lie side by side");
        self.call("MergeShards", json!({"ShardToMerge": first.id, "AdjacentShardToMerge": second.id}));
        self.wait_until_active();
    }

    /// Open shards in the order of their hashes.
    #[track_caller]
    pub fn open_shards(&self) -> Vec<Shard> {
        let mut shards = shards_in(&self.describe());
        shards.retain(|shard| shard.is_open);
        shards.sort_by_key(|shard| shard.first_hash);
        shards
    }

    fn describe(&self) -> Value {
        self.call("DescribeStream", json!({}))["StreamDescription"].clone()
    }

    #[track_caller]
    fn wait_until_active(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let described = self.describe();
            if described["StreamStatus"] == "ACTIVE" {
                return;
            }
            assert!(Instant::now() < deadline, "the stream does not become active: {described}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[track_caller]
    fn call(&self, action: &str, mut body: Value) -> Value {
        body["StreamName"] = json!(self.name);
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &format!("Kinesis_20131202.{action}")),
            ("x-amz-date", "20260101T000000Z"),
            ("authorization", &signature("kinesis")),
        ];
        let answer = http_client::post(self.address, "/", &headers, body.to_string());
        assert_eq!(answer.status, 200, "{action}: {answer:?}");
        match answer.body.is_empty() {
            true => Value::Null,
            false => answer.json(),
        }
    }
}

fn shards_in(described: &Value) -> Vec<Shard> {
    let hash = |value: &Value| -> u128 { value.as_str().and_then(|text| text.parse().ok()).expect("a hash is a number") };
    let shards = described["Shards"].as_array().expect("a stream has shards");
    let shard = |shard: &Value| Shard {
        id: shard["ShardId"].as_str().expect("a shard has a name").to_string(),
        first_hash: hash(&shard["HashKeyRange"]["StartingHashKey"]),
        last_hash: hash(&shard["HashKeyRange"]["EndingHashKey"]),
        is_open: shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null(),
    };
    shards.iter().map(shard).collect()
}

/// What keeps the events of a player together.
fn session_of(line: &str) -> String {
    let record: Value = serde_json::from_str(line).expect("the simulation writes JSON");
    let session = ["session_id", "user_id"].iter().find_map(|name| record[name].as_str());
    session.unwrap_or("nobody").to_string()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let is_padding = digit > three.len();
            text.push(if is_padding { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

// ---- S3 ----

/// A bucket of moto.
pub struct Bucket {
    address: SocketAddr,
    name: String,
}

impl Bucket {
    #[track_caller]
    pub fn create(service: &Service, name: &str) -> Bucket {
        let bucket = Bucket {
            address: socket_address(service),
            name: name.to_string(),
        };
        bucket.request("PUT", "", b"");
        bucket
    }

    #[track_caller]
    pub fn put(&self, key: &str, body: &[u8]) {
        self.request("PUT", &format!("/{}", encoded(key)), body);
    }

    /// Keys below a prefix, at most a thousand.
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.request("GET", &format!("?list-type=2&prefix={prefix}"), b"");
        let keys = answer.body.split("<Key>").skip(1);
        keys.filter_map(|rest| rest.split_once("</Key>"))
            .map(|(key, _)| key.to_string())
            .collect()
    }

    /// From now on every new object is announced in the queue.
    #[track_caller]
    pub fn announce_in(&self, queue: &Queue) {
        let configuration = format!(
            "<NotificationConfiguration><QueueConfiguration><Id>new</Id><Queue>arn:aws:sqs:{REGION}:{ACCOUNT}:{}</Queue>\
             <Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>",
            queue.name
        );
        self.request("PUT", "?notification", configuration.as_bytes());
    }

    #[track_caller]
    fn request(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        let target = format!("/{}{target}", self.name);
        let signature = signature("s3");
        let answer = http_client::request(self.address, method, &target, &[("authorization", &signature)], body);
        assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
        answer
    }
}

/// A key as it stands in an address; what else addresses cannot hold no test uses.
fn encoded(key: &str) -> String {
    key.replace(' ', "%20").replace('+', "%2B")
}

// ---- SQS ----

/// A queue of moto.
pub struct Queue {
    address: SocketAddr,
    name: String,
}

impl Queue {
    #[track_caller]
    pub fn create(service: &Service, name: &str) -> Queue {
        let queue = Queue {
            address: socket_address(service),
            name: name.to_string(),
        };
        queue.call("CreateQueue", &json!({"QueueName": name}));
        queue
    }

    pub fn url(&self) -> String {
        format!("http://{}/{ACCOUNT}/{}", self.address, self.name)
    }

    /// The announcement of an object as S3 writes it, whether or not it was announced before.
    #[track_caller]
    pub fn announce(&self, bucket: &Bucket, key: &str) {
        let record = json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": bucket.name}, "object": {"key": key}}});
        let body = json!({"Records": [record]}).to_string();
        self.call("SendMessage", &json!({"QueueUrl": self.url(), "MessageBody": body}));
    }

    /// Messages that nobody has deleted, held back or not.
    #[track_caller]
    pub fn messages(&self) -> u64 {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let answer = self.call("GetQueueAttributes", &json!({"QueueUrl": self.url(), "AttributeNames": names}));
        let count = |name: &str| -> u64 {
            let text = answer["Attributes"][name].as_str();
            text.and_then(|text| text.parse().ok()).expect("a count")
        };
        names.into_iter().map(count).sum()
    }

    #[track_caller]
    fn call(&self, action: &str, body: &Value) -> Value {
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", &format!("AmazonSQS.{action}")),
            ("authorization", &signature("sqs")),
        ];
        let answer = http_client::post(self.address, "/", &headers, body.to_string());
        assert_eq!(answer.status, 200, "{action}: {answer:?}");
        answer.json()
    }
}

// ---- SNS ----

/// A topic of moto; a name that ends in `.fifo` makes it, and its queues, FIFO.
pub struct Topic {
    address: SocketAddr,
    name: String,
}

/// A message as a queue behind a topic has it.
#[derive(Debug, Clone)]
pub struct Received {
    pub body: String,
    /// Attributes by name, all texts.
    pub attributes: BTreeMap<String, String>,
    /// Of a FIFO queue: the group.
    pub group: Option<String>,
}

impl Topic {
    #[track_caller]
    pub fn create(service: &Service, name: &str) -> Topic {
        let topic = Topic {
            address: socket_address(service),
            name: name.to_string(),
        };
        let mut fields = vec![("Name", name)];
        if topic.is_fifo() {
            fields.extend([("Attributes.entry.1.key", "FifoTopic"), ("Attributes.entry.1.value", "true")]);
        }
        topic.call("CreateTopic", &fields);
        topic
    }

    pub fn arn(&self) -> String {
        format!("arn:aws:sns:{REGION}:{ACCOUNT}:{}", self.name)
    }

    fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }

    /// A queue that gets the messages whose attributes pass the filter, as they were sent (raw).
    #[track_caller]
    pub fn queue(&self, name: &str, filter: Option<Value>) -> Queue {
        let queue = Queue {
            address: self.address,
            name: name.to_string(),
        };
        let attributes = if self.is_fifo() { json!({"FifoQueue": "true"}) } else { json!({}) };
        queue.call("CreateQueue", &json!({"QueueName": name, "Attributes": attributes}));
        let (arn, endpoint) = (self.arn(), format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"));
        let filter = filter.map(|filter| filter.to_string());
        let mut fields = vec![
            ("TopicArn", arn.as_str()),
            ("Protocol", "sqs"),
            ("Endpoint", endpoint.as_str()),
            ("Attributes.entry.1.key", "RawMessageDelivery"),
            ("Attributes.entry.1.value", "true"),
        ];
        if let Some(filter) = &filter {
            fields.extend([
                ("Attributes.entry.2.key", "FilterPolicy"),
                ("Attributes.entry.2.value", filter.as_str()),
            ]);
        }
        self.call("Subscribe", &fields);
        queue
    }

    #[track_caller]
    fn call(&self, action: &str, fields: &[(&str, &str)]) {
        let mut form = format!("Action={action}&Version=2010-03-31");
        for (name, value) in fields {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            form.push_str(&format!("&{name}={value}"));
        }
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", &signature("sns")),
        ];
        let answer = http_client::post(self.address, "/", &headers, form);
        assert_eq!(answer.status, 200, "{action}: {answer:?}");
    }
}

impl Queue {
    /// Every message that is there, in the order of the queue; they are deleted.
    #[track_caller]
    pub fn take_all(&self) -> Vec<Received> {
        let mut taken = Vec::new();
        loop {
            let answer = self.call(
                "ReceiveMessage",
                &json!({"QueueUrl": self.url(), "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "AttributeNames": ["All"]}),
            );
            let Some(messages) = answer["Messages"].as_array().filter(|messages| !messages.is_empty()) else {
                return taken;
            };
            for message in messages {
                taken.push(received(message));
                self.call(
                    "DeleteMessage",
                    &json!({"QueueUrl": self.url(), "ReceiptHandle": message["ReceiptHandle"]}),
                );
            }
        }
    }
}

fn received(message: &Value) -> Received {
    let text = |value: &Value| value.as_str().map(str::to_string);
    let attributes = message["MessageAttributes"].as_object().into_iter().flatten();
    Received {
        body: text(&message["Body"]).expect("a message has a body"),
        attributes: attributes
            .filter_map(|(name, value)| Some((name.clone(), text(&value["StringValue"])?)))
            .collect(),
        group: text(&message["Attributes"]["MessageGroupId"]),
    }
}

#[test]
fn base64_is_as_the_standard_writes_it() {
    for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob?>", "Zm9vYj8+")] {
        assert_eq!(base64(plain.as_bytes()), coded, "{plain}");
    }
}
