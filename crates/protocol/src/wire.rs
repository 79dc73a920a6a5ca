//! Reading and writing the protocol's primitive types, bounds checked.

use std::ops::Range;

use crate::error::Malformed;

/// Longest string that the protocol allows, in bytes; compact strings obey it too.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Reads primitives from the front of a slice.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Bytes still unread.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(crate) fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed { reason, position: self.position }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let range = self.range(count)?;
        Ok(&self.bytes[range])
    }

    /// Passes over `count` bytes and says where they are.
    pub(crate) fn range(&mut self, count: usize) -> Result<Range<usize>, Malformed> {
        if count > self.remaining() {
            return Err(self.malformed("the bytes end early"));
        }
        let start = self.position;
        self.position += count;
        Ok(start..self.position)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.bytes[self.position..].first_chunk() {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => Err(self.malformed("the bytes end early")),
        }
    }

    pub(crate) fn int8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(crate) fn int16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn int32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn int64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| self.malformed("a varint overflows"));
            }
        }
        Err(self.malformed("a varint does not end"))
    }

    /// A zigzag number of at most 32 bits, as records carry them.
    pub(crate) fn varint(&mut self) -> Result<i32, Malformed> {
        let zigzag = self.unsigned_varint()?;
        Ok((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    /// A zigzag number of at most 64 bits, as records carry them.
    pub(crate) fn varlong(&mut self) -> Result<i64, Malformed> {
        let mut zigzag = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        Err(self.malformed("a varlong does not end"))
    }

    /// Where a string lies, `None` for null.
    pub(crate) fn string(&mut self, flexible: bool) -> Result<Option<Range<usize>>, Malformed> {
        let length = match flexible {
            true => self.compact_length()?,
            false => i64::from(self.int16()?),
        };
        let Some(length) = self.length_or_null(length)? else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(self.malformed("a string is longer than the protocol allows"));
        }
        let range = self.range(length)?;
        match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok(_) => Ok(Some(range)),
            Err(_) => Err(self.malformed("a string is not UTF-8")),
        }
    }

    pub(crate) fn required_string(&mut self, flexible: bool) -> Result<Range<usize>, Malformed> {
        let range = self.string(flexible)?;
        range.ok_or_else(|| self.malformed("a string that must be there is null"))
    }

    /// Where bytes lie, `None` for null.
    pub(crate) fn bytes(&mut self, flexible: bool) -> Result<Option<Range<usize>>, Malformed> {
        match self.count(flexible)? {
            Some(length) => self.range(length).map(Some),
            None => Ok(None),
        }
    }

    /// An array's number of elements, `None` for null. Nothing says yet that they are there.
    pub(crate) fn count(&mut self, flexible: bool) -> Result<Option<usize>, Malformed> {
        let length = match flexible {
            true => self.compact_length()?,
            false => i64::from(self.int32()?),
        };
        self.length_or_null(length)
    }

    pub(crate) fn required_count(&mut self, flexible: bool) -> Result<usize, Malformed> {
        let count = self.count(flexible)?;
        count.ok_or_else(|| self.malformed("an array that must be there is null"))
    }

    /// An array's number of elements, refused where the bytes left cannot hold them.
    pub(crate) fn count_of(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, Malformed> {
        assert!(element_bytes_min > 0, "an element takes bytes");
        let count = self.count(flexible)?;
        match count {
            Some(count) if count > self.remaining() / element_bytes_min => {
                Err(self.malformed("an array claims more elements than there are bytes"))
            }
            _ => Ok(count),
        }
    }

    /// Reads tagged fields, handing each tag and a reader of its bytes to `field`. Returns how many
    /// there were.
    pub(crate) fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<(), Malformed>,
    ) -> Result<usize, Malformed> {
        let count = self.unsigned_varint()? as usize;
        // Each takes a byte for its tag and one for its size.
        if count > self.remaining() / 2 {
            return Err(self.malformed("more tagged fields are claimed than there are bytes"));
        }
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            let range = self.range(length)?;
            let mut inner = Reader { bytes: &self.bytes[..range.end], position: range.start };
            field(tag, &mut inner)?;
        }
        Ok(count)
    }

    pub(crate) fn skip_tagged_fields(&mut self) -> Result<usize, Malformed> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// A compact length is stored one greater, so that 0 can mean null.
    fn compact_length(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from(self.unsigned_varint()?) - 1)
    }

    fn length_or_null(&self, length: i64) -> Result<Option<usize>, Malformed> {
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(length as usize)),
            _ => Err(self.malformed("a length is negative")),
        }
    }
}

