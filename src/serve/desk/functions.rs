//! Functions that PostgreSQL has and clients count on.
//!
//! Most come from a library; here are those that tell about the server.
//!
//! Invariant: none of them reads a file, and none changes anything.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use datafusion_postgres::datafusion_pg_functions::register_all;

use crate::sql::Session;

/// The release whose dialect is spoken: clients choose their questions by it.
pub const SERVER_VERSION: &str = concat!("16.6 (Playhead ", env!("CARGO_PKG_VERSION"), ")");
pub const SERVER_VERSION_NUM: &str = "160006";

/// What a connection says of itself where it has set nothing.
pub const SETTINGS: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_version_num", SERVER_VERSION_NUM),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("search_path", "gold"),
    ("timezone", "UTC"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("transaction_isolation", "read committed"),
    ("default_transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("default_transaction_read_only", "on"),
    ("standard_conforming_strings", "on"),
    ("integer_datetimes", "on"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("lc_collate", "C"),
    ("is_superuser", "off"),
    ("in_hot_standby", "off"),
    ("jit", "off"),
    ("statement_timeout", "0"),
];

/// Functions that make a long value of a short one. No bound of memory sees a value before it is made, so these
/// would be a way to take all of it; as a table `generate_series` stays.
const WITHOUT_BOUND: &[&str] = &["repeat", "lpad", "rpad", "range", "generate_series", "array_repeat", "array_resize"];

/// Registers them beside our own.
pub fn register(context: &mut Session) {
    register_all(context);
    constant(
        context,
        "version",
        ScalarValue::from(concat!("PostgreSQL 16.6 (Playhead ", env!("CARGO_PKG_VERSION"), ")")),
    );
    constant(context, "pg_is_in_recovery", ScalarValue::Boolean(Some(false)));
    constant(context, "pg_advisory_unlock_all", ScalarValue::Null);
    constant(
        context,
        "pg_postmaster_start_time",
        ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
    );
    constant(context, "inet_server_port", ScalarValue::Int32(None));
    let one = create_udf(
        "current_setting",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(current_setting),
    );
    context.register_udf(one);
    let kept = create_udf(
        "set_config",
        vec![DataType::Utf8, DataType::Utf8, DataType::Boolean],
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(|given: &[ColumnarValue]| {
            given
                .get(1)
                .cloned()
                .ok_or_else(|| DataFusionError::Plan("set_config takes three values".to_owned()))
        }),
    );
    context.register_udf(kept);
    WITHOUT_BOUND.iter().for_each(|name| context.deregister_udf(name));
}

fn constant(context: &Session, name: &str, value: ScalarValue) {
    let data_type = value.data_type();
    let value = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    context.register_udf(create_udf(name, Vec::new(), data_type, Volatility::Stable, Arc::new(value)));
}

fn current_setting(given: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) = given.first() else {
        return Err(DataFusionError::Plan("current_setting takes the name of a setting".to_owned()));
    };
    let name = name.to_lowercase();
    let known = SETTINGS.iter().find(|(known, _)| *known == name);
    Ok(ColumnarValue::Scalar(ScalarValue::Utf8(
        known.map(|(_, value)| (*value).to_owned()),
    )))
}
