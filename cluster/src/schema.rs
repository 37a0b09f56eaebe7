//! How vectors stand in Parquet: a column `id` and a column `vector`, a row for each.
//!
//! ```text
//! id: UInt64 | vector: FixedSizeBinary(d)           bytes
//! id: UInt64 | vector: FixedSizeList(d × Float32)   floats
//! ```
//!
//! Bytes are no list of `UInt8`, because decoding that takes longer than searching it.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
    UInt64Array,
};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, UInt64Type};
use datafusion::arrow::error::ArrowError;
use fashion_knn::vectors::{Storage, Vectors, VectorsError};

/// The name of the column of ids.
pub const ID: &str = "id";
/// The name of the column of vectors.
pub const VECTOR: &str = "vector";

/// What a vector consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Bytes, 0..=255.
    Byte,
    /// 32-bit floats.
    Float,
}

/// The type of the vectors of a file: their elements, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorType {
    /// What a vector consists of.
    pub element: Element,
    /// d, how many elements it has.
    pub dim: usize,
}

impl fmt::Display for VectorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let element = match self.element {
            Element::Byte => "bytes",
            Element::Float => "float32",
        };
        write!(formatter, "{} {element}", self.dim)
    }
}

impl VectorType {
    /// The type of vectors in memory.
    #[must_use]
    pub fn of(vectors: &Vectors) -> Self {
        let element = match vectors.storage() {
            Storage::Bytes(_) => Element::Byte,
            Storage::Floats(_) => Element::Float,
        };
        let dim = vectors.dim();
        Self { element, dim }
    }

    /// The type of the vectors of a file, by its schema.
    ///
    /// # Errors
    /// If it is no schema of vectors.
    pub fn of_schema(schema: &Schema) -> Result<Self, String> {
        let column = |name| {
            let field = schema.field_with_name(name);
            field.map_err(|_| format!("there is no column {name:?}"))
        };
        let id = column(ID)?.data_type();
        if *id != DataType::UInt64 {
            return Err(format!("column {ID:?} is {id}; expected UInt64"));
        }
        let (element, dim) = match column(VECTOR)?.data_type() {
            DataType::FixedSizeBinary(dim) => (Element::Byte, *dim),
            DataType::FixedSizeList(item, dim) if *item.data_type() == DataType::Float32 => {
                (Element::Float, *dim)
            }
            other => {
                return Err(format!(
                    "column {VECTOR:?} is {other}; expected FixedSizeBinary(d) for bytes or a \
                     FixedSizeList of d Float32"
                ));
            }
        };
        match usize::try_from(dim) {
            Ok(dim) if dim > 0 => Ok(Self { element, dim }),
            _ => Err(format!("vectors of {dim} dimensions")),
        }
    }

    /// The schema of a file of such vectors.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        let dim = i32::try_from(self.dim).expect("a dimension that a Parquet type can name");
        let vector = match self.element {
            Element::Byte => DataType::FixedSizeBinary(dim),
            Element::Float => DataType::FixedSizeList(item(), dim),
        };
        Arc::new(Schema::new(vec![
            Field::new(ID, DataType::UInt64, false),
            Field::new(VECTOR, vector, false),
        ]))
    }

    /// How many bytes a vector takes.
    #[must_use]
    pub fn row_bytes(self) -> usize {
        match self.element {
            Element::Byte => self.dim,
            Element::Float => self.dim * size_of::<f32>(),
        }
    }

    /// How many rows are searched at once, and stand in a row group.
    ///
    /// 32 MiB: a block is read, and its bytes held twice, in some hundredths of a second; as many
    /// rows keep the search busy for longer than what surrounds it (`cluster/README.md` has the
    /// measured figures).
    #[must_use]
    pub fn block_rows(self) -> usize {
        const BLOCK_BYTES: usize = 32 << 20;
        (BLOCK_BYTES / self.row_bytes()).max(1)
    }
}

/// The field of a list's elements.
fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

