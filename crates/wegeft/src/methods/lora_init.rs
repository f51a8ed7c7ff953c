//! Initialization of LoRA's factors: PEFT's `init_lora_weights`.

use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::orthonormal;
use crate::error::AdapterError;
use crate::site::Site;
use crate::weights::Weights;

/// Power iterations of PiSSA's randomized decomposition. PEFT's examples use up to 32; a stranger's file must not ask for
/// hours.
pub(super) const MOST_ITERATIONS: usize = 100;

/// Initialization of A and B; on disk true, false or a name, as in PEFT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum LoraInit {
    /// `true`: A ~ U(±1/√d_in) (Kaiming-uniform, a = √5), B = 0.
    #[default]
    Kaiming,
    /// `false`: A as above and B ~ U(±1/√r), so that training does not start from the frozen model. For tests.
    Random,
    /// `"gaussian"`: A ~ N(0, 1/r), B = 0.
    Gaussian,
    /// `"pissa"` (Meng et al. 2024, arXiv 2404.02948): A and B are the r principal singular directions of W, each
    /// scaled by the root of its singular value. An exact decomposition on the CPU: minutes for a weight of 4096².
    Pissa,
    /// `"pissa_niter_N"`: the same by a randomized decomposition with N power iterations (at most 100; Halko et al. 2011,
    /// arXiv 0909.4061), seconds for such a weight. PEFT draws its sketch from the global random state, so an
    /// adapter initialized this way cannot be reloaded exactly, there or here; convert it to plain LoRA in PEFT first.
    PissaNiter(usize),
    /// `"olora"` (Büyükakyüz 2024, arXiv 2406.01775): B and A are the first r columns of Q and rows of R of W = Q R.
    Olora,
    /// Another of PEFT's initializations, such as `"orthogonal"`. Adapters that were initialized this way can be loaded,
    /// but fresh ones are refused.
    Elsewhere(Elsewhere),
}

/// Initializations of PEFT that leave the frozen weight unchanged and are not implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// `"orthogonal"`
    Orthogonal,
    /// `"eva"`
    Eva,
    /// `"lora_ga"`
    LoraGa,
    /// `"mica"`
    Mica,
}

impl Elsewhere {
    const ALL: [Self; 4] = [Self::Orthogonal, Self::Eva, Self::LoraGa, Self::Mica];

    fn name(self) -> &'static str {
        match self {
            Self::Orthogonal => "orthogonal",
            Self::Eva => "eva",
            Self::LoraGa => "lora_ga",
            Self::Mica => "mica",
        }
    }

    pub(crate) fn refused(self) -> AdapterError {
        let message = format!(
            "\"{}\" is supported only in adapters that are loaded; choose true, \"gaussian\", \"pissa\" or \"olora\"",
            self.name()
        );
        AdapterError::bad_field("init_lora_weights", message)
    }
}

impl TryFrom<Value> for LoraInit {
    type Error = AdapterError;

    fn try_from(value: Value) -> Result<Self, AdapterError> {
        let known = match &value {
            Value::Bool(true) => Some(Self::Kaiming),
            Value::Bool(false) => Some(Self::Random),
            Value::String(name) => match name.as_str() {
                "gaussian" => Some(Self::Gaussian),
                "pissa" => Some(Self::Pissa),
                "olora" => Some(Self::Olora),
                other => {
                    let iterations = other.strip_prefix("pissa_niter_").and_then(|n| n.parse().ok());
                    let iterations = iterations.filter(|n: &usize| *n <= MOST_ITERATIONS);
                    let elsewhere = Elsewhere::ALL.into_iter().find(|start| start.name() == other);
                    iterations.map(Self::PissaNiter).or(elsewhere.map(Self::Elsewhere))
                }
            },
            _ => None,
        };
        known.ok_or_else(|| {
            let message = format!(
                "{value} is not implemented; choose from true, false, \"gaussian\", \"pissa\", \"pissa_niter_N\" with N up \
                 to {MOST_ITERATIONS} and \"olora\""
            );
            AdapterError::bad_field("init_lora_weights", message)
        })
    }
}

impl From<LoraInit> for Value {
    fn from(init: LoraInit) -> Self {
        match init {
            LoraInit::Kaiming => true.into(),
            LoraInit::Random => false.into(),
            LoraInit::Gaussian => "gaussian".into(),
            LoraInit::Pissa => "pissa".into(),
            LoraInit::PissaNiter(n) => format!("pissa_niter_{n}").into(),
            LoraInit::Olora => "olora".into(),
            LoraInit::Elsewhere(start) => start.name().into(),
        }
    }
}

/// A `[r, d_in]` and B `[d_out, r]`, and copies of them as constants if their product is a part of the weight.
pub(crate) struct Start {
    pub a: Tensor<2>,
    pub b: Tensor<2>,
    pub initial: Option<(Tensor<2>, Tensor<2>)>,
}

impl LoraInit {
    /// True if A and B start as a part of the weight. On load that part is recomputed from the weight, with the same bits.
    pub fn reads_weight(&self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora)
    }

    pub(crate) fn start(
        &self,
        site: &Site,
        r: usize,
        scale: f64,
        weights: &Weights,
        device: &Device,
    ) -> Result<Start, AdapterError> {
        let uniform = |shape: [usize; 2], fan_in: usize| {
            let bound = 1.0 / (fan_in as f64).sqrt();
            Tensor::random(shape, Distribution::Uniform(-bound, bound), device)
        };
        let zeros = || Tensor::zeros([site.d_out, r], device);
        let (a, b) = match self {
            // Factors that are loaded replace this start.
            Self::Kaiming | Self::Elsewhere(_) => (uniform([r, site.d_in], site.d_in), zeros()),
            Self::Random => (uniform([r, site.d_in], site.d_in), uniform([site.d_out, r], r)),
            Self::Gaussian => {
                let normal = Distribution::Normal(0.0, 1.0 / r as f64);
                (Tensor::random([r, site.d_in], normal, device), zeros())
            }
            Self::Pissa | Self::PissaNiter(_) | Self::Olora => {
                let (a, b) = self.part(site, r, scale, weights)?;
                let on_device = |part: &Tensor<2>| Tensor::from_data(part.to_data(), device);
                return Ok(Start {
                    a: on_device(&a),
                    b: on_device(&b),
                    initial: Some((a, b)),
                });
            }
        };
        Ok(Start { a, b, initial: None })
    }

    /// The part of the weight divided by `scale`, without gradient.
    fn part(
        &self,
        site: &Site,
        r: usize,
        scale: f64,
        weights: &Weights,
    ) -> Result<(Tensor<2>, Tensor<2>), AdapterError> {
        let weight = weights.matrix(site);
        if !weight.clone().is_finite().all().into_scalar::<bool>() {
            let message = format!("'{}' has NaN or infinite elements and cannot be decomposed", site.path);
            return Err(AdapterError::bad_field("init_lora_weights", message));
        }
        let (u, s, vt) = match self {
            Self::Olora => {
                // The first columns of Q depend on W's first columns alone, in PyTorch's orientation of W.
                let q = orthonormal::qr(weight.clone().narrow(0, 0, r).transpose());
                return Ok((weight.matmul(q.clone()).transpose(), q));
            }
            Self::PissaNiter(iterations) => orthonormal::truncated_svd(weight, r, *iterations),
            _ => orthonormal::svd(weight, r),
        };
        let root = s.div_scalar(scale).sqrt();
        let a = u.transpose() * root.clone().unsqueeze_dim::<2>(1);
        let b = vt.transpose() * root.unsqueeze::<2>();
        Ok((a, b))
    }
}
