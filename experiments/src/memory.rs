//! Peak memory of this process.

/// Peak resident set in MB (10^6 bytes) since the last [`reset_peak`]; `None` where the system does not tell.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// The peak as the end of a sentence, nothing where the system does not tell.
pub fn peak_note() -> String {
    peak_rss_mb().map_or(String::new(), |peak| format!("; peak memory {peak:.0} MB"))
}

/// Starts the peak anew at what is resident now, so that runs of one process can be compared. Where the system cannot,
/// the peak stays that of the whole process.
pub fn reset_peak() {
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
        reset_peak();
        let after = peak_rss_mb().unwrap();
        assert!(after < with - 200.0, "{after} {with}");
    }
}
