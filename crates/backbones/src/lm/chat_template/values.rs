//! JSON as the values of templates. Objects keep the order of their keys, as Python's do.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde_json::Value as Json;

/// An object of JSON.
#[derive(Debug)]
pub(super) struct Ordered(Vec<(Arc<str>, Value)>);

impl Object for Ordered {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let found = self.0.iter().find(|(name, _)| **name == *key);
        found.map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(name.clone())).collect())
    }
}

/// Any JSON.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(fields) => ordered(fields.iter().map(|(name, json)| (name.as_str(), value(json)))),
    }
}

/// Names that reasoning is passed under. Templates read the first, gpt-oss's the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message, as transformers hands it to a template: without the fields that are null, its reasoning under the names
/// that templates read.
pub(super) fn message(json: &Json) -> Value {
    let Json::Object(fields) = json else {
        return value(json);
    };
    let reasoning = REASONING
        .iter()
        .find_map(|name| fields.get(*name).filter(|json| !json.is_null()));
    let mut pairs: Vec<(&str, Value)> = Vec::new();
    if let Some(reasoning) = reasoning
        && !fields.contains_key(REASONING[1])
    {
        pairs.push((REASONING[1], value(reasoning)));
    }
    let there = fields.iter().filter(|(_, json)| !json.is_null());
    pairs.extend(there.map(|(name, json)| (name.as_str(), value(json))));
    if let Some(reasoning) = reasoning {
        pairs.retain(|(name, _)| *name != REASONING[0]);
        pairs.push((REASONING[0], value(reasoning)));
    }
    ordered(pairs.into_iter())
}

fn ordered<'a>(pairs: impl Iterator<Item = (&'a str, Value)>) -> Value {
    Value::from_object(Ordered(pairs.map(|(name, value)| (Arc::from(name), value)).collect()))
}
