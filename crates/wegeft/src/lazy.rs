//! What an edit computes of its factors at its first use. [`Adapted::bind`](crate::Adapted::bind) itself computes nothing, so
//! that it costs handles only, and a site that a forward pass does not reach costs nothing else.

use std::sync::LazyLock;

/// A value that is computed once, when it is first read.
pub(crate) type Lazy<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

/// `compute`, at the first use.
pub(crate) fn lazy<T>(compute: impl FnOnce() -> T + Send + 'static) -> Lazy<T> {
    LazyLock::new(Box::new(compute))
}
