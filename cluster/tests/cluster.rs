//! On a cluster of one machine: the answer is that of one process, line by line.

mod common;

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use common::{Cluster, answer, assert_same, float_ties, program, shards, text, ties, truth};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf::PhysicalPlanNode;
use fashion_knn::fashion;
use fashion_knn::vectors::Vectors;
use futures::TryStreamExt;
use knn_cluster::operator::codec::KnnCodec;
use knn_cluster::operator::spec::{Spec, VERSION};
use knn_cluster::plan::{self, Stages};
use knn_cluster::shards::Shards;

/// A query to a scheduler.
fn ask(address: &str, base: &Path, queries: &Path, out: &Path, more: &[&str]) -> Output {
    program()
        .args(["query", "--scheduler", address, "--base"])
        .arg(base)
        .arg("--queries")
        .arg(queries)
        .arg("--out")
        .arg(out)
        .args(more)
        .output()
        .unwrap()
}

/// S1: Fashion-MNIST, 8 shards, 2 executors, 10,000 queries.
#[test]
fn fashion_mnist() {
    let images = fashion::load().expect("Fashion-MNIST");
    let (base, queries) = (images.train, images.test);
    let folder = tempfile::tempdir().unwrap();
    let base_at = shards(folder.path(), "base", &base, 8);
    let queries_at = shards(folder.path(), "queries", &queries, 1);
    let out = folder.path().join("answer.parquet");
    for scheduling in ["push", "pull"] {
        let cluster = Cluster::start(2, scheduling);
        for k in [10, 100] {
            let k_text = k.to_string();
            let output = ask(
                &cluster.address(),
                &base_at,
                &queries_at,
                &out,
                &["--k", &k_text],
            );
            assert!(output.status.success(), "{}", text(&output.stderr));
            let what = format!("{scheduling}, k = {k}");
            assert_same(&answer(&out), &truth(&base, &queries, k), &what);
            println!(
                "{what}: {} lines are the same; {}",
                10_000 * k,
                text(&output.stdout).trim()
            );
        }
    }
}

#[test]
fn floats_with_ties_and_other_indexes() {
    let (base, queries) = (float_ties(8_000, 6, 1), float_ties(200, 6, 2));
    let folder = tempfile::tempdir().unwrap();
    let base_at = shards(folder.path(), "base", &base, 8);
    let queries_at = shards(folder.path(), "queries", &queries, 3);
    let out = folder.path().join("answer.parquet");
    let cluster = Cluster::start(2, "push");
    let truth = truth(&base, &queries, 10);
    // The queries in one stage with the search, and in a stage of their own; the second time the
    // indexes are there.
    for more in [
        &[][..],
        &["--three-stages"],
        &["--index", "va_file"],
        &["--index", "va_file"],
    ] {
        let output = ask(&cluster.address(), &base_at, &queries_at, &out, more);
        assert!(
            output.status.success(),
            "{more:?}: {}",
            text(&output.stderr)
        );
        assert_same(&answer(&out), &truth, &format!("{more:?}"));
    }
}

#[test]
fn bad_rows_are_named_by_the_executor_that_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = Vectors::from_bytes(4, ties(100, 4, 1)).unwrap();
    let base_at = shards(folder.path(), "base", &base, 2);
    let queries_at = shards(folder.path(), "queries", &base, 1);
    let out = folder.path().join("answer.parquet");
    let cluster = Cluster::start(1, "push");
    let output = ask(
        &cluster.address(),
        &base_at,
        &queries_at,
        &out,
        &["--index", "ivf_flat nlist=1.5"],
    );
    let error = text(&output.stderr);
    assert!(!output.status.success() && !out.exists());
    assert!(
        error.contains("nlist is 1.5") && error.contains("part-0000"),
        "{error}"
    );

    // A page that was damaged on the way: its footer is whole, and its rows are not.
    let shard = base_at.join("part-00001.parquet");
    let mut bytes = std::fs::read(&shard).unwrap();
    for byte in &mut bytes[4..60] {
        *byte ^= 0xff;
    }
    std::fs::write(&shard, bytes).unwrap();
    let output = ask(
        &cluster.address(),
        &base_at,
        &queries_at,
        &out,
        &["--retries", "0"],
    );
    let error = text(&output.stderr);
    assert!(!output.status.success() && !out.exists());
    assert!(error.contains("part-00001.parquet"), "{error}");
}

#[test]
fn nobody_listens_or_the_scheduler_dies() {
    let folder = tempfile::tempdir().unwrap();
    let base = Vectors::from_bytes(4, ties(100, 4, 1)).unwrap();
    let base_at = shards(folder.path(), "base", &base, 2);
    let queries_at = shards(folder.path(), "queries", &base, 1);
    let out = folder.path().join("answer.parquet");
    let cluster = Cluster::start(1, "push");
    let address = cluster.address();
    drop(cluster);
    let output = ask(&address, &base_at, &queries_at, &out, &["--retries", "1"]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && !out.exists());
    assert!(
        error.contains("2 attempts have failed") && error.contains("onnect"),
        "{error}"
    );
}

/// The codec of a client of another version: its messages say so.
#[derive(Debug, Default)]
struct OtherVersion(KnnCodec);

impl PhysicalExtensionCodec for OtherVersion {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        proto: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.try_decode(bytes, inputs, context, proto)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        proto: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        self.0.try_encode(node, bytes, proto)?;
        let (ours, other) = (
            format!("\"version\":\"{VERSION}\""),
            "\"version\":\"9.9.9\"",
        );
        let at = bytes
            .windows(ours.len())
            .position(|part| part == ours.as_bytes());
        if let Some(at) = at {
            bytes.splice(at..at + ours.len(), other.bytes());
        }
        Ok(())
    }
}

#[test]
fn a_client_of_another_version_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let base = Vectors::from_bytes(4, ties(100, 4, 1)).unwrap();
    let base_at = shards(folder.path(), "base", &base, 2)
        .display()
        .to_string();
    let cluster = Cluster::start(1, "push");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let state = plan::state(4).unwrap();
        let base = Shards::open(&base_at, &state).await.unwrap();
        let spec = Spec::new(3, "brute_force".parse().unwrap());
        let plan = plan::plan(&state, &base, &base, &spec, Stages::Two)
            .await
            .unwrap();
        let config = state.config();
        let (ballista, codec) = (config.ballista_config(), OtherVersion::default());
        let run = execute_physical_plan::<PhysicalPlanNode>(
            cluster.address(),
            &ballista,
            plan,
            &codec,
            state.session_id().to_owned(),
            config.clone(),
        );
        let answer = match run.await {
            Ok(batches) => batches.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        answer.expect_err("another version").to_string()
    });
    assert!(
        error.contains("9.9.9") && error.contains(VERSION),
        "{error}"
    );
}
