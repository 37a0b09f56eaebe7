//! What is searched in, and what is asked: what `--data` and `--queries` say.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use fashion_knn::fashion;
use fashion_knn::lab::names::with_hash;
use fashion_knn::lab::shapes::Sample;
use fashion_knn::vectors::{ReadError, Vectors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::shape::Wanted;
use crate::{Arguments, say};

/// What is searched in.
pub struct Data {
    pub name: String,
    pub base: Arc<Vectors>,
    pub queries: Vectors,
    /// What to tell of the queries, if they are rows of the file that were held out.
    pub held_out: Option<String>,
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
    let is_known = ["pixels", "fashion"].contains(&given)
        || ["features-", "shape:"]
            .iter()
            .any(|known| given.starts_with(known));
    if arguments.mmap && is_known {
        return Err(format!("--mmap: expected a file, but --data is {given}").into());
    }
    // The name, the base, and the queries that the data bring along.
    let (name, base, queries) = if ["pixels", "fashion"].contains(&given) {
        let fashion = fashion::load()?;
        ("pixels".to_owned(), fashion.train, fashion.test)
    } else if let Some(width) = given.strip_prefix("features-") {
        let width = width
            .parse::<usize>()
            .map_err(|error| format!("--data {given}: {error}"))?;
        let features = features(width)?;
        (given.to_owned(), features.train, features.test)
    } else if let Some(wanted) = given.strip_prefix("shape:") {
        let wanted: Wanted = wanted.parse()?;
        let Sample { base, queries } = wanted.sample(arguments.n_queries)?;
        (wanted.name(), Arc::new(base), Arc::new(queries))
    } else {
        // Any other word is a path.
        return of_file(arguments, own_queries);
    };
    let is_own = own_queries.is_some();
    // A file that was named goes before the queries that the data bring along.
    let queries = own_queries.unwrap_or_else(|| queries.as_ref().clone());
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None if is_own => with_hash(&name, &base, &queries),
        None => name,
    };
    Ok(Data {
        name,
        base,
        queries: queries.head(arguments.n_queries),
        held_out: None,
    })
}

/// The file that `--data` names. It has no queries of its own.
fn of_file(arguments: &Arguments, own_queries: Option<Vectors>) -> Result<Data, Box<dyn Error>> {
    let path = Path::new(&arguments.data);
    let (base, queries, held_out) = match own_queries {
        Some(queries) => {
            let base = if arguments.mmap {
                Vectors::map(path)?
            } else {
                vectors(path, arguments.strict)?
            };
            (base, queries, None)
        }
        None if arguments.mmap => {
            let why = "--mmap: expected --queries, for the rows that are held out in their place \
                       would make a copy of the file";
            return Err(why.into());
        }
        None => {
            let all = vectors(path, arguments.strict)?;
            let (rows, given) = (all.len(), &arguments.data);
            let (base, queries) = held_out(all, arguments.n_queries)
                .map_err(|why| format!("--queries: {given} has {why}"))?;
            let count = queries.len();
            let told = format!(
                "no --queries: {count} of the {rows} rows are asked for instead, drawn at random, \
                 and are not in the base"
            );
            (base, queries, Some(told))
        }
    };
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    let name = match &arguments.name {
        Some(name) => name.clone(),
        // Neither are anyone's files the project's data, nor are two files of one name the same.
        None => with_hash(&stem.to_string_lossy(), &base, &queries),
    };
    Ok(Data {
        name,
        base: Arc::new(base),
        queries: queries.head(arguments.n_queries),
        held_out,
    })
}

/// Takes at most `count` rows out, and at most a tenth of all: always the same ones.
fn held_out(all: Vectors, count: usize) -> Result<(Vectors, Vectors), String> {
    let rows = all.len();
    let count = count.min(rows / 10);
    if count == 0 {
        return Err(format!(
            "{rows} rows, too few to hold a tenth of them out; expected a file of queries"
        ));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let drawn = rand::seq::index::sample(&mut rng, rows, count).into_vec();
    all.hold_out(&drawn).map_err(|error| error.to_string())
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
