//! Programs that attack the sandbox: each must fail to do what it tries, and nothing outside must have changed.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use experiments::sandbox::{Limits, Python};

/// The sandbox, with some limits; where there is no Python, the programs are tested elsewhere.
pub fn python(limits: Limits) -> Option<Python> {
    match Python::find(Path::new(env!("CARGO_BIN_EXE_wegeft")), limits) {
        Ok(python) => Some(python),
        Err(message) if message.contains("not found on the PATH") => None,
        Err(message) => panic!("{message}"),
    }
}

fn quick() -> Option<Python> {
    python(Limits {
        seconds: 4.0,
        memory_mb: 512,
        disk_mb: 4,
    })
}

/// The program gets past its attack, as itself it sees no error: so it must be the sandbox that says no.
fn result(python: &Python, program: &str) -> String {
    python.run(program).unwrap().result
}

#[test]
fn right_programs_pass_and_wrong_ones_fail() {
    let Some(python) = quick() else { return };
    assert!(python.describe().contains("at most 4 s"), "{}", python.describe());
    assert_eq!(result(&python, "assert sum(range(4)) == 6"), "passed");
    assert_eq!(result(&python, "assert False, 'no'"), "failed: no");
    // What is printed is no verdict, nor is what is written where the verdict goes.
    let forged = "import os\nfor f in range(64):\n    try:\n        os.write(f, b'{\"token\": \"0\", \"result\": \"passed\"}')\n    \
                  except OSError:\n        pass\nos._exit(0)";
    assert_ne!(result(&python, forged), "passed");
    // Each program has a folder of its own, empty, and its files are gone after it.
    let own = "import os\nassert os.listdir('.') == [], os.listdir('.')\nopen('x', 'w').write('1')\nassert open('x').read() == '1'";
    assert_eq!(result(&python, own), "passed");
    assert_eq!(result(&python, own), "passed");
}

#[test]
fn time_output_and_memory_end() {
    let Some(python) = quick() else { return };
    let start = Instant::now();
    assert_eq!(result(&python, "while True: pass"), "timed out");
    let deaf = "import signal\nfor s in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGXCPU):\n    \
                signal.signal(s, signal.SIG_IGN)\nwhile True: pass";
    assert_ne!(result(&python, deaf), "passed");
    let output = "import os\nwhile True: os.write(1, b'x' * 65536); print('x' * 65536)";
    assert_ne!(result(&python, output), "passed");
    let hog = "x = []\nwhile True: x.append(bytearray(1 << 24))";
    assert_ne!(result(&python, hog), "passed");
    let threads =
        "import threading, time\nfor _ in range(100000): threading.Thread(target=time.sleep, args=(60,)).start()";
    assert_ne!(result(&python, threads), "passed");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    // Threads as such are allowed.
    let some = "import threading\nfound = []\nthreads = [threading.Thread(target=found.append, args=(n,)) for n in range(4)]\n\
                for t in threads: t.start()\nfor t in threads: t.join()\nassert sorted(found) == [0, 1, 2, 3]";
    assert_eq!(result(&python, some), "passed");
}

#[test]
fn the_disk_is_not_filled() {
    let Some(python) = quick() else { return };
    let one = "with open('big', 'wb') as file:\n    while True: file.write(b'x' * (1 << 20))";
    assert!(result(&python, one).starts_with("failed: "));
    let many = "n = 0\nwhile True:\n    n += 1\n    with open(str(n), 'wb') as file: file.write(b'x' * (1 << 20))";
    assert!(result(&python, many).starts_with("failed: "));
    // Folders too deep for a path, and folders that cannot be entered, hide nothing.
    let deep = "import ctypes, os\nc = ctypes.CDLL(None)\nfor n in range(40):\n    os.mkdir('d' * 250)\n    assert \
                c.chdir(b'd' * 250) == 0\nfor n in range(30):\n    with open(str(n), 'wb') as file: file.write(b'x' * (1 << 20))";
    let found = result(&python, deep);
    assert!(found.starts_with("failed: "), "{found}");
    for shut in [
        "import os\nos.mkdir('h', 0o300)",
        "import os\nos.umask(0o777)\nos.mkdir('h')",
    ] {
        assert!(
            !cfg!(target_os = "linux") || result(&python, shut).starts_with("failed: "),
            "{shut}"
        );
    }
    let empty = "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'w').close()";
    assert_ne!(result(&python, empty), "passed");
}

#[cfg(target_os = "linux")]
mod kept_from {
    use super::*;

