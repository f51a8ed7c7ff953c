//! Kills at any instant, any number of times.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::table::{WORKS, each};
use super::work::{Work, folder, redirected, remove, stderr};

const SIGKILL: i32 = 9;
/// Half of the signals are SIGKILL.
const SIGNALS: [&str; 4] = ["KILL", "KILL", "TERM", "HUP"];

/// Kills `work` `count` times, by SIGKILL, SIGTERM and SIGHUP, alone and with the processes that it started; after some of
/// them it may end, with the results of a run that was not killed.
fn killed(work: &Work, count: usize) {
    let dir = folder();
    let uncut = dir.path().join("uncut");
    // What it needs is made once. Closed outputs change no result.
    let command = work.command(dir.path(), &uncut);
    let start = Instant::now();
    let done = redirected(&command, "<&- >&- 2>&-");
    assert!(
        done.status.success(),
        "{} with closed outputs: {:?}",
        work.name,
        done.status
    );
    let whole = start.elapsed();
    let expected = work.results(&uncut);
    assert!(!expected.is_empty(), "{} writes nothing", work.name);
    let mut random = StdRng::seed_from_u64((count + work.line.len()) as u64);
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
            work.is_part(&out, &expected, &format!("{} after kill {kills}", work.name));
        }
        let last = work.done(dir.path(), &out);
        let place = format!("{} after kill {kills}", work.name);
        assert!(last.status.success(), "{place}: {}", stderr(&last));
        assert_eq!(work.results(&out), expected, "{place}");
        remove(&out);
    }
    println!(
        "{}: {} SIGKILL, {} SIGTERM and {} SIGHUP in {runs} runs, no difference, {:.0} s",
        work.name,
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
fn killed_now_and_then_each_program_ends_as_if_it_had_not_been() {
    each(WORKS, |work| killed(work, 2));
}

#[test]
#[ignore = "long: 100 kills of each program, or as many as FAULTS_KILLS says; FAULTS_WORK chooses programs"]
fn faults_kills() {
    let count = std::env::var("FAULTS_KILLS").ok().and_then(|count| count.parse().ok());
    each(WORKS, |work| killed(work, count.unwrap_or(100)));
}
