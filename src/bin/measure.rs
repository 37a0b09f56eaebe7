//! Measures indexes and writes a row a run: `cargo run --release --bin measure -- --help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fashion_knn::index::registry::{Entry, REGISTRY, Settings, find};
use fashion_knn::lab::task::{Measurement, Task, append_csv};
use fashion_knn::lab::tune::{Target, TuneError, Tuner};
use fashion_knn::vectors::Vectors;
use fashion_knn::{fashion, files};
use indicatif::{ProgressBar, ProgressStyle};

/// Measure k-nearest-neighbour indexes: recall, queries per second, latency, build time and memory.
///
/// Every combination of parameters is one run and one row of the CSV file. Recall is counted by distance, so that ties
/// are hits; the true neighbours are computed once and kept in data/cache.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which indexes: names separated by commas, or "all"
    #[arg(long, default_value = "all")]
    index: String,
    /// What to search in: "pixels" (Fashion-MNIST, also "fashion"), "features-128" (of a net; any width), or a .npy, .fvecs
    /// or .bvecs file
    #[arg(long, default_value = "pixels")]
    data: String,
    /// A file with the queries, which must not be in the base; "pixels" and features have their own
    #[arg(long)]
    queries: Option<PathBuf>,
    /// How many neighbours to ask for; several counts share each build: "1,10,100"
    #[arg(long, default_value = "10", value_delimiter = ',')]
    k: Vec<usize>,
    /// Threads of the build and of batches, 0 for one a core; single queries are answered on one
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many of the queries to ask
    #[arg(long, default_value_t = 2_000)]
    n_queries: usize,
    /// How many of the base vectors to search in: the first ones, for each count of "15000,30000" (all by default)
    #[arg(long, value_delimiter = ',')]
    n_base: Vec<usize>,
    /// "default"; "query", its query parameters over the default build; or values to combine: "search_k=400,1000;
    /// n_trees=50", where parameters not named keep their default
    #[arg(long, default_value = "default")]
    sweep: String,
    /// Instead of a sweep, tune the query parameters for each recall of "0.90,0.95,0.99" on rows held out of the base, for
    /// the first k, and measure what comes of it on the queries
    #[arg(long, value_delimiter = ',', conflicts_with = "sweep")]
    recall: Vec<f64>,
    /// The CSV file that the rows are added to
    #[arg(long, default_value = "data/results/measured.csv")]
    out: PathBuf,
    /// Measure nothing; write base.npy, queries.npy and the true distances (distances.npy) to this folder, for other programs
    #[arg(long, conflicts_with = "n_base")]
    export: Option<PathBuf>,
    /// Only list the indexes and their parameters
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

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if arguments.list {
        list();
        return Ok(());
    }
    let entries = entries(&arguments.index)?;
    let plans: Vec<_> = entries
        .iter()
        .map(|entry| plan(entry, &arguments.sweep))
        .collect::<Result<_, _>>()?;
    let (name, base, queries) = data(arguments)?;
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cache");
    let sizes = if arguments.n_base.is_empty() {
        vec![base.len()]
    } else {
        arguments.n_base.clone()
    };
    let mut rows = 0;
    for size in sizes {
        let base = if size < base.len() {
            Arc::new(base.head(size))
        } else {
            base.clone()
        };
        println!(
            "{name}: {} × {}, {} queries, k = {:?}",
            base.len(),
            base.dim(),
            queries.len(),
            arguments.k
        );
        let task = Task::new(
            &name,
            base,
            queries.clone(),
            &arguments.k,
            arguments.threads,
            Some(&cache),
        )?;
        if let Some(folder) = &arguments.export {
            task.export(folder)?;
            println!(
                "base.npy, queries.npy and distances.npy are in {}",
                folder.display()
            );
            return Ok(());
        }
        rows += if arguments.recall.is_empty() {
            sweep(&task, &entries, &plans, &arguments.out)?
        } else {
            tuned(&task, &entries, &arguments.recall, &arguments.out)?
        };
    }
    println!("{rows} rows added to {}", arguments.out.display());
    Ok(())
}

fn bar(runs: usize) -> Result<ProgressBar, Box<dyn std::error::Error>> {
    Ok(
        ProgressBar::new(runs as u64).with_style(ProgressStyle::with_template(
            "{bar:24} {pos}/{len} {eta} {msg}",
        )?),
    )
}

