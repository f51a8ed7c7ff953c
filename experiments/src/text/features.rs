//! Features of texts before a classifier's head: they are the same at every step if only the head is trained.

use backbones::classify::SequenceClassifier;
use burn::tensor::Device;

use crate::run::outcome::RunError;
use crate::run::trial::Trial;
use crate::text::data::{Features, Input, Texts};
use crate::train::stream::Ordered;

/// True if a trial trains only the head of a deterministic model, so that the features of the texts need to be computed
/// only once.
pub fn reads_features(trial: &Trial, model: &SequenceClassifier) -> bool {
    trial.method == "linear" && !model.drops()
}

/// The features of `texts` before the head of `model`.
pub fn features(
    model: &SequenceClassifier,
    texts: &Texts,
    batch_size: usize,
    device: &Device,
    stop: impl Fn() -> bool,
) -> Result<Features, RunError> {
    let (sorted, order) = texts.sorted();
    let width = model.d_model();
    let mut values = vec![0.0; order.len() * width];
    let mut done = 0;
    for batch in Ordered::new(sorted, batch_size, device).batches() {
        if stop() {
            return Err(RunError::Interrupted);
        }
        let batch = batch.map_err(|e| RunError::Failed(e.to_string()))?;
        let Input::Tokens(batch) = batch.input else {
            return Err(RunError::Failed("these texts are features already".into()));
        };
        let rows = kernels::with_pool(device, || {
            model.features(batch.ids.clone(), &batch.layout, Some(batch.types.clone()))
        });
        let rows: Vec<f32> = rows.into_data().iter::<f32>().collect();
        for row in rows.chunks_exact(width) {
            let at = order[done] * width;
            values[at..at + width].copy_from_slice(row);
            done += 1;
        }
    }
    Ok(Features { values, width })
}
