//! The indexes that a process keeps: built once for each shard, the least used dropped first.

use std::sync::{Arc, OnceLock};

use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use fashion_knn::index::Index;
use fashion_knn::index::registry::{Built, Settings};
use moka::sync::Cache;

use super::lasting;
use super::spec::IndexSpec;
use crate::schema::{Block, Rows};

/// How much memory the kept indexes may take where nothing else is said: 2 GiB.
pub const DEFAULT_BYTES: u64 = 2 << 30;

static KEPT: OnceLock<Cache<String, Arc<Shard>>> = OnceLock::new();

/// Limits the memory of the kept indexes. The first call counts.
pub fn keep_at_most(bytes: u64) {
    KEPT.get_or_init(|| cache(bytes));
}

fn cache(bytes: u64) -> Cache<String, Arc<Shard>> {
    // The cache counts in 32 bits: in KiB that is 4 TiB for one index.
    let kibibytes = |_: &String, shard: &Arc<Shard>| {
        u32::try_from(shard.bytes / 1024).unwrap_or(u32::MAX).max(1)
    };
    Cache::builder()
        .weigher(kibibytes)
        .max_capacity(bytes / 1024)
        .build()
}

fn kept() -> &'static Cache<String, Arc<Shard>> {
    KEPT.get_or_init(|| cache(DEFAULT_BYTES))
}

/// An index over the rows of a partition.
pub struct Shard {
    ids: Vec<u64>,
    bytes: usize,
    /// `None` where the partition has no rows.
    built: Option<Built>,
}

impl Shard {
    fn build(mut block: Block, index: &IndexSpec) -> Result<Self, String> {
        if block.is_empty() {
            return Ok(Self {
                ids: Vec::new(),
                bytes: 0,
                built: None,
            });
        }
        let Rows { ids, vectors } = block.take()?;
        let built = (index.entry().build)(Arc::new(vectors), &index.build());
        let built = built.map_err(|error| format!("{index}: {error}"))?;
        let default = built(&Settings::default()).map_err(|error| error.to_string())?;
        let bytes = default.memory_bytes() + size_of_val(&ids[..]);
        Ok(Self {
            ids,
            bytes,
            built: Some(built),
        })
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The id of each row.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// The index, searched with these settings; `None` where there are no rows.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn index(&self, index: &IndexSpec) -> Result<Option<Box<dyn Index>>> {
        let Some(built) = &self.built else {
            return Ok(None);
        };
        let searched = built(&index.search());
        searched
            .map(Some)
            .map_err(|error| lasting(format_args!("{index}: {error}")))
    }
}

/// What names an index: its files as they are (a file that was written again has another date or
/// length), and how it is built.
pub fn name(files: &[PartitionedFile], index: &IndexSpec) -> String {
    let file = |file: &PartitionedFile| format!("{:?} {:?}\n", file.object_meta, file.range);
    let files: String = files.iter().map(file).collect();
    files + &index.build_name()
}

/// The index of that name, if it is kept.
pub fn get(name: &str) -> Option<Arc<Shard>> {
    kept().get(name)
}

/// The index of that name. Where it is not kept it is built, once, however many ask at a time.
pub fn get_or_build(name: String, block: Block, index: &IndexSpec) -> Result<Arc<Shard>> {
    let build = || Shard::build(block, index).map(Arc::new);
    kept().try_get_with(name, build).map_err(lasting)
}
