//! The kinds of sites.

use std::fmt;

/// What a site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SiteKind {
    /// A rank-2 weight `[d_in, d_out]`, of a linear layer or a field of some module.
    #[default]
    Matrix,
    /// The table of an embedding, `[vocabulary, d_model]`: d_in is the vocabulary.
    Embedding,
    /// The kernel of a convolution, `[channels_out, channels_in, ..]`: d_in is channels_in times the kernel's size.
    Conv,
    /// The weights of experts, `[experts, d_in, d_out]`.
    Experts,
    /// A bias, or the scale of a norm.
    Vector,
    /// A place in the activations.
    Hook,
    /// A place for virtual tokens.
    Tokens,
}

/// With its article, as messages use it.
impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Matrix => "a weight matrix",
            Self::Embedding => "an embedding",
            Self::Conv => "the kernel of a convolution",
            Self::Experts => "the weights of experts",
            Self::Vector => "a vector",
            Self::Hook => "a hook",
            Self::Tokens => "a place for virtual tokens",
        })
    }
}
