//! Memory that is asked for before it is read. Long weights are read once, in the order in which they lie: what a
//! processor fetches by itself stops at the end of each page, and the sums between two reads fill its window.
#![allow(unsafe_code)]

/// Asks for the memory `bytes` after `at`, which need not be the program's.
#[inline(always)]
pub fn ask_ahead<T>(at: &T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = std::ptr::from_ref(at).cast::<i8>().wrapping_add(bytes);
        // SAFETY: every x86-64 has the instruction, and it neither faults nor reads anything into the program, whatever
        // the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
