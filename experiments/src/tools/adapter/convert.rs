//! `adapter export-lora` and `adapter convert`: the same adapter, or the nearest one, in the form of another method.

use std::path::Path;

use burn::module::{Module, ModuleDisplay};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterError, AdapterFiles};

use super::{CONVERT, EXPORT, table};
use crate::cli::output::print;
use crate::run::lock::Lock;

/// A further file of an adapter folder: its name and its content.
pub type Beside = (&'static str, Vec<u8>);

/// Writes the LoRA form, `finished`, and the file `beside` it; prints its modules.
pub fn export_lora<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    finished: impl Fn(AdapterFiles) -> Result<AdapterFiles, AdapterError>,
    beside: Option<Beside>,
    out: &Path,
) -> Result<(), String> {
    let factors = adapted.low_rank().map_err(|e| e.to_string())?;
    let files = adapted.lora_files().and_then(finished).map_err(|e| e.to_string())?;
    write(&files, EXPORT, beside, out)?;
    let rows = factors.iter().map(|(module, low)| {
        let ([r, d_in], [d_out, _]) = (low.a.dims(), low.b.dims());
        let values = r * (d_in + d_out);
        [
            module.clone(),
            r.to_string(),
            format!("{}", low.scale * r as f64),
            values.to_string(),
        ]
    });
    print(table(["module", "r", "lora_alpha", "values"], rows.collect(), 1))?;
    print(format_args!(
        "\n{} modules; written to {}",
        factors.len(),
        out.display()
    ))
}

/// Writes the nearest WeGeFT, `finished`, and the file `beside` it; prints what is lost.
pub fn nearest_wegeft<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    settings: &WegeftConfig,
    finished: impl Fn(AdapterFiles) -> Result<AdapterFiles, AdapterError>,
    beside: Option<Beside>,
    out: &Path,
) -> Result<(), String> {
    let (nearest, report) = adapted.nearest_wegeft(settings).map_err(|e| e.to_string())?;
    let files = finished(nearest.files()).map_err(|e| e.to_string())?;
    write(&files, CONVERT, beside, out)?;
    let percent = |share: f64| format!("{:.3} %", 100.0 * share);
    let mut rows: Vec<_> = report
        .groups()
        .into_iter()
        .map(|(name, lost)| [name.to_string(), percent(lost)])
        .collect();
    rows.push(["all".to_string(), percent(report.lost())]);
    print(table(["group", "lost of the residual's norm"], rows, 1))?;
    let (before, after) = (adapted.summary(), nearest.summary());
    print(format_args!(
        "\n{} values instead of {}; written to {}",
        after.adapter_params,
        before.adapter_params,
        out.display()
    ))
}

/// Writes the files of one adapter, whose values must be finite, while no other process writes another one there.
fn write(adapter: &AdapterFiles, program: &str, beside: Option<Beside>, out: &Path) -> Result<(), String> {
    if let Some((name, _)) = adapter.tensors().iter().find(|(_, tensor)| !tensor.is_finite()) {
        return Err(format!(
            "'{name}' would get NaN or infinite elements: the adapter or the model has such values, or \
             some too large or too small to convert; check their files"
        ));
    }
    let _lock = Lock::for_writing(out)?;
    let beside: Vec<_> = beside.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    adapter.write_as(program, out, &beside).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Map, json};
    use wegeft::storage::{Stored, Tensors};

    use super::*;

    fn adapter(value: f32) -> AdapterFiles {
        let fields = Map::from_iter([("peft_type".to_string(), json!("LORA")), ("r".to_string(), json!(2))]);
        let tensor = Stored {
            shape: vec![1],
            values: vec![value],
        };
        AdapterFiles::new(fields, Tensors::from([("a".to_string(), tensor)]))
    }

    #[test]
    fn an_adapter_stays_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        write(
            &adapter(1.0),
            CONVERT,
            Some(("classifier.json", b"first".to_vec())),
            &out,
        )
        .unwrap();
        assert_eq!(fs::read(out.join("classifier.json")).unwrap(), b"first");
        let names = |out: &Path| fs::read_dir(out).unwrap().count();
        assert_eq!(names(&out), 4);
        // The last file that is staged before the config cannot be: its folder is missing.
        let message = write(&adapter(2.0), CONVERT, Some(("none/classifier.json", Vec::new())), &out).unwrap_err();
        assert!(
            message.contains("cannot write") && message.contains("classifier.json"),
            "{message}"
        );
        assert_eq!(AdapterFiles::read(&out).unwrap().tensors()["a"].values, [1.0]);
        assert_eq!(names(&out), 4);
        write(
            &adapter(2.0),
            CONVERT,
            Some(("classifier.json", b"second".to_vec())),
            &out,
        )
        .unwrap();
        assert_eq!(AdapterFiles::read(&out).unwrap().tensors()["a"].values, [2.0]);
        assert_eq!(fs::read(out.join("classifier.json")).unwrap(), b"second");
        assert_eq!(names(&out), 4);
        // A result without a head leaves no description of the one before, and replaces none of others.
        write(&adapter(3.0), CONVERT, None, &out).unwrap();
        assert_eq!(names(&out), 3);
        fs::write(out.join("classifier.json"), "mine").unwrap();
        write(&adapter(4.0), CONVERT, None, &out).unwrap();
        let message = write(&adapter(5.0), CONVERT, Some(("classifier.json", Vec::new())), &out).unwrap_err();
        assert!(
            message.contains("classifier.json there is not of an earlier"),
            "{message}"
        );
        assert_eq!(fs::read(out.join("classifier.json")).unwrap(), b"mine");
        assert_eq!(AdapterFiles::read(&out).unwrap().tensors()["a"].values, [4.0]);
    }
}
