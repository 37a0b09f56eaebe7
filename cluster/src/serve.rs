//! The two servers of a cluster: one scheduler, and an executor on each machine.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_core::object_store::{runtime_env_with_s3_support, session_state_with_s3_support};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::start_server;

use crate::operator::codec::KnnCodec;
use crate::operator::{kept, partition};
use crate::plan::{self, DEFAULT_MERGES};

/// Whether the scheduler sends tasks to the executors, or they ask for them. Both have to be
/// started with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Scheduling {
    /// The scheduler sends them: a job of few tasks begins at once.
    #[default]
    Push,
    /// The executors ask: the scheduler need not be able to reach them.
    Pull,
}

impl From<Scheduling> for TaskSchedulingPolicy {
    fn from(scheduling: Scheduling) -> Self {
        match scheduling {
            Scheduling::Push => Self::PushStaged,
            Scheduling::Pull => Self::PullStaged,
        }
    }
}

/// How a scheduler is started.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// The address that it listens on.
    pub host: IpAddr,
    /// The port.
    pub port: u16,
    /// Who begins a task.
    pub scheduling: Scheduling,
    /// Seconds without a sign of life after which an executor counts as lost, and its tasks are
    /// given to others. Also how long a job waits where no executor is left.
    pub executor_timeout: u64,
}

impl Scheduler {
    /// Runs it until the process is ended.
    ///
    /// # Errors
    /// If it cannot listen on its address.
    pub async fn run(self) -> Result<(), BallistaError> {
        let config = SchedulerConfig {
            bind_host: self.host.to_string(),
            external_host: self.host.to_string(),
            bind_port: self.port,
            task_distribution: TaskDistributionPolicy::RoundRobin,
            scheduling_policy: self.scheduling.into(),
            executor_timeout_seconds: self.executor_timeout,
            // Looked at often, so that the timeout is what counts.
            expire_dead_executor_interval_seconds: (self.executor_timeout / 4).max(1),
            no_executors_grace_period_seconds: self.executor_timeout,
            override_physical_codec: Some(Arc::new(KnnCodec::default())),
            override_config_producer: Some(Arc::new(|| plan::config(DEFAULT_MERGES))),
            override_session_builder: Some(Arc::new(session_state_with_s3_support)),
            ..SchedulerConfig::default()
        };
        let cluster = BallistaCluster::new_from_config(&config).await?;
        let address = SocketAddr::new(self.host, self.port);
        start_server(cluster, address, Arc::new(config)).await
    }
}

/// How an executor is started.
#[derive(Debug, Clone)]
pub struct Executor {
    /// The address that it listens on.
    pub host: IpAddr,
    /// The name by which the others reach it, if it is another.
    pub external_host: Option<String>,
    /// The port of its data; that of its tasks is the next.
    pub port: u16,
    /// The scheduler's host.
    pub scheduler_host: String,
    /// The scheduler's port.
    pub scheduler_port: u16,
    /// Who begins a task.
    pub scheduling: Scheduling,
    /// How many tasks it takes at a time, and on how many threads they search together.
    pub threads: usize,
    /// How much memory the indexes may take that it keeps.
    pub index_bytes: u64,
    /// Seconds between its signs of life.
    pub heartbeat: u64,
    /// Where candidates wait to be fetched; a temporary folder where it is not said.
    pub work_dir: Option<PathBuf>,
}

impl Executor {
    /// Runs it until the process is ended.
    ///
    /// # Errors
    /// If it cannot listen on its address, or reach the scheduler.
    pub async fn run(self) -> Result<(), BallistaError> {
        partition::search_at_once(self.threads);
        kept::keep_at_most(self.index_bytes);
        let config = ExecutorProcessConfig {
            bind_host: self.host.to_string(),
            external_host: Some(self.external_host.unwrap_or_else(|| self.host.to_string())),
            port: self.port,
            grpc_port: self.port + 1,
            scheduler_host: self.scheduler_host,
            scheduler_port: self.scheduler_port,
            scheduler_connect_timeout_seconds: 30,
            vcores: self.threads,
            task_scheduling_policy: self.scheduling.into(),
            work_dir: self.work_dir.map(|folder| folder.display().to_string()),
            // A job is over when its client has the answer. An hour is for slow clients.
            job_data_ttl_seconds: 3600,
            job_data_clean_up_interval_seconds: 600,
            executor_heartbeat_interval_seconds: self.heartbeat,
            override_physical_codec: Some(Arc::new(KnnCodec::default())),
            override_config_producer: Some(Arc::new(|| plan::config(DEFAULT_MERGES))),
            override_runtime_producer: Some(Arc::new(runtime_env_with_s3_support)),
            ..ExecutorProcessConfig::default()
        };
        start_executor_process(Arc::new(config)).await
    }
}
