//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) and how long contexts stretch them.
//!
//! Channel i of the first half of a head and channel i of the second half are one pair, as in transformers.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use kernels::RopeTable;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::layout::Layout;
use crate::error::ConfigError;

/// How the frequencies are scaled (transformers' `rope_type`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all.
    Default,
    /// All frequencies are divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// NTK-aware: the base grows with the length of a sequence that is longer than the model was trained for.
    Dynamic {
        /// Factor by which the context is longer than `max_positions`.
        factor: f64,
        /// Positions that the model was trained for.
        max_positions: f64,
    },
    /// Llama 3.1: frequencies of long waves are divided by `factor`, those of short ones kept, with a ramp between.
    Llama3 {
        /// Divisor of the frequencies of long waves.
        factor: f64,
        /// Waves longer than `original / low` are long.
        low: f64,
        /// Waves shorter than `original / high` are short.
        high: f64,
        /// Positions that the model was trained for before its context was extended.
        original: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// Divisor of the frequencies of long waves.
        factor: f64,
        /// Positions that the model was trained for before its context was extended.
        original: f64,
        /// Rotations within `original` positions at and above which a frequency is kept.
        beta_fast: f64,
        /// Rotations within `original` positions at and below which a frequency is divided by `factor`.
        beta_slow: f64,
        /// Whether the ends of the ramp between the two are rounded to whole channels.
        truncate: bool,
        /// Cosines and sines are multiplied by this.
        attention_factor: f64,
    },
    /// Only the first pairs of channels are rotated, with frequencies divided by `factor`; the others have frequency 0.
    Proportional {
        /// Divisor.
        factor: f64,
        /// Number of rotated pairs.
        pairs: usize,
    },
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753): each frequency has a divisor of its own, for short and for long
    /// sequences.
    Longrope {
        /// Divisors for sequences of up to `original` positions.
        short: Vec<f64>,
        /// Divisors for longer sequences.
        long: Vec<f64>,
        /// Positions that the model was trained for before its context was extended.
        original: f64,
        /// Cosines and sines are multiplied by this.
        attention_factor: f64,
    },
}

/// One rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Base of the frequencies: pair `i` has `theta^(-2i / dim)` before scaling.
    pub theta: f64,
    /// Number of channels of a head that are rotated, from the first on; even.
    pub dim: usize,
    /// How the frequencies are scaled.
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

    /// The one rotation of a model whose heads turn as a whole: `rope_parameters` (new configs), or `rope_theta` and
    /// `rope_scaling` (older ones).
    ///
    /// # Errors
    /// A kind or field that is not implemented, or one that is missing.
    pub(crate) fn from_hf(
        fields: &Fields,
        head_dim: usize,
        max_positions: usize,
        default_theta: f64,
    ) -> Result<Self, ConfigError> {
        let from = RopeSource {
            theta: fields.number_or("rope_theta", default_theta)?,
            head_dim,
            max_positions,
            partial: None,
            original: fields.maybe_number("original_max_position_embeddings")?,
        };
        let given = rope_parameters(fields);
        let by_layer = ["full_attention", "sliding_attention"];
        if given.is_some_and(|json| by_layer.iter().any(|kind| json.get(kind).is_some())) {
            return Err(ConfigError::field(
                "rope_parameters",
                "has an entry for each type of layer; this model has one for all of them",
            ));
        }
        from.parse(fields, given)
    }

    /// Radians per position of each of the `dim / 2` pairs, in a sequence of `length` positions.
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
            Scaling::Proportional { factor, pairs } => plain(self.theta)
                .enumerate()
                .map(|(pair, f)| if pair < *pairs { f / factor } else { 0.0 })
                .collect(),
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

    /// Length beyond which the frequencies of all positions change (LongRoPE), so that cached keys no longer fit.
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

    /// True if the frequencies of a text depend on its length.
    fn depends_on_length(&self) -> bool {
        matches!(self.scaling, Scaling::Dynamic { .. } | Scaling::Longrope { .. })
    }

    /// Radians of every token of `layout`, its frequencies by the length of its own text, whatever its neighbours':
    /// `[1 or rows, 1, tokens, dim / 2]`.
    fn angles(&self, layout: &Layout) -> TensorData {
        let (tokens, positions) = (layout.tokens(), layout.positions());
        let lengths = match self.depends_on_length() {
            true => layout.lengths(),
            false => vec![0; positions.len()],
        };
        let mut known: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for length in &lengths {
            known.entry(*length).or_insert_with(|| self.frequencies(*length));
        }
        let places = || positions.iter().zip(&lengths);
        let is_same = |((place, length), (first, other)): ((&u32, &usize), (&u32, &usize))| {
            place == first && (length == other || known[length] == known[other])
        };
        let mut same = places().zip(places().take(tokens).cycle());
        let rows = if same.all(is_same) { 1 } else { layout.rows() };
        let values = places().take(rows * tokens).flat_map(|(place, length)| {
            let frequencies = known[length].iter();
            frequencies.map(|frequency| *place as f32 * frequency)
        });
        TensorData::new(values.collect::<Vec<f32>>(), [rows, 1, tokens, self.dim / 2])
    }

    /// The rotation of every token of `layout`, for all layers of one forward pass.
    pub fn rotation(&self, layout: &Layout, dtype: DType, device: &Device) -> Rotation {
        // Multiplied here: a step of one token has few angles, and each operation is a launch.
        let angles = Tensor::<4>::from_data(self.angles(layout), (device, DType::F32));
        self.turning(angles, dtype)
    }

    /// [`RopeConfig::rotation`] of one token of each text, `places` `[rows, 1]` being its position. `frequencies`: of
    /// [`RopeConfig::fixed_frequencies`].
    pub(crate) fn rotation_at(&self, places: Tensor<2, Int>, frequencies: Tensor<4>, dtype: DType) -> Rotation {
        let [rows, _] = places.dims();
        let angles = places.cast(FloatDType::F32).reshape([rows, 1, 1, 1]) * frequencies;
        self.turning(angles, dtype)
    }

    /// The frequencies on the device, `[1, 1, 1, dim / 2]`; `None` if they depend on the length of a text.
    pub(crate) fn fixed_frequencies(&self, device: &Device) -> Option<Tensor<4>> {
        (!self.depends_on_length()).then(|| {
            let frequencies = TensorData::new(self.frequencies(0), [1, 1, 1, self.dim / 2]);
            Tensor::from_data(frequencies, (device, DType::F32))
        })
    }

    fn turning(&self, angles: Tensor<4>, dtype: DType) -> Rotation {
        let amplitude = self.amplitude();
        let scaled = |table: Tensor<4>| match amplitude {
            1.0 => table,
            _ => table.mul_scalar(amplitude),
        };
        let cos = scaled(angles.clone().cos()).cast(dtype);
        let sin = scaled(angles.sin()).cast(dtype);
        Rotation {
            table: RopeTable::new(cos, sin),
        }
    }
}