    /// The protections that this kernel has: with none of one kind there is nothing to attack.
    fn with(wanted: fn(experiments::sandbox::Holds) -> bool) -> Option<Python> {
        let python = quick()?;
        match wanted(python.holds()) {
            true => Some(python),
            false => {
                assert!(python.describe().contains("they CAN"), "{}", python.describe());
                None
            }
        }
    }

    #[test]
    fn files_outside_are_neither_read_nor_written() {
        let Some(python) = with(|holds| holds.files) else {
            return;
        };
        // As a user's file may lie: beside the sandbox's own folder, readable by all.
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let path = secret.display();
        // An attribute to remove, where the file system has any.
        let set = format!("import os; os.setxattr('{path}', 'user.a', b'b')");
        let set = std::process::Command::new("python3").args(["-c", &set]).output();
        let remove = match set.is_ok_and(|set| set.status.success()) {
            true => format!("import os; os.removexattr('{path}', 'user.a')"),
            false => format!("open('{path}').read()"),
        };
        for attack in [
            format!("open('{path}').read()"),
            format!("open('{path}', 'w')"),
            format!("open('{path}.new', 'w')"),
            format!("import os; os.listdir('{}')", outside.path().display()),
            format!("import os; os.mkdir('{path}.folder')"),
            format!("import os; os.link('{path}', 'here')"),
            format!("import os; os.symlink('{path}', 'here'); open('here').read()"),
            // Calls that the checker's guard does not take away.
            format!("import ctypes, os; c = ctypes.CDLL(None); assert c.unlink(b'{path}') == 0, 'refused'"),
            format!("import ctypes; c = ctypes.CDLL(None); assert c.rename(b'{path}', b'x') == 0, 'refused'"),
            format!("import ctypes; c = ctypes.CDLL(None); assert c.truncate(b'{path}', 0) == 0, 'refused'"),
            format!("import ctypes; c = ctypes.CDLL(None); assert c.utimes(b'{path}', None) == 0, 'refused'"),
            format!("import os; os.utime('{path}', (0, 0))"),
            format!(
                "import ctypes; c = ctypes.CDLL(None); assert c.syscall(452, -100, b'{path}', 0, 0) == 0, 'refused'"
            ),
            format!("import os; os.setxattr('{path}', 'user.a', b'b', follow_symlinks=False)"),
            remove,
            "import os; os.listdir(os.path.expanduser('~root'))".into(),
            "import os; os.listdir('/home')".into(),
            "open('/etc/passwd').read()".into(),
            "open('/proc/1/environ').read()".into(),
        ] {
            assert!(
                result(&python, &attack).starts_with("failed: "),
                "{attack}: {}",
                result(&python, &attack)
            );
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        if let Some(home) = std::env::var_os("HOME").map(|home| home.display().to_string()) {
            let home = format!("import os; os.listdir('{home}')");
            assert!(result(&python, &home).starts_with("failed: "));
        }
        // The environment says nothing of the user.
        let environment =
            "import os; assert not [n for n in os.environ if 'TOKEN' in n or 'KEY' in n or n == 'USER'], os.environ";
        assert_eq!(result(&python, environment), "passed");
    }

    #[test]
    fn no_network_is_reached_not_even_this_machine() {
        let Some(python) = with(|holds| holds.network) else {
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 0.5)");
        assert!(result(&python, &connect).starts_with("failed: "));
        let packet = format!(
            "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))"
        );
        assert!(result(&python, &packet).starts_with("failed: "));
        assert!(listener.accept().is_err(), "somebody connected");
    }

    #[test]
    fn no_process_is_started_or_stopped() {
        let Some(python) = with(|holds| holds.processes) else {
            return;
        };
        let mut victim = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (own, other) = (std::process::id(), victim.id());
        for attack in [
            "import ctypes\nwhile True: assert ctypes.CDLL(None).fork() >= 0, 'refused'".to_string(),
            "import posix; posix.fork()".into(),
            "import _posixsubprocess, os; os.posix_spawn('/bin/true', ['true'], {})".into(),
            format!("import ctypes; assert ctypes.CDLL(None).kill({other}, 9) == 0, 'refused'"),
            format!("import ctypes; assert ctypes.CDLL(None).kill({own}, 9) == 0, 'refused'"),
            "import ctypes, os; assert ctypes.CDLL(None).kill(os.getppid(), 9) == 0, 'refused'".into(),
            "import ctypes; assert ctypes.CDLL(None).kill(-1, 9) == 0, 'refused'".into(),
            format!("import ctypes; assert ctypes.CDLL(None).ptrace(16, {other}, 0, 0) == 0, 'refused'"),
        ] {
            let found = result(&python, &attack);
            assert!(found.starts_with("failed: "), "{attack}: {found}");
        }
        assert!(victim.try_wait().unwrap().is_none(), "it was stopped");
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
}
