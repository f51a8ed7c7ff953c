//! Image preprocessing as a model's own files describe it: Hugging Face's preprocessor_config.json and
//! processor_config.json, timm's `pretrained_cfg`. Only sizes and parameters are computed here; the caller processes the
//! pixels.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ImportError;
use crate::import::declared::{flag, number, positive};
use crate::import::family::Family;
use crate::json::read_json;
use crate::normalization::Normalization;

/// How an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeTo {
    /// To `[height, width]`, aspect ignored.
    Exact([usize; 2]),
    /// The shorter side to the given number of pixels; the longer one is rounded down.
    ShortestEdge(usize),
    /// The shorter side to the given number of pixels, or the longer one to its limit if it would exceed that.
    EdgeLimits {
        /// The shorter side.
        shortest: usize,
        /// Limit of the longer side.
        longest: usize,
    },
    /// As large as fits into `[height, width]`, aspect kept.
    Within([usize; 2]),
    /// Just covering `[height, width]`, aspect kept: timm's `ResizeKeepRatio`.
    Covering([usize; 2]),
    /// Just fitting into `[height, width]`, aspect kept: timm's `ResizeKeepRatio` of the longest side.
    Fitting([usize; 2]),
}

/// The filter of a resize, antialiased as Pillow does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Bilinear.
    Bilinear,
    /// Bicubic: Keys' kernel with coefficient -0.5.
    Bicubic,
    /// Lanczos of 3 lobes.
    Lanczos,
    /// Box.
    Box,
    /// Hamming.
    Hamming,
}

/// A center crop; where it extends beyond the image, it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Crop {
    /// Height and width, pixels.
    pub size: [usize; 2],
    /// The fill color, 0 to 255.
    pub fill: [u8; 3],
    /// Whether offsets of half a pixel are rounded to even, as in torchvision; otherwise they are rounded down, as in
    /// transformers.
    pub to_even: bool,
}

/// Image preprocessing: resizing, cropping and normalization, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Resizing, if any.
    pub resize: Option<ResizeTo>,
    /// Its filter.
    pub filter: Filter,
    /// Pixels are rounded to bytes after resizing; DINOv3's are not.
    pub rounded: bool,
    /// Cropping, if any.
    pub crop: Option<Crop>,
    /// Rescaling and normalisation in one, of pixels in 0..1.
    pub normalization: Normalization,
}

/// Longest side that a file may specify, pixels.
const LONGEST: usize = 1 << 16;

impl Preprocessing {
    /// Reads the preprocessing from the files beside the weights at `path` (a folder, or a file in one); `None` if there
    /// are none.
    ///
    /// # Errors
    /// A file that cannot be read, a field that is malformed or asks for something that is not implemented.
    pub fn read(path: &Path) -> Result<Option<Self>, ImportError> {
        let folder = match path.is_file() {
            true => path.parent().unwrap_or(Path::new(".")),
            false => path,
        };
        let config = folder.join("config.json");
        let json = read_json(&config)?;
        let error = |path: &Path, message: String| ImportError::Config {
            path: path.to_path_buf(),
            message,
        };
        let family = Family::of(&json).map_err(|message| error(&config, message))?;
        Self::of(folder, &json, family)
    }

    /// [`Preprocessing::read`] of a folder whose config.json is `json`.
    pub(crate) fn of(folder: &Path, json: &Value, family: Family) -> Result<Option<Self>, ImportError> {
        let error = |name: &str, message: String| ImportError::Config {
            path: folder.join(name),
            message,
        };
        // As transformers: a processor's own part before the older file.
        const PROCESSOR: &str = "processor_config.json";
        const IMAGE_PROCESSOR: &str = "preprocessor_config.json";
        if folder.join(PROCESSOR).is_file() {
            let processor = read_json(&folder.join(PROCESSOR))?;
            if let Some(own) = processor.get("image_processor") {
                return hugging_face(own, family).map(Some).map_err(|e| error(PROCESSOR, e));
            }
        }
        if folder.join(IMAGE_PROCESSOR).is_file() {
            let own = read_json(&folder.join(IMAGE_PROCESSOR))?;
            return hugging_face(&own, family)
                .map(Some)
                .map_err(|e| error(IMAGE_PROCESSOR, e));
        }
        match family {
            Family::Timm => timm(json).map_err(|e| error("config.json", e)),
            _ => Ok(None),
        }
    }

