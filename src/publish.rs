//! Published figures: active users, viewers of each title and most watched, for apps to show.
//!
//! Stands behind the lake, like `watch`: rows in, messages out (reference solution 4.3). The last value
//! wins, so nothing is kept and nothing is sent again; what could not be sent is told anew at the
//! next turn.
//!
//! Invariant: no clock; event time and the rows are handed in, and the same rows give the same messages.
//! Invariant: a figure is a total to set, never a difference to add: telling it twice changes nothing.
//! Invariant: a title that was told with viewers is told with 0 once they are gone.
//! Invariant: at most `titles` titles are followed, however many are watched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::alert::hex;

/// Every figure is told again this often, changed or not: a subscriber that is new, or missed one, is
/// right within a minute.
const REFRESH_MS: i64 = 60_000;

/// One entry of `publish:` in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishSettings {
    /// Names the entry in the log.
    pub name: String,
    /// The topic; `.fifo` at its end makes it a FIFO topic.
    pub topic_arn: String,
    /// Which figures; each message carries one, named by its attribute `update_type`.
    pub figures: BTreeSet<UpdateType>,
    /// How often they are computed and told, 1 s to 10 min.
    pub every: Duration,
    /// Event time over which a viewer counts as active, 10 s to 1 h.
    pub window: Duration,
    /// Event time over which views are counted, 1 min to 31 days.
    pub total_window: Duration,
    /// Titles to follow at most, 1 to 10,000; the most watched come first.
    pub titles: usize,
    /// A title, or an audience, of fewer viewers is told as 0, so that nobody is picked out.
    pub min_viewers: u64,
}

impl PublishSettings {
    pub const EVERY: Duration = Duration::from_secs(10);
    pub const WINDOW: Duration = Duration::from_secs(120);
    pub const TOTAL_WINDOW: Duration = Duration::from_secs(86_400);
    pub const TITLES: usize = 1_000;

    /// The defaults for a topic.
    pub fn new(name: &str, topic_arn: &str) -> PublishSettings {
        PublishSettings {
            name: name.to_owned(),
            topic_arn: topic_arn.to_owned(),
            figures: UpdateType::ALL.into(),
            every: PublishSettings::EVERY,
            window: PublishSettings::WINDOW,
            total_window: PublishSettings::TOTAL_WINDOW,
            titles: PublishSettings::TITLES,
            min_viewers: 1,
        }
    }
}

/// Value of the attribute `update_type`, which subscribers filter on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateType {
    /// Distinct viewers of everything in the window.
    ActiveUsers,
    /// Distinct viewers of a title in the window.
    RecentViews,
    /// Plays of a title in the longer window.
    TotalViews,
}

impl UpdateType {
    pub const ALL: [UpdateType; 3] = [UpdateType::ActiveUsers, UpdateType::RecentViews, UpdateType::TotalViews];

    pub fn as_str(self) -> &'static str {
        match self {
            UpdateType::ActiveUsers => "active_users",
            UpdateType::RecentViews => "recent_views",
            UpdateType::TotalViews => "total_views",
        }
    }
}

/// A title as the queries find it; one that lacks in a query has 0 there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TitleRow {
    pub content_id: String,
    pub viewers: u64,
    pub views: u64,
}

/// What the lake says at one instant of event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    pub as_of_ms: i64,
    /// Distinct over all titles: not the sum of their viewers.
    pub active_users: u64,
    pub titles: Vec<TitleRow>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    pub update_type: UpdateType,
    /// The title; none for the audience as a whole.
    pub content_id: Option<String>,
    pub value: u64,
    pub as_of_ms: i64,
    /// The JSON.
    pub message: String,
}

impl Figure {
    pub const ATTRIBUTE: &'static str = "update_type";
    pub const SUBJECT: &'static str = "updates";

    /// For FIFO topics: the figures of one title come in order.
    pub fn group_id(&self) -> String {
        let title = self.content_id.as_deref().unwrap_or_default();
        format!("{}-{}", self.update_type.as_str(), &hex(&Sha256::digest(title))[..32])
    }

    /// For FIFO topics: the same figure of the same instant is one message.
    pub fn id(&self) -> String {
        hex(&Sha256::digest(format!("{}|{}", self.group_id(), self.message)))[..32].to_owned()
    }
}

#[derive(Serialize)]
struct UsersBody {
    #[serde(rename = "USER_COUNT")]
    user_count: u64,
    #[serde(flatten)]
    times: Times,
}

#[derive(Serialize)]
struct TitleBody<'c> {
    #[serde(rename = "VIDEOID")]
    video_id: &'c str,
    #[serde(rename = "VIEWS")]
    views: u64,
    #[serde(flatten)]
    times: Times,
}

