//! Rows in the order of their table, as record batches of bounded size.
//!
//! Stands between an epoch's rows and the lake: the rows are ordered where they stand and become Arrow a
//! part at a time, so that memory holds one part of each table and not two whole copies of the epoch.
//!
//! Invariant: the parts, one after the other, hold each row once, in the order of the sort columns, nulls
//! first, as `lake::commit` sorts what is not made of rows.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::{Column, Get, record_batch, utc_day};

/// Rows of one part. Each column goes over all of them, so the rows should stay in the second-level cache (an
/// event takes some 2 KB); the buffers of one part become the next one's.
const PART_ROWS: usize = 1_024;

/// What two rows are compared by in one column.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'r> {
    Text(Option<Cow<'r, str>>),
    Number(Option<i64>),
}

/// An iterator over the parts.
pub struct Sorted<R> {
    rows: Arc<Vec<R>>,
    columns: Vec<Column<R>>,
    /// Places in `rows`, in order.
    order: Vec<usize>,
    next: usize,
}

impl<R> Sorted<R> {
    /// Orders the rows by the named columns; a list or a map orders nothing.
    pub fn new(columns: Vec<Column<R>>, by: &[String], rows: Arc<Vec<R>>) -> Sorted<R> {
        let order = order(&columns, by, &rows);
        Sorted {
            rows,
            columns,
            order,
            next: 0,
        }
    }
}

impl<R> Iterator for Sorted<R> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.order[self.next..];
        let part: Vec<&R> = rest.iter().take(PART_ROWS).map(|place| &self.rows[*place]).collect();
        if part.is_empty() {
            return None;
        }
        self.next += part.len();
        Some(record_batch(&self.columns, &part))
    }
}

fn order<R>(columns: &[Column<R>], by: &[String], rows: &[R]) -> Vec<usize> {
    let sort_columns = by.iter().filter_map(|name| columns.iter().find(|column| column.name == name));
    let keys: Vec<Vec<Key>> = sort_columns.filter_map(|column| keys(&column.get, rows)).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|one, other| keys.iter().map(|keys| &keys[*one]).cmp(keys.iter().map(|keys| &keys[*other])));
    order
}

fn keys<'r, R>(get: &Get<R>, rows: &'r [R]) -> Option<Vec<Key<'r>>> {
    let rows = rows.iter();
    Some(match get {
        Get::Text(get) => rows.map(|row| Key::Text(get(row).map(Cow::Borrowed))).collect(),
        Get::Made(get) => rows.map(|row| Key::Text(get(row).map(Cow::Owned))).collect(),
        Get::Int(get) | Get::Time(get) => rows.map(|row| Key::Number(get(row))).collect(),
        Get::Date(get) => rows.map(|row| Key::Number(Some(i64::from(utc_day(get(row)))))).collect(),
        Get::Flag(get) => rows.map(|row| Key::Number(get(row).map(i64::from))).collect(),
        Get::Real(_) | Get::Flags(_) | Get::Texts(_) | Get::MadeTexts(_) | Get::Map(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;

    struct Row(Option<&'static str>, i64);

    fn columns() -> Vec<Column<Row>> {
        vec![
            Column::new("name", "a name", Get::Text(|row| row.0)),
            Column::new("number", "a number", Get::Int(|row| Some(row.1))),
        ]
    }

    fn sorted(by: &[&str], rows: Vec<Row>) -> Vec<RecordBatch> {
        let by: Vec<String> = by.iter().map(|name| name.to_string()).collect();
        Sorted::new(columns(), &by, Arc::new(rows))
            .map(|part| part.expect("no column is required"))
            .collect()
    }

    fn check(by: &[&str], expected: [i64; 4]) {
        let rows = vec![Row(Some("b"), 1), Row(None, 2), Row(Some("a"), 4), Row(Some("a"), 3)];
        let parts = sorted(by, rows);
        assert_eq!(parts[0]["number"].as_primitive::<Int64Type>().values(), &expected);
    }

    #[test]
    fn rows_stand_in_the_order_of_the_columns_and_nulls_come_first() {
        check(&["name", "number"], [2, 3, 4, 1]);
        check(&["number"], [1, 2, 3, 4]);
        check(&["name"], [2, 4, 3, 1]);
        check(&[], [1, 2, 4, 3]);
    }

    #[test]
    fn a_long_batch_comes_in_parts_and_each_row_once() {
        let count = i64::try_from(PART_ROWS).expect("a few thousand") * 2 + 1;
        let parts = sorted(&["number"], (0..count).rev().map(|number| Row(None, number)).collect());
        let rows: Vec<usize> = parts.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [PART_ROWS, PART_ROWS, 1]);
        let numbers = parts
            .iter()
            .flat_map(|part| part["number"].as_primitive::<Int64Type>().values().to_vec());
        assert!(numbers.eq(0..count));
    }
}
