//! Lengths before bytes, in Kafka's rigid and flexible forms.

use bytes::{BufMut, BytesMut};

use super::STRING_BYTES_MAX;

/// Appends to a key or a value.
pub(super) struct Writer<'a> {
    into: &'a mut BytesMut,
    flexible: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(into: &'a mut BytesMut, flexible: bool) -> Writer<'a> {
        Writer { into, flexible }
    }

    /// Of the versions before tagged fields.
    pub(super) fn rigid(into: &'a mut BytesMut) -> Writer<'a> {
        Writer::new(into, false)
    }

    pub(super) fn string(&mut self, text: &str) {
        assert!(text.len() <= STRING_BYTES_MAX, "what is planned fits its record");
        if self.flexible {
            self.uvarint(text.len() as u64 + 1);
        } else {
            self.into.put_i16(i16::try_from(text.len()).expect("the assertion above"));
        }
        self.into.put_slice(text.as_bytes());
    }

    pub(super) fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None if self.flexible => self.uvarint(0),
            None => self.into.put_i16(-1),
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        assert!(!self.flexible, "values with bytes are written in a rigid version");
        self.into.put_i32(i32::try_from(bytes.len()).expect("a frame is below 2 GiB"));
        self.into.put_slice(bytes);
    }

    pub(super) fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.into.put_u8((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.into.put_u8(value as u8);
    }
}
