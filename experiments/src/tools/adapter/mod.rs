//! The `adapter` program: inspects, merges, exports, compares and converts adapter folders.

mod convert;
mod diff;
mod inspect;
mod merge;
mod merge_lm;
mod open;

use std::path::{Path, PathBuf};

use backbones::lm::Precision;
use backbones::lm::adapter::for_peft;
use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use wegeft::{Sharing, Side};

use crate::run::place::refuse_another;
use crate::train::precision::Dtype;
use open::{Opened, Weights, open};

/// The subcommands that write, by which their results are known.
const MERGE: &str = "wegeft adapter merge";
const EXPORT: &str = "wegeft adapter export-lora";
const CONVERT: &str = "wegeft adapter convert";

/// Inspect, compare, merge, export and convert adapter folders
///
/// An adapter folder is one in Hugging Face PEFT's layout (adapter_config.json and adapter_model.safetensors), of a
/// vision transformer or a language model.
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
    /// Backbone: a folder, .safetensors file or hub name [default: the adapter's, or the shipped one].
    ///
    /// A vision transformer or a language model. The adapter's is the one that it was trained on, as recorded in its
    /// folder (base_model_name_or_path).
    #[arg(long = "model", alias = "backbone", value_name = "MODEL")]
    pub backbone: Option<String>,
}

/// Which modules share phi and psi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shared {
    /// Those of one kind, in all layers.
    Kind,
    /// All.
    All,
    /// None.
    Site,
}

impl From<Shared> for Sharing {
    fn from(shared: Shared) -> Self {
        match shared {
            Shared::Kind => Self::Kind,
            Shared::All => Self::All,
            Shared::Site => Self::Site,
        }
    }
}

/// Side of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Edited {
    /// Its input.
    Input,
    /// Its output.
    Output,
}

impl From<Edited> for Side {
    fn from(edited: Edited) -> Self {
        match edited {
            Edited::Input => Self::Input,
            Edited::Output => Self::Output,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the config and the tensors of an adapter: shapes, counts, norms
    ///
    /// Needs no backbone.
    Inspect {
        /// Adapter folder.
        adapter: PathBuf,
        /// Print one row per tensor, instead of one row for all layers.
        #[arg(long)]
        all: bool,
    },
    /// Compare two adapters: fields, tensors and, with --model, what they do to each weight
    Diff {
        /// Adapter folder.
        first: PathBuf,
        /// Adapter folder.
        second: PathBuf,
        /// Backbone whose changed weights are compared; the methods of the adapters may differ.
        #[arg(long = "model", alias = "backbone", value_name = "MODEL")]
        backbone: Option<String>,
    },
    /// Merge an adapter into the backbone's weights and write the result, a backbone folder
    Merge {
        /// Adapter and backbone.
        #[command(flatten)]
        on: On,
        /// Folder for config.json and model.safetensors.
        ///
        /// With timm's fields and names for a vision transformer, or those of the checkpoint, and its tokenizer, for a
        /// language model.
        #[arg(long, alias = "output-dir")]
        out: PathBuf,
        /// Data type of a language model's merged weights [default: the checkpoint's].
        #[arg(long, value_enum)]
        dtype: Option<Dtype>,
    },
    /// Write an adapter as standard LoRA, which PEFT, vLLM and llama.cpp read
    ExportLora {
        /// Adapter and backbone.
        #[command(flatten)]
        on: On,
        /// Adapter folder to write.
        #[arg(long, alias = "output-dir")]
        out: PathBuf,
    },
    /// Convert an adapter with low-rank residuals, such as LoRA, to the nearest WeGeFT
    ///
    /// Shows what is lost.
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
        #[arg(long)]
        alpha: Option<f64>,
        /// Which modules share phi and psi.
        #[arg(long, value_enum, default_value_t = Shared::Kind)]
        sharing: Shared,
        /// Side of the weight to edit.
        #[arg(long, value_enum, default_value_t = Edited::Input)]
        side: Edited,
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
            check_out(out, MERGE, &on.adapter)?;
            let dtype = dtype.map(Precision::from);
            match open(on, Weights::For(dtype), &device)? {
                Opened::Vision(_) if dtype.is_some() => {
                    Err("--dtype is for language models; a vision transformer is merged in f32".into())
                }
                Opened::Vision(opened) => merge::merge(&opened, out, &device),
                Opened::Language(opened) => merge_lm::merge(&opened, dtype, out, &device),
            }
        }
        Command::ExportLora { on, out } => {
            check_out(out, EXPORT, &on.adapter)?;
            match open(on, Weights::Exact, &device)? {
                Opened::Vision(opened) => {
                    let (adapted, pretrained) = (&opened.adapted, &opened.pretrained);
                    let layout = &pretrained.layout;
                    let finished = |files| layout.lora_for_peft(files, adapted.backbone(), &pretrained.config);
                    convert::export_lora(adapted, finished, opened.beside()?, out)
                }
                Opened::Language(opened) => {
                    let finished = |files| for_peft(files, opened.adapted.backbone());
                    convert::export_lora(&opened.adapted, finished, None, out)
                }
            }
        }
        Command::Convert {
            on,
            out,
            r,
            alpha,
            sharing,
            side,
        } => {
            check_out(out, CONVERT, &on.adapter)?;
            let settings = wegeft::methods::wegeft::WegeftConfig::new(*r)
                .with_alpha(alpha.unwrap_or(*r as f64))
                .with_sharing((*sharing).into())
                .with_side((*side).into());
            match open(on, Weights::Exact, &device)? {
                Opened::Vision(opened) => {
                    let (adapted, pretrained) = (&opened.adapted, &opened.pretrained);
                    let layout = &pretrained.layout;
                    let finished = |files| Ok(layout.with_head_of_class(files, adapted.backbone(), &pretrained.config));
                    convert::nearest_wegeft(adapted, &settings, finished, opened.beside()?, out)
                }
                Opened::Language(opened) => {
                    let finished = |files| for_peft(files, opened.adapted.backbone());
                    convert::nearest_wegeft(&opened.adapted, &settings, finished, None, out)
                }
            }
        }
    }
}

/// Refuses an `out` that is the folder of the adapter, or of another model or adapter than an earlier result of `program`.
fn check_out(out: &Path, program: &str, adapter: &Path) -> Result<(), String> {
    refuse_its_own(out, "adapter", adapter)?;
    refuse_another(out, files::is_made_by(out, program))
}

/// Refuses an `out` that is the folder of an input, of the adapter or the backbone: the result would replace it.
fn refuse_its_own(out: &Path, what: &str, input: &Path) -> Result<(), String> {
    let full = |path: &Path| std::fs::canonicalize(path).ok();
    let folder = full(input).and_then(|input| match input.is_file() {
        true => input.parent().map(Path::to_path_buf),
        false => Some(input),
    });
    match full(out).is_some_and(|out| folder == Some(out)) {
        true => Err(format!(
            "--out {} holds the {what} itself, which the result would replace; choose another --out",
            out.display()
        )),
        false => Ok(()),
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
