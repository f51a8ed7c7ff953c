//! GPUs that are not there.

use crate::program::{GPU, no_gpu, text, wegeft};

fn fails(args: &[&str], drivers: Option<&str>, parts: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let mut command = wegeft(&["vtab", "--task", "digits", "--out"]);
    command.arg(out.path().join("run")).args(args);
    if let Some(drivers) = drivers {
        // The second name is what older loaders read.
        command.env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
    }
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert!(!output.status.success() && !message.contains("panicked"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_one_sentence() {
    // Drivers of Vulkan alone can be taken away so; `wgpu` would find OpenGL.
    if cfg!(all(target_os = "linux", feature = "vulkan")) {
        let none = format!("--device {GPU}: no such GPU");
        fails(&["--device", GPU], Some("/nonexistent"), &[&none, "driver"]);
    }
    if !no_gpu() {
        let far = format!("{GPU}:97");
        let part = match GPU {
            "cuda" | "rocm" => "numbered from 0",
            _ => "without a number",
        };
        fails(&["--device", &far], None, &[&far, part]);
    }
}
