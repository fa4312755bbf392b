//! Which rows of a window stand: the rule by which results replace earlier ones.
//!
//! Results of one window come one by one, in one partition and so in order. A row is named by its window and its
//! dimensions; within the results of one text the later row of a name replaces the earlier one. A row that another
//! text made begins the window anew: nothing of the earlier text is left in it.
//!
//! Invariant: the same records in the same order give the same rows, however they are cut into batches.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use crate::arroyo::MADE_BY;
use crate::sql::pipeline::PIPELINE_HASH;

type Name = Box<[u8]>;

/// What names the rows of a table within their window.
#[derive(Debug, Clone)]
pub struct Naming {
    columns: Vec<(String, DataType)>,
}

impl Naming {
    pub fn new(dimensions: &[String], schema: &SchemaRef) -> Naming {
        let typed = |name: &String| Some((name.clone(), schema.field_with_name(name).ok()?.data_type().clone()));
        Naming {
            columns: dimensions.iter().filter_map(typed).collect(),
        }
    }

    fn names(&self, batch: &RecordBatch) -> Result<Vec<Name>, ArrowError> {
        if self.columns.is_empty() {
            return Ok(vec![Name::default(); batch.num_rows()]);
        }
        let fields = self
            .columns
            .iter()
            .map(|(_, data_type)| SortField::new(data_type.clone()))
            .collect();
        let column = |(name, data_type): &(String, DataType)| cast(&batch[name.as_str()], data_type);
        let columns: Vec<ArrayRef> = self.columns.iter().map(column).collect::<Result<_, _>>()?;
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }
}

/// What new results mean for one window.
#[derive(Debug, Default, PartialEq, Eq)]
struct Window {
    made_by: Option<String>,
    /// A further text came within these results: of what is stored nothing is left.
    is_begun_anew: bool,
    names: HashSet<Name>,
}

/// New results, put together.
#[derive(Debug)]
pub struct Merged {
    /// The rows that stand, in the columns that they came in.
    pub rows: RecordBatch,
    /// Rows that later ones of the same results replaced.
    pub superseded: usize,
    /// By the start of the window, microseconds.
    windows: BTreeMap<i64, Window>,
    naming: Naming,
}

