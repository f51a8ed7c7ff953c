//! `adapter export-lora` and `adapter convert`: the same adapter, or the nearest, in another method's form.

use std::path::Path;

use wegeft::methods::wegeft::WegeftConfig;

use super::open::Opened;
use super::table;
use crate::output::print;

/// Writes the LoRA form and prints its modules.
pub fn export_lora(opened: &Opened, out: &Path) -> Result<(), String> {
    let factors = opened.adapted.low_rank().map_err(|e| e.to_string())?;
    opened.adapted.export_lora(out).map_err(|e| e.to_string())?;
    opened.describe(out)?;
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

/// Writes the nearest WeGeFT and prints what is lost.
pub fn nearest_wegeft(opened: &Opened, settings: &WegeftConfig, out: &Path) -> Result<(), String> {
    let nearest = opened.adapted.nearest_wegeft(settings);
    let (adapted, report) = nearest.map_err(|e| e.to_string())?;
    adapted.save(out).map_err(|e| e.to_string())?;
    opened.describe(out)?;
    let percent = |share: f64| format!("{:.3} %", 100.0 * share);
    let mut rows: Vec<_> = report
        .groups()
        .into_iter()
        .map(|(name, lost)| [name.to_string(), percent(lost)])
        .collect();
    rows.push(["all".to_string(), percent(report.lost())]);
    print(table(["group", "lost of the residual's norm"], rows, 1))?;
    let (before, after) = (opened.adapted.summary(), adapted.summary());
    print(format_args!(
        "\n{} values instead of {}; written to {}",
        after.adapter_params,
        before.adapter_params,
        out.display()
    ))
}
