//! Results that the WeGeFT paper (arXiv 2312.00700) and its project page published, for printing next to ours: accuracy
//! in percent. The models have 7 or 8 billion parameters; results of smaller models are not comparable.

/// One row of a published table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Language model.
    pub model: &'static str,
    /// Method and rank.
    pub method: &'static str,
    /// Trainable parameters, percent of the frozen ones.
    pub percent: f64,
    /// Accuracy per set, in the order of the suite's sets; empty if only the average is known.
    pub values: &'static [f64],
    /// Mean over the sets, as published.
    pub average: f64,
}

const fn row(model: &'static str, method: &'static str, percent: f64, values: &'static [f64], average: f64) -> Row {
    Row {
        model,
        method,
        percent,
        values,
        average,
    }
}

/// Commonsense: BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC-e, ARC-c, OBQA.
pub const COMMONSENSE: [Row; 27] = [
    row(
        "LLaMA-1",
        "Prefix",
        0.039,
        &[64.3, 76.8, 73.9, 42.1, 72.1, 72.9, 54.0, 60.6],
        64.6,
    ),
    row(
        "LLaMA-1",
        "Adapter-S",
        1.953,
        &[63.0, 79.2, 76.3, 67.9, 75.7, 74.5, 57.1, 72.4],
        70.8,
    ),
    row(
        "LLaMA-1",
        "Adapter-P",
        3.542,
        &[67.9, 76.4, 78.8, 69.8, 78.9, 73.7, 57.3, 75.2],
        72.3,
    ),
    row(
        "LLaMA-1",
        "LoRA",
        0.826,
        &[68.9, 80.7, 77.4, 78.1, 78.8, 77.8, 61.3, 74.8],
        74.7,
    ),
    row(
        "LLaMA-1",
        "DoRA half",
        0.427,
        &[70.0, 82.6, 79.7, 83.2, 80.6, 80.6, 65.4, 77.6],
        77.5,
    ),
    row(
        "LLaMA-1",
        "DoRA",
        0.838,
        &[68.5, 82.9, 79.6, 84.8, 80.8, 81.4, 65.8, 81.0],
        78.1,
    ),
    row(
        "LLaMA-1",
        "DiReFT",
        0.031,
        &[69.5, 83.0, 79.0, 92.5, 80.5, 82.2, 68.0, 77.5],
        79.0,
    ),
    row(
        "LLaMA-1",
        "LoReFT",
        0.031,
        &[69.3, 84.4, 80.3, 93.1, 84.2, 83.2, 68.2, 78.9],
        80.2,
    ),
    row(
        "LLaMA-1",
        "GIFT QV r64",
        0.016,
        &[69.9, 83.2, 80.0, 93.2, 81.7, 85.4, 70.8, 82.5],
        80.9,
    ),
    row(
        "LLaMA-1",
        "GIFT Proj r128",
        0.016,
        &[70.1, 84.1, 80.0, 92.9, 80.7, 84.1, 69.2, 80.3],
        80.2,
    ),
    row(
        "LLaMA-1",
        "GIFT QKVUD r64",
        0.052,
        &[69.7, 81.9, 79.1, 91.6, 82.1, 82.1, 67.2, 82.1],
        79.5,
    ),
    row(
        "Llama-2",
        "LoRA",
        0.826,
        &[69.8, 79.9, 79.5, 83.6, 82.6, 79.8, 64.7, 81.0],
        77.6,
    ),
    row(
        "Llama-2",
        "DoRA half",
        0.427,
        &[72.0, 83.1, 79.9, 89.1, 83.0, 84.5, 71.0, 81.2],
        80.5,
    ),
    row(
        "Llama-2",
        "DoRA",
        0.838,
        &[71.8, 83.7, 76.0, 89.1, 82.6, 83.7, 68.2, 82.4],
        79.7,
    ),
    row(
        "Llama-2",
        "DiReFT",
        0.031,
        &[70.8, 83.6, 80.2, 93.6, 82.1, 84.8, 70.4, 81.5],
        80.9,
    ),
    row(
        "Llama-2",
        "LoReFT",
        0.031,
        &[71.1, 83.8, 80.8, 94.3, 84.5, 85.6, 72.2, 82.3],
        81.8,
    ),
    row(
        "Llama-2",
        "GIFT QV r64",
        0.016,
        &[72.0, 84.4, 80.9, 94.0, 85.1, 86.9, 74.5, 82.7],
        82.6,
    ),
    row(
        "Llama-2",
        "GIFT Proj r128",
        0.016,
        &[72.3, 84.6, 80.5, 93.8, 83.9, 86.6, 74.3, 81.6],
        82.2,
    ),
    row(
        "Llama-2",
        "GIFT QKVUD r64",
        0.052,
        &[71.2, 83.7, 78.8, 92.7, 82.9, 84.9, 69.9, 81.5],
        80.7,
    ),
    row(
        "Llama-3",
        "LoRA",
        0.700,
        &[70.8, 85.2, 79.9, 91.7, 84.3, 84.2, 71.2, 79.0],
        80.8,
    ),
    row(
        "Llama-3",
        "DoRA half",
        0.361,
        &[74.5, 88.8, 80.3, 95.5, 84.7, 90.1, 79.1, 87.2],
        85.0,
    ),
    row(
        "Llama-3",
        "DoRA",
        0.710,
        &[74.6, 89.3, 79.9, 95.5, 85.6, 90.5, 80.4, 85.8],
        85.2,
    ),
    row(
        "Llama-3",
        "DiReFT",
        0.026,
        &[73.4, 88.7, 81.0, 95.6, 85.5, 91.8, 81.8, 85.4],
        85.4,
    ),
    row(
        "Llama-3",
        "LoReFT",
        0.026,
        &[75.1, 90.2, 82.0, 96.3, 87.4, 92.4, 81.6, 87.5],
        86.6,
    ),
    row(
        "Llama-3",
        "GIFT QV r64",
        0.013,
        &[74.7, 89.2, 81.7, 96.0, 88.2, 92.7, 82.7, 88.8],
        86.7,
    ),
    row(
        "Llama-3",
        "GIFT Proj r128",
        0.013,
        &[75.1, 89.8, 81.3, 95.8, 88.2, 92.5, 81.8, 87.9],
        86.5,
    ),
    row(
        "Llama-3",
        "GIFT QKVUD r64",
        0.049,
        &[70.4, 85.3, 79.7, 93.6, 85.8, 87.7, 75.1, 82.7],
        82.5,
    ),
];

