//! How many samples a value needs, how many must be hit, and how sure it must be.
//!
//! Stands in the reading of rules, over what the rule measures.
//!
//! Invariant: a confidence bound is used only where it has a meaning.

use super::super::schema::{CONFIDENCE, MIN_IMPACTED};
use super::super::yaml::Node;
use super::super::{Confidence, Measure, MinImpacted, Sum};
use super::FileReader;
use super::field::{Entry, Fields};

const DEFAULT_Z: f64 = 3.0;

impl FileReader<'_, '_> {
    pub(super) fn min_samples(&mut self, fields: &Fields, uid: Option<&str>, of_metric: Option<i64>) -> Option<i64> {
        if let Some(entry) = fields.get("min_samples") {
            return self.whole_number(&entry, 1);
        }
        if fields.get("metric").is_none() {
            let message = format!("rule `{}` has no `min_samples`", uid.unwrap_or("?"));
            let fix = "add `min_samples: <n>`; with 25 sessions a healthy 3 % group breaches 5 % in 17 % of windows";
            self.complain(&fields.place, message, fix);
        }
        of_metric
    }

    /// How many must be hit, and what counts them: the numerator of a ratio unless the rule says.
    pub(super) fn min_impacted(
        &mut self,
        fields: &Fields,
        measure: Option<&Measure>,
        columns: Option<&[String]>,
    ) -> (Option<MinImpacted>, Option<Sum>) {
        let Some(fields) = fields.get("min_impacted").and_then(|entry| self.fields(entry, &MIN_IMPACTED)) else {
            return (None, None);
        };
        let impacted = match (fields.get("of"), measure) {
            (Some(of), _) => self.expression(&of, columns).map(Sum::Of),
            (None, Some(Measure::Ratio { num, .. })) => Some(num.clone()),
            (None, _) => {
                self.complain(&fields.place, "`of` is missing: this value has no numerator", "add `of: <column>`");
                None
            }
        };
        let count = fields.get("devices").and_then(|entry| self.whole_number(&entry, 0));
        let share = fields.get("share").and_then(|entry| self.share(&entry));
        let least = MinImpacted {
            count: count.unwrap_or(0) as f64,
            share: share.unwrap_or(0.0),
        };
        (Some(least), impacted)
    }

    fn confidence_of(&mut self, entry: Entry) -> Option<Confidence> {
        let fields = self.fields(entry, &CONFIDENCE)?;
        let method = self.required(&fields, "method", "write `method: wilson`, `normal` or `none`")?;
        let z = self.z(&fields);
        let methods = [
            ("wilson", Confidence::Wilson { z }),
            ("normal", Confidence::Normal { z }),
            ("none", Confidence::None),
        ];
        self.word(&method, &methods, &[])
    }

    fn z(&mut self, fields: &Fields) -> f64 {
        let Some(entry) = fields.get("z") else {
            return DEFAULT_Z;
        };
        match entry.value {
            Node::Int(z @ 1..=10) => *z as f64,
            Node::Float(z) if *z > 0.0 && *z <= 10.0 => *z,
            _ => {
                let fix = "write a number above 0, at most 10; 3 is usual";
                self.complain(&entry.place, "`z` does not fit", fix);
                DEFAULT_Z
            }
        }
    }

