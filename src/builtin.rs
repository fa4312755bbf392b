//! The pipelines, alerts and dashboards that ship with the binary, for a machine that has no copy of the folders.
//!
//! Invariant: the same files as in `pipelines/`, `alerts/` and `dashboards/`; a test compares the lists.

/// File name and text of every shipped pipeline.
pub const PIPELINES: [(&str, &str); 10] = [
    ("pipelines/audience_1m.sql", include_str!("../pipelines/audience_1m.sql")),
    ("pipelines/cdn_1m.sql", include_str!("../pipelines/cdn_1m.sql")),
    ("pipelines/cdn_objects_1m.sql", include_str!("../pipelines/cdn_objects_1m.sql")),
    ("pipelines/concurrency_1m.sql", include_str!("../pipelines/concurrency_1m.sql")),
    ("pipelines/delivery_1m.sql", include_str!("../pipelines/delivery_1m.sql")),
    ("pipelines/ended_1m.sql", include_str!("../pipelines/ended_1m.sql")),
    ("pipelines/errors_1m.sql", include_str!("../pipelines/errors_1m.sql")),
    ("pipelines/latency_1m.sql", include_str!("../pipelines/latency_1m.sql")),
    ("pipelines/playback_1m.sql", include_str!("../pipelines/playback_1m.sql")),
    ("pipelines/quality_1h.sql", include_str!("../pipelines/quality_1h.sql")),
];

/// File name and text of every shipped alert file.
pub const ALERTS: [(&str, &str); 4] = [
    ("alerts/cdn_latency.yaml", include_str!("../alerts/cdn_latency.yaml")),
    ("alerts/isp_rebuffering.yaml", include_str!("../alerts/isp_rebuffering.yaml")),
    ("alerts/own_health.yaml", include_str!("../alerts/own_health.yaml")),
    ("alerts/playback_errors.yaml", include_str!("../alerts/playback_errors.yaml")),
];

/// File name and text of every shipped dashboard.
pub const DASHBOARDS: [(&str, &str); 10] = [
    ("dashboards/alerts.json", include_str!("../dashboards/alerts.json")),
    ("dashboards/buffering.json", include_str!("../dashboards/buffering.json")),
    ("dashboards/cdn.json", include_str!("../dashboards/cdn.json")),
    ("dashboards/content.json", include_str!("../dashboards/content.json")),
    ("dashboards/errors.json", include_str!("../dashboards/errors.json")),
    ("dashboards/health.json", include_str!("../dashboards/health.json")),
    ("dashboards/isp.json", include_str!("../dashboards/isp.json")),
    ("dashboards/noc.json", include_str!("../dashboards/noc.json")),
    ("dashboards/session.json", include_str!("../dashboards/session.json")),
    ("dashboards/startup.json", include_str!("../dashboards/startup.json")),
];
