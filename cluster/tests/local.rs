//! In one process: the answer is that of brute force in memory, line by line.

mod common;

use common::{answer, assert_same, float_ties, shards, succeed, ties, truth};
use fashion_knn::vectors::Vectors;

/// A query over shards of `base`; the answer's lines.
fn query(base: &Vectors, count: usize, queries: &Vectors, more: &str) -> Vec<common::Line> {
    let folder = tempfile::tempdir().unwrap();
    let base = shards(folder.path(), "base", base, count);
    let queries = shards(folder.path(), "queries", queries, 1);
    let out = folder.path().join("answer.parquet");
    let (base, queries) = (base.display(), queries.display());
    succeed(&format!(
        "query --local --base {base} --queries {queries} --out {} {more}",
        out.display()
    ));
    answer(&out)
}

#[test]
fn bytes_with_ties() {
    let base = Vectors::from_bytes(6, ties(3_000, 6, 1)).unwrap();
    let queries = Vectors::from_bytes(6, ties(40, 6, 2)).unwrap();
    for (shards, k) in [(1, 1), (7, 10), (8, 100)] {
        let ours = query(&base, shards, &queries, &format!("--k {k}"));
        assert_same(
            &ours,
            &truth(&base, &queries, k),
            &format!("{shards} shards, k = {k}"),
        );
    }
}

#[test]
fn floats_with_ties() {
    let (base, queries) = (float_ties(2_000, 5, 3), float_ties(30, 5, 4));
    for (shards, k) in [(1, 10), (8, 100)] {
        let ours = query(&base, shards, &queries, &format!("--k {k}"));
        assert_same(
            &ours,
            &truth(&base, &queries, k),
            &format!("{shards} shards, k = {k}"),
        );
    }
}

#[test]
fn more_neighbours_than_rows_gives_all_rows() {
    let base = Vectors::from_bytes(3, ties(20, 3, 5)).unwrap();
    let queries = Vectors::from_bytes(3, ties(4, 3, 6)).unwrap();
    let ours = query(&base, 4, &queries, "--k 50");
    assert_eq!(ours.len(), 4 * 20);
    assert_same(&ours, &truth(&base, &queries, 50), "k = 50 of 20 rows");
}

#[test]
fn an_exact_index_in_each_shard_is_exact() {
    let base = Vectors::from_bytes(16, ties(4_000, 16, 7)).unwrap();
    let queries = Vectors::from_bytes(16, ties(25, 16, 8)).unwrap();
    for index in ["va_file", "kd_tree", "ball_tree"] {
        let ours = query(&base, 3, &queries, &format!("--index {index}"));
        assert_same(&ours, &truth(&base, &queries, 10), index);
    }
}

#[test]
fn all_lists_of_an_inverted_file_find_everything() {
    let base = Vectors::from_bytes(8, ties(2_000, 8, 9)).unwrap();
    let queries = Vectors::from_bytes(8, ties(20, 8, 10)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let base_at = shards(folder.path(), "base", &base, 2);
    let queries_at = shards(folder.path(), "queries", &queries, 1);
    let out = folder.path().join("answer.parquet");
    let query = |nprobe: usize| {
        let status = common::program()
            .args([
                "query",
                "--local",
                "--index",
                &format!("ivf_flat nlist=16 nprobe={nprobe}"),
            ])
            .arg("--base")
            .arg(&base_at)
            .arg("--queries")
            .arg(&queries_at)
            .arg("--out")
            .arg(&out)
            .status()
            .unwrap();
        assert!(status.success());
        answer(&out)
    };
    let truth = truth(&base, &queries, 10);
    assert_same(&query(16), &truth, "all lists");
    // One list of sixteen: a true distance to every row that is found, but not to the nearest ones.
    let few = query(1);
    assert!(!few.is_empty() && few != truth);
}

/// Blocks of a scan: more rows than a block has.
#[test]
fn more_rows_than_a_block() {
    let dim = 1 << 16;
    let rows = (32 << 20) / dim + 100;
    let base = Vectors::from_bytes(dim, ties(rows, dim, 11)).unwrap();
    let queries = Vectors::from_bytes(dim, ties(3, dim, 12)).unwrap();
    let ours = query(&base, 1, &queries, "--k 20");
    assert_same(&ours, &truth(&base, &queries, 20), "two blocks");
}

#[test]
fn measure_says_recall_and_adds_rows_to_a_record() {
    let base = Vectors::from_bytes(8, ties(2_000, 8, 13)).unwrap();
    let queries = Vectors::from_bytes(8, ties(20, 8, 14)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let base = shards(folder.path(), "base", &base, 2);
    let queries = shards(folder.path(), "queries", &queries, 1);
    let out = folder.path().join("record.csv");
    let output = common::program()
        .args([
            "measure",
            "--local",
            "--rounds",
            "1",
            "--index",
            "brute_force",
            "ivf_flat nprobe=1",
        ])
        .arg("--base")
        .arg(&base)
        .arg("--queries")
        .arg(&queries)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", common::text(&output.stderr));
    let rows = fashion_knn::lab::record::read_csv(&out).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0].index.as_str(), rows[0].recall),
        ("datafusion/brute_force", 1.0)
    );
    assert_eq!(rows[1].param("nprobe"), Some(1.0));
    assert!(rows[1].recall < 1.0);
}
