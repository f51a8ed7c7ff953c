//! The settings of WeGeFT.

use serde::{Deserialize, Serialize};

use super::check::{check_alpha, check_probability};
use super::generator::GeneratorConfig;
use crate::error::AdapterError;
use crate::group::Sharing;
use crate::patterns::Patterns;
use crate::site::Site;

/// Side of W that phi·psi multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// `W (I + s·phi·psi)`: all sites of a group have equal d_in.
    #[default]
    Input,
    /// `(I + s·phi·psi) W`: all sites of a group have equal d_out.
    Output,
}

/// Which factor starts at zero, so that the adapted model starts as the frozen one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroFactor {
    /// phi = 0: the reference's language code (PEFT fork).
    Phi,
    /// psi = 0: the reference's vision code.
    #[default]
    Psi,
}

/// Settings of WeGeFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WegeftConfig {
    /// Rank of phi and psi.
    pub r: usize,
    /// Numerator of the scale s = alpha / r. `alpha = r` (s = 1) is the reference's vision code.
    pub alpha: f64,
    /// The factor that starts at zero.
    #[serde(default)]
    pub zero_factor: ZeroFactor,
    /// Which sites share (phi, psi).
    #[serde(default)]
    pub sharing: Sharing,
    /// Side of the weight that is edited.
    #[serde(default)]
    pub side: Side,
    /// Dropout on the elements of W before W·phi (input side): a new mask each forward pass in training.
    #[serde(default)]
    pub weight_dropout: f64,
    /// Dropout on what psi reads (x, or x W on the output side), in training.
    #[serde(default)]
    pub dropout: f64,
    /// Blocks between phi and psi (input side).
    #[serde(default)]
    pub generator: GeneratorConfig,
    /// Ranks and alphas that differ for some modules; all sites of a group must agree. With [`Sharing::Tied`]
    /// they are read as in the WeGeFT fork of PEFT: the first key of either field that matches a site is used for both
    /// rank and alpha, and sites of one group may have different scales.
    #[serde(flatten)]
    pub patterns: Patterns,
}

impl WegeftConfig {
    /// Rank `r`, scale 1, psi = 0, one group per projection type.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            alpha: r as f64,
            zero_factor: ZeroFactor::default(),
            sharing: Sharing::default(),
            side: Side::default(),
            weight_dropout: 0.0,
            dropout: 0.0,
            generator: GeneratorConfig::default(),
            patterns: Patterns::default(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets which factor starts at zero.
    pub fn with_zero_factor(mut self, zero_factor: ZeroFactor) -> Self {
        self.zero_factor = zero_factor;
        self
    }

    /// Sets which sites share factors.
    pub fn with_sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Sets the side of the weight that is edited.
    pub fn with_side(mut self, side: Side) -> Self {
        self.side = side;
        self
    }

    /// Sets the dropout on the elements of W.
    pub fn with_weight_dropout(mut self, p: f64) -> Self {
        self.weight_dropout = p;
        self
    }

    /// Sets the dropout on what psi reads.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// Sets the blocks between phi and psi.
    pub fn with_generator(mut self, generator: GeneratorConfig) -> Self {
        self.generator = generator;
        self
    }

    /// Refuses combinations that make no sense.
    pub(super) fn check(&self) -> Result<(), AdapterError> {
        check_alpha("alpha", self.alpha)?;
        self.generator.check()?;
        check_probability("weight_dropout", self.weight_dropout)?;
        check_probability("dropout", self.dropout)?;
        let bad = |field: &str, message: &str| Err(AdapterError::bad_field(field, message));
        if self.side == Side::Output && self.weight_dropout > 0.0 {
            return bad(
                "weight_dropout",
                "acts on W before W·phi, which only the input side computes; set side = input, or set it to 0",
            );
        }
        if self.generator.is_identity() {
            return Ok(());
        }
        if self.side == Side::Output {
            return bad(
                "generator",
                "a generator reads W·phi, which only the input side computes; set side = input",
            );
        }
        if self.zero_factor == ZeroFactor::Phi {
            return bad(
                "zero_factor",
                "with a generator, the start is the frozen model only if psi = 0; set it to psi",
            );
        }
        Ok(())
    }

    /// The size that all sites of a group share and that limits the rank: d_in or d_out.
    pub(super) fn shared_size(&self, site: &Site) -> usize {
        match self.side {
            Side::Input => site.d_in,
            Side::Output => site.d_out,
        }
    }

    pub(super) fn shared_size_name(&self) -> &'static str {
        match self.side {
            Side::Input => "d_in",
            Side::Output => "d_out",
        }
    }
}
