//! A guard around readers of other crates that may panic on damaged input: it turns a panic into an error without
//! printing anything.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// True while this thread runs a guarded reader.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The result of `read`, or an error if it panics.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                usual(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(outer);
    result.unwrap_or_else(|_| Err("it is damaged: the reader gave up".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_the_guard_is_lifted() {
        let damaged = guarded(|| -> Result<(), String> { Err(format!("{}", [1, 2][std::env::args().count() + 7])) });
        assert!(damaged.unwrap_err().contains("gave up"));
        assert_eq!(guarded(|| Ok(3)), Ok(3));
        assert!(!GUARDED.get());
    }
}
