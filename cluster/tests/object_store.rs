//! Shards in an object store: a small server that speaks S3 (`moto_server`, installed by `make
//! test-cluster`). Where it is not in the PATH, the test says that it is skipped.

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, answer, assert_same, free_port, program, shards, text, ties, truth};
use fashion_knn::vectors::Vectors;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server, if it is installed.
fn start(port: u16) -> Option<Server> {
    let server = Command::new("moto_server")
        .args(["--port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Server(server.ok()?);
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "the server does not answer"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(server)
}

/// Puts a file, or makes a bucket, by plain HTTP.
fn put(address: &str, file: Option<&std::path::Path>) {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--request",
        "PUT",
        address,
    ]);
    if let Some(file) = file {
        curl.arg("--upload-file").arg(file);
    }
    let output = curl.output().expect("curl");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn shards_in_s3() {
    let port = free_port();
    let Some(_server) = start(port) else {
        println!("skipped: moto_server is not in the PATH");
        return;
    };
    let endpoint = format!("http://127.0.0.1:{port}");
    let environment = [
        ("AWS_ACCESS_KEY_ID", "anybody".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "nothing".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ENDPOINT", endpoint.clone()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let base = Vectors::from_bytes(8, ties(2_000, 8, 1)).unwrap();
    let queries = Vectors::from_bytes(8, ties(50, 8, 2)).unwrap();
    put(&format!("{endpoint}/vectors"), None);
    for (name, vectors, count) in [("base", &base, 4), ("queries", &queries, 1)] {
        let at = shards(folder.path(), name, vectors, count);
        for file in std::fs::read_dir(at).unwrap() {
            let path = file.unwrap().path();
            let key = path.file_name().unwrap().to_str().unwrap().to_owned();
            put(&format!("{endpoint}/vectors/{name}/{key}"), Some(&path));
        }
    }
    let cluster = Cluster::start_in(2, "push", &environment);
    let out = folder.path().join("answer.parquet");
    let ask = |place: &[&str], base: &str| {
        program()
            .arg("query")
            .envs(environment.clone())
            .args(place)
            .args([
                "--queries",
                "s3://vectors/queries/",
                "--base",
                base,
                "--out",
            ])
            .arg(&out)
            .output()
            .unwrap()
    };
    let truth = truth(&base, &queries, 10);
    for place in [&["--local"][..], &["--scheduler", &cluster.address()]] {
        let output = ask(place, "s3://vectors/base/");
        assert!(
            output.status.success(),
            "{place:?}: {}",
            text(&output.stderr)
        );
        assert_same(&answer(&out), &truth, &format!("{place:?}"));
        std::fs::remove_file(&out).unwrap();
        let output = ask(place, "s3://vectors/nowhere/");
        assert!(!output.status.success() && !out.exists());
        assert!(text(&output.stderr).contains("s3://vectors/nowhere/"));
    }
}
