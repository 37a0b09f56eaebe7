//! Measures indexes and writes a row a run: `cargo run --release --bin measure -- --help`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fashion_knn::distance::Metric;
use fashion_knn::files;
use fashion_knn::index::registry::{REGISTRY, Settings};
use fashion_knn::lab::evaluate::{MOST_THREADS, on_threads};
use fashion_knn::lab::machine::Machine;
use fashion_knn::lab::record::{
    Measurement, RecordError, append_csv, check_csv, read_csv, replace_csv,
};
use fashion_knn::lab::shapes::{SHAPES, Shape};
use fashion_knn::lab::task::Task;
use fashion_knn::lab::tune::{Target, TuneError, Tuned, Tuner};
use fashion_knn::progress::{self, Step};
use indicatif::{ProgressBar, ProgressStyle};

mod data;
mod plan;
mod plot;
#[path = "../shared/say.rs"]
mod say;
mod shape;

use data::{Data, data};
use plan::{Plan, plans};

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
    /// ("shape:outlier_1e4,n=20000,d=32,seed=0"), or a file: .npy, .npz, .fvecs, .bvecs, .ivecs,
    /// .fbin, .u8bin, .i8bin, .hdf5; "file.hdf5:train" and "file.npz:name" name an array of several
    #[arg(long, default_value = "pixels")]
    data: String,
    /// A file with the queries, which must not be in the base. Without it --n-queries rows of a
    /// file, at most a tenth, are held out of the base; "pixels", features and shapes have queries
    /// of their own
    #[arg(long)]
    queries: Option<PathBuf>,
    /// What the record calls the data; by default "pixels", "features-128", or the file's name and
    /// the beginning of a hash of its values: "base@1b2c3d4e"
    #[arg(long)]
    name: Option<String>,
    /// By which metric: euclidean, cosine, inner_product, or manhattan, which some indexes take
    #[arg(long, default_value = "euclidean")]
    metric: Metric,
    /// How many neighbours to ask for; several counts share each build: "1,10,100"
    #[arg(long, default_value = "10", value_delimiter = ',', value_parser = at_least_one)]
    k: Vec<usize>,
    /// Threads of the build and of batches, 0 for one a core; single queries are answered on one
    #[arg(long, default_value_t = 1, value_parser = threads)]
    threads: usize,
    /// Ask the batches on so many threads as well, "1,2": rows of their own, without another build
    #[arg(long, value_delimiter = ',', value_parser = threads)]
    also_threads: Vec<usize>,
    /// How many of the queries to ask
    #[arg(long, default_value_t = 2_000, value_parser = at_least_one)]
    n_queries: usize,
    /// How many of the base vectors to search in: the first ones, for each count of "15000,30000"
    /// (all by default)
    #[arg(long, value_delimiter = ',', value_parser = at_least_one)]
    n_base: Vec<usize>,
    /// "default"; "query", its query parameters over the default build; or values to combine:
    /// "search_k=400,1000; n_trees=50", where parameters not named keep their default
    #[arg(long, default_value = "default")]
    sweep: String,
    /// Instead of a sweep, tune the query parameters for each recall of "0.90,0.95,0.99" on rows
    /// held out of the base, for the first k, and measure what comes of it on the queries
    #[arg(long, value_delimiter = ',', value_parser = share, conflicts_with = "sweep")]
    recall: Vec<f64>,
    /// The CSV file that the rows are added to. One that holds anything else is refused. Several
    /// programs can add to one file at once
    #[arg(long, default_value = "data/results/measured.csv")]
    out: PathBuf,
    /// Refuse files that lose more than rounding as float32, in which all is measured: rows of
    /// float64 that become equal or are too small, whole numbers that float32 does not have.
    /// Without this it is a warning
    #[arg(long)]
    strict: bool,
    /// Do not read the file of --data into memory, but look at it where it is: .fbin, .u8bin, or
    /// .npy of float32 or uint8. Nobody may change it meanwhile
    #[arg(long)]
    mmap: bool,
    /// Draw what is measured as queries per second against recall, a line an index: a file that
    /// ends in .svg or .html
    #[arg(long, conflicts_with = "export")]
    plot: Option<PathBuf>,
    /// Measure nothing; write base.npy, queries.npy and the true distances (distances.npy) to this
    /// folder, for other programs
    #[arg(long)]
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

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}; expected a number from 1 on")),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads) if threads <= MOST_THREADS => Ok(threads),
        _ => Err(format!("expected 0 to {MOST_THREADS} threads")),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1".to_owned()),
    }
}

