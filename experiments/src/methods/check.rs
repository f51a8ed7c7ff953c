//! Refuses settings from which no adapter can be made.

use super::build::adapter;
use super::settings::{Adapter, MethodSettings, NONE, OwnSettings, Wing};
use super::table::find;
use crate::cli::settings::{check_decay, check_learning_rate, check_positive};

impl Adapter {
    /// Normalizes names (dashes to underscores, each name once) and refuses settings from which no adapter can be made.
    ///
    /// # Errors
    /// An unknown method, a value out of range, a field that its method does not read.
    pub fn check(&mut self, own: &OwnSettings, wing: Wing) -> Result<(), String> {
        let names = self.method.iter().map(|name| name.trim().replace('-', "_"));
        self.method = crate::cli::table::distinct(names.filter(|name| !name.is_empty()));
        if self.method.is_empty() {
            return Err("field 'method' is empty; name at least one".into());
        }
        check_positive(&[("r", self.r), ("lora_r", self.lora_r)])?;
        for (field, alpha) in [("alpha", self.alpha), ("lora_alpha", self.lora_alpha)] {
            if let Some(alpha) = alpha.filter(|alpha| !alpha.is_finite()) {
                return Err(format!("field '{field}' is {alpha}; it must be a finite number"));
            }
        }
        for (field, value) in [
            ("weight_dropout", self.weight_dropout),
            ("lora_dropout", self.lora_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("field '{field}' is {value}; it must be in [0, 1)"));
            }
        }
        for method in self.method.iter().chain(own.keys()) {
            if method == NONE && wing != Wing::Vision {
                continue;
            }
            // Whether the method exists does not depend on the model.
            adapter(self, own, method, wing, "")?;
        }
        own.iter().try_for_each(|(method, own)| check_own(method, own))
    }
}

/// Most virtual tokens: a prompt longer than any text that these models read.
const MOST_TOKENS: usize = 10_000;

/// Refuses fields of `[methods.NAME]` that the method does not read, and values out of range.
fn check_own(method: &str, own: &MethodSettings) -> Result<(), String> {
    let reads = find(method).map_or(&[][..], |entry| entry.reads);
    let given = [
        ("r", own.r.is_some()),
        ("alpha", own.alpha.is_some()),
        ("init_r", own.init_r.is_some()),
        ("tinit", own.tinit.is_some()),
        ("tfinal", own.tfinal.is_some()),
        ("delta_t", own.delta_t.is_some()),
        ("orth_reg_weight", own.orth_reg_weight.is_some()),
        ("block_size", own.block_size.is_some()),
        ("n_butterfly_factor", own.n_butterfly_factor.is_some()),
        ("tokens", own.tokens.is_some()),
        ("target_modules", own.target_modules.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(field, given)| *given && !reads.contains(field)) {
        let reads = match reads.is_empty() {
            true => "learning rates and weight decays only".to_string(),
            false => reads.join(", "),
        };
        return Err(format!(
            "field '{field}' of [methods.{method}] is not read by that method; it reads {reads}"
        ));
    }
    check_positive(&[
        ("r", own.r.unwrap_or(1)),
        ("init_r", own.init_r.unwrap_or(1)),
        ("delta_t", own.delta_t.unwrap_or(1)),
        ("block_size", own.block_size.unwrap_or(1)),
        ("n_butterfly_factor", own.n_butterfly_factor.unwrap_or(1)),
        ("tokens", own.tokens.unwrap_or(1)),
    ])
    .and_then(|()| match own.tokens {
        Some(tokens) if tokens > MOST_TOKENS => {
            Err(format!("field 'tokens' is {tokens}; it must be at most {MOST_TOKENS}"))
        }
        _ => check_rates(own),
    })
    .map_err(|e| format!("[methods.{method}]: {e}"))
}

fn check_rates(own: &MethodSettings) -> Result<(), String> {
    for (field, rates) in [
        ("learning_rate", own.learning_rate.as_slice()),
        ("sweep_lr", own.sweep_lr.as_deref().unwrap_or_default()),
    ] {
        rates.iter().try_for_each(|rate| check_learning_rate(field, *rate))?;
    }
    for (field, decays) in [
        ("orth_reg_weight", own.orth_reg_weight.as_slice()),
        ("weight_decay", own.weight_decay.as_slice()),
        (
            "sweep_weight_decay",
            own.sweep_weight_decay.as_deref().unwrap_or_default(),
        ),
    ] {
        decays.iter().try_for_each(|decay| check_decay(field, *decay))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::defaults;

    #[test]
    fn a_field_that_a_method_does_not_read_is_refused_by_name() {
        let own = |text: &str| -> OwnSettings { toml::from_str(text).unwrap() };
        let checked = |own: &OwnSettings| defaults::<Adapter>().check(own, Wing::Vision);
        checked(&own("[vpt]\ntokens = 10\n[lora]\nr = 4\nlora_alpha = 1.0")).unwrap();
        for (text, field) in [
            ("[vpt]\nr = 10", "'r'"),
            ("[full]\nalpha = 1.0", "'alpha'"),
            ("[lora]\ntokens = 3", "'tokens'"),
        ] {
            let message = checked(&own(text)).unwrap_err();
            assert!(message.contains(field) && message.contains("not read"), "{message}");
        }
        for (text, field) in [
            ("[lora]\nsweep_lr = [0.1, 0]", "[methods.lora]: field 'sweep_lr'"),
            (
                "[lora]\nsweep_weight_decay = -1",
                "[methods.lora]: field 'sweep_weight_decay'",
            ),
            ("[vpt]\ntokens = 1000000", "[methods.vpt]: field 'tokens'"),
            ("[lora]\nlr = 0", "[methods.lora]: field 'learning_rate'"),
        ] {
            let message = checked(&own(text)).unwrap_err();
            assert!(message.starts_with(field), "{message}");
        }
        assert!(
            checked(&own("[magic]\nlr = 1.0"))
                .unwrap_err()
                .contains("'magic' is unknown")
        );
    }
}
