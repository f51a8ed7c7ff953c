//! Trainings on devices of other machines: workers on this machine's own address.
#![cfg(feature = "remote")]

mod faults;
mod numbers;
mod program;
