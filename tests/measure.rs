//! The program `measure` as its user meets it: files that hold something else, several runs at
//! once, output that nobody reads, arguments that make no sense. Each test runs the built program
//! in a folder of its own.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output};

use fashion_knn::lab::record::{Measurement, read_csv};
use fashion_knn::vectors::Vectors;
use ndarray::Array2;
use ndarray_npy::{WritableElement, write_npy};

mod room;

use room::Room;

/// A small task: 60 points in space and 5 queries.
const SMALL: [&str; 6] = [
    "--data",
    "shape:uniform,n=60,d=3",
    "--n-queries",
    "5",
    "--k",
    "3",
];

/// The program with these arguments, its cache in the room.
fn command<A: AsRef<OsStr>>(room: &Room, arguments: &[A]) -> Command {
    let mut command = room.command(env!("CARGO_BIN_EXE_measure"));
    command.args(arguments);
    command
}

fn run(room: &Room, arguments: &[&str]) -> Said {
    Said::of(command(room, arguments).output().unwrap())
}

/// [`SMALL`] by brute force, and more arguments.
fn small(room: &Room, arguments: &[&str]) -> Said {
    run(
        room,
        &[&SMALL[..], &["--index", "brute_force"], arguments].concat(),
    )
}

fn npy<T: WritableElement>(
    room: &Room,
    name: &str,
    rows: usize,
    value: impl Fn(usize, usize) -> T,
) {
    let path = room.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let array = Array2::from_shape_fn((rows, 4), |(row, column)| value(row, column));
    write_npy(path, &array).unwrap();
}

fn rows(room: &Room, name: &str) -> Vec<Measurement> {
    read_csv(&room.path(name)).unwrap()
}

/// What a run said, and its code: none if a signal ended it.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// An error with this text, and not a line of results before it.
    #[track_caller]
    fn refused(self, expected: &str) {
        let is_code = self.code == Some(1) || self.code == Some(2);
        let is_told = self.err.starts_with("error: ") && self.err.contains(expected);
        assert!(is_code && is_told, "expected {expected:?}: {self:?}");
        assert_eq!(self.out, "", "it was told too late");
    }
}

