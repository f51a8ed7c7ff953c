//! An LSTM of the modern kind: stacked cells with layer norm, the four gates in one linear layer for the input and one for the
//! state, read forwards and backwards.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use super::{Batch, CLASSES, Model, VOCABULARY};

#[derive(Module, Debug)]
struct Cell {
    weight_ih: Linear,
    weight_hh: Linear,
    norm_x: LayerNorm,
    norm_h: LayerNorm,
    norm_c: LayerNorm,
    dropout: Dropout,
}

impl Cell {
    fn new(d_in: usize, hidden: usize, device: &Device) -> Self {
        Self {
            weight_ih: LinearConfig::new(d_in, 4 * hidden).init(device),
            weight_hh: LinearConfig::new(hidden, 4 * hidden).init(device),
            norm_x: LayerNormConfig::new(4 * hidden).init(device),
            norm_h: LayerNormConfig::new(4 * hidden).init(device),
            norm_c: LayerNormConfig::new(hidden).init(device),
            dropout: DropoutConfig::new(0.1).init(),
        }
    }

    /// `x`: `[batch, d_in]`, `h` and `c`: `[batch, hidden]`.
    fn step(&self, x: Tensor<2>, h: Tensor<2>, c: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let gates = self.norm_x.forward(self.weight_ih.forward(x)) + self.norm_h.forward(self.weight_hh.forward(h));
        let gates = gates.chunk(4, 1);
        let [input, forget, new, output] = [0, 1, 2, 3].map(|gate| gates[gate].clone());
        let c = sigmoid(forget) * c + sigmoid(input) * new.tanh();
        let h = sigmoid(output) * self.norm_c.forward(c.clone()).tanh();
        (self.dropout.forward(h), c)
    }

    /// `[batch, d_in]` for each token to `[batch, hidden]`.
    fn read(&self, tokens: &[Tensor<2>]) -> Vec<Tensor<2>> {
        let hidden = self.weight_hh.weight.shape()[0];
        let zeros = Tensor::zeros([tokens[0].dims()[0], hidden], &tokens[0].device());
        let (mut h, mut c) = (zeros.clone(), zeros);
        tokens
            .iter()
            .map(|x| {
                (h, c) = self.step(x.clone(), h.clone(), c.clone());
                h.clone()
            })
            .collect()
    }
}

#[derive(Module, Debug)]
pub struct Recurrent {
    embedding: Embedding,
    forward: Vec<Cell>,
    backward: Vec<Cell>,
    head: Linear,
}

impl Model for Recurrent {
    const NAME: &'static str = "modern LSTM";
    const LINEAR: &'static [&'static str] = &["weight_ih", "weight_hh"];

    fn new(device: &Device) -> Self {
        let cells = || vec![Cell::new(16, 16, device), Cell::new(16, 16, device)];
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, 16).init(device),
            forward: cells(),
            backward: cells(),
            head: LinearConfig::new(32, CLASSES).init(device),
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let x = self.embedding.forward(batch.ids.clone());
        let tokens: Vec<Tensor<2>> = x.iter_dim(1).map(|token| token.squeeze_dim(1)).collect();
        let reversed: Vec<_> = tokens.iter().rev().cloned().collect();
        let last = |cells: &[Cell], tokens| {
            let states = cells.iter().fold(tokens, |tokens: Vec<_>, cell| cell.read(&tokens));
            states[states.len() - 1].clone()
        };
        let states = vec![last(&self.forward, tokens), last(&self.backward, reversed)];
        self.head.forward(Tensor::cat(states, 1))
    }
}
