//! A line of the HTTP receiver's spool: a record that was received, made anonymous and made durable.
//!
//! Stands between `source::http`, which writes such lines, and intake, which follows the spool's files
//! like any other. A line holds what bronze holds of a record and what cannot be read again from its
//! payload: when it came, what the address told before it was cut, the request's user agent, and by
//! how much the sender's clock is wrong. A record that was refused has a line too, without its bytes.
//!
//! ```text
//! {"format":"cmcd","received_at_ms":1790000000000,"client_prefix":"203.0.113.0","payload":"e=ps,..."}
//! {"format":"cmcd","received_at_ms":1790000000000,"reject":"bad_value","detail":"...","size_bytes":9}
//! ```
//!
//! Invariant: a line is one line: whatever a payload holds, it is written as a JSON text.
//! Invariant: only what `privacy` returned is written, so a line never holds a full client address.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{DecodeContext, Decoded, Decoder, Format};
use crate::event::{CLOCK_SHIFTED, Network, PlayerEvent, Reject, RejectReason};
use crate::privacy::AnonymousEvent;

/// Refused records are named by a format too; one whose dialect nobody knows has this name.
pub const NO_FORMAT: &str = "unknown";

/// A record as the receiver took it, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Spooled {
    pub format: Format,
    pub event: AnonymousEvent,
    pub received_at_ms: i64,
    /// Added to the event's time because the sender's clock is wrong; 0 = it is right.
    pub shift_ms: i64,
    /// The event has its user agent from the request, not from its payload.
    pub has_user_agent_of_request: bool,
}

/// A record that the receiver refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The dialect that refused it; `None` if no dialect knows it.
    pub format: Option<Format>,
    pub reject: Reject,
    pub received_at_ms: i64,
    pub size_bytes: i64,
}

/// What a line was written from, for intake.
#[derive(Debug, Clone, PartialEq)]
pub enum Unspooled {
    Event {
        /// With its network and `client_prefix` set and no address, so that nothing is looked up again.
        event: Box<PlayerEvent>,
        /// What `payload` is written in: the format of its bronze row.
        format: Format,
        received_at_ms: i64,
    },
    Refused(Refused),
}

/// The members of a line.
#[derive(Serialize, Deserialize)]
struct Members<'a> {
    format: Cow<'a, str>,
    received_at_ms: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    shift_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_prefix: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    city: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asn: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isp: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reject: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size_bytes: Option<i64>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn borrowed(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| Cow::Borrowed(text.as_str()))
}

fn owned(text: Option<Cow<'_, str>>) -> Option<String> {
    text.map(Cow::into_owned)
}

impl Spooled {
    /// One line of JSON, without its line feed.
    pub fn to_line(&self) -> String {
        let (event, network) = (&self.event, &self.event.network);
        let user_agent = event.user_agent.as_ref().filter(|_| self.has_user_agent_of_request);
        line_of(&Members {
            format: Cow::Borrowed(self.format.as_str()),
            received_at_ms: self.received_at_ms,
            shift_ms: self.shift_ms,
            client_prefix: borrowed(event.client_prefix.as_ref()),
            user_agent: borrowed(user_agent),
            country: borrowed(network.country.as_ref()),
            region: borrowed(network.region.as_ref()),
            city: borrowed(network.city.as_ref()),
            asn: network.asn,
            isp: borrowed(network.isp.as_ref()),
            payload: Some(Cow::Borrowed(&event.payload)),
            reject: None,
            detail: None,
            size_bytes: None,
        })
    }
}

impl Refused {
    /// One line of JSON, without its line feed.
    pub fn to_line(&self) -> String {
        line_of(&Members {
            format: Cow::Borrowed(self.format.map_or(NO_FORMAT, Format::as_str)),
            received_at_ms: self.received_at_ms,
            shift_ms: 0,
            client_prefix: None,
            user_agent: None,
            country: None,
            region: None,
            city: None,
            asn: None,
            isp: None,
            payload: None,
            reject: Some(Cow::Borrowed(self.reject.reason.as_str())),
            detail: Some(Cow::Borrowed(&self.reject.detail)),
            size_bytes: Some(self.size_bytes),
        })
    }
}

fn line_of(members: &Members<'_>) -> String {
    serde_json::to_string(members).expect("texts and numbers are always JSON")
}

