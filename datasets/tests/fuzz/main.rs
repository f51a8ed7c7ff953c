//! Every reader against mutated files: none may panic, take long, or take memory that the file does not justify.
//!
//! `cargo test -p datasets --test fuzz` runs some hundred mutations for each reader and replays `regressions/`;
//! `FUZZ_CASES=100000 cargo test -p datasets --release --test fuzz -- --ignored --nocapture` runs that many and prints what
//! each reader did. A file that made a reader fail is put into `regressions/READER/` and stays there.

mod mutate;
mod readers;
mod seeds;

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use readers::{READERS, Reader};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// No mutated file of some kilobytes takes longer.
const LONGEST: Duration = Duration::from_secs(20);

/// Memory that a reader may take whatever the file says: its buffers, and the greatest image that `readers` lets through.
const MOST_MB: f32 = 96.0;

/// What a reader did with some files.
#[derive(Default)]
struct Tally {
    files: usize,
    accepted: usize,
    longest: Duration,
    most_mb: f32,
}

/// Reads one file, which must end in time and within memory.
fn execute(reader: &Reader, folder: &Path, bytes: &[u8], tally: &mut Tally) -> Result<(), String> {
    let before = MEMORY.current_usage_as_mb();
    MEMORY.reset_peak_usage();
    let start = Instant::now();
    let read = std::panic::catch_unwind(|| (reader.read)(folder, bytes));
    let (took, mb) = (start.elapsed(), MEMORY.peak_usage_as_mb() - before);
    tally.files += 1;
    tally.longest = tally.longest.max(took);
    tally.most_mb = tally.most_mb.max(mb);
    match read {
        Err(_) => return Err("it panicked".into()),
        Ok(Ok(())) => tally.accepted += 1,
        Ok(Err(message)) if message.trim().is_empty() => return Err("its message is empty".into()),
        Ok(Err(_)) => {}
    }
    match (took > LONGEST, mb > MOST_MB) {
        (true, _) => Err(format!("it took {took:?}")),
        (_, true) => Err(format!("it took {mb:.0} MB")),
        _ => Ok(()),
    }
}

fn run(reader: &Reader, cases: u32) -> Tally {
    let folder = tempfile::tempdir().unwrap();
    let seeds = (reader.seeds)();
    let tally = RefCell::new(Tally::default());
    for (index, seed) in seeds.iter().enumerate() {
        let read = execute(reader, folder.path(), seed, &mut tally.borrow_mut());
        assert_eq!(read, Ok(()), "{} on its seed {index}", reader.name);
    }
    assert!(tally.borrow().accepted > 0, "no seed of {} is valid", reader.name);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/regressions")
        .join(reader.name);
    for entry in std::fs::read_dir(kept).into_iter().flatten().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        let read = execute(reader, folder.path(), &bytes, &mut tally.borrow_mut());
        assert_eq!(read, Ok(()), "{} on {}", reader.name, entry.path().display());
    }
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    // The same files every time in the short run; other ones for each FUZZ_SEED.
    let mut seed = [7; 32];
    let own = std::env::var("FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u64>().ok());
    seed[..8].copy_from_slice(&own.unwrap_or(1).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let mutations = mutate::file(seeds.len());
    for _ in 0..cases {
        let mutation = mutations.new_tree(&mut runner).expect("a mutation").current();
        let bytes = mutation.apply(&seeds, reader.repair);
        let read = execute(reader, folder.path(), &bytes, &mut tally.borrow_mut());
        if let Err(message) = read {
            let path = std::env::temp_dir().join(format!("{}-{}.bin", reader.name, std::process::id()));
            std::fs::write(&path, &bytes).unwrap();
            panic!(
                "{}: {message}; the file is {}, made by {mutation:?}",
                reader.name,
                path.display()
            );
        }
    }
    tally.into_inner()
}

fn run_all(cases: u32) {
    for reader in READERS {
        let start = Instant::now();
        let tally = run(reader, cases);
        println!(
            "{:<16} {:>8} files in {:>7.1} s, {:>5.1} % read, longest {:>6.1} ms, at most {:>5.1} MB",
            reader.name,
            tally.files,
            start.elapsed().as_secs_f64(),
            100.0 * tally.accepted as f64 / tally.files as f64,
            1000.0 * tally.longest.as_secs_f64(),
            tally.most_mb
        );
    }
}

/// One test for all readers: they count the allocations of the whole process.
#[test]
fn mutated_files_are_read_or_refused() {
    run_all(150);
}

#[test]
#[ignore = "as many files a reader as FUZZ_CASES says"]
fn many_mutated_files_are_read_or_refused() {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    run_all(cases.unwrap_or(20_000));
}
