//! Mergeable sketches: percentiles and distinct counts that coarser tables add up.
//!
//! Gold columns that end in `_sketch` hold their bytes. A percentile of percentiles is no
//! percentile and a sum of distinct counts no distinct count; a merged sketch is both.
//!
//! Invariant: a sketch is a function of the set of what went in. The bytes of a merged sketch are
//! those of the sketch of the union, whatever the order; so the same input gives the same table.
//! Invariant: `from_bytes` survives any bytes; what it returns is consistent in itself.

mod distinct;
mod quantile;

pub use distinct::DistinctSketch;
pub use quantile::QuantileSketch;

/// Why bytes are no sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    #[error("sketch of version {found}, this program reads version {read}; compute the window again")]
    Version { found: u8, read: u8 },
    #[error("damaged sketch ({0}); compute the window again")]
    Damaged(&'static str),
}

/// Splits off the version and reads the rest, to its last byte.
fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8], read: u8) -> Result<T, SketchError> {
    let (&found, body) = bytes.split_first().ok_or(SketchError::Damaged("no bytes"))?;
    if found != read {
        return Err(SketchError::Version { found, read });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(SketchError::Damaged("bytes after its end")),
        Err(_) => Err(SketchError::Damaged("cut short or garbled")),
    }
}

/// The version, then `value`.
fn encode<T: serde::Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("a vector takes every byte and no length is unknown")
}
