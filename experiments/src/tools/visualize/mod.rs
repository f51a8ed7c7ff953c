//! Token-cluster maps of trained WeGeFT adapters, as the paper's released code draws them: the generated weights W·phi
//! read as cluster centres of the attention output's tokens.
//!
//! 1. The clusters of a block are the rows of `(W·phi)ᵀ`, `[r, d_model]`.
//! 2. The tokens are the output of attention's projection without the prefix tokens, once with the residual added and
//!    once without it.
//! 3. Their products are `r` maps, resized to the image (bilinear, corners not aligned).
//! 4. Each map goes from 0 to 1; what is 0.5 or less becomes 0.
//! 5. A map in JET colours lies over the image, 0.6 to 0.4.
//! 6. There is one image a block, cluster and variant, and a sheet of them all.

pub mod jet;
pub mod maps;
pub mod overlay;
pub mod program;
