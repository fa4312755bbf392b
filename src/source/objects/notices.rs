//! What a message of the queue says: which objects were created.
//!
//! Serves the objects source. S3 sends its events to a queue itself, through a topic (wrapped in an SNS
//! envelope), or through EventBridge; all three are read.
//!
//! Source: Amazon S3 user guide, "Event message structure"; keys in it are URL-encoded with a plus for
//! a blank, those of EventBridge are not encoded.
//! Invariant: any bytes give notices or an error, never a panic.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// Envelopes within envelopes that are opened: a topic that feeds a topic.
const ENVELOPES_MAX: usize = 3;

/// An object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub bucket: String,
    pub key: String,
    /// Without quotes; events of restored or copied objects may lack it.
    pub e_tag: Option<String>,
    pub size_bytes: Option<u64>,
}

/// A message that no object can be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is no S3 event")]
pub struct NoEvent;

/// The objects that a message names. A test event and events of other kinds name none.
///
/// # Errors
/// The message is no event of S3.
pub fn parse(body: &str) -> Result<Vec<Notice>, NoEvent> {
    let mut body = Cow::Borrowed(body);
    for _ in 0..ENVELOPES_MAX {
        let message: Message = serde_json::from_str(&body).map_err(|_| NoEvent)?;
        match message {
            Message {
                records: Some(records), ..
            } => return records.into_iter().filter(Record::is_creation).map(Record::notice).collect(),
            Message { event: Some(event), .. } if event == "s3:TestEvent" => return Ok(Vec::new()),
            Message {
                kind: Some(kind), detail, ..
            } => return from_bridge(&kind, detail),
            Message { message: Some(inner), .. } => body = Cow::Owned(inner),
            _ => return Err(NoEvent),
        }
    }
    Err(NoEvent)
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    #[serde(rename = "Event")]
    event: Option<String>,
    /// The envelope of a topic.
    #[serde(rename = "Message")]
    message: Option<String>,
    /// The envelope of EventBridge.
    #[serde(rename = "detail-type")]
    kind: Option<String>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName", default)]
    event_name: String,
    s3: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Named,
    object: Created,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Created {
    key: String,
    #[serde(rename = "eTag", alias = "etag")]
    e_tag: Option<String>,
    size: Option<u64>,
}

impl Record {
    fn is_creation(&self) -> bool {
        // Older forms of events carry the service's name before the event's.
        self.event_name.trim_start_matches("s3:").starts_with("ObjectCreated:")
    }

    fn notice(self) -> Result<Notice, NoEvent> {
        let detail = self.s3.ok_or(NoEvent)?;
        let key = decoded_key(&detail.object.key)?;
        Ok(notice(detail, key))
    }
}

fn from_bridge(kind: &str, detail: Option<Detail>) -> Result<Vec<Notice>, NoEvent> {
    if kind != "Object Created" {
        return Ok(Vec::new());
    }
    let detail = detail.ok_or(NoEvent)?;
    let key = detail.object.key.clone();
    Ok(vec![notice(detail, key)])
}

fn notice(detail: Detail, key: String) -> Notice {
    Notice {
        bucket: detail.bucket.name,
        key,
        e_tag: detail.object.e_tag.map(|tag| super::store::bare_tag(&tag).to_string()),
        size_bytes: detail.object.size,
    }
}

/// Real S3 leaves a slash as it is and writes a blank as `+`; others encode the slash as well.
fn decoded_key(key: &str) -> Result<String, NoEvent> {
    let blanks = key.replace('+', " ");
    let decoded = percent_decode_str(&blanks).decode_utf8().map_err(|_| NoEvent)?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(names: &[(&str, &str)]) -> String {
        let records: Vec<serde_json::Value> = names
            .iter()
            .map(|(name, key)| {
                serde_json::json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
                    "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "logs", "arn": "arn:aws:s3:::logs"},
                           "object": {"key": key, "size": 12, "eTag": "abc", "sequencer": "00"}}})
            })
            .collect();
        serde_json::json!({ "Records": records }).to_string()
    }

    fn check(body: &str, expected: Result<&[&str], NoEvent>) {
        let got = parse(body).map(|notices| notices.into_iter().map(|notice| notice.key).collect::<Vec<_>>());
        let expected = expected.map(|keys| keys.iter().map(|key| (*key).to_string()).collect::<Vec<_>>());
        assert_eq!(got, expected, "{body}");
    }

    #[test]
    fn a_message_may_name_several_objects() {
        let body = event(&[
            ("ObjectCreated:Put", "a.gz"),
            ("ObjectRemoved:Delete", "b.gz"),
            ("ObjectCreated:Copy", "c.gz"),
        ]);
        check(&body, Ok(&["a.gz", "c.gz"]));
        let notice = parse(&body).expect("an event").remove(0);
        assert_eq!(
            (notice.bucket.as_str(), notice.e_tag.as_deref(), notice.size_bytes),
            ("logs", Some("abc"), Some(12))
        );
    }

    #[test]
    fn keys_are_decoded_whichever_way_they_are_written() {
        for (written, key) in [
            ("in/new+file%2B1.json", "in/new file+1.json"),
            ("in%2Fnew%20file.json", "in/new file.json"),
            ("dt%3D2026/%C3%BC.gz", "dt=2026/ü.gz"),
        ] {
            check(&event(&[("ObjectCreated:Put", written)]), Ok(&[key]));
        }
        check(&event(&[("ObjectCreated:Put", "%ff")]), Err(NoEvent));
    }

    #[test]
    fn envelopes_of_topics_are_opened() {
        let inner = event(&[("ObjectCreated:Put", "a")]);
        let wrapped = serde_json::json!({"Type": "Notification", "TopicArn": "arn:t", "Message": inner}).to_string();
        check(&wrapped, Ok(&["a"]));
        let twice = serde_json::json!({"Type": "Notification", "Message": wrapped}).to_string();
        check(&twice, Ok(&["a"]));
    }

    #[test]
    fn events_of_the_bridge_are_read_with_their_keys_as_they_are() {
        let body = |kind: &str| {
            serde_json::json!({"detail-type": kind, "source": "aws.s3",
                "detail": {"bucket": {"name": "logs"}, "object": {"key": "a+b%2F", "size": 1, "etag": "x"}}})
            .to_string()
        };
        check(&body("Object Created"), Ok(&["a+b%2F"]));
        check(&body("Object Deleted"), Ok(&[]));
    }

    #[test]
    fn what_names_no_object_is_told_from_what_is_no_event() {
        check(
            r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"t","Bucket":"logs"}"#,
            Ok(&[]),
        );
        check(&event(&[]), Ok(&[]));
        for body in [
            "",
            "hello",
            "{}",
            "[]",
            r#"{"Message":"hello"}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put"}]}"#,
        ] {
            check(body, Err(NoEvent));
        }
        let mut nested = event(&[("ObjectCreated:Put", "a")]);
        for _ in 0..ENVELOPES_MAX {
            nested = serde_json::json!({ "Message": nested }).to_string();
        }
        check(&nested, Err(NoEvent));
    }
}
