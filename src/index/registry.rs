//! The list of indexes that `measure`, the notebooks and the tests iterate over: one line an index.

#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "files")]
use super::saved::{IndexFile, SavedError};
use super::{
    Annoy, BallTree, BruteForce, Build, BuildError, Cosine, Hnsw, Index, InnerProduct,
    InstantDistance, IvfFlat, IvfPq, KdTree, Ngt, Parameters, QuantizedGraph, Scann, VaFile,
};
pub use super::{Knob, Settings, SettingsError};
use crate::distance::Metric;
use crate::vectors::Vectors;

/// Every index there is, in the order of the report's tables.
pub static REGISTRY: &[Entry] = &[
    Entry::of::<BruteForce>(),
    Entry::of::<VaFile>(),
    Entry::of::<KdTree>(),
    Entry::of::<BallTree>(),
    Entry::of::<Annoy>(),
    Entry::of::<Hnsw>(),
    Entry::of::<InstantDistance>(),
    Entry::of::<IvfFlat>(),
    Entry::of::<IvfPq>(),
    Entry::of::<Scann>(),
    Entry::of::<Ngt>(),
    Entry::of::<QuantizedGraph>(),
];

/// What was built, waiting for its search parameters: each call gives an index over the same
/// structure.
pub type Built = Box<dyn Fn(&Settings) -> Result<Box<dyn Index>, BuildError> + Send + Sync>;

/// One index of the registry: all that can be asked of an index without knowing its type.
///
/// ```
/// use fashion_knn::index::registry;
/// use fashion_knn::prelude::*;
///
/// let values: Vec<u8> = (0..4_000u32).map(|i| (i * i % 251) as u8).collect();
/// let base = Arc::new(Vectors::from_bytes(16, values)?);
/// let entry = registry::find("ivf_flat").expect("an index of that name");
///
/// // Built once, searched with several settings.
/// let built = (entry.build)(Arc::clone(&base), &"nlist=16".parse()?)?;
/// for settings in entry.query_sweep() {
///     let index: Box<dyn Index> = built(&settings)?;
///     assert_eq!(index.query(base.row(42), 1)?[0].id, 42);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name on the command line: "brute_force".
    pub key: &'static str,
    /// Its name in tables and charts: "Brute force".
    pub name: &'static str,
    /// Whether it always returns the true neighbours.
    pub exact: bool,
    /// Parameters that cost a new build.
    pub build_knobs: &'static [Knob],
    /// Parameters that a search reads.
    pub query_knobs: &'static [Knob],
    /// Builds it over a base (Euclidean).
    pub build: fn(Arc<Vectors>, &Settings) -> Result<Built, BuildError>,
    /// Makes it again from the file that it was saved to.
    #[cfg(feature = "files")]
    pub load: fn(&mut IndexFile) -> Result<Built, SavedError>,

    /// Builds it over a base, to search by a metric. One that it does not take is an error.
    pub build_under: fn(Metric, Arc<Vectors>, &Settings) -> Result<Built, BuildError>,
    /// Whether it takes the metric: any but Manhattan, and that too where it is a matter of a
    /// parameter.
    pub takes: fn(Metric) -> bool,
}

impl Entry {
    /// The entry of an index.
    #[must_use]
    pub const fn of<I: Build>() -> Self {
        Self {
            key: I::KEY,
            name: I::NAME,
            exact: I::EXACT,
            build_knobs: I::Params::KNOBS,
            query_knobs: I::Search::KNOBS,
            build: build::<I>,
            build_under: build_under::<I>,
            takes: takes::<I>,
            #[cfg(feature = "files")]
            load: load_as::<I>,
        }
    }

    /// The search parameter with most values in its sweep, which buys recall with time; `None` if
    /// there is nothing to set.
    #[must_use]
    pub fn main_knob(&self) -> Option<&'static Knob> {
        self.query_knobs.iter().max_by_key(|knob| knob.sweep.len())
    }

    /// Every combination of the build knobs' sweep values.
    #[must_use]
    pub fn build_sweep(&self) -> Vec<Settings> {
        combinations(self.build_knobs)
    }

    /// Every combination of the search knobs' sweep values.
    #[must_use]
    pub fn query_sweep(&self) -> Vec<Settings> {
        combinations(self.query_knobs)
    }

    /// Whether each setting names a parameter: those of `build` one of the build, those of `sweep`
    /// one of the search.
    ///
    /// ```
    /// use fashion_knn::index::registry;
    ///
    /// let annoy = registry::find("annoy").expect("an index of that name");
    /// assert!(annoy.check(&"n_trees=10".parse()?, &["search_k=500".parse()?]).is_ok());
    /// assert!(annoy.check(&"n_tree=10".parse()?, &[]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If one does not.
    pub fn check(&self, build: &Settings, sweep: &[Settings]) -> Result<(), BuildError> {
        check_build(self.build_knobs, self.query_knobs, build)?;
        let mut searches = sweep.iter();
        searches.try_for_each(|settings| check_search(self.build_knobs, self.query_knobs, settings))
    }
}