/// `cargo install` puts it elsewhere, and nobody sets a path to Rust's own libraries for it.
#[test]
fn a_copy_of_the_program_starts_by_itself() {
    // Cargo alone links a program with all that it needs. `make` asks for a dynamic libstd, as the
    // notebooks do, and then there is no such copy.
    assert!(!include_str!("../.cargo/config.toml").contains("prefer-dynamic"));
    if option_env!("RUSTFLAGS").is_some_and(|flags| flags.contains("prefer-dynamic")) {
        eprintln!("SKIPPED: built with a dynamic libstd");
        return;
    }
    let room = Room::new();
    let copy = room.path("copy");
    fs::copy(env!("CARGO_BIN_EXE_measure"), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.arg("--list").env_remove("LD_LIBRARY_PATH");
    Said::of(command.output().unwrap()).succeeded();
    // A test's build may know where the toolchain is, and find libstd-….so there. A release does
    // not, so that it must not be linked to it.
    let program = fs::read(copy).unwrap();
    assert!(!program.windows(7).any(|name| name == b"libstd-"));
}

#[test]
fn an_out_that_cannot_be_written_is_told_before_anything_is_measured() {
    let room = Room::new();
    let texts = [
        ("note.txt", "milk, bread\n"),
        ("other.csv", "name,colour\napple,red\n"),
        ("index.csv", "index\n1\n"),
    ];
    for (name, text) in texts {
        fs::write(room.path(name), text).unwrap();
        small(&room, &["--out", name]).refused(name);
        assert_eq!(fs::read_to_string(room.path(name)).unwrap(), text);
    }
    fs::create_dir(room.path("folder")).unwrap();
    small(&room, &["--out", "folder"]).refused("folder");
    small(&room, &["--out", "note.txt/below.csv"]).refused("note.txt/below.csv");
    fs::write(room.path("kept.csv"), "").unwrap();
    let mut permissions = fs::metadata(room.path("kept.csv")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(room.path("kept.csv"), permissions).unwrap();
    small(&room, &["--out", "kept.csv"]).refused("read-only");
    if cfg!(unix) {
        small(&room, &["--out", "/dev/null"]).refused("not a regular file");
    }
    // An export asks for its folder as early.
    small(&room, &["--export", "note.txt"]).refused("note.txt");
}

#[test]
fn an_out_that_is_empty_or_a_record_or_not_there_gets_the_rows() {
    let room = Room::new();
    fs::write(room.path("empty.csv"), "").unwrap();
    for (name, count) in [("empty.csv", 1), ("empty.csv", 2), ("new/folder/a.csv", 1)] {
        small(&room, &["--out", name]).succeeded();
        assert_eq!(rows(&room, name).len(), count);
    }
}

/// 4 runs of 4 indexes each, the rows of each index added by themselves.
#[test]
fn of_runs_with_one_out_at_once_no_row_is_lost() {
    let room = Room::new();
    let indexes = ["--index", "brute_force,kd_tree,ball_tree,va_file"];
    let arguments = [
        &SMALL[..],
        &indexes,
        &["--sweep", "query", "--out", "a.csv"],
    ]
    .concat();
    let start = |_| {
        let mut command = command(&room, &arguments);
        command.spawn().unwrap()
    };
    let runs: Vec<_> = (0..4).map(start).collect();
    for run in runs {
        let said = Said::of(run.wait_with_output().unwrap()).succeeded();
        assert!(said.out.ends_with("4 rows added to a.csv\n"), "{said:?}");
    }
    for index in ["brute_force", "kd_tree", "ball_tree", "va_file"] {
        let rows = rows(&room, "a.csv");
        assert_eq!(rows.iter().filter(|row| row.index == index).count(), 4);
    }
}

#[test]
fn nobody_reads_the_output_and_the_rows_are_recorded() {
    let room = Room::new();
    let arguments = [
        &SMALL[..],
        &[
            "--index",
            "brute_force,kd_tree",
            "--sweep",
            "query",
            "--out",
            "a.csv",
        ],
    ]
    .concat();
    let mut run = command(&room, &arguments).spawn().unwrap();
    // Closed before the first line, as `| head -0` does.
    drop(run.stdout.take());
    let said = Said::of(run.wait_with_output().unwrap()).succeeded();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    assert_eq!(rows(&room, "a.csv").len(), 2);
    // Nobody reads the errors either: an error is an error all the same.
    let mut run = command(&room, &["--index", "no such index"])
        .spawn()
        .unwrap();
    drop(run.stderr.take());
    assert_eq!(run.wait().unwrap().code(), Some(1));
}

#[test]
fn what_makes_no_sense_is_told_before_the_first_build() {
    let room = Room::new();
    let cases: [(&[&str], &str); 13] = [
        (&["--n-queries", "0"], "at least 1"),
        (&["--k", "0"], "at least 1"),
        (&["--k", "1,61"], "--k 61: a base of 60 vectors"),
        (&["--n-base", "20,61"], "--n-base 61: the base has 60"),
        (&["--n-base", "60,2"], "--k 3: a base of 2 vectors"),
        (&["--threads", "1000000"], "0 to 1024"),
        (&["--threads", "1025"], "0 to 1024"),
        (&["--index", "brute_force,flat"], "no index \"flat\""),
        (
            &["--index", "annoy,hnsw", "--sweep", "search_k=9"],
            "hnsw: there is no parameter",
        ),
        (&["--recall", "0.9,1.5"], "a share from 0 to 1"),
        (&["--data", "shape:uniform,n=4000000000"], "values in all"),
        (&["--n-queries", "18446744073709551615"], "values in all"),
        (&["--data", "shape:uniform,n=0"], "n="),
    ];
    for (arguments, expected) in cases {
        let mut given = SMALL.to_vec();
        // A later argument is an error where an earlier one says the same, so it goes.
        for pair in arguments.chunks(2) {
            given = given
                .chunks(2)
                .filter(|old| old[0] != pair[0])
                .flatten()
                .copied()
                .collect();
        }
        let out = ["--out", "a.csv"];
        run(&room, &[&given[..], arguments, &out].concat()).refused(expected);
    }
    // A file of no queries, and one of another width.
    npy(&room, "base.npy", 30, |row, column| (row + column) as f32);
    npy(&room, "none.npy", 0, |_, _| 0f32);
    write_npy(room.path("wide.npy"), &Array2::from_elem((2, 5), 1f32)).unwrap();
    for (queries, expected) in [("none.npy", "no queries"), ("wide.npy", "5 dimensions")] {
        let given = ["--data", "base.npy", "--queries", queries, "--out", "a.csv"];
        let said = run(&room, &given);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(expected), "{said:?}");
    }
    assert!(!room.path("a.csv").exists());
}

/// The header of a .npy file, padded to 128 bytes.
fn header(shape: &str) -> Vec<u8> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let padded = format!("{dictionary:<117}\n");
    [b"\x93NUMPY\x01\x00\x76\x00", padded.as_bytes()].concat()
}

