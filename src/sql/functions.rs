//! SQL functions of our own: sketches that coarser tables merge, and the peak of concurrency.
//!
//! ```text
//! sketch_build(bigint) -> binary              percentile sketch of a column, nulls left out
//! sketch_merge(binary) -> binary              the sketch of the union
//! sketch_quantile(binary, double) -> double   within 1 % of the true value; null if empty
//! sketch_count(binary) -> bigint
//! distinct_build(text or bigint), distinct_merge(binary), distinct_count(binary)   the same for distinct counts
//! concurrent_peak(timestamp or bigint, the same) -> bigint   most of the spans [start, end) at one instant
//! ```
//!
//! The files of `pipelines/udfs` are registered too (`udf_files`). Those of a name above are left to
//! Arroyo: an aggregate there holds every row of its window in memory, ours a state that is bounded and
//! merges; both give the same bytes.
//!
//! Invariant: the result does not depend on the order of rows or on how they were split.

mod udf_files;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use datafusion::common::cast::as_binary_array;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, ScalarUDF, Signature, SimpleAggregateUDF, TypeSignature, Volatility, create_udf,
};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use crate::event::schema::timestamp_type;
use crate::sketch::{DistinctSketch, QuantileSketch, SketchError};

/// Makes the functions known to a session.
pub fn register(context: &SessionContext) {
    udf_files::register(context);
    for function in [
        aggregate::<QuantileSketch>("sketch_build", DataType::Int64),
        aggregate::<QuantileSketch>("sketch_merge", DataType::Binary),
        aggregate::<DistinctSketch>("distinct_build", DataType::Utf8),
        aggregate::<DistinctSketch>("distinct_merge", DataType::Binary),
        concurrent_peak(),
    ] {
        context.register_udaf(function);
    }
    for function in [sketch_quantile(), sketch_count(), distinct_count()] {
        context.register_udf(function);
    }
}

/// A sketch as the aggregates need it.
trait Sketch: Default + std::fmt::Debug + Send + Sync + 'static {
    fn insert_all(&mut self, values: &ArrayRef) -> Result<()>;
    fn merge_all(&mut self, sketches: &BinaryArray) -> Result<()>;
    fn bytes(&self) -> Vec<u8>;
    fn is_empty(&self) -> bool;
    fn memory(&self) -> usize;
}

impl Sketch for QuantileSketch {
    fn insert_all(&mut self, values: &ArrayRef) -> Result<()> {
        values
            .as_primitive::<Int64Type>()
            .iter()
            .flatten()
            .for_each(|value| self.insert(value));
        Ok(())
    }

    fn merge_all(&mut self, sketches: &BinaryArray) -> Result<()> {
        for bytes in sketches.iter().flatten() {
            self.merge(&QuantileSketch::from_bytes(bytes).map_err(unreadable)?);
        }
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn memory(&self) -> usize {
        self.memory_bytes()
    }
}

impl Sketch for DistinctSketch {
    fn insert_all(&mut self, values: &ArrayRef) -> Result<()> {
        if let Some(hashes) = values.as_primitive_opt::<Int64Type>() {
            hashes.iter().flatten().for_each(|hash| self.insert_hash(hash as u64));
            return Ok(());
        }
        cast(values, &DataType::Utf8)?
            .as_string::<i32>()
            .iter()
            .flatten()
            .for_each(|text| self.insert(text));
        Ok(())
    }

