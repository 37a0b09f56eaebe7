//! Bad input ends with an error that names its file, and with no answer.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{program, shards, text, ties};
use datafusion::arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float32Builder, Int64Array, ListBuilder,
    RecordBatch, UInt8Array, UInt64Array,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::parquet::arrow::ArrowWriter;
use fashion_knn::vectors::Vectors;

const DIM: usize = 8;

/// Four shards of 100 rows of floats, and ten queries.
struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let floats = |rows, seed| {
            let values: Vec<f32> = ties(rows, DIM, seed).into_iter().map(f32::from).collect();
            Vectors::from_floats(DIM, values).unwrap()
        };
        shards(folder.path(), "base", &floats(400, 1), 4);
        shards(folder.path(), "queries", &floats(10, 2), 1);
        Self { folder }
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    fn shard(&self, number: usize) -> PathBuf {
        self.base().join(format!("part-{number:05}.parquet"))
    }

    fn queries(&self) -> PathBuf {
        self.folder.path().join("queries/part-00000.parquet")
    }

    /// The query fails, its error has all of `said`, and an answer that was there is still whole.
    fn refuses(&self, said: &[&str], more: &[&str]) {
        let out = self.folder.path().join("answer.parquet");
        for old in [None, Some("an older answer")] {
            let _ = fs::remove_file(&out);
            if let Some(old) = old {
                fs::write(&out, old).unwrap();
            }
            let output = program()
                .args(["query", "--local", "--base"])
                .arg(self.base())
                .arg("--queries")
                .arg(self.folder.path().join("queries"))
                .arg("--out")
                .arg(&out)
                .args(more)
                .output()
                .unwrap();
            let error = text(&output.stderr);
            assert!(!output.status.success(), "expected {said:?}");
            for said in said {
                assert!(error.contains(said), "expected {said:?} in {error}");
            }
            assert!(!error.contains("panicked"), "{error}");
            assert_eq!(fs::read_to_string(&out).ok().as_deref(), old);
        }
    }
}

/// Writes a file of `id`, `vector`.
fn put(path: &Path, ids: ArrayRef, vectors: ArrayRef) {
    let batch =
        RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("vector", vectors, true)])
            .unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn ids(range: std::ops::Range<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(range))
}

/// Vectors of `dim` floats, all `value`, those of `nulls` null.
fn vectors(rows: usize, dim: usize, value: f32, nulls: &[usize]) -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(vec![value; rows * dim]));
    let valid = NullBuffer::from_iter((0..rows).map(|row| !nulls.contains(&row)));
    Arc::new(FixedSizeListArray::try_new(item, dim as i32, values, Some(valid)).unwrap())
}

#[test]
fn what_a_footer_shows() {
    let room = Room::new();
    let second = room.shard(1);
    let name = "part-00001.parquet";
    let good = fs::read(&second).unwrap();

    put(&second, ids(100..200), vectors(100, DIM + 1, 0.0, &[]));
    room.refuses(&[name, "9 float32"], &[]);

    let bytes = Arc::new(UInt8Array::from(vec![0; 100 * DIM]));
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let list = FixedSizeListArray::try_new(item, DIM as i32, bytes, None).unwrap();
    put(&second, ids(100..200), Arc::new(list));
    room.refuses(&[name, "FixedSizeBinary"], &[]);

    put(
        &second,
        Arc::new(Int64Array::from_iter_values(100..200)),
        vectors(100, DIM, 0.0, &[]),
    );
    room.refuses(&[name, "Int64", "UInt64"], &[]);

    let mut lists = ListBuilder::new(Float32Builder::new());
    lists.append_value((0..DIM).map(|value| Some(value as f32)));
    put(&second, ids(0..1), Arc::new(lists.finish()));
    room.refuses(&[name, "List"], &[]);

    let other = RecordBatch::try_from_iter([("name", ids(0..3))]).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(&second).unwrap(), other.schema(), None).unwrap();
    writer.write(&other).unwrap();
    writer.close().unwrap();
    room.refuses(&[name, "there is no column \"id\""], &[]);

    fs::write(&second, &good[..good.len() / 2]).unwrap();
    room.refuses(&[name], &[]);
    fs::write(&second, "").unwrap();
    room.refuses(&[name], &[]);

    // One of the shards that were written together is no longer there, or was taken for another.
    fs::remove_file(&second).unwrap();
    room.refuses(&["base", "shard 1 of 4 is missing", name], &[]);
    fs::copy(room.shard(2), &second).unwrap();
    room.refuses(&["part-00002.parquet", "is shard 2 too"], &[]);
    put(&second, ids(100..200), vectors(100, DIM, 0.0, &[]));
    room.refuses(&[name, "not one of the 4 shards"], &[]);
}