    /// The defaults of a family's own image processor, for images of `[height, width]` pixels.
    pub(crate) fn default_of(family: Family, size: [usize; 2]) -> Option<Self> {
        let json = json!({});
        let default = match family {
            Family::Timm => return None,
            _ => hugging_face(&json, family).ok()?,
        };
        let normalization = family.normalization();
        Some(
            Self {
                normalization,
                ..default
            }
            .sized(size),
        )
    }

    /// Height and width of every preprocessed image; `None` if they depend on the image.
    pub fn size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop.size),
            (None, Some(ResizeTo::Exact(size))) => Some(size),
            _ => None,
        }
    }

    /// The same preprocessing for another output size; the ratio of resized to cropped size is kept.
    pub fn sized(mut self, [height, width]: [usize; 2]) -> Self {
        let Some(from) = self.size() else {
            return self;
        };
        if from == [height, width] {
            return self;
        }
        let scaled = |side: usize, axis: usize| {
            let to = [height, width][axis];
            // Up: the crop must not reach beyond what is resized.
            (side * to).div_ceil(from[axis].max(1))
        };
        let both = |size: [usize; 2]| [scaled(size[0], 0), scaled(size[1], 1)];
        self.resize = self.resize.map(|resize| match resize {
            ResizeTo::Exact(size) => ResizeTo::Exact(both(size)),
            ResizeTo::ShortestEdge(edge) if height == width => ResizeTo::ShortestEdge(scaled(edge, 0)),
            ResizeTo::ShortestEdge(edge) => ResizeTo::Covering(both([edge, edge])),
            ResizeTo::EdgeLimits { shortest, longest } => ResizeTo::EdgeLimits {
                shortest: scaled(shortest, 0),
                longest: scaled(longest, 0),
            },
            ResizeTo::Within(size) => ResizeTo::Within(both(size)),
            ResizeTo::Covering(size) => ResizeTo::Covering(both(size)),
            ResizeTo::Fitting(size) => ResizeTo::Fitting(both(size)),
        });
        if let Some(crop) = &mut self.crop {
            crop.size = [height, width];
        }
        self
    }
}

/// The size, `[height, width]`, in which the files at `path` prepare images, if the model reads images of any size as
/// transformers has it (DINOv2, DINOv3).
///
/// # Errors
/// See [`Preprocessing::read`].
pub fn own_size(path: &Path) -> Result<Option<[usize; 2]>, ImportError> {
    let folder = match path.is_file() {
        true => path.parent().unwrap_or(Path::new(".")),
        false => path,
    };
    let config = folder.join("config.json");
    let json = read_json(&config)?;
    match Family::of(&json) {
        Ok(family @ (Family::Dinov2 | Family::Dinov3)) => {
            Ok(Preprocessing::of(folder, &json, family)?.and_then(|preprocessing| preprocessing.size()))
        }
        _ => Ok(None),
    }
}

/// What a class of image processors does where its file is silent.
struct Defaults {
    size: Value,
    crop: Option<Value>,
    filter: Filter,
    normalization: Normalization,
    /// A plain number as `size` is both sides; otherwise the shorter one.
    square: bool,
    rounded: bool,
}

/// transformers' defaults of the image processor class `name`, with or without `Fast` or `Pil` after it.
fn defaults(name: &str) -> Option<Defaults> {
    let name = ["Fast", "Pil"]
        .iter()
        .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
    let side = |side: usize| json!({ "height": side, "width": side });
    let plain = Defaults {
        size: side(224),
        crop: None,
        filter: Filter::Bicubic,
        normalization: Normalization::default(),
        square: true,
        rounded: true,
    };
    Some(match name {
        "ViTImageProcessor" | "ViTFeatureExtractor" => Defaults {
            filter: Filter::Bilinear,
            ..plain
        },
        "DeiTImageProcessor" | "DeiTFeatureExtractor" => Defaults {
            size: side(256),
            crop: Some(side(224)),
            ..plain
        },
        "BitImageProcessor" | "CLIPImageProcessor" | "CLIPFeatureExtractor" => Defaults {
            size: json!({ "shortest_edge": 224 }),
            crop: Some(side(224)),
            normalization: Normalization::CLIP,
            square: false,
            ..plain
        },
        "SiglipImageProcessor" => Defaults { square: false, ..plain },
        "DINOv3ViTImageProcessor" => Defaults {
            filter: Filter::Bilinear,
            normalization: Normalization::IMAGENET,
            rounded: false,
            ..plain
        },
        _ => return None,
    })
}

