//! Running statistics, such as a batch norm's. Burn's clones of a module share them: what is trained or loaded in one clone
//! shows in all others, and so in the backbone that an adapter was made from.

use burn::module::Module;

use crate::by_path::ByPath;

/// True if the parameter at `path` is a running statistic.
pub(crate) fn is_statistic(path: &str) -> bool {
    path.rsplit('.')
        .next()
        .is_some_and(|field| field.starts_with("running_"))
}

/// Applies the last update of the running statistics of `model`, and so of its clones. A forward pass only notes its update:
/// Burn applies it with the next one, or in `valid` and `train`, and until then visitors and mappers see the values before
/// it.
pub(crate) fn settle<M: Module>(model: &M) {
    drop(model.valid());
}

/// `model` with running statistics that it shares with no clone of it; everything else is as it was.
pub(crate) fn unshared<M: Module>(model: M) -> M {
    // Of all that Burn does to a module, only `valid` and `train` make new statistics.
    let own = model.valid();
    // After `valid`, which applies the last update.
    let mut params = ByPath::default();
    model.visit(&mut params);
    own.map(&mut params)
}