    fn merge_all(&mut self, sketches: &BinaryArray) -> Result<()> {
        for bytes in sketches.iter().flatten() {
            self.merge(&DistinctSketch::from_bytes(bytes).map_err(unreadable)?);
        }
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn memory(&self) -> usize {
        self.memory_bytes()
    }
}

fn unreadable(error: SketchError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Builds a sketch of a column, or merges a column of sketches.
#[derive(Debug)]
struct SketchOf<S> {
    sketch: S,
    merges: bool,
}

impl<S: Sketch> Accumulator for SketchOf<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.merges {
            return self.merge_batch(values);
        }
        self.sketch.insert_all(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary((!self.sketch.is_empty()).then(|| self.sketch.bytes())))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sketch.memory()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sketch.merge_all(as_binary_array(&cast(&states[0], &DataType::Binary)?)?)
    }
}

fn aggregate<S: Sketch>(name: &str, input: DataType) -> AggregateUDF {
    let merges = input == DataType::Binary;
    // Parquet is read as views, tables in memory are not.
    let inputs = match input {
        DataType::Binary => vec![DataType::Binary, DataType::BinaryView],
        DataType::Utf8 => vec![DataType::Utf8, DataType::Utf8View, DataType::Int64],
        other => vec![other],
    };
    AggregateUDF::from(SimpleAggregateUDF::new_with_signature(
        name,
        Signature::uniform(1, inputs, Volatility::Immutable),
        DataType::Binary,
        Arc::new(move |_| {
            Ok(Box::new(SketchOf {
                sketch: S::default(),
                merges,
            }))
        }),
        vec![Arc::new(Field::new("sketch", DataType::Binary, true))],
    ))
}

/// How many spans begin less how many end, by instant: +1 and -1, added before the greatest sum
/// is taken, so parts of the data can be put together (events and metrics, 3.6).
#[derive(Debug, Default)]
struct Peak {
    steps: BTreeMap<i64, i64>,
}

impl Peak {
    fn step(&mut self, at: i64, by: i64) {
        let steps = self.steps.entry(at).or_default();
        *steps += by;
        // Where one piece of a session ends the next begins: nothing changes there.
        if *steps == 0 {
            self.steps.remove(&at);
        }
    }
}

impl Accumulator for Peak {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (starts, ends) = (cast(&values[0], &DataType::Int64)?, cast(&values[1], &DataType::Int64)?);
        for (start, end) in starts.as_primitive::<Int64Type>().iter().zip(ends.as_primitive::<Int64Type>()) {
            if let (Some(start), Some(end)) = (start, end)
                && start < end
            {
                self.step(start, 1);
                self.step(end, -1);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let running = self.steps.values().scan(0, |active, step| {
            *active += step;
            Some(*active)
        });
        Ok(ScalarValue::Int64(Some(running.max().unwrap_or(0))))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.steps.len() * 2 * size_of::<(i64, i64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::with_capacity(self.steps.len() * 16);
        for (at, by) in &self.steps {
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&by.to_le_bytes());
        }
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in as_binary_array(&states[0])?.iter().flatten() {
            let (steps, _) = bytes.as_chunks::<16>();
            for step in steps {
                let (at, by) = step.split_at(8);
                let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("half of sixteen bytes is eight"));
                self.step(number(at), number(by));
            }
        }
        Ok(())
    }
}

fn concurrent_peak() -> AggregateUDF {
    let both = |data_type: DataType| TypeSignature::Exact(vec![data_type.clone(), data_type]);
    AggregateUDF::from(SimpleAggregateUDF::new_with_signature(
        "concurrent_peak",
        Signature::one_of(vec![both(timestamp_type()), both(DataType::Int64)], Volatility::Immutable),
        DataType::Int64,
        Arc::new(|_| Ok(Box::new(Peak::default()))),
        vec![Arc::new(Field::new("steps", DataType::Binary, true))],
    ))
}

fn sketch_quantile() -> ScalarUDF {
    create_udf(
        "sketch_quantile",
        vec![DataType::Binary, DataType::Float64],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(|arguments| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let quantiles = arrays[1].as_primitive::<Float64Type>();
            let values = as_binary_array(&arrays[0])?.iter().zip(quantiles).map(|(bytes, q)| {
                let (Some(bytes), Some(q)) = (bytes, q) else {
                    return Ok(None);
                };
                Ok(QuantileSketch::from_bytes(bytes).map_err(unreadable)?.quantile(q))
            });
            let values: Float64Array = values.collect::<Result<Vec<_>>>()?.into();
            Ok(ColumnarValue::Array(Arc::new(values)))
        }),
    )
}

fn sketch_count() -> ScalarUDF {
    count_of("sketch_count", |bytes| Ok(QuantileSketch::from_bytes(bytes)?.count()))
}

fn distinct_count() -> ScalarUDF {
    count_of("distinct_count", |bytes| Ok(DistinctSketch::from_bytes(bytes)?.count()))
}

fn count_of(name: &str, count: fn(&[u8]) -> std::result::Result<u64, SketchError>) -> ScalarUDF {
    create_udf(
        name,
        vec![DataType::Binary],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(move |arguments| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let counted = as_binary_array(&arrays[0])?.iter().map(|bytes| match bytes {
                Some(bytes) => Ok(Some(i64::try_from(count(bytes).map_err(unreadable)?).unwrap_or(i64::MAX))),
                None => Ok(None),
            });
            let counted: Int64Array = counted.collect::<Result<Vec<_>>>()?.into();
            Ok(ColumnarValue::Array(Arc::new(counted)))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(query: &str, expected: &str) {
        let context = SessionContext::new();
        register(&context);
        let batches = context.sql(query).await.expect("planned").collect().await.expect("run");
        let column = cast(batches[0].column(0), &DataType::Utf8).expect("text");
        assert_eq!(column.as_string::<i32>().value(0), expected, "{query}");
    }

    #[tokio::test]
    async fn a_merged_sketch_answers_as_the_sketch_of_all() {
        let all = "(VALUES (1, 100), (1, 200), (2, 300), (2, 400), (2, NULL)) AS t(part, ms)";
        let merged = format!("SELECT sketch_merge(s) AS s FROM (SELECT part, sketch_build(ms) AS s FROM {all} GROUP BY part)");
        check(&format!("SELECT sketch_count(s) FROM ({merged})"), "4").await;
        let same = format!("SELECT (SELECT s FROM ({merged})) = (SELECT sketch_build(ms) FROM {all})");
        check(&same, "true").await;
        check(
            &format!("SELECT abs(sketch_quantile(s, 1.0) / 400.0 - 1.0) < 0.01 FROM ({merged})"),
            "true",
        )
        .await;
    }

    #[tokio::test]
    async fn distinct_counts_are_merged_and_not_added() {
        let all = "(VALUES (1, 'a'), (1, 'b'), (2, 'b'), (2, 'c')) AS t(part, client)";
        let merged =
            format!("SELECT distinct_count(distinct_merge(s)) FROM (SELECT part, distinct_build(client) AS s FROM {all} GROUP BY part)");
        check(&merged, "3").await;
    }

    #[tokio::test]
    async fn the_peak_counts_what_is_there_at_one_instant() {
        let time = |second: u32| format!("arrow_cast({second} * 1000000, 'Timestamp(Microsecond, Some(\"UTC\"))')");
        let spans = |list: &[(u32, u32)]| {
            let rows: Vec<String> = list.iter().map(|(from, to)| format!("({}, {})", time(*from), time(*to))).collect();
            format!("SELECT concurrent_peak(a, b) FROM (VALUES {}) AS t(a, b)", rows.join(", "))
        };
        check(&spans(&[(0, 100), (50, 150), (90, 95)]), "3").await;
        check(&spans(&[(0, 60), (60, 100), (100, 100)]), "1").await;
    }
}
