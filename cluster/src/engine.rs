//! Where a plan runs.

use std::sync::Arc;

use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::TryStreamExt;

use crate::error::Error;

/// Where a plan runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// DataFusion, in this process.
    Local,
    /// A Ballista scheduler, by its address: "http://127.0.0.1:50050".
    Ballista(String),
}

impl Engine {
    /// Runs the plan and collects its rows.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        state: &SessionState,
    ) -> Result<Vec<RecordBatch>, Error> {
        let scheduler = match self {
            Self::Local => return Ok(collect(plan, state.task_ctx()).await?),
            Self::Ballista(scheduler) => scheduler,
        };
        let config = state.config();
        let (ballista, codec) = (
            config.ballista_config(),
            config.ballista_physical_extension_codec(),
        );
        let batches = execute_physical_plan::<PhysicalPlanNode>(
            scheduler.clone(),
            &ballista,
            plan,
            codec.as_ref(),
            state.session_id().to_owned(),
            config.clone(),
        );
        Ok(batches.await?.try_collect().await?)
    }
}
