//! Writing shards and answers: whole or not at all.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Float64Array, RecordBatch, UInt32Array, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder,
};
use datafusion::parquet::schema::types::ColumnPath;
use fashion_knn::files::write_atomically;
use fashion_knn::vectors::Vectors;

use crate::answer::Line;
use crate::error::Error;
use crate::schema::{self, ID, VectorType};
use crate::shards::{SHARD_KEY, SHARDS_KEY, shard_name};

/// Where the rows of shards come from.
pub trait Source {
    /// How many rows there are.
    fn rows(&self) -> u64;

    /// Some of the rows.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&mut self, rows: Range<u64>) -> Result<Vectors, Error>;
}

/// Writes the rows as `shards` files into a new folder, their ids from `first` on; tells `written`
/// of each file. The folder is there when all are in it, or not at all.
///
/// # Errors
/// If the folder is there and not empty, or cannot be made; if rows cannot be read.
pub fn write_shards(
    folder: &Path,
    source: &mut dyn Source,
    shards: usize,
    first: u64,
    mut written: impl FnMut(usize),
) -> Result<(), Error> {
    let fault = |why: String| Error::file(folder.display(), why);
    if shards == 0 || source.rows() < shards as u64 {
        let rows = source.rows();
        return Err(fault(format!("{rows} rows do not make {shards} shards")));
    }
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(fault("the folder is not empty".to_owned()));
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut unfinished = tempfile::Builder::new();
    unfinished.prefix(".knn-cluster-").suffix(".unfinished");
    let parts = fs::create_dir_all(parent).and_then(|()| unfinished.tempdir_in(parent));
    let parts = parts.map_err(|error| fault(error.to_string()))?;
    let rows = source.rows();
    // Sizes that differ by one row at most.
    let start = |shard: usize| (rows as u128 * shard as u128 / shards as u128) as u64;
    for shard in 0..shards {
        let range = start(shard)..start(shard + 1);
        let vectors = source.read(range.clone())?;
        let bytes = encode_shard(&vectors, first + range.start, shard, shards)
            .map_err(|error| fault(error.to_string()))?;
        let path = parts.path().join(shard_name(shard));
        write_atomically(&path, &bytes).map_err(|error| Error::file(path.display(), error))?;
        written(shard);
    }
    put_in_place(parts, folder).map_err(|error| fault(error.to_string()))
}

/// Renames the finished folder.
fn put_in_place(parts: tempfile::TempDir, folder: &Path) -> std::io::Result<()> {
    // A temporary folder is its owner's alone; what it becomes is to be read by all.
    #[cfg(unix)]
    fs::set_permissions(
        parts.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    fs::rename(parts.path(), folder)?;
    // It is no longer there to be removed.
    let _ = parts.keep();
    Ok(())
}

/// A shard as a Parquet file.
fn encode_shard(
    vectors: &Vectors,
    first: u64,
    shard: usize,
    shards: usize,
) -> Result<Vec<u8>, ParquetError> {
    let of = VectorType::of(vectors);
    let properties = properties([
        (SHARD_KEY, shard.to_string()),
        (SHARDS_KEY, shards.to_string()),
    ])
    .set_max_row_group_row_count(Some(of.block_rows()))
    // Of ids the smallest and the largest are of use, of vectors they are not.
    .set_statistics_enabled(EnabledStatistics::None)
    .set_column_statistics_enabled(ColumnPath::from(ID), EnabledStatistics::Chunk);
    encode(&schema::batch(vectors, first)?, properties)
}

/// The properties of all our files. Vectors hardly repeat: a dictionary of them costs time and
/// saves nothing.
fn properties<const N: usize>(entries: [(&str, String); N]) -> WriterPropertiesBuilder {
    let entry = |(key, value): (&str, String)| KeyValue::new(key.to_owned(), value);
    WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(entries.map(entry).to_vec()))
}

fn encode(
    batch: &RecordBatch,
    properties: WriterPropertiesBuilder,
) -> Result<Vec<u8>, ParquetError> {
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties.build()))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(file)
}

/// Writes an answer as a Parquet file: `query_id`, `rank`, `id`, `distance`. What was there under
/// its name is replaced when all of it is written.
///
/// # Errors
/// If it cannot be written.
pub fn write_answer(path: &Path, lines: &[Line]) -> Result<(), Error> {
    let fault = |why: String| Error::file(path.display(), why);
    let schema = Arc::new(Schema::new(vec![
        Field::new("query_id", DataType::UInt64, false),
        Field::new("rank", DataType::UInt32, false),
        Field::new("id", DataType::UInt64, false),
        Field::new("distance", DataType::Float64, false),
    ]));
    let query = UInt64Array::from_iter_values(lines.iter().map(|line| line.query));
    let rank = UInt32Array::from_iter_values(lines.iter().map(|line| line.rank));
    let id = UInt64Array::from_iter_values(lines.iter().map(|line| line.id));
    let distance = Float64Array::from_iter_values(lines.iter().map(|line| line.distance));
    let columns = vec![
        Arc::new(query) as _,
        Arc::new(rank) as _,
        Arc::new(id) as _,
        Arc::new(distance) as _,
    ];
    let batch = RecordBatch::try_new(schema, columns).map_err(|error| fault(error.to_string()))?;
    let bytes = encode(&batch, properties([])).map_err(|error| fault(error.to_string()))?;
    write_atomically(path, &bytes).map_err(|error| fault(error.to_string()))
}
