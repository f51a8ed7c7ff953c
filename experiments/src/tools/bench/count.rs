//! What a pass asks of a device: operations, and the bytes that they read and write. Counted on a device of Burn's that
//! writes operations down and computes nothing, so that it needs no GPU. A GPU is sent the same ones, as nothing is fused by
//! this project there; Burn's fusion then joins neighbours that work element by element.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::Serialize;

use super::Workload;

/// What a pass asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Count {
    /// Workload.
    pub workload: String,
    /// Method.
    pub method: String,
    /// Images, or texts.
    pub batch: usize,
    /// Tokens of an image or text.
    pub tokens: usize,
    /// Operations that a device has work with: all but those that only look at memory in another shape.
    pub operations: usize,
    /// Those that only look at memory in another shape.
    pub views: usize,
    /// Bytes that the operations read and write, MB, as if none were joined.
    pub mb: f64,
    /// The operations by name, the most frequent first.
    pub by_name: Vec<(String, usize)>,
}

/// Operations that only look at memory in another shape.
const VIEWS: [&str; 5] = ["Reshape", "SwapDims", "Permute", "Expand", "Empty"];

/// Operations by name, and their bytes.
#[derive(Debug, Clone, Default)]
struct Seen {
    names: BTreeMap<String, usize>,
    bytes: usize,
}

/// Counts the third pass of a workload: the first ones also make what every pass needs.
///
/// # Errors
/// An unknown workload or method, a build without the feature `capture`.
pub fn count(
    (workload, method): (&str, &str),
    make: impl Fn(&Device) -> Result<Workload, String>,
) -> Result<Count, String> {
    let (two, _) = seen(&make, 2)?;
    let (three, ready) = seen(&make, 3)?;
    let mut by_name: Vec<(String, usize)> = three
        .names
        .iter()
        .map(|(name, count)| (name.clone(), count - two.names.get(name).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    by_name.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let is_view = |name: &str| VIEWS.contains(&name);
    let (views, operations): (Vec<_>, Vec<_>) = by_name.iter().partition(|(name, _)| is_view(name));
    let total = |counts: &[&(String, usize)]| counts.iter().map(|(_, count)| count).sum();
    Ok(Count {
        workload: workload.into(),
        method: method.into(),
        batch: ready.batch,
        tokens: ready.tokens,
        operations: total(&operations),
        views: total(&views),
        mb: (three.bytes - two.bytes) as f64 / 1e6,
        by_name,
    })
}

/// What `passes` of a workload ask for, its making included.
#[cfg(feature = "capture")]
fn seen(make: &impl Fn(&Device) -> Result<Workload, String>, passes: usize) -> Result<(Seen, Workload), String> {
    let device = Device::capture();
    let mut made = Err("nothing was made".into());
    let captured = device.capture_scope(|scope| {
        made = make(&device).map(|mut ready| {
            for _ in 0..passes {
                drop((ready.pass)());
            }
            ready
        });
        scope.complete([], [])
    });
    let ready = made?;
    let graph = captured.map_err(|e| e.to_string())?.graph;
    let mut seen = Seen::default();
    for operation in &graph.operations {
        let text = format!("{operation:?}");
        let name = name(&text);
        if !VIEWS.contains(&name) {
            let bytes = operation
                .nodes()
                .into_iter()
                .map(|tensor| tensor.shape.num_elements() * tensor.dtype.size());
            seen.bytes += bytes.sum::<usize>();
        }
        *seen.names.entry(name.to_string()).or_default() += 1;
    }
    Ok((seen, ready))
}

#[cfg(not(feature = "capture"))]
fn seen(_: &impl Fn(&Device) -> Result<Workload, String>, _: usize) -> Result<(Seen, Workload), String> {
    Err("--count: this program was built without it; run: cargo run --release -p experiments --features capture -- bench --count".into())
}

/// `MulScalar` of `NumericFloat(F32, MulScalar(ScalarOpIr { …`.
#[cfg_attr(not(feature = "capture"), allow(dead_code))]
fn name(operation: &str) -> &str {
    let head = operation.split(" {").next().unwrap_or(operation);
    let mut parts = head.rsplit('(');
    let (last, before) = (parts.next().unwrap_or_default(), parts.next());
    let name = before.unwrap_or(last);
    name.rsplit(", ").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn an_operation_has_a_name() {
        assert_eq!(
            name("NumericFloat(F32, MulScalar(ScalarOpIr { lhs: TensorIr { id"),
            "MulScalar"
        );
        assert_eq!(name("BaseFloat(Reshape(ShapeOpIr { input"), "Reshape");
        assert_eq!(name("Init(InitOperationIr { out"), "Init");
    }
}
