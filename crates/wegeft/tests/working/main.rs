//! Working with adapters: merging, several on one backbone, conversions, optimizer groups, the learner, types.

mod conversions;
mod devices;
mod dtypes;
mod learner;
mod merging;
mod net;
mod optimizer;
mod several;
