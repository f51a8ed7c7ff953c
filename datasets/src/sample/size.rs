//! The size of the sample's images.

/// Side length, pixels.
pub const SIZE: usize = 32;