#[test]
fn a_small_file_that_promises_terabytes_is_an_error() {
    let room = Room::new();
    let files = [
        (
            "a.npy",
            header("(1099511627776, 8)"),
            "promises 35184372088832 bytes",
        ),
        ("a.fvecs", vec![255; 4], "not whole vectors"),
        ("a.bvecs", vec![255, 255, 255, 127, 0], "not whole vectors"),
    ];
    for (name, bytes, expected) in files {
        fs::write(room.path(name), bytes).unwrap();
        run(&room, &["--data", name, "--queries", name]).refused(expected);
    }
    // Fashion-MNIST's own files, of the right name.
    let images = room.path("train-images-idx3-ubyte");
    fs::write(
        images,
        [0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 0, 28, 0, 0, 0, 28],
    )
    .unwrap();
    let run = command(&room, &["--data", "pixels"])
        .env("FASHION_MNIST_DIR", ".")
        .output();
    Said::of(run.unwrap()).refused("expected the IDX header");
}

#[test]
fn what_float64_loses_is_a_warning_and_where_strict_an_error() {
    let room = Room::new();
    npy(&room, "times.npy", 300, |row, _| 1.7e9 + 0.01 * row as f64);
    npy(&room, "queries.npy", 3, |row, _| 1.7e9 + 500.0 * row as f64);
    let own = ["--data", "times.npy", "--queries", "queries.npy"];
    let arguments = [&own[..], &["--index", "brute_force", "--out", "a.csv"]].concat();
    let said = run(&room, &arguments).succeeded();
    let warnings: Vec<_> = said
        .err
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    let [warning] = warnings[..] else {
        panic!("one warning, not {said:?}")
    };
    assert!(
        warning.contains("times.npy") && warning.contains("300 rows become equal"),
        "{warning}"
    );
    run(&room, &[&arguments[..], &["--strict"]].concat()).refused("300 rows become equal");
    npy(
        &room,
        "huge.npy",
        3,
        |_, column| if column == 2 { 1e300 } else { 0.0 },
    );
    run(&room, &["--data", "huge.npy", "--queries", "queries.npy"])
        .refused("row 0, column 2 is 1e300, beyond float32");
}

#[test]
fn whole_numbers_called_floats_are_refused() {
    let room = Room::new();
    let neighbours: Vec<u8> = [3u32, 17, 4, 99]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    for (name, expected) in [("ids.fvecs", "whole numbers"), ("ids.txt", "ends in .npy")] {
        fs::write(room.path(name), &neighbours).unwrap();
        run(&room, &["--data", name, "--queries", name]).refused(expected);
    }
}

/// The data's names in the record of a run on these files.
fn names(room: &Room, data: &str, queries: &str) -> Vec<String> {
    let own = [
        "--data",
        data,
        "--queries",
        queries,
        "--index",
        "brute_force",
    ];
    run(room, &[&own[..], &["--out", "a.csv"]].concat()).succeeded();
    let rows = rows(room, "a.csv");
    fs::remove_file(room.path("a.csv")).unwrap();
    rows.into_iter().map(|row| row.data).collect()
}

