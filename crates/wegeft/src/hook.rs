//! Hooks: places in a model's activations that an adapter can edit (inputs and outputs of blocks, outputs of sublayers) or
//! where it can add virtual tokens.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

use crate::edit::Bound;
use crate::prompts::Prompts;

/// A named place in a model's activations. It returns its input; bound to an adapter that edits activations (ReFT,
/// bottleneck adapters, VPT), it returns the edited input.
///
/// A backbone owns one per place, as a field (`blocks.3.output`), and calls [`Hook::forward`] there. It has no weights: its
/// only parameter, of zeros, gives the width. Adapters neither count, train nor store that parameter; Burn's own
/// `num_params` counts it, and records of the backbone contain it.
#[derive(Module, Debug)]
pub struct Hook {
    // Burn attaches bound state to parameters only; the length of this one is the width.
    pub(crate) edit_point: Param<Tensor<1>>,
}

impl Hook {
    /// A hook for activations `[batch, tokens, d_model]`.
    pub fn new(d_model: usize, device: &Device) -> Self {
        Self {
            edit_point: Initializer::Zeros.init([d_model], device),
        }
    }

    /// True if an adapter is bound here.
    pub fn is_bound(&self) -> bool {
        self.edit_point.reparameterization::<Bound>().is_some()
    }

    /// `x`, `[batch, tokens, d_model]`, edited if an adapter is bound here. VPT changes the number of tokens.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self.edit_point.reparameterization::<Bound>() {
            Some(bound) => {
                bound.check_batch(x.dims()[0]);
                bound.edit().activation(x)
            }
            None => x,
        }
    }

    /// [`Hook::forward`] for a model that knows where in each row its `prompts` begin and end, so that methods that edit
    /// the first and last tokens (ReFT) count within each prompt.
    pub fn forward_in(&self, x: Tensor<3>, prompts: &Prompts) -> Tensor<3> {
        match self.edit_point.reparameterization::<Bound>() {
            Some(bound) => {
                bound.check_batch(x.dims()[0]);
                bound.edit().activation_in(x, prompts)
            }
            None => x,
        }
    }
}

/// A named place where prompt tuning or prefix tuning adds virtual tokens. A backbone owns one for each method that it
/// supports, as a field: `prompt`, as wide as its embeddings, for prompt tuning; `prefix`, as wide as the keys and values of
/// all layers, for prefix tuning. The backbone puts the tokens in front of each document. Like a [`Hook`] it has no weights.
#[derive(Module, Debug)]
pub struct TokenHook {
    // As in a hook: Burn attaches bound state to parameters only.
    pub(crate) token_point: Param<Tensor<1>>,
}

impl TokenHook {
    /// A place for tokens of `width` elements each.
    pub fn new(width: usize, device: &Device) -> Self {
        Self {
            token_point: Initializer::Zeros.init([width], device),
        }
    }

    /// The virtual tokens `[tokens, width]` of the adapter bound here, if any.
    pub fn tokens(&self) -> Option<Tensor<2>> {
        let bound = self.token_point.reparameterization::<Bound>()?;
        bound.edit().virtual_tokens()
    }
}
