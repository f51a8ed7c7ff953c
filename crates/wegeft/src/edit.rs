//! What an adapted site does instead of the frozen one, and how that is attached to a parameter.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Reparameterization};
use burn::tensor::{Device, Int, Tensor};

use crate::factors::Factors;
use crate::low_rank::LowRank;
use crate::prompts::Prompts;
use crate::tensor::{affine, cast, dequantized, product, with_rest};

/// What an adapted site does instead of the frozen one. The defaults behave as the frozen site; a method implements what it
/// changes.
pub trait Edit: Any + fmt::Debug + Send + Sync {
    /// `residual + x W' + bias` in activation space; `residual` and `bias` are optional. `x`: `[n, d_in]`, `weight` (the stored one):
    /// `[d_in, d_out]`, `bias`: `[d_out]`, `residual` and result: `[n, d_out]`.
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let update = self.update(x.clone(), weight.clone());
        affine(x, weight, bias, Some(with_rest(update, None, residual)))
    }

    /// The residual `W' - W`, `[d_in, d_out]`: the weight-space route, and what a merge adds.
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        weight.zeros_like()
    }

    /// [`Edit::residual`] as a forward pass reads it through [`Param::val`](burn::module::Param::val): in training, with
    /// dropout. Activation space draws a mask for every row; here all rows of a forward pass share one mask.
    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        self.residual(weight)
    }

    /// `x (W' - W)`, `[n, d_out]`, in training with dropout: what the default of [`Edit::affine`] adds to the frozen layer's
    /// output, and what a block of a fused layer adds. `x` and `weight` as in [`Edit::affine`].
    fn update(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let weight = dequantized(weight);
        match self.low_rank(weight.clone()) {
            Some(residual) => residual.forward(x),
            None => product(x, self.residual(weight)),
        }
    }

    /// Rows `ids` (`[n]`) of an embedding's table with the edit, `[n, d_model]`. `weight`: `[vocabulary, d_model]`. With a
    /// low-rank residual the edited table is never formed.
    fn rows(&self, ids: Tensor<1, Int>, weight: Tensor<2>) -> Tensor<2> {
        let frozen = weight.clone().select(0, ids.clone());
        let change = match self.low_rank(weight.clone()) {
            Some(residual) => residual.rows(ids),
            None => self.residual(weight).select(0, ids),
        };
        let dtype = frozen.dtype();
        frozen + cast(change, dtype)
    }

    /// What replaces the vector `bias`, `[d_out]`: a bias, or the scale of a norm.
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        bias
    }

    /// `out`, `[n, d_out]`, with the bias added.
    fn add_bias(&self, out: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
        let dtype = out.dtype();
        out + cast(self.bias(bias), dtype).unsqueeze::<2>()
    }

    /// What a [`crate::Hook`] returns for `x`, `[batch, tokens, d_model]`.
    fn activation(&self, x: Tensor<3>) -> Tensor<3> {
        x
    }

    /// [`Edit::activation`] in a model that knows where `prompts` begin and end, for methods that edit only some tokens of each.
    fn activation_in(&self, x: Tensor<3>, _prompts: &Prompts) -> Tensor<3> {
        self.activation(x)
    }

    /// Number of examples in the batch, for an edit that treats them differently: the first dimension of the site's input must
    /// equal it. `None` for all other edits.
    fn batch(&self) -> Option<usize> {
        None
    }

    /// Number of tokens that [`Edit::activation`] adds.
    fn added_tokens(&self) -> usize {
        0
    }

    /// The virtual tokens that a [`crate::TokenHook`] adds, `[tokens, width]`.
    fn virtual_tokens(&self) -> Option<Tensor<2>> {
        None
    }

    /// The residual as a low-rank product, if it is exactly one.
    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        None
    }

    /// True for rows that are trained beside a method (PEFT's `trainable_token_indices`): a method's own form leaves them as
    /// they are.
    fn beside_a_method(&self) -> bool {
        false
    }

    /// The weight that gives `merged`, `[d_in, d_out]`, when merged; `None` if `merged` does not determine it.
    fn unmerged(&self, _merged: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    /// The bias that gives `merged`, `[d_out]`, when merged; `None` if `merged` does not determine it.
    fn unmerged_bias(&self, _merged: Tensor<1>) -> Option<Tensor<1>> {
        None
    }

    /// True if it adds something to a layer's output that neither weight nor bias can hold: it then works in activation space
    /// only and cannot be merged.
    fn adds_to_output(&self) -> bool {
        false
    }

    /// True if a layer bound to `other` that reads the same input can reuse the result of this edit's [`Edit::edit_input`].
    fn shares_input_edit(&self, _other: &dyn Edit) -> bool {
        false
    }

    /// The edited input that the frozen weight then reads, `[n, d_in]`; for edits of the input, which layers can share.
    fn edit_input(&self, x: Tensor<2>) -> Tensor<2> {
        x
    }
}

/// The edit that changes nothing.
#[derive(Debug)]
pub struct Frozen;

