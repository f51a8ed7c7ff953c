//! The settings that an adapter's tensors were saved with, in the metadata of their file. They tie the two files of a folder
//! together: after a kill between the two writes, or a flipped bit in adapter_config.json, the tensors would otherwise be
//! read with settings that are not theirs.
//!
//! Only fields that change what the adapter computes are kept, so that the others can be edited by hand. A file without this
//! entry, of another program or an older version, is read as it is.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::checkpoint::{LONGEST_HEADER, check_header};
use crate::checksum::{self, Metadata};
use crate::config::AdapterConfig;
use crate::unsupported::is_set;

/// Name of the entry.
const KEY: &str = "adapter_config";

/// Fields that describe an adapter, and those that only its training reads; so do all with `dropout` in their name.
const FREE: [&str; 16] = [
    "auto_mapping",
    "base_model_name_or_path",
    "beta1",
    "beta2",
    "deltaT",
    "freeze_a",
    "inference_mode",
    "loraplus_lr_ratio",
    "orth_reg_weight",
    "peft_version",
    "revision",
    "target_r",
    "task_type",
    "tfinal",
    "tinit",
    "total_step",
];

/// Bytes of a value in a message at most.
const SHORT: usize = 60;

/// The metadata of the tensors of an adapter whose adapter_config.json has these fields.
pub(crate) fn metadata(fields: &Map<String, Value>) -> Metadata {
    vec![(KEY, Value::Object(effective(fields)).to_string())]
}

/// The fields that change what the adapter computes.
fn effective(fields: &Map<String, Value>) -> Map<String, Value> {
    // Of a method that is not of this crate, all fields count.
    let extra = AdapterConfig::from_fields(fields.clone(), &[]).map(|config| config.extra);
    let extra = extra.unwrap_or_default();
    let kept = fields
        .iter()
        .filter(|(name, _)| !extra.contains_key(*name) && !FREE.contains(&name.as_str()) && !name.contains("dropout"));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What is wrong if the tensors in `file`, the bytes of a safetensors file or of its header, were saved with other settings
/// than `fields`.
pub(crate) fn difference(fields: &Map<String, Value>, file: &[u8]) -> Option<String> {
    let saved = saved(file)?;
    let none = Value::Null;
    let of_saved = saved
        .iter()
        .map(|(name, was)| (name, was, fields.get(name).unwrap_or(&none)))
        .find(|(_, was, is)| !is_same(was, is));
    let effective = effective(fields);
    let more = || {
        effective
            .iter()
            .find(|(name, is)| !saved.contains_key(*name) && is_set(is))
            .map(|(name, is)| (name, &none, is))
    };
    let (name, was, is) = of_saved.or_else(more)?;
    let (was, is) = (shown(was), shown(is));
    let found = match was.len().max(is.len()) {
        ..=SHORT => format!("field '{name}' is {is}, but the tensors beside it were saved with {was}"),
        _ => format!("field '{name}' is not what the tensors beside it were saved with"),
    };
    Some(format!(
        "{found}: the file is damaged or belongs to another adapter; set the field back, or copy or write both files again"
    ))
}

fn is_same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|number| b.as_f64() == Some(number))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_string(),
        value => value.to_string(),
    }
}

/// The settings in the metadata of a file; `None` if it has none.
fn saved(file: &[u8]) -> Option<Map<String, Value>> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: BTreeMap<String, String>,
    }
    let header: Header = serde_json::from_slice(file.get(8..checksum::header(file))?).ok()?;
    serde_json::from_str(header.metadata.get(KEY)?).ok()
}

/// The header of the safetensors file at `path`, the eight bytes of its length first; nothing if it cannot be read or is not
/// one of a model, of which whatever reads the tensors will tell.
pub fn header(path: &Path) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = files::open_regular(path)?;
        let mut header = vec![0; 8];
        file.read_exact(&mut header)?;
        let length = header.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        file.take(length.min(LONGEST_HEADER)).read_to_end(&mut header)?;
        Ok(header)
    };
    let header = read().unwrap_or_default();
    match check_header(&header) {
        Ok(()) => header,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{Tensors, pack_with};

    fn fields(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn only_fields_that_change_the_computation_must_stay() {
        let own = json!({
            "peft_type": "LORA", "r": 2, "lora_alpha": 4.0, "lora_dropout": 0.1, "target_modules": ["q"],
            "layers_pattern": null, "base_model_name_or_path": "some/model", "task_type": null, "note": "x",
        });
        let own = fields(own);
        let file = pack_with(Path::new("x"), &Tensors::new(), metadata(&own)).unwrap();
        let changed = |name: &str, value: Value| {
            let mut fields = own.clone();
            fields.insert(name.to_string(), value);
            difference(&fields, &file)
        };
        assert_eq!(difference(&own, &file), None);
        for (name, value) in [
            ("base_model_name_or_path", json!("another/model")),
            ("task_type", json!("CAUSAL_LM")),
            ("lora_dropout", json!(0.5)),
            ("lora_alpha", json!(4)),
            ("note", json!("y")),
            ("another_note", json!("z")),
            ("use_rslora", json!(false)),
        ] {
            assert_eq!(changed(name, value), None, "{name}");
        }
        for (name, value) in [
            ("lora_alpha", json!(8.0)),
            ("lora_alpha", Value::Null),
            ("peft_type", json!("DORA")),
            ("target_modules", json!(["k"])),
            ("use_rslora", json!(true)),
            ("alpha_pattern", json!({ "q": 8.0 })),
            ("layers_pattern", json!(["h"])),
        ] {
            let said = changed(name, value).unwrap_or_default();
            assert!(said.contains(&format!("'{name}'")), "{name}: {said}");
        }
        let said = changed("lora_alpha", json!(8.0)).unwrap();
        assert!(said.contains("is 8.0") && said.contains("saved with 4.0"), "{said}");
        let without = pack_with(Path::new("x"), &Tensors::new(), Metadata::new()).unwrap();
        assert_eq!(difference(&fields(json!({ "r": 3 })), &without), None);
    }

    #[test]
    fn headers_that_lie_hold_no_settings() {
        for file in [
            &b""[..],
            b"\x02\0\0\0\0\0\0\0{",
            b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
            &[b'['; 400],
        ] {
            assert_eq!(saved(file), None);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x");
            std::fs::write(&path, file).unwrap();
            assert_eq!(saved(&header(&path)), None);
        }
        assert!(header(Path::new("/nowhere")).is_empty());
    }
}
