//! What the settings say of published figures: topics, and which figures each gets.
//!
//! Stands beside `sources`; `crate::publish` does the work.
//!
//! Invariant: every entry has a topic, a name of its own and something to tell.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Checks;
use super::file::PublishFile;
use crate::publish::{PublishSettings, UpdateType};

/// Each entry asks the tables its own questions.
const ENTRIES_MAX: usize = 8;
/// Faster than a second costs more queries than anybody sees; slower than 10 min is no live figure.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// Shorter than 10 s no heartbeat falls into it.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(3_600);
const TOTAL_WINDOW: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(31 * 86_400);
const TITLES: RangeInclusive<u64> = 1..=10_000;
const MIN_VIEWERS: RangeInclusive<u64> = 1..=1_000_000;

pub(super) fn publish(written: Option<Vec<PublishFile>>, checks: &mut Checks) -> Vec<PublishSettings> {
    let written = written.unwrap_or_default();
    if written.len() > ENTRIES_MAX {
        let message = format!("{} entries are too many", written.len());
        checks.complain(
            "publish",
            message,
            format!("keep to {ENTRIES_MAX}: subscribers choose with a filter policy"),
        );
    }
    let mut names = BTreeSet::new();
    let mut entries = Vec::new();
    for (index, written) in written.into_iter().enumerate() {
        let key = format!("publish[{index}]");
        let name = written.name.clone().unwrap_or_else(|| format!("publish-{index}"));
        if !names.insert(name.clone()) {
            checks.complain(&format!("{key}.name"), "two entries have this name", "give this one another");
        }
        entries.push(entry(&key, &name, written, checks));
    }
    entries
}

fn entry(key: &str, name: &str, written: PublishFile, checks: &mut Checks) -> PublishSettings {
    let topic_arn = written.topic_arn.unwrap_or_default();
    let is_topic = matches!(topic_arn.split(':').collect::<Vec<_>>()[..], ["arn", _, "sns", region, _, topic] if !region.is_empty() && !topic.is_empty());
    if !is_topic {
        let fix = "write topic_arn: arn:aws:sns:<region>:<account>:<topic>, or take it from the environment";
        checks.complain(&format!("{key}.topic_arn"), "this is not the ARN of an SNS topic", fix);
    }
    let figures: BTreeSet<UpdateType> = written.figures.map_or(UpdateType::ALL.into(), BTreeSet::from_iter);
    if figures.is_empty() {
        let fix = "write one or more of active_users, recent_views, total_views, or take the key out for all";
        checks.complain(&format!("{key}.figures"), "nothing is published", fix);
    }
    let mut span = |name: &str, value, default, range| checks.span(&format!("{key}.{name}"), value, default, range);
    let every = span("every", written.every, PublishSettings::EVERY, EVERY);
    let window = span("window", written.window, PublishSettings::WINDOW, WINDOW);
    let total_window = span("total_window", written.total_window, PublishSettings::TOTAL_WINDOW, TOTAL_WINDOW);
    let titles = written.titles.unwrap_or(PublishSettings::TITLES as u64);
    let titles = checks.within(&format!("{key}.titles"), titles, TITLES, u64::to_string);
    let min_viewers = checks.within(
        &format!("{key}.min_viewers"),
        written.min_viewers.unwrap_or(1),
        MIN_VIEWERS,
        u64::to_string,
    );
    PublishSettings {
        name: name.to_owned(),
        topic_arn,
        figures,
        every,
        window,
        total_window,
        titles: usize::try_from(titles).unwrap_or(PublishSettings::TITLES),
        min_viewers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::ConfigFile;
    use crate::config::{Config, REFERENCE, parse};

    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:figures";

    fn read(text: &str) -> Result<Config, String> {
        let env = |name: &str| (name == "TOPIC").then(|| TOPIC.to_owned());
        let read = parse(&[("a.yaml".to_owned(), text.to_owned())], &env, &|_| false);
        read.map_err(|complaints| complaints.iter().map(|complaint| format!("{complaint}\n")).collect())
    }

    #[test]
    fn a_topic_is_enough() {
        let config = read("publish: [{topic_arn: '${TOPIC}'}]").unwrap();
        assert_eq!(config.publish, [PublishSettings::new("publish-0", TOPIC)]);
        assert_eq!(read("publish:").unwrap().publish, []);
    }

    #[test]
    fn everything_can_be_said() {
        let text = "publish:\n  - {name: w, topic_arn: '${TOPIC}', figures: [total_views], every: 1s, window: 30s, \
                    total_window: 1h, titles: 5, min_viewers: 10}";
        let expected = PublishSettings {
            figures: [UpdateType::TotalViews].into(),
            every: Duration::from_secs(1),
            window: Duration::from_secs(30),
            total_window: Duration::from_secs(3_600),
            titles: 5,
            min_viewers: 10,
            ..PublishSettings::new("w", TOPIC)
        };
        assert_eq!(read(text).unwrap().publish, [expected]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let complaints = read(
            "publish:\n  - {name: w, topic_arn: figures}\n  - {name: w, topic_arn: '${TOPIC}', every: 10ms}\n  \
             - {topic_arn: '${TOPIC}', figures: []}\n",
        );
        assert_eq!(
            complaints.unwrap_err(),
            "a.yaml:2:26: publish[0].topic_arn: this is not the ARN of an SNS topic; write topic_arn: \
             arn:aws:sns:<region>:<account>:<topic>, or take it from the environment\n\
             a.yaml:3:12: publish[1].name: two entries have this name; give this one another\n\
             a.yaml:3:45: publish[1].every: the value is out of range; write one from 1s to 10m\n\
             a.yaml:4:38: publish[2].figures: nothing is published; write one or more of active_users, recent_views, \
             total_views, or take the key out for all\n"
        );
        let unknown = read("publish: [{topic_arn: '${TOPIC}', figures: [active_user]}]").unwrap_err();
        assert!(unknown.contains("did you mean \"active_users\"?"), "{unknown}");
    }

    #[test]
    fn the_reference_shows_every_key_of_an_entry() {
        let entry = ConfigFile {
            publish: Some(vec![PublishFile::default()]),
            ..ConfigFile::default()
        };
        let entry = serde_json::to_value(entry).unwrap();
        for key in entry["publish"][0].as_object().unwrap().keys() {
            assert!(
                REFERENCE.contains(&format!("#  - {key}: ")) || REFERENCE.contains(&format!("#    {key}: ")),
                "{key}"
            );
        }
    }
}
