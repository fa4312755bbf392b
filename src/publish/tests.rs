//! Figures as subscribers see them.

use super::*;

/// 2026-01-14T12:00:00Z.
const NOON_MS: i64 = 1_768_392_000_000;
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:figures";

fn publisher() -> Publisher {
    Publisher::new(PublishSettings::new("widgets", TOPIC))
}

/// `film 2 5`: two viewers, five views.
fn audience(seconds: i64, users: u64, titles: &[&str]) -> Audience {
    let row = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        TitleRow {
            content_id: words[0].to_owned(),
            viewers: words[1].parse().unwrap(),
            views: words[2].parse().unwrap(),
        }
    };
    Audience {
        as_of_ms: NOON_MS + seconds * 1_000,
        active_users: users,
        titles: titles.iter().map(row).collect(),
    }
}

/// `active_users 3`, `recent_views film 2`, ...
fn lines(figures: &[Figure]) -> Vec<String> {
    let line = |figure: &Figure| match &figure.content_id {
        Some(title) => format!("{} {title} {}", figure.update_type.as_str(), figure.value),
        None => format!("{} {}", figure.update_type.as_str(), figure.value),
    };
    figures.iter().map(line).collect()
}

/// One turn after another, each sent.
fn turn(publisher: &mut Publisher, audience: &Audience) -> Vec<String> {
    let figures = publisher.figures(audience, audience.as_of_ms);
    publisher.told(&figures, audience.as_of_ms);
    lines(&figures)
}

