//! Things that take turns, step by step, so that a slow minute of the machine falls on all of them; their times and peaks
//! beside those of one of them.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One contender and what was measured of it.
pub struct Measured {
    name: String,
    step: Box<dyn FnMut()>,
    times: Vec<Duration>,
    /// Greatest memory of a step beyond what there was before it, bytes.
    peak: usize,
}

impl Measured {
    pub fn new(name: impl Into<String>, step: impl FnMut() + 'static) -> Self {
        Self {
            name: name.into(),
            step: Box::new(step),
            times: Vec::new(),
            peak: 0,
        }
    }

    fn step(&mut self) {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let start = Instant::now();
        (self.step)();
        self.times.push(start.elapsed());
        self.peak = self.peak.max(MEMORY.peak_usage().saturating_sub(before));
    }

    /// Seconds.
    pub fn median(&mut self) -> f64 {
        self.times.sort();
        self.times[self.times.len() / 2].as_secs_f64()
    }
}

/// Steps of all in turn, `rounds` times after a first round that is not counted: it allocates the optimizers' state.
pub fn take_turns(all: &mut [Measured], rounds: usize) {
    for round in 0..=rounds {
        for one in &mut *all {
            one.step();
            if round == 0 {
                one.times.clear();
                one.peak = 0;
            }
        }
    }
}

/// Prints median times and peaks, and both over those of `baseline`.
pub fn print(title: &str, all: &mut [Measured], baseline: &str) {
    let base = all.iter_mut().find(|one| one.name == baseline);
    let (base_time, base_peak) = base.map_or((1.0, 1), |base| (base.median(), base.peak));
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    let over = |what: &str| format!("{what} / {baseline}");
    table.set_header(["method", "ms a step", &over("time"), "peak MB", &over("memory")]);
    for one in all {
        let (time, peak) = (one.median(), one.peak);
        table.add_row([
            one.name.clone(),
            format!("{:.2}", 1e3 * time),
            format!("{:.3}", time / base_time),
            format!("{:.2}", peak as f64 / 1e6),
            format!("{:.3}", peak as f64 / base_peak as f64),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{title}\n{table}\n");
}
