//! The `.fbin`, `.u8bin` and `.i8bin` of the big-ann benchmarks
//! (<https://big-ann-benchmarks.com>): a header of two numbers, and the values.
//!
//! ```text
//! | n: u32 | d: u32 | n · d values: f32, u8 or i8 |      all little-endian
//! ```

use std::io::Read;

use super::Fault;
use super::numbers::{Kind, Table};

/// Bytes of the header.
pub(super) const HEADER: u64 = 8;

/// Reads the header of a file of `length` bytes, and compares it with them.
pub(super) fn header(file: &mut impl Read, length: u64, kind: Kind) -> Result<Table, Fault> {
    let Some(follow) = length.checked_sub(HEADER) else {
        return Err(Fault::Malformed(format!(
            "{length} bytes; expected the number of vectors and their dimension, of 32 bits each"
        )));
    };
    let mut header = [[0; 4]; 2];
    file.read_exact(header.as_flattened_mut())?;
    let [rows, dim] = header.map(|bytes| u32::from_le_bytes(bytes) as usize);
    let table = Table {
        kind,
        big_endian: false,
        by_columns: false,
        rows,
        dim,
    };
    table.check(follow)?;
    Ok(table)
}
