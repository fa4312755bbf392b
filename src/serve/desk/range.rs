//! Which windows a query's conditions can mean.
//!
//! Stands before the open windows: who asks for last week does not have today computed.
//!
//! Invariant: what cannot be read from a condition bounds nothing.

use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

const MINUTE_US: i64 = 60_000_000;
const WINDOW_START: &str = "window_start";

/// Minutes, both ends included, in which a window may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minutes {
    pub first: i64,
    pub last: i64,
}

impl Minutes {
    const ALL: Minutes = Minutes {
        first: i64::MIN,
        last: i64::MAX,
    };

    /// Reads all conditions, of which each must hold.
    pub fn of(conditions: &[Expr]) -> Minutes {
        let parts = conditions.iter().flat_map(split_conjunction);
        parts.fold(Minutes::ALL, |known, part| known.and(Minutes::of_one(part)))
    }

    fn of_one(condition: &Expr) -> Minutes {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (time_of(left, right), time_of(right, left)) {
                (Some(time_us), _) => Minutes::compared(*op, time_us),
                (None, Some(time_us)) => op.swap().map_or(Minutes::ALL, |op| Minutes::compared(op, time_us)),
                (None, None) => Minutes::ALL,
            },
            Expr::Between(between) if !between.negated => {
                let from = time_of(&between.expr, &between.low).map_or(Minutes::ALL, |time| Minutes::compared(Operator::GtEq, time));
                let to = time_of(&between.expr, &between.high).map_or(Minutes::ALL, |time| Minutes::compared(Operator::LtEq, time));
                from.and(to)
            }
            _ => Minutes::ALL,
        }
    }

    /// `window_start op time`. A minute too many does no harm.
    fn compared(op: Operator, time_us: i64) -> Minutes {
        let minute = time_us.div_euclid(MINUTE_US);
        match op {
            Operator::Eq => Minutes {
                first: minute,
                last: minute,
            },
            Operator::Gt | Operator::GtEq => Minutes {
                first: minute,
                ..Minutes::ALL
            },
            Operator::Lt | Operator::LtEq => Minutes {
                last: minute,
                ..Minutes::ALL
            },
            _ => Minutes::ALL,
        }
    }

    fn and(self, other: Minutes) -> Minutes {
        Minutes {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        }
    }

    pub fn holds(&self, minute: i64) -> bool {
        (self.first..=self.last).contains(&minute)
    }
}

/// The time that the column is compared with, microseconds.
fn time_of(column: &Expr, value: &Expr) -> Option<i64> {
    match (column, value) {
        (Expr::Column(column), Expr::Literal(ScalarValue::TimestampMicrosecond(Some(time_us), _), _)) if column.name == WINDOW_START => {
            Some(*time_us)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    fn at(minute: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(minute * MINUTE_US), Some("UTC".into())))
    }

    #[track_caller]
    fn check(conditions: &[Expr], first: i64, last: i64) {
        assert_eq!(Minutes::of(conditions), Minutes { first, last }, "{conditions:?}");
    }

    #[test]
    fn conditions_on_the_start_of_windows_are_read() {
        let start = || col(WINDOW_START);
        check(&[start().gt_eq(at(10)), start().lt(at(20))], 10, 20);
        check(&[start().gt(at(10)).and(start().lt_eq(at(20)))], 10, 20);
        check(&[start().between(at(10), at(20))], 10, 20);
        check(&[at(10).lt_eq(start())], 10, i64::MAX);
        check(&[start().eq(at(7))], 7, 7);
    }

    #[test]
    fn what_is_not_understood_bounds_nothing() {
        let start = || col(WINDOW_START);
        check(&[], i64::MIN, i64::MAX);
        check(&[start().gt_eq(at(10)).or(start().lt(at(5)))], i64::MIN, i64::MAX);
        check(&[col("window_end").gt_eq(at(10))], i64::MIN, i64::MAX);
        check(&[start().not_between(at(10), at(20))], i64::MIN, i64::MAX);
        check(&[start().not_eq(at(10))], i64::MIN, i64::MAX);
    }
}
