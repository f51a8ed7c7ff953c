//! The `predict` program: turns images into labels and probabilities (or logits and features).

use std::path::{Path, PathBuf};

use backbones::import::Scores;
use backbones::{Normalization, Vit, load_vit_for, preprocess, resolve};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use comfy_table::{CellAlignment, Table, presets};
use datasets::steps::Steps;
use datasets::{Decoder, Resize, image_files};
use serde_json::json;
use wegeft::storage::{Stored, Tensors, read_tensors, write_tensors};

use crate::cli::output::{self, counted};
use crate::cli::{model_folder, shipped};
use crate::tools::flags::whole;
use crate::tools::own_file::{refuse_another, remove_left};
use crate::vision::confusion::{Confusion, read_labels};
use crate::vision::data::normalised;
use crate::vision::description::{Description, check_image_size};
use crate::vision::load::load_adapted;
use crate::vision::steps::steps;

/// Predict the labels of images with a vision transformer, with or without an adapter
///
/// Prints a table of labels and probabilities. Without an adapter, these are those of the backbone's own head (a softmax, or
/// what `problem_type` in its config.json asks for), or its features if it has none.
#[derive(Debug, Parser)]
pub struct Args {
    /// Images, folders of images, or one safetensors file of tensors.
    ///
    /// The safetensors file has `pixel_values` [n, 3, height, width], normalised.
    #[arg(required_unless_present = "labels")]
    pub inputs: Vec<PathBuf>,
    /// List of labelled images: predicts those, and prints accuracy and the confusion matrix.
    ///
    /// Its lines are `path label` as in test.txt: paths relative to the list's folder, labels as numbers or class names.
    #[arg(long, conflicts_with_all = ["inputs", "out"])]
    pub labels: Option<PathBuf>,
    /// Backbone: a folder, .safetensors file or hub name [default: the adapter's, or the shipped one].
    #[arg(long = "model", alias = "backbone", value_name = "MODEL")]
    pub backbone: Option<String>,
    /// Adapter folder, as `vtab` writes it.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Write `logits` and `features` to this safetensors file instead of printing.
    #[arg(long, aliases = ["output", "output-dir"], value_name = "FILE", conflicts_with_all = ["json", "top_k"])]
    pub out: Option<PathBuf>,
    /// Print JSON lines instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Classes to show per image.
    #[arg(long, help_heading = "Output", default_value_t = 3, value_parser = whole(1..=1_000_000))]
    pub top_k: usize,
    /// Side length of the images, pixels [default: the adapter's, or the backbone's].
    #[arg(long)]
    pub image_size: Option<usize>,
    /// How images are resized [default: the adapter's, or model].
    ///
    /// model: as the backbone's own files say (preprocessor_config.json, processor_config.json, timm's pretrained_cfg);
    /// bilinear for a backbone whose files say nothing.
    #[arg(long, value_parser = PossibleValuesParser::new(Resize::NAMES).try_map(|name| name.parse::<Resize>()))]
    pub resize: Option<Resize>,
    /// Maximum pixels per image; a larger image is refused by name before it is decoded.
    #[arg(long, default_value_t = Decoder::default().max_pixels)]
    pub max_image_pixels: u64,
    /// Images per forward pass.
    #[arg(long, default_value_t = 32, value_parser = whole(1..=65_536))]
    pub batch_size: usize,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
}

/// Features and logits of some images.
struct Outputs {
    features: Tensor<2>,
    logits: Option<Tensor<2>>,
}

