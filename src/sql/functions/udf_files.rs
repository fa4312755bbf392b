//! The functions of `pipelines/udfs/*.rs` as SQL functions: same names, same null rules as on Arroyo.
//!
//! `pipelines/build.rs` writes one wrapper a file, between Arrow's columns and the file's own function.
//! A NULL for an argument that is no `Option` gives NULL without a call; an aggregate is called once a
//! group with all its rows, and of no rows at all is NULL.
//!
//! Invariant: what a function is given does not depend on how rows were split.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, StringArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Accumulator, AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udaf, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use crate::udfs as files;

include!(concat!(env!("OUT_DIR"), "/udf_functions.rs"));

/// Makes the functions known to a session.
pub(super) fn register(context: &SessionContext) {
    for function in scalars() {
        context.register_udf(function);
    }
    for function in aggregates() {
        context.register_udaf(function);
    }
}

/// One argument's column, in the type that its function was registered with.
fn column<A: Array + 'static>(columns: &[ArrayRef], at: usize) -> Result<&A> {
    let column = columns.get(at).and_then(|column| column.as_any().downcast_ref::<A>());
    column.ok_or_else(|| DataFusionError::Internal(format!("argument {} has another type than was planned", at + 1)))
}

fn scalar(name: &str, arguments: Vec<DataType>, result: DataType, run: fn(&[ArrayRef], usize) -> Result<ArrayRef>) -> ScalarUDF {
    // Stable, not immutable: some read a file or a key that the environment names.
    create_udf(
        name,
        arguments,
        result,
        Volatility::Stable,
        Arc::new(move |values| {
            let is_one_row = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
            let columns = ColumnarValue::values_to_arrays(values)?;
            let rows = columns.first().map_or(0, |column| column.len());
            let answer = run(&columns, rows)?;
            match is_one_row {
                true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answer, 0)?)),
                false => Ok(ColumnarValue::Array(answer)),
            }
        }),
    )
}

type Aggregate = fn(&[ArrayRef]) -> Result<ScalarValue>;

fn aggregate(name: &str, arguments: Vec<DataType>, result: DataType, run: Aggregate) -> AggregateUDF {
    let list = |data_type: &DataType| DataType::List(Arc::new(Field::new_list_field(data_type.clone(), true)));
    let states = arguments.iter().map(list).collect();
    let (types, empty) = (arguments.clone(), ScalarValue::try_from(&result));
    create_udaf(
        name,
        arguments,
        Arc::new(result),
        Volatility::Stable,
        Arc::new(move |_| {
            let empty = empty.as_ref().map_err(|error| DataFusionError::Internal(error.to_string()))?;
            let columns = types.iter().map(|_| Vec::new()).collect();
            Ok(Box::new(Collected {
                columns,
                types: types.clone(),
                empty: empty.clone(),
                run,
            }))
        }),
        Arc::new(states),
    )
}

/// All rows of a group, in parts as they came; bounded by the memory of the query.
#[derive(Debug)]
struct Collected {
    columns: Vec<Vec<ArrayRef>>,
    types: Vec<DataType>,
    /// What no rows give.
    empty: ScalarValue,
    run: Aggregate,
}

impl Collected {
    fn whole(&self) -> Result<Vec<ArrayRef>> {
        let whole = self.columns.iter().zip(&self.types).map(|(parts, data_type)| {
            let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
            match parts.is_empty() {
                true => Ok(arrow::array::new_empty_array(data_type)),
                false => Ok(concat(&parts)?),
            }
        });
        whole.collect()
    }
}

impl Accumulator for Collected {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (parts, value) in self.columns.iter_mut().zip(values) {
            parts.push(Arc::clone(value));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.whole()?;
        match columns.first().is_none_or(|column| column.is_empty()) {
            true => Ok(self.empty.clone()),
            false => (self.run)(&columns),
        }
    }

    fn size(&self) -> usize {
        // A part is a slice of a batch that all groups share: its own share of it counts.
        let bytes = |part: &ArrayRef| part.to_data().get_slice_memory_size().unwrap_or(0);
        size_of::<Self>() + self.columns.iter().flatten().map(bytes).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |column: ArrayRef| {
            ScalarValue::List(Arc::new(
                datafusion::common::utils::SingleRowListArrayBuilder::new(column).build_list_array(),
            ))
        };
        Ok(self.whole()?.into_iter().map(list).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (parts, lists) in self.columns.iter_mut().zip(states) {
            parts.extend(lists.as_list::<i32>().iter().flatten());
        }
        Ok(())
    }
}
