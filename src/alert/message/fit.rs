//! A message cut down to what a target takes.
//!
//! Stands behind `message::json` and the senders, which know the limits.
//!
//! Invariant: the same message and limit give the same bytes, valid JSON that keeps the schema.

use serde_json::{Map, Value};

/// Lists of the message whose items are in order of weight: the last item of the largest goes first.
const LISTS: [&str; 3] = ["cause", "members", "lineage"];
/// What is given up whole when no list is left. Without its `remediation` nobody acts on a message,
/// which is safe; half of one would not be.
const TEXTS: [&str; 4] = ["links", "annotations", "labels", "remediation"];

/// The message cut down to so many bytes, as valid JSON that says in `dropped` how many items went.
///
/// What names the alert is never dropped, so that a limit of some kilobytes always holds; the caller
/// checks one that is smaller.
pub fn fit(body: String, max_bytes: usize) -> String {
    if body.len() <= max_bytes {
        return body;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&body) else {
        return body;
    };
    let mut dropped = fields.get("dropped").and_then(Value::as_u64).unwrap_or(0);
    fields.insert("dropped".to_owned(), dropped.into());
    let mut lists = LISTS.map(|name| Weights::of(&fields, name));
    let mut length = weight(&fields);
    while length > max_bytes {
        let before = digits(dropped);
        let Some(bytes) = drop_item(&mut lists).or_else(|| drop_texts(&mut fields)) else {
            break;
        };
        dropped += 1;
        length = length - bytes + digits(dropped) - before;
    }
    for list in lists {
        if let Some(Value::Array(items)) = fields.get_mut(list.name) {
            items.truncate(list.items.len());
        }
    }
    fields.insert("dropped".to_owned(), dropped.into());
    serde_json::to_string(&fields).unwrap_or(body)
}

/// What the items of a list weigh.
struct Weights {
    name: &'static str,
    items: Vec<usize>,
    bytes: usize,
}

impl Weights {
    fn of(fields: &Map<String, Value>, name: &'static str) -> Weights {
        let list = fields.get(name).and_then(Value::as_array);
        let items: Vec<usize> = list.into_iter().flatten().map(weight).collect();
        let bytes = items.iter().sum();
        Weights { name, items, bytes }
    }
}

fn weight(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

fn digits(number: u64) -> usize {
    number.to_string().len()
}

/// Drops the last item of the largest list; returns its bytes, with its comma.
fn drop_item(lists: &mut [Weights]) -> Option<usize> {
    let held = lists.iter_mut().filter(|list| !list.items.is_empty());
    // Of equal lists the first named goes first.
    let largest = held.reduce(|largest, list| if list.bytes > largest.bytes { list } else { largest })?;
    let bytes = largest.items.pop()?;
    largest.bytes -= bytes;
    Some(bytes + usize::from(!largest.items.is_empty()))
}

/// Drops a mapping; returns how many bytes fewer there are.
fn drop_texts(fields: &mut Map<String, Value>) -> Option<usize> {
    let name = TEXTS.into_iter().find(|name| match fields.get(*name) {
        Some(Value::Object(texts)) => !texts.is_empty(),
        _ => false,
    })?;
    // What is optional becomes null, the others an empty mapping: the schema holds.
    let empty = match name {
        "remediation" => Value::Null,
        _ => Value::Object(Map::new()),
    };
    let left = weight(&empty);
    let texts = fields.insert(name.to_owned(), empty)?;
    Some(weight(&texts) - left)
}

#[cfg(test)]
mod tests {
    use super::super::{EXAMPLE, MAX_MESSAGE_BYTES};
    use super::*;

    fn example() -> Value {
        serde_json::from_str(EXAMPLE).unwrap()
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let body = example().to_string();
        assert_eq!(fit(body.clone(), body.len()), body);
        assert_eq!(fit("no JSON at all".to_owned(), 3), "no JSON at all");
    }

    #[test]
    fn the_last_item_of_the_largest_list_goes_first() {
        let mut body = example();
        let member = |index: usize| serde_json::json!({"fingerprint": format!("{index:016}"), "dims": {"isp": "é".repeat(100)}});
        body["members"] = (0..300).map(member).collect();
        let whole = body.to_string();
        let cut = fit(whole.clone(), 40_000);
        assert!(cut.len() <= 40_000 && cut.len() > 39_700, "{}", cut.len());
        let cut = parsed(&cut);
        let left = cut["members"].as_array().unwrap().len();
        assert_eq!(cut["members"][left - 1]["fingerprint"], format!("{:016}", left - 1));
        assert_eq!(cut["dropped"], 300 - left);
        assert_eq!([&cut["cause"], &cut["lineage"]], [&body["cause"], &body["lineage"]]);
        assert_eq!(fit(whole.clone(), 40_000), fit(whole, 40_000));
    }

    #[test]
    fn a_message_that_was_cut_counts_on_when_it_is_cut_again() {
        let mut body = example();
        body["dropped"] = 7.into();
        let cut = parsed(&fit(body.to_string(), body.to_string().len() - 1));
        assert_eq!(cut["dropped"], 8);
    }

    #[test]
    fn what_names_the_alert_is_left_at_the_end() {
        let cut = fit(example().to_string(), 1);
        assert!(cut.len() < 1_500 && MAX_MESSAGE_BYTES > 1_500, "{}", cut.len());
        let cut = parsed(&cut);
        assert_eq!(cut["event_id"], example()["event_id"]);
        assert_eq!(cut["cause"], serde_json::json!([]));
        assert_eq!(cut["labels"], serde_json::json!({}));
        assert_eq!(cut["remediation"], Value::Null);
    }

    #[test]
    fn every_limit_is_kept_or_nothing_is_left_to_drop() {
        let whole = example().to_string();
        let least = fit(whole.clone(), 1).len();
        for limit in least..whole.len() {
            let cut = fit(whole.clone(), limit);
            assert!(cut.len() <= limit, "{} of {limit}", cut.len());
            parsed(&cut);
        }
    }
}