/// Runs the program.
///
/// # Errors
/// One sentence: weights, adapter or images that cannot be read or do not fit.
pub fn predict(args: &Args) -> Result<(), String> {
    if let Some(size) = args.image_size {
        check_image_size("--image-size", size)?;
    }
    if let Some(out) = &args.out {
        refuse_another("--out", out, "features")?;
        remove_left(out, "features");
    }
    let device = crate::cli::device::device(&args.device)?;
    let description = match &args.adapter {
        Some(folder) => Description::read(folder)?,
        None => None,
    };
    let tensors = args
        .inputs
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let given: Option<(Tensor<4>, &Path)> = match (tensors.clone().count(), args.inputs.len()) {
        (0, _) => None,
        (1, 1) => Some((pixel_values(&args.inputs[0], &device)?, &args.inputs[0])),
        _ => return Err("give one safetensors file with pixel_values, or images, not both".into()),
    };
    let given_size = given.as_ref().map(|(pixels, _)| {
        let [_, _, height, width] = pixels.dims();
        [height, width]
    });
    if let (Some(size), Some([height, width]), Some((_, path))) = (args.image_size, given_size, &given)
        && [height, width] != [size; 2]
    {
        return Err(format!(
            "--image-size {size}: {} holds images of {height} x {width} px, which are not resized; leave --image-size out",
            path.display()
        ));
    }
    let name = args
        .backbone
        .as_ref()
        .or(description.as_ref().and_then(|d| d.backbone.as_ref()));
    let path = match name {
        Some(name) => resolve(name).map_err(|e| e.to_string())?,
        None => shipped::backbone()?,
    };
    model_folder::check(&path, args.adapter.as_deref())?;
    // A merged backbone has its own description.
    let description = match &args.adapter {
        None if path.is_dir() => Description::read(&path)?,
        _ => description,
    };
    let image_size = match args.image_size.map(|side| [side; 2]).or(given_size) {
        None => match &description {
            Some(description) => Some([description.image_size; 2]),
            // Models that accept any size get the size to which their images are prepared.
            None => preprocess::own_size(&path).map_err(|e| e.to_string())?,
        },
        size => size,
    };
    let backbone = load_vit_for(&path, image_size, 0.0, &device).map_err(|e| e.to_string())?;
    let size = backbone.config.image();
    let model = match &args.adapter {
        Some(folder) => load_adapted(&backbone, folder, &device)?.bind(),
        None => backbone.model.clone(),
    };
    let own_steps = backbone.preprocessing.as_ref().map(steps);
    let resize = match args.resize.or(description.as_ref().map(|d| d.resize)) {
        Some(resize) => resize,
        None if own_steps.is_some() => Resize::Model,
        None => Resize::default(),
    };
    // A head that was trained here is for one class per image.
    let trained_here = description.is_some();
    let classes = description.map(|d| d.classes).filter(|classes| !classes.is_empty());
    // An adapter that PEFT saved names no classes: its head's are the backbone's if there are as many.
    let outputs = model.head.as_ref().map(|head| head.weight.dims()[1]);
    let classes = match classes {
        Some(classes) => classes,
        None if args.adapter.is_none() || outputs == Some(backbone.labels.len()) => backbone.labels,
        None => Vec::new(),
    };
    let of_backbone = args.adapter.is_none() || outputs == Some(backbone.config.num_classes);
    let scores = match of_backbone && !trained_here {
        true => backbone.scores,
        false => Scores::Softmax,
    };
    let labelled = match &args.labels {
        Some(list) => {
            let head = model
                .head
                .as_ref()
                .ok_or("the backbone has no head to classify with; give --adapter, or leave --labels out")?;
            Some(read_labels(list, &classes, head.weight.dims()[1])?)
        }
        None => None,
    };
    let (outputs, names): (Outputs, Vec<String>) = match given {
        Some((pixels, _)) => {
            let count = pixels.dims()[0];
            let names = (0..count).map(|i| i.to_string()).collect();
            let parts = (0..count).step_by(args.batch_size).map(|from| {
                let to = (from + args.batch_size).min(count);
                forward(&model, pixels.clone().narrow(0, from, to - from))
            });
            (joined(parts.collect()), names)
        }
        None => {
            let files = match &labelled {
                Some((files, _)) => files.clone(),
                None => images(&args.inputs)?,
            };
            let parts = files.chunks(args.batch_size).map(|chunk| {
                let decoder = Decoder {
                    max_pixels: args.max_image_pixels,
                    ..Decoder::default()
                };
                let pixels = decoded(
                    chunk,
                    decoder,
                    (resize, own_steps),
                    size,
                    backbone.normalization,
                    &device,
                )?;
                Ok(forward(&model, pixels))
            });
            let parts = parts.collect::<Result<Vec<_>, String>>()?;
            let names = files.iter().map(|file| file.display().to_string()).collect();
            (joined(parts), names)
        }
    };
    let values = [Some(&outputs.features), outputs.logits.as_ref()];
    for values in values.into_iter().flatten() {
        if !values.clone().is_finite().all().into_scalar::<bool>() {
            return Err(format!(
                "the model's outputs are NaN or infinite: check the weights of {} and the input for such values",
                args.adapter.as_ref().unwrap_or(&path).display()
            ));
        }
    }
    match &args.out {
        Some(path) => write(&outputs, path),
        None => print(
            &outputs,
            scores,
            &names,
            &classes,
            labelled.map(|(_, labels)| labels),
            args,
        ),
    }
}

