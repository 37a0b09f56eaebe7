//! Trains the report's models, extracts the features of all images, and writes
//! `data/results/models.csv`.
//!
//! What was trained before is loaded; a training that was killed goes on.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use fashion_knn::fashion::{self, Fashion};
use fashion_knn::files;
use fashion_knn::lab::evaluate::MOST_THREADS;
use fashion_knn::lab::machine::{Machine, round, today};
use fashion_knn::lab::record::{RecordError, change_table, check_table};
use fashion_knn::net::{Config, Epoch, Labelled, Options, Trained, cached_features, train};
use serde::{Deserialize, Serialize};

#[path = "shared/say.rs"]
mod say;

/// Train the report's models and extract their features.
#[derive(Debug, Parser)]
struct Arguments {
    /// Models to train.
    #[arg(long, value_delimiter = ',', default_value = "logistic,svm,mlp,cnn")]
    models: Vec<Name>,
    /// Widths of fc2 for which to train a short CNN more and extract its features.
    #[arg(long, value_delimiter = ',')]
    widths: Vec<usize>,
    /// Epochs, instead of each model's own number.
    #[arg(long)]
    epochs: Option<usize>,
    /// Train on the first so many images only, a twelfth of them held out: for a quick look.
    #[arg(long)]
    images: Option<usize>,
    /// Seed of everything that is random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Learn again what has been learned before.
    #[arg(long)]
    again: bool,
    /// Folder of checkpoints and features.
    #[arg(long, default_value_os_t = files::cache_dir())]
    cache: PathBuf,
    /// Results; a row of another model that is there stays. [default: results/models.csv in the
    /// data folder, or nothing where --epochs, --images or --seed make the figures others than the
    /// report's]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Name {
    Logistic,
    Svm,
    Mlp,
    Cnn,
}

impl Name {
    /// The model of the report with this name.
    fn config(self) -> Config {
        match self {
            Self::Logistic => Config::logistic(),
            Self::Svm => Config::svm(),
            Self::Mlp => Config::mlp(),
            Self::Cnn => Config::cnn(),
        }
    }

    /// Whether the report uses what its last layer but one computes.
    fn has_features(self) -> bool {
        matches!(self, Self::Mlp | Self::Cnn)
    }
}

/// The columns of the results, in the order of [`Row`]'s fields.
const COLUMNS: [&str; 16] = [
    "model",
    "params",
    "epochs",
    "train_s",
    "images_per_s",
    "test_accuracy",
    "val_accuracy",
    "seed",
    "threads",
    "cpu",
    "cpu_family",
    "cpu_model",
    "simd",
    "cores",
    "bandwidth_gb_s",
    "date",
];

/// A line of the results: what a training gave, and on which machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    model: String,
    /// How many numbers are learned.
    params: usize,
    epochs: usize,
    train_s: f64,
    images_per_s: u64,
    test_accuracy: f64,
    val_accuracy: f64,
    seed: u64,
    threads: usize,
    cpu: String,
    /// Unknown in rows older than this column, as are the next four.
    cpu_family: Option<u32>,
    cpu_model: Option<u32>,
    simd: Option<String>,
    cores: Option<usize>,
    bandwidth_gb_s: Option<f64>,
    date: String,
}

impl Row {
    fn new(config: &Config, trained: &Trained, machine: &Machine) -> Self {
        Self {
            model: config.model.name().to_owned(),
            params: config.model.parameters(),
            epochs: config.epochs,
            train_s: round(trained.seconds(), 1),
            images_per_s: trained.images_per_s().round() as u64,
            test_accuracy: round(trained.test_accuracy, 4),
            val_accuracy: round(trained.validation_accuracy(), 4),
            seed: config.seed,
            threads: rayon::current_num_threads(),
            cpu: machine.cpu.clone(),
            cpu_family: machine.cpu_family,
            cpu_model: machine.cpu_model,
            simd: Some(machine.simd.clone()),
            cores: Some(machine.cores),
            bandwidth_gb_s: Some(machine.bandwidth_gb_s),
            date: today(),
        }
    }
}

