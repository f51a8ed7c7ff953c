//! Hidden states and logits.

use backbones::classify::load_encoder;
use backbones::encoder::Encoder;
use backbones::lm::{Layout, LoadOptions, Precision, Side};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wegeft::methods::reft::Positions;
use wegeft::{AdapterConfig, ReftConfig};

use crate::{expected, fixture, furthest, ids, load, values};

/// Tokens of the three padded rows.
const LENGTHS: [usize; 3] = [12, 7, 1];

fn agrees(name: &str) {
    let device = Device::flex();
    let loaded = load(name, &device);
    assert!(
        loaded.fresh.is_empty() && loaded.unused.is_empty(),
        "{name}: {loaded:?}"
    );
    let (model, expected) = (loaded.model, expected(name));
    assert_eq!(model.labels().names().len(), expected["logits"].shape[1]);

    let layout = Layout::padded(&LENGTHS, 12, Side::Right);
    let tokens = ids(&expected["ids"], &device);
    let types = Some(ids(&expected["types"], &device));
    let hidden = model.hidden(tokens.clone(), &layout, types.clone());
    let real: Vec<bool> = layout.real().collect();
    let hidden = values(hidden).into_iter().enumerate();
    let hidden: Vec<f32> = hidden
        .map(|(at, value)| if real[at / 16] { value } else { 0.0 })
        .collect();
    let off = furthest(&hidden, &expected["hidden"].values);
    assert!(off < 1e-5, "{name}, hidden states with padding: {off}");
    let off = furthest(
        &values(model.forward(tokens.clone(), &layout, types.clone())),
        &expected["logits"].values,
    );
    assert!(off < 1e-5, "{name}, logits with padding: {off}");
    // As on GPUs, whose batches have few lengths.
    let wide = |ids: Tensor<2, Int>| Tensor::cat(vec![ids, Tensor::zeros([3, 8], &device)], 1);
    let logits = model.forward(wide(tokens), &layout.padded_to(20), types.map(wide));
    let off = furthest(&values(logits), &expected["logits"].values);
    assert!(off < 1e-5, "{name}, logits with more padding: {off}");

    let layout = Layout::dense(2, 12);
    let tokens = ids(&expected["whole_ids"], &device);
    let hidden = values(model.hidden(tokens.clone(), &layout, None));
    let off = furthest(&hidden, &expected["whole_hidden"].values);
    assert!(off < 1e-5, "{name}, hidden states: {off}");
    let off = furthest(
        &values(model.forward(tokens, &layout, None)),
        &expected["whole_logits"].values,
    );
    assert!(off < 1e-5, "{name}, logits: {off}");
}

#[test]
fn bert() {
    agrees("bert");
}

#[test]
fn roberta_and_xlm_roberta() {
    agrees("roberta");
    agrees("xlm_roberta");
}

#[test]
fn distilbert() {
    agrees("distilbert");
}

#[test]
fn electra() {
    agrees("electra");
}

#[test]
fn deberta() {
    agrees("deberta_v3");
    agrees("deberta_v2");
}

#[test]
fn modernbert() {
    agrees("modernbert");
    agrees("modernbert_mean");
}

/// On a CPU half precision is storage; elsewhere it is the type of the activations too, also over trained weights in f32.
#[test]
fn half_precision_of_weights_or_of_activations() {
    let device = Device::flex();
    for name in [
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "deberta_v3",
        "deberta_v2",
        "modernbert",
    ] {
        let path = fixture(name);
        let path = path.to_str().unwrap();
        let load = |precision: Precision| {
            let options = LoadOptions {
                precision,
                ..LoadOptions::default()
            };
            load_encoder(path, &options, &device).unwrap().model
        };
        let tokens = ids(&expected(name)["ids"], &device);
        let layout = Layout::padded(&LENGTHS, 12, Side::Right);
        let hidden = |model: &Encoder| model.hidden(tokens.clone(), &layout, None).narrow(1, 0, 1);
        let exact = values(hidden(&load(Precision::F32)));
        let largest = exact.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let stored = hidden(&load(Precision::F16));
        assert_eq!(stored.dtype(), DType::F32);
        let off = furthest(&values(stored), &exact) / largest;
        // Weights that the file has in bf16 may fit into f16 as they are.
        assert!(off < 0.03, "{name}: {off}");
        let computed = hidden(&load(Precision::F32).with_activations(DType::F16));
        assert_eq!(computed.dtype(), DType::F16);
        let off = furthest(&values(computed), &exact) / largest;
        assert!(off > 0.0 && off < 0.03, "{name}: {off}");
    }
}

#[test]
fn decoders_with_a_head_for_sequences() {
    agrees("llama");
    agrees("gpt2");
    agrees("gemma3");
}

