//! What librdkafka is told: our own properties first, the settings' last.
//!
//! Invariant: no setting reaches librdkafka that would break the contract of a source: acknowledging
//! before bronze has committed, moving a position by itself, handing over aborted records.
//! Invariant: an error names a property, never its value: it may be a secret.

use super::KafkaSettings;

/// Smallest `queue_bytes`: a few records of the longest kind.
pub const QUEUE_BYTES_MIN: usize = 8 << 20;
/// Most messages that librdkafka keeps ready: each costs it a few hundred bytes beside its own.
const READY_MESSAGES_MAX: usize = 100_000;
/// Messages are taken to be at least this long when their number is bounded by `queue_bytes`.
const MESSAGE_BYTES_TYPICAL: usize = 512;
/// Pause of fetching once enough is ready. What is ready is taken in less than librdkafka's own second, and
/// the reader then waits: half of a backlog's speed.
const FETCH_BACKOFF_MS: u32 = 20;
/// Largest answer to one fetch, bytes: librdkafka's own default.
const FETCH_BYTES_MAX: usize = 50 << 20;
/// A daemon that was killed is missed after this long, and another one, or itself started again, has its
/// partitions. librdkafka's 45 s are for members that work in the thread that polls; ours does not.
const SESSION_TIMEOUT_MS: u32 = 10_000;
/// How soon new topics and partitions are seen.
const METADATA_REFRESH_MS: &str = "10000";
/// How often librdkafka tells where the logs end: `lag` is as old as that.
const STATISTICS_MS: &str = "1000";

/// Longest pause between two tries to reach a broker: a restarted one is not left waiting.
const RECONNECT_MS_MAX: &str = "2000";

/// Properties that the source sets for its contract, older names of the same thing, and why.
const REFUSED: [(&str, &str); 13] = [
    ("enable.auto.commit", "offsets are committed after the lake has committed"),
    ("auto.commit.enable", "offsets are committed after the lake has committed"),
    ("enable.auto.offset.store", "offsets are committed after the lake has committed"),
    ("offset.store.method", "offsets are committed after the lake has committed"),
    (
        "auto.offset.reset",
        "use the setting `start`; lost offsets are reported, never skipped",
    ),
    ("partition.assignment.strategy", "partitions are handed over cooperatively"),
    ("group.protocol", "partitions are handed over cooperatively"),
    ("isolation.level", "records of aborted transactions are never read"),
    ("enable.partition.eof", "the source does not use it"),
    ("group.id", "use the setting `group`"),
    ("bootstrap.servers", "use the setting `brokers`"),
    ("metadata.broker.list", "use the setting `brokers`"),
    ("statistics.interval.ms", "lag is measured with it"),
];

/// Looks a source's settings over before anything is started.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn validate(settings: &KafkaSettings) -> Result<(), String> {
    for (name, text) in [("brokers", &settings.brokers), ("group", &settings.group)] {
        if text.trim().is_empty() {
            return Err(format!("`{name}` is empty"));
        }
    }
    if settings.topics.is_empty() {
        return Err("`topics` is empty; name topics, or a pattern such as ^player-events-.*".to_string());
    }
    for topic in &settings.topics {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if topic.is_empty() || topic.contains('\0') || !(topic.starts_with('^') || topic.bytes().all(is_plain)) {
            return Err(format!(
                "topic `{}` is no topic's name; a pattern starts with ^",
                topic.escape_debug()
            ));
        }
    }
    if settings.queue_bytes < QUEUE_BYTES_MIN {
        return Err(format!("the queue holds at least {} MiB", QUEUE_BYTES_MIN >> 20));
    }
    for name in settings.properties.keys() {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            return Err(format!("property `{name}` cannot be set: {why}"));
        }
    }
    match settings.properties.iter().find(|(_, value)| value.contains('\0')) {
        Some((name, _)) => Err(format!("property `{name}` holds a zero byte")),
        None => Ok(()),
    }
}

