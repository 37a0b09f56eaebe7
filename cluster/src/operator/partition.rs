//! The search of one partition of the base.

use std::any::Any;
use std::fmt::Display;
use std::hash::Hasher;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use fashion_knn::neighbor::Candidate;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use twox_hash::XxHash64;

use super::kept::{self, Shard};
use super::lasting;
use super::nearest::{Near, Nearest};
use super::spec::Spec;
use crate::schema::{Block, Rows, VectorType};

/// How many partitions a process searches at once.
static AT_ONCE: OnceLock<Semaphore> = OnceLock::new();

/// Limits how many partitions this process searches at once, and so how many blocks are in its
/// memory. The engine starts all partitions of a plan together.
///
/// The first call counts; without one it is as many as there are processors.
pub fn search_at_once(partitions: usize) {
    AT_ONCE.get_or_init(|| Semaphore::new(partitions));
}

fn at_once() -> &'static Semaphore {
    AT_ONCE
        .get_or_init(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)))
}

/// All queries of a job.
#[derive(Debug)]
pub struct Queries(Rows);

impl Queries {
    /// Reads them.
    pub(super) async fn read(
        plan: &Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Arc<Self>> {
        let mut block = Block::new(super::vector_type(plan)?);
        let names = names(&files(plan, 0)?);
        let mut batches = plan.execute(0, context)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| execution(&names, message(&error)))?;
            block
                .push(&batch)
                .map_err(|why| execution(&names, message(&lasting(why))))?;
        }
        let rows = block
            .take()
            .map_err(|why| execution(&names, message(&lasting(why))))?;
        Ok(Arc::new(Self(rows)))
    }
}

/// An error in a file: whoever reads it has to find the file.
fn execution(names: &str, why: impl Display) -> DataFusionError {
    DataFusionError::Execution(format!("{names}: {why}"))
}

/// What an error says, without what the layers above have put before it.
fn message(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::Execution(why) => why.clone(),
        other => other.to_string(),
    }
}

/// One partition of the base, before it is searched.
pub(super) struct Partition {
    of: VectorType,
    files: Vec<PartitionedFile>,
    batches: SendableRecordBatchStream,
    spec: Spec,
    times: Times,
}

/// How long a partition was read, its index built, and searched.
#[derive(Debug, Clone)]
pub(super) struct Times {
    pub(super) read: Time,
    pub(super) build: Time,
    pub(super) search: Time,
}

impl Partition {
    pub(super) fn new(
        base: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
        spec: Spec,
        times: Times,
    ) -> Result<Self> {
        Ok(Self {
            of: super::vector_type(base)?,
            files: files(base, partition)?,
            batches: base.execute(partition, context)?,
            spec,
            times,
        })
    }

