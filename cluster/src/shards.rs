//! The Parquet files of a base, or of queries: listed, and checked by their footers before a job
//! begins.
//!
//! A footer says of what type the vectors are, how many rows there are, and between which ids. What
//! `knn-cluster shard` writes says besides how many shards belong together, so that a missing one
//! is found.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as EngineResult;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::statistics::Statistics;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Error;
use crate::schema::{ID, VectorType};

/// The entry of a footer that says how many shards belong together: "8".
pub const SHARDS_KEY: &str = "knn_cluster.shards";
/// The entry of a footer that says which of them it is, from 0: "3".
pub const SHARD_KEY: &str = "knn_cluster.shard";

/// How many footers are read at once: an object store answers each in some tens of milliseconds.
const FOOTERS_AT_ONCE: usize = 32;

/// The files of a base or of queries.
#[derive(Debug, Clone)]
pub struct Shards {
    store: ObjectStoreUrl,
    /// The type of the vectors, the same in all files.
    pub of: VectorType,
    /// The files, by name.
    pub files: Vec<ShardFile>,
}

/// A file, and what its footer says.
#[derive(Debug, Clone)]
pub struct ShardFile {
    /// Where it is, how long, and of when.
    pub meta: ObjectMeta,
    /// How many rows it has.
    pub rows: u64,
    /// The smallest and the largest id, where the footer says them.
    pub ids: Option<(u64, u64)>,
    of: VectorType,
    part: Option<Part>,
}

/// The place of a file among those that `shard` wrote together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    number: usize,
    of: usize,
}

impl Shards {
    /// Lists a folder, or takes a file, and reads the footers. `address` is a path or the address
    /// of an object store (`s3://bucket/folder/`).
    ///
    /// # Errors
    /// If there are no such files, one of them cannot be read or is of another type than the first,
    /// or one is missing.
    pub async fn open(address: &str, state: &SessionState) -> Result<Self, Error> {
        let fault = |why: String| Error::file(address, why);
        let url = ListingTableUrl::parse(address).map_err(|error| fault(error.to_string()))?;
        let store = state.runtime_env().object_store(&url);
        let store = store.map_err(|error| fault(error.to_string()))?;
        let listed = url.list_all_files(state, &store, ".parquet").await;
        let metas: Result<Vec<ObjectMeta>, _> = match listed {
            Ok(files) => files.try_collect().await,
            Err(error) => Err(error),
        };
        let mut metas = metas.map_err(|error| fault(error.find_root().to_string()))?;
        metas.sort_by(|a, b| a.location.cmp(&b.location));
        let footers = metas
            .into_iter()
            .map(|meta| footer(Arc::clone(&store), meta));
        let files: Vec<ShardFile> = stream::iter(footers)
            .buffered(FOOTERS_AT_ONCE)
            .try_collect()
            .await?;
        let Some(first) = files.first() else {
            return Err(fault("there is no .parquet file".to_owned()));
        };
        let of = first.of;
        check_types(&files)?;
        check_parts(&files)?;
        let store = url.object_store();
        Ok(Self { store, of, files })
    }

    /// How many rows they have together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Whether the footers show that no id is in two files. Within a file one may still stand
    /// twice.
    #[must_use]
    pub fn ids_are_apart(&self) -> bool {
        let filled = self.files.iter().filter(|file| file.rows > 0);
        let Some(mut ranges) = filled.map(|file| file.ids).collect::<Option<Vec<_>>>() else {
            return false;
        };
        ranges.sort_unstable();
        ranges.windows(2).all(|pair| pair[0].1 < pair[1].0)
    }

    /// A scan of the files, each a partition of its own, or all in one.
    #[must_use]
    pub fn scan(&self, columns: Option<Vec<usize>>, grouping: Grouping) -> Arc<dyn ExecutionPlan> {
        let files = self
            .files
            .iter()
            .map(|file| PartitionedFile::from(file.meta.clone()));
        let groups = match grouping {
            Grouping::Apart => files.map(|file| FileGroup::new(vec![file])).collect(),
            Grouping::Together => vec![FileGroup::new(files.collect())],
        };
        let source = Arc::new(ParquetSource::new(self.of.schema()));
        let scan = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_projection_indices(columns)
            .expect("columns of the schema")
            .build();
        DataSourceExec::from_data_source(scan)
    }
}

