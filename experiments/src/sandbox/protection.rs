//! Resource limits of untrusted programs, and what they are kept from.

use serde::{Deserialize, Serialize};

/// Resource limits of a program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time, seconds.
    pub seconds: f64,
    /// Address space, MB.
    pub memory_mb: u64,
    /// Total size of the files in its folder, MB.
    pub disk_mb: u64,
}

impl Default for Limits {
    /// 3 seconds, as in HumanEval's own checker; 1 GB; 16 MB.
    fn default() -> Self {
        Self {
            seconds: 3.0,
            memory_mb: 1024,
            disk_mb: 16,
        }
    }
}

/// Which protections hold on this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holds {
    /// No file outside its own folder can be written, and only those of the interpreter and the system's libraries can
    /// be read.
    pub files: bool,
    /// No network, not even loopback.
    pub network: bool,
    /// No new processes, no signals to other processes.
    pub processes: bool,
    /// Memory, CPU time and file size are limited.
    pub limits: bool,
}

impl Holds {
    /// The protections that hold and those that do not, in one sentence.
    pub fn describe(&self, limits: &Limits) -> String {
        let parts = [
            (self.files, "read or change your files (they can see their names)"),
            (self.network, "use the network"),
            (self.processes, "start or stop processes"),
        ];
        let of = |wanted: bool| {
            let named = parts
                .iter()
                .filter(|(holds, _)| *holds == wanted)
                .map(|(_, what)| *what);
            named.collect::<Vec<_>>().join(", or ")
        };
        let (kept, open) = (of(true), of(false));
        let mut text = match kept.is_empty() {
            true => "programs run without a sandbox on this system".to_string(),
            false => format!("programs run in a sandbox and cannot {kept}"),
        };
        if !open.is_empty() {
            text += &format!("; they CAN {open}: use a container or a virtual machine for code that you do not trust");
        }
        text += &format!("; at most {} s", limits.seconds);
        if self.limits {
            text += &format!(", {} MB of memory, {} MB of files", limits.memory_mb, limits.disk_mb);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_is_said() {
        let limits = Limits::default();
        let all = Holds {
            files: true,
            network: true,
            processes: true,
            limits: true,
        };
        assert!(!all.describe(&limits).contains("CAN "));
        let some = Holds { files: false, ..all };
        assert!(some.describe(&limits).contains("they CAN read or change your files"));
        let none = Holds::default().describe(&limits);
        assert!(
            none.contains("without a sandbox") && none.contains("at most 3 s") && !none.contains("MB"),
            "{none}"
        );
    }
}
