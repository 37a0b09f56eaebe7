//! A data set of an HDF5 file, as those of ann-benchmarks (<https://ann-benchmarks.com>): `train`
//! is the base, `test` the queries.
//!
//! The crate `hdf5-reader` reads the format. Here a data set is taken in slabs of rows, each as the
//! bytes that the file has for it.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use hdf5_reader::error::{Error, Result as Answer};
use hdf5_reader::{
    ByteOrder, Dataset, Datatype, H5Type, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem,
};

use super::numbers::{Kind, Table};
use super::{Fault, Loss, MOST_OF_ONE};
use crate::vectors::Vectors;
use crate::vectors::values::PIECE;

/// Most bytes of a chunk. h5py makes them of one MiB where it is not told otherwise.
const CHUNK: u64 = 256 << 20;

/// Reads the data set of that name, or the only one.
pub(super) fn read(
    path: &Path,
    length: u64,
    member: Option<&str>,
) -> Result<(Vectors, Loss), Fault> {
    // A chunk that is greater than the file could make it is refused before it is unpacked.
    let most = length.saturating_mul(MOST_OF_ONE).min(CHUNK) as usize;
    let options = OpenOptions::default()
        .with_max_chunk_bytes(most)
        .with_max_object_header_bytes(length.min(CHUNK) as usize);
    let file = Hdf5File::open_with_options(path, options)?;
    let dataset = find(&file, member)?;
    let (kind, big_endian) = kind(dataset.dtype())?;
    let &[rows, dim] = dataset.shape() else {
        let shape = dataset.shape();
        return Err(malformed(&format!("the shape is {shape:?}")));
    };
    let table = Table {
        kind,
        big_endian,
        by_columns: false,
        rows: usize::try_from(rows).unwrap_or(usize::MAX),
        dim: usize::try_from(dim).unwrap_or(usize::MAX),
    };
    check(&dataset, &table, length)?;
    match kind.size() {
        1 => table.read(&mut Slabs::<1>::new(&dataset, &table)),
        2 => table.read(&mut Slabs::<2>::new(&dataset, &table)),
        4 => table.read(&mut Slabs::<4>::new(&dataset, &table)),
        _ => table.read(&mut Slabs::<8>::new(&dataset, &table)),
    }
}

/// Which data set is meant.
fn find(file: &Hdf5File, member: Option<&str>) -> Result<Dataset, Fault> {
    if let Some(name) = member {
        match file.dataset(name) {
            Ok(dataset) => return Ok(dataset),
            Err(error) if name.is_empty() => return Err(error.into()),
            Err(_) => {}
        }
    }
    let (_, names) = file.root_group()?.member_names()?;
    match (member, &names[..]) {
        (None, [only]) => Ok(file.dataset(only)?),
        // Enough of them to know which file this is.
        (_, names) => {
            let (count, some) = (names.len(), names[..names.len().min(20)].join(", "));
            Err(Fault::Malformed(match member {
                Some(name) => format!("no data set {name:?} among its {count}: {some}"),
                None => format!(
                    "{count} data sets; expected one, or its name, as FILE.hdf5:NAME: {some}"
                ),
            }))
        }
    }
}

/// The type of the numbers, and whether their highest byte comes first.
fn kind(datatype: &Datatype) -> Result<(Kind, bool), Fault> {
    let is_big = |order: &ByteOrder| matches!(order, ByteOrder::BigEndian);
    Ok(match datatype {
        Datatype::FixedPoint {
            size,
            signed,
            byte_order,
        } => {
            let kind = match (size, signed) {
                (1, false) => Kind::U8,
                (1, true) => Kind::I8,
                (2, false) => Kind::U16,
                (2, true) => Kind::I16,
                (4, false) => Kind::U32,
                (4, true) => Kind::I32,
                (8, false) => Kind::U64,
                (8, true) => Kind::I64,
                _ => return Err(malformed(&format!("the values are {datatype:?}"))),
            };
            (kind, is_big(byte_order))
        }
        Datatype::FloatingPoint { size, byte_order } => {
            let kind = match size {
                2 => Kind::F16,
                4 => Kind::F32,
                8 => Kind::F64,
                _ => return Err(malformed(&format!("the values are {datatype:?}"))),
            };
            (kind, is_big(byte_order))
        }
        // As h5py writes truth values: names for the numbers 0 and 1.
        Datatype::Enum { base, members } if members.len() == 2 => match **base {
            Datatype::FixedPoint { size: 1, .. } => (Kind::Bool, false),
            _ => return Err(malformed("the values are names")),
        },
        _ => return Err(malformed("the values are no plain numbers")),
    })
}

