//! `adapter diff`: two adapter folders, field by field, tensor by tensor and, on a backbone, weight by weight.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use serde_json::{Map, Value};
use wegeft::storage::{Names, PREFIX, Stored, Tensors, collect, read_weights};
use wegeft::{Adapted, site};

use super::inspect::shown;
use super::open::{Opened, Weights, open};
use super::{On, table};
use crate::cli::output::print;

/// Prints what differs.
pub fn diff(first: &Path, second: &Path, backbone: Option<&str>, device: &Device) -> Result<(), String> {
    let (a, b) = (fields(first)?, fields(second)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let cell = |value: Option<&Value>| value.map_or("-".to_string(), shown);
    let rows: Vec<_> = names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| [name.clone(), cell(a.get(name)), cell(b.get(name))])
        .collect();
    match rows.is_empty() {
        true => print("the configs are the same")?,
        false => print(table(["field", "first", "second"], rows, 3))?,
    }
    let read = |folder: &Path| match read_weights(folder) {
        Ok((tensors, _)) => Ok(tensors),
        Err(e) => Err(e.to_string()),
    };
    compare("tensor", &read(first)?, &read(second)?)?;
    let Some(name) = backbone else { return Ok(()) };
    let changed = |folder: &Path| -> Result<Tensors, String> {
        let on = On {
            adapter: folder.to_path_buf(),
            backbone: Some(name.to_string()),
        };
        match open(&on, Weights::Exact, device)? {
            Opened::Vision(opened) => changes(&opened.adapted, &opened.pretrained.model),
            Opened::Language(opened) => changes(&opened.adapted, &opened.plain),
        }
    };
    compare("change of weight", &changed(first)?, &changed(second)?)
}

/// The residual that the adapter adds to each weight of `before` on which it acts.
fn changes<M: Module + ModuleDisplay>(adapted: &Adapted<M>, before: &M) -> Result<Tensors, String> {
    let (merged, report) = adapted.merge_with_report().map_err(|e| e.to_string())?;
    let saved = adapted.own_params();
    let touched: BTreeSet<&str> = report
        .changes
        .iter()
        .map(|change| change.site.as_str())
        .chain(saved.iter().map(|param| param.path.as_str()))
        .collect();
    let names = |model: &M| -> Names {
        site::params(model)
            .into_iter()
            .filter(|param| touched.contains(param.path.as_str()))
            .map(|param| (param.path.clone(), (param.clone(), param.torch_name())))
            .collect()
    };
    let (before, after) = (collect(before, &names(before)), collect(&merged, &names(&merged)));
    Ok(residuals(&before, after))
}

fn fields(folder: &Path) -> Result<Map<String, Value>, String> {
    let config = wegeft::read_config(folder).map_err(|e| e.to_string())?;
    Ok(match serde_json::to_value(&config).map_err(|e| e.to_string())? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    })
}

/// The difference of each weight that changed; a weight that the backbone lacks (a head) is returned unchanged.
fn residuals(before: &Tensors, after: Tensors) -> Tensors {
    let mut changed = Tensors::new();
    for (name, mut tensor) in after {
        match before.get(&name).filter(|old| old.shape == tensor.shape) {
            Some(old) if old.values == tensor.values => continue,
            Some(old) => tensor
                .values
                .iter_mut()
                .zip(&old.values)
                .for_each(|(new, old)| *new -= old),
            None => {}
        }
        changed.insert(name, tensor);
    }
    changed
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn compare(what: &str, a: &Tensors, b: &Tensors) -> Result<(), String> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let short = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_string();
    let of = |tensor: Option<&Stored>| match tensor {
        Some(tensor) => format!("{:?} {:.4}", tensor.shape, norm(tensor.values.iter().copied())),
        None => "-".to_string(),
    };
    let rows = names.into_iter().map(|name| {
        let (a, b) = (a.get(name), b.get(name));
        let difference = match (a, b) {
            (Some(a), Some(b)) if a.shape == b.shape => {
                let off = norm(a.values.iter().zip(&b.values).map(|(a, b)| a - b));
                let size = norm(a.values.iter().copied()).max(norm(b.values.iter().copied()));
                format!("{:.2e}", if size > 0.0 { off / size } else { 0.0 })
            }
            (Some(_), Some(_)) => "other shape".into(),
            (Some(_), None) => "first only".into(),
            _ => "second only".into(),
        };
        [short(name), of(a), of(b), difference]
    });
    let header = [what, "first: shape, norm", "second: shape, norm", "relative difference"];
    print(format_args!("\n{}", table(header, rows.collect(), 3)))
}