    /// The bound that the value admits. A default that does not fit is passed over; a bound that
    /// the rule itself asks for and that has no meaning is a complaint.
    pub(super) fn fitting_confidence(&mut self, fields: &Fields, measure: &Measure, samples: Option<&Sum>) -> Confidence {
        let is_ratio = matches!(measure, Measure::Ratio { .. });
        let is_share =
            matches!((measure, samples), (Measure::Ratio { den, .. }, Some(samples)) if den == samples) && fields.get("samples").is_none();
        let fits = |confidence: &Confidence| match confidence {
            Confidence::None => true,
            Confidence::Wilson { .. } => is_share,
            Confidence::Normal { .. } => is_ratio,
        };
        let Some(asked) = fields.own("confidence") else {
            let usual = if is_share {
                Confidence::Wilson { z: DEFAULT_Z }
            } else {
                Confidence::None
            };
            let default = fields.default("confidence").and_then(|entry| self.confidence_of(entry));
            return default.filter(fits).unwrap_or(usual);
        };
        let Some(asked) = self.confidence_of(asked) else {
            return Confidence::None;
        };
        if fits(&asked) {
            return asked;
        }
        let (message, fix) = match asked {
            Confidence::Wilson { .. } => (
                "wilson holds only for a ratio that counts a part of its denominator",
                "write `method: none`, or `normal` for a ratio with its own `samples`",
            ),
            _ => (
                "normal needs a spread, and a mean of sums has none",
                "write `method: none` and a larger `min_samples`",
            ),
        };
        self.complain(&fields.place_of("confidence"), message, fix);
        Confidence::None
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;
    use crate::alert::fixture::seed_rule;

    #[test]
    fn a_share_is_bounded_by_wilson_unless_it_has_samples_of_its_own() {
        let z3 = Confidence::Wilson { z: 3.0 };
        let with = |text: &str| parsed("min_samples: 500", &format!("min_samples: 500\n        {text}")).confidence;
        assert_eq!(with("enabled: true"), z3);
        assert_eq!(with("samples: clients"), Confidence::None);
        assert_eq!(with("confidence: {method: none}"), Confidence::None);
        let normal = "samples: clients\n        confidence: {method: normal, z: 2.5}";
        assert_eq!(with(normal), Confidence::Normal { z: 2.5 });
        assert_eq!(seed_rule("cdn-latency-baseline").confidence, Confidence::None);
        assert_eq!(seed_rule("isp-rebuffering-peers").confidence, Confidence::None);
    }

    #[test]
    fn a_rule_says_how_many_samples_it_needs() {
        check(
            "        min_samples: 500\n",
            "",
            r"
alerts/a.yaml:7:9: rule `errors` has no `min_samples`, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `min_samples: <n>`; with 25 sessions a healthy 3 % group breaches 5 % in 17 % of windows
",
        );
        check(
            "min_samples: 500",
            "min_samples: 0",
            r"
alerts/a.yaml:12:22: a whole number is needed, at groups[0].rules[0].min_samples
   12 |         min_samples: 0
      |                      ^ write a whole number, 1 or more
",
        );
        check(
            "min_samples: 500",
            "min_samples: many",
            r"
alerts/a.yaml:12:22: a whole number is needed, at groups[0].rules[0].min_samples
   12 |         min_samples: many
      |                      ^^^^ write a whole number, 1 or more
",
        );
    }

    #[test]
    fn confidence_must_mean_something() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        samples: clients\n        confidence: {method: wilson}",
            r"
alerts/a.yaml:14:21: wilson holds only for a ratio that counts a part of its denominator, at groups[0].rules[0].confidence
   14 |         confidence: {method: wilson}
      |                     ^ write `method: none`, or `normal` for a ratio with its own `samples`
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        confidence: {method: wilson, z: 50}",
            r"
alerts/a.yaml:13:41: `z` does not fit, at groups[0].rules[0].confidence.z
   13 |         confidence: {method: wilson, z: 50}
      |                                         ^^ write a number above 0, at most 10; 3 is usual
",
        );
        check(
            r#"{ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type, app_name]
        min_samples: 500
        condition: {test: value, op: ">", threshold: 5%}"#,
            r#"{mean: {sum: clients_with_errors, count: clients}}
        min_samples: 500
        confidence: {method: normal}
        condition: {test: value, op: ">", threshold: 5}"#,
            r"
alerts/a.yaml:12:21: normal needs a spread, and a mean of sums has none, at groups[0].rules[0].confidence
   12 |         confidence: {method: normal}
      |                     ^ write `method: none` and a larger `min_samples`
",
        );
    }
}
