//! Loops compiled for the widest vector registers of the machine, selected at run time.

use pulp::{Simd, WithSimd};

/// Runs a block of code that is compiled once per instruction set, in the version for this machine.
///
/// Everything the block calls must be `#[inline(always)]`; otherwise it is compiled separately, for the baseline instruction
/// set. The block's closure is called by reference, because rustc inserts a function between a closure and a call by value.
macro_rules! simd {
    ($body:block) => {
        pulp::Arch::new().dispatch($crate::flex::simd::Work(
            #[inline(always)]
            || $body,
        ))
    };
}

pub(crate) use simd;

/// What [`simd!`] hands to pulp.
pub struct Work<F>(pub F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _simd: S) -> R {
        (self.0)()
    }
}