/// Whether the settings name parameters of the build. One of the search does not count: an index
/// would not read it there.
fn check_build(build: &[Knob], search: &[Knob], settings: &Settings) -> Result<(), BuildError> {
    check_names(build, settings).map_err(|name| unknown(build, search, name))
}

/// Whether the settings name parameters of the search.
fn check_search(build: &[Knob], search: &[Knob], settings: &Settings) -> Result<(), BuildError> {
    check_names(search, settings).map_err(|name| unknown(build, search, name))
}

/// The first name that is no parameter is the error.
fn check_names<'s>(knobs: &[Knob], settings: &'s Settings) -> Result<(), &'s str> {
    let is_known = |name: &&str| knobs.iter().any(|knob| knob.name == *name);
    match settings.names().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(unknown) => Err(unknown),
    }
}

/// The error lists all parameters, those of the build first: who mistook the one kind for the other
/// then sees the name.
fn unknown(build: &[Knob], search: &[Knob], received: &str) -> BuildError {
    let names: Vec<&str> = build.iter().chain(search).map(|knob| knob.name).collect();
    let expected = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    BuildError::UnknownParameter {
        received: received.to_owned(),
        expected,
    }
}

fn build<I: Build>(base: Arc<Vectors>, settings: &Settings) -> Result<Built, BuildError> {
    build_under::<I>(Metric::Euclidean, base, settings)
}

fn build_under<I: Build>(
    metric: Metric,
    base: Arc<Vectors>,
    settings: &Settings,
) -> Result<Built, BuildError> {
    check_build(I::Params::KNOBS, I::Search::KNOBS, settings)?;
    let params = I::Params::from_settings(settings)?;
    match metric {
        Metric::Euclidean => build_with::<I>(base, params),
        Metric::Manhattan => {
            let params = I::manhattan(params).ok_or(BuildError::metric(I::NAME, metric))?;
            build_with::<I>(base, params)
        }
        Metric::Cosine => build_with::<Cosine<I>>(base, params),
        Metric::InnerProduct => build_with::<InnerProduct<I>>(base, params),
    }
}

fn takes<I: Build>(metric: Metric) -> bool {
    metric != Metric::Manhattan || I::manhattan(I::Params::default()).is_some()
}

fn build_with<I: Build>(base: Arc<Vectors>, params: I::Params) -> Result<Built, BuildError> {
    // The build settings have been read, and the search settings are read in the closure. So one
    // build serves a whole sweep.
    Ok(built(I::build(base, params)?))
}

#[cfg(feature = "files")]
fn load_as<I: Build>(file: &mut IndexFile) -> Result<Built, SavedError> {
    Ok(match file.metric() {
        Metric::Euclidean | Metric::Manhattan => built(file.index::<I>()?),
        Metric::Cosine => built(file.index::<Cosine<I>>()?),
        Metric::InnerProduct => built(file.index::<InnerProduct<I>>()?),
    })
}

/// The index with whatever search parameters are asked for.
fn built<I: Build>(index: I) -> Built {
    Box::new(move |settings| {
        if settings.names().next().is_none() {
            return Ok(Box::new(index.clone()));
        }
        check_search(I::Params::KNOBS, I::Search::KNOBS, settings)?;
        let search = I::Search::from_settings(&completed(settings, &index))?;
        Ok(Box::new(index.with_search(search)?))
    })
}

/// The settings, with the index's own value of each search parameter that is not set: a build may
/// have measured it, or a file may have brought it.
fn completed<I: Build>(settings: &Settings, index: &I) -> Settings {
    let own = index.params().into_iter();
    let is_searched = |name: &str| I::Search::KNOBS.iter().any(|knob| knob.name == name);
    let all = own
        .filter(|(name, _)| is_searched(name))
        .fold(Settings::default(), |all, (name, value)| {
            all.with(name, value)
        });
    let set = settings.values();
    set.fold(all, |all, (name, value)| all.with(name, value))
}

