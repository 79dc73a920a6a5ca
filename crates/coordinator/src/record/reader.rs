//! Reads Kafka's fields from bytes that may say anything.

use bytes::{Buf, Bytes};

use super::{RecordError, STRING_BYTES_MAX};

/// A key or a value, as far as it is not read yet. What is read of it as bytes is a copy, so that
/// nothing of a log's batch stays in memory for the sake of a few bytes.
pub(super) struct Reader {
    rest: Bytes,
    flexible: bool,
}

impl Reader {
    /// Of a key, or a value before tagged fields.
    pub(super) fn new(bytes: &Bytes) -> Reader {
        Reader::with_flexible(bytes.clone(), false)
    }

    pub(super) fn with_flexible(rest: Bytes, flexible: bool) -> Reader {
        Reader { rest, flexible }
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16, RecordError> {
        self.rest.try_get_i16().map_err(|_| RecordError::Truncated { field })
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        self.rest.try_get_i32().map_err(|_| RecordError::Truncated { field })
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        self.rest.try_get_i64().map_err(|_| RecordError::Truncated { field })
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.nullable_string(field)?.ok_or(RecordError::Invalid { field })
    }

    pub(super) fn nullable_string(
        &mut self,
        field: &'static str,
    ) -> Result<Option<String>, RecordError> {
        let length =
            if self.flexible { self.compact_length(field)? } else { i64::from(self.i16(field)?) };
        let Some(bytes) = self.take(length, field)? else { return Ok(None) };
        // What is loaded may have to be written again, with a shorter length before it.
        if bytes.len() > STRING_BYTES_MAX {
            return Err(RecordError::Invalid { field });
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| RecordError::Invalid { field })?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Bytes, RecordError> {
        let length =
            if self.flexible { self.compact_length(field)? } else { i64::from(self.i32(field)?) };
        let bytes = self.take(length, field)?.ok_or(RecordError::Invalid { field })?;
        Ok(Bytes::copy_from_slice(&bytes))
    }

    /// How many elements follow, of which each takes at least `bytes_min`.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        bytes_min: usize,
    ) -> Result<usize, RecordError> {
        let count =
            if self.flexible { self.compact_length(field)? } else { i64::from(self.i32(field)?) };
        let count = usize::try_from(count).map_err(|_| RecordError::Invalid { field })?;
        if count > self.rest.len() / bytes_min {
            return Err(RecordError::Truncated { field });
        }
        Ok(count)
    }

    /// Gives each tagged field to `read`. A rigid version has none.
    pub(super) fn tagged_fields(
        &mut self,
        mut read: impl FnMut(u64, Bytes),
    ) -> Result<(), RecordError> {
        const FIELD: &str = "the tagged fields";
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint(FIELD)? {
            let tag = self.uvarint(FIELD)?;
            let length = i64::try_from(self.uvarint(FIELD)?)
                .map_err(|_| RecordError::Invalid { field: FIELD })?;
            let field = self.take(length, FIELD)?.expect("the length is not negative");
            read(tag, field);
        }
        Ok(())
    }

    /// So many of the next bytes; `None` for the negative length that means nothing at all.
    fn take(&mut self, length: i64, field: &'static str) -> Result<Option<Bytes>, RecordError> {
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| RecordError::Invalid { field })?;
        if length > self.rest.len() {
            return Err(RecordError::Truncated { field });
        }
        Ok(Some(self.rest.split_to(length)))
    }

    /// One less than what is written, so that nothing at all can be said.
    fn compact_length(&mut self, field: &'static str) -> Result<i64, RecordError> {
        let written =
            i64::try_from(self.uvarint(field)?).map_err(|_| RecordError::Invalid { field })?;
        Ok(written - 1)
    }

    fn uvarint(&mut self, field: &'static str) -> Result<u64, RecordError> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.rest.try_get_u8().map_err(|_| RecordError::Truncated { field })?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Invalid { field })
    }
}
