//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) and how long contexts stretch them.
//!
//! Channel i of the first half of a head and channel i of the second half are one pair, as in transformers.

use std::f64::consts::PI;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::Fields;
use super::layout::Layout;

/// How the frequencies are scaled (transformers' `rope_type`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all.
    Default,
    /// All divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// NTK-aware: a base that grows with the sequence once that is longer than the model was made for.
    Dynamic {
        /// Stretch.
        factor: f64,
        /// Positions that the model was made for.
        max_positions: f64,
    },
    /// Llama 3.1: long waves divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of long waves.
        factor: f64,
        /// Waves longer than `original / low` are long.
        low: f64,
        /// Waves shorter than `original / high` are short.
        high: f64,
        /// Positions before the stretch.
        original: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// Divisor of long waves.
        factor: f64,
        /// Positions before the stretch.
        original: f64,
        /// Rotations over `original` from which on a wave is kept.
        beta_fast: f64,
        /// Rotations over `original` up to which a wave is divided.
        beta_slow: f64,
        /// The ramp's ends are whole channels.
        truncate: bool,
        /// Factor of cosine and sine.
        attention_factor: f64,
    },
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753): a divisor for each frequency, of two sets.
    Longrope {
        /// Divisors up to `original` positions.
        short: Vec<f64>,
        /// Divisors beyond.
        long: Vec<f64>,
        /// Positions before the stretch.
        original: f64,
        /// Factor of cosine and sine.
        attention_factor: f64,
    },
}

/// One rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Channels of a head that turn, from the first on; even.
    pub dim: usize,
    /// Scaling.
    pub scaling: Scaling,
}

impl RopeConfig {
    /// Unscaled, all `head_dim` channels.
    pub fn new(theta: f64, head_dim: usize) -> Self {
        Self {
            theta,
            dim: head_dim,
            scaling: Scaling::Default,
        }
    }

    /// Reads `rope_parameters` (new configs), or `rope_theta`, `partial_rotary_factor` and `rope_scaling` (older ones).
    ///
    /// # Errors
    /// A kind or field that is not implemented, or one that is missing.
    pub fn from_hf(fields: &Fields, head_dim: usize, max_positions: usize, default_theta: f64) -> Result<Self, String> {
        let theta = fields.number_or("rope_theta", default_theta)?;
        let partial = fields.number_or("partial_rotary_factor", 1.0)?;
        let given = fields.get("rope_parameters").or(fields.get("rope_scaling"));
        // Phi-3 keeps it beside, not inside, and there it has priority.
        let original = fields.maybe_number("original_max_position_embeddings")?;
        match given {
            None => Self::checked(theta, partial, head_dim, Scaling::Default),
            Some(json) => Self::parse(json, theta, partial, head_dim, max_positions as f64, original),
        }
    }

    /// Reads one `rope_parameters` object.
    ///
    /// # Errors
    /// As [`RopeConfig::from_hf`].
    pub fn parse(
        json: &Value,
        theta: f64,
        partial: f64,
        head_dim: usize,
        max_positions: f64,
        original: Option<f64>,
    ) -> Result<Self, String> {
        let within = |message: String| format!("in the rope parameters, {message}");
        let fields = Fields::new(json).map_err(within)?;
        let scaling = Scaling::parse(&fields, max_positions, original).map_err(within)?;
        let theta = fields.number_or("rope_theta", theta).map_err(within)?;
        let partial = fields.number_or("partial_rotary_factor", partial).map_err(within)?;
        fields.finish().map_err(within)?;
        Self::checked(theta, partial, head_dim, scaling)
    }

    fn checked(theta: f64, partial: f64, head_dim: usize, scaling: Scaling) -> Result<Self, String> {
        let dim = (head_dim as f64 * partial) as usize;
        if dim < 2 || !dim.is_multiple_of(2) || dim > head_dim {
            return Err(format!(
                "a head of {head_dim} channels with partial_rotary_factor {partial} turns {dim} of them; expected an even number from 2 to {head_dim}"
            ));
        }
        if let Scaling::Longrope { short, long, .. } = &scaling
            && (short.len() != dim / 2 || long.len() != dim / 2)
        {
            return Err(format!(
                "in the rope parameters, 'short_factor' and 'long_factor' hold {} and {} numbers; expected {}",
                short.len(),
                long.len(),
                dim / 2
            ));
        }
        Ok(Self { theta, dim, scaling })
    }

