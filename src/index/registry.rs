//! The list of indexes that `measure`, the notebooks and the tests iterate over: one row an index.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::{
    Annoy, AnnoyParams, BallTree, BallTreeParams, BruteForce, BuildError, Hnsw, HnswParams, Index,
    IvfFlat, IvfFlatParams, IvfPq, IvfPqParams, KdTree, KdTreeParams, Ngt, NgtParams,
    QuantizedGraph, QuantizedGraphParams, Scann, ScannParams, VaFile, VaFileParams,
};
use crate::distance::Metric;
use crate::vectors::Vectors;

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
        self.0
            .iter()
            .find(|(name, _)| name == knob.name)
            .map_or(knob.default, |&(_, value)| value)
    }

    /// The value of a `knob` that counts something.
    ///
    /// # Errors
    /// If it is negative or not a whole number.
    pub fn whole(&self, knob: &Knob) -> Result<usize, BuildError> {
        let value = self.get(knob);
        if value >= 0.0 && value.fract() == 0.0 && value <= u32::MAX.into() {
            Ok(value as usize)
        } else {
            Err(BuildError::InvalidParameter {
                name: knob.name,
                received: value,
                expected: "a whole number",
            })
        }
    }

    /// The names that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl fmt::Display for Settings {
    /// "nprobe=8 refine=100", as [`Settings::from_str`] reads it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        formatter.write_str(&pairs.join(" "))
    }
}

/// Text that is no list of settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{received:?} is no setting; expected name=number, with blanks or commas between several")]
pub struct SettingsError {
    /// The part that was not understood.
    pub received: String,
}

impl FromStr for Settings {
    type Err = SettingsError;

