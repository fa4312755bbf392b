//! The keys of a rule file: one schema for each mapping.
//!
//! Stands beside the reading of rules, which refuses every key that is not here.
//!
//! Invariant: a key that the alerts spec names and this release does not read is `later`, so that
//! its author is told so, and it is never passed over.

/// The keys of one mapping: those that work, and those of the schema that do not work yet.
pub(super) struct Schema {
    /// The mapping's name in complaints.
    pub(super) name: &'static str,
    pub(super) known: &'static [&'static str],
    pub(super) later: &'static [&'static str],
}

pub(super) const TOP: Schema = Schema {
    name: "a rule file",
    known: &["version", "defaults", "targets", "groups"],
    later: &["inhibit", "silences", "calendars"],
};
pub(super) const DEFAULTS: Schema = Schema {
    name: "`defaults`",
    known: &["window", "confidence", "for", "severity", "owner", "notify"],
    later: &[
        "slide",
        "lateness",
        "no_data",
        "eval_error",
        "max_alerts",
        "on_late",
        "keep_firing_for",
        "clear",
        "explain",
    ],
};
pub(super) const GROUP: Schema = Schema {
    name: "a group",
    known: &["name", "interval", "rules"],
    later: &[],
};
pub(super) const RULE: Schema = Schema {
    name: "a rule",
    known: &[
        "alert",
        "uid",
        "owner",
        "runbook",
        "from",
        "value",
        "samples",
        "window",
        "group_by",
        "where",
        "min_samples",
        "confidence",
        "baseline",
        "condition",
        "and",
        "for",
        "severity",
        "annotations",
        "labels",
        "notify",
        "enabled",
    ],
    later: &[
        "slide",
        "lateness",
        "min_impacted",
        "clear",
        "keep_firing_for",
        "no_data",
        "eval_error",
        "explain",
        "links",
        "remediation",
        "max_alerts",
        "on_late",
    ],
};
pub(super) const VALUE: Schema = Schema {
    name: "`value`",
    known: &["ratio", "mean"],
    later: &["expr", "quantile", "sql"],
};
pub(super) const RATIO: Schema = Schema {
    name: "`ratio`",
    known: &["num", "den"],
    later: &[],
};
pub(super) const MEAN: Schema = Schema {
    name: "`mean`",
    known: &["sum", "count"],
    later: &[],
};
pub(super) const CONFIDENCE: Schema = Schema {
    name: "`confidence`",
    known: &["method", "z"],
    later: &[],
};
pub(super) const SAME_SLOT: Schema = Schema {
    name: "a `same_slot` baseline",
    known: &["kind", "slot", "lookback", "min_history", "stat", "cold_start"],
    later: &["exclude"],
};
pub(super) const PEERS: Schema = Schema {
    name: "a `peers` baseline",
    known: &["kind", "over", "within", "leave_one_out", "min_peers"],
    later: &["weight"],
};
pub(super) const CONDITION: Schema = Schema {
    name: "a condition",
    known: &["test", "op", "threshold"],
    later: &[],
};
pub(super) const NOTIFY: Schema = Schema {
    name: "`notify`",
    known: &["targets"],
    later: &[
        "group_by",
        "group_wait",
        "group_interval",
        "repeat_interval",
        "send_resolved",
        "active",
    ],
};
pub(super) const TARGET: Schema = Schema {
    name: "a target",
    known: &["stdout", "sns"],
    later: &["webhook"],
};
pub(super) const STDOUT: Schema = Schema {
    name: "`stdout`",
    known: &[],
    later: &["format"],
};
pub(super) const SNS: Schema = Schema {
    name: "`sns`",
    known: &["topic_arn", "endpoint_url", "region"],
    later: &["format", "max_per_second"],
};

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn a_key_of_the_schema_is_not_supported_yet_and_any_other_is_unknown() {
        check(
            "version: 1",
            "version: 1\ninhibit: []",
            r"
alerts/a.yaml:2:1: `inhibit` in a rule file is not supported yet, at inhibit
    2 | inhibit: []
      | ^^^^^^^ take it out
",
        );
        check(
            "version: 1",
            "version: 1\ndefaults: {slide: 1m, min_samples: 3, windw: 5m}",
            r"
alerts/a.yaml:2:12: `slide` in `defaults` is not supported yet, at defaults.slide
    2 | defaults: {slide: 1m, min_samples: 3, windw: 5m}
      |            ^^^^^ take it out
alerts/a.yaml:2:23: `min_samples` cannot have a default, at defaults.min_samples
    2 | defaults: {slide: 1m, min_samples: 3, windw: 5m}
      |                       ^^^^^^^^^^^ write it in each rule
alerts/a.yaml:2:39: unknown key `windw` in `defaults`, at defaults.windw
    2 | defaults: {slide: 1m, min_samples: 3, windw: 5m}
      |                                       ^^^^^ did you mean `window`?
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        explain: {dims: [a]}",
            r"
alerts/a.yaml:13:9: `explain` in a rule is not supported yet, at groups[0].rules[0].explain
   13 |         explain: {dims: [a]}
      |         ^^^^^^^ take it out
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
            "min_samples: 500",
            "min_samples: 500\n        colour: red",
            r"
alerts/a.yaml:13:9: unknown key `colour` in a rule, at groups[0].rules[0].colour
   13 |         colour: red
      |         ^^^^^^ take it out; the keys are alert, uid, owner, runbook, from, value, samples, window, group_by, where, min_samples, confidence, baseline, condition, and, for, severity, annotations, labels, notify, enabled
",
        );
        check(
            "{targets: [console]}",
            "{targets: [console], repeat_interval: 4h}",
            r"
alerts/a.yaml:14:38: `repeat_interval` in `notify` is not supported yet, at groups[0].rules[0].notify.repeat_interval
   14 |         notify: {targets: [console], repeat_interval: 4h}
      |                                      ^^^^^^^^^^^^^^^ take it out
",
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}",
            "{quantile: {sketch: s, q: 0.9}}",
            r"
alerts/a.yaml:10:17: `quantile` in `value` is not supported yet, at groups[0].rules[0].value.quantile
   10 |         value: {quantile: {sketch: s, q: 0.9}}
      |                 ^^^^^^^^ take it out
",
        );
        check(
            "console: {stdout: {}}",
            "console: {stdout: {}}\n  hook: {webhook: {url: x}}",
            r"
alerts/a.yaml:4:10: `webhook` in a target is not supported yet, at targets.hook.webhook
    4 |   hook: {webhook: {url: x}}
      |          ^^^^^^^ take it out
",
        );
    }
}
