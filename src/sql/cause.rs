//! The cause of a change, looked for: two questions to gold, their rows, one search.
//!
//! Stands between the texts of `alert::rule::Why` and the search of `alert::cause`. An alert that fires
//! (`watch`), `explain_change(...)` and `playhead alerts explain` all go through here.
//!
//! Invariant: the rows that a search holds are bounded, in number and in the memory of the query.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use super::{QueryLimits, Session, SqlError, query};
use crate::alert::cause::{Counts, Explanation, Rows, RowsError, explain};
use crate::alert::rule::Why;

/// Why no cause was looked for.
#[derive(Debug, thiserror::Error)]
pub enum CauseError {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// Which of the two questions rows answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Now,
    Before,
}

/// Asks both and searches.
///
/// # Errors
/// What a question says, or more rows than a search takes.
pub async fn look(context: &Session, limits: QueryLimits, why: &Why) -> Result<Explanation, CauseError> {
    let mut rows = Rows::new(&why.dims)?;
    for (side, text) in [(Side::Now, &why.now), (Side::Before, &why.before)] {
        let (_, batches) = query(context, text, limits).await?;
        for batch in &batches {
            add(&mut rows, batch, why.dims.len(), side)?;
        }
    }
    Ok(explain(&rows, why.search))
}

/// Takes in rows of one side: the dimensions, then `num`, `den` and `samples`.
///
/// # Errors
/// More rows than a search takes.
pub fn add(rows: &mut Rows, batch: &RecordBatch, dims: usize, side: Side) -> Result<(), RowsError> {
    let values: Vec<_> = (0..dims).map(|index| texts(batch.column(index))).collect();
    let sums = [0, 1, 2].map(|index| floats(batch.column(dims + index)));
    for row in 0..batch.num_rows() {
        let texts: Vec<Option<&str>> = values.iter().map(|value| value.is_valid(row).then(|| value.value(row))).collect();
        let [num, den, samples] = [0, 1, 2].map(|index: usize| if sums[index].is_valid(row) { sums[index].value(row) } else { 0.0 });
        let counts = match side {
            Side::Now => Counts {
                num,
                den,
                samples,
                ..Counts::default()
            },
            Side::Before => Counts {
                base_num: num,
                base_den: den,
                ..Counts::default()
            },
        };
        rows.push_texts(&texts, counts)?;
    }
    Ok(())
}

/// Texts of a column of any kind of text.
pub fn texts(column: &ArrayRef) -> StringArray {
    match cast(column, &DataType::Utf8) {
        Ok(column) => column.as_string::<i32>().clone(),
        Err(_) => StringArray::new_null(column.len()),
    }
}

/// Doubles of a column of any kind of number.
pub fn floats(column: &ArrayRef) -> Float64Array {
    match cast(column, &DataType::Float64) {
        Ok(column) => column.as_primitive::<Float64Type>().clone(),
        Err(_) => Float64Array::new_null(column.len()),
    }
}