/// Event time: the window, and the instant at which it was looked at. Of two messages about one figure
/// the later `EVENT_TIME` holds.
#[derive(Serialize)]
struct Times {
    #[serde(rename = "EVENT_TIME")]
    event_time: String,
    #[serde(rename = "WINDOW_START")]
    window_start: String,
    #[serde(rename = "WINDOW_END")]
    window_end: String,
}

type Key = (UpdateType, Option<String>);

/// One entry of `publish:` at work.
#[derive(Debug)]
pub struct Publisher {
    settings: PublishSettings,
    /// What subscribers know, and when they were told by our clock.
    told: BTreeMap<Key, (u64, i64)>,
    due_at_ms: i64,
    /// True until everything was told once: titles that were told before a restart are told 0.
    is_new: bool,
    left_out: usize,
}

impl Publisher {
    pub fn new(settings: PublishSettings) -> Publisher {
        Publisher {
            settings,
            told: BTreeMap::new(),
            due_at_ms: i64::MIN,
            is_new: true,
            left_out: 0,
        }
    }

    pub fn settings(&self) -> &PublishSettings {
        &self.settings
    }

    /// Titles that were watched and not followed at the last turn.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// True once per `every`; turns that were missed are not made up for.
    pub fn is_due(&mut self, now_ms: i64) -> bool {
        if now_ms < self.due_at_ms {
            return false;
        }
        let every_ms = millis(self.settings.every);
        let is_late = now_ms.saturating_sub(self.due_at_ms) >= every_ms;
        let from_ms = if is_late { now_ms } else { self.due_at_ms };
        self.due_at_ms = from_ms.saturating_add(every_ms);
        true
    }

    /// What subscribers do not know yet, in the order to send. Say `told` of what was sent.
    pub fn figures(&mut self, audience: &Audience, now_ms: i64) -> Vec<Figure> {
        let mut values: Vec<(Key, u64)> = Vec::new();
        values.push(((UpdateType::ActiveUsers, None), self.shown(audience.active_users)));
        let (titles, left_out) = self.followed(audience);
        for (kind, value_of) in [
            (UpdateType::RecentViews, (|row| row.viewers) as fn(&TitleRow) -> u64),
            (UpdateType::TotalViews, |row| row.views),
        ] {
            for (title, row) in &titles {
                let value = row.map_or(0, value_of);
                let value = if kind == UpdateType::RecentViews {
                    self.shown(value)
                } else {
                    value
                };
                values.push(((kind, Some((*title).to_owned())), value));
            }
        }
        let is_news = |(key, value): &(Key, u64)| self.settings.figures.contains(&key.0) && self.is_news(key, *value, now_ms);
        let news: Vec<(Key, u64)> = values.into_iter().filter(is_news).collect();
        let figure = |((kind, title), value)| self.figure(kind, title, value, audience.as_of_ms);
        let figures = news.into_iter().map(figure).collect();
        self.left_out = left_out;
        figures
    }

    /// These have reached the topic. A title of which nothing is left is forgotten.
    pub fn told(&mut self, figures: &[Figure], now_ms: i64) {
        for figure in figures {
            let key = (figure.update_type, figure.content_id.clone());
            match figure.value {
                0 if figure.content_id.is_some() => self.told.remove(&key),
                value => self.told.insert(key, (value, now_ms)),
            };
        }
        self.is_new = false;
    }

    fn shown(&self, viewers: u64) -> u64 {
        if viewers < self.settings.min_viewers { 0 } else { viewers }
    }

    fn is_news(&self, key: &Key, value: u64, now_ms: i64) -> bool {
        match self.told.get(key) {
            Some((told, at_ms)) => *told != value || now_ms.saturating_sub(*at_ms) >= REFRESH_MS,
            // Of a title never told, 0 is known, unless we have forgotten what was told.
            None => value > 0 || self.is_new || key.1.is_none(),
        }
    }

