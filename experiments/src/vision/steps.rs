//! The preprocessing in a backbone's own files, as steps on pixels.

use backbones::Preprocessing;
use backbones::preprocess::{Filter, ResizeTo};
use datasets::steps::{self, Steps, Target};

/// The steps before normalisation.
pub fn steps(preprocessing: &Preprocessing) -> Steps {
    Steps {
        resize: preprocessing.resize.map(|resize| match resize {
            ResizeTo::Exact(size) => Target::Exact(size),
            ResizeTo::ShortestEdge(edge) => Target::ShortestEdge(edge),
            ResizeTo::EdgeLimits { shortest, longest } => Target::EdgeLimits { shortest, longest },
            ResizeTo::Within(size) => Target::Within(size),
            ResizeTo::Covering(size) => Target::Covering(size),
            ResizeTo::Fitting(size) => Target::Fitting(size),
        }),
        filter: match preprocessing.filter {
            Filter::Nearest => steps::Filter::Nearest,
            Filter::Bilinear => steps::Filter::Bilinear,
            Filter::Bicubic => steps::Filter::Bicubic,
            Filter::Lanczos => steps::Filter::Lanczos,
            Filter::Box => steps::Filter::Box,
            Filter::Hamming => steps::Filter::Hamming,
        },
        rounded: preprocessing.rounded,
        crop: preprocessing.crop.map(|crop| steps::Crop {
            size: crop.size,
            fill: crop.fill,
            to_even: crop.to_even,
        }),
    }
}
