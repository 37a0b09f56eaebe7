//! What is searched in, and what is asked: what `--data` and `--queries` say.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use fashion_knn::fashion;
use fashion_knn::lab::names::with_hash;
use fashion_knn::lab::shapes::Sample;
use fashion_knn::vectors::{ReadError, Vectors};

use crate::shape::Wanted;
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
        let wanted: Wanted = wanted.parse()?;
        let Sample { base, queries } = wanted.sample(arguments.n_queries)?;
        (wanted.name(), Arc::new(base), Some(Arc::new(queries)))
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
