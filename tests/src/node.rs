//! A broker as a process of its own: started, watched, ended by pid, started again.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{http, ports, programs, programs::wait_until, wire::Wire};

/// How long a broker may take to serve, or to stop when asked to.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a broker is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    env: Vec<(String, String)>,
    expected: Vec<String>,
    required: Vec<String>,
    open_files_max: Option<u32>,
}

impl Options {
    /// One setting, by Kafka's name or ours.
    pub fn set(mut self, key: &str, value: &str) -> Options {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Bounds so small that a few megabytes roll, spill and recycle everything.
    pub fn small_bounds(self) -> Options {
        self.set("wal.tail.max.bytes", "4194304")
            .set("wal.queue.max.bytes", "4194304")
            .set("wal.max.bytes", "16777216")
            .set("wal.file.bytes", "4194304")
            .set("wal.first.file.bytes", "1048576")
            .set("log.segment.bytes", "1048576")
    }

    /// Writes stay in the process until synced, so that killing it is a power loss.
    pub fn held(mut self) -> Options {
        const SAID: &str = "the file system holds writes back until they are synced";
        self.env.push(("TIDELOG_TEST_FILE_SYSTEM".to_owned(), "held".to_owned()));
        // Else the test would be of something else, and nobody would know.
        self.required.push(SAID.to_owned());
        self.expect_log(SAID)
    }

    /// A WARN or ERROR line that holds this text is no failure of the test.
    pub fn expect_log(mut self, text: &str) -> Options {
        self.expected.push(text.to_owned());
        self
    }

    /// A kill may leave a group half written, and recovery says what it cuts off behind the last
    /// sync. It must say nothing of damage: what was synced is whole.
    pub fn expect_torn_tails(self) -> Options {
        self.expect_log("cut off behind the last sync that is known")
            .expect_log("the WAL ended in an unfinished or damaged group; it was cut there")
            .expect_log("cut a torn record off the end of the Raft log")
    }

    /// As `ulimit -n` says.
    pub fn open_files_max(mut self, open_files: u32) -> Options {
        self.open_files_max = Some(open_files);
        self
    }
}

/// One broker, its directory, and everything it has logged.
pub struct Node {
    options: Options,
    dir: PathBuf,
    /// Removes the directory at the end.
    _temporary: Option<TempDir>,
    port: u16,
    admin_port: u16,
    process: Option<Process>,
    log: Arc<Mutex<Vec<String>>>,
}

struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts on a new directory and waits until it serves.
    pub fn start(options: Options) -> Node {
        let temporary = tempfile::Builder::new().prefix("tidelog-test-").tempdir();
        let temporary = temporary.expect("a temporary directory");
        let mut node = Node::at(temporary.path().join("data"), options);
        node._temporary = Some(temporary);
        node.restart();
        node
    }

    /// A broker for a directory of the test's own, not yet started.
    pub fn at(dir: PathBuf, options: Options) -> Node {
        Node {
            options,
            dir,
            _temporary: None,
            port: ports::free(),
            admin_port: ports::free(),
            process: None,
            log: Arc::default(),
        }
    }

    /// Starts, on the directory and ports it always had, and waits until it serves.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let mut child = self.command().spawn().expect("the broker starts");
        let stdout = child.stdout.take().expect("a piped output");
        let stderr = child.stderr.take().expect("a piped output");
        let readers = vec![self.collect(stdout), self.collect(stderr)];
        self.process = Some(Process { child, readers });
    }

    fn command(&self) -> Command {
        let binary = programs::tidelog();
        let mut command = match self.options.open_files_max {
            None => Command::new(binary),
            Some(open_files) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {open_files}; exec \"$0\" \"$@\""));
                shell.arg(binary);
                shell
            }
        };
        command.arg("serve").arg("--data-dir").arg(&self.dir);
        command.arg("--listen").arg(self.bootstrap());
        command.arg("--admin").arg(format!("127.0.0.1:{}", self.admin_port));
        for (key, value) in &self.options.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.envs(self.options.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn collect(&self, output: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                log.lock().expect("no reader panics").push(line);
            }
        })
    }

    /// Waits until clients are served.
    ///
    /// # Panics
    /// If the broker ends, or takes longer than [`PATIENCE`].
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            if let Some(status) = self.exit_status() {
                panic!("the broker ended with {status}:\n{}", self.log_text());
            }
            assert!(Instant::now() < deadline, "not ready in time:\n{}", self.log_text());
            // The condition is looked at again; nothing relies on how long this takes.
            thread::sleep(Duration::from_millis(5));
        }
        for required in &self.options.required {
            self.wait_for_log(required);
        }
    }

    /// Whether clients are served.
    pub fn is_ready(&self) -> bool {
        http::get(self.admin_port, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Whether something accepts connections at the broker's address.
    pub fn port_is_open(&self) -> bool {
        Wire::connect(self.port).is_ok()
    }

    /// The exit status, if the process has ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.child.try_wait().expect("a child of ours")
    }

    /// Waits for the process to end by itself.
    pub fn wait_for_exit(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exit_status() {
                self.reap();
                return status;
            }
            assert!(Instant::now() < deadline, "still runs:\n{}", self.log_text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.child.kill().expect("a child of ours");
        }
        self.reap();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit(PATIENCE)
    }

    /// Sends a signal and does not wait.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child of ours");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process.as_ref().expect("the broker runs").child)
    }

    fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.child.wait().expect("a child of ours");
            for reader in process.readers {
                reader.join().expect("a reader of the log does not panic");
            }
        }
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where metrics and health are.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// A connection for requests by hand.
    pub fn wire(&self) -> Wire {
        Wire::connect(self.port).expect("the broker accepts connections")
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of memory that the process holds now.
    pub fn resident_bytes(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// The most that it ever held.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    fn status_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the broker runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let words = line.expect("the kernel knows").split_whitespace();
        words.into_iter().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the broker runs").count()
    }

    /// Everything logged so far, over all its lives.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no reader panics").clone()
    }

    /// As one text, for a failure to show.
    pub fn log_text(&self) -> String {
        self.log().join("\n")
    }

    /// Waits until a line holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(text, PATIENCE, || self.log().iter().any(|line| line.contains(text)));
    }

    /// Warnings and errors that nobody expected.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.log();
        let complaints = log.into_iter().filter(|line| is_complaint(line));
        let unlisted = complaints
            .filter(|line| !self.options.expected.iter().any(|expected| line.contains(expected)));
        unlisted.collect()
    }
}

/// WARN and ERROR lines, and what the language itself says when something breaks.
pub fn is_complaint(line: &str) -> bool {
    let words = ["WARN", "ERROR", "panicked at", "stack backtrace", "memory allocation of"];
    words.iter().any(|word| line.contains(word))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let complaints = self.complaints();
        if thread::panicking() {
            eprintln!("the broker's log:\n{}", self.log_text());
        } else {
            assert!(complaints.is_empty(), "unlisted lines:\n{}", complaints.join("\n"));
        }
    }
}
