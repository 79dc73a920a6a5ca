//! Programs in other languages that a test runs to their end: stock clients and tools.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Longer than any client program takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The folder of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace above us")
}

/// The folder that cargo builds into, from where this test runs.
pub fn target_dir() -> PathBuf {
    let test = env::current_exe().expect("a test has a path"); // <target>/<profile>/deps/<test>
    test.ancestors().nth(3).expect("a test lies three folders deep").to_owned()
}

/// A tool of the tests that `scripts/setup` installs.
///
/// # Panics
/// If it is not there: a test that passes without its judge says nothing.
pub fn tool(path: &str) -> PathBuf {
    let tool = target_dir().join("tools").join(path);
    assert!(tool.exists(), "{} is missing: run scripts/setup", tool.display());
    tool
}

/// The broker's binary: `TIDELOG_BIN`, else built here, once for each test process.
///
/// It is built with the `held` file system, which does nothing until an environment variable asks.
pub fn tidelog() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("TIDELOG_BIN") {
            return PathBuf::from(path);
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "-p", "tidelog-server", "--features", "held"])
            .current_dir(root())
            .status();
        assert!(built.expect("cargo runs").success(), "the broker does not build");
        target_dir().join("debug/tidelog")
    })
}

/// A Python program of `tests/clients/python` or `scripts`, with the pinned clients.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(tool("python/bin/python"));
    command.arg(root().join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A Java program of `tests/clients/java`, with the jars that `scripts/setup` put below this name.
pub fn java(jars: &str, class: &str) -> Command {
    let java = tool(jars);
    let mut class_path = java.join("classes").into_os_string();
    class_path.push(":");
    class_path.push(java.join("lib"));
    class_path.push("/*");
    let mut command = Command::new("java");
    // A short life: the quick compiler is enough.
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp"]);
    command.arg(class_path).arg(class);
    command
}

/// A program found on the path or among the tools, such as `kcat` and `promtool`.
pub fn on_path(name: &str) -> Command {
    let ours = target_dir().join("tools/bin").join(name);
    Command::new(if ours.exists() { ours.as_os_str() } else { OsStr::new(name) })
}

/// Runs to the end, with `input` on its standard input, and returns what it said.
///
/// # Panics
/// If it fails, or is still running after [`PATIENCE`]: then with all that it said.
pub fn run(command: Command, input: &str) -> String {
    let shown = format!("{command:?}");
    let output = finish(command, input);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {}\n{said}\n{complained}", output.status);
    said
}

/// Runs to the end, however it ends.
///
/// # Panics
/// If it does not start, or is still running after [`PATIENCE`].
pub fn finish(mut command: Command, input: &str) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().expect("a piped input");
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let watch = watch(&child, PATIENCE);
    let output = child.wait_with_output().expect("a child of ours");
    // A program may end before it has read everything.
    let _ = writer.join().expect("the writer ends with its pipe");
    assert!(!watch.stop(), "{shown}: still running after {PATIENCE:?}");
    output
}

/// Ends a child that takes too long.
struct Watch {
    done: std::sync::mpsc::SyncSender<()>,
    thread: thread::JoinHandle<bool>,
}

fn watch(child: &Child, patience: Duration) -> Watch {
    let pid = rustix::process::Pid::from_child(child);
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        let late = is_done.recv_timeout(patience).is_err();
        if late {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        late
    });
    Watch { done, thread }
}

impl Watch {
    /// Whether it had to end the child.
    fn stop(self) -> bool {
        let _ = self.done.send(());
        self.thread.join().expect("the watch does not panic")
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not hold within `patience`.
pub fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        // Not a wait for time to pass: the condition is looked at again.
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets this process, and those it starts, open as many files as the system allows. Returns how
/// many that are.
pub fn raise_open_files() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    assert!(raised.is_ok(), "a limit may be raised to its own maximum");
    maximum.unwrap_or(u64::MAX)
}

/// All bytes of the files below `dir`.
pub fn bytes_on_disk(dir: &Path) -> u64 {
    files_below(dir).iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// Every file below `dir`, in order of their names.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.append(&mut files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
