//! Token-cluster maps of trained WeGeFT adapters, as the paper's released code draws them: the generated weights W·phi
//! are interpreted as cluster centres for the tokens of attention's output.
//!
//! 1. The clusters of a block are the rows of `(W·phi)ᵀ`, `[r, d_model]`.
//! 2. The tokens are the output of attention's projection without the prefix tokens, once with the residual added and
//!    once without it.
//! 3. Their products are `r` maps, resized to the image (bilinear, corners not aligned).
//! 4. Each map is scaled to 0 to 1; values of 0.5 or less become 0.
//! 5. A map in JET colours is blended with the image, 0.6 to 0.4.
//! 6. There is one image per block, cluster and variant, and a sheet of all of them.

pub mod jet;
pub mod maps;
pub mod overlay;
pub mod program;
