//! Loops compiled for the widest registers that the machine has, chosen at run time.

use pulp::{Simd, WithSimd};

/// Runs a block of code compiled once for each instruction set, the one of this machine.
///
/// All that the block calls must be `#[inline(always)]`, or else it is compiled by itself, for the narrow registers that
/// every machine has. The block's own closure is: it is called by reference, since rustc puts a function of its own
/// between a closure and a call by value.
macro_rules! wide {
    ($body:block) => {
        pulp::Arch::new().dispatch($crate::flex::wide::Work(
            #[inline(always)]
            || $body,
        ))
    };
}

pub(crate) use wide;

/// What [`wide!`] hands to pulp.
pub struct Work<F>(pub F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _simd: S) -> R {
        (self.0)()
    }
}