fn main() -> ExitCode {
    say::status(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(threads) = arguments.threads {
        if threads > MOST_THREADS {
            return Err(format!("--threads {threads}: expected at most {MOST_THREADS}").into());
        }
        // The global pool can be set up once, before its first use. All of the training runs on it.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global()?;
    }
    // A training can take hours: whether its figures can be written is tried before.
    // Nets of other widths alone have no figures.
    let out = results_file(arguments).filter(|_| !arguments.models.is_empty());
    if let Some(out) = &out {
        check_table::<Row>(out, &COLUMNS)?;
    }
    let data = fashion::load()?;
    let mut rows = Vec::new();
    for name in &arguments.models {
        let (config, trained) = learn(name.config(), &data, arguments)?;
        if name.has_features() {
            extract(&trained, &data, &arguments.cache)?;
        }
        // A model that was loaded has the seconds of its own training in its history. The machine
        // and the date in the row are those of today.
        rows.push(Row::new(&config, &trained, Machine::here()));
    }
    // Nets of other widths are not in the results. The report wants only their features.
    for &fc2 in &arguments.widths {
        let (_, trained) = learn(Config::short_cnn(fc2), &data, arguments)?;
        extract(&trained, &data, &arguments.cache)?;
    }
    if let Some(out) = out {
        write(&out, rows)?;
        say::line(format_args!("wrote {}", out.display()));
    }
    Ok(())
}

/// Trains a model as the command line wants it, or loads it; the configuration that was trained.
fn learn(
    config: Config,
    data: &Fashion,
    arguments: &Arguments,
) -> Result<(Config, Trained), Box<dyn Error>> {
    let all = Labelled::new(&data.train, &data.train_labels)?;
    // Only the training set is cut. The test images stay all 10,000, so that accuracies can be
    // compared.
    let images = all.head(arguments.images.unwrap_or(all.len()));
    let test = Labelled::new(&data.test, &data.test_labels)?;
    let mut config = Config {
        seed: arguments.seed,
        ..config
    };
    config.epochs = arguments.epochs.unwrap_or(config.epochs);
    // The number of epochs stays as it is; only the images held out become a twelfth, if fewer are
    // there.
    let config = config.limited(usize::MAX, images.len());
    let (name, width) = (config.model.name(), config.model.feature_width());
    let parameters = config.model.parameters();
    say::line(format_args!(
        "{name}, {width} features, {parameters} parameters"
    ));
    let options = Options {
        checkpoint: Some(config.checkpoint_in(&arguments.cache, images, test)),
        again: arguments.again,
    };
    let tell = |epoch: &Epoch| say::line(format_args!("  {epoch}"));
    // The name of the checkpoint has a hash of configuration and data, so that a quick look does
    // not overwrite a whole training.
    let trained = train(&config, images, test, &options, tell)?;
    say::line(format_args!(
        "  test {:.4}, validation {:.4}, {:.1} s, {:.0} images/s{}",
        trained.test_accuracy,
        trained.validation_accuracy(),
        trained.seconds(),
        trained.images_per_s(),
        if trained.loaded { " (loaded)" } else { "" }
    ));
    Ok((config, trained))
}

/// Computes the features of all images, which stay in the cache.
fn extract(trained: &Trained, data: &Fashion, cache: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    for images in [&data.train, &data.test] {
        cached_features(&trained.model, images, cache)?;
    }
    let (count, seconds) = (data.train.len() + data.test.len(), start.elapsed());
    say::line(format_args!(
        "  features of {count} images, {:.1} s",
        seconds.as_secs_f64()
    ));
    Ok(())
}

/// The file that the rows go to: the one that is named, or the report's if they are its figures.
fn results_file(arguments: &Arguments) -> Option<PathBuf> {
    // Other settings give other figures. They go to a file only if one was named.
    let as_in_report =
        arguments.epochs.is_none() && arguments.images.is_none() && arguments.seed == 0;
    let report = || as_in_report.then(|| files::data_dir().join("results/models.csv"));
    arguments.out.clone().or_else(report)
}

/// Writes the rows; those of other models in the file stay, before them.
fn write(out: &Path, rows: Vec<Row>) -> Result<(), RecordError> {
    change_table(out, &COLUMNS, |all: &mut Vec<Row>| {
        // One row a model: the new ones take the place of the old.
        all.retain(|old| rows.iter().all(|row| row.model != old.model));
        all.extend(rows);
    })
}

#[cfg(test)]
mod tests {
    use fashion_knn::lab::record::read_table;

    use super::*;

    use std::fs;

    #[test]
    fn the_command_line_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    fn row(model: &str, seed: u64) -> Row {
        Row {
            model: model.to_owned(),
            params: 1,
            epochs: 1,
            train_s: 0.5,
            images_per_s: 2,
            test_accuracy: 0.1,
            val_accuracy: 0.2,
            seed,
            threads: 2,
            cpu: "a, b".to_owned(),
            cpu_family: Some(25),
            cpu_model: None,
            simd: None,
            cores: Some(2),
            bandwidth_gb_s: Some(20.5),
            date: today(),
        }
    }

    #[test]
    fn rows_of_other_models_stay() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/models.csv");
        write(&out, vec![row("svm", 1), row("cnn", 1)]).unwrap();
        write(&out, vec![row("cnn", 2)]).unwrap();
        let rows: Vec<Row> = read_table(&out, &COLUMNS).unwrap();
        assert_eq!(rows, [row("svm", 1), row("cnn", 2)]);
        let text = fs::read_to_string(&out).unwrap();
        assert_eq!(text.lines().next(), Some(COLUMNS.join(",").as_str()));
        let files = fs::read_dir(out.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "a temporary file is left");
    }

    #[test]
    fn the_columns_are_the_fields() {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(row("svm", 1)).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        assert_eq!(text.lines().next(), Some(COLUMNS.join(",").as_str()));
    }

    #[test]
    fn another_table_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("models.csv");
        let text = "model,params,epochs,colour\nsvm,1,1,red\n";
        fs::write(&out, text).unwrap();
        let error = write(&out, vec![row("svm", 1)]).unwrap_err().to_string();
        let expected = "models.csv: column 4 is \"colour\"; expected \"train_s\"";
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read_to_string(&out).unwrap(), text);
    }

    /// The committed table of the report's models is one of these.
    #[test]
    fn the_reports_models_are_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/results/models.csv");
        let rows: Vec<Row> = read_table(&file, &COLUMNS).unwrap();
        let models: Vec<_> = rows.iter().map(|row| row.model.as_str()).collect();
        assert_eq!(models, ["logistic", "svm", "mlp", "cnn"]);
    }
}
