//! Rights that this process gives up: files through landlock, system calls through seccomp, networks through a
//! namespace. None of the three needs privileges, and the program that the process becomes cannot undo them.

use std::collections::BTreeMap;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, make_bitflags, path_beneath_rules,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use super::launch::Launch;
use super::limits;
use super::protection::Holds;

/// Devices that any program may use.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// The parts of the system that interpreters read: libraries and data of the distribution, no user files.
const SYSTEM: [&str; 7] = [
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
];

/// Maximum threads of a program, if its processes are counted separately from the user's others.
const THREADS: u64 = 64;

/// Gives up all rights that a program does not need.
///
/// # Errors
/// A limit that cannot be set. A protection that the system lacks is not an error; the result says that it does not
/// hold.
pub fn confine(launch: &Launch) -> Result<Holds, String> {
    close_inherited();
    let namespace = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC).is_ok();
    if namespace {
        // Counted per namespace: the user's other processes do not count.
        setrlimit(Resource::RLIMIT_NPROC, THREADS, THREADS).map_err(|e| format!("cannot limit threads: {e}"))?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("cannot arrange to end with the parent process: {e}"))?;
    prctl::set_no_new_privs().map_err(|e| format!("cannot drop privileges: {e}"))?;
    limits::set(&launch.limits)?;
    let files = restrict_files(launch).map_err(|e| format!("landlock: {e}"))?;
    let calls = restrict_calls();
    Ok(Holds {
        // landlock alone lets a program change times, modes and attributes.
        files: files && calls,
        network: namespace || calls,
        processes: calls,
        limits: true,
    })
}

/// Closes files that were inherited from the parent processes.
fn close_inherited() {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = open
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The descriptor that listed them is closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Allows reading only the interpreter's files, and writing only to one folder. False if the kernel has no landlock.
///
/// Files there cannot be removed or renamed, because a file that is out of sight could not be counted.
fn restrict_files(launch: &Launch) -> Result<bool, Box<dyn std::error::Error>> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi);
    let own = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir});
    let device = make_bitflags!(AccessFs::{ReadFile | WriteFile});
    let readable = launch.readable.iter().map(|path| path.as_path());
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(readable.chain(SYSTEM.map(Path::new)), read))?
        .add_rules(path_beneath_rules(DEVICES, device))?
        .add_rule(PathBeneath::new(PathFd::new(&launch.folder)?, own))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Newer calls, whose numbers are the same on all architectures.
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;
const FILE_SETATTR: libc::c_long = 469;

/// System calls that no benchmark program needs: those that reach networks, other processes, kernel settings, or memory
/// that no limit counts.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_setpriority,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    FCHMODAT2,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    libc::SYS_utimensat,
    libc::SYS_inotify_init1,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
];

/// Such calls that exist only on this architecture.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_inotify_init,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Blocks these calls; false if the system has no filters for this architecture.
fn restrict_calls() -> bool {
    let own = u64::from(std::process::id());
    let other_than =
        |argument: u8, value: u64| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value);
    let filters = || -> Result<[BpfProgram; 2], seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for call in REFUSED.iter().chain(REFUSED_HERE) {
            rules.insert(*call, Vec::new());
        }
        // A process may send signals and set limits only for itself.
        let to_others = || -> Result<_, seccompiler::BackendError> { SeccompRule::new(vec![other_than(0, own)?]) };
        rules.insert(libc::SYS_kill, vec![to_others()?]);
        rules.insert(libc::SYS_tgkill, vec![to_others()?]);
        let limited = SeccompRule::new(vec![other_than(0, 0)?, other_than(0, own)?])?;
        rules.insert(libc::SYS_prlimit64, vec![limited]);
        // A folder that its owner may not enter hides files from the limit, and cannot be removed.
        const OWNER: u64 = 0o700;
        let owner = |argument: u8, some: std::ops::Range<u64>| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
            let of = |bits: u64| {
                let masked = SeccompCmpOp::MaskedEq(OWNER);
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, bits << 6)
            };
            some.map(|bits| SeccompRule::new(vec![of(bits)?])).collect()
        };
        let all = OWNER >> 6;
        rules.insert(libc::SYS_umask, owner(0, 1..all + 1)?);
        rules.insert(libc::SYS_mkdirat, owner(2, 0..all)?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_mkdir, owner(1, 0..all)?);
        // Threads are made by clone too: only new processes are refused.
        let thread = libc::CLONE_THREAD as u64;
        let of_process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![of_process])?]);
        let program = |rules, errno: i32| {
            let arch = std::env::consts::ARCH.try_into()?;
            let refused = SeccompAction::Errno(errno as u32);
            SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
        };
        // The flags of clone3 are in memory that a filter cannot read; without clone3, libraries fall back to clone.
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        Ok([program(rules, libc::EPERM)?, program(clone3, libc::ENOSYS)?])
    };
    match filters() {
        Ok(filters) => filters.iter().all(|filter| apply_filter(filter).is_ok()),
        Err(_) => false,
    }
}
