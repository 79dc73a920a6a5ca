//! Reads the WAL as it lies on disk and decides where it ends.
//!
//! Architecture invariant: decides only. The disk is read, never changed.

use bytes::Bytes;
use tidelog_types::{BATCH_HEADER_LEN, Entry};

use crate::{
    chain::{BLOCK_BYTES, ChainFile, block_align},
    error::WalError,
    frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameKind, PayloadCrc},
    rules::{Rule, holds},
};

/// Bytes read at once: few calls, and still in the processor's cache when they are checked.
const WINDOW_BYTES: u64 = 1 << 20;

/// What lies in the WAL, in order of sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A whole frame. The batch is there if the caller wanted it.
    Whole(FrameHeader, Option<Entry>),
    /// A frame whose payload is damaged; its header can be believed.
    Damaged(FrameHeader),
    /// Frames of which nothing is left: these sequences.
    Lost { from: u64, to: u64 },
}

/// Where an item starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the file in the chain.
    pub(crate) file: usize,
    pub(crate) position: u64,
}

/// Everything found, before anything is judged.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) items: Vec<(Item, Place)>,
    /// Highest `durable_through` of any valid frame.
    pub(crate) durable_through: u64,
    /// The sequence behind the last item.
    pub(crate) next_sequence: u64,
}

/// What is left after judging.
#[derive(Debug)]
pub(crate) struct Judged {
    /// What stays, in order.
    pub(crate) kept: Vec<Item>,
    /// The sequence that the next frame gets.
    pub(crate) next_sequence: u64,
    /// Position behind the last group that stays, in its file.
    pub(crate) end: u64,
    /// Headers that can still be read of what is cut, and where the cut is.
    pub(crate) cut: Option<(Vec<FrameHeader>, Place, u64)>,
}

/// Reads all files of the chain. `wants` says whether a frame's batch will be needed.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn scan(
    files: &[std::sync::Arc<ChainFile>],
    wants: impl Fn(&FrameHeader) -> bool,
) -> Result<Scan, WalError> {
    let first = files.first().map_or(1, |file| file.header.first_sequence);
    let mut scan = Scan { items: Vec::new(), durable_through: 0, next_sequence: first };
    let mut window = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let next = files.get(index + 1).filter(|_| holds(Rule::SuccessorSeals));
        let seal = next.map(|next| next.header.first_sequence);
        let mut cursor = Cursor { index, file, seal, window: Window::new(file, window) };
        if scan.next_sequence < file.header.first_sequence {
            scan.lose(file.header.first_sequence - 1, cursor.place(BLOCK_BYTES));
        }
        cursor.read_file(&mut scan, &wants)?;
        window = cursor.window.bytes;
    }
    Ok(scan)
}

/// Splits what was found into what stays and what is cut. `vouched` is the highest sequence that
/// the checkpoint says was durable: a bad frame up to there (or up to what a valid frame says) is
/// damage; the first one above is a torn tail, and nothing behind it is believed.
pub(crate) fn judge(mut scan: Scan, vouched: u64) -> Judged {
    let vouched = if holds(Rule::CheckpointVouches) { vouched } else { 0 };
    let mut durable = scan.durable_through.max(vouched);
    if !holds(Rule::DamageIsNotTorn) {
        durable = 0;
    }
    if scan.next_sequence <= durable {
        let end = scan.items.last().map_or(Place { file: 0, position: 0 }, |(_, place)| *place);
        scan.lose(durable, end);
    }
    let mut kept = Vec::new();
    let mut next_sequence = scan.next_sequence;
    let mut items = scan.items.into_iter();
    let mut cut = None;
    let mut end = BLOCK_BYTES;
    for (item, place) in items.by_ref() {
        match &item {
            Item::Whole(header, _) | Item::Damaged(header) => {
                end = block_align(place.position + header.frame_bytes() as u64);
            }
            Item::Lost { .. } => {}
        }
        match item {
            Item::Whole(..) => kept.push(item),
            Item::Damaged(header) if header.sequence <= durable => kept.push(item),
            Item::Lost { to, .. } if to <= durable => kept.push(item),
            Item::Damaged(header) => {
                next_sequence = header.sequence;
                cut = Some((vec![header], place, 0));
            }
            Item::Lost { from, .. } => {
                next_sequence = from.max(durable + 1);
                if from <= durable {
                    kept.push(Item::Lost { from, to: durable });
                }
                cut = Some((Vec::new(), place, 0));
            }
        }
        if cut.is_some() {
            break;
        }
    }
    if let Some((headers, _, last)) = &mut cut {
        *last = scan.next_sequence - 1;
        for (item, _) in items {
            match item {
                Item::Whole(header, _) | Item::Damaged(header) => headers.push(header),
                Item::Lost { .. } => {}
            }
            if let (Item::Whole(..), false) = (&item, holds(Rule::CutDiscards)) {
                kept.push(item);
                next_sequence = scan.next_sequence;
            }
        }
    }
    assert!(next_sequence > durable, "the log never ends below what was vouched for");
    Judged { kept, next_sequence, end, cut }
}

impl Scan {
    /// Everything up to `to` is gone.
    fn lose(&mut self, to: u64, place: Place) {
        assert!(to >= self.next_sequence, "a loss holds something");
        self.items.push((Item::Lost { from: self.next_sequence, to }, place));
        self.next_sequence = to + 1;
    }
}

