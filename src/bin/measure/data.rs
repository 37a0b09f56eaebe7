//! What is searched in, and what is asked: what `--data` and `--queries` say.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use fashion_knn::fashion;
use fashion_knn::lab::names::with_hash;
use fashion_knn::lab::shapes::{self, Sample};
use fashion_knn::vectors::{ReadError, Vectors};

use crate::{Arguments, say};

/// What is searched in.
pub struct Data {
    pub name: String,
    pub base: Arc<Vectors>,
    pub queries: Vectors,
}

/// The data that the arguments name.
pub fn data(arguments: &Arguments) -> Result<Data, Box<dyn Error>> {
    // Read first: a wrong path should not be found out only after a net was trained for the
    // features.
    let strict = arguments.strict;
    let own_queries = arguments
        .queries
        .as_ref()
        .map(|path| vectors(path, strict))
        .transpose()?;
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
        let path = Path::new(given);
        let stem = path.file_stem().unwrap_or(path.as_os_str());
        let base = Arc::new(vectors(path, strict)?);
        (stem.to_string_lossy().into_owned(), base, None)
    };
    let is_own = own_queries.is_some();
    // A file that was named goes before the queries that the data bring along.
    let queries = own_queries
        .or_else(|| queries.map(|queries| queries.as_ref().clone()))
        .ok_or("--queries: expected a file of queries to go with --data")?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        // Neither are anyone's files the project's data, nor are two files of one name the same.
        None if is_own => with_hash(&name, &base, &queries),
        None => name,
    };
    Ok(Data {
        name,
        base,
        queries: queries.head(arguments.n_queries),
    })
}

/// The vectors of a file. If they lose more than rounding as float32, that is a warning, or an
/// error where `strict`.
fn vectors(path: &Path, strict: bool) -> Result<Vectors, ReadError> {
    if strict {
        return Vectors::read(path);
    }
    let (vectors, loss) = Vectors::read_lossy(path)?;
    if !loss.is_none() {
        say::aside(format_args!("warning: {}: {loss}", path.display()));
    }
    Ok(vectors)
}

/// Rows of a hard shape, where nothing else is asked for.
const SHAPE_ROWS: usize = 20_000;

/// Most values of a hard shape, base and queries together: 4 GB of floats.
const SHAPE_VALUES: usize = 1 << 30;

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
    let values = queries.saturating_add(rows).saturating_mul(dim);
    if values > SHAPE_VALUES {
        return Err(format!(
            "shape {name}: {rows} rows and {queries} queries of {dim} dimensions; expected at most \
             {SHAPE_VALUES} values in all"
        ));
    }
    // Number of rows and dimension have columns of their own in the record. The seed has none.
    let name = match seed {
        0 => name.to_owned(),
        seed => format!("{name} seed={seed}"),
    };
    Ok((name, shape.sample(rows, queries, dim, seed)))
}

/// The images as the features of the report's CNN, which is learned first if it has not been.
#[cfg(feature = "net")]
fn features(width: usize) -> Result<fashion::Fashion, Box<dyn Error>> {
    use fashion_knn::{files, net};

    let (data, cache) = (fashion::load()?, files::cache_dir());
    let tell = |epoch: &net::Epoch| say::line(format_args!("  {epoch}"));
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
    fn a_shape_is_given_with_its_size_and_malformed_ones_are_refused() {
        let size = |wanted: &str| {
            let (name, Sample { base, queries }) = shape(wanted, 3).unwrap();
            (name, base.len(), base.dim(), queries.len())
        };
        assert_eq!(size("d2,n=50"), ("d2".to_owned(), 50, 2, 3));
        assert_eq!(
            size("noise_64,d=5,n=9,seed=1"),
            ("noise_64 seed=1".to_owned(), 9, 5, 3)
        );
        // More than memory holds: n × d values, or the rows themselves.
        for wanted in ["d2,n=4000000000", "d2,n=40000,d=40000"] {
            let error = shape(wanted, 3).unwrap_err();
            assert!(error.contains("values"), "{error}");
        }
        assert!(shape("d2", usize::MAX).is_err());
        for wanted in ["d4", "d2,n", "d2,n=0", "d2,d=0", "d2,m=3", "d2,n=1e3"] {
            assert!(shape(wanted, 3).is_err(), "{wanted}");
        }
    }
}
