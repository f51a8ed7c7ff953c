//! Places in a model's activations that an adapter can edit (block inputs, sublayer outputs, block outputs), and places
//! where it can add virtual tokens.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

use crate::edit::Bound;

/// Where the tokens of a pass stand in the prompts that they belong to, for methods that edit the first and the last tokens
/// of each (ReFT).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompts {
    /// For each token, row by row: how many tokens of its prompt come before it, and how many after it. `None` for tokens
    /// of no prompt: padding, answers.
    pub places: Vec<Option<[usize; 2]>>,
}

/// A named place in a model's activations. At rest it passes its input on; bound to a method that edits
/// representations (ReFT, bottleneck adapters, prompts) it passes on the edited one.
///
/// A backbone owns one per place, as a field (`blocks.3.output`), and calls [`Hook::forward`] there. It holds no weight: its
/// one parameter, of zeros, tells the width of the place. No adapter counts, trains or stores it; Burn's own `num_params`
/// and records of the backbone do.
#[derive(Module, Debug)]
pub struct Hook {
    // Burn attaches bound state to parameters only; this one's length tells the width of the place.
    pub(crate) edit_point: Param<Tensor<1>>,
}

impl Hook {
    /// A hook for activations `[batch, tokens, d_model]`.
    pub fn new(d_model: usize, device: &Device) -> Self {
        Self {
            edit_point: Initializer::Zeros.init([d_model], device),
        }
    }

    /// True for the time of a forward pass in which an adapter edits this place.
    pub fn is_bound(&self) -> bool {
        self.edit_point.reparameterization::<Bound>().is_some()
    }

    /// `x`, `[batch, tokens, d_model]`, edited if an adapter is bound here. Prompts may change the number of tokens.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self.edit_point.reparameterization::<Bound>() {
            Some(bound) => bound.edit().activation(x),
            None => x,
        }
    }

    /// As [`Hook::forward`], in a model whose rows hold prompts, several perhaps, and what follows them.
    pub fn forward_in(&self, x: Tensor<3>, prompts: &Prompts) -> Tensor<3> {
        match self.edit_point.reparameterization::<Bound>() {
            Some(bound) => bound.edit().activation_in(x, prompts),
            None => x,
        }
    }
}

/// A named place where a prompt method adds virtual tokens to what a model reads. A backbone owns one for each kind that it
/// supports, as a field: `prompt`, as wide as its embeddings, for prompt tuning; `prefix`, with a key and a value for each
/// layer, for prefix tuning. What the tokens stand in front of, and that no document sees another one's, is the backbone's
/// own doing. Like a [`Hook`] it holds no weight.
#[derive(Module, Debug)]
pub struct TokenHook {
    // As in a hook: Burn attaches bound state to parameters only.
    pub(crate) token_point: Param<Tensor<1>>,
}

impl TokenHook {
    /// A place for tokens of that many elements each.
    pub fn new(width: usize, device: &Device) -> Self {
        Self {
            token_point: Initializer::Zeros.init([width], device),
        }
    }

    /// The virtual tokens `[tokens, width]` of the adapter that is bound here, if one is.
    pub fn tokens(&self) -> Option<Tensor<2>> {
        let bound = self.token_point.reparameterization::<Bound>()?;
        bound.edit().virtual_tokens()
    }
}
