//! The `visualize` program: draws token-cluster maps of a trained WeGeFT adapter for images.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use backbones::{Normalization, Vit, load_vit, resolve};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use datasets::parquet_images::Columns;
use datasets::steps::{Steps, prepare};
use datasets::{Resize, decode};
use image::{ImageFormat, RgbImage};
use rayon::prelude::*;
use wegeft::Adapted;

use crate::cli::output::{counted, print};
use crate::cli::{model_folder, shipped};
use crate::run::files::{replace, replace_together};
use crate::run::lock::Lock;
use crate::run::place::refuse_another;
use crate::run::strays::remove_strays_in;
use crate::suites::vtab::Source;
use crate::tools::flags::{whole, within};
use crate::tools::visualize::maps::{BlockMaps, clusters, maps};
use crate::tools::visualize::overlay::{check_sheet, overlay, sheet};
use crate::vision::data::{normalised, rounded};
use crate::vision::description::Description;
use crate::vision::load::load_adapted;
use crate::vision::settings::Data;
use crate::vision::steps::steps;
use crate::vision::tasks::Tasks;

/// Show where in an image each cluster of a trained WeGeFT adapter responds
///
/// The columns of W·phi are compared with the output of attention's projection, block by block, before and after the
/// residual is added. Writes, for each image, a folder with one contact sheet per variant and one image per block,
/// cluster and variant.
#[derive(Debug, Parser)]
pub struct Args {
    /// Images (.jpg, .png).
    #[arg(required_unless_present = "task")]
    pub images: Vec<PathBuf>,
    /// Adapter folder, as `vtab` writes it.
    #[arg(long)]
    pub adapter: PathBuf,
    /// Take the images from this task's test list.
    ///
    /// The first ones that the adapted model classifies correctly.
    #[arg(long, alias = "sets", conflicts_with = "images")]
    pub task: Option<String>,
    /// Folder of task folders [default: the shipped sample].
    #[arg(long, requires = "task", conflicts_with = "images")]
    pub data: Option<PathBuf>,
    /// Use only images of this class, given by name or number.
    #[arg(long, requires = "task", conflicts_with = "images")]
    pub class: Option<String>,
    /// Images to take from the task.
    #[arg(long, default_value_t = 4, conflicts_with = "images", value_parser = whole(1..=1_000_000))]
    pub count: usize,
    /// Backbone: a folder, .safetensors file or hub name [default: the adapter's].
    #[arg(long = "model", alias = "backbone", value_name = "MODEL")]
    pub backbone: Option<String>,
    /// Folder to write the maps to.
    #[arg(long, alias = "output-dir", default_value = "runs/visualize")]
    pub out: PathBuf,
    /// Write only the contact sheets.
    #[arg(long)]
    pub sheets_only: bool,
    /// Width of an image on a contact sheet, pixels.
    #[arg(long, default_value_t = 64, value_parser = within("a whole number", 1..=4096_u32))]
    pub tile: u32,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
}

/// By which the folder of an image is known.
const MAKER: &str = "wegeft visualize";

/// An image `[3, size, size]` with values from 0 to 255.
type Pixels = Vec<f32>;

/// Runs the program.
///
/// # Errors
/// One sentence: weights, adapter or images that cannot be read or do not fit.
pub fn visualize(args: &Args) -> Result<(), String> {
    refuse_another(&args.out, false)?;
    let device = crate::cli::device::device(&args.device)?;
    let description = Description::read(&args.adapter)?;
    let name = args.backbone.as_ref();
    let path = match name.or(description.as_ref().and_then(|d| d.backbone.as_ref())) {
        Some(name) => resolve(name).map_err(|e| e.to_string())?,
        None => shipped::backbone()?,
    };
    model_folder::check(&path, Some(&args.adapter))?;
    let image_size = description.as_ref().map(|d| d.image_size);
    let resize = description.as_ref().map(|d| d.resize).unwrap_or_default();
    let backbone = load_vit(&path, image_size, 0.0, &device).map_err(|e| e.to_string())?;
    let (size, normalization) = (backbone.config.image_size, backbone.normalization);
    let steps = backbone.preprocessing.as_ref().map(steps);
    let adapted = load_adapted(&backbone, &args.adapter, &device)?;
    let clusters = clusters(&adapted)?;
    let columns = clusters
        .iter()
        .map(|(_, clusters)| clusters.dims()[0])
        .max()
        .unwrap_or(0);
    check_sheet(columns, clusters.len(), args.tile)?;
    let images = match &args.task {
        Some(task) => of_task(args, task, (size, resize, steps), &adapted, normalization, &device)?,
        None => of_files(&args.images, (size, resize, steps))?,
    };
    let lock = Lock::for_writing(&args.out)?;
    for (name, pixels) in &images {
        // Each is a result of its own: the maps of other images stay.
        let folder = args.out.join(name);
        check_place(&folder, &lock)?;
        replace_together(&folder, Some(MAKER), None, |made| {
            let maps = maps(&adapted, &clusters, one(pixels, size, normalization, &device)?);
            write(&maps, &rounded(pixels, size), made, args)
        })?;
    }
    print(format_args!(
        "maps of {} in {}",
        counted(images.len(), "image"),
        args.out.display()
    ))
}

