//! Reads the WAL as it lies on disk and decides where it ends.
//!
//! Architecture invariant: decides only. The disk is read, never changed.

use bytes::Bytes;
use tidelog_types::{BATCH_HEADER_LEN, Entry};

use crate::{
    chain::{BLOCK_BYTES, ChainFile, block_align},
    error::WalError,
    frame::{FRAME_ALIGN, FrameHeader, FrameKind},
    rules::{Rule, holds},
};

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
    for (index, file) in files.iter().enumerate() {
        let next = files.get(index + 1).filter(|_| holds(Rule::SuccessorSeals));
        let seal = next.map(|next| next.header.first_sequence);
        let bytes = file.read(0, file.bytes as usize)?;
        let mut cursor = Cursor { file: index, epoch: file.header.epoch, bytes: &bytes, seal };
        if scan.next_sequence < file.header.first_sequence {
            scan.lose(file.header.first_sequence - 1, cursor.place(BLOCK_BYTES as usize));
        }
        cursor.read_file(&mut scan, &wants);
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

/// One file's bytes.
struct Cursor<'a> {
    file: usize,
    epoch: u64,
    bytes: &'a [u8],
    /// First sequence of the next file: what lies here at or above it is not part of the log.
    seal: Option<u64>,
}

impl Cursor<'_> {
    fn read_file(&mut self, scan: &mut Scan, wants: &impl Fn(&FrameHeader) -> bool) {
        let mut position = BLOCK_BYTES as usize;
        while self.seal.is_none_or(|seal| scan.next_sequence < seal) {
            let header = self.frame_at(position).filter(|h| h.sequence == scan.next_sequence);
            if let Some(header) = header {
                scan.durable_through = scan.durable_through.max(header.durable_through);
                let item = self.read_frame(position, header, wants);
                scan.items.push((item, self.place(position)));
                scan.next_sequence += 1;
                position += header.frame_bytes();
                if header.is_group_end {
                    position = block_align(position as u64) as usize;
                }
                continue;
            }
            // Resynchronise: frames start on multiples of their alignment.
            match self.find(position, scan.next_sequence) {
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
    }

    fn frame_at(&self, position: usize) -> Option<FrameHeader> {
        let bytes = self.bytes.get(position..)?;
        if !holds(Rule::EpochChecked) {
            let epoch = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
            return FrameHeader::decode(bytes, epoch).map(|(header, _)| header);
        }
        FrameHeader::decode(bytes, self.epoch).map(|(header, _)| header)
    }

    fn find(&self, from: usize, above: u64) -> Option<(usize, FrameHeader)> {
        (from..self.bytes.len()).step_by(FRAME_ALIGN).find_map(|position| {
            let header = self.frame_at(position)?;
            let is_ours =
                header.sequence > above && self.seal.is_none_or(|seal| header.sequence < seal);
            is_ours.then_some((position, header))
        })
    }

    fn read_frame(
        &self,
        position: usize,
        header: FrameHeader,
        wants: &impl Fn(&FrameHeader) -> bool,
    ) -> Item {
        if header.kind != FrameKind::Append {
            // The header says everything.
            return Item::Whole(header, None);
        }
        let start = position + crate::frame::FRAME_HEADER_BYTES;
        let payload = self.bytes.get(start..start + header.payload_bytes as usize);
        let crc = FrameHeader::decode(&self.bytes[position..], header.epoch).map(|(_, crc)| crc);
        match (payload, crc) {
            (Some(payload), Some(crc)) if crc.holds(payload) => {
                let entry = wants(&header).then(|| entry_of(payload)).flatten();
                Item::Whole(header, entry)
            }
            _ => Item::Damaged(header),
        }
    }

    fn place(&self, position: usize) -> Place {
        Place { file: self.file, position: position as u64 }
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
