//! `adapter export-lora` and `adapter convert`: the same adapter, or the nearest one, in the form of another method.

use std::path::Path;

use burn::module::{Module, ModuleDisplay};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterError, AdapterFiles};

use super::table;
use crate::cli::output::print;
use crate::run::lock::Lock;

/// Writes the LoRA form, `finished`, and whatever `describe` writes beside it; prints its modules.
pub fn export_lora<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    finished: impl Fn(AdapterFiles) -> Result<AdapterFiles, AdapterError>,
    describe: impl FnOnce() -> Result<(), String>,
    out: &Path,
) -> Result<(), String> {
    let factors = adapted.low_rank().map_err(|e| e.to_string())?;
    let files = adapted.lora_files().and_then(finished).map_err(|e| e.to_string())?;
    write(&files, describe, out)?;
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

/// Writes the nearest WeGeFT, `finished`, and whatever `describe` writes beside it; prints what is lost.
pub fn nearest_wegeft<M: Module + ModuleDisplay>(
    adapted: &Adapted<M>,
    settings: &WegeftConfig,
    finished: impl Fn(AdapterFiles) -> Result<AdapterFiles, AdapterError>,
    describe: impl FnOnce() -> Result<(), String>,
    out: &Path,
) -> Result<(), String> {
    let (nearest, report) = adapted.nearest_wegeft(settings).map_err(|e| e.to_string())?;
    let files = finished(nearest.files()).map_err(|e| e.to_string())?;
    write(&files, describe, out)?;
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

/// Writes the files of one adapter while no other process writes another one there.
fn write(files: &AdapterFiles, describe: impl FnOnce() -> Result<(), String>, out: &Path) -> Result<(), String> {
    let _lock = Lock::for_writing(out)?;
    files.write(out).map_err(|e| e.to_string())?;
    describe()
}
