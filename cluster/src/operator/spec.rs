//! What a query asks for: k, and the index that searches.

use std::fmt;
use std::str::FromStr;

use datafusion::common::Result;
use fashion_knn::index::registry::{Entry, Settings, find};
use serde::{Deserialize, Serialize};

/// The version of this program: client, scheduler and executors have to be of the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a query asks for, as it travels to the executors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The version of the client.
    pub version: String,
    /// How many neighbours.
    pub k: usize,
    /// What searches a partition.
    pub index: IndexSpec,
    /// The version of a scheduler that could not read it, and so has not read all of it. The
    /// executors get it from there.
    #[serde(default)]
    refused_by: Option<String>,
}

impl Spec {
    /// What this version asks for.
    #[must_use]
    pub fn new(k: usize, index: IndexSpec) -> Self {
        let version = VERSION.to_owned();
        let refused_by = None;
        Self {
            version,
            k,
            index,
            refused_by,
        }
    }

    /// What stands for the wish of a client of another version. Its execution is an error.
    pub(super) fn refused(version: String) -> Self {
        let index = "brute_force".parse().expect("an index of the registry");
        Self {
            version,
            refused_by: Some(VERSION.to_owned()),
            ..Self::new(1, index)
        }
    }

    /// Whether this program, and the scheduler, are of the client's version.
    ///
    /// # Errors
    /// If they are not.
    pub fn check_version(&self) -> Result<()> {
        let ours = self.refused_by.as_deref().unwrap_or(VERSION);
        if self.version == ours {
            return Ok(());
        }
        Err(super::lasting(format_args!(
            "knn-cluster {ours} was asked by a client of version {}: start executors, \
             scheduler and client of the same",
            self.version
        )))
    }
}

/// An index of the registry and its settings, as text: "ivf_flat nlist=64 nprobe=4".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IndexSpec {
    key: String,
    build: String,
    search: String,
}

impl IndexSpec {
    /// Its entry in the registry.
    #[must_use]
    pub fn entry(&self) -> &'static Entry {
        find(&self.key).expect("it was found when the text was read")
    }

    /// The settings of its build.
    #[must_use]
    pub fn build(&self) -> Settings {
        self.build.parse().expect("the text of settings")
    }

    /// The settings of its search.
    #[must_use]
    pub fn search(&self) -> Settings {
        self.search.parse().expect("the text of settings")
    }

    /// What names a build of it: indexes of the same name are the same over the same rows.
    #[must_use]
    pub fn build_name(&self) -> String {
        format!("{} {}", self.key, self.build)
    }

    /// Whether the rows are scanned block by block, so that nothing has to be built and kept.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        self.key == "brute_force"
    }
}

impl fmt::Display for IndexSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)?;
        for settings in [&self.build, &self.search] {
            if !settings.is_empty() {
                write!(formatter, " {settings}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for IndexSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (key, settings) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let Some(entry) = find(key) else {
            let known: Vec<&str> = fashion_knn::index::registry::REGISTRY
                .iter()
                .map(|entry| entry.key)
                .collect();
            return Err(format!(
                "no index is called {key:?}; there are {}",
                known.join(", ")
            ));
        };
        let settings: Settings = settings.parse().map_err(|error| format!("{error}"))?;
        let (mut build, mut search) = (Settings::default(), Settings::default());
        for name in settings.names() {
            let knob = |knobs: &'static [_]| {
                let of_name = |knob: &&fashion_knn::index::registry::Knob| knob.name == name;
                knobs.iter().find(of_name)
            };
            if let Some(knob) = knob(entry.build_knobs) {
                build = build.with(name, settings.get(knob));
            } else if let Some(knob) = knob(entry.query_knobs) {
                search = search.with(name, settings.get(knob));
            } else {
                return Err(format!("{key} has no parameter {name:?}"));
            }
        }
        Ok(Self {
            key: entry.key.to_owned(),
            build: build.to_string(),
            search: search.to_string(),
        })
    }
}

impl TryFrom<String> for IndexSpec {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<IndexSpec> for String {
    fn from(spec: IndexSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_to_the_build_or_to_the_search() {
        let spec: IndexSpec = "ivf_flat nprobe=4 nlist=16".parse().unwrap();
        assert_eq!(
            (spec.build.as_str(), spec.search.as_str()),
            ("nlist=16", "nprobe=4")
        );
        assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
        let other: IndexSpec = "ivf_flat nlist=16 nprobe=8".parse().unwrap();
        assert_eq!(spec.build_name(), other.build_name());
        assert!(
            "ivf_flat nlists=16"
                .parse::<IndexSpec>()
                .unwrap_err()
                .contains("nlists")
        );
        assert!(
            "flat"
                .parse::<IndexSpec>()
                .unwrap_err()
                .contains("brute_force")
        );
        assert!("ivf_flat nprobe".parse::<IndexSpec>().is_err());
    }
}