/// Reads one line of the spool.
///
/// The record is decoded as it was when it came: `received_at_ms` is its present.
///
/// # Errors
/// The line was not written by `to_line`, or is damaged.
pub fn decode(line: &str) -> Result<Unspooled, Reject> {
    let members: Members<'_> = serde_json::from_str(line).map_err(|error| damaged(RejectReason::MalformedJson, error.column()))?;
    let format = Format::parse(&members.format);
    if let Some(name) = &members.reject {
        let reason = RejectReason::parse(name).unwrap_or(RejectReason::BadValue);
        let detail = owned(members.detail).unwrap_or_default();
        return Ok(Unspooled::Refused(Refused {
            format,
            reject: Reject { reason, detail },
            received_at_ms: members.received_at_ms,
            size_bytes: members.size_bytes.unwrap_or_default(),
        }));
    }
    let (Some(format), Some(payload)) = (format, members.payload.as_deref()) else {
        return Err(damaged(RejectReason::UnknownFormat, line.len()));
    };
    let received_at_ms = members.received_at_ms;
    match decode_payload(format, payload, received_at_ms) {
        Ok(mut event) => {
            restore(&mut event, members);
            Ok(Unspooled::Event {
                event,
                format,
                received_at_ms,
            })
        }
        Err(reject) => Ok(Unspooled::Refused(Refused {
            format: Some(format),
            reject,
            received_at_ms,
            size_bytes: i64::try_from(payload.len()).unwrap_or(i64::MAX),
        })),
    }
}

/// The receiver has decoded this payload once; it is refused here only if the line was tampered with,
/// or was written by a release that read more.
fn decode_payload(format: Format, payload: &str, received_at_ms: i64) -> Result<Box<PlayerEvent>, Reject> {
    let context = DecodeContext { now_ms: received_at_ms };
    match Decoder::new(format).decode(payload.as_bytes(), &context)? {
        Decoded::Player(event) => Ok(event),
        _ => Err(Reject {
            reason: RejectReason::UnknownFormat,
            detail: format!("the spool holds player events only, and this is a record of {}", format.as_str()),
        }),
    }
}

/// What the payload does not tell: taken from the line, whatever the payload says of it.
fn restore(event: &mut PlayerEvent, members: Members<'_>) {
    event.client_address = None;
    event.client_prefix = owned(members.client_prefix);
    event.network = Network {
        country: owned(members.country),
        region: owned(members.region),
        city: owned(members.city),
        asn: members.asn,
        isp: owned(members.isp),
    };
    if event.user_agent.is_none() {
        event.user_agent = owned(members.user_agent);
    }
    if members.shift_ms != 0 {
        event.event_ts_ms = event.event_ts_ms.saturating_add(members.shift_ms);
        event.dq_flags.push(CLOCK_SHIFTED);
    }
}