#[test]
fn messages_have_the_shapes_of_the_reference_with_their_times() {
    let mut publisher = publisher();
    let figures = publisher.figures(&audience(0, 3, &["film 2 5"]), 0);
    let messages: Vec<&str> = figures.iter().map(|figure| figure.message.as_str()).collect();
    let recent =
        r#""EVENT_TIME":"2026-01-14T12:00:00.000Z","WINDOW_START":"2026-01-14T11:58:00.000Z","WINDOW_END":"2026-01-14T12:00:00.000Z"}"#;
    let day =
        r#""EVENT_TIME":"2026-01-14T12:00:00.000Z","WINDOW_START":"2026-01-13T12:00:00.000Z","WINDOW_END":"2026-01-14T12:00:00.000Z"}"#;
    assert_eq!(
        messages,
        [
            format!(r#"{{"USER_COUNT":3,{recent}"#),
            format!(r#"{{"VIDEOID":"film","VIEWS":2,{recent}"#),
            format!(r#"{{"VIDEOID":"film","VIEWS":5,{day}"#),
        ]
    );
}

#[test]
fn only_what_has_changed_is_told_until_a_minute_has_passed() {
    let mut publisher = publisher();
    let all = [
        "active_users 3",
        "recent_views a 2",
        "recent_views b 1",
        "total_views a 5",
        "total_views b 1",
    ];
    assert_eq!(turn(&mut publisher, &audience(0, 3, &["a 2 5", "b 1 1"])), all);
    assert!(turn(&mut publisher, &audience(10, 3, &["a 2 5", "b 1 1"])).is_empty());
    assert_eq!(turn(&mut publisher, &audience(20, 3, &["a 2 6", "b 1 1"])), ["total_views a 6"]);
    let refreshed = ["active_users 3", "recent_views a 2", "recent_views b 1", "total_views b 1"];
    assert_eq!(turn(&mut publisher, &audience(60, 3, &["a 2 6", "b 1 1"])), refreshed);
}

#[test]
fn a_title_that_loses_its_last_viewer_is_told_once_with_0() {
    let mut publisher = publisher();
    turn(&mut publisher, &audience(0, 1, &["a 1 1"]));
    assert_eq!(
        turn(&mut publisher, &audience(10, 0, &["a 0 1"])),
        ["active_users 0", "recent_views a 0"]
    );
    assert!(turn(&mut publisher, &audience(20, 0, &["a 0 1"])).is_empty());
    assert_eq!(
        turn(&mut publisher, &audience(30, 0, &[])),
        ["total_views a 0"],
        "out of the longer window too"
    );
    assert_eq!(
        turn(&mut publisher, &audience(70, 0, &[])),
        ["active_users 0"],
        "the audience is told on"
    );
}

#[test]
fn a_zero_that_did_not_get_through_is_told_again() {
    let mut publisher = publisher();
    turn(&mut publisher, &audience(0, 1, &["a 1 1"]));
    let lost = publisher.figures(&audience(10, 1, &["a 0 1"]), NOON_MS + 10_000);
    assert_eq!(lines(&lost), ["recent_views a 0"]);
    assert_eq!(turn(&mut publisher, &audience(20, 1, &["a 0 1"])), ["recent_views a 0"]);
}

#[test]
fn after_a_restart_titles_without_viewers_are_told_so() {
    let told = [
        "active_users 1",
        "recent_views a 0",
        "recent_views b 1",
        "total_views a 7",
        "total_views b 1",
    ];
    assert_eq!(turn(&mut publisher(), &audience(0, 1, &["a 0 7", "b 1 1"])), told);
}

#[test]
fn a_replay_of_the_same_rows_gives_the_same_messages() {
    let rows = audience(0, 3, &["b 1 1", "a 2 5"]);
    let mut reversed = rows.clone();
    reversed.titles.reverse();
    let [first, second] = [rows, reversed].map(|rows| publisher().figures(&rows, NOON_MS));
    assert_eq!(first, second);
    assert!(
        first
            .iter()
            .zip(&second)
            .all(|(a, b)| a.id() == b.id() && a.group_id() == b.group_id())
    );
    assert!(first.iter().all(|figure| figure.group_id().len() <= 128 && figure.id().len() == 32));
}

#[test]
fn only_so_many_titles_are_followed_and_those_to_their_end() {
    let mut settings = PublishSettings::new("widgets", TOPIC);
    settings.titles = 2;
    settings.figures = [UpdateType::RecentViews].into();
    let mut publisher = Publisher::new(settings);
    let first = turn(&mut publisher, &audience(0, 9, &["a 1 1", "b 2 2", "c 3 3"]));
    assert_eq!(
        (first, publisher.left_out()),
        (vec!["recent_views b 2".to_owned(), "recent_views c 3".to_owned()], 1)
    );
    let then = turn(&mut publisher, &audience(10, 9, &["a 9 9", "b 1 2", "c 0 3"]));
    assert_eq!(then, ["recent_views b 1", "recent_views c 0"], "c is told its end, and makes room");
    assert_eq!(turn(&mut publisher, &audience(20, 9, &["a 9 9", "b 1 2"])), ["recent_views a 9"]);
}

#[test]
fn an_audience_too_small_to_hide_in_is_told_as_none() {
    let mut settings = PublishSettings::new("widgets", TOPIC);
    settings.min_viewers = 10;
    let mut publisher = Publisher::new(settings);
    turn(&mut publisher, &audience(0, 20, &["a 10 12"]));
    assert_eq!(
        turn(&mut publisher, &audience(10, 9, &["a 9 12"])),
        ["active_users 0", "recent_views a 0"]
    );
}

#[test]
fn turns_come_every_ten_seconds_and_missed_ones_are_not_made_up_for() {
    let mut publisher = publisher();
    let due: Vec<i64> = (0..40).filter(|second| publisher.is_due(second * 1_000)).collect();
    assert_eq!(due, [0, 10, 20, 30]);
    assert!(publisher.is_due(95_000));
    assert!(!publisher.is_due(95_001) && publisher.is_due(105_000));
}

#[test]
fn event_time_goes_on_when_events_do_not() {
    let mut clock = EventClock::default();
    assert_eq!(clock.as_of_ms(None, 5), None);
    assert_eq!(clock.as_of_ms(Some(1_000), 50_000), Some(1_000));
    assert_eq!(clock.as_of_ms(Some(1_000), 170_000), Some(121_000), "two minutes without an event");
    assert_eq!(clock.as_of_ms(Some(60_000), 171_000), Some(122_000), "never back");
    assert_eq!(clock.as_of_ms(Some(200_000), 172_000), Some(200_000));
    assert_eq!(
        clock.as_of_ms(Some(200_000), 100_000),
        Some(200_000),
        "a clock set back moves nothing"
    );
}

#[test]
fn the_queries_look_at_the_windows_of_event_time() {
    let queries = Queries::new(&PublishSettings::new("widgets", TOPIC), NOON_MS);
    assert!(
        queries
            .users
            .starts_with("SELECT count(DISTINCT coalesce(user_id, device_id, session_key)) AS active_users FROM silver.player_events")
    );
    let window = "event_ts > TIMESTAMP '2026-01-14 11:58:00.000' AND event_ts <= TIMESTAMP '2026-01-14 12:00:00.000'";
    assert!(queries.users.contains(window) && queries.viewers.contains(window), "{queries:?}");
    assert!(queries.totals.contains("window_start >= TIMESTAMP '2026-01-13 12:00:00.000'"));
}
