//! Kills at any instant, any number of times.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::work::{WORKS, Work, folder, stderr};

const SIGKILL: i32 = 9;
/// Half of the signals are SIGKILL.
const SIGNALS: [&str; 4] = ["KILL", "KILL", "TERM", "HUP"];

/// Kills `work` `count` times, by SIGKILL, SIGTERM and SIGHUP, alone and with the processes that it started; after some of
/// them it may end, with the results of a run that was not killed.
fn killed(work: Work, count: usize) {
    let dir = folder();
    let start = Instant::now();
    let uncut = dir.path().join("uncut");
    let done = work.done(dir.path(), &uncut);
    assert!(done.status.success(), "{}", stderr(&done));
    let expected = work.results(&uncut);
    let whole = {
        let start = Instant::now();
        assert!(work.done(dir.path(), &dir.path().join("timed")).status.success());
        start.elapsed()
    };
    let mut random = StdRng::seed_from_u64(count as u64);
    let (mut kills, mut runs) = (0, 0);
    let mut sent = [0; SIGNALS.len()];
    while kills < count {
        runs += 1;
        let out = dir.path().join(format!("run-{runs}"));
        // A run is stopped at most so often before it is left alone.
        let most = random.random_range(1..6);
        for _ in 0..most {
            if kills == count {
                break;
            }
            let which = random.random_range(0..SIGNALS.len());
            let group = random.random_bool(0.5);
            match kill(
                work.command(dir.path(), &out),
                whole,
                SIGNALS[which],
                group,
                &mut random,
            ) {
                true => {
                    kills += 1;
                    sent[which] += 1;
                }
                // It was quicker.
                false => break,
            }
            if work != Work::Prepare {
                work.is_part(&out, &expected, &format!("{work:?} after kill {kills}"));
            }
        }
        let last = work.done(dir.path(), &out);
        assert!(last.status.success(), "{work:?} after kill {kills}: {}", stderr(&last));
        assert_eq!(work.results(&out), expected, "{work:?} after kill {kills}");
        std::fs::remove_dir_all(&out).unwrap();
    }
    println!(
        "{work:?}: {} SIGKILL, {} SIGTERM and {} SIGHUP in {runs} runs, no difference, {:.0} s",
        sent[0] + sent[1],
        sent[2],
        sent[3],
        start.elapsed().as_secs_f64()
    );
}

/// Starts `command` and stops it within the time that the whole of it takes; true if it had not ended by itself.
fn kill(mut command: Command, whole: Duration, signal: &str, group: bool, random: &mut StdRng) -> bool {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let child = child.unwrap();
    std::thread::sleep(whole.mul_f64(random.random_range(0.0..1.0)));
    let id = match group {
        true => format!("-{}", child.id()),
        false => child.id().to_string(),
    };
    let sent = Command::new("kill")
        .args(["-s", signal, "--", &id])
        .stderr(Stdio::null())
        .status();
    sent.unwrap();
    let output = child.wait_with_output().unwrap();
    match output.status.signal() {
        Some(SIGKILL) => true,
        Some(other) => {
            assert_ne!(signal, "KILL", "signal {other}");
            true
        }
        None if output.status.success() => false,
        None => {
            assert_ne!(signal, "KILL", "{}", stderr(&output));
            assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
            true
        }
    }
}

#[test]
fn killed_a_few_times_each_work_ends_as_if_it_had_not_been() {
    for work in WORKS {
        killed(work, 4);
    }
}

fn long() -> usize {
    std::env::var("FAULTS_KILLS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(100)
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_vision() {
    killed(Work::Vision, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_language() {
    killed(Work::Language, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_a_sweep_with_jobs() {
    killed(Work::Sweep, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_an_evaluation() {
    killed(Work::Evaluation, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_prepare() {
    killed(Work::Prepare, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_finetune() {
    killed(Work::Finetune, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_classify() {
    killed(Work::Classify, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_pretrain() {
    killed(Work::Pretrain, long());
}

#[test]
#[ignore = "long: 100 kills, or as many as FAULTS_KILLS says"]
fn faults_kills_of_pretrain_lm() {
    killed(Work::PretrainLm, long());
}
