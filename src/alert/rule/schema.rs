//! The keys of a rule file: one schema for each mapping, with the kind of each value.
//!
//! Stands beside the reading of rules, which refuses every key that is not here, and under `editor`,
//! which makes the JSON Schema for editors of the same tables.
//!
//! Invariant: a key that the alerts spec names and this release does not read is `later`, so that
//! its author is told so, and it is never passed over.

/// The keys of one mapping: those that work, and those of the schema that do not work yet.
pub(super) struct Schema {
    /// The mapping's name in complaints.
    pub(super) name: &'static str,
    pub(super) keys: &'static [Key],
    pub(super) required: &'static [&'static str],
    pub(super) later: &'static [&'static str],
}

impl Schema {
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }
}

/// One key of a mapping.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// For the author, with the default at the end where there is one.
    pub(super) help: &'static str,
}

/// What may stand under a key.
pub(super) enum Kind {
    Text,
    Texts,
    /// `30s`, `5m`, `2h`, `7d`.
    Duration,
    Number,
    /// A number, or a share as `5%`.
    Share,
    Whole,
    Bool,
    /// RFC 3339.
    Time,
    Words(&'static [&'static str]),
    /// Names of the author's own, each with a template.
    Templates,
    /// Names of the author's own, each with a plain value.
    Values,
    /// Names of what is matched, each with a pattern or a list of them.
    Matchers,
    Map(&'static Schema),
    List(&'static Schema),
    /// Names of the author's own, each with a mapping.
    Named(&'static Schema),
    Either(&'static [Kind]),
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

pub(super) static TOP: Schema = Schema {
    name: "a rule file",
    keys: &[
        key("version", Kind::Whole, "1"),
        key(
            "defaults",
            Kind::Map(&DEFAULTS),
            "What holds for each rule of this file that does not say otherwise",
        ),
        key("targets", Kind::Named(&TARGET), "Where messages go, by name; shared by all files"),
        key("groups", Kind::List(&GROUP), "Named lists of rules"),
        key("rules", Kind::List(&RULE), "Rules without a group"),
        key("inhibit", Kind::List(&INHIBIT), "Alerts that explain others and keep them quiet"),
        key("silences", Kind::List(&SILENCE), "Who is not to be told of what, and until when"),
        key("calendars", Kind::Named(&CALENDAR), "Hours and days, by name; shared by all files"),
    ],
    required: &["version"],
    later: &[],
};
pub(super) static DEFAULTS: Schema = Schema {
    name: "`defaults`",
    keys: &[
        key(
            "window",
            Kind::Duration,
            "Span of event time that is judged as one, a multiple of 1m: 5m",
        ),
        key("slide", Kind::Duration, "How often a window is judged, a multiple of 1m: 1m"),
        key("lateness", Kind::Duration, "How long after its end a window is judged: 0s"),
        key("min_samples", Kind::Whole, "Below this many samples nothing is said"),
        key(
            "confidence",
            Kind::Map(&CONFIDENCE),
            "How sure the value must be; wilson with z 3 where it has a meaning",
        ),
        key("for", Kind::Duration, "How long it must breach before anybody is told: 0s"),
        key("clear", Kind::Map(&CLEAR), "When a firing alert may end"),
        key("keep_firing_for", Kind::Duration, "How long it fires on after the last breach: 0s"),
        key("no_data", Kind::Map(&NO_DATA), "What the absence of rows means"),
        key("eval_error", Kind::Map(&EVAL_ERROR), "What a failed query means"),
        key(
            "severity",
            Kind::Either(&[Kind::Words(&["info", "warning", "critical"]), Kind::List(&STEP)]),
            "One severity, or a ladder of {threshold, severity}: warning",
        ),
        key("owner", Kind::Text, "The team that answers for it; needed for critical rules"),
        key("runbook", Kind::Text, "URL of what to do"),
        key("explain", Kind::Map(&EXPLAIN), "Where the cause is looked for"),
        key("notify", Kind::Map(&NOTIFY), "Who is told, when and how often"),
        key(
            "max_alerts",
            Kind::Whole,
            "More firing alerts of the rule than this are told as one: 50",
        ),
        key(
            "early",
            Kind::Bool,
            "true: judged by the rows so far while the window is open, too, and told at once when it breaches: false",
        ),
        key(
            "on_late",
            Kind::Words(&["ignore", "amend"]),
            "amend: a firing whose window late data change so that it breaches no more is told so, once: ignore",
        ),
    ],
    required: &[],
    later: &[],
};
pub(super) static GROUP: Schema = Schema {
    name: "a group",
    keys: &[
        key("name", Kind::Text, "For people"),
        key(
            "interval",
            Kind::Words(&["watermark"]),
            "Rules are judged when the watermark passes a window",
        ),
        key("rules", Kind::List(&RULE), "The rules"),
    ],
    required: &["name", "rules"],
    later: &[],
};
pub(super) static RULE: Schema = Schema {
    name: "a rule",
    keys: &[
        key("alert", Kind::Text, "Name of the alert: letters, digits and _"),
        key(
            "uid",
            Kind::Text,
            "Names the alert's memory; the name in lower case with - unless given",
        ),
        key("enabled", Kind::Bool, "false: checked, and not judged"),
        key(
            "metric",
            Kind::Text,
            "A metric of `playhead metrics`: gives table, value and samples",
        ),
        key("from", Kind::Text, "The gold table"),
        key("value", Kind::Map(&VALUE), "What is looked at"),
        key("samples", Kind::Text, "What is counted as a sample; the denominator unless given"),
        key("group_by", Kind::Texts, "Dimensions: each combination is an alert of its own"),
        key("where", Kind::Text, "An SQL predicate over columns"),
        key("min_impacted", Kind::Map(&MIN_IMPACTED), "How many must be hit"),
        key(
            "baseline",
            Kind::Either(&[
                Kind::Map(&SAME_SLOT),
                Kind::Map(&SAME_SLOT_WEEKLY),
                Kind::Map(&TRAILING),
                Kind::Map(&EWMA),
                Kind::Map(&PEERS),
                Kind::Map(&FIXED),
            ]),
            "What the value is compared with",
        ),
        key(
            "condition",
            Kind::Either(&[Kind::Text, Kind::Map(&CONDITION)]),
            "When it breaches; a text such as > 5% tests the value",
        ),
        key("and", Kind::List(&CONDITION), "Further conditions, all of which must hold"),
        key("labels", Kind::Templates, "Templates"),
        key("annotations", Kind::Templates, "Templates"),
        key("links", Kind::Templates, "Templates of URLs"),
        key("remediation", Kind::Map(&REMEDIATION), "What a machine may do about it"),
        key(
            "window",
            Kind::Duration,
            "Span of event time that is judged as one, a multiple of 1m: 5m",
        ),
        key("slide", Kind::Duration, "How often a window is judged, a multiple of 1m: 1m"),
        key("lateness", Kind::Duration, "How long after its end a window is judged: 0s"),
        key("min_samples", Kind::Whole, "Below this many samples nothing is said"),
        key(
            "confidence",
            Kind::Map(&CONFIDENCE),
            "How sure the value must be; wilson with z 3 where it has a meaning",
        ),
        key("for", Kind::Duration, "How long it must breach before anybody is told: 0s"),
        key("clear", Kind::Map(&CLEAR), "When a firing alert may end"),
        key("keep_firing_for", Kind::Duration, "How long it fires on after the last breach: 0s"),
        key("no_data", Kind::Map(&NO_DATA), "What the absence of rows means"),
        key("eval_error", Kind::Map(&EVAL_ERROR), "What a failed query means"),
        key(
            "severity",
            Kind::Either(&[Kind::Words(&["info", "warning", "critical"]), Kind::List(&STEP)]),
            "One severity, or a ladder of {threshold, severity}: warning",
        ),
        key("owner", Kind::Text, "The team that answers for it; needed for critical rules"),
        key("runbook", Kind::Text, "URL of what to do"),
        key("explain", Kind::Map(&EXPLAIN), "Where the cause is looked for"),
        key("notify", Kind::Map(&NOTIFY), "Who is told, when and how often"),
        key(
            "max_alerts",
            Kind::Whole,
            "More firing alerts of the rule than this are told as one: 50",
        ),
        key(
            "early",
            Kind::Bool,
            "true: judged by the rows so far while the window is open, too, and told at once when it breaches: false",
        ),
        key(
            "on_late",
            Kind::Words(&["ignore", "amend"]),
            "amend: a firing whose window late data change so that it breaches no more is told so, once: ignore",
        ),
    ],
    required: &["alert", "condition"],
    later: &[],
};
pub(super) static VALUE: Schema = Schema {
    name: "`value`",
    keys: &[
        key("ratio", Kind::Map(&RATIO), "A share: the sum of one over the sum of the other"),
        key("mean", Kind::Map(&MEAN), "A mean: a sum over a count"),
        key("expr", Kind::Text, "An SQL aggregate expression over the window"),
        key("quantile", Kind::Map(&QUANTILE), "A percentile of a sketch column"),
        key(
            "sql",
            Kind::Text,
            "A query that gives window_end, the dimensions, value and samples",
        ),
    ],
    required: &[],
    later: &[],
};
pub(super) static RATIO: Schema = Schema {
    name: "`ratio`",
    keys: &[key("num", Kind::Text, "Summed"), key("den", Kind::Text, "Summed")],
    required: &["num", "den"],
    later: &[],
};
pub(super) static MEAN: Schema = Schema {
    name: "`mean`",
    keys: &[key("sum", Kind::Text, "Summed"), key("count", Kind::Text, "Summed")],
    required: &["sum", "count"],
    later: &[],
};
pub(super) static QUANTILE: Schema = Schema {
    name: "`quantile`",
    keys: &[
        key("sketch", Kind::Text, "A sketch column"),
        key("q", Kind::Number, "Above 0, below 1, such as 0.95"),
    ],
    required: &["sketch", "q"],
    later: &[],
};
pub(super) static CONFIDENCE: Schema = Schema {
    name: "`confidence`",
    keys: &[
        key("method", Kind::Words(&["wilson", "normal", "none"]), "The bound"),
        key("z", Kind::Number, "Standard deviations: 3"),
    ],
    required: &["method"],
    later: &[],
};
pub(super) static MIN_IMPACTED: Schema = Schema {
    name: "`min_impacted`",
    keys: &[
        key("devices", Kind::Whole, "At least this many"),
        key("share", Kind::Share, "And at least this share of the samples"),
        key("of", Kind::Text, "What is counted; the numerator of a ratio unless given"),
    ],
    required: &[],
    later: &[],
};
pub(super) static SAME_SLOT: Schema = Schema {
    name: "a `same_slot` baseline",
    keys: &[
        key("kind", Kind::Words(&["same_slot"]), "Which baseline"),
        key("slot", Kind::Duration, "Length of a slot"),
        key("lookback", Kind::Duration, "How far back"),
        key("min_history", Kind::Duration, "Less history than this is no baseline"),
        key("stat", Kind::Words(&["mean", "median"]), "What is made of the slots"),
        key(
            "cold_start",
            Kind::Words(&["suppress"]),
            "Nothing is said before there is enough history",
        ),
        key("exclude", Kind::Texts, "firing_windows, and calendar:<name>: [firing_windows]"),
    ],
    required: &["kind"],
    later: &[],
};
pub(super) static SAME_SLOT_WEEKLY: Schema = Schema {
    name: "a `same_slot_weekly` baseline",
    keys: &[
        key("kind", Kind::Words(&["same_slot_weekly"]), "Which baseline"),
        key("slot", Kind::Duration, "Length of a slot"),
        key("weeks", Kind::Whole, "How many weeks back: 4"),
        key("min_weeks", Kind::Whole, "Fewer weeks are no baseline: 3"),
        key("stat", Kind::Words(&["mean", "median"]), "What is made of the slots"),
        key(
            "cold_start",
            Kind::Words(&["suppress"]),
            "Nothing is said before there is enough history",
        ),
        key("exclude", Kind::Texts, "firing_windows, and calendar:<name>: [firing_windows]"),
    ],
    required: &["kind"],
    later: &[],
};
pub(super) static TRAILING: Schema = Schema {
    name: "a `trailing` baseline",
    keys: &[
        key("kind", Kind::Words(&["trailing"]), "Which baseline"),
        key("slot", Kind::Duration, "Length of a slot"),
        key("lookback", Kind::Duration, "How far back"),
        key("min_history", Kind::Duration, "Less history than this is no baseline"),
        key("stat", Kind::Words(&["mean", "median"]), "What is made of the slots"),
        key(
            "cold_start",
            Kind::Words(&["suppress"]),
            "Nothing is said before there is enough history",
        ),
        key("exclude", Kind::Texts, "firing_windows, and calendar:<name>: [firing_windows]"),
    ],
    required: &["kind"],
    later: &[],
};
pub(super) static EWMA: Schema = Schema {
    name: "an `ewma` baseline",
    keys: &[
        key("kind", Kind::Words(&["ewma"]), "Which baseline"),
        key("slot", Kind::Duration, "Length of a slot"),
        key("half_life", Kind::Duration, "After this long a slot counts half: 1h"),
        key("min_history", Kind::Duration, "Less history than this is no baseline"),
        key(
            "cold_start",
            Kind::Words(&["suppress"]),
            "Nothing is said before there is enough history",
        ),
        key("exclude", Kind::Texts, "firing_windows, and calendar:<name>: [firing_windows]"),
    ],
    required: &["kind"],
    later: &[],
};
pub(super) static PEERS: Schema = Schema {
    name: "a `peers` baseline",
    keys: &[
        key("kind", Kind::Words(&["peers"]), "Which baseline"),
        key("over", Kind::Text, "The dimension in which peers differ"),
        key("within", Kind::Texts, "The dimensions in which they agree; all others unless given"),
        key("leave_one_out", Kind::Bool, "Without the group itself: true"),
        key("min_peers", Kind::Whole, "Fewer are no baseline: 3"),
        key(
            "weight",
            Kind::Text,
            "The denominator, the samples, or equal; the denominator unless given",
        ),
    ],
    required: &["kind", "over"],
    later: &[],
};
pub(super) static FIXED: Schema = Schema {
    name: "a `fixed` baseline",
    keys: &[
        key("kind", Kind::Words(&["fixed"]), "Which baseline"),
        key("value", Kind::Share, "The number"),
    ],
    required: &["kind", "value"],
    later: &[],
};
pub(super) static CONDITION: Schema = Schema {
    name: "a condition",
    keys: &[
        key(
            "test",
            Kind::Words(&["value", "ratio_to_baseline", "diff_to_baseline", "zscore"]),
            "What is compared",
        ),
        key("op", Kind::Words(&[">", ">=", "<", "<="]), "How"),
        key("threshold", Kind::Share, "A share as 5% or 0.05, all else as a number"),
    ],
    required: &["test", "op", "threshold"],
    later: &[],
};
pub(super) static CLEAR: Schema = Schema {
    name: "`clear`",
    keys: &[
        key("threshold", Kind::Share, "It may end only on the good side of this"),
        key("for", Kind::Duration, "And only after this long on it: 0s"),
    ],
    required: &[],
    later: &[],
};
pub(super) static NO_DATA: Schema = Schema {
    name: "`no_data`",
    keys: &[
        key(
            "state",
            Kind::Words(&["ok", "keep", "alert"]),
            "ok: alerts end. keep: firing alerts wait for after. alert: and the silence is an alert",
        ),
        key("after", Kind::Duration, "How long: 10m"),
    ],
    required: &["state"],
    later: &[],
};
pub(super) static EVAL_ERROR: Schema = Schema {
    name: "`eval_error`",
    keys: &[key(
        "state",
        Kind::Words(&["ok", "keep", "alert"]),
        "ok: alerts end. keep: all stays. alert: and the failure is an alert",
    )],
    required: &["state"],
    later: &[],
};
pub(super) static STEP: Schema = Schema {
    name: "a step of the ladder",
    keys: &[
        key("threshold", Kind::Share, "Of the condition's test"),
        key("severity", Kind::Words(&["info", "warning", "critical"]), "From there on"),
    ],
    required: &["threshold", "severity"],
    later: &[],
};
pub(super) static EXPLAIN: Schema = Schema {
    name: "`explain`",
    keys: &[
        key("dims", Kind::Texts, "Columns of the table"),
        key("max_depth", Kind::Whole, "Dimensions of one cause: 3"),
        key("top", Kind::Whole, "Causes to name: 3"),
    ],
    required: &["dims"],
    later: &[],
};
pub(super) static NOTIFY: Schema = Schema {
    name: "`notify`",
    keys: &[
        key("targets", Kind::Texts, "Names of targets"),
        key(
            "group_by",
            Kind::Texts,
            "Alerts that agree in these may be told together: dimensions, severity, alert",
        ),
        key("group_wait", Kind::Duration, "Wait for more before the first message: 0s"),
        key("group_interval", Kind::Duration, "Wait between messages of a group: 0s"),
        key("repeat_interval", Kind::Duration, "Tell again what fires still; never unless given"),
        key("send_resolved", Kind::Bool, "Tell of the end: true"),
        key("active", Kind::Text, "A calendar: outside of it nobody is told"),
    ],
    required: &[],
    later: &[],
};
pub(super) static REMEDIATION: Schema = Schema {
    name: "`remediation`",
    keys: &[
        key("playbook", Kind::Text, "What to run"),
        key("params", Kind::Templates, "Templates"),
        key("static", Kind::Values, "Limits that the consumer must keep"),
        key("valid_for", Kind::Duration, "Not to be acted upon later than this: 5m"),
        key("dry_run", Kind::Bool, "Say what would be done, and do nothing: true"),
    ],
    required: &["playbook"],
    later: &[],
};
pub(super) static TARGET: Schema = Schema {
    name: "a target",
    keys: &[
        key("stdout", Kind::Map(&STDOUT), "The terminal"),
        key("file", Kind::Map(&FILE), "A file, a line of JSON for each message"),
        key("sns", Kind::Map(&SNS), "An SNS topic"),
        key("webhook", Kind::Map(&WEBHOOK), "A URL that is posted to"),
    ],
    required: &[],
    later: &[],
};
pub(super) static STDOUT: Schema = Schema {
    name: "`stdout`",
    keys: &[],
    required: &[],
    later: &["format"],
};
pub(super) static FILE: Schema = Schema {
    name: "`file`",
    keys: &[key("path", Kind::Text, "Where it is; appended to")],
    required: &["path"],
    later: &[],
};
pub(super) static SNS: Schema = Schema {
    name: "`sns`",
    keys: &[
        key("topic_arn", Kind::Text, "ARN, or ${NAME}"),
        key("endpoint_url", Kind::Text, "Another endpoint than that of AWS"),
        key("region", Kind::Text, "The topic's own unless given"),
        key(
            "format",
            Kind::Words(&["json", "per_protocol"]),
            "per_protocol: a short text for e-mail and SMS: json",
        ),
        key(
            "max_per_second",
            Kind::Number,
            "Messages a second at the most; per_protocol: 2, json: as fast as it goes",
        ),
    ],
    required: &["topic_arn"],
    later: &[],
};
pub(super) static WEBHOOK: Schema = Schema {
    name: "`webhook`",
    keys: &[
        key("url", Kind::Text, "An https URL, or ${NAME}"),
        key(
            "format",
            Kind::Words(&["json", "slack", "pagerduty", "template"]),
            "The body: json, our own schema",
        ),
        key("template", Kind::Text, "A body of your own, that gives JSON"),
        key("routing_key", Kind::Text, "The integration key of the PagerDuty service"),
        key("secret", Kind::Text, "Signs each request; ${NAME}"),
        key("key_id", Kind::Text, "Tells which secret has signed"),
        key("headers", Kind::Templates, "Sent with each request, such as a token"),
        key("allow_private", Kind::Bool, "The receiver is in our own network: false"),
        key(
            "max_per_second",
            Kind::Number,
            "Messages a second at the most; as fast as it goes unless given",
        ),
    ],
    required: &["url"],
    later: &[],
};
pub(super) static INHIBIT: Schema = Schema {
    name: "an inhibition",
    keys: &[
        key(
            "when",
            Kind::Matchers,
            "The alert that explains: alert, uid, severity, a dimension or a label",
        ),
        key("mute", Kind::Matchers, "The alerts that it explains"),
        key("equal", Kind::Texts, "Dimensions or labels in which both agree"),
    ],
    required: &["when", "mute"],
    later: &[],
};
pub(super) static SILENCE: Schema = Schema {
    name: "a silence",
    keys: &[
        key(
            "id",
            Kind::Text,
            "Names it in what is recorded; made from the author and the start unless given",
        ),
        key(
            "matchers",
            Kind::Matchers,
            "alert, uid, severity, a dimension or a label; * stands for any characters",
        ),
        key("starts", Kind::Time, "When it begins, as 2026-12-01T01:00:00Z"),
        key("ends", Kind::Time, "When it ends"),
        key("author", Kind::Text, "Who asked for it"),
        key("comment", Kind::Text, "Why"),
    ],
    required: &["matchers", "starts", "ends", "author", "comment"],
    later: &[],
};
pub(super) static CALENDAR: Schema = Schema {
    name: "a calendar",
    keys: &[
        key("tz", Kind::Text, "UTC, +01:00 or a name such as Europe/Madrid: UTC"),
        key("days", Kind::Texts, "mon, tue or mon-fri; every day unless given"),
        key("hours", Kind::Text, "08:00-19:00; the whole day unless given"),
        key(
            "dates",
            Kind::Texts,
            "2026-12-25 or 2026-12-24..2026-12-26; every date unless given",
        ),
    ],
    required: &[],
    later: &[],
};

/// Every mapping of the schema.
#[cfg(test)]
pub(super) const ALL: [&Schema; 32] = [
    &TOP,
    &DEFAULTS,
    &GROUP,
    &RULE,
    &VALUE,
    &RATIO,
    &MEAN,
    &QUANTILE,
    &CONFIDENCE,
    &MIN_IMPACTED,
    &SAME_SLOT,
    &SAME_SLOT_WEEKLY,
    &TRAILING,
    &EWMA,
    &PEERS,
    &FIXED,
    &CONDITION,
    &CLEAR,
    &NO_DATA,
    &EVAL_ERROR,
    &STEP,
    &EXPLAIN,
    &NOTIFY,
    &REMEDIATION,
    &TARGET,
    &STDOUT,
    &FILE,
    &SNS,
    &WEBHOOK,
    &INHIBIT,
    &SILENCE,
    &CALENDAR,
];

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn a_key_of_the_schema_is_not_supported_yet_and_any_other_is_unknown() {
        check(
            "console: {stdout: {}}",
            "console: {stdout: {format: json}}",
            r"
alerts/a.yaml:3:22: `format` in `stdout` is not supported yet, at targets.console.stdout.format
    3 |   console: {stdout: {format: json}}
      |                      ^^^^^^ take it out
",
        );
        check(
            "version: 1",
            "version: 1\ndefaults: {uid: x, windw: 5m}",
            r"
alerts/a.yaml:2:12: `uid` cannot have a default, at defaults.uid
    2 | defaults: {uid: x, windw: 5m}
      |            ^^^ write it in each rule
alerts/a.yaml:2:20: unknown key `windw` in `defaults`, at defaults.windw
    2 | defaults: {uid: x, windw: 5m}
      |                    ^^^^^ did you mean `window`?
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        min_sample: 3",
            r"
alerts/a.yaml:13:9: unknown key `min_sample` in a rule, at groups[0].rules[0].min_sample
   13 |         min_sample: 3
      |         ^^^^^^^^^^ did you mean `min_samples`?
",
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}",
            "{ratio: {num: clients_with_errors, den: clients, colour: red}}",
            r"
alerts/a.yaml:10:65: unknown key `colour` in `ratio`, at groups[0].rules[0].value.ratio.colour
   10 |         value: {ratio: {num: clients_with_errors, den: clients, colour: red}}
      |                                                                 ^^^^^^ take it out; the keys are num, den
",
        );
        check(
            "{targets: [console]}",
            "{targets: [console], repeat_intervall: 4h}",
            r"
alerts/a.yaml:14:38: unknown key `repeat_intervall` in `notify`, at groups[0].rules[0].notify.repeat_intervall
   14 |         notify: {targets: [console], repeat_intervall: 4h}
      |                                      ^^^^^^^^^^^^^^^^ did you mean `repeat_interval`?
",
        );
    }
}