    /// "nprobe=8 refine=100", with blanks or commas between; none of them in an empty text.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let parts = text.split([' ', ',']).filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let pair = part
                    .split_once('=')
                    .and_then(|(name, value)| Some((name, value.parse().ok()?)));
                pair.ok_or_else(|| SettingsError {
                    received: part.to_owned(),
                })
            })
            .try_fold(Self::default(), |settings, pair| {
                pair.map(|(name, value)| settings.with(name, value))
            })
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
            .flat_map(|settings| {
                knob.sweep
                    .iter()
                    .map(move |&value| settings.clone().with(knob.name, value))
            })
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
    Entry {
        key: "kd_tree",
        name: "KD-tree",
        exact: true,
        build_knobs: &[kd_tree::LEAF_SIZE, kd_tree::COMPONENTS],
        query_knobs: &[],
        build: |base, settings| {
            let leaf_size = settings.whole(&kd_tree::LEAF_SIZE)?;
            let components = settings.whole(&kd_tree::COMPONENTS)?;
            let index = KdTree::build(
                base,
                KdTreeParams {
                    leaf_size,
                    components,
                },
            )?;
            Ok(Box::new(move |_| Ok(Box::new(index.clone()))))
        },
    },
    Entry {
        key: "ball_tree",
        name: "Ball tree",
        exact: true,
        build_knobs: &[ball_tree::LEAF_SIZE, ball_tree::COMPONENTS],
        query_knobs: &[],
        build: |base, settings| {
            let leaf_size = settings.whole(&ball_tree::LEAF_SIZE)?;
            let components = settings.whole(&ball_tree::COMPONENTS)?;
            let index = BallTree::build(
                base,
                BallTreeParams {
                    leaf_size,
                    components,
                    metric: Metric::Euclidean,
                },
            )?;
            Ok(Box::new(move |_| Ok(Box::new(index.clone()))))
        },
    },
    Entry {
        key: "annoy",
        name: "Annoy",
        exact: false,
        build_knobs: &[annoy::N_TREES, annoy::SEED],
        query_knobs: &[annoy::SEARCH_K],
        build: |base, settings| {
            let (n_trees, seed) = (
                settings.whole(&annoy::N_TREES)?,
                settings.whole(&annoy::SEED)? as u64,
            );
            let index = Annoy::build(base, AnnoyParams { n_trees, seed })?;
            Ok(Box::new(move |settings| {
                Ok(Box::new(
                    index.with_search_k(settings.whole(&annoy::SEARCH_K)?),
                ))
            }))
        },
    },
    Entry {
        key: "hnsw",
        name: "HNSW",
        exact: false,
        build_knobs: &[hnsw::EF_CONSTRUCTION, hnsw::SEED],
        query_knobs: &[hnsw::EF_SEARCH],
        build: |base, settings| {
            let ef_construction = settings.whole(&hnsw::EF_CONSTRUCTION)?;
            let seed = settings.whole(&hnsw::SEED)? as u64;
            let index = Hnsw::build(
                base,
                HnswParams {
                    ef_construction,
                    seed,
                },
            )?;
            Ok(Box::new(move |settings| {
                Ok(Box::new(
                    index.with_ef_search(settings.whole(&hnsw::EF_SEARCH)?)?,
                ))
            }))
        },
    },
    Entry {
        key: "ivf_flat",
        name: "IVF Flat",
        exact: false,
        build_knobs: &[ivf::NLIST, ivf::SEED],
        query_knobs: &[ivf::NPROBE],
        build: |base, settings| {
            let (nlist, seed) = (
                settings.whole(&ivf::NLIST)?,
                settings.whole(&ivf::SEED)? as u64,
            );
            let index = IvfFlat::build(base, &IvfFlatParams { nlist, seed })?;
            Ok(Box::new(move |settings| {
                Ok(Box::new(index.with_nprobe(settings.whole(&ivf::NPROBE)?)?))
            }))
        },
    },
    Entry {
        key: "ivf_pq",
        name: "IVF PQ",
        exact: false,
        build_knobs: &[
            ivf_pq::NLIST,
            ivf_pq::M,
            ivf_pq::NBITS,
            ivf_pq::KEEP_VECTORS,
            ivf_pq::SEED,
        ],
        query_knobs: &[ivf_pq::NPROBE, ivf_pq::REFINE],
        build: |base, settings| {
            let params = IvfPqParams {
                nlist: settings.whole(&ivf_pq::NLIST)?,
                m: settings.whole(&ivf_pq::M)?,
                nbits: settings.whole(&ivf_pq::NBITS)?,
                keep_vectors: settings.get(&ivf_pq::KEEP_VECTORS) != 0.0,
                seed: settings.whole(&ivf_pq::SEED)? as u64,
            };
            let index = IvfPq::build(base, &params)?;
            Ok(Box::new(move |settings| {
                let refine = settings.whole(&ivf_pq::REFINE)?;
                Ok(Box::new(
                    index.with_search(settings.whole(&ivf_pq::NPROBE)?, refine)?,
                ))
            }))
        },
    },
    Entry {
        key: "scann",
        name: "ScaNN",
        exact: false,
        build_knobs: &[scann::NUM_LEAVES, scann::THRESHOLD, scann::SEED],
        query_knobs: &[scann::NUM_LEAVES_TO_SEARCH, scann::REORDER],
        build: |base, settings| {
            let params = ScannParams {
                num_leaves: settings.whole(&scann::NUM_LEAVES)?,
                anisotropic_quantization_threshold: settings.get(&scann::THRESHOLD),
                seed: settings.whole(&scann::SEED)? as u64,
            };
            let index = Scann::build(base, &params)?;
            Ok(Box::new(move |settings| {
                let reorder = settings.whole(&scann::REORDER)?;
                Ok(Box::new(index.with_search(
                    settings.whole(&scann::NUM_LEAVES_TO_SEARCH)?,
                    reorder,
                )?))
            }))
        },
    },
    Entry {
        key: "ngt",
        name: "NGT",
        exact: false,
        build_knobs: &[ngt::EDGE_SIZE, ngt::OUTGOING, ngt::INCOMING, ngt::SEED],
        query_knobs: &[ngt::EPSILON],
        build: |base, settings| {
            let params = NgtParams {
                edge_size: settings.whole(&ngt::EDGE_SIZE)?,
                outgoing: settings.whole(&ngt::OUTGOING)?,
                incoming: settings.whole(&ngt::INCOMING)?,
                seed: settings.whole(&ngt::SEED)? as u64,
            };
            let index = Ngt::build(base, &params)?;
            Ok(Box::new(move |settings| {
                Ok(Box::new(index.with_epsilon(settings.get(&ngt::EPSILON))?))
            }))
        },
    },
    Entry {
        key: "quantized_graph",
        name: "Quantized graph",
        exact: false,
        build_knobs: &[
            quantized_graph::CODE_BYTES,
            quantized_graph::CANDIDATES,
            quantized_graph::ALPHA,
            quantized_graph::SEED,
        ],
        query_knobs: &[quantized_graph::EF, quantized_graph::EPSILON],
        build: |base, settings| {
            let params = QuantizedGraphParams {
                code_bytes: settings.whole(&quantized_graph::CODE_BYTES)?,
                candidates: settings.whole(&quantized_graph::CANDIDATES)?,
                alpha: settings.get(&quantized_graph::ALPHA),
                seed: settings.whole(&quantized_graph::SEED)? as u64,
            };
            let index = QuantizedGraph::build(base, &params)?;
            Ok(Box::new(move |settings| {
                let epsilon = settings.get(&quantized_graph::EPSILON);
                Ok(Box::new(index.with_search(
                    settings.whole(&quantized_graph::EF)?,
                    epsilon,
                )?))
            }))
        },
    },
];

