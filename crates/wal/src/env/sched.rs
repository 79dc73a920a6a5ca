//! Asks the kernel for short time slices, so that a thread that wakes does not wait for a tick; and
//! for few, where nobody waits for a thread.

/// Time slice that the threads on the request path ask for, in nanoseconds.
const SLICE_NS: u64 = 100_000;
/// What background threads are to be: an eighth as important as others.
const BACKGROUND_NICE: i32 = 10;

/// `struct sched_attr` of `sched_setattr(2)`, its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Shortens the calling thread's time slice (kernel 6.12 and later, no privilege needed). A
/// kernel that refuses only costs latency on a busy machine, so its answer is not looked at.
pub fn shorten_slice() {
    set(0, SLICE_NS);
}

/// Lets other threads go first. A kernel that refuses only costs them latency.
pub fn step_back() {
    set(BACKGROUND_NICE, 0);
}

#[allow(unsafe_code, reason = "no crate we use wraps sched_setattr")]
fn set(nice: i32, slice_ns: u64) {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: 0,
        flags: 0,
        nice,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of a struct that outlives the call; thread 0 is us.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}