/// Everything that librdkafka is told, in order; what comes later wins.
pub fn of(settings: &KafkaSettings) -> Vec<(String, String)> {
    // Half of the bound is the source's own queue; a quarter librdkafka's, and a fetch may go past it by a quarter.
    let ready_bytes = settings.queue_bytes / 4;
    let ready_messages = (ready_bytes / MESSAGE_BYTES_TYPICAL).clamp(1, READY_MESSAGES_MAX);
    let fetch_bytes = ready_bytes.min(FETCH_BYTES_MAX);
    let own = [
        ("client.id", "playhead".to_string()),
        ("bootstrap.servers", settings.brokers.clone()),
        ("group.id", settings.group.clone()),
        ("partition.assignment.strategy", "cooperative-sticky".to_string()),
        ("isolation.level", "read_committed".to_string()),
        ("session.timeout.ms", SESSION_TIMEOUT_MS.to_string()),
        ("enable.auto.commit", "false".to_string()),
        ("enable.auto.offset.store", "false".to_string()),
        ("auto.offset.reset", "error".to_string()),
        ("allow.auto.create.topics", "false".to_string()),
        ("queued.max.messages.kbytes", (ready_bytes >> 10).to_string()),
        ("queued.min.messages", ready_messages.to_string()),
        ("fetch.max.bytes", fetch_bytes.to_string()),
        ("fetch.queue.backoff.ms", FETCH_BACKOFF_MS.to_string()),
        ("topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS.to_string()),
        ("statistics.interval.ms", STATISTICS_MS.to_string()),
        ("socket.keepalive.enable", "true".to_string()),
        ("reconnect.backoff.max.ms", RECONNECT_MS_MAX.to_string()),
        ("log.connection.close", "false".to_string()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_string(), value));
    own.chain(settings.properties.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kafka::Start;

    fn settings() -> KafkaSettings {
        KafkaSettings {
            name: "events".to_string(),
            brokers: "b:9092".to_string(),
            group: "g".to_string(),
            topics: vec!["player-events".to_string(), "^cdn[.-].*$".to_string()],
            start: Start::Earliest,
            format: None,
            properties: [("sasl.password".to_string(), "secret".to_string())].into(),
            lake_id: "l".to_string(),
            queue_bytes: 64 << 20,
        }
    }

    fn check(change: impl FnOnce(&mut KafkaSettings), expected: Option<&str>) {
        let mut changed = settings();
        change(&mut changed);
        match (validate(&changed), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => assert!(error.contains(expected) && !error.contains("secret"), "{error}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn settings_that_would_break_the_contract_are_refused() {
        check(|_| {}, None);
        check(|s| s.brokers = " ".to_string(), Some("`brokers`"));
        check(|s| s.group = String::new(), Some("`group`"));
        check(|s| s.topics.clear(), Some("`topics`"));
        check(|s| s.topics.push("a b".to_string()), Some("topic `a b`"));
        check(|s| s.topics.push("a/b".to_string()), Some("topic `a/b`"));
        check(|s| s.topics.push(String::new()), Some("topic ``"));
        check(|s| s.queue_bytes = 1 << 20, Some("at least 8 MiB"));
        for (name, _) in REFUSED {
            check(|s| drop(s.properties.insert(name.to_string(), "secret".to_string())), Some(name));
        }
        check(
            |s| drop(s.properties.insert("fetch.wait.max.ms".to_string(), "10".to_string())),
            None,
        );
        check(
            |s| drop(s.properties.insert("ssl.key.pem".to_string(), "secret\0".to_string())),
            Some("ssl.key.pem"),
        );
    }

    #[test]
    fn the_settings_properties_come_last_and_the_queue_bounds_librdkafka() {
        let mut settings = settings();
        settings.properties.insert("client.id".to_string(), "mine".to_string());
        let told = of(&settings);
        let last = |name: &str| told.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(last("client.id"), Some("mine"));
        assert_eq!(last("sasl.password"), Some("secret"));
        assert_eq!(last("queued.max.messages.kbytes"), Some("16384"));
        assert_eq!(last("queued.min.messages"), Some("32768"));
        assert_eq!(last("enable.auto.commit"), Some("false"));
    }
}