    /// Titles that were told and, as far as there is room, the most watched of the others; with their
    /// rows, or none where the lake has none any more. In order of title. And how many had no room.
    fn followed<'a>(&'a self, audience: &'a Audience) -> (BTreeMap<&'a str, Option<&'a TitleRow>>, usize) {
        let rows: BTreeMap<&str, &TitleRow> = audience.titles.iter().map(|row| (row.content_id.as_str(), row)).collect();
        let told = self.told.keys().filter_map(|(_, title)| title.as_deref());
        let mut followed: BTreeMap<&str, Option<&TitleRow>> = told.map(|title| (title, rows.get(title).copied())).collect();
        let is_other = |row: &&&TitleRow| !followed.contains_key(row.content_id.as_str());
        let mut others: Vec<&TitleRow> = rows.values().filter(is_other).copied().collect();
        others.sort_by(|a, b| (b.viewers, b.views, &a.content_id).cmp(&(a.viewers, a.views, &b.content_id)));
        let room = self.settings.titles.saturating_sub(followed.len());
        let left_out = others.len().saturating_sub(room);
        followed.extend(others.into_iter().take(room).map(|row| (row.content_id.as_str(), Some(row))));
        (followed, left_out)
    }

    fn figure(&self, update_type: UpdateType, content_id: Option<String>, value: u64, as_of_ms: i64) -> Figure {
        let window = match update_type {
            UpdateType::TotalViews => self.settings.total_window,
            UpdateType::ActiveUsers | UpdateType::RecentViews => self.settings.window,
        };
        let times = Times {
            event_time: time(as_of_ms),
            window_start: time(as_of_ms.saturating_sub(millis(window))),
            window_end: time(as_of_ms),
        };
        let message = match &content_id {
            Some(video_id) => serde_json::to_string(&TitleBody {
                video_id,
                views: value,
                times,
            }),
            None => serde_json::to_string(&UsersBody { user_count: value, times }),
        };
        Figure {
            update_type,
            content_id,
            value,
            as_of_ms,
            message: message.expect("texts and numbers are always JSON"),
        }
    }
}

/// Event time as it goes on: with the watermark while events come, with the clock once they do not, so
/// that figures decay after the last event, also in a replay of the past.
#[derive(Debug, Default)]
pub struct EventClock {
    watermark_ms: Option<i64>,
    moved_at_ms: i64,
}

impl EventClock {
    /// The instant to look at; none before the first event.
    pub fn as_of_ms(&mut self, watermark_ms: Option<i64>, now_ms: i64) -> Option<i64> {
        if watermark_ms > self.watermark_ms {
            // Never back: what had gone on with the clock waits for the watermark to catch up.
            let gone_on = self
                .watermark_ms
                .map(|at_ms| at_ms.saturating_add(now_ms.saturating_sub(self.moved_at_ms)));
            let is_ahead = gone_on >= watermark_ms;
            if !is_ahead {
                self.watermark_ms = watermark_ms;
                self.moved_at_ms = now_ms;
            }
        }
        let still_ms = now_ms.saturating_sub(self.moved_at_ms).max(0);
        self.watermark_ms.map(|at_ms| at_ms.saturating_add(still_ms))
    }
}

/// Events that show a viewer watching; a pause or an end does not.
const WATCHING: &str = "'playback_start', 'heartbeat', 'rendition_update', 'rate_change', 'stall_start', 'stall_end', \
                        'seek_start', 'seek_end', 'ad_break_start', 'ad_break_end', 'ad_start', 'ad_end', 'ad_skip', 'content_change'";

/// The queries at an instant of event time, for a context with the open windows of `gold.playback_1m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// One row: `active_users`.
    pub users: String,
    /// `content_id`, `viewers`.
    pub viewers: String,
    /// `content_id`, `views`.
    pub totals: String,
}

impl Queries {
    pub fn new(settings: &PublishSettings, as_of_ms: i64) -> Queries {
        let from_ms = as_of_ms.saturating_sub(millis(settings.window));
        let total_from_ms = as_of_ms.saturating_sub(millis(settings.total_window));
        let watching = format!(
            "FROM silver.player_events WHERE event_date >= DATE '{}' AND event_ts > TIMESTAMP '{}' AND event_ts <= TIMESTAMP '{}' \
             AND NOT unattributed AND event_type IN ({WATCHING}) \
             AND coalesce(state, 'playing') NOT IN ('preloading', 'paused', 'ended', 'failed', 'quit')",
            sql_day(from_ms),
            sql_time(from_ms),
            sql_time(as_of_ms),
        );
        let viewer = "count(DISTINCT coalesce(user_id, device_id, session_key))";
        Queries {
            users: format!("SELECT {viewer} AS active_users {watching}"),
            viewers: format!("SELECT content_id, {viewer} AS viewers {watching} AND content_id IS NOT NULL GROUP BY content_id"),
            totals: format!(
                "SELECT content_id, sum(plays) AS views FROM gold.playback_1m \
                 WHERE window_start >= TIMESTAMP '{}' AND window_start <= TIMESTAMP '{}' AND content_id IS NOT NULL GROUP BY content_id",
                sql_time(total_from_ms),
                sql_time(as_of_ms),
            ),
        }
    }
}

fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

fn instant(at_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at_ms).unwrap_or(DateTime::UNIX_EPOCH)
}

fn time(at_ms: i64) -> String {
    instant(at_ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn sql_time(at_ms: i64) -> String {
    instant(at_ms).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn sql_day(at_ms: i64) -> String {
    instant(at_ms).format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests;