/// Reads an index of any kind that [`Save::save`](super::Save::save) wrote, and verifies all of it.
///
/// ```
/// use fashion_knn::index::registry;
/// use fashion_knn::prelude::*;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("grid.knn");
/// let grid = (0..1_000).flat_map(|i| [(i % 40) as u8, (i / 40) as u8]);
/// let base = Arc::new(Vectors::from_bytes(2, grid.collect::<Vec<_>>())?);
/// Annoy::build(base, AnnoyParams::default())?.save(&path)?;
///
/// let index: Box<dyn Index> = registry::load(&path)?;
/// assert_eq!((index.name(), index.len()), ("Annoy", 1_000));
/// assert_eq!(index.query(&[7u8, 3], 1)?[0].id, 3 * 40 + 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be read, is no index, or is damaged.
#[cfg(feature = "files")]
pub fn load(path: impl AsRef<Path>) -> Result<Box<dyn Index>, SavedError> {
    opened(IndexFile::open(path.as_ref())?)
}

/// [`load`], with the vectors mapped from the file: see
/// [`Load::load_mapped`](super::Load::load_mapped).
///
/// # Errors
/// As [`load`].
#[cfg(feature = "files")]
pub fn load_mapped(path: impl AsRef<Path>) -> Result<Box<dyn Index>, SavedError> {
    opened(IndexFile::open_mapped(path.as_ref())?)
}

/// The index of a file.
#[cfg(feature = "files")]
fn opened(mut file: IndexFile) -> Result<Box<dyn Index>, SavedError> {
    let entry = find(file.kind()).ok_or_else(|| file.unknown_kind())?;
    let built = (entry.load)(&mut file)?;
    // The search parameters that it was saved with.
    built(&Settings::default()).map_err(|error| file.wrong(error.into()))
}

fn combinations(knobs: &[Knob]) -> Vec<Settings> {
    let mut all = vec![Settings::default()];
    // Each knob multiplies the list by its values. A knob without a sweep has its default as the
    // only one.
    for knob in knobs {
        let with_each = |settings: &Settings| {
            let values = knob.sweep.iter();
            let combined = values.map(|&value| settings.clone().with(knob.name, value));
            combined.collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with_each).collect();
    }
    all
}

/// Exhaustive search by any metric: where true neighbours come from.
///
/// ```
/// use fashion_knn::index::registry;
/// use fashion_knn::prelude::*;
///
/// let base = Arc::new(Vectors::from_bytes(2, vec![1, 0, 0, 9, 3, 3])?);
/// let nearest = |metric| -> Result<u32, Box<dyn std::error::Error>> {
///     Ok(registry::brute_force(metric, base.clone())?.query(&[1u8, 1], 1)?[0].id)
/// };
/// assert_eq!(nearest(Metric::Euclidean)?, 0);
/// assert_eq!(nearest(Metric::Cosine)?, 2);
/// assert_eq!(nearest(Metric::InnerProduct)?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If `base` is empty, or has no such metric: rows of zeros have no cosine.
pub fn brute_force(metric: Metric, base: Arc<Vectors>) -> Result<Box<dyn Index>, BuildError> {
    let none = Settings::default();
    build_under::<BruteForce>(metric, base, &none)?(&none)
}

/// The entry of that name on the command line.
#[must_use]
pub fn find(key: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Arc<Vectors> {
        let values: Vec<u8> = (0..4_000u32).map(|i| (i * i % 251) as u8).collect();
        Arc::new(Vectors::from_bytes(16, values).unwrap())
    }

    fn settings(text: &str) -> Settings {
        text.parse().unwrap()
    }

    #[test]
    fn a_search_parameter_that_is_not_set_keeps_the_value_of_the_index() {
        let ivf_pq = find("ivf_pq").unwrap();
        // It did not keep the vectors, so `refine` is 0 and not the type's default of 10.
        let built = (ivf_pq.build)(grid(), &settings("nlist=8 keep_vectors=0")).unwrap();
        let index = built(&settings("nprobe=5")).unwrap();
        let params = index.params();
        assert!(params.contains(&("nprobe", 5.0)), "{params:?}");
        assert!(params.contains(&("refine", 0.0)), "{params:?}");
    }

    #[test]
    fn a_misspelt_parameter_is_refused() {
        let annoy = find("annoy").unwrap();
        let unknown = |error: Option<BuildError>| {
            assert!(matches!(error, Some(BuildError::UnknownParameter { .. })));
        };
        unknown((annoy.build)(grid(), &settings("n_tree=3")).err());
        // A parameter of the search is none of the build.
        unknown((annoy.build)(grid(), &settings("search_k=3")).err());
        let built = (annoy.build)(grid(), &Settings::default()).unwrap();
        unknown(built(&settings("serch_k=9")).err());
    }
}
