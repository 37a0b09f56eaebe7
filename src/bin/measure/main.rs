//! Measures indexes and writes a row a run: `cargo run --release --bin measure -- --help`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fashion_knn::index::registry::{Entry, REGISTRY, Settings, find};
use fashion_knn::lab::machine::Machine;
use fashion_knn::lab::record::{Measurement, append_csv, read_csv, replace_csv};
use fashion_knn::lab::shapes::{self, SHAPES, Sample, Shape};
use fashion_knn::lab::task::Task;
use fashion_knn::lab::tune::{Target, TuneError, Tuned, Tuner};
use fashion_knn::vectors::Vectors;
use fashion_knn::{fashion, files};
use indicatif::{ProgressBar, ProgressStyle};

/// Measure k-nearest-neighbour indexes: recall, queries per second, latency, build time and memory.
///
/// Every combination of parameters is one run and one row of the CSV file. Recall is counted by
/// distance, so that ties are hits; the true neighbours are computed once and kept in data/cache.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which indexes: names separated by commas, or "all"
    #[arg(long, default_value = "all")]
    index: String,
    /// What to search in: "pixels" (Fashion-MNIST, also "fashion"), "features-128" (of a net; any
    /// width), a hard shape of --list with rows, dimension and seed as wished
    /// ("shape:outlier_1e4,n=20000,d=32,seed=0"), or a .npy, .fvecs or .bvecs file
    #[arg(long, default_value = "pixels")]
    data: String,
    /// A file with the queries, which must not be in the base; "pixels", features and shapes have
    /// their own
    #[arg(long)]
    queries: Option<PathBuf>,
    /// What the record calls the data; by default "pixels", "features-128" or the file's name
    #[arg(long)]
    name: Option<String>,
    /// How many neighbours to ask for; several counts share each build: "1,10,100"
    #[arg(long, default_value = "10", value_delimiter = ',')]
    k: Vec<usize>,
    /// Threads of the build and of batches, 0 for one a core; single queries are answered on one
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many of the queries to ask
    #[arg(long, default_value_t = 2_000)]
    n_queries: usize,
    /// How many of the base vectors to search in: the first ones, for each count of "15000,30000"
    /// (all by default)
    #[arg(long, value_delimiter = ',')]
    n_base: Vec<usize>,
    /// "default"; "query", its query parameters over the default build; or values to combine:
    /// "search_k=400,1000; n_trees=50", where parameters not named keep their default
    #[arg(long, default_value = "default")]
    sweep: String,
    /// Instead of a sweep, tune the query parameters for each recall of "0.90,0.95,0.99" on rows
    /// held out of the base, for the first k, and measure what comes of it on the queries
    #[arg(long, value_delimiter = ',', conflicts_with = "sweep")]
    recall: Vec<f64>,
    /// The CSV file that the rows are added to
    #[arg(long, default_value = "data/results/measured.csv")]
    out: PathBuf,
    /// Measure nothing; write base.npy, queries.npy and the true distances (distances.npy) to this
    /// folder, for other programs
    #[arg(long, conflicts_with = "n_base")]
    export: Option<PathBuf>,
    /// Measure nothing; put the rows of this file into --out, in place of all its rows of the same
    /// indexes. A record (.csv), or what another program measured on this machine (.jsonl): a JSON
    /// object a line, with the columns from "index" to "commit" and an object "params"
    #[arg(long)]
    replace_from: Option<PathBuf>,
    /// Only list the indexes and their parameters, and the hard shapes
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.list {
        list();
        return Ok(());
    }
    if let Some(from) = &arguments.replace_from {
        return replace(from, &arguments.out);
    }
    // What the command line says is checked before anything that takes time.
    let entries = entries(&arguments.index)?;
    let mut plans = Vec::new();
    for entry in entries {
        plans.push(plan(entry, &arguments.sweep)?);
    }
    let data = data(arguments)?;
    // With the true distances of the whole base: another program's recall is then counted as ours
    // is.
    if let Some(folder) = &arguments.export {
        task(arguments, &data, data.base.len())?.export(folder)?;
        let folder = folder.display();
        println!("base.npy, queries.npy and distances.npy are in {folder}");
        return Ok(());
    }
    let sizes = if arguments.n_base.is_empty() {
        vec![data.base.len()]
    } else {
        arguments.n_base.clone()
    };
    let mut rows = 0;
    // One task for each size: a smaller base has other true neighbours.
    for size in sizes {
        let task = task(arguments, &data, size)?;
        rows += if arguments.recall.is_empty() {
            sweep(&task, &plans, &arguments.out)?
        } else {
            tuned(&task, &plans, &arguments.recall, &arguments.out)?
        };
    }
    println!("{rows} rows added to {}", arguments.out.display());
    Ok(())
}

