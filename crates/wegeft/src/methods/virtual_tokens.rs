//! What prompt tuning and prefix tuning share: one tensor of virtual tokens, stored as PEFT stores it.

use burn::tensor::Tensor;

use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::site::Site;

pub(super) fn groups(sites: &[Site], num_virtual_tokens: usize) -> Result<Vec<Group>, AdapterError> {
    match num_virtual_tokens {
        0 => Err(AdapterError::bad_field(
            "num_virtual_tokens",
            "is 0; set it to 1 or more",
        )),
        _ => Ok(Group::each(sites)),
    }
}

pub(super) fn spec(group: &Group, num_virtual_tokens: usize) -> Spec {
    let shape = [num_virtual_tokens, group.site().d_in];
    Spec::new("tokens", "prompt_embeddings", shape).with_whole_key()
}

/// The edit of a bound [`crate::TokenHook`].
#[derive(Debug)]
pub(super) struct BoundTokens {
    /// `[tokens, width]`
    tokens: Tensor<2>,
}

impl BoundTokens {
    pub(super) fn of(factors: &Factors) -> Self {
        Self {
            tokens: factors.matrix("tokens"),
        }
    }
}

impl Edit for BoundTokens {
    fn virtual_tokens(&self) -> Option<Tensor<2>> {
        Some(self.tokens.clone())
    }
}
