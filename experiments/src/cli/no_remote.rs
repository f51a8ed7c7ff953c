//! In place of `remote` in a program that is built without it: there are no devices of other machines.

use std::path::Path;

use burn::tensor::Device;

use super::program::built_with;

/// Says how to build a program that has them.
///
/// # Errors
/// Always.
pub fn device(name: &str) -> Result<Device, String> {
    Err(lacks("--device", name))
}

/// Always false.
pub fn is_remote(_device: &Device) -> bool {
    false
}

/// Always `None`.
pub fn bytes() -> Option<(u64, u64)> {
    None
}

/// Does nothing.
pub fn release() {}

/// Does `work`.
///
/// # Errors
/// Those of `work`.
pub fn watched<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    work()
}

/// Says how to build a program that reads it.
///
/// # Errors
/// Always.
pub fn set_token_file(path: &Path) -> Result<(), String> {
    Err(lacks("--token-file", &path.display().to_string()))
}

/// None can be set.
pub fn token_file() -> Option<&'static Path> {
    None
}

fn lacks(flag: &str, value: &str) -> String {
    format!(
        "{flag} {value}: this program was built without devices of other machines; run: {}{flag} {value}",
        built_with("remote")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::device::devices;

    #[test]
    fn what_needs_the_feature_names_it() {
        let of_device = device("ws://gpu:3000#0").map(drop).unwrap_err();
        let of_token = set_token_file(Path::new("token")).unwrap_err();
        for (message, flag) in [
            (of_device, "--device ws://gpu:3000#0"),
            (of_token, "--token-file token"),
        ] {
            assert!(
                message.contains("cargo run -p experiments --features remote"),
                "{message}"
            );
            assert!(message.starts_with(flag) && message.ends_with(flag), "{message}");
        }
        assert!(devices("flex+ws://gpu:3000#1").is_err());
    }
}
