//! A query from its files to a proved answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::execution::SessionState;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;

use crate::answer::{Expected, Line};
use crate::engine::Engine;
use crate::error::Error;
use crate::operator::spec::Spec;
use crate::operator::{BUILD_TIME, KnnExec, LASTING, READ_TIME, SEARCH_TIME};
use crate::plan::{self, Stages};
use crate::shards::{Grouping, Shards};

/// What is to be found, in what, and how long may be tried.
#[derive(Debug, Clone)]
pub struct Job {
    /// The shards of the base: a folder, a file, or the address of an object store.
    pub base: String,
    /// The queries, likewise.
    pub queries: String,
    /// k and the index.
    pub spec: Spec,
    /// Where it runs.
    pub engine: Engine,
    /// In how many parts the candidates are merged.
    pub merges: usize,
    /// How long an attempt may take.
    pub deadline: Duration,
    /// How many attempts may follow the first.
    pub retries: u32,
    /// Whether the ids of the base are read before, to see that none is there twice.
    pub check_ids: bool,
    /// For tests: [`Stages::Three`].
    pub stages: Stages,
}

/// A proved answer, and what it took.
#[derive(Debug)]
pub struct Outcome {
    /// By query and rank.
    pub lines: Vec<Line>,
    /// How many rows the base has.
    pub rows: u64,
    /// How many values a vector has.
    pub dim: usize,
    /// How many queries there are.
    pub queries: usize,
    /// How many attempts it took.
    pub attempts: u32,
    /// How long the last of them took, from the plan to the proof.
    pub time: Duration,
    /// How long its partitions were read, built and searched, added up; where the job ran in this
    /// process.
    pub work: Option<Work>,
}

/// Times of all partitions, added up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Reading the base.
    pub read: Duration,
    /// Building indexes that are kept.
    pub build: Duration,
    /// Searching.
    pub search: Duration,
}

impl Work {
    /// What the operator has noted in a plan that has run.
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        if plan.downcast_ref::<KnnExec>().is_none() {
            return plan.children().into_iter().find_map(Self::of);
        }
        let metrics = plan.metrics()?;
        let time = |name| {
            let nanoseconds = metrics
                .sum_by_name(name)
                .map_or(0, |value| value.as_usize());
            Duration::from_nanos(nanoseconds as u64)
        };
        let (read, build, search) = (time(READ_TIME), time(BUILD_TIME), time(SEARCH_TIME));
        (search > Duration::ZERO).then_some(Self {
            read,
            build,
            search,
        })
    }
}

/// A job whose files have been looked at.
#[derive(Debug)]
pub struct Ready {
    job: Job,
    state: SessionState,
    base: Shards,
    queries: Shards,
    expected: Expected,
}

impl Job {
    /// Looks at the files: everything that their footers say is checked, and the queries' ids.
    ///
    /// # Errors
    /// If a file is not what it should be, or base and queries do not go together.
    pub async fn ready(self) -> Result<Ready, Error> {
        if self.spec.k == 0 {
            return Err(Error::Arguments("k is 0; expected at least 1".to_owned()));
        }
        let state = plan::state(self.merges)?;
        let base = Shards::open(&self.base, &state).await?;
        let queries = Shards::open(&self.queries, &state).await?;
        if queries.of != base.of {
            let why = format!(
                "vectors of {}; those of the base are of {}",
                queries.of, base.of
            );
            return Err(Error::file(&self.queries, why));
        }
        let ids = query_ids(&queries, &state).await;
        let ids = ids.map_err(|error| Error::file(&self.queries, error))?;
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::file(
                &self.queries,
                format!("the id {} is there twice", pair[0]),
            ));
        }
        // Where the footers show that the files' ids are apart, only a file itself could repeat
        // one.
        if self.check_ids || !base.ids_are_apart() {
            check_ids(&self.base, &base, &state).await?;
        }
        let expected = Expected::new(&base, ids, &self.spec);
        Ok(Ready {
            job: self,
            state,
            base,
            queries,
            expected,
        })
    }
}

impl Ready {
    /// How many rows the base has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.base.rows()
    }

    /// How many queries there are.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.expected.queries.len()
    }

    /// Runs the job until an answer is proved. `attempt` is told of each attempt, from 1, and of
    /// why the one before it has failed.
    ///
    /// # Errors
    /// If no attempt came to an answer that is whole, in time.
    pub async fn run(
        &self,
        mut attempt: impl FnMut(u32, Option<&Error>),
    ) -> Result<Outcome, Error> {
        let mut last = None;
        for number in 1..=self.job.retries + 1 {
            attempt(number, last.as_ref());
            let started = Instant::now();
            let tried = tokio::time::timeout(self.job.deadline, self.attempt()).await;
            let error = match tried {
                Ok(Ok((lines, work))) => {
                    return Ok(self.outcome(lines, number, started.elapsed(), work));
                }
                Ok(Err(error)) if is_lasting(&error) => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => Error::Deadline(self.job.deadline),
            };
            last = Some(error);
        }
        let attempts = self.job.retries + 1;
        let last = Box::new(last.expect("at least one attempt"));
        Err(Error::GivenUp { attempts, last })
    }

    async fn attempt(&self) -> Result<(Vec<Line>, Option<Work>), Error> {
        let Job { spec, stages, .. } = &self.job;
        let plan = plan::plan(&self.state, &self.base, &self.queries, spec, *stages).await?;
        let batches = self.job.engine.run(Arc::clone(&plan), &self.state).await?;
        Ok((self.expected.prove(&batches)?, Work::of(&plan)))
    }

    fn outcome(
        &self,
        lines: Vec<Line>,
        attempts: u32,
        time: Duration,
        work: Option<Work>,
    ) -> Outcome {
        Outcome {
            lines,
            rows: self.rows(),
            dim: self.base.of.dim,
            queries: self.queries(),
            attempts,
            time,
            work,
        }
    }
}

/// Whether another attempt would fail in the same way.
fn is_lasting(error: &Error) -> bool {
    let message = error.to_string();
    message.contains(LASTING)
}

/// The ids of the queries, ascending.
async fn query_ids(queries: &Shards, state: &SessionState) -> datafusion::common::Result<Vec<u64>> {
    let scan = queries.scan(Some(vec![0]), Grouping::Together);
    let mut ids = Vec::new();
    for batch in collect(scan, state.task_ctx()).await? {
        let column = batch.column(0).as_primitive::<UInt64Type>();
        ids.extend(column.iter().flatten());
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Reads all ids of the base, to see that none is there twice.
async fn check_ids(address: &str, base: &Shards, state: &SessionState) -> Result<(), Error> {
    let context = SessionContext::new_with_state(state.clone());
    context.register_table("base", Arc::new(base.clone()))?;
    let sql = "SELECT id FROM base GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 1";
    let repeated = context.sql(sql).await?.collect().await?;
    let Some(batch) = repeated.iter().find(|batch| batch.num_rows() > 0) else {
        return Ok(());
    };
    let id = batch.column(0).as_primitive::<UInt64Type>().value(0);
    Err(Error::file(address, format!("the id {id} is there twice")))
}