/// The object that says how a rotation is scaled: `rope_scaling` of older configs wins over `rope_parameters`, as in
/// transformers; an empty one says nothing.
pub(crate) fn rope_parameters<'a>(fields: &Fields<'a>) -> Option<&'a Value> {
    let full = |name: &str| {
        let empty = |json: &Value| json.as_object().is_some_and(Map::is_empty);
        fields.get(name).filter(|json| !empty(json))
    };
    let (old, new) = (full("rope_scaling"), full("rope_parameters"));
    old.or(new)
}

/// What a model's config says about a rotation beside its parameters.
pub(crate) struct RopeSource {
    /// Base where the parameters have none.
    pub theta: f64,
    /// Channels of a head.
    pub head_dim: usize,
    /// Positions that the model was made for.
    pub max_positions: usize,
    /// Share of a head that turns where the parameters say none; `None` for a model that turns whole heads.
    pub partial: Option<f64>,
    /// Positions before the stretch, if they stand beside the parameters; they win.
    pub original: Option<f64>,
}

impl RopeSource {
    /// Reads one object of parameters out of `fields`.
    ///
    /// # Errors
    /// A kind or field that is not implemented, or one that is missing.
    pub fn parse(&self, fields: &Fields, json: Option<&Value>) -> Result<RopeConfig, ConfigError> {
        // Beside the parameters or in them. A model that turns whole heads reads it only to scale.
        let beside = fields.number_or("partial_rotary_factor", 1.0)?;
        let Some(json) = json else {
            return self.checked(self.theta, self.partial.unwrap_or(1.0), Scaling::Default);
        };
        let own = Fields::new(json).map_err(within)?;
        let partial = own.number_or("partial_rotary_factor", beside).map_err(within)?;
        let scaling = self.scaling(&own, partial).map_err(within)?;
        let theta = own.number_or("rope_theta", self.theta).map_err(within)?;
        fields.ignore_of("rope_parameters", &own);
        let whole = match scaling {
            Scaling::Default => self.partial.is_none(),
            Scaling::Proportional { .. } => true,
            _ => false,
        };
        self.checked(theta, if whole { 1.0 } else { partial }, scaling)
    }