    /// The next rows of the base.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let _timer = self.times.read.timer();
        self.batches.try_next().await
    }

    /// The nearest rows of each query, as batches of [`KnnExec::output`](super::KnnExec::output).
    pub(super) async fn candidates(
        self,
        queries: Arc<Queries>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let _turn = at_once().acquire().await.expect("it is never closed");
        let names = names(&self.files);
        let found = self.search(Arc::clone(&queries)).await;
        let found = found.map_err(|error| execution(&names, message(&error)))?;
        let batches = found.batches(&queries.0.ids)?;
        Ok(stream::iter(batches.into_iter().map(Ok)).boxed())
    }

    async fn search(mut self, queries: Arc<Queries>) -> Result<Nearest> {
        if self.spec.index.is_scan() {
            return self.scan(queries).await;
        }
        let name = kept::name(&self.files, &self.spec.index);
        let shard = match kept::get(&name) {
            Some(shard) => shard,
            None => {
                let mut block = Block::new(self.of);
                while let Some(batch) = self.next_batch().await? {
                    block.push(&batch).map_err(lasting)?;
                }
                let (index, time) = (self.spec.index.clone(), self.times.build.clone());
                let build = move || {
                    let _timer = time.timer();
                    kept::get_or_build(name, block, &index)
                };
                apart(build).await?
            }
        };
        let token = token(self.files.iter().map(path), shard.rows());
        let (spec, time) = (self.spec, self.times.search);
        let search = move || {
            let _timer = time.timer();
            nearest_in(&shard, &queries, &spec, token)
        };
        apart(search).await
    }

    /// Brute force, block by block: it needs the memory of a block, however many rows there are.
    async fn scan(mut self, queries: Arc<Queries>) -> Result<Nearest> {
        let mut nearest = Nearest::none(queries.0.ids.len(), self.spec.k);
        let mut block = Block::new(self.of);
        let mut rows = 0;
        loop {
            let batch = self.next_batch().await?;
            let ended = batch.is_none();
            if let Some(batch) = batch {
                rows += batch.num_rows() as u64;
                block.push(&batch).map_err(lasting)?;
            }
            if block.len() >= self.of.block_rows() || (ended && !block.is_empty()) {
                let (queries, full) = (Arc::clone(&queries), block);
                let time = self.times.search.clone();
                let search = move || {
                    let _timer = time.timer();
                    nearest.with_block(full, &queries.0.vectors)
                };
                nearest = apart(search).await?;
                block = Block::new(self.of);
            }
            if ended {
                nearest.token = token(self.files.iter().map(path), rows);
                return Ok(nearest);
            }
        }
    }
}

/// Runs what computes for long on a thread of its own, so that the engine can go on with its
/// messages.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => exec_err!("the search has stopped: {error}"),
    }
}

/// The nearest rows of a partition by an index that is kept.
fn nearest_in(shard: &Shard, queries: &Queries, spec: &Spec, token: u64) -> Result<Nearest> {
    let Some(index) = shard.index(&spec.index)? else {
        let none = Nearest::none(queries.0.ids.len(), spec.k);
        return Ok(Nearest { token, ..none });
    };
    let rows = index.search_batch(&queries.0.vectors, spec.k).into_iter();
    let near = |candidate: Candidate| Near {
        reduced: candidate.reduced,
        id: shard.ids()[candidate.id as usize],
    };
    let rows = rows
        .map(|row| row.into_iter().map(near).collect())
        .collect();
    Ok(Nearest {
        k: spec.k,
        rows,
        token,
    })
}

/// The files that a partition of a scan consists of.
fn files(plan: &Arc<dyn ExecutionPlan>, partition: usize) -> Result<Vec<PartitionedFile>> {
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
        let source: &dyn Any = scan.data_source().as_ref();
        if let Some(scan) = source.downcast_ref::<FileScanConfig>()
            && let Some(group) = scan.file_groups.get(partition)
        {
            return Ok(group.iter().cloned().collect());
        }
    }
    // The engine has put something between the scan and us: what it reads can still be told.
    match plan.children()[..] {
        [child] => {
            let parts = child.output_partitioning().partition_count();
            let own = plan.output_partitioning().partition_count();
            if parts == own {
                return files(child, partition);
            }
            let all: Result<Vec<_>> = (0..parts).map(|part| files(child, part)).collect();
            Ok(all?.into_iter().flatten().collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn names(files: &[PartitionedFile]) -> String {
    let names: Vec<&str> = files.iter().map(path).collect();
    names.join(", ")
}

fn path(file: &PartitionedFile) -> &str {
    file.object_meta.location.as_ref()
}

/// What names a partition and the number of rows that were read of it: 48 bits, so that the sum
/// over 65,536 partitions fits into 64.
///
/// The client adds the tokens that it expects. An answer in which a partition is twice, and another
/// of as many rows is missing, has another sum.
pub fn token<'f>(files: impl Iterator<Item = &'f str>, rows: u64) -> u64 {
    let mut hash = XxHash64::with_seed(rows);
    for file in files {
        hash.write(file.as_bytes());
        // No path has a zero byte: "a", "bc" and "ab", "c" are not the same.
        hash.write_u8(0);
    }
    hash.finish() >> 16
}
