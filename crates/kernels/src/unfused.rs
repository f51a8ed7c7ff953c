//! A build without the feature `flex` is correct on the flex backend, but slow: it must not be so in silence.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

thread_local! {
    /// The device of the last operation: most programs have one, and looking at its name takes longer than comparing it.
    static LAST: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Warns once on stderr if `device` is flex.
pub(crate) fn warn_on_flex(device: &Device) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.load(Ordering::Relaxed) || LAST.with_borrow(|last| last.as_ref() == Some(device)) {
        return;
    }
    LAST.set(Some(device.clone()));
    // The variant itself has a name here only if burn has the feature `flex`, which this crate cannot know.
    if format!("{device:?}").contains("Flex(") && !WARNED.swap(true, Ordering::Relaxed) {
        eprintln!(
            "warning: tensors are on Burn's flex backend, but wegeft-kernels was built without its feature `flex`, so its \
             operations are not fused and slow; enable `flex` of wegeft, wegeft-backbones or wegeft-kernels"
        );
    }
}