/// Arithmetic: AQuA, GSM8K, MAWPS, SVAMP. For Llama-2 (v5), only the averages are known.
pub const ARITHMETIC: [Row; 14] = [
    row("LLaMA-1", "Prefix", 0.039, &[14.2, 24.4, 63.4, 38.1], 35.0),
    row("LLaMA-1", "Adapter-S", 1.953, &[15.0, 33.3, 77.7, 52.3], 44.6),
    row("LLaMA-1", "Adapter-P", 3.542, &[18.1, 35.3, 82.4, 49.6], 46.4),
    row("LLaMA-1", "LoRA", 0.826, &[18.9, 37.5, 79.0, 52.1], 46.9),
    row("LLaMA-1", "DiReFT", 0.031, &[21.3, 24.1, 74.5, 42.7], 40.6),
    row("LLaMA-1", "LoReFT", 0.031, &[21.4, 26.0, 76.2, 46.8], 42.6),
    row("LLaMA-1", "GIFT QV r64", 0.016, &[21.0, 29.7, 74.4, 48.8], 43.5),
    row("LLaMA-1", "GIFT Proj r128", 0.016, &[22.6, 30.1, 76.1, 48.8], 44.4),
    row("LLaMA-1", "GIFT QKVUD r64", 0.052, &[24.4, 30.7, 84.9, 47.1], 46.8),
    row("Llama-2", "LoRA r16", 0.416, &[], 52.8),
    row("Llama-2", "DoRA r16", 0.429, &[], 52.4),
    row("Llama-2", "WeGeFT QKVUD r64", 0.052, &[], 51.9),
    row("Llama-2", "VeRA", 0.042, &[], 50.4),
    row("Llama-2", "VB-LoRA", 0.053, &[], 42.1),
];

/// GLUE, the tasks that the paper reports, in its order.
pub const GLUE_TASKS: [&str; 6] = ["SST-2", "MRPC", "CoLA", "QNLI", "RTE", "STS-B"];