/// Compares what the data set promises with what the file has, before memory is taken for it.
fn check(dataset: &Dataset, table: &Table, length: u64) -> Result<(), Fault> {
    let bytes = table.bytes();
    let Some(chunks) = dataset.chunks() else {
        if bytes > u128::from(length) {
            return Err(Fault::Malformed(format!(
                "the header promises {bytes} bytes of values in a file of {length}"
            )));
        }
        return Ok(());
    };
    if bytes > u128::from(length) * u128::from(MOST_OF_ONE) {
        return Err(Fault::Malformed(format!(
            "the header promises {bytes} bytes of values out of a file of {length}"
        )));
    }
    if chunks.len() != 2 {
        return Err(malformed("the chunks have another shape"));
    }
    // Each chunk is unpacked, one after the other, and its values are counted. What was never
    // written would be read as zeros.
    let mut count = 0u128;
    for chunk in dataset.iter_chunks()? {
        let chunk = chunk?;
        let inside = |axis: usize, whole: u64| {
            let end = chunk.offsets()[axis].saturating_add(chunk.shape()[axis]);
            u128::from(end.min(whole).saturating_sub(chunk.offsets()[axis]))
        };
        count += inside(0, table.rows as u64) * inside(1, table.dim as u64);
    }
    let all = table.rows as u128 * table.dim as u128;
    if count != all {
        return Err(Fault::Malformed(format!(
            "{count} of the {all} values were written"
        )));
    }
    Ok(())
}

/// A number, as the bytes that the file has for it.
#[derive(Clone, Copy)]
struct Bytes<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> H5Type for Bytes<SIZE> {
    fn hdf5_type() -> Datatype {
        let byte_order = ByteOrder::LittleEndian;
        Datatype::Bitfield {
            size: SIZE as u8,
            byte_order,
        }
    }

    fn from_bytes(bytes: &[u8], _: &Datatype) -> Answer<Self> {
        let bytes = bytes.first_chunk();
        let short = || Error::InvalidData(format!("a number of fewer than {SIZE} bytes"));
        bytes.copied().map(Self).ok_or_else(short)
    }

    fn element_size(_: &Datatype) -> usize {
        SIZE
    }
}

/// The bytes of a data set, of which some rows at a time are in memory.
struct Slabs<'a, const SIZE: usize> {
    dataset: &'a Dataset,
    rows: u64,
    /// Rows of a slab.
    step: u64,
    /// The row after those that are in memory.
    next: u64,
    slab: Vec<u8>,
    /// Bytes of the slab that have been taken.
    taken: usize,
}

impl<'a, const SIZE: usize> Slabs<'a, SIZE> {
    fn new(dataset: &'a Dataset, table: &Table) -> Self {
        let fit = PIECE / table.dim.saturating_mul(SIZE).max(1);
        // Whole chunks, or a chunk would be unpacked several times.
        let chunk = dataset.chunks().and_then(|shape| shape.first().copied());
        let chunk = u64::from(chunk.unwrap_or(1)).max(1);
        Self {
            dataset,
            rows: table.rows as u64,
            step: (fit as u64).next_multiple_of(chunk).max(chunk),
            next: 0,
            slab: Vec::new(),
            taken: 0,
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        let end = self.next.saturating_add(self.step).min(self.rows);
        let rows = SliceInfoElem::Slice {
            start: self.next,
            end,
            step: 1,
        };
        let all = SliceInfo::all(1).selections.remove(0);
        let selections = vec![rows, all];
        let numbers = self
            .dataset
            .read_slice::<Bytes<SIZE>>(&SliceInfo { selections })?;
        self.slab.clear();
        self.slab.extend(numbers.iter().flat_map(|number| number.0));
        (self.taken, self.next) = (0, end);
        Ok(())
    }
}

impl<const SIZE: usize> Read for Slabs<'_, SIZE> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.slab.len() && self.next < self.rows {
            self.fill().map_err(io::Error::other)?;
        }
        let count = (&self.slab[self.taken..]).read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

fn malformed(why: &str) -> Fault {
    Fault::Malformed(format!(
        "{why}; expected an n × d data set of integers, float16, float32 or float64"
    ))
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let why: &dyn fmt::Display = &error;
        Self::Malformed(format!("no HDF5 file that can be read: {why}"))
    }
}
