//! What is known of a factor besides its elements: its name, its shape, its key on disk and how it starts.

use burn::tensor::{Device, Distribution, Tensor};

/// What a factor starts as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// All elements equal.
    Full(f64),
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal of that standard deviation.
    Normal(f64),
    /// Normal of that standard deviation; elements beyond two of them are drawn again.
    TruncatedNormal(f64),
}

impl Init {
    pub(crate) fn draw<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        match self {
            Self::Zeros => Tensor::zeros(shape, device),
            Self::Ones => Tensor::ones(shape, device),
            Self::Full(value) => Tensor::full(shape, value, device),
            Self::Uniform(bound) => Tensor::random(shape, Distribution::Uniform(-bound, bound), device),
            Self::Normal(std) => Tensor::random(shape, Distribution::Normal(0.0, std), device),
            Self::TruncatedNormal(std) => truncated_normal(shape, std, device),
        }
    }
}

fn truncated_normal<const D: usize>(shape: [usize; D], std: f64, device: &Device) -> Tensor<D> {
    let draw = || Tensor::<D>::random(shape, Distribution::Normal(0.0, std), device);
    let mut values = draw();
    loop {
        let beyond = values.clone().abs().greater_elem(2.0 * std);
        if !beyond.clone().any().into_scalar::<bool>() {
            return values;
        }
        values = values.mask_where(beyond, draw());
    }
}

/// Everything about a factor except its elements. Counting, saving, optimizer groups and learning rates read it, so that
/// none of them depends on a method.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Name within its group, such as `a`, by which [`Factors::get`](crate::Factors::get) finds it.
    pub name: String,
    /// Shape in memory, one to four dimensions.
    pub shape: Vec<usize>,
    /// End of its key on disk, such as `lora_A.weight`, preceded by the name of the group's first module.
    pub suffix: String,
    /// True if the suffix is the whole key.
    pub is_whole_key: bool,
    /// True if the file holds the transpose, as PyTorch keeps linear weights.
    pub transposed: bool,
    /// True if it gets gradients.
    pub trained: bool,
    /// True if it is written to disk and to records.
    pub saved: bool,
    /// True if it takes weight decay.
    pub decays: bool,
    /// Multiplies the learning rate for this factor.
    pub lr_scale: f64,
    /// What it starts as.
    pub init: Init,
}

impl Spec {
    /// A factor that is trained and saved and starts at zero; it takes weight decay unless it is a vector.
    pub fn new(name: impl Into<String>, suffix: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        Self {
            name: name.into(),
            suffix: suffix.into(),
            is_whole_key: false,
            transposed: false,
            trained: true,
            saved: true,
            decays: shape.len() > 1,
            lr_scale: 1.0,
            init: Init::Zeros,
            shape,
        }
    }

    /// Sets what it starts as.
    pub fn with_init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Makes the suffix the whole key on disk, without the name of a module.
    pub fn with_whole_key(mut self) -> Self {
        self.is_whole_key = true;
        self
    }

    /// Its key on disk in a group that is stored under `module`.
    pub(crate) fn key(&self, module: &str) -> String {
        match self.is_whole_key {
            true => self.suffix.clone(),
            false => format!("{module}.{}", self.suffix),
        }
    }

    /// Makes the file hold the transpose.
    pub fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Makes it saved but not trained.
    pub fn frozen(mut self) -> Self {
        self.trained = false;
        self
    }

    /// Makes it neither trained nor saved, for a factor that can be recomputed.
    pub fn constant(mut self) -> Self {
        self.trained = false;
        self.saved = false;
        self
    }

    /// Exempts it from weight decay.
    pub fn without_decay(mut self) -> Self {
        self.decays = false;
        self
    }

    /// Sets the multiplier of its learning rate.
    pub fn with_lr_scale(mut self, lr_scale: f64) -> Self {
        self.lr_scale = lr_scale;
        self
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of elements that are trained: all or none.
    pub fn trained_len(&self) -> usize {
        if self.trained { self.len() } else { 0 }
    }
}
