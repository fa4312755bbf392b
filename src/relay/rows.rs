//! Rows as records: one line of JSON each, and the key that keeps a session together.
//!
//! Invariant: NULL is left out; times are RFC 3339 in UTC.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;

/// What a row goes by, the first of these that it has.
const KEYS: [&str; 3] = ["session_key", "session_id", "event_id"];

/// Rows on their way to a topic.
pub struct Records {
    /// A line each.
    lines: String,
    keys: Vec<ArrayRef>,
}

impl Records {
    /// # Errors
    /// A column that JSON cannot hold.
    pub fn of(batch: &RecordBatch) -> Result<Records, ArrowError> {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(batch)?;
        writer.finish()?;
        let lines = String::from_utf8(writer.into_inner()).map_err(|error| ArrowError::JsonError(error.to_string()))?;
        let keys = KEYS.iter().filter_map(|name| batch.column_by_name(name).cloned()).collect();
        Ok(Records { lines, keys })
    }

    /// Each line with its key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, String)> {
        self.lines.lines().enumerate().map(|(row, line)| {
            let known = self.keys.iter().find(|column| !column.is_null(row));
            let key = known.and_then(|column| text(column.as_ref(), row));
            (line, key.unwrap_or_default())
        })
    }
}

fn text(column: &dyn Array, row: usize) -> Option<String> {
    let wide = column.as_string_opt::<i32>().map(|column| column.value(row));
    let view = || column.as_string_view_opt().map(|column| column.value(row));
    wide.or_else(view).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn a_row_is_a_line_with_the_key_of_its_session() {
        let times = TimestampMicrosecondArray::from(vec![1_767_225_600_000_000, 1]).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 4] = [
            ("event_id", Arc::new(StringArray::from(vec!["e1", "e2"]))),
            ("event_ts", Arc::new(times)),
            ("session_key", Arc::new(StringArray::from(vec![Some("s1"), None]))),
            ("n", Arc::new(Int64Array::from(vec![Some(7), None]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let records = Records::of(&batch).unwrap();
        let told: Vec<String> = records.iter().map(|(line, key)| format!("{key} {line}")).collect();
        assert_eq!(
            told[0],
            r#"s1 {"event_id":"e1","event_ts":"2026-01-01T00:00:00Z","session_key":"s1","n":7}"#
        );
        assert_eq!(told[1], r#"e2 {"event_id":"e2","event_ts":"1970-01-01T00:00:00.000001Z"}"#);
    }
}
