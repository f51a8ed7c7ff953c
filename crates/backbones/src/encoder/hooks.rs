//! Places in an encoder's activations where methods such as LoReFT and bottleneck adapters act.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use wegeft::{Hook, Prompts};

use super::attention::Pass;

/// The hooks of one layer.
#[derive(Module, Debug)]
pub struct LayerHooks {
    /// What attention adds to the residual stream: where Houlsby's adapters are.
    pub attn_out: Hook,
    /// What the MLP adds to the residual stream: where Houlsby's and Pfeiffer's adapters are.
    pub mlp_out: Hook,
    /// The layer's output: where ReFT is.
    pub output: Hook,
}

impl LayerHooks {
    pub(super) fn new(d_model: usize, device: &Device) -> Self {
        let hook = || Hook::new(d_model, device);
        Self {
            attn_out: hook(),
            mlp_out: hook(),
            output: hook(),
        }
    }

    /// True if any of them is bound to an adapter.
    pub(super) fn are_bound(&self) -> bool {
        [&self.attn_out, &self.mlp_out, &self.output]
            .into_iter()
            .any(Hook::is_bound)
    }

    /// The places inside the layer, in a pass.
    pub(super) fn places<'a>(&'a self, pass: &'a Pass) -> Places<'a> {
        Places {
            attn_out: Place::new(&self.attn_out, pass),
            mlp_out: Place::new(&self.mlp_out, pass),
        }
    }
}

/// The places inside a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    pub attn_out: Place<'a>,
    pub mlp_out: Place<'a>,
}

/// A hook, and where the tokens of the batch that it is called with stand in their texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    hook: &'a Hook,
    prompts: &'a Prompts,
}

impl<'a> Place<'a> {
    pub(super) fn new(hook: &'a Hook, pass: &'a Pass) -> Self {
        Self {
            hook,
            prompts: &pass.prompts,
        }
    }

    pub(super) fn is_bound(self) -> bool {
        self.hook.is_bound()
    }

    /// `x`, `[batch, tokens, d_model]`, edited if an adapter is bound here.
    pub(super) fn forward(self, x: Tensor<3>) -> Tensor<3> {
        self.hook.forward_in(x, self.prompts)
    }
}