/// The knobs of [`Hnsw`].
mod hnsw {
    use super::Knob;

    pub const EF_CONSTRUCTION: Knob = Knob {
        name: "ef_construction",
        default: 100.0,
        sweep: &[100.0],
        help: "candidates among which links are chosen",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of layers and insertion order",
    };
    pub const EF_SEARCH: Knob = Knob {
        name: "ef_search",
        default: 40.0,
        sweep: &[
            10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 200.0, 400.0,
        ],
        help: "rows kept while searching",
    };
}

/// The knobs of [`Annoy`].
mod annoy {
    use super::Knob;

    pub const N_TREES: Knob = Knob {
        name: "n_trees",
        default: 50.0,
        sweep: &[10.0, 50.0, 100.0],
        help: "trees of the forest",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of the random splits",
    };
    pub const SEARCH_K: Knob = Knob {
        name: "search_k",
        default: 4000.0,
        sweep: &[
            400.0, 700.0, 1000.0, 1400.0, 2000.0, 2800.0, 4000.0, 7000.0, 10_000.0, 20_000.0,
        ],
        help: "rows that a query collects; 0 for n_trees × k",
    };
}

/// The knobs of [`KdTree`].
mod kd_tree {
    use super::Knob;

    pub const LEAF_SIZE: Knob = Knob {
        name: "leaf_size",
        default: 32.0,
        sweep: &[16.0, 32.0, 128.0],
        help: "most rows in a leaf",
    };
    pub const COMPONENTS: Knob = Knob {
        name: "components",
        default: 16.0,
        sweep: &[4.0, 8.0, 16.0, 32.0],
        help: "dimensions of the tree",
    };
}

/// The knobs of [`BallTree`].
mod ball_tree {
    use super::Knob;

    pub const LEAF_SIZE: Knob = Knob {
        name: "leaf_size",
        default: 64.0,
        sweep: &[16.0, 64.0, 256.0, 1024.0],
        help: "most rows in a leaf",
    };
    pub const COMPONENTS: Knob = Knob {
        name: "components",
        default: 32.0,
        sweep: &[8.0, 16.0, 32.0, 64.0],
        help: "dimensions of the balls",
    };
}

/// The knobs of [`IvfFlat`].
mod ivf {
    use super::Knob;

    pub const NLIST: Knob = Knob {
        name: "nlist",
        default: 256.0,
        sweep: &[256.0],
        help: "inverted lists (k-means clusters)",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of the k-means",
    };
    pub const NPROBE: Knob = Knob {
        name: "nprobe",
        default: 8.0,
        sweep: &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0],
        help: "lists that a query searches",
    };
}

/// The knobs of [`IvfPq`].
mod ivf_pq {
    use super::Knob;

    pub const NLIST: Knob = super::ivf::NLIST;
    pub const M: Knob = Knob {
        name: "m",
        default: 64.0,
        sweep: &[64.0],
        help: "sub-quantisers",
    };
    pub const NBITS: Knob = Knob {
        name: "nbits",
        default: 4.0,
        sweep: &[4.0],
        help: "bits of a sub-quantiser's code: 4 or 8",
    };
    pub const KEEP_VECTORS: Knob = Knob {
        name: "keep_vectors",
        default: 1.0,
        sweep: &[1.0],
        help: "0 keeps the codes alone: refine must be 0, distances are estimates",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of components, lists, codebooks",
    };
    pub const NPROBE: Knob = Knob {
        name: "nprobe",
        default: 16.0,
        sweep: &[4.0, 8.0, 16.0, 32.0],
        help: "lists that a query searches",
    };
    pub const REFINE: Knob = Knob {
        name: "refine",
        default: 10.0,
        sweep: &[0.0, 4.0, 10.0],
        help: "candidates ranked by their vectors, times k",
    };
}

