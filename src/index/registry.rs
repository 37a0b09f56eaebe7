//! The list of indexes that `measure`, the notebooks and the tests iterate over: one row an index.

use std::sync::Arc;

use super::{BruteForce, BuildError, Index, VaFile, VaFileParams};
use crate::dataset::Vectors;
use crate::distance::Metric;

/// A parameter of an index, as the command line and the sweeps see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knob {
    /// Its name in the original library.
    pub name: &'static str,
    /// Its value where none is asked for.
    pub default: f64,
    /// The values that the default sweep tries.
    pub sweep: &'static [f64],
    /// What it does, in a line.
    pub help: &'static str,
}

/// Values for some of an index's knobs; the others keep their defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings(Vec<(String, f64)>);

impl Settings {
    /// Sets `name`, replacing an earlier value.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
        self
    }

    /// The value of `knob`: what was set, or its default.
    #[must_use]
    pub fn get(&self, knob: &Knob) -> f64 {
        self.0.iter().find(|(name, _)| name == knob.name).map_or(knob.default, |&(_, value)| value)
    }

    /// The names that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// What was built, waiting for its query parameters: each call gives an index over the same structure.
pub type Built = Box<dyn Fn(&Settings) -> Result<Box<dyn Index>, BuildError> + Send + Sync>;

/// One index of the registry.
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
    /// Parameters that a query reads.
    pub query_knobs: &'static [Knob],
    /// Builds it over a base (Euclidean).
    pub build: fn(Arc<Vectors>, &Settings) -> Result<Built, BuildError>,
}

impl Entry {
    /// Every combination of the build knobs' sweep values.
    #[must_use]
    pub fn build_sweep(&self) -> Vec<Settings> {
        combinations(self.build_knobs)
    }

    /// Every combination of the query knobs' sweep values.
    #[must_use]
    pub fn query_sweep(&self) -> Vec<Settings> {
        combinations(self.query_knobs)
    }
}

fn combinations(knobs: &[Knob]) -> Vec<Settings> {
    knobs.iter().fold(vec![Settings::default()], |all, knob| {
        all.iter()
            .flat_map(|settings| knob.sweep.iter().map(move |&value| settings.clone().with(knob.name, value)))
            .collect()
    })
}

/// The entry of that name on the command line.
#[must_use]
pub fn find(key: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.key == key)
}

/// Every index there is, in the order of the report's tables.
pub static REGISTRY: &[Entry] = &[
    Entry {
        key: "brute_force",
        name: "Brute force",
        exact: true,
        build_knobs: &[],
        query_knobs: &[],
        build: |base, _| {
            let index = BruteForce::build(base, Metric::Euclidean)?;
            Ok(Box::new(move |_| Ok(Box::new(index.clone()))))
        },
    },
    Entry {
        key: "va_file",
        name: "VA+-file",
        exact: true,
        build_knobs: &[],
        query_knobs: &[],
        build: |base, _| {
            let index = VaFile::build(base, &VaFileParams::default())?;
            Ok(Box::new(move |_| Ok(Box::new(index.clone()))))
        },
    },
];