/// GLUE: [`GLUE_TASKS`], Matthews correlation for CoLA, Pearson correlation for STS-B, else accuracy. Models of 125 and 355
/// million parameters.
pub const GLUE: [Row; 15] = [
    row(
        "RoBERTa-base",
        "full",
        100.0,
        &[94.8, 90.2, 63.6, 92.8, 78.7, 91.2],
        85.2,
    ),
    row(
        "RoBERTa-base",
        "BitFit",
        0.08,
        &[93.7, 92.7, 62.0, 91.8, 81.5, 90.8],
        85.4,
    ),
    row(
        "RoBERTa-base",
        "Adapter-D small",
        0.24,
        &[94.2, 88.5, 60.8, 93.1, 71.5, 89.7],
        83.0,
    ),
    row(
        "RoBERTa-base",
        "Adapter-D large",
        0.72,
        &[94.7, 88.4, 62.9, 93.0, 75.9, 90.3],
        84.2,
    ),
    row(
        "RoBERTa-base",
        "LoRA",
        0.24,
        &[95.1, 89.7, 63.4, 93.3, 86.6, 91.5],
        86.6,
    ),
    row(
        "RoBERTa-base",
        "VeRA",
        0.034,
        &[94.6, 89.5, 65.6, 91.8, 78.7, 90.7],
        85.2,
    ),
    row(
        "RoBERTa-base",
        "GIFT QV r32",
        0.079,
        &[94.8, 90.0, 64.1, 92.7, 78.7, 90.3],
        85.1,
    ),
    row(
        "RoBERTa-large",
        "Adapter-P",
        0.847,
        &[96.1, 90.2, 68.3, 94.8, 83.8, 92.1],
        87.6,
    ),
    row(
        "RoBERTa-large",
        "Adapter-P small",
        0.226,
        &[96.6, 89.7, 67.8, 94.8, 80.1, 91.9],
        86.8,
    ),
    row(
        "RoBERTa-large",
        "Adapter-H",
        1.693,
        &[96.2, 88.7, 66.5, 94.7, 83.4, 91.0],
        86.8,
    ),
    row(
        "RoBERTa-large",
        "Adapter-H small",
        0.226,
        &[96.3, 87.7, 66.3, 94.7, 72.9, 91.5],
        84.9,
    ),
    row(
        "RoBERTa-large",
        "LoRA-FA",
        1.044,
        &[96.0, 90.0, 68.0, 94.8, 86.1, 92.0],
        87.7,
    ),
    row(
        "RoBERTa-large",
        "LoRA",
        0.226,
        &[96.2, 90.2, 68.2, 94.8, 85.2, 92.3],
        87.8,
    ),
    row(
        "RoBERTa-large",
        "VeRA",
        0.017,
        &[96.1, 90.9, 68.0, 94.4, 85.9, 91.7],
        87.8,
    ),
    row(
        "RoBERTa-large",
        "GIFT QV r32",
        0.037,
        &[95.8, 88.7, 67.0, 94.7, 87.0, 91.5],
        87.5,
    ),
];

/// Methods of the LoRA-GA protocol's tables, and what they train, percent. AdaLoRA's parameters are those at its target rank.
const LORA_GA: [(&str, f64); 10] = [
    ("LoRA r8", 0.297),
    ("DoRA r8", 0.317),
    ("AdaLoRA r8", 0.297),
    ("PiSSA r8", 0.297),
    ("rsLoRA r8", 0.297),
    ("LoRA+ r8", 0.297),
    ("LoRA-GA r8", 0.297),
    ("LoRA-GA r32", 1.187),
    ("LoRA-GA r128", 4.746),
    ("full fine-tuning", 100.0),
];

/// The rows of a table of the LoRA-GA protocol, whose methods have these values.
const fn lora_ga(values: &'static [f64; 10]) -> [Row; 10] {
    let mut rows = [row("Llama-2", "", 0.0, &[], 0.0); 10];
    let mut at = 0;
    while at < rows.len() {
        let (method, percent) = LORA_GA[at];
        rows[at] = row(
            "Llama-2",
            method,
            percent,
            std::slice::from_ref(&values[at]),
            values[at],
        );
        at += 1;
    }
    rows
}

/// HumanEval: pass@1 after training on CodeFeedback by the LoRA-GA protocol, as reprinted in other papers; WeGeFT's own
/// row is not known.
pub const CODE: [Row; 10] = lora_ga(&[14.76, 19.75, 17.80, 16.02, 16.01, 18.17, 19.81, 20.18, 23.05, 35.31]);

/// GSM8K: correct final numbers after training on MetaMathQA by the LoRA-GA protocol, as reprinted in other papers.
pub const GSM8K: [Row; 10] = lora_ga(&[42.08, 53.07, 50.72, 44.54, 45.62, 52.11, 53.60, 55.12, 55.07, 59.36]);

/// MT-Bench: first turn, after training on WizardLM by the LoRA-GA protocol, as reprinted in other papers.
pub const MT_BENCH: [Row; 10] = lora_ga(&[5.61, 5.97, 5.57, 5.30, 5.25, 5.71, 5.95, 5.79, 6.13, 5.30]);

/// AlpacaEval 1.0: win rate against text-davinci-003 after training on UltraFeedback (v3 of the project page).
pub const ALPACA_EVAL: [Row; 7] = [
    row("Llama-2", "full fine-tuning", 100.0, &[80.93], 80.93),
    row("Llama-2", "LoRA", 0.1245, &[81.48], 81.48),
    row("Llama-2", "RED", 0.0039, &[81.69], 81.69),
    row("Llama-2", "DiReFT", 0.0039, &[84.85], 84.85),
    row("Llama-2", "LoReFT", 0.0039, &[85.60], 85.60),
    row("Llama-2", "GIFT QV r16", 0.0039, &[85.91], 85.91),
    row("Llama-2", "GIFT QV r128", 0.0311, &[86.87], 86.87),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_the_means_of_their_rows() {
        for row in COMMONSENSE
            .iter()
            .chain(&ARITHMETIC)
            .chain(CODE.iter().chain(&GSM8K).chain(&MT_BENCH).chain(&ALPACA_EVAL))
            .filter(|row| !row.values.is_empty())
        {
            let mean = row.values.iter().sum::<f64>() / row.values.len() as f64;
            // The values and the mean are each rounded to a tenth.
            assert!((mean - row.average).abs() < 0.11, "{row:?} has mean {mean}");
        }
    }
}