/// Puts the rows of `from` into `out`, in place of all of the same indexes.
fn replace(from: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    // JSON lines have no column for the machine. Their rows get the present one's, so they must
    // have been measured here.
    let rows = if from
        .extension()
        .is_some_and(|extension| extension == "jsonl")
    {
        let text =
            fs::read_to_string(from).map_err(|error| format!("{}: {error}", from.display()))?;
        let mut rows = Vec::new();
        for line in text.lines() {
            rows.push(Measurement::from_json(line, Machine::here())?);
        }
        rows
    } else {
        read_csv(from)?
    };
    replace_csv(out, &rows)?;
    println!("{} rows put into {}", rows.len(), out.display());
    Ok(())
}

/// What is searched in.
struct Data {
    name: String,
    base: Arc<Vectors>,
    queries: Vectors,
}

/// The first `size` vectors of the base, the queries and their true neighbours.
fn task(arguments: &Arguments, data: &Data, size: usize) -> Result<Task, Box<dyn Error>> {
    let base = if size < data.base.len() {
        Arc::new(data.base.head(size))
    } else {
        data.base.clone()
    };
    let (name, k) = (&data.name, &arguments.k);
    let (n, d, queries) = (base.len(), base.dim(), data.queries.len());
    println!("{name}: {n} × {d}, {queries} queries, k = {k:?}");
    // The true neighbours come out of the cache, or are computed and put there.
    let (queries, cache) = (data.queries.clone(), files::cache_dir());
    Ok(Task::new(
        name,
        base,
        queries,
        k,
        arguments.threads,
        Some(&cache),
    )?)
}

fn bar(runs: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {eta} {msg}")?;
    Ok(ProgressBar::new(runs as u64).with_style(style))
}

/// Measures every setting of the plans; how many rows that gave.
fn sweep(task: &Task, plans: &[Plan], out: &Path) -> Result<usize, Box<dyn Error>> {
    // A run for each build, each setting of the queries and each k.
    let settings = plans
        .iter()
        .map(|plan| plan.builds.len() * plan.queries.len());
    let runs = settings.sum::<usize>() * task.ks.len();
    let bar = bar(runs)?;
    for Plan {
        entry,
        builds,
        queries,
    } in plans
    {
        for build in builds {
            bar.set_message(format!("{}: building", entry.key));
            let mut rows = Vec::new();
            task.run(entry, build, queries, |row| {
                // The bar is taken away while a line is printed, or the two would mix.
                bar.suspend(|| print(&row));
                bar.inc(1);
                rows.push(row);
            })?;
            // After each build: an interruption loses no more than that.
            append_csv(out, &rows)?;
        }
    }
    bar.finish_and_clear();
    Ok(runs)
}

/// Tunes each index for each recall and measures the settings found; how many rows that gave.
fn tuned(
    task: &Task,
    plans: &[Plan],
    recalls: &[f64],
    out: &Path,
) -> Result<usize, Box<dyn Error>> {
    let bar = bar(plans.len())?;
    let mut count = 0;
    for &Plan { entry, .. } in plans {
        bar.set_message(format!("{}: tuning", entry.key));
        let target = Target {
            k: task.ks[0],
            ..Target::default()
        };
        // The tuner holds rows out of the base and never sees the queries: parameters chosen on the
        // queries themselves would look better than they are.
        let tuner = Tuner::new(entry, &task.base, &Settings::default(), &target)?;
        let mut rows = Vec::new();
        // In one run, so that all settings share a build. It gives the rows setting after setting,
        // and for each a row for every k. So each recall is repeated as often as there are ks.
        let (wanted, settings) = reached(&tuner, recalls, &bar)?;
        let mut wanted = wanted
            .iter()
            .flat_map(|&recall| vec![recall; task.ks.len()]);
        task.run(entry, &Settings::default(), &settings, |mut row| {
            bar.suspend(|| print(&row));
            if let Some(recall) = wanted.next() {
                // The recall that was asked for stands with the parameters, to tell it from the
                // recall that came of them.
                row.params = row.params.with_first("target_recall", recall);
            }
            rows.push(row);
        })?;
        bar.inc(1);
        append_csv(out, &rows)?;
        count += rows.len();
    }
    bar.finish_and_clear();
    Ok(count)
}