fn forward(model: &Vit, pixels: Tensor<4>) -> Outputs {
    let (features, logits) = model.outputs(pixels);
    Outputs { features, logits }
}

fn joined(parts: Vec<Outputs>) -> Outputs {
    let (features, logits): (Vec<_>, Vec<_>) = parts.into_iter().map(|part| (part.features, part.logits)).unzip();
    Outputs {
        features: Tensor::cat(features, 0),
        logits: logits
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .map(|parts| Tensor::cat(parts, 0)),
    }
}

fn pixel_values(path: &Path, device: &Device) -> Result<Tensor<4>, String> {
    let mut tensors = read_tensors(path).map_err(|e| e.to_string())?;
    let found = tensors
        .remove("pixel_values")
        .ok_or_else(|| format!("{}: there is no tensor 'pixel_values' in it", path.display()))?;
    match found.shape[..] {
        [n, 3, height, width] if n * height * width > 0 => {
            Ok(Tensor::from_data(TensorData::new(found.values, found.shape), device))
        }
        _ => Err(format!(
            "{}: 'pixel_values' has shape {:?}, expected [n, 3, height, width] with n of at least 1",
            path.display(),
            found.shape
        )),
    }
}

/// The image files in `inputs`; those in folders are sorted by name.
fn images(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            files.push(input.clone());
            continue;
        }
        let found = image_files::in_folder(input).map_err(|e| e.to_string())?;
        if found.is_empty() {
            return Err(format!("{} holds no image", input.display()));
        }
        files.extend(found);
    }
    Ok(files)
}

fn decoded(
    files: &[PathBuf],
    decoder: Decoder,
    (resize, own_steps): (Resize, Option<Steps>),
    size: [usize; 2],
    normalization: Normalization,
    device: &Device,
) -> Result<Tensor<4>, String> {
    if resize != Resize::Model && size[0] != size[1] {
        return Err(format!(
            "--resize makes squares, and the model reads images of {} x {} px; leave it out, or give --image-size",
            size[0], size[1]
        ));
    }
    let pixels = |file: &PathBuf| {
        // Counts as an image that is being decoded until it is resized.
        let decoded = decoder.file(file).map_err(|e| e.to_string())?;
        if let Some(lost) = &decoded.lost {
            output::note(format_args!("{}: {lost}", file.display()));
        }
        let pixels = match resize {
            Resize::Model => own_steps.ok_or_else(Resize::no_steps)?.to_size(&decoded.image, size),
            other => other.apply(&decoded.image, size[0], None),
        };
        pixels.map_err(|e| format!("{}: {e}", file.display()))
    };
    let pixels = normalised(files, pixels, size, normalization)?;
    Ok(Tensor::from_data(pixels, device))
}