#[test]
fn files_of_one_name_have_names_of_their_own_in_the_record() {
    let room = Room::new();
    npy(&room, "one/base.npy", 30, |row, column| {
        (row * column) as f32
    });
    npy(&room, "two/base.npy", 30, |row, column| {
        (row + column) as f32
    });
    npy(&room, "three/base.npy", 30, |row, column| {
        (row * column) as f32
    });
    npy(&room, "queries.npy", 3, |row, _| row as f32);
    npy(&room, "others.npy", 3, |row, _| row as f32 + 0.5);
    let one = names(&room, "one/base.npy", "queries.npy");
    assert!(one[0].starts_with("base@"), "{one:?}");
    assert_ne!(one, names(&room, "two/base.npy", "queries.npy"));
    assert_ne!(one, names(&room, "one/base.npy", "others.npy"));
    // The same values are the same data, wherever they lie.
    assert_eq!(one, names(&room, "three/base.npy", "queries.npy"));
    // Nobody's file is Fashion-MNIST.
    fs::copy(room.path("one/base.npy"), room.path("pixels.npy")).unwrap();
    assert_ne!(names(&room, "pixels.npy", "queries.npy"), ["pixels"]);
}

/// The bytes of a base of floats, viewed as a base of bytes: the same dimension, the same queries,
/// and other neighbours.
#[test]
fn the_truth_of_floats_is_not_taken_for_that_of_their_bytes() {
    let room = Room::new();
    let floats = Array2::from_shape_fn((30, 1), |(row, _)| (row * 37 % 31) as f32 - 9.5);
    let bytes: Vec<u8> = floats
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    write_npy(room.path("f4.npy"), &floats).unwrap();
    write_npy(
        room.path("u1.npy"),
        &Array2::from_shape_vec((120, 1), bytes).unwrap(),
    )
    .unwrap();
    let queries = Array2::from_shape_fn((5, 1), |(row, _)| 40 * row as u8);
    write_npy(room.path("queries.npy"), &queries).unwrap();
    // Bytes first: they have neighbours that are nearer than any of the floats.
    for base in ["u1.npy", "f4.npy"] {
        let own = [
            "--data",
            base,
            "--queries",
            "queries.npy",
            "--index",
            "brute_force",
        ];
        run(&room, &[&own[..], &["--out", "a.csv"]].concat()).succeeded();
    }
    let recalls: Vec<f64> = rows(&room, "a.csv").iter().map(|row| row.recall).collect();
    assert_eq!(recalls, [1.0, 1.0]);
}

/// The files of true neighbours in a folder of the room.
fn truths(room: &Room, folder: &str) -> usize {
    let start = format!("{folder}/truth-");
    let files = room.files();
    files.iter().filter(|name| name.starts_with(&start)).count()
}

/// The truth of one metric is not taken for that of another, and an exact index finds all of it.
#[test]
fn every_metric_has_rows_of_its_own() {
    let room = Room::new();
    for metric in ["euclidean", "cosine", "inner_product", "manhattan"] {
        let arguments = [
            "--index",
            "ball_tree",
            "--sweep",
            "query",
            "--metric",
            metric,
        ];
        let out = room.path("m.csv").display().to_string();
        let arguments = [&SMALL[..], &arguments, &["--out", &out]].concat();
        run(&room, &arguments).succeeded();
    }
    let rows = rows(&room, "m.csv");
    let metrics: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
    assert_eq!(
        metrics,
        ["euclidean", "cosine", "inner_product", "manhattan"]
    );
    assert!(rows.iter().all(|row| row.recall == 1.0), "{rows:?}");
    small(&room, &["--metric", "hamming"]).refused("expected euclidean, manhattan, cosine");
    let arguments = [&SMALL[..], &["--index", "annoy", "--metric", "manhattan"]].concat();
    run(&room, &arguments).refused("annoy does not search by manhattan");
}