/// The same text in a row that is padded, on either side, and in a row with another text before it.
#[test]
fn a_text_reads_the_same_wherever_it_stands() {
    let device = Device::flex();
    for name in ["bert", "roberta", "deberta_v3", "modernbert"] {
        let (model, expected) = (load(name, &device).model, expected(name));
        let text = ids(&expected["whole_ids"], &device).narrow(0, 0, 1).narrow(1, 0, 5);
        let alone = values(model.hidden(text.clone(), &Layout::dense(1, 5), None));
        let filler = ids(&expected["whole_ids"], &device).narrow(0, 1, 1).narrow(1, 0, 3);
        let both = burn::tensor::Tensor::cat(vec![filler.clone(), text.clone()], 1);
        let left = Layout::padded(&[5], 8, Side::Left);
        let packed = Layout::packed(&[vec![3, 5]], 8);
        for layout in [left, packed] {
            let hidden = model.hidden(both.clone(), &layout, None).narrow(1, 3, 5);
            let off = furthest(&values(hidden), &alone);
            assert!(off < 1e-5, "{name}: {off}");
        }
    }
}

/// Methods that act on activations edit the tokens of each text alone: padding and neighbours change nothing, whether all of
/// the last layer is computed or its first column.
#[test]
fn hooks_edit_each_text_by_itself() {
    let device = Device::flex();
    let ends = ReftConfig::loreft(2).with_position(Positions::Ends { first: 2, last: 1 });
    // Not DeBERTa-v2, whose convolution reads the neighbours.
    for name in ["bert", "distilbert", "electra", "deberta_v3", "modernbert"] {
        let (model, expected) = (load(name, &device).model, expected(name));
        let text = ids(&expected["whole_ids"], &device).narrow(0, 0, 1).narrow(1, 0, 5);
        let filler = ids(&expected["whole_ids"], &device).narrow(0, 1, 1).narrow(1, 0, 3);
        let both = burn::tensor::Tensor::cat(vec![filler, text.clone()], 1);
        let dense = Layout::dense(1, 5);
        let frozen = values(model.hidden(text.clone(), &dense, None));
        for config in [
            AdapterConfig::new(ends.clone()),
            AdapterConfig::direft(2),
            // Wide enough that its ReLU does not cut off all.
            AdapterConfig::houlsby(16),
            AdapterConfig::pfeiffer(16),
        ] {
            let adapted = config.init(model.clone()).unwrap();
            let layers = model.encoder().unwrap().config().depth;
            let a_layer = if config == AdapterConfig::houlsby(16) { 2 } else { 1 };
            assert_eq!(adapted.bank().groups().len(), a_layer * layers, "{name}");
            let bound = adapted.bind();
            let alone = values(bound.hidden(text.clone(), &dense, None));
            assert!(furthest(&alone, &frozen) > 1e-5, "{name}: {config:?} changes nothing");
            let logits = values(bound.forward(text.clone(), &dense, None));
            let left = Layout::padded(&[5], 8, Side::Left);
            let off = furthest(&values(bound.forward(both.clone(), &left, None)), &logits);
            assert!(off < 1e-5, "{name}, logits: {off}");
            for layout in [left, Layout::packed(&[vec![3, 5]], 8)] {
                let hidden = bound.hidden(both.clone(), &layout, None).narrow(1, 3, 5);
                let off = furthest(&values(hidden), &alone);
                assert!(off < 1e-5, "{name}: {config:?}: {off}");
            }
        }
        let refused = AdapterConfig::vpt(2, true).init(model).unwrap_err().to_string();
        assert!(refused.contains("no wegeft::Hook named 'input'"), "{refused}");
    }
}

/// As transformers numbers positions by ids: what follows a padding token goes on as if it were not there.
#[test]
fn positions_of_roberta_do_not_count_blanks() {
    let device = Device::flex();
    let model = load("roberta", &device).model;
    let encoder = model.encoder().unwrap();
    let embedded = |ids: &[i64], blanks: &[bool]| {
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), &device);
        let layout = Layout::dense(1, ids.len()).with_blanks(blanks.to_vec());
        values(encoder.embed(tokens, &layout, None))
    };
    let plain = embedded(&[5, 6], &[false; 2]);
    let blank = embedded(&[5, 1, 6], &[false, true, false]);
    assert!(furthest(&blank[..16], &plain[..16]) < 1e-6);
    assert!(furthest(&blank[32..], &plain[16..]) < 1e-6);
    assert!(furthest(&embedded(&[5, 1, 6], &[false; 3])[32..], &plain[16..]) > 1e-4);
}

/// As transformers pools by ids.
#[test]
fn decoders_are_pooled_at_the_last_token_that_is_not_a_blank() {
    let device = Device::flex();
    let model = load("llama", &device).model;
    let tokens = || Tensor::<2, Int>::from_data(TensorData::new(vec![5i64, 6, 7], [1, 3]), &device);
    let logits = |blanks: [bool; 3]| {
        let layout = Layout::dense(1, 3).with_blanks(blanks.to_vec());
        values(model.forward(tokens(), &layout, None))
    };
    let shorter = Tensor::<2, Int>::from_data(TensorData::new(vec![5i64, 6], [1, 2]), &device);
    let shorter = values(model.forward(shorter, &Layout::dense(1, 2), None));
    let whole = logits([false; 3]);
    assert!(furthest(&logits([false, false, true]), &shorter) < 1e-6);
    assert!(furthest(&whole, &shorter) > 1e-4);
    assert_eq!(logits([false, true, false]), whole);
}