/// Measures every setting of the plans; how many rows that gave.
fn sweep(
    task: &Task,
    entries: &[&'static Entry],
    plans: &[Plan],
    out: &Path,
) -> Result<usize, Box<dyn std::error::Error>> {
    let runs: usize = plans
        .iter()
        .map(|(builds, queries)| builds.len() * queries.len() * task.ks.len())
        .sum();
    let bar = bar(runs)?;
    for (entry, (builds, queries)) in entries.iter().zip(plans) {
        for build in builds {
            bar.set_message(format!("{}: building", entry.key));
            let mut rows = Vec::new();
            task.run(entry, build, queries, |row| {
                bar.suspend(|| print(&row));
                bar.inc(1);
                rows.push(row);
            })?;
            append_csv(out, &rows)?;
        }
    }
    bar.finish_and_clear();
    Ok(runs)
}

/// Tunes each index for each recall and measures the settings found; how many rows that gave.
fn tuned(
    task: &Task,
    entries: &[&'static Entry],
    recalls: &[f64],
    out: &Path,
) -> Result<usize, Box<dyn std::error::Error>> {
    let bar = bar(entries.len())?;
    let mut count = 0;
    for entry in entries {
        bar.set_message(format!("{}: tuning", entry.key));
        let (mut wanted, mut settings) = (Vec::new(), Vec::new());
        let tuner = Tuner::new(
            entry,
            &task.base,
            &Settings::default(),
            &Target {
                k: task.ks[0],
                ..Target::default()
            },
        )?;
        for &recall in recalls {
            match tuner.reach(recall) {
                Err(error @ TuneError::Unreachable { .. }) => bar.suspend(|| println!("{error}")),
                found => {
                    wanted.push(recall);
                    settings.push(found?.settings);
                }
            }
        }
        let mut rows = Vec::new();
        let mut wanted = wanted.iter().flat_map(|recall| vec![recall; task.ks.len()]);
        task.run(entry, &Settings::default(), &settings, |mut row| {
            bar.suspend(|| print(&row));
            if let Some(recall) = wanted.next() {
                row.params = format!("target_recall={recall} {}", row.params)
                    .trim_end()
                    .to_owned();
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

fn print(row: &Measurement) {
    println!(
        "{:<16} k {:>3}  recall {:.4}  {:>8.0} queries/s  batch {:>8.0}  p50 {:>7.1} µs  p99 {:>7.1} µs  build {:>6.2} s  {:>6.1} MB  {}",
        row.index,
        row.k,
        row.recall,
        row.qps,
        row.qps_batch,
        row.p50_us,
        row.p99_us,
        row.build_s,
        row.memory_bytes as f64 / 1e6,
        row.params
    );
}

fn list() {
    for entry in REGISTRY {
        println!(
            "{}: {}, {}",
            entry.key,
            entry.name,
            if entry.exact { "exact" } else { "approximate" }
        );
        for (kind, knobs) in [("build", entry.build_knobs), ("query", entry.query_knobs)] {
            for knob in knobs {
                println!(
                    "    {} ({kind}, default {}): {}",
                    knob.name, knob.default, knob.help
                );
            }
        }
    }
}

fn entries(names: &str) -> Result<Vec<&'static Entry>, String> {
    if names == "all" {
        return Ok(REGISTRY.iter().collect());
    }
    let known = || {
        REGISTRY
            .iter()
            .map(|entry| entry.key)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let entry = |name: &str| {
        find(name.trim())
            .ok_or_else(|| format!("no index {name:?}; expected all, or some of {}", known()))
    };
    names.split(',').map(entry).collect()
}

/// The settings of the builds, and those of the queries of each build.
type Plan = (Vec<Settings>, Vec<Settings>);

fn plan(entry: &Entry, sweep: &str) -> Result<Plan, String> {
    if sweep == "default" {
        return Ok((entry.build_sweep(), entry.query_sweep()));
    }
    if sweep == "query" {
        return Ok((vec![Settings::default()], entry.query_sweep()));
    }
    let (mut builds, mut queries) = (vec![Settings::default()], vec![Settings::default()]);
    for part in sweep
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, values) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} in the sweep; expected name=value,value"))?;
        let name = name.trim();
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .map_err(|error| format!("{name}={text:?}: {error}"))
        };
        let values = values
            .split(',')
            .map(number)
            .collect::<Result<Vec<_>, _>>()?;
        // A name that is no knob goes to the queries, where it is refused with the list of those there are.
        let side = if entry.build_knobs.iter().any(|knob| knob.name == name) {
            &mut builds
        } else {
            &mut queries
        };
        *side = side
            .iter()
            .flat_map(|known| values.iter().map(|&value| known.clone().with(name, value)))
            .collect();
    }
    Ok((builds, queries))
}

fn data(
    arguments: &Arguments,
) -> Result<(String, Arc<Vectors>, Vectors), Box<dyn std::error::Error>> {
    let own = arguments.queries.as_ref().map(Vectors::read).transpose()?;
    if ["pixels", "fashion"].contains(&arguments.data.as_str()) {
        let fashion = fashion::load()?;
        let queries = own
            .unwrap_or_else(|| fashion.test.as_ref().clone())
            .head(arguments.n_queries);
        return Ok(("pixels".to_owned(), fashion.train, queries));
    }
    if let Some(width) = arguments.data.strip_prefix("features-") {
        let features = features(
            width
                .parse()
                .map_err(|error| format!("--data {}: {error}", arguments.data))?,
        )?;
        let queries = own
            .unwrap_or_else(|| features.test.as_ref().clone())
            .head(arguments.n_queries);
        return Ok((arguments.data.clone(), features.train, queries));
    }
    let base = Vectors::read(&arguments.data)?;
    let queries = own
        .ok_or("--queries: expected a file of queries to go with --data")?
        .head(arguments.n_queries);
    let name = Path::new(&arguments.data).file_stem().map_or_else(
        || arguments.data.clone(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    Ok((name, Arc::new(base), queries))
}

/// The images as the features of the report's CNN, which is learned first if it has not been.
#[cfg(feature = "net")]
fn features(width: usize) -> Result<fashion::Fashion, Box<dyn std::error::Error>> {
    use fashion_knn::net;
    let (data, cache) = (fashion::load()?, files::cache_dir());
    let trained = net::learned(&net::Config::for_features(width), &data, &cache, |epoch| {
        println!("  {epoch}")
    })?;
    Ok(net::encoded(&trained.model, &data, &cache)?)
}

#[cfg(not(feature = "net"))]
fn features(width: usize) -> Result<fashion::Fashion, Box<dyn std::error::Error>> {
    Err(
        format!("--data features-{width}: built without the feature `net`, which learns them")
            .into(),
    )
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
        let (builds, queries) = plan(entry, "a=1,2; b=3").unwrap();
        assert_eq!((builds.len(), queries.len()), (1, 2));
        assert_eq!(
            queries[1],
            Settings::default().with("a", 2.0).with("b", 3.0)
        );
    }
}
