//! What a text classifier makes of texts before its head: the same at every step where the head alone is trained.

use backbones::classify::SequenceClassifier;
use burn::tensor::Device;

use crate::run::outcome::RunError;
use crate::run::trial::Trial;
use crate::text::data::{Features, Input, Texts};
use crate::train::stream::Ordered;

/// True if a trial trains the head alone on a model that gives the same every time: it then reads what the model made of the
/// texts, once.
pub fn reads_features(trial: &Trial, model: &SequenceClassifier) -> bool {
    trial.method == "linear" && !model.drops()
}

/// What `model` makes of `texts` before its head.
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
