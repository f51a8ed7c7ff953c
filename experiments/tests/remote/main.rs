//! Trainings on devices of other machines: workers on this machine's own address.
#![cfg(feature = "remote")]

mod faults;
#[path = "../halves/mod.rs"]
mod halves;
mod numbers;
mod program;
#[path = "../trained/mod.rs"]
mod trained;
