//! Peak memory of this process and of the device.

use burn::tensor::Device;

/// Peak resident set in MB (10^6 bytes) since the last [`reset_peak`]; `None` if the system does not report it.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let line = status
        .as_ref()
        .and_then(|status| status.lines().find(|line| line.starts_with("VmHWM:")));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0 / 1e6).or_else(resident_mb)
}

/// Resident set now, MB.
#[cfg(target_os = "linux")]
fn resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib = line.split_whitespace().nth(1)?.parse::<f64>().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(not(target_os = "linux"))]
fn resident_mb() -> Option<f64> {
    let pid = sysinfo::get_current_pid().ok()?;
    let mut system = sysinfo::System::new();
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
    system.process(pid).map(|process| process.memory() as f64 / 1e6)
}

/// Memory that is available without swapping, MB; `None` if the system does not report it.
pub fn available_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok();
    let line = text
        .as_ref()
        .and_then(|text| text.lines().find(|line| line.starts_with("MemAvailable:")));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024 / 1_000_000).or_else(free_mb)
}

#[cfg(target_os = "linux")]
fn free_mb() -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
fn free_mb() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    Some(system.available_memory() / 1_000_000).filter(|mb| *mb > 0)
}

/// Memory that a GPU's allocator currently holds, MB (10^6 bytes): close to the peak since the last [`reset_peak`],
/// although it may have released empty pages. `None` on a CPU, where tensors are in the process's memory.
pub fn device_mb(device: &Device) -> Option<f64> {
    device
        .memory_pool_usage()
        .map(|usage| usage.bytes_reserved as f64 / 1e6)
}

/// Peak memory of the device with the tensors, MB (10^6 bytes): that of a GPU's allocator or, on a CPU, of the process.
pub fn peak_mb(device: &Device) -> Option<f64> {
    device_mb(device).or_else(peak_rss_mb)
}

/// Memory currently in use on the device with the tensors, MB: that of a GPU's allocator or, on a CPU, of the process.
pub fn in_use_mb(device: &Device) -> Option<f64> {
    device_mb(device).or_else(resident_mb)
}

/// The peak as the end of a sentence; empty if the system does not report it.
pub fn peak_note(device: &Device) -> String {
    peak_mb(device).map_or(String::new(), |peak| format!("; peak memory {peak:.0} MB"))
}

/// Resets the peaks to the memory in use now, so that trainings in one process can be compared. If the system cannot do
/// this, the peak remains that of the whole process.
pub fn reset_peak(device: &Device) {
    // Queued operations hold memory too.
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
