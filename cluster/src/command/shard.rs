//! `knn-cluster shard`: vectors out of files, into Parquet.

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use fashion_knn::fashion;
use fashion_knn::vectors::{Storage, Vectors};
use indicatif::ProgressBar;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::Error;
use crate::schema::VectorType;
use crate::write::{Source, write_shards};

/// Write vectors as Parquet shards: a base as many, queries as one
#[derive(Debug, Args)]
pub struct Shard {
    /// What is written: .npy, .fvecs or .bvecs files (ids go on from one to the next);
    /// fashion-mnist (the 60,000 training images), fashion-mnist-test;
    /// random:ROWSxDIM or random:ROWSxDIM:SEED (bytes)
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<Data>,
    /// The folder, which must not be there, or be empty
    #[arg(long)]
    out: PathBuf,
    /// How many files
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Take only the first rows
    #[arg(long)]
    rows: Option<u64>,
    /// The id of the first row; the others follow
    #[arg(long, default_value_t = 0)]
    first_id: u64,
}

impl Shard {
    /// Runs it.
    ///
    /// # Errors
    /// If the data cannot be read, or the folder not be made. Then there is no folder.
    pub fn run(self) -> Result<String, Error> {
        let mut source = Parts::new(self.data, self.rows)?;
        let bar = ProgressBar::new(self.shards as u64);
        let written = |_| bar.inc(1);
        let result = write_shards(&self.out, &mut source, self.shards, self.first_id, written);
        bar.finish_and_clear();
        result?;
        let (rows, shards) = (source.rows(), self.shards);
        Ok(format!(
            "{rows} rows in {shards} shards in {}",
            self.out.display()
        ))
    }
}

/// What vectors are taken from.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Fashion-MNIST's training images, or its test images.
    Fashion {
        /// Which.
        test: bool,
    },
    /// Bytes of a generator: row i is the same whatever the number of rows.
    Random {
        /// How many rows.
        rows: u64,
        /// How many bytes a row.
        dim: usize,
        /// The generator's seed.
        seed: u64,
    },
    /// A file of vectors.
    File(PathBuf),
}

impl FromStr for Data {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fashion-mnist" => return Ok(Self::Fashion { test: false }),
            "fashion-mnist-test" => return Ok(Self::Fashion { test: true }),
            _ => {}
        }
        let Some(size) = text.strip_prefix("random:") else {
            return Ok(Self::File(text.into()));
        };
        let random = || {
            let (size, seed) = size.split_once(':').unwrap_or((size, "0"));
            let (rows, dim) = size.split_once('x')?;
            let (rows, dim, seed) = (rows.parse().ok()?, dim.parse().ok()?, seed.parse().ok()?);
            (rows > 0 && (1..=MOST_DIMENSIONS).contains(&dim)).then_some(Self::Random {
                rows,
                dim,
                seed,
            })
        };
        random().ok_or_else(|| format!("{text}; expected random:ROWSxDIM or random:ROWSxDIM:SEED"))
    }
}

/// As many dimensions as have ever been searched, and more.
const MOST_DIMENSIONS: usize = 1 << 20;

impl Data {
    /// All of its rows, or for a generator some of them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn load(&self, rows: Range<u64>) -> Result<Vectors, Error> {
        match self {
            Self::Fashion { test } => {
                let images = fashion::load();
                let images = images.map_err(|error| Error::Arguments(error.to_string()))?;
                let images = if *test { images.test } else { images.train };
                Ok(Vectors::clone(&images))
            }
            Self::File(path) => {
                Vectors::read(path).map_err(|error| Error::Arguments(error.to_string()))
            }
            Self::Random { dim, seed, .. } => {
                let mut values = vec![0; (rows.end - rows.start) as usize * dim];
                let mut random = ChaCha8Rng::seed_from_u64(*seed);
                for (row, values) in rows.zip(values.chunks_exact_mut(*dim)) {
                    // A stream for each row: rows need not be made in order.
                    random.set_stream(row);
                    random.set_word_pos(0);
                    random.fill_bytes(values);
                }
                Ok(Vectors::from_bytes(*dim, values).expect("whole rows"))
            }
        }
    }
}

