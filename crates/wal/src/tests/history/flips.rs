//! Flips bits that somebody vouches for, so that they must be missed.

use super::*;

impl World {
    /// Flips a bit of a frame that another frame or the checkpoint vouches for.
    pub(super) fn flip_frame(&mut self) {
        let fork = self.mem.fork();
        let fs: Arc<dyn FileSystem> = Arc::new(fork);
        let Some((files, frames, vouched)) = frames_on_disk(&fs, &self.config) else { return };
        let candidates: Vec<&scan::Found> = frames
            .iter()
            .filter(|frame| {
                // What vouches must be durable itself, or a power loss takes it.
                let is_witness = |other: &&scan::Found| {
                    other.sequence != frame.sequence && other.sequence <= self.floor
                };
                let others = frames.iter().filter(is_witness);
                let durable = others.map(|other| other.durable_through).max().unwrap_or(0);
                frame.sequence <= durable.max(vouched)
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let chosen = candidates[self.random.below(candidates.len() as u64) as usize];
        let payload = (chosen.bytes - 96) as u64;
        let in_header = payload == 0 || self.random.percent(50);
        let at = match in_header {
            true => self.random.below(92),
            false => 96 + self.random.below(payload),
        };
        let path = &files[chosen.file].path;
        let bit = self.random.below(8) as u8;
        if self.mem.flip(path, chosen.position + at, bit).is_err() {
            return;
        }
        trace!(
            self,
            "FLIP {} of seq {} p{}",
            if in_header { "header" } else { "payload" },
            chosen.sequence,
            chosen.id.partition
        );
        self.flipped += 1;
        if in_header {
            self.lost_headers.push(LostHeader { id: chosen.id, sequence: chosen.sequence });
        }
    }

    pub(super) fn flip_segment(&mut self) {
        let files = self.mem.files();
        let below_topics: Vec<_> = files
            .iter()
            .filter(|path| path.components().any(|c| c.as_os_str() == "topics"))
            .collect();
        if below_topics.is_empty() {
            return;
        }
        let path = below_topics[self.random.below(below_topics.len() as u64) as usize].clone();
        let bytes = self.mem.contents(&path).map_or(0, |bytes| bytes.len() as u64);
        if bytes == 0 {
            return;
        }
        let (at, bit) = (self.random.below(bytes), self.random.below(8) as u8);
        if self.mem.flip(&path, at, bit).is_ok() {
            trace!(self, "FLIP {} at {at}", path.display());
            self.flipped += 1;
        }
    }
}

/// Every frame that recovery would find, and the highest sequence that the checkpoint vouches for.
#[allow(clippy::type_complexity, reason = "a test's helper")]
fn frames_on_disk(
    fs: &Arc<dyn FileSystem>,
    config: &WalConfig,
) -> Option<(Vec<Arc<ChainFile>>, Vec<scan::Found>, u64)> {
    let dir = config.dir.join("wal");
    let checkpoint = Checkpoint::read(fs, &dir).ok()??;
    let chain_config = ChainConfig {
        dir,
        owner: OWNER,
        file_bytes: config.file_bytes,
        first_file_bytes: config.first_file_bytes,
        files_max: 8,
        files_ready: 0,
        files_recycled_max: 0,
    };
    let chain =
        crate::chain::recover(Arc::clone(fs), chain_config, checkpoint.oldest_needed).ok()?;
    let frames = scan::frames(&chain.files).ok()?;
    Some((chain.files, frames, checkpoint.vouches_through()))
}