/// Whether each file is a partition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// A partition for each file.
    Apart,
    /// One partition.
    Together,
}

/// Reads the footer of a file.
async fn footer(store: Arc<dyn ObjectStore>, meta: ObjectMeta) -> Result<ShardFile, Error> {
    let path = meta.location.clone();
    let fault = |why: String| Error::file(&path, why);
    let footer = DFParquetMetadata::new(store.as_ref(), &meta)
        .fetch_metadata()
        .await;
    let footer = footer.map_err(|error| fault(error.find_root().to_string()))?;
    let footer = ArrowReaderMetadata::try_new(footer, ArrowReaderOptions::new());
    let footer = footer.map_err(|error| fault(error.to_string()))?;
    let of = VectorType::of_schema(footer.schema()).map_err(fault)?;
    let parquet = footer.metadata();
    let rows = u64::try_from(parquet.file_metadata().num_rows()).unwrap_or_default();
    let (ids, part) = (id_range(parquet), part(parquet));
    Ok(ShardFile {
        meta,
        rows,
        ids,
        of,
        part,
    })
}

/// The smallest and the largest id, if every row group says its own.
fn id_range(footer: &ParquetMetaData) -> Option<(u64, u64)> {
    let mut range: Option<(u64, u64)> = None;
    for group in footer.row_groups() {
        let is_id = |name: &str| name == ID;
        let column = group
            .columns()
            .iter()
            .find(|c| is_id(&c.column_path().string()))?;
        let Some(Statistics::Int64(statistics)) = column.statistics() else {
            return None;
        };
        // Parquet keeps unsigned integers as signed ones with the same bits.
        let (low, high) = (*statistics.min_opt()? as u64, *statistics.max_opt()? as u64);
        range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
    }
    range
}

fn part(footer: &ParquetMetaData) -> Option<Part> {
    let entries = footer.file_metadata().key_value_metadata()?;
    let number = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key)?;
        entry.value.as_ref()?.parse().ok()
    };
    Some(Part {
        number: number(SHARD_KEY)?,
        of: number(SHARDS_KEY)?,
    })
}

/// All files hold vectors of the type of the first.
fn check_types(files: &[ShardFile]) -> Result<(), Error> {
    let Some(other) = files.iter().find(|file| file.of != files[0].of) else {
        return Ok(());
    };
    let why = format!(
        "vectors of {}; those of {} are of {}",
        other.of, files[0].meta.location, files[0].of
    );
    Err(Error::file(&other.meta.location, why))
}

/// Files that say that they belong together are all there, each once.
fn check_parts(files: &[ShardFile]) -> Result<(), Error> {
    let Some((first, part)) = files.iter().find_map(|file| Some((file, file.part?))) else {
        return Ok(());
    };
    let mut found = vec![None; part.of];
    for file in files {
        let fault = |why: String| Err(Error::file(&file.meta.location, why));
        match file.part {
            Some(Part { number, of }) if of == part.of && number < of => {
                let before = found[number].replace(&file.meta.location);
                if let Some(before) = before {
                    return fault(format!("{before} is shard {number} too"));
                }
            }
            _ => {
                let first = &first.meta.location;
                return fault(format!(
                    "not one of the {} shards that {first} is of",
                    part.of
                ));
            }
        }
    }
    let Some(missing) = found.iter().position(Option::is_none) else {
        return Ok(());
    };
    let why = format!(
        "shard {missing} of {} is missing ({})",
        part.of,
        shard_name(missing)
    );
    Err(Error::file(folder(first), why))
}

fn folder(file: &ShardFile) -> &str {
    let path = file.meta.location.as_ref();
    path.rsplit_once('/').map_or(path, |(folder, _)| folder)
}

/// The name of the file of a shard.
#[must_use]
pub fn shard_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// The shards as a table of SQL.
#[async_trait]
impl TableProvider for Shards {
    fn schema(&self) -> SchemaRef {
        self.of.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(self.scan(projection.cloned(), Grouping::Apart))
    }
}