impl Edit for Frozen {
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        affine(x, weight, bias, residual)
    }
}

type Make = dyn Fn(&Factors) -> Arc<dyn Edit> + Send + Sync;

/// How an edit is made from factors.
#[derive(Clone)]
pub(crate) struct Rebind(Arc<Make>);

impl Rebind {
    pub(crate) fn new(make: impl Fn(&Factors) -> Arc<dyn Edit> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

/// The state that binding attaches to a site: the edit, and the factors that it was made from. Visitors of a bound model see
/// these factors, so that gradients taken from it are the bank's.
#[derive(Clone)]
pub struct Bound {
    factors: Arc<Factors>,
    edit: Arc<dyn Edit>,
    rebind: Rebind,
    composed: Composed,
}

/// The edited parameter, a `Tensor` of its rank, once it has been read. The places of a tied weight share it, so that they have
/// one dropout mask.
pub(crate) type Composed = Arc<OnceLock<Arc<dyn Any + Send + Sync>>>;

impl Bound {
    pub(crate) fn new(factors: Factors, rebind: Rebind) -> Self {
        let edit = rebind.0(&factors);
        Self {
            factors: Arc::new(factors),
            edit,
            rebind,
            composed: Composed::default(),
        }
    }

    /// The same state for a place that shares the edited parameter with those that have `composed` too.
    pub(crate) fn at(self, composed: Composed) -> Self {
        Self { composed, ..self }
    }

    /// What it does to its site.
    pub fn edit(&self) -> &dyn Edit {
        &*self.edit
    }

    /// The factors that the edit was made from.
    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    /// Checks the first dimension of an input `[first, .., d_in]` of a site in a mixed batch.
    ///
    /// # Panics
    /// If it is not the number of adapter names that `bind_rows` was given.
    pub(crate) fn check_batch(&self, first: usize) {
        if let Some(batch) = self.edit().batch() {
            assert!(
                first == batch,
                "bind_rows was given {batch} adapter names, but the first dimension of a layer's input is {first}; give one name \
                 per example of the batch"
            );
        }
    }

    /// The parameter with the edit written into it: a weight or a vector, without dropout.
    pub(crate) fn merged<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        if D == 1 {
            let [width] = [shape[0]];
            return self.edit().bias(base.reshape([width])).reshape(shape);
        }
        let base = as_matrix(base);
        (base.clone() + self.edit().residual(base)).reshape(shape)
    }

    /// One bound state made of several, whose edits `make` combines.
    pub(crate) fn composed(
        parts: Vec<Self>,
        make: impl Fn(Vec<Self>) -> Arc<dyn Edit> + Send + Sync + 'static,
    ) -> Self {
        let none = Factors::default();
        let factors = parts.iter().fold(none, |all, part| all.joined(&part.factors));
        let edit = make(parts.clone());
        let rebind = Rebind::new(move |factors: &Factors| {
            let mut start = 0;
            let parts = parts.iter().map(|part| {
                let length = part.factors.len();
                let own = factors.part(start, length);
                start += length;
                Self::new(own, part.rebind.clone())
            });
            make(parts.collect())
        });
        Self {
            factors: Arc::new(factors),
            edit,
            rebind,
            composed: Composed::default(),
        }
    }

    /// The parameter with the edit, as a forward pass reads it.
    fn compose<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        let base = dequantized(base);
        if D == 1 {
            let [width] = [shape[0]];
            return self.edit().bias(base.reshape([width])).reshape(shape);
        }
        let base = as_matrix(base);
        (base.clone() + self.edit().residual_in_training(base)).reshape(shape)
    }

    /// The same state with other factors. The edit is rebuilt, since it holds handles to the old ones.
    fn changed(self, change: impl FnOnce(Factors) -> Factors) -> Self {
        let factors = Arc::unwrap_or_clone(self.factors);
        Self::new(change(factors), self.rebind)
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bound").field(&self.edit).finish()
    }
}

impl Module for Bound {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.factors.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.changed(|factors| factors.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.changed(|factors| factors.to_device(device))
    }

    fn train(self) -> Self {
        self.changed(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().changed(|factors| factors.valid())
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.factors.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.changed(|factors| factors.map(mapper))
    }
}

impl Reparameterization for Bound {
    const NAME: &'static str = "wegeft";

    // Burn reads `Param::val()` through this: the weight-space route, which needs no change in the model. A recurrent model
    // reads a weight many times in one pass: it is composed once, and every read is the same tensor, since a view for each
    // read would be a node of the graph with a dense gradient of its own.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let composed = self.composed.get_or_init(|| Arc::new(self.compose(base)));
        let composed = composed.downcast_ref::<Tensor<D>>();
        composed.expect("it belongs to one parameter").clone()
    }
}

/// A weight as the matrix that edits work on, `[rows, columns]`.
pub(crate) fn as_matrix<const D: usize>(weight: Tensor<D>) -> Tensor<2> {
    let shape = weight.shape();
    weight.reshape([shape[0], shape[1..].iter().product()])
}