/// The recalls that can be reached, and the settings that do; the others are told.
fn reached(
    tuner: &Tuner,
    recalls: &[f64],
    bar: &ProgressBar,
) -> Result<(Vec<f64>, Vec<Settings>), TuneError> {
    let (mut wanted, mut settings) = (Vec::new(), Vec::new());
    for &recall in recalls {
        match tuner.reach(recall) {
            Ok(Tuned {
                settings: found, ..
            }) => {
                wanted.push(recall);
                settings.push(found);
            }
            // An index can be unable to reach a recall with any setting. That is a result, not a
            // failure: the other recalls are measured all the same.
            Err(error @ TuneError::Unreachable { .. }) => bar.suspend(|| println!("{error}")),
            Err(error) => return Err(error),
        }
    }
    Ok((wanted, settings))
}

fn print(row: &Measurement) {
    let speed = format!("{:>8.0} queries/s  batch {:>8.0}", row.qps, row.qps_batch);
    let latency = format!("p50 {:>7.1} µs  p99 {:>7.1} µs", row.p50_us, row.p99_us);
    let megabytes = row.memory_bytes as f64 / 1e6;
    let cost = format!("build {:>6.2} s  {megabytes:>6.1} MB", row.build_s);
    let (index, k, recall, params) = (&row.index, row.k, row.recall, &row.params);
    println!("{index:<16} k {k:>3}  recall {recall:.4}  {speed}  {latency}  {cost}  {params}");
}

fn list() {
    for entry in REGISTRY {
        let kind = if entry.exact { "exact" } else { "approximate" };
        println!("{}: {}, {kind}", entry.key, entry.name);
        for (kind, knobs) in [("build", entry.build_knobs), ("query", entry.query_knobs)] {
            for knob in knobs {
                let (name, default, help) = (knob.name, knob.default, knob.help);
                println!("    {name} ({kind}, default {default}): {help}");
            }
        }
    }
    println!();
    for Shape {
        name, dim, breaks, ..
    } in SHAPES
    {
        println!("shape:{name}: d = {dim}; breaks {breaks}");
    }
}

fn entries(names: &str) -> Result<Vec<&'static Entry>, String> {
    if names == "all" {
        return Ok(REGISTRY.iter().collect());
    }
    let mut entries = Vec::new();
    for name in names.split(',') {
        let Some(entry) = find(name.trim()) else {
            let known: Vec<&str> = REGISTRY.iter().map(|entry| entry.key).collect();
            let known = known.join(", ");
            return Err(format!(
                "no index {name:?}; expected all, or some of {known}"
            ));
        };
        entries.push(entry);
    }
    Ok(entries)
}

/// What is measured of an index: each of `builds` with each of `queries`.
#[derive(Debug)]
struct Plan {
    entry: &'static Entry,
    /// The settings of the builds.
    builds: Vec<Settings>,
    /// The settings of the queries.
    queries: Vec<Settings>,
}

fn plan(entry: &'static Entry, sweep: &str) -> Result<Plan, String> {
    let mut plan = Plan {
        entry,
        builds: vec![Settings::default()],
        queries: vec![Settings::default()],
    };
    // "query" leaves the one default build.
    if sweep == "default" || sweep == "query" {
        plan.queries = entry.query_sweep();
        if sweep == "default" {
            plan.builds = entry.build_sweep();
        }
        return Ok(plan);
    }
    for part in sweep
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, values) = parameter_values(part)?;
        // A name that is no knob goes to the queries, where it is refused with the list of those
        // there are.
        let side = if entry.build_knobs.iter().any(|knob| knob.name == name) {
            &mut plan.builds
        } else {
            &mut plan.queries
        };
        // Each setting so far is combined with each value of this parameter: after the last part
        // there is one setting for every combination.
        let with_each = |known: &Settings| -> Vec<Settings> {
            values
                .iter()
                .map(|&value| known.clone().with(name, value))
                .collect()
        };
        *side = side.iter().flat_map(with_each).collect();
    }
    Ok(plan)
}

/// A part of a sweep, "search_k=400,1000": the name and the values.
fn parameter_values(part: &str) -> Result<(&str, Vec<f64>), String> {
    let Some((name, values)) = part.split_once('=') else {
        return Err(format!("{part:?} in the sweep; expected name=value,value"));
    };
    let name = name.trim();
    let mut numbers = Vec::new();
    for text in values.split(',') {
        let number = text.trim().parse::<f64>();
        numbers.push(number.map_err(|error| format!("{name}={text:?}: {error}"))?);
    }
    Ok((name, numbers))
}

