//! Why a request is not served.

/// A request that gets no answer.
///
/// Whatever the variant, a broker does what Kafka does: it closes the connection. The variants are
/// there for whoever reads the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The table has no such API, or not in this version.
    #[error("API {api_key} version {api_version} is not served")]
    NotServed {
        /// As the client wrote it.
        api_key: i16,
        /// As the client wrote it.
        api_version: i16,
    },
    /// More bytes than this API ever needs.
    #[error("{bytes} bytes for {api}, at most {bytes_max} are read")]
    TooLarge {
        /// Kafka's name of the API.
        api: &'static str,
        /// Bytes of the body.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Decoded, the request would take more memory than its size gives it a right to.
    #[error("{bytes} bytes of {api} would take {memory_bytes} bytes of memory")]
    TooCostly {
        /// Kafka's name of the API.
        api: &'static str,
        /// Bytes of the body.
        bytes: usize,
        /// What decoding would allocate, as far as it was counted.
        memory_bytes: usize,
    },
    /// The request names more things than one request may: each would cost an answer.
    #[error("{api} for {items} things at once, at most {items_max} are answered")]
    TooMany {
        /// Kafka's name of the API.
        api: &'static str,
        /// Topics, partitions or whatever the API is about.
        items: usize,
        /// The limit.
        items_max: usize,
    },
    /// The bytes do not follow the schema.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Bytes that do not follow their schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position}")]
pub struct Malformed {
    /// What is wrong.
    pub reason: &'static str,
    /// Where, in bytes from the start of what was read.
    pub position: usize,
}
