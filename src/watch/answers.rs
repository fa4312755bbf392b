//! Answers of the engine as the rows that rules are judged by.
//!
//! Stands between `sql`, which runs the texts of a rule, and `alert`, which knows no tables: batches in,
//! `MinuteRow` and `SlotRow` out.
//!
//! Invariant: columns are read by their place, which `Rule::queries` and `Rule::history_sql` promise.
//! Invariant: a sum that is null counts nothing and is 0; a value that is no number stays one (NaN), for
//! it means that there is no value.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, TimeUnit, TimestampMicrosecondType};

use crate::alert::rule::SHARED_SUMS;
use crate::alert::{Dims, MinuteRow, SlotRow};
use crate::sql::cause::{floats, texts};

/// Minute rows by the start of their minute.
pub type Minutes = BTreeMap<i64, Vec<MinuteRow>>;

/// Takes in the answer to one of `Rule::queries`.
pub fn add_minutes(by_minute: &mut Minutes, batches: &[RecordBatch], dims: usize) {
    for batch in batches {
        let starts = times(batch.column(0));
        let group = Group::of(batch, 1, dims, 4);
        for (row, start) in starts.iter().enumerate() {
            let minute_ms = start.div_euclid(1000);
            by_minute.entry(minute_ms).or_default().push(MinuteRow {
                minute_ms,
                dims: group.dims(row),
                num: group.sum(0, row),
                den: group.sum(1, row),
                samples: group.sum(2, row),
                impacted: group.sum(3, row),
            });
        }
    }
}

/// The answer to `rule::shared_sql`, taken apart: the minutes of each of its rules.
pub fn shared_minutes(batches: &[RecordBatch], dims: usize, rules: usize) -> Vec<Minutes> {
    let mut minutes = vec![Minutes::new(); rules];
    for batch in batches {
        let starts = times(batch.column(0));
        let group = Group::of(batch, 1, dims, rules * SHARED_SUMS);
        for (row, start) in starts.iter().enumerate() {
            let minute_ms = start.div_euclid(1000);
            for (number, minutes) in minutes.iter_mut().enumerate() {
                let sum = |place: usize| group.sum(number * SHARED_SUMS + place, row);
                if sum(0) == 0.0 {
                    continue;
                }
                minutes.entry(minute_ms).or_default().push(MinuteRow {
                    minute_ms,
                    dims: group.dims(row),
                    num: sum(1),
                    den: sum(2),
                    samples: sum(3),
                    impacted: sum(4),
                });
            }
        }
    }
    minutes
}

/// The answer to `Rule::history_sql`.
pub fn slots(batches: &[RecordBatch], dims: usize) -> Vec<SlotRow> {
    let mut slots = Vec::new();
    for batch in batches {
        let [days, numbers] = [0, 1].map(|index| int32s(batch.column(index)));
        let group = Group::of(batch, 2, dims, 3);
        for row in 0..batch.num_rows() {
            slots.push(SlotRow {
                day: days.value(row),
                slot: numbers.value(row),
                dims: group.dims(row),
                num: group.sum(0, row),
                den: group.sum(1, row),
                samples: group.sum(2, row),
            });
        }
    }
    slots
}

/// Dimensions and sums of an answer, from a given column on.
struct Group {
    dims: Vec<StringArray>,
    sums: Vec<Float64Array>,
}

impl Group {
    fn of(batch: &RecordBatch, first: usize, dims: usize, sums: usize) -> Group {
        let sums = first + dims..first + dims + sums;
        Group {
            dims: (first..first + dims).map(|index| texts(batch.column(index))).collect(),
            sums: sums.map(|index| floats(batch.column(index))).collect(),
        }
    }

    fn dims(&self, row: usize) -> Dims {
        self.dims
            .iter()
            .map(|dim| dim.is_valid(row).then(|| dim.value(row).to_string()))
            .collect()
    }

    fn sum(&self, index: usize, row: usize) -> f64 {
        let sums = &self.sums[index];
        if sums.is_valid(row) { sums.value(row) } else { 0.0 }
    }
}

fn int32s(column: &ArrayRef) -> Int32Array {
    match cast(column, &DataType::Int32) {
        Ok(column) => column.as_primitive::<Int32Type>().clone(),
        Err(_) => Int32Array::from(vec![0; column.len()]),
    }
}

/// Epoch microseconds, whatever the zone.
fn times(column: &ArrayRef) -> Vec<i64> {
    match cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)) {
        Ok(column) => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
        Err(_) => vec![0; column.len()],
    }
}
