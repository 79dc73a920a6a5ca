//! A file system of its own, small enough to fill and not missed when it breaks.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::statvfs;
use tempfile::TempDir;

/// A mounted file system, unmounted at the end.
pub struct SmallDisk {
    dir: TempDir,
    image: Option<PathBuf>,
}

impl SmallDisk {
    /// ext4 on a loop device where that may be mounted, else a tmpfs. `None` where neither may be:
    /// then the test cannot be made here, and says so.
    #[must_use]
    pub fn mount(bytes: u64) -> Option<SmallDisk> {
        SmallDisk::ext4(bytes).or_else(|| SmallDisk::tmpfs(bytes)).or_else(|| {
            eprintln!("SKIPPED: neither a loop device nor a tmpfs may be mounted here");
            None
        })
    }

    /// ext4 on a loop device; `None` where that may not be mounted.
    #[must_use]
    pub fn ext4(bytes: u64) -> Option<SmallDisk> {
        let dir = directory();
        let image = dir.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(bytes));
        made.expect("a sparse file in a temporary directory");
        // Nothing is kept back for root, or filling it would depend on who runs the test.
        let is_made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        let disk = SmallDisk { dir, image: Some(image) };
        (is_made && disk.mount_image()).then_some(disk)
    }

    fn tmpfs(bytes: u64) -> Option<SmallDisk> {
        eprintln!("no loop device may be mounted here: a tmpfs is filled instead");
        let disk = SmallDisk { dir: directory(), image: None };
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.path());
        succeeds(&mut mount).then_some(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        mount_point(self.dir.path())
    }

    /// Bytes that may still be written.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let stat = statvfs(self.path()).expect("a mounted file system");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it with a file until so many bytes are left; removing the file makes room again.
    #[must_use]
    pub fn fill(&self, left_bytes: u64) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = File::create(&ballast).expect("a file");
        let bytes = self.free_bytes().saturating_sub(left_bytes);
        io::copy(&mut io::Read::take(io::repeat(1), bytes), &mut file).expect("room for it");
        file.sync_all().expect("a disk that works");
        ballast
    }

    /// Has the file system shut itself down as after an error of the device: from now on nothing
    /// is written.
    pub fn abort(&self) {
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,abort"]).arg(self.path());
        assert!(succeeds(&mut remount), "ext4 can be told to abort");
    }

    /// Repairs it and mounts it again, when nobody uses it.
    pub fn mend(&self) {
        let image = self.image.as_ref().expect("only a disk with an image is repaired");
        assert!(succeeds(Command::new("umount").arg(self.path())), "nobody uses it");
        let checked = Command::new("e2fsck").args(["-fy"]).arg(image).output();
        let code = checked.expect("e2fsck runs").status.code();
        assert!(code.is_some_and(|code| code < 4), "e2fsck: {code:?}");
        assert!(self.mount_image(), "what was mounted once is mounted again");
    }

    fn mount_image(&self) -> bool {
        let image = self.image.as_ref().expect("an image");
        succeeds(Command::new("mount").args(["-o", "loop"]).arg(image).arg(self.path()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A broker that a failed test leaves behind ends a moment later.
        let _ = succeeds(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("tidelog-disk-").tempdir();
    let dir = dir.expect("a temporary directory");
    fs::create_dir(mount_point(dir.path())).expect("a directory in a new one");
    dir
}

fn mount_point(dir: &Path) -> PathBuf {
    dir.join("mnt")
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
