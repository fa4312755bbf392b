//! The JSON Schema of rule files, for editors.
//!
//! Made of the same tables of keys as the reading of rules, so that an editor offers what the reader
//! accepts. It knows keys, words and shapes; columns, tables and templates are checked by
//! `playhead check` alone.
//!
//! Invariant: a key that the reader refuses is refused here too.

use serde_json::{Map, Value, json};

use super::schema::{Kind, SILENCE, Schema, TOP};

/// JSON Schema (draft 2020-12) of a rule file.
pub fn rule_schema() -> Value {
    let mut schema = of_schema(&TOP);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Playhead alert rules");
    schema
}

/// JSON Schema of one silence, as `alerts/silences.yaml` lists them.
pub fn silence_schema() -> Value {
    of_schema(&SILENCE)
}

fn of_schema(schema: &Schema) -> Value {
    let properties: Map<String, Value> = schema
        .keys
        .iter()
        .map(|key| {
            let mut value = of_kind(&key.kind);
            value["description"] = json!(key.help);
            (key.name.to_owned(), value)
        })
        .collect();
    json!({"type": "object", "properties": properties, "required": schema.required, "additionalProperties": false})
}

fn of_kind(kind: &Kind) -> Value {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Texts => texts,
        Kind::Duration => json!({"type": "string", "pattern": "^[0-9]+(s|m|h|d)$"}),
        Kind::Number => json!({"type": "number"}),
        Kind::Share => json!({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^-?[0-9.]+ ?%$"}]}),
        Kind::Whole => json!({"type": "integer"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::Words(words) => json!({"enum": words}),
        Kind::Templates => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Values => json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
        Kind::Matchers => json!({"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [{"type": "string"}, texts]}}),
        Kind::Map(schema) => of_schema(schema),
        Kind::List(schema) => json!({"type": "array", "items": of_schema(schema)}),
        Kind::Named(schema) => json!({"type": "object", "additionalProperties": of_schema(schema)}),
        Kind::Either(kinds) => json!({"anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::{PLAIN, seed_files};

    /// What is wrong with a value: as much of JSON Schema as is used above.
    fn complaints(schema: &Value, value: &Value, path: &str) -> Vec<String> {
        if let Some(choices) = schema["anyOf"].as_array() {
            let all: Vec<Vec<String>> = choices.iter().map(|choice| complaints(choice, value, path)).collect();
            return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
        }
        if let Some(words) = schema["enum"].as_array() {
            return if words.contains(value) {
                Vec::new()
            } else {
                vec![format!("{path}: not a word")]
            };
        }
        let has_type = |name: &str| schema["type"] == name || schema["type"].as_array().is_some_and(|types| types.contains(&json!(name)));
        let fits = match value {
            Value::String(_) => has_type("string"),
            Value::Number(number) => has_type("number") || (number.is_i64() && has_type("integer")),
            Value::Bool(_) => has_type("boolean"),
            Value::Array(_) => has_type("array"),
            Value::Object(_) => has_type("object"),
            Value::Null => false,
        };
        if !fits {
            return vec![format!("{path}: {value} is no {}", schema["type"])];
        }
        let mut found = Vec::new();
        for item in value.as_array().into_iter().flatten() {
            found.extend(complaints(&schema["items"], item, path));
        }
        for (key, item) in value.as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            match schema["properties"].get(key) {
                Some(of_key) => found.extend(complaints(of_key, item, &path)),
                None if schema["additionalProperties"].is_object() => {
                    found.extend(complaints(&schema["additionalProperties"], item, &path));
                }
                None => found.push(format!("{path}: no such key")),
            }
        }
        for key in schema["required"].as_array().into_iter().flatten() {
            if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                found.push(format!("{path}: {key} is missing"));
            }
        }
        found
    }

    fn as_json(yaml: &str) -> Value {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn every_shipped_rule_fits_the_schema_of_the_editor() {
        for (name, text) in seed_files() {
            assert_eq!(complaints(&rule_schema(), &as_json(&text), &name), Vec::<String>::new());
        }
    }

    #[test]
    fn the_schema_of_the_editor_refuses_what_the_reader_refuses() {
        let check = |old: &str, new: &str, expected: &str| {
            let text = PLAIN.replace(old, new);
            let found = complaints(&rule_schema(), &as_json(&text), "");
            assert!(found.iter().any(|complaint| complaint == expected), "{found:?}");
        };
        check("uid: errors", "uidd: errors", ".groups.rules.uidd: no such key");
        check("threshold: 5%", "threshhold: 5%", ".groups.rules.condition.threshhold: no such key");
        check(
            "min_samples: 100",
            "min_samples: many",
            ".groups.rules.min_samples: \"many\" is no \"integer\"",
        );
        check("method: none", "method: nine", ".groups.rules.confidence.method: not a word");
    }

    #[test]
    fn every_key_is_explained() {
        fn walk(schema: &Value, path: &str) {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                let help = value["description"].as_str().unwrap_or("");
                assert!(!help.is_empty(), "{path}.{key}");
                walk(value, key);
                walk(&value["items"], key);
            }
        }
        walk(&rule_schema(), "");
        assert!(silence_schema()["properties"]["author"].is_object());
    }
}