    /// Radians a position of each of the `dim / 2` pairs, in a sequence of `length` positions.
    pub fn frequencies(&self, length: usize) -> Vec<f32> {
        let dim = self.dim as f64;
        let exponents = (0..self.dim / 2).map(|pair| 2.0 * pair as f64 / dim);
        let plain = |theta: f64| exponents.clone().map(move |exponent| theta.powf(-exponent));
        let scaled: Vec<f64> = match &self.scaling {
            Scaling::Default => plain(self.theta).collect(),
            Scaling::Linear { factor } => plain(self.theta).map(|f| f / factor).collect(),
            Scaling::Dynamic { factor, max_positions } => {
                let length = (length as f64).max(*max_positions);
                let stretch = factor * length / max_positions - (factor - 1.0);
                plain(self.theta * stretch.powf(dim / (dim - 2.0))).collect()
            }
            Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => plain(self.theta)
                .map(|f| {
                    let waves = original * f / (2.0 * PI);
                    let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - kept) * f / factor + kept * f
                })
                .collect(),
            Scaling::Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                let place = |rotations: f64| dim * (original / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (mut low, mut high) = (place(*beta_fast), place(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                plain(self.theta)
                    .enumerate()
                    .map(|(pair, f)| {
                        let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        divided * f / factor + (1.0 - divided) * f
                    })
                    .collect()
            }
            Scaling::Longrope {
                short, long, original, ..
            } => {
                let divisors = if length as f64 > *original { long } else { short };
                plain(self.theta)
                    .zip(divisors)
                    .map(|(f, divisor)| f / divisor)
                    .collect()
            }
        };
        scaled.into_iter().map(|f| f as f32).collect()
    }

    /// Length beyond which the frequencies of positions before it change too (LongRoPE): keys that were kept from
    /// before no longer fit.
    pub fn switches_at(&self) -> Option<usize> {
        match self.scaling {
            Scaling::Longrope { original, .. } => Some(original as usize),
            _ => None,
        }
    }

    fn amplitude(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } | Scaling::Longrope { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }

    /// The rotation of every token of `layout`, for all layers of one forward pass.
    pub fn rotation(&self, layout: &Layout, dtype: DType, device: &Device) -> Rotation {
        // Row by row: how long its neighbours are changes nothing for a text.
        let mut frequencies: Vec<Vec<f32>> = layout.lengths().map(|length| self.frequencies(length)).collect();
        if frequencies.iter().all(|row| *row == frequencies[0]) {
            frequencies.truncate(1);
        }
        let shape = [frequencies.len(), 1, 1, self.dim / 2];
        let frequencies = TensorData::new(frequencies.concat(), shape);
        let places = layout.places(device).float().cast(DType::F32);
        let [rows, tokens] = places.dims();
        let angles = places.reshape([rows, 1, tokens, 1]) * Tensor::<4>::from_data(frequencies, (device, DType::F32));
        let amplitude = self.amplitude();
        Rotation {
            cos: angles.clone().cos().mul_scalar(amplitude).cast(dtype),
            sin: angles.sin().mul_scalar(amplitude).cast(dtype),
        }
    }
}

impl Scaling {
    fn parse(fields: &Fields, max_positions: f64, original: Option<f64>) -> Result<Self, String> {
        let kind = fields.text_or("type", "default")?;
        let kind = fields.text_or("rope_type", kind)?;
        let inner = fields.maybe_number("original_max_position_embeddings")?;
        let original = original.or(inner).unwrap_or(max_positions);
        match kind {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear {
                factor: fields.number("factor")?,
            }),
            "dynamic" => Ok(Self::Dynamic {
                factor: fields.number("factor")?,
                max_positions,
            }),
            "llama3" => Ok(Self::Llama3 {
                factor: fields.number("factor")?,
                low: fields.number("low_freq_factor")?,
                high: fields.number("high_freq_factor")?,
                original,
            }),
            "yarn" => {
                let factor = fields.number_or("factor", max_positions / original)?;
                // Equation 22 of the paper, for a share m of it.
                let gain = |m: f64| {
                    if factor <= 1.0 {
                        1.0
                    } else {
                        0.1 * m * factor.ln() + 1.0
                    }
                };
                let scales = (fields.maybe_number("mscale")?, fields.maybe_number("mscale_all_dim")?);
                let inferred = match scales {
                    (Some(m), Some(all)) if m != 0.0 && all != 0.0 => gain(m) / gain(all),
                    _ => gain(1.0),
                };
                Ok(Self::Yarn {
                    factor,
                    original,
                    beta_fast: fields.number_or("beta_fast", 32.0)?,
                    beta_slow: fields.number_or("beta_slow", 1.0)?,
                    truncate: fields.flag_or("truncate", true)?,
                    attention_factor: fields.number_or("attention_factor", inferred)?,
                })
            }
            "longrope" | "su" => {
                let factor = fields.number_or("factor", max_positions / original)?;
                let inferred = if factor <= 1.0 {
                    1.0
                } else {
                    (1.0 + factor.ln() / original.ln()).sqrt()
                };
                let list = |name: &str| {
                    fields
                        .maybe_numbers(name)?
                        .ok_or_else(|| format!("field '{name}' is missing; expected a list of numbers"))
                };
                Ok(Self::Longrope {
                    short: list("short_factor")?,
                    long: list("long_factor")?,
                    original,
                    attention_factor: fields.number_or("attention_factor", inferred)?,
                })
            }
            other => Err(format!(
                "field 'rope_type' is '{other}'; implemented are default, linear, dynamic, llama3, yarn and longrope"
            )),
        }
    }
}

/// Cosine and sine of every token's angles, `[batch or 1, 1, tokens, dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// Turns queries or keys `[batch, heads, tokens, head_dim]`; channels beyond the rotation's stay as they are.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::rope(x, self.cos.clone(), self.sin.clone())
    }
}