/// The class of a family's own processor.
fn class(family: Family) -> &'static str {
    match family {
        Family::Vit | Family::Timm => "ViTImageProcessor",
        Family::Deit => "DeiTImageProcessor",
        Family::Dinov2 => "BitImageProcessor",
        Family::Dinov3 => "DINOv3ViTImageProcessor",
        Family::Clip => "CLIPImageProcessor",
        Family::Siglip => "SiglipImageProcessor",
    }
}

/// What an image processor's file says. Fields that none of the classes above reads are ignored, as there.
fn hugging_face(json: &Value, family: Family) -> Result<Preprocessing, String> {
    let named = ["image_processor_type", "feature_extractor_type"]
        .iter()
        .find_map(|field| json.get(field)?.as_str());
    let name = named.unwrap_or(class(family));
    let Some(defaults) = defaults(name) else {
        return Err(format!(
            "field 'image_processor_type' is '{name}'; implemented are those of ViT, DeiT, BiT, CLIP, SigLIP and DINOv3"
        ));
    };
    // A step whose flag is null is left out, as there; one whose flag is missing follows the class.
    let on = |field: &str, default: bool| match json.get(field) {
        Some(Value::Null) => Ok(false),
        _ => Ok::<_, String>(flag(json, field)?.unwrap_or(default)),
    };
    if on("do_pad", false)? {
        return Err("field 'do_pad' is true, which is not implemented; set it to false".into());
    }
    let resize = match on("do_resize", true)? {
        true => Some(resize_to(
            present(json, "size").unwrap_or(&defaults.size),
            defaults.square,
        )?),
        false => None,
    };
    let crop = match (
        on("do_center_crop", defaults.crop.is_some())?,
        present(json, "crop_size"),
        &defaults.crop,
    ) {
        (false, ..) => None,
        (true, Some(size), _) | (true, None, Some(size)) => Some(Crop {
            size: both_sides(size, "crop_size")?,
            fill: [0; 3],
            to_even: false,
        }),
        (true, None, None) => {
            return Err("field 'do_center_crop' is true but 'crop_size' is missing; set it".into());
        }
    };
    let rescale = match on("do_rescale", true)? {
        true => positive(json, "rescale_factor")?.unwrap_or(1.0 / 255.0),
        false => 1.0,
    };
    let said = Normalization {
        mean: channels(json, "image_mean")?.unwrap_or(defaults.normalization.mean),
        std: channels(json, "image_std")?.unwrap_or(defaults.normalization.std),
    };
    let normalization = match on("do_normalize", true)? {
        true => said,
        false => Normalization {
            mean: [0.0; 3],
            std: [1.0; 3],
        },
    };
    Ok(Preprocessing {
        resize,
        filter: filter(present(json, "resample"), defaults.filter)?,
        rounded: defaults.rounded,
        crop,
        normalization: for_unit_pixels(checked(normalization, "image_std")?, rescale),
    })
}

/// (x·rescale - mean) / std of bytes x, as the normalisation of x / 255. The usual factor changes nothing.
fn for_unit_pixels(normalization: Normalization, rescale: f64) -> Normalization {
    let factor = rescale * 255.0;
    if (factor - 1.0).abs() < 1e-6 {
        return normalization;
    }
    let divided = |values: [f32; 3]| values.map(|value| (f64::from(value) / factor) as f32);
    Normalization {
        mean: divided(normalization.mean),
        std: divided(normalization.std),
    }
}

fn checked(normalization: Normalization, field: &str) -> Result<Normalization, String> {
    match normalization.std.iter().all(|value| *value > 0.0) {
        true => Ok(normalization),
        false => Err(format!(
            "field '{field}' is {:?}; each must be above 0",
            normalization.std
        )),
    }
}

fn present<'a>(json: &'a Value, field: &str) -> Option<&'a Value> {
    json.get(field).filter(|value| !value.is_null())
}

/// One number for all channels, or three.
fn channels(json: &Value, field: &str) -> Result<Option<[f32; 3]>, String> {
    match present(json, field) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64().map(|value| [value as f32; 3])),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|_| format!("field '{field}' is {value}; expected three numbers")),
    }
}

fn side(value: &Value, field: &str) -> Result<usize, String> {
    match value.as_u64().map(|side| side as usize) {
        Some(side) if (1..=LONGEST).contains(&side) => Ok(side),
        _ => Err(format!(
            "field '{field}' has {value}; expected a side of 1 to {LONGEST} px"
        )),
    }
}

