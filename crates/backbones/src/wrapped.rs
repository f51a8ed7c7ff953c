//! What stands before the names of a model's tensors when it was saved as a part of another module: `module.` of data
//! parallelism, `_orig_mod.` of a compiled model, the field of a larger model's class.

use std::collections::BTreeSet;

/// Modules that PyTorch puts between others, anywhere in a name.
const BETWEEN: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// What stands before the names of one model's tensors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrapped {
    /// Before the model's own prefix (`vit.`), which a head does not have.
    outer: String,
}

impl Wrapped {
    /// That of the tensors called `names`. It stands before the one tensor whose name ends with one of `anchors`, and before
    /// the prefix of `bases` in front of that.
    ///
    /// # Errors
    /// The names of two such tensors, which are of two models.
    pub(crate) fn find<'a>(
        names: impl Iterator<Item = &'a str>,
        anchors: &[&str],
        bases: &[&str],
    ) -> Result<Self, [String; 2]> {
        let before = |name: &str| {
            let name = cleaned(name);
            let found = anchors
                .iter()
                .find_map(|anchor| name.strip_suffix(anchor).map(String::from));
            found.filter(|before| before.is_empty() || before.ends_with('.'))
        };
        let found: BTreeSet<String> = names.filter_map(before).collect();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(one), Some(other)) => Err([one, other]),
            (Some(before), None) => {
                let base = bases
                    .iter()
                    .find(|base| before.ends_with(*base))
                    .map_or(0, |base| base.len());
                let whole = |outer: &str| outer.is_empty() || outer.ends_with('.');
                let outer = &before[..before.len() - base];
                Ok(Self {
                    outer: if whole(outer) { outer.to_string() } else { before },
                })
            }
            (None, _) => Ok(Self::default()),
        }
    }

    /// `name` without it.
    pub(crate) fn without(&self, name: &str) -> String {
        let name = cleaned(name);
        name.strip_prefix(&self.outer).map_or(name.clone(), String::from)
    }
}

fn cleaned(name: &str) -> String {
    BETWEEN
        .iter()
        .fold(name.to_string(), |name, between| match name.contains(between) {
            true => name.replace(between, ""),
            false => name,
        })
}

/// What to do about tensors of a LoRA beside the weights that it changes, if `names` have any.
pub(crate) fn unmerged<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    let of_an_adapter = |name: &&str| {
        [".lora_A.", ".lora_B.", ".base_layer."]
            .iter()
            .any(|part| name.contains(part))
    };
    let name = names.find(of_an_adapter)?;
    Some(format!(
        "'{name}' belongs to an adapter that is not merged; save the model after PEFT's merge_and_unload, or give the adapter \
         and its base model"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANCHORS: [&str; 2] = ["patch_embed.proj.weight", "projection.weight"];
    const BASES: [&str; 2] = ["vit.", "it."];

    fn found(names: &[&str]) -> Result<Wrapped, [String; 2]> {
        Wrapped::find(names.iter().copied(), &ANCHORS, &BASES)
    }

    #[test]
    fn what_stands_before_is_taken_away() {
        for (anchor, name, expected) in [
            ("patch_embed.proj.weight", "head.weight", "head.weight"),
            ("encoder.patch_embed.proj.weight", "encoder.head.weight", "head.weight"),
            ("a.b.vit.projection.weight", "a.b.classifier.bias", "classifier.bias"),
            ("a.b.vit.projection.weight", "a.b.vit.layer.0", "vit.layer.0"),
            (
                "module._orig_mod.patch_embed.proj.weight",
                "module._orig_mod.norm.bias",
                "norm.bias",
            ),
            ("a.projection.weight", "fc.weight", "fc.weight"),
        ] {
            assert_eq!(found(&[anchor, name]).unwrap().without(name), expected);
        }
        assert_eq!(found(&["x.weight"]).unwrap(), Wrapped::default());
        let two = found(&["student.patch_embed.proj.weight", "teacher.patch_embed.proj.weight"]);
        assert_eq!(two.unwrap_err(), ["student.", "teacher."]);
    }

    #[test]
    fn an_adapter_that_is_not_merged_is_named() {
        assert_eq!(unmerged(["a.weight", "b.lora.weight"].into_iter()), None);
        let message = unmerged(["a.q.lora_A.default.weight"].into_iter()).unwrap();
        assert!(message.contains("'a.q.lora_A.default.weight'") && message.contains("merge_and_unload"));
    }
}
