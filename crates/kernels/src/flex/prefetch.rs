//! Software prefetching. Long weights are read once, in storage order: the hardware prefetcher stops at the end of each
//! page, and the sums between two reads fill the reorder window.
#![allow(unsafe_code)]

/// Prefetches the memory `bytes` after `at`, which need not belong to the program.
#[inline(always)]
pub fn prefetch<T>(at: &T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = std::ptr::from_ref(at).cast::<i8>().wrapping_add(bytes);
        // SAFETY: every x86-64 processor has the instruction, and it neither faults nor loads anything into a register,
        // whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
