//! The `adapter` program: inspects, merges, exports, compares and converts adapter folders.

mod convert;
mod diff;
mod inspect;
mod merge;
mod merge_lm;
mod open;

use std::path::PathBuf;

use backbones::lm::Precision;
use backbones::lm::adapter::for_peft;
use clap::{Parser, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use wegeft::{Sharing, Side};

use crate::tools::flags::DTYPES;
use open::{Opened, Weights, open};

/// Works on adapter folders (adapter_config.json and adapter_model.safetensors, Hugging Face PEFT's layout) of vision
/// transformers and language models.
#[derive(Debug, Parser)]
pub struct Args {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, global = true, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
}

/// An adapter and its backbone.
#[derive(Debug, clap::Args)]
pub struct On {
    /// Adapter folder.
    pub adapter: PathBuf,
    /// Vision transformer or language model: a folder, .safetensors file or hub name [default: the model that the
    /// adapter was trained on, as recorded in its folder (base_model_name_or_path), or the one that ships with the
    /// program].
    #[arg(long = "model", alias = "backbone", value_name = "MODEL")]
    pub backbone: Option<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the config and the tensors of an adapter: shapes, counts, norms. Needs no backbone.
    Inspect {
        /// Adapter folder.
        adapter: PathBuf,
        /// Print one row per tensor, instead of one row for all layers.
        #[arg(long)]
        all: bool,
    },
    /// Compares two adapters: fields, tensors and, with --model, what they do to each weight.
    Diff {
        /// Adapter folder.
        first: PathBuf,
        /// Adapter folder.
        second: PathBuf,
        /// Backbone whose changed weights are compared; the methods of the adapters may differ.
        #[arg(long = "model", alias = "backbone", value_name = "MODEL")]
        backbone: Option<String>,
    },
    /// Merges the adapter into the backbone's weights and writes the result, a backbone folder.
    Merge {
        /// Adapter and backbone.
        #[command(flatten)]
        on: On,
        /// Folder for config.json and model.safetensors, with timm's fields and names for a vision transformer, or
        /// those of the checkpoint, and its tokenizer, for a language model.
        #[arg(long, alias = "output-dir")]
        out: PathBuf,
        /// Data type of a language model's merged weights [default: the checkpoint's].
        #[arg(long, value_parser = DTYPES)]
        dtype: Option<String>,
    },
    /// Writes the adapter as standard LoRA, which PEFT, vLLM and llama.cpp read.
    ExportLora {
        /// Adapter and backbone.
        #[command(flatten)]
        on: On,
        /// Adapter folder to write.
        #[arg(long, alias = "output-dir")]
        out: PathBuf,
    },
    /// Converts an adapter with low-rank residuals, such as LoRA, to the nearest WeGeFT adapter, and shows what is
    /// lost.
    Convert {
        /// Adapter and backbone.
        #[command(flatten)]
        on: On,
        /// Adapter folder to write.
        #[arg(long, alias = "output-dir")]
        out: PathBuf,
        /// Rank of WeGeFT.
        #[arg(long, default_value_t = 16)]
        r: usize,
        /// Numerator of the scale alpha / r [default: the rank].
        #[arg(long, allow_negative_numbers = true)]
        alpha: Option<f64>,
        /// Which modules share phi and psi: kind, all or site.
        #[arg(long, default_value = "kind", value_parser = sharing)]
        sharing: Sharing,
        /// Side of the weight to edit: input or output.
        #[arg(long, default_value = "input", value_parser = side)]
        side: Side,
    },
}

/// Runs the program.
///
/// # Errors
/// One sentence: a folder that cannot be read or written, an adapter that does not fit or has no such form.
pub fn adapter(args: &Args) -> Result<(), String> {
    let device = crate::cli::device::device(&args.device)?;
    match &args.command {
        Command::Inspect { adapter, all } => inspect::inspect(adapter, *all),
        Command::Diff {
            first,
            second,
            backbone,
        } => diff::diff(first, second, backbone.as_deref(), &device),
        Command::Merge { on, out, dtype } => {
            let parse = |name: &String| name.parse::<Precision>().map_err(|e| format!("--dtype: {e}"));
            let dtype = dtype.as_ref().map(parse).transpose()?;
            match open(on, Weights::For(dtype), &device)? {
                Opened::Vision(_) if dtype.is_some() => {
                    Err("--dtype is for language models; a vision transformer is merged in f32".into())
                }
                Opened::Vision(opened) => merge::merge(&opened, out, &device),
                Opened::Language(opened) => merge_lm::merge(&opened, dtype, out, &device),
            }
        }
        Command::ExportLora { on, out } => match open(on, Weights::Exact, &device)? {
            Opened::Vision(opened) => {
                convert::export_lora(&opened.adapted, Ok, out)?;
                opened.describe(out)
            }
            Opened::Language(opened) => {
                let finished = |files| for_peft(files, opened.adapted.backbone());
                convert::export_lora(&opened.adapted, finished, out)
            }
        },
        Command::Convert {
            on,
            out,
            r,
            alpha,
            sharing,
            side,
        } => {
            let settings = wegeft::methods::wegeft::WegeftConfig::new(*r)
                .with_alpha(alpha.unwrap_or(*r as f64))
                .with_sharing(sharing.clone())
                .with_side(*side);
            match open(on, Weights::Exact, &device)? {
                Opened::Vision(opened) => {
                    convert::nearest_wegeft(&opened.adapted, &settings, Ok, out)?;
                    opened.describe(out)
                }
                Opened::Language(opened) => {
                    let finished = |files| for_peft(files, opened.adapted.backbone());
                    convert::nearest_wegeft(&opened.adapted, &settings, finished, out)
                }
            }
        }
    }
}

fn sharing(text: &str) -> Result<Sharing, String> {
    match text {
        "kind" => Ok(Sharing::Kind),
        "all" => Ok(Sharing::All),
        "site" => Ok(Sharing::Site),
        _ => Err("choose kind, all or site".into()),
    }
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "input" => Ok(Side::Input),
        "output" => Ok(Side::Output),
        _ => Err("choose input or output".into()),
    }
}

/// A table whose columns from `numbers` on are numbers, aligned right.
fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>, numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
