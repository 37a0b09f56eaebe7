//! The query as SQL over the operator, and its physical plan.

use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::extension::SessionConfigExt;
use ballista_core::object_store::{session_config_with_s3_support, session_state_with_s3_support};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::Error;
use crate::operator::KnnExec;
use crate::operator::codec::KnnCodec;
use crate::operator::spec::Spec;
use crate::shards::{Grouping, Shards};

/// In how many parts the candidates are merged where nothing else is said: two for each of the
/// processors of a small cluster.
pub const DEFAULT_MERGES: usize = 16;

/// How the engine is set up, in the client, the scheduler and the executors alike.
#[must_use]
pub fn config(merges: usize) -> SessionConfig {
    session_config_with_s3_support()
        .with_target_partitions(merges)
        // A shard is a partition: the engine would cut large files into ranges, for each of which
        // an index would be built, and of which no footer says how many rows it has.
        .set_bool("datafusion.optimizer.repartition_file_scans", false)
        // Else a partition that is done would read the shards of another.
        .set_bool(
            "datafusion.execution.enable_file_stream_work_stealing",
            false,
        )
        .with_ballista_physical_extension_codec(Arc::new(KnnCodec::default()))
}

/// The state that a client plans in. Object stores are set up by their usual environment variables
/// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, ...).
///
/// # Errors
/// If the engine cannot be set up.
pub fn state(merges: usize) -> Result<SessionState> {
    session_state_with_s3_support(config(merges))
}

/// How many stages the job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stages {
    /// The search, and the merge.
    #[default]
    Two,
    /// The queries are read in a stage of their own. Only tests ask for it: Ballista 55 gives wrong
    /// answers where an executor is lost in such a job (`tests/engine_fault.rs`).
    Three,
}

/// Ranks the candidates of each query, and adds up what proves that all of them are there.
///
/// `dense_rank` gives a candidate that came twice the same rank, so that it pushes no other out.
fn sql(k: usize) -> String {
    format!(
        "SELECT query_id, id, reduced, rank, tokens, found, received FROM (
            SELECT query_id, id, reduced,
                dense_rank() OVER (PARTITION BY query_id ORDER BY reduced, id) AS rank,
                sum(token) OVER (PARTITION BY query_id) AS tokens,
                sum(found) OVER (PARTITION BY query_id) AS found,
                count(id) OVER (PARTITION BY query_id) AS received
            FROM candidates)
        WHERE rank <= {k}"
    )
}

/// The physical plan of a query.
///
/// # Errors
/// If base and queries do not go together, or k is zero.
pub async fn plan(
    state: &SessionState,
    base: &Shards,
    queries: &Shards,
    spec: &Spec,
    stages: Stages,
) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let context = SessionContext::new_with_state(state.clone());
    let candidates = Candidates {
        base: base.clone(),
        queries: queries.clone(),
        spec: spec.clone(),
        stages,
    };
    // The state's tables are shared: those of the attempt before are still there.
    context.deregister_table("candidates")?;
    context.register_table("candidates", Arc::new(candidates))?;
    let frame = context.sql(&sql(spec.k)).await?;
    Ok(frame.create_physical_plan().await?)
}

/// The candidates as a table of SQL.
#[derive(Debug)]
struct Candidates {
    base: Shards,
    queries: Shards,
    spec: Spec,
    stages: Stages,
}

#[async_trait]
impl TableProvider for Candidates {
    fn schema(&self) -> SchemaRef {
        KnnExec::output()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let base = self.base.scan(None, Grouping::Apart);
        let queries = match self.stages {
            Stages::Two => Grouping::Together,
            Stages::Three => Grouping::Apart,
        };
        let queries = self.queries.scan(None, queries);
        let knn = Arc::new(KnnExec::try_new(base, queries, self.spec.clone())?);
        let Some(projection) = projection else {
            return Ok(knn);
        };
        let schema = KnnExec::output();
        let column = |&at: &usize| {
            let name = schema.field(at).name();
            let column = datafusion::physical_expr::expressions::Column::new(name, at);
            (Arc::new(column) as _, name.clone())
        };
        let columns: Vec<_> = projection.iter().map(column).collect();
        Ok(Arc::new(ProjectionExec::try_new(columns, knn)?))
    }
}
