//! [`KnnExec`]: for each query, the k nearest rows of each partition of the base.
//!
//! It is an interior node over DataFusion's own scans: Ballista gives a task its share of a scan
//! that it knows, and would let every task run all of a leaf that it does not.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::TryStreamExt;
use tokio::sync::OnceCell;

pub mod codec;
pub mod kept;
mod nearest;
pub mod partition;
pub mod spec;

use self::partition::{Partition, Queries, Times};
use self::spec::Spec;
use crate::schema::VectorType;

/// The name of the metric: how long partitions were read.
pub const READ_TIME: &str = "read_time";
/// The name of the metric: how long indexes were built that are kept.
pub const BUILD_TIME: &str = "build_time";
/// The name of the metric: how long was searched (for a scan, its blocks' preparation included).
pub const SEARCH_TIME: &str = "search_time";

/// What the message of a fault has in it that will be the same in every attempt: another type, a
/// value that is not finite. It has to be text: through a scheduler nothing else arrives.
pub const LASTING: &str = "no attempt can succeed";

/// Such a fault.
fn lasting(why: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("{why} ({LASTING})"))
}

/// The k nearest rows of each partition of the base, for each query.
///
/// Its inputs are the base (`id`, `vector`), whose partitions it keeps, and the queries, all of
/// them in one partition. Its rows are *candidates* ([`KnnExec::output`]).
#[derive(Debug)]
pub struct KnnExec {
    base: Arc<dyn ExecutionPlan>,
    queries: Arc<dyn ExecutionPlan>,
    spec: Spec,
    /// Read once, by the partition that comes first.
    loaded: Arc<OnceCell<Arc<Queries>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl KnnExec {
    /// The search that `spec` describes.
    ///
    /// # Errors
    /// If k is zero, or the inputs are not of the same type of vectors.
    pub fn try_new(
        base: Arc<dyn ExecutionPlan>,
        queries: Arc<dyn ExecutionPlan>,
        spec: Spec,
    ) -> Result<Self> {
        if spec.k == 0 {
            return plan_err!("k is 0; expected at least 1");
        }
        let ours = vector_type(&base)?;
        let theirs = vector_type(&queries)?;
        if ours != theirs {
            return plan_err!("the queries have {theirs}; the base has {ours}");
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Self::output()),
            Partitioning::UnknownPartitioning(base.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self {
            base,
            queries,
            spec,
            loaded: Arc::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// What is searched for, and how.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The schema of the candidates.
    ///
    /// | column | |
    /// |---|---|
    /// | `query_id` | the query |
    /// | `id` | a row near it; null where the partition has none for the query |
    /// | `reduced` | the reduced distance between the two (∞ where there is none) |
    /// | `token` | what names the partition and the number of its rows |
    /// | `found` | how many candidates the partition has for the query |
    ///
    /// The last two stand on the first candidate that a partition has for a query; on the others
    /// they are 0. By `token` and `found` the client sees that of each query all candidates of
    /// each partition have arrived, and each once.
    #[must_use]
    pub fn output() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("query_id", DataType::UInt64, false),
            Field::new("id", DataType::UInt64, true),
            Field::new("reduced", DataType::Float64, false),
            Field::new("token", DataType::UInt64, false),
            Field::new("found", DataType::UInt64, false),
        ]))
    }
}

fn vector_type(plan: &Arc<dyn ExecutionPlan>) -> Result<VectorType> {
    match VectorType::of_schema(&plan.schema()) {
        Ok(of) => Ok(of),
        Err(why) => plan_err!("{why}"),
    }
}

impl DisplayAs for KnnExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "KnnExec: k={}, {}", self.spec.k, self.spec.index)
    }
}

impl ExecutionPlan for KnnExec {
    fn name(&self) -> &str {
        "KnnExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.base, &self.queries]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        // The base stays as it is parted. Each of its partitions sees all queries.
        InputDistributionRequirements::new(vec![
            Distribution::UnspecifiedDistribution,
            Distribution::SinglePartition,
        ])
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        // It has no expressions.
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [base, queries] = &children[..] else {
            return internal_err!("KnnExec has two inputs, not {}", children.len());
        };
        let (base, queries) = (Arc::clone(base), Arc::clone(queries));
        Ok(Arc::new(Self::try_new(base, queries, self.spec.clone())?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.spec.check_version()?;
        let (queries, loaded) = (Arc::clone(&self.queries), Arc::clone(&self.loaded));
        let time = |name| MetricBuilder::new(&self.metrics).subset_time(name, partition);
        let times = Times {
            read: time(READ_TIME),
            build: time(BUILD_TIME),
            search: time(SEARCH_TIME),
        };
        let (spec, own) = (self.spec.clone(), Arc::clone(&context));
        let base = Partition::new(&self.base, partition, own, spec, times)?;
        let work = async move {
            let queries = loaded.get_or_try_init(|| Queries::read(&queries, context));
            let queries = Arc::clone(queries.await?);
            base.candidates(queries).await
        };
        let batches = futures::stream::once(work).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Self::output(),
            batches,
        )))
    }
}