fn main() -> ExitCode {
    say::status(run(&Arguments::parse()))
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
    let plans = plans(&arguments.index, &arguments.sweep, arguments.metric)?;
    match &arguments.export {
        Some(folder) => files::check_folder(folder)
            .map_err(|error| format!("--export {}: {error}", folder.display()))?,
        None => check_csv(&arguments.out)?,
    }
    if let Some(path) = &arguments.plot {
        plot::check(path, arguments.k.len() * arguments.n_base.len().max(1))?;
    }
    for &threads in arguments.also_threads.iter().chain([&arguments.threads]) {
        on_threads(threads, || ())?;
    }
    let data = data(arguments)?;
    let sizes = sizes(arguments, data.base.len())?;
    if let Some(told) = &data.held_out {
        say::line(told);
    }
    // With the true distances: another program's recall is then counted as ours is.
    if let Some(folder) = &arguments.export {
        if sizes.len() > 1 {
            return Err("--export: expected one --n-base".into());
        }
        task(arguments, &data, sizes[0])?.export(folder)?;
        let folder = folder.display();
        say::line(format_args!(
            "base.npy, queries.npy and distances.npy are in {folder}"
        ));
        return Ok(());
    }
    let mut rows = Vec::new();
    // One task for each size: a smaller base has other true neighbours.
    for size in sizes {
        let task = task(arguments, &data, size)?;
        rows.extend(if arguments.recall.is_empty() {
            sweep(&task, &plans, &arguments.out)?
        } else {
            tuned(&task, &plans, &arguments.recall, &arguments.out)?
        });
    }
    let (count, out) = (rows.len(), arguments.out.display());
    say::line(format_args!("{count} rows added to {out}"));
    #[cfg(feature = "report")]
    if let Some(path) = &arguments.plot {
        plot::draw(path, &rows)?;
        say::line(format_args!("their chart is {}", path.display()));
    }
    Ok(())
}

/// How many of the base's `rows` vectors to search in. Each count has to be there, and to have the
/// neighbours that are asked for.
fn sizes(arguments: &Arguments, rows: usize) -> Result<Vec<usize>, String> {
    let sizes = match &arguments.n_base[..] {
        [] => vec![rows],
        some => some.to_vec(),
    };
    let most = arguments.k.iter().copied().max().unwrap_or(0);
    for &size in &sizes {
        if size > rows {
            return Err(format!("--n-base {size}: the base has {rows} vectors"));
        }
        if most > size {
            return Err(format!(
                "--k {most}: a base of {size} vectors has no {most} neighbours"
            ));
        }
    }
    Ok(sizes)
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
    let (count, out) = (rows.len(), out.display());
    say::line(format_args!("{count} rows put into {out}"));
    Ok(())
}

/// The first `size` vectors of the base, the queries and their true neighbours.
fn task(arguments: &Arguments, data: &Data, size: usize) -> Result<Task, Box<dyn Error>> {
    let base = if size < data.base.len() {
        Arc::new(data.base.head(size))
    } else {
        data.base.clone()
    };
    let (name, k) = (&data.name, &arguments.k);
    let by = match arguments.metric {
        Metric::Euclidean => String::new(),
        other => format!(", by {}", other.name()),
    };
    let (n, d, queries) = (base.len(), base.dim(), data.queries.len());
    say::line(format_args!(
        "{name}: {n} × {d}, {queries} queries, k = {k:?}{by}"
    ));
    // The true neighbours come out of the cache, or are computed and put there.
    let (queries, cache) = (data.queries.clone(), files::cache_dir());
    let mut task = Task::by(
        arguments.metric,
        name,
        base,
        queries,
        k,
        arguments.threads,
        Some(&cache),
    )?;
    task.also_threads.clone_from(&arguments.also_threads);
    if let Some(why) = task.unkept() {
        say::aside(format_args!(
            "warning: the true neighbours are not kept, and have to be computed again the next \
             time: {why} (FASHION_KNN_DATA names another folder)"
        ));
    }
    Ok(task)
}

fn bar(runs: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {eta} {msg}")?;
    Ok(ProgressBar::new(runs as u64).with_style(style))
}

