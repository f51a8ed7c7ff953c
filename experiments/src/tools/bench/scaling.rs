//! The cost of an additional adapted site, a higher rank and an additional generator: alternating training steps of a
//! stack of layers with increasing numbers of each, and a straight line fitted to the times.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Distribution, Tensor};
use serde::Serialize;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::storage::write_then_rename;
use wegeft::{AdapterConfig, Adapters, Sharing};

use super::Args;
use super::adapter::{TOKENS, WIDTH};
use super::products::finish;
use crate::cli::output::print;
use crate::report::plots::{Panel, panels};

/// Layers of the stack.
const LAYERS: usize = 24;
/// Ranks to measure.
const RANKS: [usize; 7] = [8, 16, 32, 48, 64, 96, 128];
/// Numbers of sites to measure.
const SITES: [usize; 7] = [1, 4, 8, 12, 16, 20, 24];
/// Numbers of generators to measure; the layers divide evenly among them.
const GENERATORS: [usize; 7] = [1, 2, 4, 6, 8, 12, 24];

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| wegeft::linear(layer, x))
    }
}

/// One value of one quantity, and its steps.
struct Variant {
    count: usize,
    adapted: Option<Adapters<Stack>>,
    optim: ModuleOptimizer,
    seconds: Vec<f64>,
}

impl Variant {
    fn new(count: usize, config: Option<&AdapterConfig>, stack: &Stack) -> Result<Self, String> {
        let mut adapted = Adapters::new(stack.clone());
        if let Some(config) = config {
            adapted.add("variant", config).map_err(|e| e.to_string())?;
        }
        Ok(Self {
            count,
            adapted: Some(adapted),
            optim: AdamWConfig::new().init(),
            seconds: Vec::new(),
        })
    }

    /// One step. The input requires a gradient, as if layers below were adapted too, so that the backward pass of the
    /// frozen layers is the same for every variant.
    fn step(&mut self, x: &Tensor<2>) {
        let Some(adapted) = self.adapted.take() else { return };
        let start = Instant::now();
        let x = x.clone().require_grad();
        let grads = adapted.bind().forward(x.clone()).mean().backward();
        finish(x.grad(&grads).expect("the input asks for a gradient").inner());
        let grads = GradientsParams::from_grads(grads, &adapted);
        self.adapted = Some(self.optim.step(1e-3, adapted, grads));
        self.seconds.push(start.elapsed().as_secs_f64());
    }

    fn fastest(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Times of steps with increasing values of one quantity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// The quantity: sites, rank or generators.
    pub of: &'static str,
    /// The value, and the milliseconds of a step beyond those of the frozen stack (fastest steps).
    pub points: Vec<(f64, f64)>,
    /// Slope of the least-squares line: milliseconds per unit.
    pub milliseconds_each: f64,
    /// Intercept of the least-squares line, milliseconds.
    pub milliseconds_of_none: f64,
    /// Fraction of the variance that the line explains.
    pub r_squared: f64,
}

impl Sweep {
    fn new(of: &'static str, points: Vec<(f64, f64)>) -> Self {
        let n = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
        let (x_mean, y_mean) = (mean(|p| p.0), mean(|p| p.1));
        let sum =
            |value: &dyn Fn(f64, f64) -> f64| -> f64 { points.iter().map(|p| value(p.0 - x_mean, p.1 - y_mean)).sum() };
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        let each = xy / xx;
        Self {
            of,
            milliseconds_each: each,
            milliseconds_of_none: y_mean - each * x_mean,
            r_squared: xy * xy / (xx * yy),
            points,
        }
    }

    fn panel(&self) -> Panel {
        let last = self.points.iter().map(|point| point.0).fold(0.0, f64::max);
        let line = |x: f64| (x, self.milliseconds_of_none + self.milliseconds_each * x);
        Panel {
            x: self.of.to_string(),
            y: "ms of a step".to_string(),
            points: self.points.clone(),
            line: vec![line(0.0), line(last)],
        }
    }
}

/// Measures the three sweeps, prints each as a JSON line and plots them to `file` (SVG).
///
/// # Errors
/// An unknown device; a file that cannot be written.
pub fn scaling(args: &Args, file: &Path) -> Result<(), String> {
    let device = crate::cli::device::device(&args.device)?.autodiff();
    device.seed(0);
    let stack = Stack {
        layers: (0..LAYERS)
            .map(|_| LinearConfig::new(WIDTH, WIDTH).init(&device))
            .collect(),
    };
    let rows = args.batch.unwrap_or(super::BATCH) * TOKENS;
    let x = Tensor::random([rows, WIDTH], Distribution::Normal(0.0, 1.0), &device);
    let all = |config: WegeftConfig| AdapterConfig::new(config).with_target_regex(r"layers\.\d+");
    let with_sites = |count: usize| all(WegeftConfig::new(args.r())).with_layers_to_transform(0..count);
    let with_generators = |count: usize| {
        let share = LAYERS / count;
        let groups = (0..count).map(|group| {
            let layers: Vec<String> = (group * share..(group + 1) * share)
                .map(|layer| layer.to_string())
                .collect();
            format!(r"layers\.({})(\.|$)", layers.join("|"))
        });
        all(WegeftConfig::new(args.r()).with_sharing(Sharing::Groups(groups.collect())))
    };
    let variants = |counts: &[usize], config: &dyn Fn(usize) -> AdapterConfig| -> Result<Vec<Variant>, String> {
        counts
            .iter()
            .map(|count| Variant::new(*count, Some(&config(*count)), &stack))
            .collect()
    };
    let mut frozen = Variant::new(0, None, &stack)?;
    let mut sweeps = [
        ("adapted sites", variants(&SITES, &with_sites)?),
        ("rank", variants(&RANKS, &|rank| all(WegeftConfig::new(rank)))?),
        ("generators", variants(&GENERATORS, &with_generators)?),
    ];
    // The variants alternate step by step, so that a slow minute of the machine affects all of them. The first two
    // steps are not counted.
    let start = Instant::now();
    let mut round = 0;
    while round < 5 || start.elapsed().as_secs_f64() < args.seconds {
        let others = sweeps.iter_mut().flat_map(|(_, variants)| variants);
        for variant in std::iter::once(&mut frozen).chain(others) {
            variant.step(&x);
            if round < 2 {
                variant.seconds.clear();
            }
        }
        round += 1;
    }
    let base = frozen.fastest();
    let sweeps = sweeps.map(|(of, variants)| {
        let point = |variant: &Variant| (variant.count as f64, 1e3 * (variant.fastest() - base));
        Sweep::new(of, variants.iter().map(point).collect())
    });
    for sweep in &sweeps {
        print(serde_json::to_string(sweep).map_err(|e| e.to_string())?)?;
    }
    let title = format!(
        "WeGeFT's part of a step: {LAYERS} layers of {WIDTH} x {WIDTH}, {rows} tokens; rank {}, {LAYERS} sites, 1 generator unless varied",
        args.r()
    );
    let svg = panels(&title, &sweeps.each_ref().map(Sweep::panel))?;
    write_then_rename(file, svg.as_bytes()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_is_found() {
        let sweep = Sweep::new("rank", vec![(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]);
        assert!((sweep.milliseconds_each - 2.0).abs() < 1e-12 && (sweep.milliseconds_of_none - 1.0).abs() < 1e-12);
        assert!((sweep.r_squared - 1.0).abs() < 1e-12);
        let bent = Sweep::new("rank", vec![(0.0, 0.0), (1.0, 1.0), (2.0, 4.0), (3.0, 9.0)]);
        assert!(bent.r_squared < 0.95);
    }
}