/// The knobs of [`Scann`].
mod scann {
    use super::Knob;

    pub const NUM_LEAVES: Knob = Knob {
        name: "num_leaves",
        default: 256.0,
        sweep: &[256.0],
        help: "leaves of the partitioning tree",
    };
    pub const THRESHOLD: Knob = Knob {
        name: "anisotropic_quantization_threshold",
        default: 0.2,
        sweep: &[0.2],
        help: "how much the error along a vector counts: 0 (plain) to below 1",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of components, leaves, codebooks",
    };
    pub const NUM_LEAVES_TO_SEARCH: Knob = Knob {
        name: "num_leaves_to_search",
        default: 16.0,
        sweep: &[4.0, 8.0, 16.0, 32.0],
        help: "leaves that a query searches",
    };
    pub const REORDER: Knob = Knob {
        name: "reorder",
        default: 100.0,
        sweep: &[30.0, 60.0, 100.0],
        help: "vectors ranked by exact distances",
    };
}

/// The knobs of [`Ngt`].
mod ngt {
    use super::Knob;

    pub const EDGE_SIZE: Knob = Knob {
        name: "edge_size",
        default: 100.0,
        sweep: &[100.0],
        help: "near rows among which edges are chosen",
    };
    pub const OUTGOING: Knob = Knob {
        name: "outgoing",
        default: 10.0,
        sweep: &[10.0],
        help: "nearest rows that a row's edges lead to",
    };
    pub const INCOMING: Knob = Knob {
        name: "incoming",
        default: 100.0,
        sweep: &[100.0],
        help: "nearest rows whose edges lead to a row",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of the vantage points and the clusters",
    };
    pub const EPSILON: Knob = Knob {
        name: "epsilon",
        default: 0.1,
        sweep: &[0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2],
        help: "how far beyond the k-th nearest is explored",
    };
}

/// The knobs of [`QuantizedGraph`].
mod quantized_graph {
    use super::Knob;

    pub const CODE_BYTES: Knob = Knob {
        name: "code_bytes",
        default: 128.0,
        sweep: &[128.0, 192.0],
        help: "of the code that guides the walk: 64, 128, 192 or 256",
    };
    pub const CANDIDATES: Knob = Knob {
        name: "candidates",
        default: 100.0,
        sweep: &[100.0],
        help: "near rows among which edges are chosen",
    };
    pub const ALPHA: Knob = Knob {
        name: "alpha",
        default: 1.2,
        sweep: &[1.2],
        help: "Vamana's: more keeps more of the longer edges",
    };
    pub const SEED: Knob = Knob {
        name: "seed",
        default: 0.0,
        sweep: &[0.0],
        help: "of the rotation and the clusters",
    };
    pub const EF: Knob = Knob {
        name: "ef",
        default: 400.0,
        sweep: &[400.0],
        help: "rows kept while searching, at most",
    };
    pub const EPSILON: Knob = Knob {
        name: "epsilon",
        default: 0.05,
        sweep: &[
            -0.08, -0.05, -0.03, -0.01, 0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2,
        ],
        help: "how far beyond the k-th nearest, or less than to it, is searched",
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        let settings = Settings::default()
            .with("nprobe", 8.0)
            .with("epsilon", 0.05);
        assert_eq!(settings.to_string(), "nprobe=8 epsilon=0.05");
        assert_eq!(settings.to_string().parse(), Ok(settings.clone()));
        assert_eq!("nprobe=8,  epsilon=0.05".parse(), Ok(settings));
        assert_eq!("".parse(), Ok(Settings::default()));
        let error = |text: &str| text.parse::<Settings>().unwrap_err().received;
        assert_eq!(["nprobe", "a=1 b=two"].map(error), ["nprobe", "b=two"]);
    }
}
