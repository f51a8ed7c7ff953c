//! Working with adapters: merging, several on one backbone, conversions, optimizer groups, the learner, types; and models of other projects.

mod conversions;
mod devices;
mod dtypes;
mod learner;
mod merging;
mod models;
mod net;
mod optimizer;
mod others;
mod several;
