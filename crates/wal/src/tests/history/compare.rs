//! Compares every partition with its model, byte for byte.

use super::*;

impl World {
    pub(super) fn check(&mut self) -> Result<(), Stop> {
        for place in 0..PARTITIONS {
            if self.models[place].exists && !self.mem.is_off() {
                self.check_partition(place)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_partition(&mut self, place: usize) -> Result<(), Stop> {
        let Some((log, _)) = self.logs.get(&place).cloned() else { return Ok(()) };
        let expected = self.models[place].expected();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let is_suspect = matches!(log.read(start, end, 1, true), Err(ReadError::Suspect));
        if is_suspect {
            return Ok(());
        }
        if end != expected.end {
            return violation(format!("p{place} ends at {end}, not at {}", expected.end));
        }
        let told = *lock(&self.models[place].log_start_told);
        if start < told || start > end {
            return violation(format!("p{place} starts at {start}, told {told}, ends at {end}"));
        }
        self.check_contents(place, &log, &expected)
    }

    /// Every batch from the log start on is read back byte for byte, or is named as damaged.
    pub(super) fn check_contents(
        &mut self,
        place: usize,
        log: &Log,
        expected: &Expected,
    ) -> Result<(), Stop> {
        let start = log.log_start_offset();
        let mut next = start;
        let batches = expected.batches.iter().filter(|batch| batch.facts().next_offset() > start);
        for batch in batches {
            let facts = batch.facts();
            if facts.next_offset() <= next {
                continue;
            }
            match self.read_one(log, next.max(facts.base_offset), expected.end) {
                Ok(Some(read)) if read == whole(batch) => next = facts.next_offset(),
                Ok(Some(_)) => return violation(format!("p{place} wrong bytes at {next}")),
                Ok(None) => return violation(format!("p{place} nothing to read at {next}")),
                Err(ReadError::Damaged { range }) if self.flipped > 0 => {
                    if !covers(&range, next.max(facts.base_offset)) {
                        return violation(format!("p{place} damage {range:?} is not at {next}"));
                    }
                    next = range.end;
                }
                Err(_) if self.mem.is_off() => return Ok(()),
                Err(ReadError::TooManyOpenFiles) if self.trouble == Trouble::FewDescriptors => {
                    return Ok(());
                }
                Err(error) => return violation(format!("p{place} at {next}: {error}")),
            }
        }
        Ok(())
    }

    /// The first whole batch at an offset.
    pub(super) fn read_one(
        &mut self,
        log: &Log,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        match log.read(from, upper, 1, true)? {
            ReadOutcome::Entries(entries) => Ok(entries.first().map(whole)),
            ReadOutcome::Cold(read) => {
                let answer = Arc::new(Mutex::new(None));
                let done = Arc::clone(&answer);
                log.read_cold(read, Box::new(move |read| *lock(&done) = Some(read)))?;
                let reader = &mut self.node().steppers.reader;
                while lock(&answer).is_none() {
                    reader.step().expect("the reader is never fatal");
                }
                let read = lock(&answer).take().expect("answered")?;
                let bytes: Vec<u8> = read.concat();
                let first = bytes.first_chunk().map(|header| {
                    tidelog_types::BatchHeader::decode(header).batch_bytes() as usize
                });
                Ok(first.map(|first| bytes[..first.min(bytes.len())].to_vec()))
            }
        }
    }
}

fn whole(entry: &Entry) -> Vec<u8> {
    [&entry.header[..], &entry.records].concat()
}

fn covers(range: &Range<Offset>, offset: Offset) -> bool {
    range.contains(&offset)
}