#[test]
fn a_cache_that_cannot_be_used_is_a_warning() {
    let room = Room::new();
    fs::write(room.path("file"), "in the way").unwrap();
    let arguments = [&SMALL[..], &["--index", "brute_force", "--out", "a.csv"]].concat();
    let output = command(&room, &arguments)
        .env("FASHION_KNN_DATA", "file")
        .output();
    let said = Said::of(output.unwrap()).succeeded();
    let warning = "warning: the true neighbours are not kept";
    assert!(
        said.err.contains(warning) && said.err.contains("FASHION_KNN_DATA"),
        "{said:?}"
    );
    assert_eq!(rows(&room, "a.csv").len(), 1);
    // Where it can be used there is none.
    let said = run(&room, &arguments).succeeded();
    assert!(!said.err.contains("warning"), "{said:?}");
    assert_eq!(truths(&room, "data/cache"), 1);
}

/// Neither the folder of the machine that compiled the program nor that of another project.
#[test]
fn outside_a_checkout_the_cache_is_the_users() {
    let room = Room::new();
    fs::write(room.path("Cargo.toml"), "[package]\nname = \"another\"\n").unwrap();
    fs::create_dir(room.path("data")).unwrap();
    let arguments = [&SMALL[..], &["--index", "brute_force", "--out", "a.csv"]].concat();
    for (variable, folder) in [
        ("HOME", "home/.cache/fashion-knn/cache"),
        ("XDG_CACHE_HOME", "home/fashion-knn/cache"),
    ] {
        let output = command(&room, &arguments)
            // An empty variable counts as none.
            .env("FASHION_KNN_DATA", "")
            .env("XDG_CACHE_HOME", "")
            .env(variable, room.path("home"))
            .output();
        Said::of(output.unwrap()).succeeded();
        assert_eq!(truths(&room, folder), 1, "{variable}");
    }
    assert_eq!(fs::read_dir(room.path("data")).unwrap().count(), 0);
}

/// The rows of a file in the room, each as its bits, in no order.
fn bits(room: &Room, name: &str) -> Vec<Vec<u32>> {
    let vectors = Vectors::read(room.path(name)).unwrap();
    let rows = (0..vectors.len()).map(|row| vectors.row_to_floats(row));
    let mut rows: Vec<Vec<u32>> = rows
        .map(|row| row.iter().map(|value| value.to_bits()).collect())
        .collect();
    rows.sort();
    rows
}

#[test]
fn without_queries_some_rows_are_held_out_of_the_base_and_it_is_told() {
    let room = Room::new();
    npy(&room, "all.npy", 105, |row, column| {
        (row * 4 + column) as f32
    });
    let index = ["--index", "brute_force", "--k", "1"];
    let asked = |arguments: &[&str]| {
        let all = ["--data", "all.npy", "--out", "a.csv"];
        run(&room, &[&all, &index[..], arguments].concat())
    };
    let said = asked(&[]).succeeded();
    assert!(said.out.contains("10 of the 105 rows"), "{said:?}");
    assert!(said.out.contains("95 × 4, 10 queries"), "{said:?}");
    let rows = rows(&room, "a.csv");
    assert_eq!((rows[0].n, rows[0].d, rows[0].recall), (95, 4, 1.0));
    // Together they are the file, each row once, and always the same ones.
    asked(&["--export", "one", "--n-queries", "3"]).succeeded();
    asked(&["--export", "two", "--n-queries", "3"]).succeeded();
    let (base, queries) = (bits(&room, "one/base.npy"), bits(&room, "one/queries.npy"));
    assert_eq!((base.len(), queries.len()), (102, 3));
    let mut together = [base.clone(), queries].concat();
    together.sort();
    assert_eq!(together, bits(&room, "all.npy"));
    assert_eq!(base, bits(&room, "two/base.npy"));
    npy(&room, "few.npy", 9, |row, _| row as f32);
    run(&room, &["--data", "few.npy", "--out", "a.csv"]).refused("few.npy has 9 rows, too few");
}