#[test]
fn what_only_the_rows_show() {
    let room = Room::new();
    for number in 0..4 {
        fs::remove_file(room.shard(number)).unwrap();
    }
    put(&room.shard(0), ids(0..100), vectors(100, DIM, 1.0, &[]));
    let second = room.shard(1);
    let name = "part-00001.parquet";

    put(&second, ids(100..200), vectors(100, DIM, 1.0, &[5]));
    room.refuses(&[name, "'vector'", "null"], &[]);
    put(&second, ids(100..200), vectors(100, DIM, f32::NAN, &[]));
    room.refuses(&[name, "id 100 has NaN in column 0"], &[]);
    room.refuses(
        &[name, "id 100 has NaN in column 0"],
        &["--index", "va_file"],
    );
    put(
        &second,
        ids(100..200),
        vectors(100, DIM, f32::INFINITY, &[]),
    );
    room.refuses(&[name, "id 100 has inf"], &[]);

    let null_id = UInt64Array::from_iter((100..200).map(|id| (id != 150).then_some(id)));
    put(&second, Arc::new(null_id), vectors(100, DIM, 1.0, &[]));
    room.refuses(&[name, "'id'", "null"], &[]);

    // The footers show that both files have ids of 50 to 99; in one file only its rows show it.
    put(&second, ids(50..150), vectors(100, DIM, 1.0, &[]));
    room.refuses(&["base", "the id 50 is there twice"], &[]);
    let twice =
        UInt64Array::from_iter_values((100..200).map(|id| if id == 199 { 198 } else { id }));
    put(&second, Arc::new(twice), vectors(100, DIM, 1.0, &[]));
    room.refuses(&["base", "the id 198 is there twice"], &["--check-ids"]);

    // Bytes of a page that were changed under way.
    put(&second, ids(100..200), vectors(100, DIM, 1.0, &[]));
    let mut bytes = fs::read(&second).unwrap();
    for byte in &mut bytes[20..400] {
        *byte ^= 0xff;
    }
    fs::write(&second, bytes).unwrap();
    room.refuses(&[name], &["--retries", "0"]);
}

#[test]
fn queries_that_do_not_fit() {
    let room = Room::new();
    let queries = room.queries();
    put(&queries, ids(0..5), vectors(5, DIM - 1, 0.0, &[]));
    room.refuses(&["queries", "7 float32", "8 float32"], &[]);
    put(&queries, ids(0..5), vectors(5, DIM, f32::NAN, &[]));
    room.refuses(&["queries/part-00000.parquet", "id 0 has NaN"], &[]);
    put(
        &queries,
        Arc::new(UInt64Array::from(vec![1, 2, 1])),
        vectors(3, DIM, 0.0, &[]),
    );
    room.refuses(&["queries", "the id 1 is there twice"], &[]);
    fs::remove_file(&queries).unwrap();
    room.refuses(&["queries", "there is no .parquet file"], &[]);
    fs::remove_dir(room.folder.path().join("queries")).unwrap();
    room.refuses(&["queries"], &[]);
}

#[test]
fn arguments() {
    let room = Room::new();
    room.refuses(&["k is 0"], &["--k", "0"]);
    room.refuses(&["no index is called", "brute_force"], &["--index", "flat"]);
    room.refuses(
        &["ivf_flat has no parameter \"nprobes\""],
        &["--index", "ivf_flat nprobes=4"],
    );
    room.refuses(
        &["nprobe is 1.5", "a whole number"],
        &["--index", "ivf_flat nprobe=1.5"],
    );
}

#[test]
fn a_base_without_files_or_an_answer_without_a_place() {
    let room = Room::new();
    fs::remove_dir_all(room.base()).unwrap();
    room.refuses(&["base"], &[]);
    fs::create_dir(room.base()).unwrap();
    room.refuses(&["base", "there is no .parquet file"], &[]);
    let file = room.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("answer.parquet");
    let output = program()
        .args(["query", "--local", "--base"])
        .arg(room.base())
        .arg("--queries")
        .arg(room.queries())
        .arg("--out")
        .arg(&below)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains(below.to_str().unwrap()));
}

#[test]
fn data_that_cannot_be_sharded() {
    let room = Room::new();
    let out = room.folder.path().join("out");
    let refuses = |data: &str, more: &[&str], said: &[&str]| {
        let output = program()
            .args(["shard", "--data", data, "--out"])
            .arg(&out)
            .args(more)
            .output();
        let output = output.unwrap();
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{data}");
        for said in said {
            assert!(error.contains(said), "expected {said:?} in {error}");
        }
        assert!(!out.exists(), "{data}");
    };
    refuses("nowhere.npy", &[], &["nowhere.npy"]);
    refuses("random:3x", &[], &["random:ROWSxDIM"]);
    refuses(
        "random:3x4",
        &["--shards", "4"],
        &["3 rows do not make 4 shards"],
    );
    refuses("random:3x4", &["--shards", "0"], &["do not make 0 shards"]);
    let bad = room.folder.path().join("bad.fvecs");
    fs::write(&bad, [3, 0, 0, 0, 1]).unwrap();
    refuses(bad.to_str().unwrap(), &[], &["bad.fvecs"]);
    // A folder with something in it is not written into.
    let output = program()
        .args(["shard", "--data", "random:3x4", "--out"])
        .arg(room.base())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("the folder is not empty"));
    assert_eq!(fs::read_dir(room.base()).unwrap().count(), 4);
}
