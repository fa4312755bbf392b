//! One UDF file behind Arroyo's own plugin against its vectors. `compile_udfs.sh` puts this beside each.
//!
//! Goes the way that a worker goes: columns over the plugin's foreign function interface into `__run`.

use UDF_CRATE as udf;
use arroyo_udf_plugin::arrow::array::{Array, ArrayData, BinaryArray, Float64Array, Int64Array, StringArray, make_array};
use arroyo_udf_plugin::arrow::ffi::from_ffi;
use arroyo_udf_plugin::{FfiArraySchema, FfiArrays, RunResult};
use serde_json::{Value, json};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn column(values: &[Value], sql_type: &str) -> ArrayData {
    match sql_type {
        "text" => values.iter().map(Value::as_str).collect::<StringArray>().to_data(),
        "bigint" => values.iter().map(Value::as_i64).collect::<Int64Array>().to_data(),
        "double" => values.iter().map(Value::as_f64).collect::<Float64Array>().to_data(),
        "bytea" => values.iter().map(|hex| hex.as_str().map(bytes)).collect::<BinaryArray>().to_data(),
        other => panic!("no type {other}"),
    }
}

fn answers(data: ArrayData) -> Vec<Value> {
    let array = make_array(data);
    let any = array.as_any();
    let at = |row: usize| match () {
        () if array.is_null(row) => Value::Null,
        () if any.is::<StringArray>() => json!(any.downcast_ref::<StringArray>().unwrap().value(row)),
        () if any.is::<Int64Array>() => json!(any.downcast_ref::<Int64Array>().unwrap().value(row)),
        () if any.is::<Float64Array>() => json!(any.downcast_ref::<Float64Array>().unwrap().value(row)),
        () => {
            let value = any.downcast_ref::<BinaryArray>().unwrap().value(row);
            json!(value.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    };
    (0..array.len()).map(at).collect()
}

fn run(columns: Vec<ArrayData>) -> Vec<Value> {
    match udf::__run(FfiArrays::from_vec(columns)) {
        // The plugin made both parts of the pair a moment ago.
        RunResult::Ok(FfiArraySchema(array, schema)) => answers(unsafe { from_ffi(array, &schema) }.unwrap()),
        RunResult::Err => panic!("the function panicked"),
    }
}

#[test]
fn the_function_answers_its_vectors() {
    let name = "UDF_NAME";
    let all: Value = serde_json::from_str(&std::fs::read_to_string(std::env::var("UDF_VECTORS").unwrap()).unwrap()).unwrap();
    let (function, vectors) = (&all[name], all[name]["vectors"].as_array().unwrap());
    let types: Vec<&str> = function["takes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let calls: Vec<Vec<Vec<Value>>> = match function["aggregate"].as_bool() {
        Some(true) => vectors
            .iter()
            .map(|vector| serde_json::from_value(vector["arguments"].clone()).unwrap())
            .collect(),
        _ => {
            let rows = |at: usize| vectors.iter().map(|vector| vector["arguments"][at].clone()).collect();
            vec![(0..types.len()).map(rows).collect()]
        }
    };
    let given = calls
        .iter()
        .flat_map(|call| run(call.iter().zip(&types).map(|(values, of)| column(values, of)).collect()));
    for (answer, vector) in given.zip(vectors) {
        assert_eq!(answer, vector["gives"], "{name}{}", vector["arguments"]);
    }
}
