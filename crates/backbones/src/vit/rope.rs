//! Rotary position embedding over a grid of patches, as in DINOv3 (arXiv 2508.10104).

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

/// Cosines and sines of the patches' angles; tokens before the patches are not rotated.
#[derive(Module, Debug)]
pub struct Rope {
    /// `[patches, width of a head]`
    cos: Tensor<2>,
    /// `[patches, width of a head]`
    sin: Tensor<2>,
}

impl Rope {
    /// Angles of an image of `[rows, columns]` patches for heads of `width` channels: `2π · coordinate / theta^(4 k /
    /// width)`, where the patch centres' coordinates run from -1 to 1 on each axis; the first half of the channels holds y
    /// then x, the second half the same again.
    pub fn new([rows, columns]: [usize; 2], width: usize, theta: f64, device: &Device) -> Self {
        let quarter = width / 4;
        let centre = |place: usize, places: usize| (place as f32 + 0.5) / places as f32 * 2.0 - 1.0;
        let mut angles = Vec::with_capacity(rows * columns * width);
        for y in 0..rows {
            for x in 0..columns {
                for channel in 0..width {
                    let half = channel % (width / 2);
                    let coordinate = if half < quarter {
                        centre(y, rows)
                    } else {
                        centre(x, columns)
                    };
                    let exponent = 4.0 * (half % quarter) as f32 / width as f32;
                    angles.push(std::f32::consts::TAU * coordinate / (theta as f32).powf(exponent));
                }
            }
        }
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [rows * columns, width]), device);
        Self {
            cos: tensor(angles.iter().map(|angle| angle.cos()).collect()),
            sin: tensor(angles.iter().map(|angle| angle.sin()).collect()),
        }
    }

    /// Rotates the patches of `x`, `[batch, heads, tokens, width]`; they are its last tokens.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, heads, tokens, width] = x.dims();
        let [patches, _] = self.cos.dims();
        let first = tokens - patches;
        let before = x.clone().slice([0..batch, 0..heads, 0..first]);
        let x = x.slice([0..batch, 0..heads, first..tokens]);
        let half = |from: usize| {
            x.clone()
                .slice([0..batch, 0..heads, 0..patches, from..from + width / 2])
        };
        let turned = Tensor::cat(vec![half(width / 2).neg(), half(0)], 3);
        let table = |table: &Tensor<2>| table.clone().cast(x.dtype()).unsqueeze::<4>();
        let (cos, sin) = (table(&self.cos), table(&self.sin));
        let rotated = x * cos + turned * sin;
        Tensor::cat(vec![before, rotated], 2)
    }
}