/// The rows as a batch of [`VectorType::schema`], their ids from `first` on.
///
/// # Errors
/// If they are more than an Arrow array can hold.
pub fn batch(vectors: &Vectors, first: u64) -> Result<RecordBatch, ArrowError> {
    let of = VectorType::of(vectors);
    let dim = of.dim as i32;
    let column: ArrayRef = match vectors.storage() {
        Storage::Bytes(bytes) => {
            let bytes = Buffer::from_slice_ref(&bytes[..]);
            Arc::new(FixedSizeBinaryArray::try_new(dim, bytes, None)?)
        }
        Storage::Floats(floats) => {
            let floats = Arc::new(Float32Array::from(floats.to_vec()));
            Arc::new(FixedSizeListArray::try_new(item(), dim, floats, None)?)
        }
    };
    let ids = UInt64Array::from_iter_values(first..first + vectors.len() as u64);
    RecordBatch::try_new(of.schema(), vec![Arc::new(ids), column])
}

/// Rows gathered batch by batch, to be searched together.
#[derive(Debug)]
pub struct Block {
    of: VectorType,
    ids: Vec<u64>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Block {
    /// No rows yet.
    #[must_use]
    pub fn new(of: VectorType) -> Self {
        let values = match of.element {
            Element::Byte => Values::Bytes(Vec::new()),
            Element::Float => Values::Floats(Vec::new()),
        };
        let ids = Vec::new();
        Self { of, ids, values }
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Takes the rows of a batch (`id`, `vector`) in.
    ///
    /// # Errors
    /// If an id or a vector is null, or the batch is of another type.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let (ids, vectors) = (batch.column(0), batch.column(1));
        for (name, column) in [(ID, ids), (VECTOR, vectors)] {
            if column.null_count() > 0 {
                return Err(format!(
                    "{} values of column {name:?} are null",
                    column.null_count()
                ));
            }
        }
        match &mut self.values {
            Values::Bytes(values) => {
                let rows = vectors
                    .as_fixed_size_binary_opt()
                    .ok_or("no vectors of bytes")?;
                // The data of a slice are those of the slice alone.
                values.extend(&rows.value_data()[..rows.len() * self.of.dim]);
            }
            Values::Floats(values) => {
                let rows = vectors
                    .as_fixed_size_list_opt()
                    .ok_or("no vectors of floats")?;
                let start = rows.value_offset(0) as usize;
                let flat = rows.values().slice(start, rows.len() * self.of.dim);
                if flat.null_count() > 0 {
                    return Err(format!(
                        "{} elements of vectors are null",
                        flat.null_count()
                    ));
                }
                values.extend(flat.as_primitive::<Float32Type>().values());
            }
        }
        self.ids.extend(ids.as_primitive::<UInt64Type>().values());
        Ok(())
    }

    /// The rows in the order of their ids. The block is empty afterwards.
    ///
    /// An index breaks ties by row number: in this order that is by id.
    ///
    /// # Errors
    /// If a vector is not finite.
    pub fn take(&mut self) -> Result<Rows, String> {
        let ids = std::mem::take(&mut self.ids);
        let dim = self.of.dim;
        let vectors = match &mut self.values {
            Values::Bytes(values) => Vectors::from_bytes(dim, std::mem::take(values)),
            Values::Floats(values) => Vectors::from_floats(dim, std::mem::take(values)),
        };
        let vectors = vectors.map_err(|error| match error {
            VectorsError::NotFinite { row, column, value } => {
                format!(
                    "the vector of id {} has {value} in column {column}",
                    ids[row]
                )
            }
            other => other.to_string(),
        })?;
        if ids.is_sorted() {
            return Ok(Rows { ids, vectors });
        }
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|&row| ids[row]);
        let vectors = vectors.select(&order).map_err(|error| error.to_string())?;
        let ids = order.into_iter().map(|row| ids[row]).collect();
        Ok(Rows { ids, vectors })
    }
}

/// Vectors and their ids, ascending.
#[derive(Debug)]
pub struct Rows {
    /// An id for each vector.
    pub ids: Vec<u64>,
    /// The vectors.
    pub vectors: Vectors,
}