/// Writes how far the build of an index is beside the bar.
fn tell_on(bar: &ProgressBar, index: &'static str) -> impl Fn(Step) + Send + Sync + 'static {
    // A clone is the same bar.
    let bar = bar.clone();
    move |step| {
        let (stage, percent) = (step.stage, step.percent());
        bar.set_message(format!("{index}: building, {stage} {percent} %"));
    }
}

/// Measures every setting of the plans; the rows that gave.
fn sweep(task: &Task, plans: &[Plan], out: &Path) -> Result<Vec<Measurement>, Box<dyn Error>> {
    // A run for each build, each setting of the queries and each k.
    let settings = plans
        .iter()
        .map(|plan| plan.builds.len() * plan.queries.len());
    let runs = settings.sum::<usize>() * task.ks.len() * (1 + task.also_threads.len());
    let bar = bar(runs)?;
    let mut all = Vec::new();
    for Plan {
        entry,
        builds,
        queries,
    } in plans
    {
        for build in builds {
            bar.set_message(format!("{}: building", entry.key));
            let mut rows = Vec::new();
            let observer = tell_on(&bar, entry.key);
            let run = progress::observe(observer, || {
                task.run(entry, build, queries, |row| {
                    // The bar is taken away while a line is printed, or the two would mix.
                    bar.suspend(|| print(&row));
                    bar.inc(1);
                    bar.set_message(format!("{}: asking", entry.key));
                    rows.push(row);
                })
            });
            // After each build: an interruption loses no more than that. Also after a run that
            // failed: what was measured before is true.
            keep(out, &rows)?;
            run?;
            all.extend(rows);
        }
    }
    bar.finish_and_clear();
    Ok(all)
}

/// Adds the rows to the file, if there are any.
fn keep(out: &Path, rows: &[Measurement]) -> Result<(), RecordError> {
    if rows.is_empty() {
        return Ok(());
    }
    append_csv(out, rows)
}

/// Tunes each index for each recall and measures the settings found; the rows that gave.
fn tuned(
    task: &Task,
    plans: &[Plan],
    recalls: &[f64],
    out: &Path,
) -> Result<Vec<Measurement>, Box<dyn Error>> {
    let bar = bar(plans.len())?;
    let mut all = Vec::new();
    for &Plan { entry, .. } in plans {
        bar.set_message(format!("{}: tuning", entry.key));
        let target = Target {
            k: task.ks[0],
            ..Target::default()
        };
        // The tuner holds rows out of the base and never sees the queries: parameters chosen on the
        // queries themselves would look better than they are.
        let tuner = Tuner::by(
            task.metric,
            entry,
            &task.base,
            &Settings::default(),
            &target,
        )?;
        let mut rows = Vec::new();
        // In one run, so that all settings share a build. It gives the rows setting after setting,
        // and for each a row for every k and number of threads. So each recall is repeated as
        // often.
        let (wanted, settings) = reached(&tuner, recalls, &bar)?;
        let mut wanted = wanted
            .iter()
            .flat_map(|&recall| vec![recall; task.ks.len() * (1 + task.also_threads.len())]);
        let run = task.run(entry, &Settings::default(), &settings, |mut row| {
            bar.suspend(|| print(&row));
            if let Some(recall) = wanted.next() {
                // The recall that was asked for stands with the parameters, to tell it from the
                // recall that came of them.
                row.params = row.params.with_first("target_recall", recall);
            }
            rows.push(row);
        });
        bar.inc(1);
        keep(out, &rows)?;
        run?;
        all.extend(rows);
    }
    bar.finish_and_clear();
    Ok(all)
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
            Err(error @ TuneError::Unreachable { .. }) => bar.suspend(|| say::line(error)),
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
    say::line(format_args!(
        "{index:<16} k {k:>3}  recall {recall:.4}  {speed}  {latency}  {cost}  {params}"
    ));
}

fn list() {
    for entry in REGISTRY {
        let kind = if entry.exact { "exact" } else { "approximate" };
        say::line(format_args!("{}: {}, {kind}", entry.key, entry.name));
        for (kind, knobs) in [("build", entry.build_knobs), ("query", entry.query_knobs)] {
            for knob in knobs {
                let (name, default, help) = (knob.name, knob.default, knob.help);
                say::line(format_args!(
                    "    {name} ({kind}, default {default}): {help}"
                ));
            }
        }
    }
    say::line("");
    for Shape {
        name, dim, breaks, ..
    } in SHAPES
    {
        say::line(format_args!("shape:{name}: d = {dim}; breaks {breaks}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