/// One file being read.
struct Cursor<'a> {
    /// Its place in the chain.
    index: usize,
    file: &'a ChainFile,
    /// First sequence of the next file: what lies here at or above it is not part of the log.
    seal: Option<u64>,
    window: Window<'a>,
}

impl Cursor<'_> {
    fn read_file(
        &mut self,
        scan: &mut Scan,
        wants: &impl Fn(&FrameHeader) -> bool,
    ) -> Result<(), WalError> {
        let mut position = BLOCK_BYTES;
        while self.seal.is_none_or(|seal| scan.next_sequence < seal) {
            let frame = self.frame_at(position)?;
            if let Some((header, crc)) = frame.filter(|(h, _)| h.sequence == scan.next_sequence) {
                scan.durable_through = scan.durable_through.max(header.durable_through);
                let item = self.read_frame(position, header, crc, wants)?;
                scan.items.push((item, self.place(position)));
                scan.next_sequence += 1;
                position += header.frame_bytes() as u64;
                if header.is_group_end {
                    position = block_align(position);
                }
                continue;
            }
            // Resynchronise: frames start on multiples of their alignment.
            match self.find(position, scan.next_sequence)? {
                Some((found, header)) => {
                    scan.lose(header.sequence - 1, self.place(position));
                    position = found;
                }
                None => break,
            }
        }
        if let Some(seal) = self.seal.filter(|seal| scan.next_sequence < *seal) {
            scan.lose(seal - 1, self.place(position));
        }
        Ok(())
    }

    fn frame_at(&mut self, position: u64) -> Result<Option<(FrameHeader, PayloadCrc)>, WalError> {
        let bytes = self.window.at(position, FRAME_HEADER_BYTES)?;
        let mut epoch = self.file.header.epoch;
        if let (Some(found), false) = (bytes.get(8..16), holds(Rule::EpochChecked)) {
            epoch = u64::from_le_bytes(found.try_into().expect("these are eight bytes"));
        }
        Ok(FrameHeader::decode(bytes, epoch))
    }

    fn find(&mut self, from: u64, above: u64) -> Result<Option<(u64, FrameHeader)>, WalError> {
        for position in (from..self.file.bytes).step_by(FRAME_ALIGN) {
            let Some((header, _)) = self.frame_at(position)? else { continue };
            if header.sequence > above && self.seal.is_none_or(|seal| header.sequence < seal) {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    fn read_frame(
        &mut self,
        position: u64,
        header: FrameHeader,
        crc: PayloadCrc,
        wants: &impl Fn(&FrameHeader) -> bool,
    ) -> Result<Item, WalError> {
        if header.kind != FrameKind::Append {
            // The header says everything.
            return Ok(Item::Whole(header, None));
        }
        let payload_bytes = header.payload_bytes as usize;
        let payload = self.window.at(position + FRAME_HEADER_BYTES as u64, payload_bytes)?;
        if payload.len() < payload_bytes || !crc.holds(payload) {
            return Ok(Item::Damaged(header));
        }
        let entry = wants(&header).then(|| entry_of(payload)).flatten();
        Ok(Item::Whole(header, entry))
    }

    fn place(&self, position: u64) -> Place {
        Place { file: self.index, position }
    }
}

/// Part of a file, in a buffer that is used again and again: its memory is touched once.
struct Window<'a> {
    file: &'a ChainFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn new(file: &ChainFile, mut bytes: Vec<u8>) -> Window<'_> {
        bytes.clear();
        Window { file, start: 0, bytes }
    }

    /// So many bytes from `position` on, fewer only where the file ends.
    fn at(&mut self, position: u64, bytes: usize) -> Result<&[u8], WalError> {
        let end = (position + bytes as u64).min(self.file.bytes);
        if position < self.start || end > self.start + self.bytes.len() as u64 {
            let rest = self.file.bytes.saturating_sub(position);
            let len = rest.min(WINDOW_BYTES.max(bytes as u64)) as usize;
            self.bytes.resize(len, 0);
            self.start = position;
            self.file.read_into(&mut self.bytes, position)?;
        }
        let start = (position - self.start) as usize;
        let found = &self.bytes[start.min(self.bytes.len())..];
        Ok(&found[..found.len().min(bytes)])
    }
}

/// A frame that a test may damage.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) file: usize,
    pub(crate) position: u64,
    pub(crate) bytes: usize,
    pub(crate) id: tidelog_types::TopicIdPartition,
    pub(crate) sequence: u64,
    pub(crate) durable_through: u64,
}

/// All whole frames of a chain.
#[cfg(test)]
pub(crate) fn frames(files: &[std::sync::Arc<ChainFile>]) -> Result<Vec<Found>, WalError> {
    let scan = scan(files, |_| false)?;
    let found = |(item, place): &(Item, Place)| match item {
        Item::Whole(header, _) => Some(Found {
            file: place.file,
            position: place.position,
            bytes: crate::frame::FRAME_HEADER_BYTES + header.payload_bytes as usize,
            id: header.id,
            sequence: header.sequence,
            durable_through: header.durable_through,
        }),
        Item::Damaged(_) | Item::Lost { .. } => None,
    };
    Ok(scan.items.iter().filter_map(found).collect())
}

fn entry_of(payload: &[u8]) -> Option<Entry> {
    let (header, records) = payload.split_first_chunk::<BATCH_HEADER_LEN>()?;
    Some(Entry { header: *header, records: Bytes::copy_from_slice(records) })
}