/// Appends primitives to a growing buffer.
pub(crate) trait Writer {
    fn raw(&mut self, bytes: &[u8]);

    fn put_int16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    fn put_int32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    fn put_int64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    fn put_unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.raw(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.raw(&[value as u8]);
    }

    /// A zigzag number, as records carry them.
    fn put_varlong(&mut self, value: i64) {
        let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
        while zigzag >= 0x80 {
            self.raw(&[zigzag as u8 | 0x80]);
            zigzag >>= 7;
        }
        self.raw(&[zigzag as u8]);
    }

    /// A string, or null. What does not fit the protocol's longest string is cut off: the texts we
    /// send are sentences and host names.
    fn put_string(&mut self, flexible: bool, text: Option<&str>) {
        let text = text.map(|text| &text[..text.floor_char_boundary(STRING_BYTES_MAX)]);
        match (flexible, text) {
            (true, None) => self.put_unsigned_varint(0),
            (true, Some(text)) => self.put_unsigned_varint(text.len() as u32 + 1),
            (false, None) => self.put_int16(-1),
            (false, Some(text)) => self.put_int16(text.len() as i16),
        }
        self.raw(text.unwrap_or_default().as_bytes());
    }

    /// How many elements, or how many bytes, follow; `None` for null.
    fn put_count(&mut self, flexible: bool, count: Option<usize>) {
        let fits = count.is_none_or(|count| count < i32::MAX as usize);
        assert!(fits, "a response is far smaller than 2 GiB");
        match (flexible, count) {
            (true, None) => self.put_unsigned_varint(0),
            (true, Some(count)) => self.put_unsigned_varint(count as u32 + 1),
            (false, None) => self.put_int32(-1),
            (false, Some(count)) => self.put_int32(count as i32),
        }
    }

    /// The end of a flexible structure that has no tagged field to tell of.
    fn put_no_tagged_fields(&mut self, flexible: bool) {
        if flexible {
            self.raw(&[0]);
        }
    }
}

impl Writer for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_that_does_not_end_or_fit_is_refused() {
        let cases: [(&[u8], Option<u32>); 8] = [
            (&[0], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Some(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x10], None),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], None),
            (&[0x80], None),
            (&[], None),
        ];
        for (bytes, number) in cases {
            assert_eq!(Reader::new(bytes).unsigned_varint().ok(), number, "{bytes:?}");
        }
    }

    #[test]
    fn a_length_says_null_nothing_or_how_much() {
        let cases: [(&[u8], bool, &str); 9] = [
            (&[0xff, 0xff, 0xff, 0xff], false, "null"),
            (&[0xff, 0xff, 0xff, 0xfe], false, "a length is negative at byte 4"),
            (&[0, 0, 0, 0], false, "4..4"),
            (&[0, 0, 0, 2, 9, 9], false, "4..6"),
            (&[0, 0, 0, 3, 9, 9], false, "the bytes end early at byte 4"),
            (&[0], true, "null"),
            (&[1], true, "1..1"),
            (&[3, 9, 9], true, "1..3"),
            (&[4, 9, 9], true, "the bytes end early at byte 1"),
        ];
        for (bytes, flexible, expected) in cases {
            let said = match Reader::new(bytes).bytes(flexible) {
                Ok(Some(range)) => format!("{range:?}"),
                Ok(None) => "null".to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            assert_eq!(said, expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_string_is_utf_8_and_at_most_32767_bytes_long() {
        let compact = |length: usize| {
            let mut bytes = Vec::new();
            bytes.put_unsigned_varint(length as u32 + 1);
            bytes.resize(bytes.len() + length, b'x');
            bytes
        };
        assert!(Reader::new(&compact(32_767)).string(true).is_ok());
        assert!(Reader::new(&compact(32_768)).string(true).is_err());
        assert!(Reader::new(&[0, 2, 0xc3, 0x28]).string(false).is_err());
    }

    #[test]
    fn a_text_too_long_to_send_is_cut_between_characters() {
        let text = "ö".repeat(20_000);
        let mut bytes = Vec::new();
        bytes.put_string(false, Some(&text));
        let range = Reader::new(&bytes).required_string(false);
        assert_eq!(range, Ok(2..2 + 32_766));
    }

    proptest! {
        #[test]
        fn a_zigzag_number_reads_back(number: i64) {
            let mut bytes = Vec::new();
            bytes.put_varlong(number);
            prop_assert_eq!(Reader::new(&bytes).varlong(), Ok(number));
            let small = i32::try_from(number);
            prop_assert_eq!(Reader::new(&bytes).varint().ok(), small.ok());
        }
    }
}
