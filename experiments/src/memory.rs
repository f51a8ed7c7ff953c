//! Peak memory of this process and of the device.

use burn::tensor::Device;

/// Peak resident set in MB (10^6 bytes) since the last [`reset_peak`]; `None` where the system does not tell.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Memory that a GPU's allocator holds now, MB (10^6 bytes): near the peak since the last [`reset_peak`], but it may have
/// given pages back that became empty. `None` on a CPU, whose memory is the process's.
pub fn device_mb(device: &Device) -> Option<f64> {
    device
        .memory_pool_usage()
        .map(|usage| usage.bytes_reserved as f64 / 1e6)
}

/// Peak memory where the tensors are, MB (10^6 bytes): what the device's allocator holds, or the process's on a CPU.
pub fn peak_mb(device: &Device) -> Option<f64> {
    device_mb(device).or_else(peak_rss_mb)
}

/// The peak as the end of a sentence, nothing where the system does not tell.
pub fn peak_note(device: &Device) -> String {
    peak_mb(device).map_or(String::new(), |peak| format!("; peak memory {peak:.0} MB"))
}

/// Starts the peaks anew at what is in use now, so that runs of one process can be compared. Where the system cannot,
/// the peak stays that of the whole process.
pub fn reset_peak(device: &Device) {
    // What is queued holds memory too.
    let _ = device.sync();
    device.memory_cleanup();
    // 5 resets VmHWM (proc(5), clear_refs).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_does_not_count_for_the_next_run() {
        let large = std::hint::black_box(vec![1u8; 256 << 20]);
        let with = peak_rss_mb().unwrap();
        drop(large);
        reset_peak(&Device::flex());
        let after = peak_rss_mb().unwrap();
        assert!(after < with - 200.0, "{after} {with}");
    }
}