/// Several sources, one after the other. Of files one at a time is in memory.
struct Parts {
    parts: Vec<Part>,
    rows: u64,
    /// The part that was read last.
    loaded: Option<(usize, Vectors)>,
}

struct Part {
    data: Data,
    rows: u64,
}

impl Parts {
    fn new(data: Vec<Data>, most_rows: Option<u64>) -> Result<Self, Error> {
        let mut of: Option<VectorType> = None;
        let (mut parts, mut loaded) = (Vec::new(), None);
        for data in data {
            // A row of a generator is enough to know its type. What was read last is kept.
            let vectors = data.load(0..1)?;
            let this = VectorType::of(&vectors);
            if let Some(first) = of.replace(this)
                && first != this
            {
                let why = format!("{data:?}: vectors of {this}; those before are of {first}");
                return Err(Error::Arguments(why));
            }
            let rows = match data {
                Data::Random { rows, .. } => rows,
                _ => vectors.len() as u64,
            };
            if !matches!(data, Data::Random { .. }) {
                loaded = Some((parts.len(), vectors));
            }
            parts.push(Part { data, rows });
        }
        let all: u64 = parts.iter().map(|part| part.rows).sum();
        let rows = most_rows.map_or(all, |most| most.min(all));
        Ok(Self {
            parts,
            rows,
            loaded,
        })
    }

    /// Some rows of a part.
    fn read_part(&mut self, part: usize, rows: Range<u64>) -> Result<Vectors, Error> {
        let data = &self.parts[part].data;
        if matches!(data, Data::Random { .. }) {
            return data.load(rows);
        }
        if self
            .loaded
            .as_ref()
            .is_none_or(|(loaded, _)| *loaded != part)
        {
            // Before another is read.
            self.loaded = None;
            self.loaded = Some((part, data.load(0..self.parts[part].rows)?));
        }
        let (_, vectors) = self.loaded.as_ref().expect("it has just been read");
        let rows: Vec<usize> = (rows.start as usize..rows.end as usize).collect();
        vectors
            .select(&rows)
            .map_err(|error| Error::Arguments(error.to_string()))
    }
}

impl Source for Parts {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vectors, Error> {
        let (mut first, mut pieces) = (0, Vec::new());
        for part in 0..self.parts.len() {
            let end = first + self.parts[part].rows;
            let (from, to) = (rows.start.max(first), rows.end.min(end));
            if from < to {
                pieces.push(self.read_part(part, from - first..to - first)?);
            }
            first = end;
        }
        joined(pieces)
    }
}

/// The rows of all pieces, which are of one type.
fn joined(mut pieces: Vec<Vectors>) -> Result<Vectors, Error> {
    if pieces.len() == 1 {
        return Ok(pieces.remove(0));
    }
    let dim = pieces.first().map_or(1, Vectors::dim);
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    for piece in &pieces {
        match piece.storage() {
            Storage::Bytes(values) => bytes.extend_from_slice(values),
            Storage::Floats(values) => floats.extend_from_slice(values),
        }
    }
    let joined = if floats.is_empty() {
        Vectors::from_bytes(dim, bytes)
    } else {
        Vectors::from_floats(dim, floats)
    };
    joined.map_err(|error| Error::Arguments(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_however_they_are_cut() {
        let data: Vec<Data> = vec![
            "random:10x3:7".parse().unwrap(),
            "random:5x3".parse().unwrap(),
        ];
        let mut parts = Parts::new(data, Some(14)).unwrap();
        assert_eq!(parts.rows(), 14);
        let all = parts.read(0..14).unwrap();
        let cut: Vec<u8> = [0..4, 4..12, 12..14]
            .into_iter()
            .flat_map(|rows| parts.read(rows).unwrap().bytes().unwrap().to_vec())
            .collect();
        assert_eq!(all.bytes(), Some(&cut[..]));
        assert_ne!(all.row(0), all.row(10), "the second has another seed");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "random:",
            "random:3",
            "random:0x3",
            "random:3x0",
            "random:3x3:x",
        ] {
            assert!(text.parse::<Data>().is_err(), "{text}");
        }
        assert_eq!("a.npy".parse(), Ok(Data::File("a.npy".into())));
    }
}