#[test]
fn a_mapped_file_gives_the_rows_of_one_that_is_read() {
    let room = Room::new();
    npy(&room, "base.npy", 90, |row, column| {
        (row * 7 % 31 + column) as f32 / 3.0
    });
    npy(&room, "queries.npy", 10, |row, column| {
        (row + column) as f32
    });
    npy(&room, "doubles.npy", 90, |row, _| row as f64);
    let given = |data, more: &[&str]| {
        let given = [
            "--data",
            data,
            "--index",
            "brute_force,va_file",
            "--out",
            "a.csv",
        ];
        run(&room, &[&given, more].concat())
    };
    let own = ["--queries", "queries.npy"];
    given("base.npy", &own).succeeded();
    given("base.npy", &[&own[..], &["--mmap"]].concat()).succeeded();
    let rows = rows(&room, "a.csv");
    for (read, mapped) in [(&rows[0], &rows[2]), (&rows[1], &rows[3])] {
        // The name has a hash of the values.
        assert_eq!((&read.index, &read.data), (&mapped.index, &mapped.data));
        assert_eq!((read.n, read.recall), (mapped.n, mapped.recall));
    }
    given("doubles.npy", &[&own[..], &["--mmap"]].concat()).refused("cannot be mapped");
    given("base.npy", &["--mmap"]).refused("--mmap: expected --queries");
    given("shape:uniform,n=60,d=3", &["--mmap"]).refused("--mmap: expected a file");
}

#[cfg(feature = "hdf5")]
#[test]
fn a_file_of_ann_benchmarks_is_measured() {
    let room = Room::new();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/formats/ann_benchmarks.hdf5"
    );
    let (train, test) = (format!("{file}:train"), format!("{file}:test"));
    let files = ["--data", &train, "--queries", &test, "--out", "a.csv"];
    run(
        &room,
        &[&files[..], &["--index", "brute_force", "--k", "1"]].concat(),
    )
    .succeeded();
    let rows = rows(&room, "a.csv");
    assert_eq!((rows[0].n, rows[0].d, rows[0].recall), (7, 5, 1.0));
    assert!(
        rows[0].data.starts_with("ann_benchmarks@"),
        "{}",
        rows[0].data
    );
    run(
        &room,
        &["--data", file, "--queries", &test, "--out", "a.csv"],
    )
    .refused("3 data sets; expected one, or its name");
}

#[cfg(feature = "report")]
#[test]
fn a_plot_has_a_line_for_each_index_and_a_page_a_chart_for_each_task() {
    let room = Room::new();
    let plotted = |ks, plot| {
        let given = ["--index", "ivf_flat,annoy", "--k", ks, "--sweep", "query"];
        let files = ["--out", "a.csv", "--plot", plot];
        let shape = ["--data", "shape:uniform,n=2000,d=8", "--n-queries", "50"];
        run(&room, &[&given[..], &files[..], &shape[..]].concat())
    };
    plotted("3", "chart.svg").succeeded();
    let svg = fs::read_to_string(room.path("chart.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.ends_with("</svg>"),
        "{svg:.100}"
    );
    for text in [
        "Annoy",
        "IVF",
        "recall",
        "queries per second",
        "2000 × 8, k = 3",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(svg.matches("<polyline").count() >= 2, "two lines");
    // The reports are in Catalan, where a point parts thousands; this program is in English.
    assert!(svg.contains("0,000\n") && !svg.contains("0.000\n"));
    plotted("1,3", "new/page.html").succeeded();
    let page = fs::read_to_string(room.path("new/page.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("k = 1") && page.contains("k = 3"));
    plotted("1,3", "chart.svg").refused("an .svg file has one chart");
    plotted("3", "chart.png").refused("expected a name that ends in .svg or .html");
    plotted("3", "chart.svg/below.svg").refused("--plot chart.svg/below.svg");
}

#[cfg(not(feature = "report"))]
#[test]
fn a_plot_is_refused_by_a_program_that_draws_none() {
    let room = Room::new();
    small(&room, &["--out", "a.csv", "--plot", "a.svg"]).refused("without the feature `report`");
    assert!(!room.path("a.csv").exists());
}