/// Puts results together, in the order in which they came.
///
/// # Errors
/// A column cannot be read.
pub fn merge(results: &RecordBatch, naming: &Naming) -> Result<Merged, ArrowError> {
    let starts = results["window_start"].as_primitive::<TimestampMicrosecondType>();
    let texts = cast(&results[MADE_BY], &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
    let mut standing: BTreeMap<i64, HashMap<Name, u32>> = BTreeMap::new();
    for (row, name) in (0u32..).zip(naming.names(results)?) {
        let at = row as usize;
        let (start, made_by) = (starts.value(at), texts.is_valid(at).then(|| texts.value(at)));
        let rows = standing.entry(start).or_default();
        let window = windows.entry(start).or_insert_with(|| Window {
            made_by: made_by.map(str::to_owned),
            ..Window::default()
        });
        if window.made_by.as_deref() != made_by {
            rows.clear();
            *window = Window {
                made_by: made_by.map(str::to_owned),
                is_begun_anew: true,
                names: HashSet::new(),
            };
        }
        window.names.insert(name.clone());
        rows.insert(name, row);
    }
    let mut kept: Vec<u32> = standing.into_values().flat_map(HashMap::into_values).collect();
    kept.sort_unstable();
    Ok(Merged {
        superseded: results.num_rows() - kept.len(),
        rows: take_record_batch(results, &UInt32Array::from(kept))?,
        windows,
        naming: naming.clone(),
    })
}

impl Merged {
    /// First and last start of a window, microseconds.
    pub fn span_us(&self) -> Option<(i64, i64)> {
        Some((*self.windows.first_key_value()?.0, *self.windows.last_key_value()?.0))
    }

    /// Marks the stored rows that these results replace.
    ///
    /// # Errors
    /// A column cannot be read.
    pub fn replaces(&self, stored: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let starts = stored["window_start"].as_primitive::<TimestampMicrosecondType>();
        let texts = cast(&stored[PIPELINE_HASH], &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let names = self.naming.names(stored)?;
        let is_replaced = |row: usize| {
            let Some(window) = self.windows.get(&starts.value(row)) else {
                return false;
            };
            let made_by = texts.is_valid(row).then(|| texts.value(row));
            window.is_begun_anew || window.made_by.as_deref() != made_by || window.names.contains(&names[row])
        };
        Ok((0..stored.num_rows()).map(|row| Some(is_replaced(row))).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    /// Window, CDN (a dimension), requests (a measure), text.
    type Row = (i64, Option<&'static str>, i64, &'static str);

    fn batch(rows: &[Row], text_column: &str) -> RecordBatch {
        let columns: [(&str, ArrayRef); 4] = [
            (
                "window_start",
                Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0))),
            ),
            ("cdn", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1)))),
            ("requests", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
            (text_column, Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3)))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn naming() -> Naming {
        Naming::new(&["cdn".to_owned()], &batch(&[], MADE_BY).schema())
    }

    fn merged(rows: &[Row]) -> Merged {
        merge(&batch(rows, MADE_BY), &naming()).unwrap()
    }

    fn requests(batch: &RecordBatch) -> Vec<i64> {
        batch["requests"].as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    }

    /// What a table holds after these results, cut into batches of so many.
    fn table_after(rows: &[Row], cut: usize) -> Vec<i64> {
        let mut stored: Vec<(i64, Option<&'static str>, i64, &'static str)> = Vec::new();
        for part in rows.chunks(cut) {
            let merged = merged(part);
            let is_replaced = merged.replaces(&batch(&stored, PIPELINE_HASH)).unwrap();
            let mut replaced = is_replaced.values().iter();
            stored.retain(|_| !replaced.next().unwrap());
            let standing = requests(&merged.rows);
            stored.extend(part.iter().filter(|row| standing.contains(&row.2)).copied());
        }
        let mut requests: Vec<i64> = stored.iter().map(|row| row.2).collect();
        requests.sort_unstable();
        requests
    }

    #[track_caller]
    fn check(rows: &[Row], expected: &[i64]) {
        for cut in 1..=rows.len() {
            assert_eq!(table_after(rows, cut), expected, "in batches of {cut}");
        }
    }

    #[test]
    fn the_later_row_of_a_name_replaces_the_earlier_one_and_no_other() {
        check(
            &[
                (0, Some("a"), 1, "t"),
                (0, None, 2, "t"),
                (60, Some("a"), 3, "t"),
                (0, Some("a"), 4, "t"),
            ],
            &[2, 3, 4],
        );
    }

    #[test]
    fn another_text_begins_the_window_anew() {
        check(
            &[
                (0, Some("a"), 1, "t"),
                (0, Some("b"), 2, "t"),
                (60, Some("a"), 3, "t"),
                (0, Some("a"), 4, "u"),
            ],
            &[3, 4],
        );
        check(
            &[
                (0, Some("a"), 1, "t"),
                (0, Some("b"), 2, "u"),
                (0, Some("c"), 3, "t"),
                (0, Some("d"), 4, "t"),
            ],
            &[3, 4],
        );
    }

    #[test]
    fn rows_that_come_in_parts_stand_side_by_side() {
        check(
            &[(0, Some("a"), 1, "t"), (0, Some("b"), 2, "t"), (0, Some("c"), 3, "t")],
            &[1, 2, 3],
        );
    }

    #[test]
    fn what_is_replaced_at_once_is_counted() {
        assert_eq!(
            merged(&[(0, Some("a"), 1, "t"), (0, Some("a"), 2, "t"), (0, Some("b"), 3, "u")]).superseded,
            2
        );
    }
}
