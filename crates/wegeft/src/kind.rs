//! The kinds of sites.

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
