//! Trains the report's models, extracts the features of all images, and writes `data/results/models.csv`.
//!
//! What was trained before is loaded; a training that was killed goes on.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use fashion_knn::net::{Config, Labelled, Options, Trained, cached_features, train};
use fashion_knn::{fashion, files};
use serde::{Deserialize, Serialize};

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
    /// Results; a row of another model that is there stays. [default: data/results/models.csv, or nothing where
    /// --epochs, --images or --seed make the figures others than the report's]
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

/// A line of the results.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    model: String,
    params: usize,
    epochs: usize,
    train_s: f64,
    images_per_s: u64,
    test_accuracy: f64,
    val_accuracy: f64,
    seed: u64,
    cpu: String,
    date: String,
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
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()?;
    }
    let data = fashion::load()?;
    let all = Labelled::new(&data.train, &data.train_labels)?;
    let train_set = all.head(arguments.images.unwrap_or(all.len()));
    let test = Labelled::new(&data.test, &data.test_labels)?;
    let learn = |config: Config| -> Result<(Config, Trained), Box<dyn Error>> {
        let mut config = Config {
            seed: arguments.seed,
            ..config
        };
        config.epochs = arguments.epochs.unwrap_or(config.epochs);
        let config = config.limited(usize::MAX, train_set.len());
        let (name, width) = (config.model.name(), config.model.feature_width());
        println!(
            "{name}, {width} features, {} parameters",
            config.model.parameters()
        );
        let options = Options {
            checkpoint: Some(config.checkpoint_in(&arguments.cache, train_set, test)),
            again: arguments.again,
        };
        let trained = train(&config, train_set, test, &options, |epoch| {
            println!("  {epoch}")
        })?;
        println!(
            "  test {:.4}, validation {:.4}, {:.1} s, {:.0} images/s{}",
            trained.test_accuracy,
            trained.validation_accuracy(),
            trained.seconds(),
            trained.images_per_s(),
            if trained.loaded { " (loaded)" } else { "" }
        );
        Ok((config, trained))
    };
    let extract = |trained: &Trained| -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        for images in [&data.train, &data.test] {
            cached_features(&trained.model, images, &arguments.cache)?;
        }
        println!(
            "  features of {} images, {:.1} s",
            all.len() + test.len(),
            start.elapsed().as_secs_f64()
        );
        Ok(())
    };

    let mut rows = Vec::new();
    for name in &arguments.models {
        let (config, trained) = learn(match name {
            Name::Logistic => Config::logistic(),
            Name::Svm => Config::svm(),
            Name::Mlp => Config::mlp(),
            Name::Cnn => Config::cnn(),
        })?;
        if matches!(name, Name::Mlp | Name::Cnn) {
            extract(&trained)?;
        }
        rows.push(Row {
            model: config.model.name().to_owned(),
            params: config.model.parameters(),
            epochs: config.epochs,
            train_s: round(trained.seconds(), 1),
            images_per_s: trained.images_per_s().round() as u64,
            test_accuracy: round(trained.test_accuracy, 4),
            val_accuracy: round(trained.validation_accuracy(), 4),
            seed: config.seed,
            cpu: cpu(),
            date: today(),
        });
    }
    for &fc2 in &arguments.widths {
        extract(&learn(Config::short_cnn(fc2))?.1)?;
    }
    let default = || {
        let own = arguments.epochs.is_none() && arguments.images.is_none() && arguments.seed == 0;
        own.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("data/results/models.csv"))
    };
    if let Some(out) = arguments.out.clone().or_else(default)
        && !rows.is_empty()
    {
        write(&out, rows)?;
        println!("wrote {}", out.display());
    }
    Ok(())
}

/// Writes the rows, those of other models in the file kept, under a temporary name that then takes the file's place.
fn write(out: &Path, rows: Vec<Row>) -> Result<(), Box<dyn Error>> {
    let mut kept: Vec<Row> = match out.exists() {
        true => csv::Reader::from_path(out)?
            .deserialize()
            .collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    kept.retain(|kept| rows.iter().all(|row| row.model != kept.model));
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut writer = csv::Writer::from_writer(tempfile::NamedTempFile::new_in(folder)?);
    for row in kept.into_iter().chain(rows) {
        writer.serialize(row)?;
    }
    writer.into_inner()?.persist(out)?;
    Ok(())
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// The processor's name and how many threads work on it.
fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "{} × {}",
        rayon::current_num_threads(),
        name.map_or(std::env::consts::ARCH, |(_, name)| name)
    )
}

/// The day in UTC, as 2026-11-22.
fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    // The proleptic Gregorian calendar in eras of 400 years that begin in March (Hinnant, "chrono-compatible
    // low-level date algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    format!(
        "{:04}-{month:02}-{day:02}",
        era * 400 + year + u64::from(month <= 2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn rows_of_other_models_stay() {
        let row = |model: &str, seed| Row {
            model: model.to_owned(),
            params: 1,
            epochs: 1,
            train_s: 0.5,
            images_per_s: 2,
            test_accuracy: 0.1,
            val_accuracy: 0.2,
            seed,
            cpu: "2 × a, b".to_owned(),
            date: today(),
        };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/models.csv");
        write(&out, vec![row("svm", 1), row("cnn", 1)]).unwrap();
        write(&out, vec![row("cnn", 2)]).unwrap();
        let rows: Vec<Row> = csv::Reader::from_path(&out)
            .unwrap()
            .deserialize()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            rows.iter()
                .map(|row| (row.model.as_str(), row.seed))
                .collect::<Vec<_>>(),
            [("svm", 1), ("cnn", 2)]
        );
        let header =
            "model,params,epochs,train_s,images_per_s,test_accuracy,val_accuracy,seed,cpu,date";
        assert_eq!(
            fs::read_to_string(&out).unwrap().lines().next(),
            Some(header)
        );
        assert_eq!(
            fs::read_dir(out.parent().unwrap()).unwrap().count(),
            1,
            "a temporary file is left"
        );
    }
}