fn write(outputs: &Outputs, path: &Path) -> Result<(), String> {
    let stored = |tensor: &Tensor<2>| Stored {
        shape: tensor.dims().to_vec(),
        values: tensor.to_data().iter::<f32>().collect(),
    };
    let mut tensors = Tensors::from([("features".to_string(), stored(&outputs.features))]);
    if let Some(logits) = &outputs.logits {
        tensors.insert("logits".to_string(), stored(logits));
    }
    write_tensors(path, &tensors).map_err(|e| e.to_string())?;
    let count = outputs.features.dims()[0];
    output::print(format_args!(
        "{}; written to {}",
        counted(count, "image"),
        path.display()
    ))
}

fn print(
    outputs: &Outputs,
    scores: Scores,
    names: &[String],
    classes: &[String],
    labels: Option<Vec<usize>>,
    args: &Args,
) -> Result<(), String> {
    let label = |class: usize| classes.get(class).cloned().unwrap_or_else(|| class.to_string());
    let Some(logits) = &outputs.logits else {
        return print_features(&outputs.features, names, args.json);
    };
    let width = logits.dims()[1];
    let (what, values) = match scores {
        Scores::Softmax => ("probability", softmax(logits.clone(), 1)),
        Scores::Sigmoid => ("probability", sigmoid(logits.clone())),
        Scores::Outputs => ("value", logits.clone()),
    };
    let values: Vec<f32> = values.into_data().iter().collect();
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["image", "label", what, "next"]);
    let mut ranked = Vec::with_capacity(names.len());
    for (index, (name, row)) in names.iter().zip(values.chunks_exact(width)).enumerate() {
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        order.truncate(args.top_k);
        if args.json {
            let top: Vec<_> = order
                .iter()
                .map(|class| json!({ "class": class, "label": label(*class), what: row[*class] }))
                .collect();
            let mut line = json!({ "image": name, "label": label(order[0]), what: row[order[0]], "top": top });
            if let Some(labels) = &labels {
                line["truth"] = json!(label(labels[index]));
            }
            output::print(line)?;
        }
        let next: Vec<String> = order[1..]
            .iter()
            .map(|class| format!("{} {:.3}", label(*class), row[*class]))
            .collect();
        table.add_row([
            name.clone(),
            label(order[0]),
            format!("{:.3}", row[order[0]]),
            next.join(", "),
        ]);
        ranked.push(order);
    }
    let confusion = labels.map(|labels| Confusion::new(&labels, &ranked, width));
    match (confusion, args.json) {
        (Some(confusion), true) => output::print(
            json!({ "images": confusion.total(), "right": confusion.right(), "top_k": args.top_k,
                "in_top_k": confusion.in_top_k, "confusion": confusion.counts }),
        ),
        (Some(confusion), false) => {
            let percent = |count: usize| 100.0 * count as f64 / confusion.total() as f64;
            output::print(format_args!("{}\n", confusion.table(label)))?;
            output::print(format_args!(
                "{}, top-1 {:.1} %, top-{} {:.1} %",
                counted(confusion.total(), "image"),
                percent(confusion.right()),
                args.top_k.min(width),
                percent(confusion.in_top_k)
            ))
        }
        (None, true) => Ok(()),
        (None, false) => {
            if let Some(column) = table.column_mut(2) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            output::print(table)
        }
    }
}

/// Prints the output of a backbone without a head.
fn print_features(features: &Tensor<2>, names: &[String], as_json: bool) -> Result<(), String> {
    let width = features.dims()[1];
    let values: Vec<f32> = features.to_data().iter().collect();
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["image", &format!("features ({width}), the first four")]);
    for (name, row) in names.iter().zip(values.chunks_exact(width)) {
        if as_json {
            output::print(json!({ "image": name, "features": row }))?;
        }
        let first: Vec<String> = row.iter().take(4).map(|value| format!("{value:.4}")).collect();
        table.add_row([name.clone(), first.join(" ")]);
    }
    match as_json {
        true => Ok(()),
        false => output::print(table),
    }
}