fn resize_to(value: &Value, square: bool) -> Result<ResizeTo, String> {
    let field = |name: &str| present(value, name).map(|found| side(found, "size")).transpose();
    let (shortest, longest) = (field("shortest_edge")?, field("longest_edge")?);
    if let (Some(shortest), Some(longest)) = (shortest, longest) {
        return Ok(ResizeTo::EdgeLimits { shortest, longest });
    }
    if let Some(shortest) = shortest {
        return Ok(ResizeTo::ShortestEdge(shortest));
    }
    if let (Some(height), Some(width)) = (field("max_height")?, field("max_width")?) {
        return Ok(ResizeTo::Within([height, width]));
    }
    match value {
        Value::Number(_) if !square => Ok(ResizeTo::ShortestEdge(side(value, "size")?)),
        _ => both_sides(value, "size").map(ResizeTo::Exact),
    }
}

/// `{height, width}`, `[height, width]`, or a number for both.
fn both_sides(value: &Value, name: &str) -> Result<[usize; 2], String> {
    let wrong = || {
        format!(
            "field '{name}' is {value}; expected height and width, or shortest_edge (for resizing), in whole pixels"
        )
    };
    match value {
        Value::Number(_) => side(value, name).map(|side| [side; 2]),
        Value::Array(list) => match &list[..] {
            [height, width] => Ok([side(height, name)?, side(width, name)?]),
            _ => Err(wrong()),
        },
        _ => match (present(value, "height"), present(value, "width")) {
            (Some(height), Some(width)) => Ok([side(height, name)?, side(width, name)?]),
            _ => Err(wrong()),
        },
    }
}

/// Pillow's number of a filter, or its name.
fn filter(value: Option<&Value>, default: Filter) -> Result<Filter, String> {
    let Some(value) = value else {
        return Ok(default);
    };
    let found = match value.as_u64() {
        Some(0) => Some(Filter::Nearest),
        Some(1) => Some(Filter::Lanczos),
        Some(2) => Some(Filter::Bilinear),
        Some(3) => Some(Filter::Bicubic),
        Some(4) => Some(Filter::Box),
        Some(5) => Some(Filter::Hamming),
        _ => serde_json::from_value(value.clone()).ok(),
    };
    found.ok_or_else(|| {
        format!("the resampling is {value}; expected nearest, bilinear, bicubic, lanczos, box or hamming, or Pillow's 0 to 5")
    })
}

/// What timm's `pretrained_cfg` says; `None` if config.json has neither it nor any of its fields.
fn timm(json: &Value) -> Result<Option<Preprocessing>, String> {
    let own = json.get("pretrained_cfg").unwrap_or(json);
    const FIELDS: [&str; 6] = ["input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"];
    if !FIELDS.iter().any(|field| present(own, field).is_some()) {
        return Ok(None);
    }
    let normalization = Normalization {
        mean: channels(own, "mean")?.unwrap_or(Normalization::IMAGENET.mean),
        std: channels(own, "std")?.unwrap_or(Normalization::IMAGENET.std),
    };
    let size = match present(own, "input_size") {
        None => {
            let side = number(json.get("model_args").unwrap_or(&Value::Null), "img_size")?.unwrap_or(224);
            [side, side]
        }
        Some(value) => match value.as_array().map(Vec::as_slice) {
            Some([_, height, width]) => [side(height, "input_size")?, side(width, "input_size")?],
            _ => return Err(format!("field 'input_size' is {value}; expected [3, height, width]")),
        },
    };
    let crop_pct = positive(own, "crop_pct")?.unwrap_or(0.875);
    let scaled = size.map(|side| (side as f64 / crop_pct).floor() as usize);
    let mut crop = Crop {
        size,
        fill: [0; 3],
        to_even: true,
    };
    let resize = match present(own, "crop_mode").map(|mode| (mode, mode.as_str())) {
        None | Some((_, Some("center"))) => match scaled[0] == scaled[1] {
            true => ResizeTo::ShortestEdge(scaled[0]),
            false => ResizeTo::Covering(scaled),
        },
        Some((_, Some("squash"))) => ResizeTo::Exact(scaled),
        Some((_, Some("border"))) => {
            crop.fill = normalization.mean.map(|value| (255.0 * value).round_ties_even() as u8);
            ResizeTo::Fitting(scaled)
        }
        Some((mode, _)) => {
            return Err(format!(
                "field 'crop_mode' is {mode}; implemented are center, squash and border"
            ));
        }
    };
    Ok(Some(Preprocessing {
        resize: Some(resize),
        filter: filter(present(own, "interpolation"), Filter::Bicubic)?,
        rounded: true,
        crop: Some(crop),
        normalization: checked(normalization, "std")?,
    }))
}