fn data(arguments: &Arguments) -> Result<Data, Box<dyn Error>> {
    // Read first: a wrong path should not be found out only after a net was trained for the
    // features.
    let own_queries = arguments.queries.as_ref().map(Vectors::read).transpose()?;
    let given = arguments.data.as_str();
    // The name, the base, and the queries that the data bring along.
    let (name, base, queries) = if ["pixels", "fashion"].contains(&given) {
        let fashion = fashion::load()?;
        ("pixels".to_owned(), fashion.train, Some(fashion.test))
    } else if let Some(width) = given.strip_prefix("features-") {
        let width = width
            .parse::<usize>()
            .map_err(|error| format!("--data {given}: {error}"))?;
        let features = features(width)?;
        (given.to_owned(), features.train, Some(features.test))
    } else if let Some(wanted) = given.strip_prefix("shape:") {
        let (name, Sample { base, queries }) = shape(wanted, arguments.n_queries)?;
        (name, Arc::new(base), Some(Arc::new(queries)))
    } else {
        // Any other word is a path. The file has no queries of its own.
        let stem = Path::new(given).file_stem();
        let name = stem.map_or(given.into(), |stem| stem.to_string_lossy());
        (name.into_owned(), Arc::new(Vectors::read(given)?), None)
    };
    // A file that was named goes before the queries that the data bring along.
    let queries = own_queries
        .or_else(|| queries.map(|queries| queries.as_ref().clone()))
        .ok_or("--queries: expected a file of queries to go with --data")?;
    Ok(Data {
        name: arguments.name.clone().unwrap_or(name),
        base,
        queries: queries.head(arguments.n_queries),
    })
}

/// Rows of a hard shape, where nothing else is asked for.
const SHAPE_ROWS: usize = 20_000;

/// "outlier_1e4,n=20000,d=32,seed=0": the shape's name, and a sample with so many queries.
fn shape(wanted: &str, queries: usize) -> Result<(String, Sample), String> {
    let (name, sizes) = wanted.split_once(',').unwrap_or((wanted, ""));
    let Some(shape) = shapes::find(name) else {
        return Err(format!("no shape {name:?}; --list has their names"));
    };
    let (mut rows, mut dim, mut seed) = (SHAPE_ROWS, shape.dim, 0);
    for part in sizes.split(',').filter(|part| !part.is_empty()) {
        let malformed = || format!("{part:?} of shape {name}; expected n=, d= or seed= a number");
        let (size, value) = part.split_once('=').ok_or_else(malformed)?;
        let value = value.parse::<u32>().map_err(|_| malformed())?;
        match size {
            "n" if value > 0 => rows = value as usize,
            "d" if value > 0 => dim = value as usize,
            "seed" => seed = u64::from(value),
            _ => return Err(malformed()),
        }
    }
    Ok((name.to_owned(), shape.sample(rows, queries, dim, seed)))
}

/// The images as the features of the report's CNN, which is learned first if it has not been.
#[cfg(feature = "net")]
fn features(width: usize) -> Result<fashion::Fashion, Box<dyn Error>> {
    use fashion_knn::net;
    let (data, cache) = (fashion::load()?, files::cache_dir());
    let tell = |epoch: &net::Epoch| println!("  {epoch}");
    let trained = net::learned(&net::Config::for_features(width), &data, &cache, tell)?;
    Ok(net::encoded(&trained.model, &data, &cache)?)
}

#[cfg(not(feature = "net"))]
fn features(width: usize) -> Result<fashion::Fashion, Box<dyn Error>> {
    let wanted = format!("--data features-{width}");
    Err(format!("{wanted}: built without the feature `net`, which learns them").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_shape_is_given_with_its_size_and_malformed_ones_are_refused() {
        let size = |wanted: &str| {
            let (name, Sample { base, queries }) = shape(wanted, 3).unwrap();
            (name, base.len(), base.dim(), queries.len())
        };
        assert_eq!(size("d2,n=50"), ("d2".to_owned(), 50, 2, 3));
        assert_eq!(
            size("noise_64,d=5,n=9,seed=1"),
            ("noise_64".to_owned(), 9, 5, 3)
        );
        for wanted in ["d4", "d2,n", "d2,n=0", "d2,d=0", "d2,m=3", "d2,n=1e3"] {
            assert!(shape(wanted, 3).is_err(), "{wanted}");
        }
    }

    #[test]
    fn unknown_indexes_and_malformed_sweeps_are_refused() {
        assert!(
            entries("brute_force, flat")
                .unwrap_err()
                .contains("\" flat\"")
        );
        assert_eq!(entries("all").unwrap().len(), REGISTRY.len());
        let entry = find("brute_force").unwrap();
        assert!(plan(entry, "search_k").unwrap_err().contains("name=value"));
        assert!(plan(entry, "search_k=many").unwrap_err().contains("many"));
        let Plan {
            builds, queries, ..
        } = plan(entry, "a=1,2; b=3").unwrap();
        assert_eq!((builds.len(), queries.len()), (1, 2));
        assert_eq!(
            queries[1],
            Settings::default().with("a", 2.0).with("b", 3.0)
        );
    }
}
