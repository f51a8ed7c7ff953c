//! Token-cluster maps of trained WeGeFT adapters (protocol section 8): the generated weights W·phi read as cluster
//! centres of the attention output's tokens.

pub mod jet;
pub mod maps;
pub mod overlay;
pub mod program;