fn damaged(reason: RejectReason, column: usize) -> Reject {
    let detail = format!("not a line of the spool, at column {column}; the file was changed by another program or is damaged");
    Reject { reason, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Device;
    use crate::privacy::{IdentityPolicy, Privacy};

    const NOW_MS: i64 = 1_790_000_000_000;
    const RECORD: &str = r#"{"MetricType":"STREAM","TimeStamp":1789999990000,"user_id":"u1","video_id":"v","ip":"203.0.113.77"}"#;

    fn privacy() -> Privacy {
        Privacy::new(IdentityPolicy::Pseudonym, [7; 32])
    }

    fn event_of(record: &str) -> PlayerEvent {
        let context = DecodeContext { now_ms: NOW_MS };
        let Ok(Decoded::Player(mut event)) = Decoder::new(Format::Reference).decode(record.as_bytes(), &context) else {
            panic!("{record}");
        };
        event.client_address = Some("203.0.113.77".to_owned());
        event.user_agent = Some("Player/1 on 203.0.113.77".to_owned());
        event.network = Network {
            country: Some("GB".to_owned()),
            region: None,
            city: Some("London \"City\"\n".to_owned()),
            asn: Some(64_500),
            isp: Some("Example Cable".to_owned()),
        };
        *event
    }

    fn spooled(record: &str, shift_ms: i64) -> Spooled {
        Spooled {
            format: Format::Reference,
            event: privacy().anonymise(event_of(record)),
            received_at_ms: NOW_MS,
            shift_ms,
            has_user_agent_of_request: true,
        }
    }

    fn event_of_line(line: &str) -> PlayerEvent {
        match decode(line) {
            Ok(Unspooled::Event {
                event,
                format,
                received_at_ms,
            }) => {
                assert_eq!((format, received_at_ms), (Format::Reference, NOW_MS));
                *event
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was_stored_and_is_anonymised_to_itself() {
        let spooled = spooled(RECORD, 0);
        let line = spooled.to_line();
        assert!(
            !line.contains('\n') && !line.contains("203.0.113.77") && !line.contains("u1"),
            "{line}"
        );
        let event = event_of_line(&line);
        assert_eq!(event.network, spooled.event.network);
        assert_eq!(
            (event.client_address.as_deref(), event.client_prefix.as_deref()),
            (None, Some("203.0.113.0"))
        );
        assert_eq!(event.user_agent.as_deref(), Some("Player/1 on 203.0.113.0"));
        assert_eq!(event.device, Device::default(), "enrich tells it again");
        assert_eq!(privacy().anonymise(event), spooled.event);
    }

    #[test]
    fn a_wrong_clock_moves_the_event_and_nothing_else() {
        for shift_ms in [3_600_000, -7_200_000] {
            let event = event_of_line(&spooled(RECORD, shift_ms).to_line());
            assert_eq!(event.event_ts_ms, 1_789_999_990_000 + shift_ms);
            assert_eq!(event.event_ts_raw, Some(1_789_999_990_000));
            assert_eq!(event.dq_flags.last(), Some(&CLOCK_SHIFTED));
            let unmoved = privacy().anonymise(event_of_line(&spooled(RECORD, 0).to_line()));
            assert_eq!(privacy().anonymise(event).event_id, unmoved.event_id, "a repeat is known by its id");
        }
    }

    #[test]
    fn a_user_agent_of_the_record_itself_is_not_written_twice_and_wins() {
        let mut stored = spooled(RECORD, 0);
        stored.has_user_agent_of_request = false;
        assert!(!stored.to_line().contains("user_agent"));
        let own = r#"{"MetricType":"STREAM","TimeStamp":1789999990000,"user_agent":"Own/2"}"#;
        let line = spooled(own, 0).to_line().replace("Player/1", "Other/3");
        assert_eq!(event_of_line(&line).user_agent.as_deref(), Some("Own/2"));
    }

    #[test]
    fn a_refusal_comes_back_with_its_reason_and_without_its_bytes() {
        for format in [None, Some(Format::Reference)] {
            for reason in RejectReason::ALL {
                let refused = Refused {
                    format,
                    reject: Reject {
                        reason,
                        detail: "the \"detail\"\nof it".to_owned(),
                    },
                    received_at_ms: NOW_MS,
                    size_bytes: 17,
                };
                let line = refused.to_line();
                assert!(!line.contains('\n'));
                assert_eq!(decode(&line), Ok(Unspooled::Refused(refused)));
            }
        }
    }

    #[test]
    fn a_payload_that_cannot_be_read_any_more_is_a_refusal_at_its_time() {
        let line = spooled(RECORD, 0).to_line().replace("1789999990000", "1");
        let Ok(Unspooled::Refused(refused)) = decode(&line) else {
            panic!("{line}")
        };
        assert_eq!(refused.reject.reason, RejectReason::EventTimeOutOfRange);
        assert_eq!(refused.received_at_ms, NOW_MS);
    }

    #[test]
    fn a_line_that_is_none_of_ours_is_refused() {
        let check = |line: &str, reason: RejectReason| {
            assert_eq!(decode(line).unwrap_err().reason, reason, "{line}");
        };
        check("", RejectReason::MalformedJson);
        check(RECORD, RejectReason::MalformedJson);
        check(r#"{"format":"reference","received_at_ms":1"#, RejectReason::MalformedJson);
        check(r#"{"format":"reference","received_at_ms":1}"#, RejectReason::UnknownFormat);
        check(
            r#"{"format":"unknown","received_at_ms":1,"payload":"x"}"#,
            RejectReason::UnknownFormat,
        );
    }

    #[test]
    fn a_line_within_a_line_is_not_unpacked() {
        let inner = spooled(RECORD, 0).to_line();
        let text = serde_json::to_string(&inner).unwrap();
        let line = format!(r#"{{"format":"spooled","received_at_ms":{NOW_MS},"payload":{text}}}"#);
        let Ok(Unspooled::Refused(refused)) = decode(&line) else {
            panic!("{line}")
        };
        assert_eq!(refused.reject.reason, RejectReason::UnknownFormat);
    }
}
