//! The `.fvecs`, `.bvecs` and `.ivecs` of the TEXMEX collections
//! (<http://corpus-texmex.irisa.fr>): a record for each vector.
//!
//! ```text
//! | d: u32, little-endian | d values: f32, u8 or i32, little-endian | the next record ...
//! ```
//!
//! Every record repeats the dimension. A file whose records differ in it is refused.

use std::io::Read;

use super::numbers::{Kind, Losses, whole};
use super::{Fault, Loss};
use crate::vectors::values::{append, room_for};
use crate::vectors::{Vectors, rows};

/// Reads a file of `length` bytes. `kind` is `U8`, `I32` or `F32`.
pub(super) fn read(
    file: &mut impl Read,
    length: u64,
    kind: Kind,
) -> Result<(Vectors, Loss), Fault> {
    let shape = Shape::of(file, length, kind.size() as u64)?;
    let Shape { rows, dim } = shape;
    match kind {
        Kind::U8 => {
            let mut values = room_for::<u8>(rows * dim)?;
            shape.each(file, |file, _| Ok(append(&mut values, file, dim)?))?;
            Ok((Vectors::from_bytes(dim, values)?, Loss::default()))
        }
        Kind::I32 => {
            let mut values = room_for::<f32>(rows * dim)?;
            let mut losses = Losses::new::<i32>(rows)?;
            let mut record: Vec<u8> = Vec::new();
            shape.each(file, |file, row| {
                record.clear();
                append(&mut record, file, 4 * dim)?;
                whole(&record, row, &mut values, &mut losses);
                Ok(())
            })?;
            let vectors = Vectors::from_floats(dim, values)?;
            let loss = losses.total(&vectors);
            Ok((vectors, loss))
        }
        _ => {
            let mut values = room_for::<f32>(rows * dim)?;
            shape.each(file, |file, _| Ok(append(&mut values, file, dim)?))?;
            refuse_whole_numbers(&values)?;
            Ok((Vectors::from_floats(dim, values)?, Loss::default()))
        }
    }
}

/// What the first record and the length of the file say.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    dim: usize,
}

impl Shape {
    /// Reads the first dimension. Values have `size` bytes.
    fn of(file: &mut impl Read, length: u64, size: u64) -> Result<Self, Fault> {
        if length < 4 {
            return Err(Fault::Malformed(format!(
                "{length} bytes; expected a 32-bit dimension"
            )));
        }
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes)?;
        // The first record says how long all must be. The 4 is for the dimension itself.
        let dim = u32::from_le_bytes(bytes);
        let record_len = 4 + u64::from(dim) * size;
        // A dimension that does not fit the length is refused here, so that a false one cannot ask
        // for too much memory.
        if dim == 0 || !length.is_multiple_of(record_len) {
            return Err(Fault::Malformed(format!(
                "{length} bytes are not whole vectors of the first one's {dim} dimensions"
            )));
        }
        let counted = (length / record_len * u64::from(dim)).try_into();
        let values: usize = counted.unwrap_or(usize::MAX);
        let dim = dim as usize;
        let rows = rows(dim, values / dim * dim)?;
        Ok(Self { rows, dim })
    }

    /// Calls `take` where the values of each record begin. The first dimension has been read.
    fn each<R: Read>(
        self,
        file: &mut R,
        mut take: impl FnMut(&mut R, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for row in 0..self.rows {
            let mut bytes = [0; 4];
            if row > 0 {
                file.read_exact(&mut bytes)?;
                // The length can be right by chance while the records are not: 2, 1 and 3
                // dimensions are as long as 2, 2 and 2.
                if u32::from_le_bytes(bytes) as usize != self.dim {
                    let dim = self.dim;
                    return Err(Fault::Malformed(format!(
                        "vector {row} has another dimension than the first one's {dim}"
                    )));
                }
            }
            take(file, row)?;
        }
        Ok(())
    }
}

/// The bits of a whole number below 2²³ are those of a float nearer to zero than any that is
/// computed with. So a file of whole numbers would be read as vectors that are all but zero.
fn refuse_whole_numbers(floats: &[f32]) -> Result<(), Fault> {
    let is_tiny = |value: &f32| *value == 0.0 || value.is_subnormal();
    if floats.iter().all(is_tiny) && floats.iter().any(|&value| value != 0.0) {
        return Err(Fault::Malformed(
            "every value is 0 or below float32's normal range, as those of a file of whole \
             numbers are; give it a name that ends in .ivecs, or write the vectors as floats"
                .to_owned(),
        ));
    }
    Ok(())
}
