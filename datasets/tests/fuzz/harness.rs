//! Readers against mutated files: none may panic, take long, or take memory that the file does not justify.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::MEMORY;
use crate::mutate::{self, Repair};

/// No mutated file of some kilobytes takes longer.
const LONGEST: Duration = Duration::from_secs(20);

/// A reader.
pub struct Reader {
    pub name: &'static str,
    /// Valid files.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes the checksums of a mutated file right.
    pub repair: Option<Repair>,
    /// Reads a file of these bytes; other files that it needs lie in the folder, which is the reader's own.
    pub read: fn(&Path, &[u8]) -> Result<(), String>,
}

/// Memory that a mutated file may take, MB.
#[derive(Clone, Copy)]
pub struct Limit {
    /// Whatever the file.
    pub always: f32,
    /// Times what the valid files take.
    pub of_valid: f32,
}

/// What a reader did with some files.
#[derive(Default)]
struct Tally {
    most_valid_mb: f32,
    files: usize,
    accepted: usize,
    longest: Duration,
    most_mb: f32,
}

/// Reads one file, which must end in time and within memory.
fn execute(reader: &Reader, folder: &Path, bytes: &[u8], most_mb: f32, tally: &mut Tally) -> Result<(), String> {
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
    match (took > LONGEST, mb > most_mb) {
        (true, _) => Err(format!("it took {took:?}")),
        (_, true) => Err(format!("it took {mb:.0} MB")),
        _ => Ok(()),
    }
}

fn run(reader: &Reader, limit: Limit, kept: &Path, cases: u32) -> Tally {
    let folder = tempfile::tempdir().unwrap();
    let seeds = (reader.seeds)();
    let tally = RefCell::new(Tally::default());
    for (index, seed) in seeds.iter().enumerate() {
        let read = execute(reader, folder.path(), seed, f32::INFINITY, &mut tally.borrow_mut());
        assert_eq!(read, Ok(()), "{} on its seed {index}", reader.name);
    }
    assert!(tally.borrow().accepted > 0, "no seed of {} is valid", reader.name);
    let valid = tally.borrow().most_mb;
    tally.borrow_mut().most_valid_mb = valid;
    let most_mb = limit.always + limit.of_valid * valid;
    for entry in std::fs::read_dir(kept.join(reader.name))
        .into_iter()
        .flatten()
        .flatten()
    {
        let bytes = std::fs::read(entry.path()).unwrap();
        let read = execute(reader, folder.path(), &bytes, most_mb, &mut tally.borrow_mut());
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
        let read = execute(reader, folder.path(), &bytes, most_mb, &mut tally.borrow_mut());
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

/// Every reader on `cases` mutated files and on those below `kept` that once made it fail.
pub fn run_all(readers: &[Reader], limit: Limit, kept: &Path, cases: u32) {
    let only = std::env::var("FUZZ_READER").ok();
    let wanted = |reader: &&Reader| only.as_ref().is_none_or(|only| reader.name.contains(only.as_str()));
    for reader in readers.iter().filter(wanted) {
        let start = Instant::now();
        let tally = run(reader, limit, kept, cases);
        println!(
            "{:<20} {:>8} files in {:>7.1} s, {:>5.1} % read, longest {:>6.1} ms, at most {:>5.1} MB ({:.1} MB valid)",
            reader.name,
            tally.files,
            start.elapsed().as_secs_f64(),
            100.0 * tally.accepted as f64 / tally.files as f64,
            1000.0 * tally.longest.as_secs_f64(),
            tally.most_mb,
            tally.most_valid_mb
        );
    }
}

/// Mutated files for each reader in the long run.
pub fn many() -> u32 {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    cases.unwrap_or(20_000)
}
