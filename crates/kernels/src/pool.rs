//! Many small operations in a row.

/// Runs `work` on a thread of the pool that flex's operations share. From outside of it each operation would wait for a
/// thread to wake up, hundreds of times for one token of a language model. Without flex, it is just run.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    return rayon::scope(|_| work());
    #[cfg(not(feature = "flex"))]
    work()
}
