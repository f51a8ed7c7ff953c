//! The methods by name: a line each, from settings to an adapter.

use wegeft::methods::{lora::LoraConfig, wegeft::WegeftConfig};
use wegeft::{AdapterConfig, Method};

use crate::settings::Settings;

/// The settings of one method, the defaults filled in.
struct Values {
    r: usize,
    lora_r: usize,
    alpha: Option<f64>,
}

impl Values {
    /// Numerator of the scale; scale 1 if the settings do not say.
    fn alpha(&self, r: usize) -> f64 {
        self.alpha.unwrap_or(r as f64)
    }
}

type Make = fn(&Values) -> Method;

const METHODS: &[(&str, Make)] = &[
    ("linear", |_| Method::Linear),
    ("full", |_| Method::Full),
    ("lora", |v| {
        Method::Lora(LoraConfig::new(v.lora_r).with_alpha(v.alpha(v.lora_r)))
    }),
    ("wegeft", |v| {
        Method::Wegeft(WegeftConfig::new(v.r).with_alpha(v.alpha(v.r)))
    }),
];

/// The adapter of method `name`; the head is trained in full by all of them.
///
/// # Errors
/// An unknown method.
pub fn adapter(settings: &Settings, name: &str) -> Result<AdapterConfig, String> {
    let Some((_, make)) = METHODS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = METHODS.iter().map(|(known, _)| *known).collect();
        return Err(format!("method '{name}' is unknown; choose among {}", names.join(", ")));
    };
    let own = settings.of_method(name);
    let method = make(&Values {
        r: own.r.unwrap_or(settings.r),
        lora_r: own.r.unwrap_or(settings.lora_r),
        alpha: own.alpha.or(settings.alpha),
    });
    let targets = own.target_modules.unwrap_or_else(|| settings.target_modules.clone());
    let config = AdapterConfig::new(method);
    let config = match config.method {
        Method::Linear | Method::Full => config,
        _ => config.with_target_modules(targets),
    };
    Ok(config.with_modules_to_save(["head"]))
}
