//! Names in paths of modules and parameters, such as `blocks.3.attn.proj.weight`: PEFT's rules for matching them.

/// Field of [`crate::Hook`] that bound state is attached to; it is not a weight.
pub(crate) const EDIT_POINT: &str = "edit_point";

/// Field of [`crate::TokenHook`] that bound state is attached to; it is not a weight either.
pub(crate) const TOKEN_POINT: &str = "token_point";

/// True if `module` is `name` or ends with `.name`: PEFT's rule for lists of names.
pub fn name_matches(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// Path of the module that holds the parameter at `path`.
pub(crate) fn layer(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(module, _)| module)
}

/// True if the parameter lies in a module that `modules_to_save` names, or is a field of a module that it names. As in
/// PEFT any ending of a module's name will do: `norm` names `input_layernorm` too.
pub fn is_saved(path: &str, modules_to_save: &[String]) -> bool {
    let ends = |module: &str, name: &String| !name.is_empty() && module.ends_with(name.as_str());
    let named = |module: &str| modules_to_save.iter().any(|name| ends(module, name));
    path.match_indices('.').any(|(end, _)| named(&path[..end])) || named(name_of(path))
}

/// Field names that many modules share and that are left out of a parameter's name.
const FIELDS: [&str; 6] = ["weight", "bias", "gamma", "beta", EDIT_POINT, TOKEN_POINT];

/// The name that targets match and files use: `path` without its last part if many modules have a field of that name.
pub(crate) fn name_of(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((module, field)) if FIELDS.contains(&field) => module,
        _ => path,
    }
}

/// First number in a path, `3` of `blocks.3.attn.proj`.
pub(crate) fn layer_index(path: &str) -> Option<usize> {
    path.split('.').find_map(|part| part.parse().ok())
}

/// The number after one of `lists` in a path: `3` of `model.layers.3.mlp` for `layers`.
pub(crate) fn index_in(path: &str, lists: &[String]) -> Option<usize> {
    let parts: Vec<&str> = path.split('.').collect();
    let index = |list: &String| {
        let mut pairs = parts.windows(2).filter(|pair| pair[0] == list);
        pairs.find_map(|pair| pair[1].parse().ok())
    };
    lists.iter().find_map(index)
}

/// What stands before the first number in a path: `layers` of `model.layers.3.mlp`.
pub(crate) fn list_before_number(path: &str) -> Option<&str> {
    let parts: Vec<&str> = path.split('.').collect();
    let mut pairs = parts.windows(2).filter(|pair| pair[1].parse::<usize>().is_ok());
    pairs.next().map(|pair| pair[0])
}

/// Projection type of a module: its path with every layer number replaced by `*`.
pub fn kind(module: &str) -> String {
    module
        .split('.')
        .map(|part| if part.parse::<usize>().is_ok() { "*" } else { part })
        .collect::<Vec<_>>()
        .join(".")
}