    fn checked(&self, theta: f64, partial: f64, scaling: Scaling) -> Result<RopeConfig, ConfigError> {
        let head_dim = self.head_dim;
        let dim = (head_dim as f64 * partial) as usize;
        let whole = self.partial.is_none();
        if dim < 2 || !dim.is_multiple_of(2) || dim > head_dim || (whole && dim != head_dim) {
            let problem = format!(
                "partial_rotary_factor {partial} rotates {dim} of the {head_dim} channels of a head; expected {}",
                match whole {
                    true => "all of them, and an even number".into(),
                    false => format!("an even number from 2 to {head_dim}"),
                }
            );
            return Err(ConfigError::invalid(problem));
        }
        if theta <= 0.0 {
            return Err(ConfigError::field(
                "rope_theta",
                format!("is {theta}; expected more than 0"),
            ));
        }
        if let Scaling::Longrope { short, long, .. } = &scaling
            && (short.len() != dim / 2 || long.len() != dim / 2)
        {
            let problem = format!(
                "'short_factor' and 'long_factor' hold {} and {} numbers; expected {}",
                short.len(),
                long.len(),
                dim / 2
            );
            return Err(within(ConfigError::invalid(problem)));
        }
        Ok(RopeConfig { theta, dim, scaling })
    }

    fn scaling(&self, fields: &Fields, partial: f64) -> Result<Scaling, ConfigError> {
        let max_positions = self.max_positions as f64;
        let positive = |name: &str, value: f64| match value > 0.0 {
            true => Ok(value),
            false => Err(ConfigError::field(name, format!("is {value}; expected more than 0"))),
        };
        // Zero is as good as absent, as in transformers.
        let nonzero = |value: f64, default: f64| if value == 0.0 { default } else { value };
        let kind = fields.text_or("type", "default")?;
        let kind = fields.text_or("rope_type", kind)?;
        let inner = fields.maybe_number("original_max_position_embeddings")?;
        let original = self.original.or(inner).unwrap_or(max_positions);
        match kind {
            "default" => Ok(Scaling::Default),
            "linear" => Ok(Scaling::Linear {
                factor: positive("factor", fields.number("factor")?)?,
            }),
            "dynamic" => Ok(Scaling::Dynamic {
                factor: positive("factor", fields.number("factor")?)?,
                max_positions,
            }),
            "llama3" => Ok(Scaling::Llama3 {
                factor: positive("factor", fields.number("factor")?)?,
                low: fields.number("low_freq_factor")?,
                high: fields.number("high_freq_factor")?,
                original,
            }),
            "yarn" => {
                let factor = positive("factor", fields.number_or("factor", max_positions / original)?)?;
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
                Ok(Scaling::Yarn {
                    factor,
                    original,
                    beta_fast: nonzero(fields.number_or("beta_fast", 32.0)?, 32.0),
                    beta_slow: nonzero(fields.number_or("beta_slow", 1.0)?, 1.0),
                    truncate: fields.flag_or("truncate", true)?,
                    attention_factor: fields.number_or("attention_factor", inferred)?,
                })
            }
            "proportional" => Ok(Scaling::Proportional {
                factor: positive("factor", fields.number_or("factor", 1.0)?)?,
                pairs: (partial * (self.head_dim / 2) as f64) as usize,
            }),
            "longrope" => {
                let factor = positive("factor", fields.number_or("factor", max_positions / original)?)?;
                let inferred = if factor <= 1.0 {
                    1.0
                } else {
                    (1.0 + factor.ln() / original.ln()).sqrt()
                };
                let list = |name: &str| {
                    fields.maybe_numbers(name)?.ok_or_else(|| ConfigError::Missing {
                        field: name.to_string(),
                        expected: "a list of numbers",
                    })
                };
                Ok(Scaling::Longrope {
                    short: list("short_factor")?,
                    long: list("long_factor")?,
                    original,
                    attention_factor: fields.number_or("attention_factor", inferred)?,
                })
            }
            other => Err(ConfigError::field(
                "rope_type",
                format!(
                    "is '{other}'; implemented are default, linear, dynamic, llama3, yarn, proportional and longrope"
                ),
            )),
        }
    }
}

pub(super) fn within(problem: ConfigError) -> ConfigError {
    ConfigError::Within {
        part: "rope parameters",
        problem: Box::new(problem),
    }
}

/// Cosine and sine of every token's angles, `[batch or 1, 1, tokens, dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotation {
    table: RopeTable,
}

impl Rotation {
    /// Rotates queries or keys, `[batch, heads, tokens, head_dim]`; channels from `dim` on are unchanged.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        self.table.rotate(x)
    }
}