/// Refuses what is no folder in the place of that of an image, and removes what a killed process left in it.
fn check_place(folder: &Path, lock: &Lock) -> Result<(), String> {
    let is_link = folder.is_symlink();
    if is_link || folder.exists() && !folder.is_dir() {
        return Err(format!(
            "{} is {}, in the place of a folder for the maps of an image; remove it, or choose another --out",
            folder.display(),
            if is_link { "a link" } else { "a file" }
        ));
    }
    if lock.was_there() {
        remove_strays_in(folder);
    }
    Ok(())
}

/// One image as the model reads it.
fn one(pixels: &Pixels, size: usize, normalization: Normalization, device: &Device) -> Result<Tensor<4>, String> {
    let pixels = normalised::<_, String>(&[pixels], |pixels| Ok((*pixels).clone()), [size; 2], normalization)?;
    Ok(Tensor::from_data(pixels, device))
}

/// Side length of the model's images in pixels, and how they are prepared.
type Sizing = (usize, Resize, Option<Steps>);

/// Name (for the folder) and pixels of each file.
fn of_files(files: &[PathBuf], (size, resize, steps): Sizing) -> Result<Vec<(String, Pixels)>, String> {
    let read = |(index, file): (usize, &PathBuf)| {
        let image = decode::file(file).map_err(|e| e.to_string())?;
        let pixels = prepare(resize, steps, &image, size, None)?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        Ok((format!("{index:02}-{stem}"), pixels))
    };
    files.iter().enumerate().map(read).collect()
}

/// The first test images, of the chosen class, that the model classifies correctly.
fn of_task(
    args: &Args,
    name: &str,
    (size, resize, steps): Sizing,
    adapted: &Adapted<Vit>,
    normalization: Normalization,
    device: &Device,
) -> Result<Vec<(String, Pixels)>, String> {
    let data = Data {
        data: args.data.clone(),
        resize: Some(resize),
        ..crate::cli::settings::defaults()
    };
    let source = Source {
        data,
        columns: Columns::default(),
    };
    let mut task = source.load(name, size, &|| true)?;
    task.test.steps = steps;
    let class = match &args.class {
        None => None,
        Some(text) => {
            let number = task
                .classes
                .iter()
                .position(|class| class == text)
                .or(text.parse().ok());
            let known = number.filter(|class| *class < task.classes.len());
            Some(known.ok_or_else(|| format!("--class {text}: task '{name}' has no such class"))?)
        }
    };
    let model = adapted.bind();
    let mut chosen = Vec::new();
    for (index, label) in task.test.labels.iter().enumerate() {
        if chosen.len() == args.count {
            break;
        }
        if class.is_some_and(|class| class != *label) {
            continue;
        }
        let pixels = task.test.pixels(index).map_err(|e| e.to_string())?;
        let logits = model.forward(one(&pixels, size, normalization, device)?);
        if logits.argmax(1).into_scalar::<i64>() == *label as i64 {
            chosen.push((format!("{name}-{index:05}"), pixels));
        }
    }
    match chosen.is_empty() {
        true => Err(format!(
            "the model classifies no such test image of task '{name}' correctly"
        )),
        false => Ok(chosen),
    }
}

fn write(maps: &[BlockMaps], image: &RgbImage, folder: &Path, args: &Args) -> Result<(), String> {
    let save = |image: &RgbImage, name: String| {
        let path = folder.join(name);
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).map_err(|e| e.to_string())?;
        replace(&path, png.get_ref())
    };
    save(image, "input.png".into())?;
    for variant in ["after", "before"] {
        let of = |block: &BlockMaps| {
            let clusters = if variant == "after" {
                &block.after
            } else {
                &block.before
            };
            clusters.iter().map(|map| overlay(map, image)).collect()
        };
        let rows: Vec<Vec<RgbImage>> = maps.par_iter().map(of).collect();
        save(&sheet(image, &rows, args.tile), format!("sheet-{variant}.png"))?;
        if args.sheets_only {
            continue;
        }
        for (block, row) in maps.iter().zip(&rows) {
            for (cluster, image) in row.iter().enumerate() {
                save(
                    image,
                    format!("block-{:02}-cluster-{cluster:02}-{variant}.png", block.block),
                )?;
            }
        }
    }
    Ok(())
}
